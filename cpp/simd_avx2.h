// The words of simd.h for AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace octavo::OCTAVO_SET {

struct f32x8 {
    __m256 v;
};
struct i32x8 {
    __m256i v;
};
struct i16x16 {
    __m256i v;
};
struct u8x32 {
    __m256i v;
};
struct i8x32 {
    __m256i v;
};

inline f32x8 broadcast(float x) { return {_mm256_set1_ps(x)}; }
inline f32x8 broadcast(const float* x) { return {_mm256_broadcast_ss(x)}; }
inline f32x8 load(const float* x) { return {_mm256_loadu_ps(x)}; }
inline void store(float* to, f32x8 x) { _mm256_storeu_ps(to, x.v); }

inline float first(f32x8 x) { return _mm256_cvtss_f32(x.v); }

inline f32x8 operator+(f32x8 a, f32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline f32x8 operator-(f32x8 a, f32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline f32x8 operator*(f32x8 a, f32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline f32x8 operator/(f32x8 a, f32x8 b) { return {_mm256_div_ps(a.v, b.v)}; }
// Of a number and NaN, the second of the two.
inline f32x8 max(f32x8 a, f32x8 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline f32x8 min(f32x8 a, f32x8 b) { return {_mm256_min_ps(a.v, b.v)}; }
inline f32x8 abs(f32x8 x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }
inline f32x8 round(f32x8 x) {
    return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// a * b + c
inline f32x8 fma(f32x8 a, f32x8 b, f32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

// where a < b: yes, elsewhere: no
inline f32x8 where_less(f32x8 a, f32x8 b, f32x8 yes, f32x8 no) {
    return {_mm256_blendv_ps(no.v, yes.v, _mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))};
}
// Bit i is set where a >= b in lane i.
inline int lanes_at_least(f32x8 a, f32x8 b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ));
}

// Bit i is set where lane i of a or of b is not a number.
inline int lanes_unordered(f32x8 a, f32x8 b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_UNORD_Q));
}

inline f32x8 to_float(i32x8 x) { return {_mm256_cvtepi32_ps(x.v)}; }
inline i32x8 to_int(f32x8 x) { return {_mm256_cvtps_epi32(x.v)}; }  // to nearest, ties to even
inline i32x8 operator+(i32x8 a, i32x8 b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline i32x8 operator-(i32x8 a, i32x8 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline i32x8 operator*(i32x8 a, i32x8 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline i32x8 operator^(i32x8 a, i32x8 b) { return {_mm256_xor_si256(a.v, b.v)}; }
inline i32x8 operator&(i32x8 a, i32x8 b) { return {_mm256_and_si256(a.v, b.v)}; }
inline i32x8 operator|(i32x8 a, i32x8 b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int BY>
inline i32x8 shift_left(i32x8 x) {
    return {_mm256_slli_epi32(x.v, BY)};
}
template <int BY>
inline i32x8 shift_right(i32x8 x) {
    return {_mm256_srli_epi32(x.v, BY)};
}  // zeros come in
inline i32x8 broadcast(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline i32x8 load(const int32_t* x) { return {_mm256_loadu_si256((const __m256i*)x)}; }
inline void store(int32_t* to, i32x8 x) { _mm256_storeu_si256((__m256i*)to, x.v); }
// Bit i is set where a < b in lane i, both without sign.
inline int lanes_below(i32x8 a, i32x8 b) {
    __m256i sign = _mm256_set1_epi32(INT32_MIN);
    __m256i less = _mm256_cmpgt_epi32(_mm256_xor_si256(b.v, sign), _mm256_xor_si256(a.v, sign));
    return _mm256_movemask_ps(_mm256_castsi256_ps(less));
}
inline i32x8 bits(f32x8 x) { return {_mm256_castps_si256(x.v)}; }
inline f32x8 floats(i32x8 x) { return {_mm256_castsi256_ps(x.v)}; }
// Lane r of out[i] is word i of the four that begin `at` bytes behind rows[r].
inline void load_words(const uint8_t* const* rows, size_t at, i32x8* out) {
    auto load_two = [&](int r) {
        return _mm256_loadu2_m128i((const __m128i*)(rows[r + 4] + at),
                                   (const __m128i*)(rows[r] + at));
    };
    __m256i a = load_two(0), b = load_two(1), c = load_two(2), d = load_two(3);
    __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
    out[0] = {_mm256_unpacklo_epi64(ab, cd)}, out[1] = {_mm256_unpackhi_epi64(ab, cd)};
    ab = _mm256_unpackhi_epi32(a, b), cd = _mm256_unpackhi_epi32(c, d);
    out[2] = {_mm256_unpacklo_epi64(ab, cd)}, out[3] = {_mm256_unpackhi_epi64(ab, cd)};
}
inline void store_bytes(int8_t* to, i32x8 x) {  // eight values in -128..127
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
    _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
}

inline f32x8 load_half(const uint16_t* x) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x))};
}
inline float half_to_float(uint16_t x) { return _cvtsh_ss(x); }
inline uint16_t float_to_half(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
inline void store_half(uint16_t* to, f32x8 x) {
    _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline f32x8 load_bf16(const uint16_t* x) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}

inline u8x32 load(const uint8_t* x) { return {_mm256_loadu_si256((const __m256i*)x)}; }
inline i8x32 load(const int8_t* x) { return {_mm256_loadu_si256((const __m256i*)x)}; }
// The same four bytes in each of the eight lanes.
inline i8x32 broadcast_four(const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return {_mm256_set1_epi32(four)};
}
// Field of WIDTH bits that starts at bit FROM of every byte, moved to bit TO.
template <int FROM, int WIDTH, int TO>
inline u8x32 field(u8x32 x) {
    __m256i moved = x.v;
    if constexpr (FROM > TO) moved = _mm256_srli_epi16(moved, FROM - TO);
    if constexpr (FROM < TO) moved = _mm256_slli_epi16(moved, TO - FROM);
    return {_mm256_and_si256(moved, _mm256_set1_epi8((char)(((1 << WIDTH) - 1) << TO)))};
}
inline u8x32 operator|(u8x32 a, u8x32 b) { return {_mm256_or_si256(a.v, b.v)}; }
inline u8x32 magnitude(i8x32 x) { return {_mm256_abs_epi8(x.v)}; }
inline i8x32 where_negative(i8x32 x) { return {_mm256_cmpgt_epi8(_mm256_setzero_si256(), x.v)}; }
// Two operations that any unit does; the one that does both shares its units with products.
inline i8x32 negate_where(i8x32 mask, i8x32 x) {
    return {_mm256_sub_epi8(_mm256_xor_si256(x.v, mask.v), mask.v)};
}

// Lane i is a[2i] * b[2i] + a[2i+1] * b[2i+1]; the caller sees to it that it fits 16 bits.
inline i16x16 multiply_pairs(u8x32 a, i8x32 b) { return {_mm256_maddubs_epi16(a.v, b.v)}; }
inline i16x16 operator+(i16x16 a, i16x16 b) { return {_mm256_add_epi16(a.v, b.v)}; }
// Lane i is a[2i] * b[2i] + a[2i+1] * b[2i+1].
inline i32x8 multiply_pairs(i16x16 a, i16x16 b) { return {_mm256_madd_epi16(a.v, b.v)}; }
inline i16x16 ones() { return {_mm256_set1_epi16(1)}; }
template <int BY>
inline i16x16 shift_left(i16x16 x) {
    return {_mm256_slli_epi16(x.v, BY)};
}
inline i16x16 broadcast_pair(const int16_t* x) {
    int32_t two;
    std::memcpy(&two, x, 4);
    return {_mm256_set1_epi32(two)};
}
// Eight bytes, each in both 16-bit halves of its 32-bit lane.
inline i16x16 load_twice(const int8_t* x) {
    __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)x));
    return {_mm256_or_si256(_mm256_slli_epi32(wide, 16),
                            _mm256_and_si256(wide, _mm256_set1_epi32(0xffff)))};
}
// Lane i holds the pair low[i], high[i].
inline i16x16 load_pairs(const int8_t* low, const int8_t* high) {
    __m256i l = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)low));
    __m256i h = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)high));
    return {
        _mm256_or_si256(_mm256_slli_epi32(h, 16), _mm256_and_si256(l, _mm256_set1_epi32(0xffff)))};
}
inline f32x8 load_as_float(const int8_t* x) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)x)))};
}

template <int N, typename F>
INLINE inline void each(F f) {
    unrolled<N>(f);
}

// The compiler must believe that x is used here and may have changed. GCC would otherwise form all
// products of a tile first and add them as a tree, through memory; see docs/log.md.
template <typename V>
inline void settle(V& x) {
    asm volatile("" : "+x"(x.v));
}

// The same of an array: it is read from memory and written back, and takes no registers between.
template <typename V>
inline void keep_in_memory(V* x) {
    asm volatile("" : : "r"(x) : "memory");
}

inline void prefetch(const void* x) { _mm_prefetch((const char*)x, _MM_HINT_T0); }

// Lanes are added in one fixed order: halves, then quarters, then the last two.
inline float sum(f32x8 x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(f32x8 x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace octavo::OCTAVO_SET
