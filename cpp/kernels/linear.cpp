// Products of packed weights (weights.h) with activations.
//
//   out[t][r] = sum over blocks b of  scale[r][b] x_scale[t][b] (sum_k code[r][k] value[t][k])
//               + min[r][b] x_total[t][b]
//
// Eight rows share a vector and columns stay in their lanes, so nothing is added across lanes.
// Codes are unsigned and values signed bytes, whose products fit 16 bits while NARROW pairs of them
// are added; then the sub-scale (or 1) multiplies on the way to 32 bits. A format without a min has
// its offset taken off as if min = -offset * scale.
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

template <int N, typename F>
inline void unrolled(F f) {
    [&]<int... I>(std::integer_sequence<int, I...>) {
        (f(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

// sum_k code * value * sub_scale of one block, for T tokens.
template <int BITS, int GROUP, bool SUB, int T>
inline void dot(const uint8_t* codes, const int8_t* subs, const int8_t* values, i32x8* totals) {
    constexpr int STEP = narrow<BITS>() < GROUP / 4 ? narrow<BITS>() : GROUP / 4;
    i16x16 scales[BLOCK / GROUP];
    for (int s = 0; s < BLOCK / GROUP; ++s) scales[s] = SUB ? load_twice(subs + LANES * s) : ones();
    unrolled<8 / STEP>([&](auto step) {
        i16x16 pairs[T];
        unrolled<STEP>([&](auto inner) {
            constexpr int I = step * STEP + inner;
            if constexpr (BITS == 8) {
                i8x32 w = load((const int8_t*)codes + 32 * I);
                u8x32 size = magnitude(w);
                for (int t = 0; t < T; ++t) {
                    i8x32 x = broadcast_four(values + 32 * t + 4 * I);
                    pairs[t] = multiply_pairs(size, with_sign_of(x, w));
                }
            } else {
                u8x32 w = vector_of<BITS, I>(codes);
                for (int t = 0; t < T; ++t) {
                    i16x16 product = multiply_pairs(w, broadcast_four(values + 32 * t + 4 * I));
                    pairs[t] = inner == 0 ? product : pairs[t] + product;
                    if (T > 1) settle(pairs[t]);
                }
            }
        });
        constexpr int GROUP_OF_STEP = step * STEP * 4 / GROUP;
        for (int t = 0; t < T; ++t) {
            i32x8 part = multiply_pairs(pairs[t], scales[GROUP_OF_STEP]);
            totals[t] = step == 0 ? part : totals[t] + part;
            if (T > 1 && STEP <= 2) settle(totals[t]);
        }
    });
}

template <int BITS, int GROUP, bool SUB, bool MIN>
struct Codes {
    static constexpr float OFFSET = BITS == 8 ? 0 : 1 << (BITS - 1);
    static constexpr size_t SUBS = SUB ? sub_bytes(GROUP, MIN) : 0;
    static constexpr size_t AHEAD = 4096;  // bytes; see docs/log.md

    template <int T>
    static void tile(const uint8_t* w, int columns, const uint8_t* activations, f32x8* sums) {
        for (int t = 0; t < T; ++t) sums[t] = broadcast(0.0f);
        f32x8 scale, min;
        for (int b = 0; b < columns / BLOCK; ++b) {
            if (!SUB || b % (SUPER / BLOCK) == 0) {
                scale = load_half((const uint16_t*)w);
                min = MIN   ? load_half((const uint16_t*)w + LANES)
                      : SUB ? scale
                            : scale * broadcast(-OFFSET);
                w += header_bytes(MIN);
            }
            if constexpr (T == 1)
                for (size_t line = 0; line < SUBS + code_bytes(BITS); line += 64)
                    prefetch(w + AHEAD + line);
            const int8_t* subs = (const int8_t*)w;
            TileBlock x = tile_block(activations, T, b);
            i32x8 totals[T];
            dot<BITS, GROUP, SUB, T>(w + SUBS, subs, x.values, totals);
            if constexpr (SUB && !MIN) take_offset<T>(subs, x, totals);
            for (int t = 0; t < T; ++t) {
                f32x8 both = scale * broadcast(x.scales + t);
                sums[t] = fma(to_float(totals[t]), both, sums[t]);
            }
            if constexpr (SUB && MIN) subtract_mins<T>(subs, x, min, sums);
            if constexpr (!SUB && BITS != 8)
                for (int t = 0; t < T; ++t) sums[t] = fma(min, broadcast(x.totals + t), sums[t]);
            w += SUBS + code_bytes(BITS);
        }
    }

    // sum_k (code - offset) value sub_scale: the offset's share is known from the values' sums.
    template <int T>
    static void take_offset(const int8_t* subs, const TileBlock& x, i32x8* totals) {
        i16x16 pair = load_pairs(subs, subs + LANES * (BLOCK / GROUP - 1));
        for (int t = 0; t < T; ++t)
            totals[t] = totals[t] -
                        shift_left<BITS - 1>(multiply_pairs(pair, broadcast_pair(x.sums + 2 * t)));
    }

    template <int T>
    static void subtract_mins(const int8_t* subs, const TileBlock& x, f32x8 min, f32x8* sums) {
        const int8_t* mins = subs + LANES * (BLOCK / GROUP);
        if constexpr (GROUP == BLOCK) {
            f32x8 m = broadcast(0.0f) - min * load_as_float(mins);
            for (int t = 0; t < T; ++t) sums[t] = fma(m, broadcast(x.totals + t), sums[t]);
        } else {
            i16x16 pair = load_pairs(mins, mins + LANES);
            for (int t = 0; t < T; ++t) {
                i32x8 share = multiply_pairs(pair, broadcast_pair(x.sums + 2 * t));
                f32x8 both = min * broadcast(x.scales + t);
                sums[t] = sums[t] - to_float(share) * both;
            }
        }
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
        for (int group = first; group < last; ++group) {
            const uint8_t* rows = w.data + group * w.stride;
            for (int token = from; token < to;) {
                const uint8_t* x = tiles + activation_bytes(token, w.columns);
                f32x8 sums[TILE];
                int size = tile_size(token, tokens);
                switch (size) {
                    case 8:
                        Format::template tile<8>(rows, w.columns, x, sums);
                        put<8>(sums, group, token, bias, out);
                        break;
                    case 4:
                        Format::template tile<4>(rows, w.columns, x, sums);
                        put<4>(sums, group, token, bias, out);
                        break;
                    case 2:
                        Format::template tile<2>(rows, w.columns, x, sums);
                        put<2>(sums, group, token, bias, out);
                        break;
                    default:
                        Format::template tile<1>(rows, w.columns, x, sums);
                        put<1>(sums, group, token, bias, out);
                }
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
