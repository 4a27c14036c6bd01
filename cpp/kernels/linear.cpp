// Products of packed weights (weights.h) with activations.
//
//   out[t][r] = sum over blocks b of  scale[r][b] x_scale[t][b] (sum_k code[r][k] value[t][k])
//               + min[r][b] x_total[t][b]
//
// Eight rows, a row group, share a vector and columns stay in their lanes, so nothing is added
// across lanes. Two row groups share each load of values. Codes are unsigned and values signed
// bytes, whose products fit 16 bits while `narrow` pairs of them are added; then the sub-scale (or
// 1) multiplies on the way to 32 bits. A format without a min has its offset taken off as if min =
// -offset * scale.
//
// Every output is summed over ascending blocks in one accumulator, whatever the tile, so one token
// gets the same bits as many.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {
namespace {

// Vector i of a block's codes, from its planes; I is known at compile time once loops are unrolled.
template <int BITS, int I>
inline u8x32 vector_of(const uint8_t* block) {
    if constexpr (BITS >= 4) {
        u8x32 low = field<I / 4 * 4, 4, 0>(load(block + 32 * (I % 4)));
        if constexpr (BITS == 4) return low;
        if constexpr (BITS == 5) return low | field<I, 1, 4>(load(block + 128));
        if constexpr (BITS == 6)
            return low | field<I % 4 * 2, 2, 4>(load(block + 128 + 32 * (I / 4)));
    } else {
        u8x32 low = field<I % 4 * 2, 2, 0>(load(block + 32 * (I / 4)));
        if constexpr (BITS == 2) return low;
        if constexpr (BITS == 3) return low | field<I, 1, 2>(load(block + 64));
    }
}

// How many pair products of codes and values may be added in 16 bits.
template <int BITS>
constexpr int narrow() {
    return BITS == 8 ? 1 : BITS == 6 ? 2 : BITS == 5 ? 4 : 8;
}

// sum_k code * value * sub_scale of one block, for G row groups and T tokens: totals[g * T + t].
template <int BITS, int GROUP, bool SUB, int G, int T>
struct Dot {
    static constexpr int STEP = narrow<BITS>() < GROUP / 4 ? narrow<BITS>() : GROUP / 4;

    const uint8_t* const* codes;  // of each row group
    const int8_t* const* subs;    // the same
    const int8_t* values;         // [T][32]
    i32x8* totals;

    INLINE void run() const {
        unrolled<8 / STEP>([&](auto step) INLINE {
            i16x16 scales[G];
            each<G>([&](auto g) INLINE {
                constexpr int AT = LANES * (step * STEP * 4 / GROUP);
                scales[g] = SUB ? load_twice(subs[g] + AT) : ones();
            });
            if constexpr (BITS == 8)
                signed_step<step>(scales);
            else if constexpr (STEP == 2)
                step_of_two<step>(scales);
            else
                long_step<step>(scales);
        });
    }

    template <int step>
    INLINE void widen(i16x16 pairs, i16x16 scale, i32x8& total) const {
        i32x8 part = multiply_pairs(pairs, scale);
        total = step == 0 ? part : total + part;
        if (T > 1 && step > 0) settle(total);
    }

    INLINE i8x32 value(int t, int vector) const {
        return broadcast_four(values + 32 * t + 4 * vector);
    }

    // |code| times the value with the code's sign.
    template <int step>
    INLINE void signed_step(const i16x16* scales) const {
        u8x32 size[G];
        i8x32 negative[G];
        each<G>([&](auto g) INLINE {
            i8x32 w = load((const int8_t*)codes[g] + 32 * step);
            size[g] = magnitude(w), negative[g] = where_negative(w);
        });
        each<T>([&](auto t) INLINE {
            i8x32 x = value(t, step);
            each<G>([&](auto g) INLINE {
                i16x16 pairs = multiply_pairs(size[g], negate_where(negative[g], x));
                widen<step>(pairs, scales[g], totals[g * T + t]);
            });
        });
    }

