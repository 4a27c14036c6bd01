// Reads one row of a packed matrix back, for embeddings. Lossless, as packing is.
#include <cstring>

#include "simd.h"
#include "weights.h"

namespace octavo {

using OCTAVO_SET::half_to_float;

namespace {

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

float get_half(const uint8_t* from, int lane) {
    uint16_t value;
    std::memcpy(&value, from + 2 * lane, 2);
    return half_to_float(value);
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
