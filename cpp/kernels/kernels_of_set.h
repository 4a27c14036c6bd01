// The kernels of the instruction set that this file is compiled for.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "vector_math.h"

namespace octavo::OCTAVO_SET {

void pack_codes(const Weight& w, uint8_t* to, const CodesIn& from, int first, int rows);
void pack_floats(const Weight& w, uint8_t* to, const uint8_t* from, int first, int rows);

void quantize(const float* x, int columns, int token, int tokens, uint8_t* tiles);
void linear(const Weight& w, int first, int last, const uint8_t* tiles, Rows x, int tokens,
            const float* bias, Rows out);

void rms_norm(const float* x, const float* weight, int size, float eps, float* out);
void add(const float* a, const float* b, int size, float* out);
void scale(const float* x, float factor, int size, float* out);
void silu_mul(const float* gate, const float* up, int size, float* out);
void gelu_mul(const float* gate, const float* up, int size, float* out);
void rope(const float* x, const float* cosines, const float* sines, int heads, int half,
          float* out);

void store_kv(const float* k, const float* v, Pages pages, int page, int slot, int head_dim,
              int kv_heads);
bool attend_span(const SpanWork& work, float* scratch, Partial* out);
void merge(Partial& into, const Partial& next, int head_dim);
void finish(const Partial& partial, int head_dim, float* out);

void block_maxima(const float* logits, int size, float* out);
int sample(float* logits, float* maxima, int size, const SampleIn& in);
float log_sum_exp(const float* logits, const float* maxima, int size);
void top(const float* logits, const float* maxima, int size, int count, int32_t* ids);

float read_bytes(const uint8_t* data, size_t bytes, size_t ahead);
int multiply_bytes(size_t rounds);
float multiply_floats(size_t rounds);

}  // namespace octavo::OCTAVO_SET