    // Few products a sum: one token after the other, so that no sum waits in a register.
    template <int step>
    INLINE void step_of_two(const i16x16* scales) const {
        u8x32 first[G], second[G];
        each<G>([&](auto g) INLINE {
            first[g] = vector_of<BITS, 2 * step>(codes[g]);
            second[g] = vector_of<BITS, 2 * step + 1>(codes[g]);
        });
        each<T>([&](auto t) INLINE {
            i8x32 x = value(t, 2 * step), y = value(t, 2 * step + 1);
            each<G>([&](auto g) INLINE {
                i16x16 pairs = multiply_pairs(first[g], x) + multiply_pairs(second[g], y);
                widen<step>(pairs, scales[g], totals[g * T + t]);
            });
        });
    }

    // Many products a sum: one vector of codes after the other, for all tokens. Of 4 bits, both
    // halves of a byte in turn.
    template <int step>
    INLINE void long_step(const i16x16* scales) const {
        i16x16 pairs[G * T];
        unrolled<STEP>([&](auto inner) INLINE {
            constexpr int I = STEP == 8 ? inner / 2 + inner % 2 * 4 : step * STEP + inner;
            u8x32 w[G];
            each<G>([&](auto g) INLINE { w[g] = vector_of<BITS, I>(codes[g]); });
            each<T>([&](auto t) INLINE {
                i8x32 x = value(t, I);
                each<G>([&](auto g) INLINE {
                    i16x16 product = multiply_pairs(w[g], x);
                    i16x16& pair = pairs[g * T + t];
                    pair = inner == 0 ? product : pair + product;
                    if (T > 1) settle(pair);
                });
            });
        });
        each<G * T>([&](auto i) INLINE { widen<step>(pairs[i], scales[i / T], totals[i]); });
    }
};

template <int BITS, int GROUP, bool SUB, bool MIN>
struct Codes {
    static constexpr float OFFSET = BITS == 8 ? 0 : 1 << (BITS - 1);
    static constexpr size_t SUBS = SUB ? sub_bytes(GROUP, MIN) : 0;
    static constexpr bool ADDS_LOW = BITS != 8 && (!SUB || (MIN && GROUP == BLOCK));
    static constexpr size_t AHEAD = 4096;  // bytes; see docs/log.md

    // sums[g * T + t] of G row groups and T tokens.
    template <int G, int T>
    static void tile(const uint8_t* const* groups, int columns, const uint8_t* activations,
                     f32x8* sums) {
        const uint8_t* w[G];
        each<G>([&](auto g) INLINE { w[g] = groups[g]; });
        each<G * T>([&](auto i) INLINE { sums[i] = broadcast(0.0f); });
        f32x8 scale[G] = {}, min[G] = {};
        for (int b = 0; b < columns / BLOCK; ++b) {
            if (!SUB || b % (SUPER / BLOCK) == 0)
                each<G>([&](auto g) INLINE {
                    scale[g] = load_half((const uint16_t*)w[g]);
                    min[g] = MIN   ? load_half((const uint16_t*)w[g] + LANES)
                             : SUB ? scale[g]
                                   : scale[g] * broadcast(-OFFSET);
                    w[g] += header_bytes(MIN);
                });
            const int8_t* subs[G];
            const uint8_t* codes[G];
            each<G>([&](auto g) INLINE {
                for (size_t line = 0; line < SUBS + code_bytes(BITS); line += 64)
                    prefetch(w[g] + AHEAD + line);
                subs[g] = (const int8_t*)w[g], codes[g] = w[g] + SUBS;
                w[g] += SUBS + code_bytes(BITS);
            });
            TileBlock x = tile_block(activations, T, b);
            i32x8 totals[G * T];
            Dot<BITS, GROUP, SUB, G, T>{codes, subs, x.values, totals}.run();
            if constexpr (SUB && !MIN)
                each<G>([&](auto g) INLINE { take_offset<T>(subs[g], x, totals + g * T); });
            f32x8 low[G];  // what the block adds for each 1 of the values' total
            each<G>([&](auto g) INLINE {
                low[g] = SUB && MIN && GROUP == BLOCK ? sub_min(subs[g], min[g]) : min[g];
            });
            each<T>([&](auto t) INLINE {
                f32x8 x_scale = broadcast(x.scales + t), x_total = broadcast(x.totals + t);
                each<G>([&](auto g) INLINE {
                    f32x8& sum = sums[g * T + t];
                    f32x8 next = fma(to_float(totals[g * T + t]), scale[g] * x_scale, sum);
                    sum = ADDS_LOW ? fma(low[g], x_total, next) : next;
                });
            });
            if constexpr (SUB && MIN && GROUP < BLOCK)
                unrolled<G>([&](auto g)
                                INLINE { subtract_mins<T>(subs[g], x, min[g], sums + g * T); });
            if constexpr (T > 2) keep_in_memory(sums);
        }
    }

