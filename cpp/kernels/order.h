// A row of logits as tokens in one order: logit descending, then id ascending. Nothing is sorted,
// and little is read: a row comes with the maxima of its blocks, and a block that does not reach a
// bound is passed over.
#pragma once

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {

constexpr float INF = __builtin_inff();

inline float larger(float x) { return std::nextafter(x, INF); }

// NaN where one of them is not a number.
inline float best_of(const float* x, int size) {
    f32x8 most = broadcast(-INF);
    int i = 0, nans = 0;
    for (; i + 16 <= size; i += 16) {
        f32x8 a = load(x + i), b = load(x + i + 8);
        nans |= lanes_unordered(a, b);
        most = max(most, max(a, b));
    }
    float best = largest(most);
    for (; i < size; ++i) nans |= x[i] != x[i], best = x[i] > best ? x[i] : best;
    return nans ? __builtin_nanf("") : best;
}

inline int count_at_least(const float* x, int size, float bound) {
    int i = 0, count = 0;
    for (; i + 8 <= size; i += 8)
        count += __builtin_popcount(lanes_at_least(load(x + i), broadcast(bound)));
    for (; i < size; ++i) count += x[i] >= bound;
    return count;
}

inline int blocks_of(int size) { return (size + LOGITS_BLOCK - 1) / LOGITS_BLOCK; }

// ---- masks: bit i of an array of words allows token i; no array allows all

inline uint64_t allowed_in(const uint32_t* allowed, int block, int size) {
    int word = block * (LOGITS_BLOCK / 32);
    uint64_t low = allowed[word], high = word + 1 < (size + 31) / 32 ? allowed[word + 1] : 0;
    return high << 32 | low;
}

// Of LOGITS_BLOCK logits those whose bits are set, the others are -inf.
inline void keep_allowed(uint64_t bits, const float* x, float* out) {
    static const int32_t BITS[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    for (int i = 0; i < LOGITS_BLOCK; i += 8) {
        f32x8 bit = to_float(broadcast((int32_t)(bits >> i & 255)) & load(BITS));
        store(out + i, where_less(bit, broadcast(1.0f), broadcast(-INF), load(x + i)));
    }
}

// The blocks of a row under a mask; the last is filled up with -inf. `maxima` are no less than what
// is allowed of each block, and equal to it where there is no mask.
struct Blocks {
    const float *logits, *maxima;
    int size, count;
    const uint32_t* allowed;
    float tail[LOGITS_BLOCK];
    mutable float masked[LOGITS_BLOCK];  // the block last asked for

    Blocks(const float* logits, const float* maxima, int size, const uint32_t* allowed = nullptr)
        : logits(logits), maxima(maxima), size(size), count(blocks_of(size)), allowed(allowed) {
        std::fill_n(tail, LOGITS_BLOCK, -INF);
        std::copy(logits + size / LOGITS_BLOCK * LOGITS_BLOCK, logits + size, tail);
        if (allowed && size % LOGITS_BLOCK)
            keep_allowed(allowed_in(allowed, count - 1, size), tail, tail);
    }

    // Valid until the next block is asked for.
    const float* at(int block) const {
        int first = block * LOGITS_BLOCK;
        if (first + LOGITS_BLOCK > size) return tail;
        if (!allowed) return logits + first;
        keep_allowed(allowed_in(allowed, block, size), logits + first, masked);
        return masked;
    }

    float logit(int id) const {
        return !allowed || allowed[id / 32] >> id % 32 & 1 ? logits[id] : -INF;
    }

    // Calls look(first id, logits) for the blocks that have a logit of at least bound(), ascending.
    template <typename Bound, typename Look>
    void each(Bound bound, Look look) const {
        int block = 0;
        for (; block + 8 <= count; block += 8)
            for (int mask = lanes_at_least(load(maxima + block), broadcast(bound())); mask;
                 mask &= mask - 1) {
                int b = block + __builtin_ctz(mask);
                if (maxima[b] >= bound()) look(b * LOGITS_BLOCK, at(b));
            }
        for (; block < count; ++block)
            if (maxima[block] >= bound()) look(block * LOGITS_BLOCK, at(block));
    }

    // The first token whose logit is at least `bound`; there is one.
    int first(float bound) const {
        int block = 0, id;
        while (block < count - 1 && maxima[block] < bound) ++block;
        for (id = block * LOGITS_BLOCK; id < size - 1 && logit(id) < bound;) ++id;
        return id;
    }
};

// What maxima become under a mask: bounds from above, of which the largest is exact.
inline const float* bounds_of_allowed(const Blocks& row) {
    thread_local std::vector<float> bounds;
    if (bounds.size() < (size_t)row.count) bounds.resize(row.count);
    float best = -INF;
    for (int block = 0; block < row.count; ++block) {
        uint64_t bits = allowed_in(row.allowed, block, row.size);
        float bound = bits ? row.maxima[block] : -INF;
        if (bound > best && bits + 1) bound = best_of(row.at(block), LOGITS_BLOCK);
        bounds[block] = bound;
        best = std::max(best, bound);
    }
    return bounds.data();
}

struct Token {
    float logit;
    int id;
};

inline bool better(const Token& a, const Token& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

constexpr int NOBODY_AFTER = INT_MAX;  // an id

// The tokens up to and with `last`.
struct Cut {
    Token last;

    bool keeps(Token token) const { return !better(last, token); }

    // Calls look(first id, logits, bound) for the blocks that have a logit of at least bound() and
    // may have some that are kept: those of at least the bound that it is given.
    template <typename Bound, typename Look>
    void each(const Blocks& row, Bound bound, Look look) const {
        float above = larger(last.logit);
        row.each([&] { return std::max(bound(), last.logit); },
                 [&](int first, const float* x) {
                     if (first > last.id) return look(first, x, above);
                     if (last.id - first >= LOGITS_BLOCK - 1) return look(first, x, last.logit);
                     float some[LOGITS_BLOCK];
                     for (int i = 0; i < LOGITS_BLOCK; ++i)
                         some[i] = keeps({x[i], first + i}) ? x[i] : -INF;
                     look(first, (const float*)some, last.logit);
                 });
    }
};

// Bit i is set where logit i of a block is at least `bound`.
inline uint64_t block_at_least(const float* x, float bound) {
    uint64_t mask = 0;
    for (int i = 0; i < LOGITS_BLOCK; i += 8)
        mask |= (uint64_t)lanes_at_least(load(x + i), broadcast(bound)) << i;
    return mask;
}

// ---- the k-th token

// Integers in the order of floats, and back.
inline int32_t key_of(float x) {
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits < 0 ? bits ^ INT_MAX : bits;
}
inline float float_of(int32_t key) {
    int32_t bits = key < 0 ? key ^ INT_MAX : key;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// A bound that at least k numbers reach and no more than `most`; the k-th largest where none is.
// No less than `low`, which at least k reach.
inline float bound_for(const float* x, int size, int k, int most, float low, float largest) {
    int64_t reached = key_of(low), missed = (int64_t)key_of(largest) + 1;
    while (missed - reached > 1) {
        int64_t middle = reached + (missed - reached) / 2;
        int count = count_at_least(x, size, float_of((int32_t)middle));
        (count < k ? missed : reached) = middle;
        if (count >= k && count <= most) break;
    }
    return float_of((int32_t)reached);
}

// A bound that most likely a few more than k logits reach, judged by a sample of them.
inline float likely_bound(const Blocks& row, int k, float best) {
    constexpr int SAMPLES = 1024;
    if (row.size < 4 * SAMPLES) return -INF;
    float samples[SAMPLES];
    for (int i = 0; i < SAMPLES; ++i)
        samples[i] = row.logit((int)((int64_t)row.size * i / SAMPLES));
    double rank = (double)k * SAMPLES / row.size;
    rank += 4 * std::sqrt(rank) + 4;  // four standard deviations
    if (rank >= SAMPLES) return -INF;
    return bound_for(samples, SAMPLES, (int)rank, (int)rank + 8, -INF, best);
}

// How many logits are at least `bound`; they go to `out`, as many as the row may have.
inline int gather(const Blocks& row, float bound, float* out) {
    int count = 0;
    auto look = [&](int, const float* x) {
        for (uint64_t mask = block_at_least(x, bound); mask; mask &= mask - 1)
            out[count++] = x[__builtin_ctzll(mask)];
    };
    row.each([=] { return bound; }, look);
    return count;
}

// The token k of the order, or what keeps as many.
inline Token kth(const Blocks& row, int k, float best) {
    if (k >= row.size) return {-INF, NOBODY_AFTER};
    thread_local std::vector<float> room;
    if (room.size() < (size_t)row.count * LOGITS_BLOCK)
        room.resize((size_t)row.count * LOGITS_BLOCK);
    float* some = room.data();
    // Each of k blocks has one at least as large as the k-th largest maximum, but for a mask.
    float bound = k <= row.count ? bound_for(row.maxima, row.count, k, k + k / 4, -INF, best)
                                 : likely_bound(row, k, best);
    int count = gather(row, larger(bound), some);
    bool is_guess = k > row.count || row.allowed;
    if (count < k && is_guess && gather(row, bound, some) < k)
        count = gather(row, larger(bound = -INF), some);
    // Fewer than k are above the bound, so the k-th is equal to it; else it is among them.
    Token last = {bound, NOBODY_AFTER};
    if (count >= k) {
        last.logit = bound_for(some, count, k, k, larger(bound), best);
        if (count_at_least(some, count, last.logit) == k) return last;
        count = count_at_least(some, count, larger(last.logit));
    }
    row.each([&] { return count < k ? last.logit : INF; },
             [&](int first, const float* x) {
                 for (int i = 0; i < LOGITS_BLOCK && count < k; ++i)
                     if (x[i] == last.logit && ++count == k) last.id = first + i;
             });
    return last;
}

// ---- weights

// e^((logit - best) / temperature).
struct Weight32 {
    f32x8 best, factor;

    Weight32(float best, double temperature)
        : best(broadcast(best)), factor(broadcast((float)std::min(1 / temperature, 1e30))) {}
    f32x8 operator()(f32x8 logits) const { return exp((logits - best) * factor); }
};

// Between it and ROUGHLY times it: the mantissa is the fraction f of the exponent of 2, and
// 1 <= (1 + f) / 2^f <= 1.0615.
struct RoughWeight {
    static constexpr double ROUGHLY = 1.0616, ROUNDING = 1e-4;
    f32x8 best, factor;

    RoughWeight(float best, double temperature)
        : best(broadcast(best)),
          factor(broadcast((float)std::min(1 / temperature, 1e30) * 1.44269504f * 0x1p23f)) {}
    f32x8 operator()(f32x8 logits) const {
        f32x8 bits = fma(logits - best, factor, broadcast(127 * 0x1p23f));
        return floats(to_int(max(bits, broadcast(0x1p23f))));
    }
};

// Of the tokens that are kept: in float32 within a block, in double precision across blocks.
template <typename Weight>
double weight(const Blocks& row, const Cut& cut, Weight of) {
    double total = 0;
    cut.each(
        row, [] { return -INF; },
        [&](int, const float* x, float bound) {
            f32x8 sums = broadcast(0.0f);
            for (int i = 0; i < LOGITS_BLOCK; i += 8) {
                f32x8 logits = load(x + i);
                sums = sums + where_less(logits, broadcast(bound), broadcast(0.0f), of(logits));
            }
            total += sum(sums);
        });
    return total;
}

// The tokens that top_p leaves of a cut: what is before each weighs less than top_p of the cut.
struct Nucleus {
    const Blocks& row;
    const Cut& cut;
    float best;
    double temperature, top_p;
    RoughWeight rough{best, temperature};
    double all = top_p * weight(row, cut, rough);

    bool has(Token token) const {
        constexpr double FACTOR = RoughWeight::ROUGHLY + RoughWeight::ROUNDING;
        Cut before{{token.logit, token.id - 1}};
        double some = weight(row, before, rough);
        if (some * FACTOR < all) return true;
        if (some > all * FACTOR) return false;
        Weight32 exact(best, temperature);
        return weight(row, before, exact) < top_p * weight(row, cut, exact);
    }
};

}  // namespace octavo::OCTAVO_SET
