// Interleaves rows at load, and reads one row back for embeddings. Lossless both ways.
#include <cstring>

#include "simd.h"
#include "weights.h"

namespace octavo {

using OCTAVO_SET::half_to_float;

namespace {

// A group of eight that the rows do not fill is cleared first.
void clear_last_group(const Weight& w, uint8_t* to, int end) {
    if (end % LANES) std::memset(to + end / LANES * w.stride, 0, w.stride);
}

// Spreads one row's 32 codes over the planes of its block, four columns (a word) at a time; lane is
// the row's place among eight.
void put_codes(int bits, const uint8_t* codes, uint8_t* block, int lane) {
    uint32_t words[8];
    std::memcpy(words, codes, sizeof(words));
    auto put = [&](int vector, uint32_t word) {
        std::memcpy(block + 32 * vector + 4 * lane, &word, 4);
    };
    if (bits == 8) {
        for (int i = 0; i < 8; ++i) put(i, words[i]);
        return;
    }
    if (bits >= 4) {
        for (int i = 0; i < 4; ++i)
            put(i, (words[i] & 0x0f0f0f0f) | (words[4 + i] & 0x0f0f0f0f) << 4);
        for (uint32_t& word : words) word = word >> 4 & 0x0f0f0f0f;
        block += 128;
    }
    if (bits == 6 || bits < 4) {
        for (int i = 0; i < 2; ++i) {
            uint32_t plane = 0;
            for (int f = 0; f < 4; ++f) plane |= (words[4 * i + f] & 0x03030303) << 2 * f;
            put(i, plane);
        }
        for (uint32_t& word : words) word = word >> 2 & 0x3f3f3f3f;
        block += 64;
    }
    if (bits == 5 || bits == 3) {
        uint32_t plane = 0;
        for (int f = 0; f < 8; ++f) plane |= (words[f] & 0x01010101) << f;
        put(0, plane);
    }
}

int get_code(int bits, const uint8_t* block, int lane, int column) {
    int i = column / 4, byte = 4 * lane + column % 4;
    if (bits == 8) return (int8_t)block[32 * i + byte];
    int code = 0, shift = 0;
    if (bits >= 4) {
        code = block[32 * (i % 4) + byte] >> (i / 4 * 4) & 15;
        block += 128, shift = 4;
    }
    if (bits == 6 || bits < 4) {
        code |= (block[32 * (i / 4) + byte] >> (i % 4 * 2) & 3) << shift;
        block += 64, shift += 2;
    }
    if (bits == 5 || bits == 3) code |= (block[byte] >> i & 1) << shift;
    return code;
}

void put_half(uint8_t* to, int lane, uint16_t value) { std::memcpy(to + 2 * lane, &value, 2); }

float get_half(const uint8_t* from, int lane) {
    uint16_t value;
    std::memcpy(&value, from + 2 * lane, 2);
    return half_to_float(value);
}

void pack_row(const Weight& w, uint8_t* to, const CodesIn& from, size_t row, int lane) {
    int span = w.has_sub ? SUPER : BLOCK, subs = BLOCK / w.group;
    const uint8_t* codes = from.codes + row * w.columns;
    for (int column = 0; column < w.columns; column += BLOCK) {
        if (column % span == 0) {
            size_t at = row * (w.columns / span) + column / span;
            put_half(to, lane, from.scale[at]);
            if (w.has_min) put_half(to + 2 * LANES, lane, from.min[at]);
            to += header_bytes(w.has_min);
        }
        if (w.has_sub) {
            size_t at = (row * w.columns + column) / w.group;
            for (int s = 0; s < subs; ++s) {
                to[LANES * s + lane] = (uint8_t)from.sub_scale[at + s];
                if (w.has_min) to[LANES * (subs + s) + lane] = (uint8_t)from.sub_min[at + s];
            }
            to += sub_bytes(w.group, w.has_min);
        }
        put_codes(w.bits, codes + column, to, lane);
        to += code_bytes(w.bits);
    }
}

void unpack_codes(const Weight& w, int row, float* out) {
    const uint8_t* from = w.data + row / LANES * w.stride;
    int lane = row % LANES, span = w.has_sub ? SUPER : BLOCK, subs = BLOCK / w.group;
    int offset = w.has_min || w.bits == 8 ? 0 : 1 << (w.bits - 1);
    float scale = 0, min = 0;
    for (int column = 0; column < w.columns; column += BLOCK) {
        if (column % span == 0) {
            scale = get_half(from, lane);
            if (w.has_min) min = get_half(from + 2 * LANES, lane);
            from += header_bytes(w.has_min);
        }
        const int8_t* sub = (const int8_t*)from;
        if (w.has_sub) from += sub_bytes(w.group, w.has_min);
        for (int k = 0; k < BLOCK; ++k) {
            float factor = scale, term = min;
            if (w.has_sub) {
                int s = k / w.group;
                factor = scale * sub[LANES * s + lane];
                if (w.has_min) term = -min * sub[LANES * (subs + s) + lane];
            }
            float value = factor * (float)(get_code(w.bits, from, lane, k) - offset);
            out[column + k] = w.has_min ? value + term : value;
        }
        from += code_bytes(w.bits);
    }
}

}  // namespace

void pack_codes(const Weight& w, uint8_t* to, const CodesIn& from, int first, int rows) {
    clear_last_group(w, to, first + rows);
    for (int i = 0; i < rows; ++i)
        pack_row(w, to + (first + i) / LANES * w.stride, from, i, i % LANES);
}

void pack_floats(const Weight& w, uint8_t* to, const uint8_t* from, int first, int rows) {
    size_t size = w.kind == Kind::f32 ? 4 : 2;
    clear_last_group(w, to, first + rows);
    for (int i = 0; i < rows; ++i, from += w.columns * size) {
        uint8_t* lane = to + (first + i) / LANES * w.stride + i % LANES * size;
        for (int k = 0; k < w.columns; ++k)
            std::memcpy(lane + k * LANES * size, from + k * size, size);
    }
}

void unpack_row(const Weight& w, int row, float* out) {
    if (w.kind == Kind::codes) return unpack_codes(w, row, out);
    const uint8_t* lane = w.data + row / LANES * w.stride;
    for (int k = 0; k < w.columns; ++k) {
        int at = k * LANES + row % LANES;
        if (w.kind == Kind::f32) {
            std::memcpy(out + k, lane + 4 * at, 4);
            continue;
        }
        uint16_t half;
        std::memcpy(&half, lane + 2 * at, 2);
        uint32_t wide = (uint32_t)half << 16;
        if (w.kind == Kind::f16)
            out[k] = half_to_float(half);
        else
            std::memcpy(out + k, &wide, 4);
    }
}

}  // namespace octavo
