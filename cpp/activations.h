// Quantized activations: the other side of a product with codes.
//
// Tokens are taken in tiles of 6, then 4, 2, 1 for the rest; a tile of T tokens is, per block of 32
// columns, 44 T bytes:
//
//   i8 value[T][32]   f32 scale[T]   f32 total[T]   i16 sum[T][2]
//
//   x = scale * value;  sum: of the first and the last 16 values;  total = scale * (sum0 + sum1)
#pragma once

#include <cstddef>
#include <cstdint>

namespace octavo {

constexpr int TILE = 6;  // the most tokens of a tile
constexpr int TOKEN_BLOCK_BYTES = 44;

inline size_t activation_bytes(size_t tokens, int columns) {
    return tokens * (columns / 32) * TOKEN_BLOCK_BYTES;
}

// The tile that starts at token `first` when `tokens` are to be covered.
inline int tile_size(int first, int tokens) {
    int rest = tokens - first;
    return rest >= TILE ? TILE : rest >= 4 ? 4 : rest >= 2 ? 2 : 1;
}

struct TileBlock {
    int8_t* values;
    float *scales, *totals;
    int16_t* sums;
};

template <typename Byte>
inline TileBlock tile_block(Byte* tile, int size, int block) {
    auto* at = (uint8_t*)tile + (size_t)block * size * TOKEN_BLOCK_BYTES;
    return {(int8_t*)at, (float*)(at + 32 * size), (float*)(at + 36 * size),
            (int16_t*)(at + 40 * size)};
}

}  // namespace octavo
