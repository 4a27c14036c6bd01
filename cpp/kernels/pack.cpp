// Interleaves rows, eight at a time, from how they lie in a file (Plane) to what the other kernels
// read (weights.h), losslessly.
//
// Sixteen bytes of each of eight rows are loaded as four vectors: the same word of all rows each.
// Shifts take the fields out, so that a vector holds a byte each of four columns, and put them
// together again as the block's plane has them.
//
//   of a row in the file, 4 bits      codes, a word of each row       a vector of the block
//   | 1 17 | 2 18 | 3 19 | 4 20 |     | 1 2 3 4 |  | 17 18 19 20 |    | 1 17 | 2 18 | 3 19 | ...
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {
namespace {

constexpr int WORDS = 4;               // of a row, loaded at a time
constexpr int LOADED = WORDS * 4;      // the same in bytes
constexpr uint32_t EACH = 0x01010101;  // times a byte: that byte for each of four columns

// Eight rows, of which the last may be missing: these read the first once more and become zero.
struct Group {
    const uint8_t* rows[LANES];
    int count;
    i32x8 there;  // all bits of the rows that are

    Group(const uint8_t* first, ptrdiff_t stride, int most) : count(most < LANES ? most : LANES) {
        int32_t bits[LANES];
        for (int r = 0; r < LANES; ++r) {
            rows[r] = first + (r < count ? r * stride : 0);
            bits[r] = r < count ? -1 : 0;
        }
        there = load(bits);
    }
};

// Four columns of eight rows.
using Vector = int32_t[LANES];

// The fields of one block, a byte each, in the order of columns.
template <int BITS>
void take_fields(const Plane& plane, const Group& group, size_t at, Vector* out) {
    const i32x8 field = broadcast((int32_t)(((1u << BITS) - 1) * EACH));
    for (int piece = 0; piece < plane.pieces; ++piece, out += 8 / BITS * plane.run / 4)
        for (int byte = 0; byte < plane.run; byte += LOADED) {
            i32x8 words[WORDS];
            load_words(group.rows, at + piece * plane.piece + byte, words);
            for (int i = 0; i < WORDS; ++i) {
                i32x8 word = words[i] & group.there;
                unrolled<8 / BITS>([&](auto f) {
                    store(out[(f * plane.run + byte) / 4 + i], shift_right<f * BITS>(word) & field);
                });
            }
        }
}

// The same of single bits that lie in the order of columns: 32 columns are a word.
void take_bits(const Group& group, size_t at, Vector* out) {
    Vector words;
    for (int r = 0; r < LANES; ++r) std::memcpy(words + r, group.rows[r] + at, 4);
    i32x8 word = load(words) & group.there;
    unrolled<8>([&](auto i) {
        // The product has bit j of the lowest four at bit 8j, among others.
        i32x8 spread = (shift_right<4 * i>(word) & broadcast(15)) * broadcast(0x00204081);
        store(out[i], spread & broadcast((int32_t)EACH));
    });
}

// A block's plane from its eight vectors of fields; see weights.h.
template <int BITS>
void put_fields(const Vector* fields, uint8_t* to) {
    constexpr int APART = BITS == 4 ? 4 : 1, STEP = BITS == 4 ? 1 : 8 / BITS;
    for (int i = 0; i < BITS; ++i, to += sizeof(Vector)) {
        i32x8 vector = load(fields[i * STEP]);
        unrolled<8 / BITS>([&](auto f) {
            vector = vector | shift_left<f * BITS>(load(fields[i * STEP + f * APART]));
        });
        store((int32_t*)to, vector);
    }
}

// Where things are in a group of eight rows.
struct Places {
    int span, blocks;            // columns, and how often that many
    size_t header, subs, block;  // bytes: ahead of a span's, ahead of each 32's codes, of 32 in all

    explicit Places(const Weight& w)
        : span(w.has_sub ? SUPER : BLOCK),
          blocks(w.columns / span),
          header(header_bytes(w.has_min)),
          subs(w.has_sub ? sub_bytes(w.group, w.has_min) : 0),
          block(subs + code_bytes(w.bits)) {}

    size_t stride() const { return header + span / BLOCK * block; }
};

template <int BITS>
void put_plane(const Places& places, const Plane& plane, const Group& group, uint8_t* to) {
    Vector fields[SUPER / 4];
    for (int i = 0; i < places.blocks; ++i, to += places.stride()) {
        if (BITS == 1 && plane.run == 1)
            take_bits(group, i * plane.block, fields);
        else
            take_fields<BITS>(plane, group, i * plane.block, fields);
        for (int b = 0; b < places.span / BLOCK; ++b)
            put_fields<BITS>(fields + 8 * b, to + b * places.block);
    }
}

void put_plane(const Places& places, const Plane& plane, const Group& group, uint8_t* to) {
    switch (plane.bits) {
        case 1:
            return put_plane<1>(places, plane, group, to);
        case 2:
            return put_plane<2>(places, plane, group, to);
        case 4:
            return put_plane<4>(places, plane, group, to);
        case 8:
            return put_plane<8>(places, plane, group, to);
    }
}

void put_halves(const Places& places, const Halves& from, size_t row, int rows, uint8_t* to) {
    const uint8_t* first = from.data + row * from.row;
    for (int i = 0; i < places.blocks; ++i, first += from.block, to += places.stride())
        for (int r = 0; r < rows; ++r) std::memcpy(to + 2 * r, first + r * from.row, 2);
}

// Of each 32 columns, BLOCK / group factors.
void put_factors(const Places& places, const int8_t* from, int columns, int group, int rows,
                 uint8_t* to) {
    int each = BLOCK / group, stride = columns / group;
    for (int i = 0; i < places.blocks; ++i, to += places.header)
        for (int b = 0; b < SUPER / BLOCK; ++b, from += each, to += places.block)
            for (int s = 0; s < each; ++s)
                for (int r = 0; r < rows; ++r) to[LANES * s + r] = (uint8_t)from[r * stride + s];
}

// Rows [row, row + rows) of what is given, as one group.
void pack_group(const Weight& w, const CodesIn& from, size_t row, int rows, uint8_t* to) {
    Places places(w);
    put_halves(places, from.scale, row, rows, to);
    if (w.has_min) put_halves(places, from.min, row, rows, to + 2 * LANES);
    uint8_t* at = to + places.header;
    if (w.has_sub) {
        size_t factor = row * (w.columns / w.group);
        put_factors(places, from.sub_scale + factor, w.columns, w.group, rows, at);
        if (w.has_min)
            put_factors(places, from.sub_min + factor, w.columns, w.group, rows,
                        at + places.subs / 2);
    }
    at += places.subs;
    for (const Plane& plane : from.planes) {
        Group group(plane.data + row * plane.row, plane.row, rows);
        put_plane(places, plane, group, at);
        at += BLOCK * plane.bits;
    }
}

}  // namespace

void pack_codes(const Weight& w, uint8_t* to, const CodesIn& from, int first, int rows) {
    to += first / LANES * w.stride;
    for (int i = 0; i < rows; i += LANES, to += w.stride) {
        int count = rows - i < LANES ? rows - i : LANES;
        if (count < LANES) std::memset(to, 0, w.stride);
        pack_group(w, from, i, count, to);
    }
}

namespace {

void put(i32x8 columns, uint32_t* to) { store((int32_t*)to, columns); }

// Two columns of 16-bit values: the compiler knows how to narrow a vector.
void put(i32x8 columns, uint16_t* to) {
    Vector words;
    store(words, columns);
    for (int r = 0; r < LANES; ++r) {
        to[r] = (uint16_t)words[r];
        to[LANES + r] = (uint16_t)((uint32_t)words[r] >> 16);
    }
}

template <typename T>
void pack_floats_group(const Group& group, int columns, T* to) {
    constexpr int STEP = LOADED / sizeof(T);
    int k = 0;
    for (; k + STEP <= columns; k += STEP) {
        i32x8 words[WORDS];
        load_words(group.rows, k * sizeof(T), words);
        for (int i = 0; i < WORDS; ++i)
            put(words[i] & group.there, to + (k + i * STEP / WORDS) * LANES);
    }
    for (; k < columns; ++k)
        for (int r = 0; r < group.count; ++r)
            std::memcpy(to + k * LANES + r, group.rows[r] + k * sizeof(T), sizeof(T));
}

}  // namespace

void pack_floats(const Weight& w, uint8_t* to, const uint8_t* from, int first, int rows) {
    size_t row_bytes = w.stride / LANES;
    to += first / LANES * w.stride;
    for (int i = 0; i < rows; i += LANES, to += w.stride, from += LANES * row_bytes) {
        if (rows - i < LANES) std::memset(to, 0, w.stride);
        Group group(from, row_bytes, rows - i);
        if (w.kind == Kind::f32)
            pack_floats_group(group, w.columns, (uint32_t*)to);
        else
            pack_floats_group(group, w.columns, (uint16_t*)to);
    }
}

}  // namespace octavo::OCTAVO_SET
