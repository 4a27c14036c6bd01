// The words of simd.h in plain C++.
#pragma once

#include <cstdint>
#include <cstring>

namespace octavo::OCTAVO_SET {

template <typename T, int N>
struct Lanes {
    T v[N];
};
struct f32x8 : Lanes<float, 8> {};
struct i32x8 : Lanes<int32_t, 8> {};
struct i16x16 : Lanes<int16_t, 16> {};
struct u8x32 : Lanes<uint8_t, 32> {};
struct i8x32 : Lanes<int8_t, 32> {};

// The vector whose lane i is f(i).
template <typename V, typename F>
inline V lanes(F f) {
    V out;
    for (unsigned i = 0; i < sizeof(out.v) / sizeof(out.v[0]); ++i) out.v[i] = f(i);
    return out;
}
template <typename V, typename P>
inline V load_lanes(const P* x) {
    V out;
    std::memcpy(out.v, x, sizeof(out.v));
    return out;
}

inline f32x8 broadcast(float x) {
    return lanes<f32x8>([=](int) { return x; });
}
inline f32x8 broadcast(const float* x) { return broadcast(*x); }
inline f32x8 load(const float* x) { return load_lanes<f32x8>(x); }
inline void store(float* to, f32x8 x) { std::memcpy(to, x.v, sizeof(x.v)); }

inline float first(f32x8 x) { return x.v[0]; }

inline f32x8 operator+(f32x8 a, f32x8 b) {
    return lanes<f32x8>([&](int i) { return a.v[i] + b.v[i]; });
}
inline f32x8 operator-(f32x8 a, f32x8 b) {
    return lanes<f32x8>([&](int i) { return a.v[i] - b.v[i]; });
}
inline f32x8 operator*(f32x8 a, f32x8 b) {
    return lanes<f32x8>([&](int i) { return a.v[i] * b.v[i]; });
}
inline f32x8 operator/(f32x8 a, f32x8 b) {
    return lanes<f32x8>([&](int i) { return a.v[i] / b.v[i]; });
}
inline f32x8 max(f32x8 a, f32x8 b) {
    return lanes<f32x8>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline f32x8 min(f32x8 a, f32x8 b) {
    return lanes<f32x8>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline f32x8 abs(f32x8 x) {
    return lanes<f32x8>([&](int i) { return __builtin_fabsf(x.v[i]); });
}
inline f32x8 round(f32x8 x) {
    return lanes<f32x8>([&](int i) { return __builtin_nearbyintf(x.v[i]); });
}
inline f32x8 fma(f32x8 a, f32x8 b, f32x8 c) {
    return lanes<f32x8>([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline f32x8 where_less(f32x8 a, f32x8 b, f32x8 yes, f32x8 no) {
    return lanes<f32x8>([&](int i) { return a.v[i] < b.v[i] ? yes.v[i] : no.v[i]; });
}
inline int lanes_at_least(f32x8 a, f32x8 b) {
    int mask = 0;
    for (int i = 0; i < 8; ++i) mask |= (a.v[i] >= b.v[i]) << i;
    return mask;
}
inline int lanes_unordered(f32x8 a, f32x8 b) {
    int mask = 0;
    for (int i = 0; i < 8; ++i) mask |= (a.v[i] != a.v[i] || b.v[i] != b.v[i]) << i;
    return mask;
}

inline f32x8 to_float(i32x8 x) {
    return lanes<f32x8>([&](int i) { return (float)x.v[i]; });
}
inline i32x8 to_int(f32x8 x) {
    return lanes<i32x8>([&](int i) {
        float whole = __builtin_nearbyintf(x.v[i]);
        return whole >= -0x1p31f && whole < 0x1p31f ? (int32_t)whole : INT32_MIN;
    });
}
inline i32x8 operator+(i32x8 a, i32x8 b) {
    return lanes<i32x8>([&](int i) { return (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]); });
}
inline i32x8 operator-(i32x8 a, i32x8 b) {
    return lanes<i32x8>([&](int i) { return (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]); });
}
inline i32x8 operator*(i32x8 a, i32x8 b) {
    return lanes<i32x8>([&](int i) { return (int32_t)((uint32_t)a.v[i] * (uint32_t)b.v[i]); });
}
inline i32x8 operator^(i32x8 a, i32x8 b) {
    return lanes<i32x8>([&](int i) { return a.v[i] ^ b.v[i]; });
}
inline i32x8 operator&(i32x8 a, i32x8 b) {
    return lanes<i32x8>([&](int i) { return a.v[i] & b.v[i]; });
}
inline i32x8 operator|(i32x8 a, i32x8 b) {
    return lanes<i32x8>([&](int i) { return a.v[i] | b.v[i]; });
}
template <int BY>
inline i32x8 shift_left(i32x8 x) {
    return lanes<i32x8>([&](int i) { return (int32_t)((uint32_t)x.v[i] << BY); });
}
template <int BY>
inline i32x8 shift_right(i32x8 x) {
    return lanes<i32x8>([&](int i) { return (int32_t)((uint32_t)x.v[i] >> BY); });
}
inline i32x8 broadcast(int32_t x) {
    return lanes<i32x8>([=](int) { return x; });
}
inline i32x8 load(const int32_t* x) { return load_lanes<i32x8>(x); }
inline void store(int32_t* to, i32x8 x) { std::memcpy(to, x.v, sizeof(x.v)); }
inline int lanes_below(i32x8 a, i32x8 b) {
    int mask = 0;
    for (int i = 0; i < 8; ++i) mask |= ((uint32_t)a.v[i] < (uint32_t)b.v[i]) << i;
    return mask;
}
inline i32x8 bits(f32x8 x) { return load_lanes<i32x8>(x.v); }
inline f32x8 floats(i32x8 x) { return load_lanes<f32x8>(x.v); }
inline void load_words(const uint8_t* const* rows, size_t at, i32x8* out) {
    for (int i = 0; i < 32; ++i) std::memcpy(&out[i / 8].v[i % 8], rows[i % 8] + at + i / 8 * 4, 4);
}
inline void store_bytes(int8_t* to, i32x8 x) {
    for (int i = 0; i < 8; ++i)
        to[i] = (int8_t)(x.v[i] < -128 ? -128 : x.v[i] > 127 ? 127 : x.v[i]);
}

inline float half_to_float(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, rest = x & 0x7fff;
    if (rest >= 0x7c00) {  // infinite or not a number
        uint32_t bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
        float out;
        std::memcpy(&out, &bits, 4);
        return out;
    }
    uint32_t scaled =
        rest << 13;  // the exponent is 112 too small; one product mends subnormals too
    float out;
    std::memcpy(&out, &scaled, 4);
    out *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &out, 4);
    bits |= sign;
    std::memcpy(&out, &bits, 4);
    return out;
}
inline uint16_t float_to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);   // not a number
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);  // rounds to infinity
    if (rest < 0x38800000) {  // subnormal: let the float adder align and round to even
        float small;
        std::memcpy(&small, &rest, 4);
        small += 0.5f;
        uint32_t low;
        std::memcpy(&low, &small, 4);
        return (uint16_t)(sign | (low - 0x3f000000));
    }
    uint32_t odd = rest >> 13 & 1;
    return (uint16_t)(sign | (rest + 0xc8000fff + odd) >> 13);
}
inline f32x8 load_half(const uint16_t* x) {
    return lanes<f32x8>([&](int i) { return half_to_float(x[i]); });
}
inline void store_half(uint16_t* to, f32x8 x) {
    for (int i = 0; i < 8; ++i) to[i] = float_to_half(x.v[i]);
}
inline f32x8 load_bf16(const uint16_t* x) {
    return floats(lanes<i32x8>([&](int i) { return (int32_t)((uint32_t)x[i] << 16); }));
}

