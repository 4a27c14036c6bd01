// What the machine can do at most: the limits that speeds are quoted against.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {

float read_bytes(const uint8_t* data, size_t bytes, size_t ahead) {
    f32x8 sums[8];
    for (auto& sum : sums) sum = broadcast(0.0f);
    const auto* x = (const float*)data;
    for (size_t i = 0; i + 64 <= bytes / 4; i += 64) {
        if (ahead)
            for (int line = 0; line < 256; line += 64)
                prefetch((const uint8_t*)(x + i) + ahead + line);
        for (int j = 0; j < 8; ++j) sums[j] = sums[j] + load(x + i + 8 * j);
    }
    for (int j = 1; j < 8; ++j) sums[0] = sums[0] + sums[j];
    return sum(sums[0]);
}

// Twelve sums take turns: two multipliers of four cycles' latency wait for fewer.
constexpr int SUMS = 12;

// Products of 32 bytes and nothing else: what is added to them may run beside them.
int multiply_bytes(size_t rounds) {
    i8x32 x = broadcast_four((const int8_t*)"\1\2\3\4");
    u8x32 w = magnitude(broadcast_four((const int8_t*)"\4\3\2\1"));
    i16x16 product = ones();
    for (size_t i = 0; i < rounds; ++i)
        each<4 * SUMS>([&](auto) INLINE {
            product = multiply_pairs(w, x);
            settle(product);  // it is wanted,
            settle(w);        // and the next one is not the same
        });
    int32_t out[8];
    store(out, multiply_pairs(product, ones()));
    return out[0];
}

float multiply_floats(size_t rounds) {
    f32x8 sums[SUMS], x = broadcast(0.999f);
    each<SUMS>([&](auto i) INLINE { sums[i] = broadcast(1.0f); });
    for (size_t i = 0; i < rounds; ++i)
        each<4 * SUMS>([&](auto j) INLINE {
            sums[j % SUMS] = fma(sums[j % SUMS], x, x);
            settle(sums[j % SUMS]);  // all twelve are alike: one would do
        });
    each<SUMS - 1>([&](auto i) INLINE { sums[0] = sums[0] + sums[i + 1]; });
    return sum(sums[0]);
}

}  // namespace octavo::OCTAVO_SET
