// Attention of some queries over one span of keys, straight from the pages.
//
//   score[r][s] = q[r] . key[s]      r: a query and one of the heads that share the KV head
//   p[r][s]     = e^(score - m[r])   m: the largest score that r may see in the span
//   mixed[r]    = sum_s p[r][s] value[s]
//
// Where numbers are codes, q . key is (q . code) * scale, and the scale of a value goes into p.
//
// Spans lie at fixed places and are merged in ascending order, and every sum runs over ascending
// dims or keys in one accumulator: neither the number of queries nor how a prompt was cut changes a
// bit. Rows share each load of keys and values, six at most; fewer rows take more pages or dims at
// a time, as a multiply-add waits for the one before it. Blocks lie far apart, which no processor
// foresees: while one is read, a later one is called for.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {
namespace {

constexpr int MOST_ROWS = 6;
constexpr int PAGES = SPAN / PAGE;
constexpr int AHEAD = 4;  // blocks

struct Float16 {
    using Number = uint16_t;
    static constexpr bool HAS_SCALES = false;
    static f32x8 eight(const Number* x) { return load_half(x); }
};

struct Int8 {
    using Number = int8_t;
    static constexpr bool HAS_SCALES = true;
    static f32x8 eight(const Number* x) { return load_as_float(x); }
};

// Of one block.
inline float* scales(uint8_t* block, int head_dim) { return (float*)(block + head_dim * PAGE); }
inline const float* scales(const uint8_t* block, int head_dim) {
    return (const float*)(block + head_dim * PAGE);
}

struct Range {
    int from, to;
};  // slots of the span: [from, to)

Range visible(const SpanWork& w, int query) {
    int position = w.position + query, start = w.span * SPAN;
    int from = position - w.window + 1 - start, to = position + 1 - start;
    return {from < 0 ? 0 : from, to > SPAN ? SPAN : to};
}

// Blocks of the span's pages [from, to), in the order in which they are read: keys, then values.
struct Blocks {
    int from, to;
    const uint8_t* at[2 * PAGES + AHEAD];