inline u8x32 load(const uint8_t* x) { return load_lanes<u8x32>(x); }
inline i8x32 load(const int8_t* x) { return load_lanes<i8x32>(x); }
inline i8x32 broadcast_four(const int8_t* x) {
    return lanes<i8x32>([&](int i) { return x[i % 4]; });
}
template <int FROM, int WIDTH, int TO>
inline u8x32 field(u8x32 x) {
    return lanes<u8x32>(
        [&](int i) { return (uint8_t)((x.v[i] >> FROM & ((1 << WIDTH) - 1)) << TO); });
}
inline u8x32 operator|(u8x32 a, u8x32 b) {
    return lanes<u8x32>([&](int i) { return (uint8_t)(a.v[i] | b.v[i]); });
}
inline u8x32 magnitude(i8x32 x) {
    return lanes<u8x32>([&](int i) { return (uint8_t)(x.v[i] < 0 ? -x.v[i] : x.v[i]); });
}
inline i8x32 where_negative(i8x32 x) {
    return lanes<i8x32>([&](int i) { return (int8_t)(x.v[i] < 0 ? -1 : 0); });
}
inline i8x32 negate_where(i8x32 mask, i8x32 x) {
    return lanes<i8x32>([&](int i) { return (int8_t)((x.v[i] ^ mask.v[i]) - mask.v[i]); });
}

