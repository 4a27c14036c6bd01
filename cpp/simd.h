// The words that kernels are written in; no file but this, simd_avx2.h and simd_plain.h knows an
// instruction set.
//
//   f32x8           eight floats
//   i32x8           eight 32-bit integers
//   u8x32, i8x32    thirty-two bytes
//   i16x16          sixteen 16-bit sums of products on their way to i32x8
//
// A name says what a lane does, never which instruction does it. Every word exists twice: for AVX2
// with FMA and F16C, and in plain C++, which any compiler turns into what its target has. The two
// agree on integers to the bit; in floats the plain one rounds a product before it is added.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if !defined(__x86_64__)
#include <chrono>
#endif

namespace octavo::OCTAVO_SET {

// Tells the processor that this thread only waits.
inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// A clock of constant speed, read within a few nanoseconds; what a tick is must be measured.
inline uint64_t ticks() {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return (uint64_t)std::chrono::steady_clock::now().time_since_epoch().count();
#endif
}

#if defined(__AVX2__)
#define INLINE __attribute__((always_inline))
#else
#define INLINE
#endif

// Calls f(0), ..., f(N - 1), each number known at compile time. Arrays of vectors must be unrolled
// before GCC decides what lives in registers: its own unrolling comes too late.
template <int N, typename F>
INLINE inline void unrolled(F f) {
    [&]<int... I>(std::integer_sequence<int, I...>) INLINE {
        (f(std::integral_constant<int, I>{}), ...);
    }(std::make_integer_sequence<int, N>{});
}

}  // namespace octavo::OCTAVO_SET

#if defined(__AVX2__)
#include "simd_avx2.h"
#else
#include "simd_plain.h"
#endif
