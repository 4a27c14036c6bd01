// exp and what is built on it, eight at a time, from the words of simd.h alone.
#pragma once

#include "simd.h"

namespace octavo::OCTAVO_SET {

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2; e^r by its Taylor series to r^7, whose
// next term is below 2^-27. Below -87 the answer is 0, above 88 it is clamped there.
inline f32x8 exp(f32x8 x) {
    f32x8 clamped = min(max(x, broadcast(-87.0f)), broadcast(88.0f));
    f32x8 n = round(clamped * broadcast(1.44269504f));
    f32x8 r = fma(n, broadcast(-0.693359375f), clamped);  // ln 2 in two parts: the first is exact
    r = fma(n, broadcast(2.12194440e-4f), r);
    f32x8 p = broadcast(1.0f / 5040);
    p = fma(p, r, broadcast(1.0f / 720));
    p = fma(p, r, broadcast(1.0f / 120));
    p = fma(p, r, broadcast(1.0f / 24));
    p = fma(p, r, broadcast(1.0f / 6));
    p = fma(p, r, broadcast(0.5f));
    p = fma(p, r, broadcast(1.0f));
    p = fma(p, r, broadcast(1.0f));
    f32x8 power = floats(shift_left<23>(to_int(n) + broadcast(127)));
    return where_less(x, broadcast(-87.0f), broadcast(0.0f), p * power);
}

inline f32x8 silu(f32x8 x) { return x / (broadcast(1.0f) + exp(broadcast(0.0f) - x)); }

// The tanh form: x/2 (1 + tanh(y)) = x / (1 + e^-2y), y = sqrt(2/pi) (x + 0.044715 x^3).
inline f32x8 gelu(f32x8 x) {
    f32x8 y = x * fma(x * x, broadcast(0.044715f), broadcast(1.0f)) * broadcast(0.797884561f);
    return x / (broadcast(1.0f) + exp(y * broadcast(-2.0f)));
}

}  // namespace octavo::OCTAVO_SET
