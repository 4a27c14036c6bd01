// What is done to one token's row at a time: norms, activations, RoPE, quantizing. Sizes are
// multiples of 8 unless a comment says otherwise; `out` may be an input.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {

constexpr float TINY = 1e-30f;  // a block below it counts as zero: 127 / x would overflow

// value = round(127 x / largest |x|), per block of 32.
void quantize(const float* x, int columns, int token, int tokens, uint8_t* tiles) {
    int first = token / TILE * TILE, size = tile_size(first, tokens);
    while (first + size <= token) first += size, size = tile_size(first, tokens);
    uint8_t* tile = tiles + activation_bytes(first, columns);
    int place = token - first;

    for (int b = 0; b < columns / BLOCK; ++b, x += BLOCK) {
        f32x8 parts[4], peak = broadcast(0.0f);
        for (int i = 0; i < 4; ++i) parts[i] = load(x + 8 * i), peak = max(peak, abs(parts[i]));
        float most = largest(peak), inverse = most > TINY ? 127 / most : 0;

        TileBlock to = tile_block(tile, size, b);
        int8_t* values = to.values + 32 * place;
        i32x8 whole[4];
        for (int i = 0; i < 4; ++i) {
            whole[i] = to_int(parts[i] * broadcast(inverse));
            store_bytes(values + 8 * i, whole[i]);
        }
        float scale = most / 127, low = sum(to_float(whole[0] + whole[1])),
              high = sum(to_float(whole[2] + whole[3]));
        to.scales[place] = scale;
        to.totals[place] = scale * (low + high);
        to.sums[2 * place] = (int16_t)low;
        to.sums[2 * place + 1] = (int16_t)high;
    }
}

// out = x / sqrt(mean(x^2) + eps) * weight
void rms_norm(const float* x, const float* weight, int size, float eps, float* out) {
    f32x8 squares = broadcast(0.0f);
    for (int i = 0; i < size; i += 8) squares = fma(load(x + i), load(x + i), squares);
    f32x8 factor = broadcast(1 / __builtin_sqrtf(sum(squares) / (float)size + eps));
    for (int i = 0; i < size; i += 8) store(out + i, load(x + i) * factor * load(weight + i));
}

void add(const float* a, const float* b, int size, float* out) {
    for (int i = 0; i < size; i += 8) store(out + i, load(a + i) + load(b + i));
}

void scale(const float* x, float factor, int size, float* out) {
    for (int i = 0; i < size; i += 8) store(out + i, load(x + i) * broadcast(factor));
}

void silu_mul(const float* gate, const float* up, int size, float* out) {
    for (int i = 0; i < size; i += 8) store(out + i, silu(load(gate + i)) * load(up + i));
}

void gelu_mul(const float* gate, const float* up, int size, float* out) {
    for (int i = 0; i < size; i += 8) store(out + i, gelu(load(gate + i)) * load(up + i));
}

// Rotates the pairs (x[d], x[d + half]) of each head.
void rope(const float* x, const float* cosines, const float* sines, int heads, int half,
          float* out) {
    for (int h = 0; h < heads; ++h, x += 2 * half, out += 2 * half)
        for (int d = 0; d < half; d += 8) {
            f32x8 a = load(x + d), b = load(x + half + d);
            f32x8 c = load(cosines + d), s = load(sines + d);
            store(out + d, a * c - b * s);
            store(out + half + d, b * c + a * s);
        }
}

}  // namespace octavo::OCTAVO_SET
