// A weight matrix as the kernels read it: eight rows interleaved, so that a vector holds the same
// columns of eight rows and no sum ever crosses lanes.
//
// Floats:   [8 rows of the group][column][row]          f32, f16 or bf16
//
// Codes come in blocks of 8 rows x 32 columns, 32 * bits bytes, made of bit planes. In a plane of
// vectors, byte 4r+j of vector i belongs to row r, column 4i+j:
//
//   4-bit plane, 4 vectors   vector i: low nibble = vector i, high nibble = vector 4+i
//   2-bit plane, 2 vectors   vector i: bits 2f, 2f+1 = vector 4i+f
//   1-bit plane, 1 vector    bit f = vector f
//   8 bits, 8 vectors        signed, as they are
//
//   bits   planes        weight = scale * (code - offset) + min;  without a min, offset =
//   2^(bits-1)
//     2    2
//     3    2, 1          one scale (and min) per 32 columns:
//     4    4                 block:  f16 scale[8]  (f16 min[8])  codes
//     5    4, 1
//     6    4, 2          sub-scales (K-quants), per 256 columns:
//     8    8                 f16 scale[8]  (f16 min[8])  then 8 of
//                                i8 sub_scale[32 / group][8]  (i8 sub_min[32 / group][8])  codes
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace octavo {

constexpr int LANES = 8;    // rows interleaved
constexpr int BLOCK = 32;   // columns of a block of codes
constexpr int SUPER = 256;  // columns that share a scale in the K-quants

enum class Kind : uint8_t { codes, f32, f16, bf16 };

struct Weight {
    const uint8_t* data;  // row groups, each `stride` bytes
    size_t stride;
    int rows, columns;
    Kind kind;
    int bits, group;  // of codes
    bool has_min, has_sub;

    int row_groups() const { return (rows + LANES - 1) / LANES; }
};

// Whether cpp/kernels/linear.cpp has a kernel for such codes.
constexpr bool has_codes(int bits, int group, bool has_min, bool has_sub) {
    if (!has_sub) return group == 32 && (bits == 4 || bits == 5 || (bits == 8 && !has_min));
    if (has_min) return (bits == 2 && group == 16) || ((bits == 4 || bits == 5) && group == 32);
    return (bits == 3 || bits == 6) && group == 16;
}

constexpr size_t header_bytes(bool has_min) { return LANES * 2 * (has_min ? 2 : 1); }
constexpr size_t sub_bytes(int group, bool has_min) {
    return LANES * (BLOCK / group) * (has_min ? 2 : 1);
}
constexpr size_t code_bytes(int bits) { return BLOCK * bits; }

// Bytes of one group of eight rows.
inline size_t stride_of(const Weight& w) {
    switch (w.kind) {
        case Kind::f32:
            return (size_t)w.columns * LANES * 4;
        case Kind::f16:
        case Kind::bf16:
            return (size_t)w.columns * LANES * 2;
        case Kind::codes:
            break;
    }
    if (w.has_sub)
        return w.columns / SUPER *
               (header_bytes(w.has_min) +
                SUPER / BLOCK * (sub_bytes(w.group, w.has_min) + code_bytes(w.bits)));
    return w.columns / BLOCK * (header_bytes(w.has_min) + code_bytes(w.bits));
}

// The same bits of all codes, as they lie in a file; strides are in bytes. A row is blocks of BLOCK
// or SUPER columns, a block is pieces of `run` bytes. The lowest `bits` of a piece's bytes belong
// to its first `run` columns, the next ones to the columns behind them, and so on. `run` is a
// multiple of 16, or it is 1, for the single bits of 32 columns in order.
struct Plane {
    const uint8_t* data;
    ptrdiff_t row, block, piece;
    int pieces, run, bits;
};

// Half-precision numbers, one a block.
struct Halves {
    const uint8_t* data;
    ptrdiff_t row, block;
};

// What a matrix of integer codes is packed from, row by row; see octavo/quant/_codes.py.
struct CodesIn {
    std::vector<Plane> planes;  // those of the block
    Halves scale, min;
    const int8_t* sub_scale;  // [rows, columns / group], or null
    const int8_t* sub_min;    // the same, or null
};

// out[columns] = row `row` as floats
void unpack_row(const Weight& w, int row, float* out);

}  // namespace octavo
