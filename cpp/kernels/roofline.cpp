// What the machine can do at most: the limits that speeds are quoted against.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {

float read_bytes(const uint8_t* data, size_t bytes) {
    f32x8 sums[8];
    for (auto& sum : sums) sum = broadcast(0.0f);
    const auto* x = (const float*)data;
    for (size_t i = 0; i + 64 <= bytes / 4; i += 64) {
        prefetch(x + i + 1024);  // further than 2 KB read a tenth more; see docs/log.md
        for (int j = 0; j < 8; ++j) sums[j] = sums[j] + load(x + i + 8 * j);
    }
    for (int j = 1; j < 8; ++j) sums[0] = sums[0] + sums[j];
    return sum(sums[0]);
}

// 32 products and sums of bytes; only the 16-bit additions that a kernel needs too.
int multiply_bytes(size_t rounds) {
    i16x16 sums[8];
    i8x32 x = broadcast_four((const int8_t*)"\1\2\3\4");
    u8x32 w = magnitude(broadcast_four((const int8_t*)"\4\3\2\1"));
    for (auto& sum : sums) sum = ones();
    for (size_t i = 0; i < rounds; ++i)
        for (int repeat = 0; repeat < 4; ++repeat)
            for (auto& sum : sums) {
                sum = sum + multiply_pairs(w, x);
                settle(sum);
            }
    for (int j = 1; j < 8; ++j) sums[0] = sums[0] + sums[j];
    int32_t out[8];
    store(out, multiply_pairs(sums[0], ones()));
    return out[0];
}

float multiply_floats(size_t rounds) {
    f32x8 sums[8], x = broadcast(0.999f);
    for (auto& sum : sums) sum = broadcast(1.0f);
    for (size_t i = 0; i < rounds; ++i)
        for (int repeat = 0; repeat < 4; ++repeat)
            for (auto& sum : sums) sum = fma(sum, x, x);
    for (int j = 1; j < 8; ++j) sums[0] = sums[0] + sums[j];
    return sum(sums[0]);
}

}  // namespace octavo::OCTAVO_SET