    Blocks(const SpanWork& w, Range slots)
        : from(slots.from / PAGE), to((slots.to + PAGE - 1) / PAGE) {
        const int32_t* table = w.table + w.span * PAGES;
        int count = to - from;
        for (int i = 0; i < count; ++i) {
            at[i] = w.pages.data + (size_t)table[from + i] * w.pages.page;
            at[count + i] = at[i] + w.pages.value;
        }
        for (int i = 0; i < AHEAD; ++i) at[2 * count + i] = at[2 * count - 1];
    }
    const uint8_t* const* keys(int page) const { return at + page - from; }
    const uint8_t* const* values(int page) const { return at + page - from + to - from; }
};

// sums[v][r] += value(v) * x(r). The shorter side waits in registers while the other passes by.
template <int V, int R, typename Value, typename X>
inline void multiply_add(f32x8 (&sums)[V][R], Value value, X x) {
    if constexpr (R < V) {
        f32x8 xs[R];
        for (int r = 0; r < R; ++r) xs[r] = x(r);
        for (int v = 0; v < V; ++v) {
            f32x8 one = value(v);
            for (int r = 0; r < R; ++r) sums[v][r] = fma(one, xs[r], sums[v][r]);
        }
    } else {
        f32x8 values[V];
        for (int v = 0; v < V; ++v) values[v] = value(v);
        for (int r = 0; r < R; ++r) {
            f32x8 one = x(r);
            for (int v = 0; v < V; ++v) sums[v][r] = fma(values[v], one, sums[v][r]);
        }
    }
}

// Scores of R rows against the keys of N neighbouring pages.
template <typename Kind, int R, int N>
inline void score_pages(const uint8_t* const* blocks, int head_dim, const float* const* q,
                        float* scores) {
    using Number = typename Kind::Number;
    f32x8 sums[2 * N][R];
    for (auto& eight : sums)
        for (f32x8& sum : eight) sum = broadcast(0.0f);
    for (int d = 0; d < head_dim; ++d) {
        for (int n = 0; n < N; ++n) prefetch(blocks[n + AHEAD] + (size_t)d * PAGE * sizeof(Number));
        multiply_add<2 * N, R>(
            sums,
            [&](int v) { return Kind::eight((const Number*)blocks[v / 2] + d * PAGE + v % 2 * 8); },
            [&](int r) { return broadcast(q[r] + d); });
    }
    for (int v = 0; v < 2 * N; ++v, scores += 8)
        for (int r = 0; r < R; ++r) {
            f32x8 score = sums[v][r];
            if constexpr (Kind::HAS_SCALES)
                score = score * load(scales(blocks[v / 2], head_dim) + v % 2 * 8);
            store(scores + r * SPAN, score);
        }
}

// Turns scores into p, times the value's scale if there is one; returns m and the sum of p.
template <typename Kind>
inline void soften(float* scores, const Blocks& blocks, int head_dim, Range seen, Partial& out) {
    static const float COUNT[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    int first = blocks.from * PAGE, end = blocks.to * PAGE;
    if (seen.from >= seen.to) {
        for (int s = first; s < end; ++s) scores[s] = 0;
        out.largest = -__builtin_inff(), out.total = 0;
        return;
    }
    f32x8 from = broadcast((float)seen.from), to = broadcast((float)seen.to);
    f32x8 none = broadcast(-__builtin_inff()), zero = broadcast(0.0f), most = none;
    auto masked = [&](int s, f32x8 x, f32x8 hidden) {
        if (s >= seen.from && s + 8 <= seen.to) return x;
        f32x8 slot = load(COUNT) + broadcast((float)s);
        return where_less(slot, from, hidden, where_less(slot, to, x, hidden));
    };
    for (int s = first; s < end; s += 8) most = max(most, masked(s, load(scores + s), none));
    out.largest = largest(most);
    f32x8 total = zero;
    for (int s = first; s < end; s += 8) {
        f32x8 p = masked(s, exp(load(scores + s) - broadcast(out.largest)), zero);
        total = total + p;
        if constexpr (Kind::HAS_SCALES)
            p = p * load(scales(*blocks.values(s / PAGE), head_dim) + s % PAGE);
        store(scores + s, p);
    }
    out.total = sum(total);
}

// Adds p * value over slots [from, to) of a page to mixed[r][d .. d + 8 N), for R rows.
template <typename Kind, int R, int N>
inline void mix_dims(const uint8_t* const* block, int head_dim, Range slots, const float* p, int d,
                     Partial* const* out) {
    using Number = typename Kind::Number;
    f32x8 sums[N][R];
    for (int n = 0; n < N; ++n)
        for (int r = 0; r < R; ++r) sums[n][r] = load(out[r]->mixed + d + 8 * n);
    for (int s = slots.from; s < slots.to; ++s) {
        size_t at = ((size_t)s * head_dim + d) * sizeof(Number);
        auto* values = (const Number*)(block[0] + at);
        prefetch(block[AHEAD] + at);
        multiply_add<N, R>(
            sums, [&](int v) { return Kind::eight(values + 8 * v); },
            [&](int r) { return broadcast(p + r * SPAN + s); });
    }
    for (int n = 0; n < N; ++n)
        for (int r = 0; r < R; ++r) store(out[r]->mixed + d + 8 * n, sums[n][r]);
}

template <typename Kind, int R>
void attend_rows(const SpanWork& w, int row, Range slots, const Blocks& blocks, float* scores,
                 Partial* out) {
    constexpr int TOGETHER = R == 1 ? 4 : R <= 3 ? 2 : 1;  // pages
    constexpr int WIDE = R == 1 ? 8 : R <= 3 ? 4 : 2;      // eights of dims
    const float* q[R];
    Partial* to[R];
    for (int r = 0; r < R; ++r) {
        int query = (row + r) / w.heads, head = (row + r) % w.heads;
        q[r] = w.q + (size_t)query * w.q_stride + (size_t)head * w.head_dim;
        to[r] = out + row + r;
        for (int d = 0; d < w.head_dim; d += 8) store(to[r]->mixed + d, broadcast(0.0f));
    }
    int page = blocks.from;
    for (; page + TOGETHER <= blocks.to; page += TOGETHER)
        score_pages<Kind, R, TOGETHER>(blocks.keys(page), w.head_dim, q, scores + page * PAGE);
    for (; page < blocks.to; ++page)
        score_pages<Kind, R, 1>(blocks.keys(page), w.head_dim, q, scores + page * PAGE);
    for (int r = 0; r < R; ++r)
        soften<Kind>(scores + r * SPAN, blocks, w.head_dim, visible(w, (row + r) / w.heads),
                     *to[r]);
    for (page = blocks.from; page < blocks.to; ++page) {
        int first = page * PAGE;
        Range own = {slots.from > first ? slots.from - first : 0,
                     slots.to < first + PAGE ? slots.to - first : PAGE};
        int d = 0;
        for (; d + 8 * WIDE <= w.head_dim; d += 8 * WIDE)
            mix_dims<Kind, R, WIDE>(blocks.values(page), w.head_dim, own, scores + first, d, to);
        for (; d < w.head_dim; d += 16)
            mix_dims<Kind, R, 2>(blocks.values(page), w.head_dim, own, scores + first, d, to);
    }
}

template <typename Kind>
void attend_all(const SpanWork& w, Range slots, float* scores, Partial* out) {
    Blocks blocks(w, slots);
    int rows = w.queries * w.heads;
    for (int row = 0; row < rows; row += MOST_ROWS) {
        switch (rows - row) {
            case 1:
                attend_rows<Kind, 1>(w, row, slots, blocks, scores, out);
                break;
            case 2:
                attend_rows<Kind, 2>(w, row, slots, blocks, scores, out);
                break;
            case 3:
                attend_rows<Kind, 3>(w, row, slots, blocks, scores, out);
                break;
            case 4:
                attend_rows<Kind, 4>(w, row, slots, blocks, scores, out);
                break;
            case 5:
                attend_rows<Kind, 5>(w, row, slots, blocks, scores, out);
                break;
            default:
                attend_rows<Kind, MOST_ROWS>(w, row, slots, blocks, scores, out);
        }
    }
}

}  // namespace

bool attend_span(const SpanWork& w, float* scores, Partial* out) {
    // The first query sees furthest back, the last furthest on.
    Range slots = {visible(w, 0).from, visible(w, w.queries - 1).to};
    if (slots.from >= slots.to) return false;
    w.pages.kind == PageKind::int8 ? attend_all<Int8>(w, slots, scores, out)
                                   : attend_all<Float16>(w, slots, scores, out);
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
inline f32x8 held(f32x8 x) { return min(broadcast(65504.0f), max(broadcast(-65504.0f), x)); }

// Where the numbers of one token lie in a block: from `first` on, one every `step`.
struct Place {
    int first, step;
};

// One token's keys or values of one head.
inline void put(Float16, const float* x, int head_dim, uint8_t* block, int, Place at) {
    auto* numbers = (uint16_t*)block + at.first;
    for (int d = 0; d < head_dim; d += 8) {
        uint16_t halves[8];
        store_half(halves, held(load(x + d)));
        for (int i = 0; i < 8; ++i) numbers[(d + i) * at.step] = halves[i];
    }
}

// scale = max |x| / 127, code = round(x / scale)
inline void put(Int8, const float* x, int head_dim, uint8_t* block, int slot, Place at) {
    f32x8 most = broadcast(0.0f), spoilt = most;
    for (int d = 0; d < head_dim; d += 8) {
        most = max(most, abs(held(load(x + d))));
        spoilt = fma(held(load(x + d)), broadcast(0.0f), spoilt);  // NaN where any x is
    }
    float scale = largest(most) / 127 + sum(spoilt);
    scales(block, head_dim)[slot] = scale;
    auto* codes = (int8_t*)block + at.first;
    for (int d = 0; d < head_dim; d += 8) {
        int8_t eight[8];
        f32x8 code = scale == 0 ? broadcast(0.0f) : held(load(x + d)) / broadcast(scale);
        // A scale so small that it lost digits leaves more than 127.
        code = min(broadcast(127.0f), max(broadcast(-127.0f), code));
        store_bytes(eight, to_int(code));
        for (int i = 0; i < 8; ++i) codes[(d + i) * at.step] = eight[i];
    }
}

template <typename Kind>
void store_heads(const float* k, const float* v, Pages pages, int page, int slot, int head_dim,
                 int kv_heads) {
    uint8_t* block = pages.data + (size_t)page * pages.page;
    for (int h = 0; h < kv_heads; ++h, k += head_dim, v += head_dim, block += pages.head) {
        put(Kind(), k, head_dim, block, slot, {slot, PAGE});
        put(Kind(), v, head_dim, block + pages.value, slot, {slot * head_dim, 1});
    }
}

}  // namespace

void store_kv(const float* k, const float* v, Pages pages, int page, int slot, int head_dim,
              int kv_heads) {
    auto store = pages.kind == PageKind::int8 ? store_heads<Int8> : store_heads<Float16>;
    store(k, v, pages, page, slot, head_dim, kv_heads);
}

}  // namespace octavo::OCTAVO_SET
