// Attention of some queries over one span of keys, straight from the pages.
//
//   score[r][s] = q[r] . key[s]      r: a query and one of the heads that share the KV head
//   p[r][s]     = e^(score - m[r])   m: the largest score that r may see in the span
//   mixed[r]    = sum_s p[r][s] value[s]
//
// Spans lie at fixed places and are merged in ascending order, and every sum runs over ascending
// keys in one accumulator: neither the number of queries nor how a prompt was cut changes a bit.
// Rows share each load of keys and values, six at most.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {
namespace {

constexpr int MOST_ROWS = 6;

struct Range {
    int from, to;
};  // slots of the span: [from, to)

Range visible(const SpanWork& w, int query) {
    int position = w.position + query, start = w.span * SPAN;
    int from = position - w.window + 1 - start, to = position + 1 - start;
    return {from < 0 ? 0 : from, to > SPAN ? SPAN : to};
}

// Scores of R rows against the 16 keys of a page.
template <int R>
inline void score_page(const uint16_t* keys, int head_dim, const float* const* q, float* scores) {
    f32x8 low[R], high[R];
    for (int r = 0; r < R; ++r) low[r] = high[r] = broadcast(0.0f);
    for (int d = 0; d < head_dim; ++d, keys += PAGE) {
        f32x8 first = load_half(keys), second = load_half(keys + 8);
        for (int r = 0; r < R; ++r) {
            f32x8 x = broadcast(q[r] + d);
            low[r] = fma(first, x, low[r]);
            high[r] = fma(second, x, high[r]);
        }
    }
    for (int r = 0; r < R; ++r)
        store(scores + r * SPAN, low[r]), store(scores + r * SPAN + 8, high[r]);
}

// Turns scores into p; returns m and the sum of p.
inline void soften(float* scores, Range pages, Range seen, Partial& out) {
    static const float COUNT[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    if (seen.from >= seen.to) {
        for (int s = pages.from; s < pages.to; ++s) scores[s] = 0;
        out.largest = -__builtin_inff(), out.total = 0;
        return;
    }
    f32x8 from = broadcast((float)seen.from), to = broadcast((float)seen.to);
    f32x8 none = broadcast(-__builtin_inff()), zero = broadcast(0.0f), most = none;
    auto masked = [&](int s, f32x8 x, f32x8 hidden) {
        f32x8 slot = load(COUNT) + broadcast((float)s);
        return where_less(slot, from, hidden, where_less(slot, to, x, hidden));
    };
    for (int s = pages.from; s < pages.to; s += 8)
        most = max(most, masked(s, load(scores + s), none));
    out.largest = largest(most);
    f32x8 total = zero;
    for (int s = pages.from; s < pages.to; s += 8) {
        f32x8 p = masked(s, exp(load(scores + s) - broadcast(out.largest)), zero);
        store(scores + s, p);
        total = total + p;
    }
    out.total = sum(total);
}

// mixed[r][d .. d+15] for R rows: sum over the visible slots of p * value.
template <int R>
inline void mix(const SpanWork& w, Range slots, const float* p, int d, Partial* const* out) {
    f32x8 low[R], high[R];
    for (int r = 0; r < R; ++r) low[r] = high[r] = broadcast(0.0f);
    const int32_t* table = w.table + w.span * (SPAN / PAGE);
    for (int s = slots.from; s < slots.to;) {
        int page = s / PAGE, end = (page + 1) * PAGE < slots.to ? (page + 1) * PAGE : slots.to;
        const uint16_t* values = w.pages.data + (size_t)table[page] * w.pages.page + w.pages.value +
                                 (size_t)(s % PAGE) * w.head_dim + d;
        for (; s < end; ++s, values += w.head_dim) {
            f32x8 first = load_half(values), second = load_half(values + 8);
            for (int r = 0; r < R; ++r) {
                f32x8 x = broadcast(p + r * SPAN + s);
                low[r] = fma(first, x, low[r]);
                high[r] = fma(second, x, high[r]);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        store(out[r]->mixed + d, low[r]), store(out[r]->mixed + d + 8, high[r]);
}

template <int R>
void attend_rows(const SpanWork& w, int row, Range slots, float* scores, Partial* out) {
    const float* q[R];
    Partial* to[R];
    for (int r = 0; r < R; ++r) {
        int query = (row + r) / w.heads, head = (row + r) % w.heads;
        q[r] = w.q + (size_t)query * w.q_stride + (size_t)head * w.head_dim;
        to[r] = out + row + r;
    }
    const int32_t* table = w.table + w.span * (SPAN / PAGE);
    Range pages = {slots.from / PAGE * PAGE, (slots.to + PAGE - 1) / PAGE * PAGE};
    for (int s = pages.from; s < pages.to; s += PAGE)
        score_page<R>(w.pages.data + (size_t)table[s / PAGE] * w.pages.page, w.head_dim, q,
                      scores + s);
    for (int r = 0; r < R; ++r)
        soften(scores + r * SPAN, pages, visible(w, (row + r) / w.heads), *to[r]);
    for (int d = 0; d < w.head_dim; d += 16) mix<R>(w, slots, scores, d, to);
}

}  // namespace

bool attend_span(const SpanWork& w, float* scores, Partial* out) {
    // The first query sees furthest back, the last furthest on.
    Range slots = {visible(w, 0).from, visible(w, w.queries - 1).to};
    if (slots.from >= slots.to) return false;
    int rows = w.queries * w.heads;
    for (int row = 0; row < rows;) {
        int left = rows - row;
        switch (left < MOST_ROWS ? left : MOST_ROWS) {
            case 6:
                attend_rows<6>(w, row, slots, scores, out);
                break;
            case 5:
                attend_rows<5>(w, row, slots, scores, out);
                break;
            case 4:
                attend_rows<4>(w, row, slots, scores, out);
                break;
            case 3:
                attend_rows<3>(w, row, slots, scores, out);
                break;
            case 2:
                attend_rows<2>(w, row, slots, scores, out);
                break;
            default:
                attend_rows<1>(w, row, slots, scores, out);
        }
        row += left < MOST_ROWS ? left : MOST_ROWS;
    }
    return true;
}

// A partial that saw nothing (total 0) changes nothing, so spans out of a window may be merged or
// left out alike.
void merge(Partial& into, const Partial& next, int head_dim) {
    if (!(next.total > 0)) return;
    if (!(into.total > 0)) {
        for (int d = 0; d < head_dim; d += 8) store(into.mixed + d, load(next.mixed + d));
        into.largest = next.largest, into.total = next.total;
        return;
    }
    float largest = into.largest > next.largest ? into.largest : next.largest;
    f32x8 keep = exp(broadcast(into.largest - largest));
    f32x8 take = exp(broadcast(next.largest - largest));
    into.total = first(fma(broadcast(into.total), keep, broadcast(next.total) * take));
    into.largest = largest;
    for (int d = 0; d < head_dim; d += 8)
        store(into.mixed + d, fma(load(into.mixed + d), keep, load(next.mixed + d) * take));
}

void finish(const Partial& partial, int head_dim, float* out) {
    f32x8 inverse = broadcast(1 / partial.total);
    for (int d = 0; d < head_dim; d += 8) store(out + d, load(partial.mixed + d) * inverse);
}

namespace {

// An infinity in a page would make NaN of every query that gives it no weight at all, so that a
// token's answer would depend on what else is in its chunk. NaN stays NaN.
inline f32x8 within_half(f32x8 x) { return min(broadcast(65504.0f), max(broadcast(-65504.0f), x)); }

}  // namespace

void store_kv(const float* k, const float* v, Pages pages, int page, int slot, int head_dim,
              int kv_heads) {
    for (int h = 0; h < kv_heads; ++h, k += head_dim, v += head_dim) {
        uint16_t* keys = pages.data + (size_t)page * pages.page + h * pages.head;
        uint16_t* values = keys + pages.value + (size_t)slot * head_dim;
        for (int d = 0; d < head_dim; d += 8) {
            uint16_t halves[8];
            store_half(halves, within_half(load(k + d)));
            for (int i = 0; i < 8; ++i) keys[(d + i) * PAGE + slot] = halves[i];
            store_half(values + d, within_half(load(v + d)));
        }
    }
}

}  // namespace octavo::OCTAVO_SET