    // sum_k (code - offset) value sub_scale: the offset's share is known from the values' sums.
    template <int T>
    INLINE static void take_offset(const int8_t* subs, const TileBlock& x, i32x8* totals) {
        i16x16 pair = shift_left<BITS - 1>(load_pairs(subs, subs + LANES * (BLOCK / GROUP - 1)));
        each<T>([&](auto t) INLINE {
            totals[t] = totals[t] - multiply_pairs(pair, broadcast_pair(x.sums + 2 * t));
        });
    }

    INLINE static f32x8 sub_min(const int8_t* subs, f32x8 min) {
        return broadcast(0.0f) - min * load_as_float(subs + LANES * (BLOCK / GROUP));
    }

    template <int T>
    INLINE static void subtract_mins(const int8_t* subs, const TileBlock& x, f32x8 min,
                                     f32x8* sums) {
        const int8_t* mins = subs + LANES * (BLOCK / GROUP);
        i16x16 pair = load_pairs(mins, mins + LANES);
        each<T>([&](auto t) INLINE {
            i32x8 share = multiply_pairs(pair, broadcast_pair(x.sums + 2 * t));
            sums[t] = sums[t] - to_float(share) * (min * broadcast(x.scales + t));
        });
    }
};

// Puts a tile's sums into rows of out, with the bias of their eight rows.
template <int T>
inline void put(const f32x8* sums, int group, int token, const float* bias, Rows out) {
    for (int t = 0; t < T; ++t) {
        f32x8 sum = bias ? sums[t] + load(bias + LANES * group) : sums[t];
        store(out.row(token + t) + LANES * group, sum);
    }
}

// Tokens whose activations stay in the second-level cache while every row group passes over them.
int tokens_at_a_time(int columns) {
    int fit = (int)(256 * 1024 / activation_bytes(1, columns)) / TILE * TILE;
    return fit < TILE ? TILE : fit;
}

template <typename Format>
void run_codes(const Weight& w, int first, int last, const uint8_t* tiles, int tokens,
               const float* bias, Rows out) {
    int step = tokens_at_a_time(w.columns);
    for (int from = 0; from < tokens; from += step) {
        int to = from + step < tokens ? from + step : tokens;
        for (int group = first; group < last; group += 2) {
            bool two = group + 1 < last;  // a lone last group is computed twice, put once
            const uint8_t* rows = w.data + group * w.stride;
            const uint8_t* pair[2] = {rows, two ? rows + w.stride : rows};
            auto run = [&](auto size, int token) {
                constexpr int T = size;
                // From memory, two streams of weights are slower than one after the other.
                constexpr int G = T == 1 ? 1 : 2;
                const uint8_t* x = tiles + activation_bytes(token, w.columns);
                for (int g = 0; g < (two ? 2 : 1); g += G) {
                    f32x8 sums[G * T];
                    Format::template tile<G, T>(pair + g, w.columns, x, sums);
                    put<T>(sums, group + g, token, bias, out);
                    if (G == 2 && two) put<T>(sums + (G - 1) * T, group + 1, token, bias, out);
                }
            };
            for (int token = from; token < to;) {
                int size = tile_size(token, tokens);
                if (size == TILE) run(std::integral_constant<int, TILE>{}, token);
                if (size == 4) run(std::integral_constant<int, 4>{}, token);
                if (size == 2) run(std::integral_constant<int, 2>{}, token);
                if (size == 1) run(std::integral_constant<int, 1>{}, token);
                token += size;
            }
        }
    }
}

// Float weights. GROUPS row groups at a time, so that one token too has sums to take turns with.
template <Kind KIND>
inline f32x8 load_weights(const uint8_t* at) {
    if constexpr (KIND == Kind::f32) return load((const float*)at);
    if constexpr (KIND == Kind::f16) return load_half((const uint16_t*)at);
    if constexpr (KIND == Kind::bf16) return load_bf16((const uint16_t*)at);
}

template <Kind KIND, int GROUPS, int T>
void float_tile(const Weight& w, int group, int token, Rows x, const float* bias, Rows out) {
    constexpr size_t WIDTH = LANES * (KIND == Kind::f32 ? 4 : 2);
    f32x8 sums[GROUPS][T];
    const uint8_t* rows[GROUPS];
    for (int g = 0; g < GROUPS; ++g) {
        rows[g] = w.data + (group + g) * w.stride;
        for (int t = 0; t < T; ++t) sums[g][t] = broadcast(0.0f);
    }
    for (int k = 0; k < w.columns; ++k) {
        f32x8 weights[GROUPS];
        for (int g = 0; g < GROUPS; ++g) weights[g] = load_weights<KIND>(rows[g] + k * WIDTH);
        for (int t = 0; t < T; ++t) {
            f32x8 value = broadcast(x.row(token + t) + k);
            for (int g = 0; g < GROUPS; ++g) sums[g][t] = fma(weights[g], value, sums[g][t]);
        }
    }
    for (int g = 0; g < GROUPS; ++g) put<T>(sums[g], group + g, token, bias, out);
}

template <Kind KIND, int GROUPS>
void float_groups(const Weight& w, int group, Rows x, int tokens, const float* bias, Rows out) {
    int token = 0;
    for (; token + 4 <= tokens; token += 4)
        float_tile<KIND, GROUPS, 4>(w, group, token, x, bias, out);
    for (; token < tokens; ++token) float_tile<KIND, GROUPS, 1>(w, group, token, x, bias, out);
}

template <Kind KIND>
void run_floats(const Weight& w, int first, int last, Rows x, int tokens, const float* bias,
                Rows out) {
    int group = first;
    for (; group + 2 <= last; group += 2) float_groups<KIND, 2>(w, group, x, tokens, bias, out);
    if (group < last) float_groups<KIND, 1>(w, group, x, tokens, bias, out);
}

}  // namespace