inline i16x16 multiply_pairs(u8x32 a, i8x32 b) {
    return lanes<i16x16>([&](int i) {
        return (int16_t)(a.v[2 * i] * b.v[2 * i] + a.v[2 * i + 1] * b.v[2 * i + 1]);
    });
}
inline i16x16 operator+(i16x16 a, i16x16 b) {
    return lanes<i16x16>([&](int i) { return (int16_t)(a.v[i] + b.v[i]); });
}
inline i32x8 multiply_pairs(i16x16 a, i16x16 b) {
    return lanes<i32x8>(
        [&](int i) { return a.v[2 * i] * b.v[2 * i] + a.v[2 * i + 1] * b.v[2 * i + 1]; });
}
inline i16x16 ones() {
    return lanes<i16x16>([](int) { return (int16_t)1; });
}
template <int BY>
inline i16x16 shift_left(i16x16 x) {
    return lanes<i16x16>([&](int i) { return (int16_t)((uint16_t)x.v[i] << BY); });
}
inline i16x16 broadcast_pair(const int16_t* x) {
    return lanes<i16x16>([&](int i) { return x[i % 2]; });
}
inline i16x16 load_twice(const int8_t* x) {
    return lanes<i16x16>([&](int i) { return (int16_t)x[i / 2]; });
}
inline i16x16 load_pairs(const int8_t* low, const int8_t* high) {
    return lanes<i16x16>([&](int i) { return (int16_t)(i % 2 ? high[i / 2] : low[i / 2]); });
}
inline f32x8 load_as_float(const int8_t* x) {
    return lanes<f32x8>([&](int i) { return (float)x[i]; });
}

// As `unrolled`, which would take minutes to compile here.
template <int N, typename F>
inline void each(F f) {
    for (int i = 0; i < N; ++i) f(i);
}
template <typename V>
inline void settle(V& x) {
    asm volatile("" : "+m"(x));
}
template <typename V>
inline void keep_in_memory(V*) {}

inline void prefetch(const void*) {}

inline float sum(f32x8 x) {
    float a = x.v[0] + x.v[4], b = x.v[1] + x.v[5], c = x.v[2] + x.v[6], d = x.v[3] + x.v[7];
    return (a + c) + (b + d);
}
inline float largest(f32x8 x) {
    float best = x.v[0];
    for (int i = 1; i < 8; ++i) best = x.v[i] > best ? x.v[i] : best;
    return best;
}

}  // namespace octavo::OCTAVO_SET