void linear(const Weight& w, int first, int last, const uint8_t* tiles, Rows x, int tokens,
            const float* bias, Rows out) {
    auto codes = [&](auto format) {
        run_codes<decltype(format)>(w, first, last, tiles, tokens, bias, out);
    };
    if (w.kind == Kind::f32) return run_floats<Kind::f32>(w, first, last, x, tokens, bias, out);
    if (w.kind == Kind::f16) return run_floats<Kind::f16>(w, first, last, x, tokens, bias, out);
    if (w.kind == Kind::bf16) return run_floats<Kind::bf16>(w, first, last, x, tokens, bias, out);
    if (w.bits == 2) return codes(Codes<2, 16, true, true>{});
    if (w.bits == 3) return codes(Codes<3, 16, true, false>{});
    if (w.bits == 4 && w.has_sub) return codes(Codes<4, 32, true, true>{});
    if (w.bits == 4 && w.has_min) return codes(Codes<4, 32, false, true>{});
    if (w.bits == 4) return codes(Codes<4, 32, false, false>{});
    if (w.bits == 5 && w.has_sub) return codes(Codes<5, 32, true, true>{});
    if (w.bits == 5 && w.has_min) return codes(Codes<5, 32, false, true>{});
    if (w.bits == 5) return codes(Codes<5, 32, false, false>{});
    if (w.bits == 6) return codes(Codes<6, 16, true, false>{});
    codes(Codes<8, 32, false, false>{});
}

}  // namespace octavo::OCTAVO_SET
