// What cpp/kernels/ offers, once per instruction set, and the plain arguments it takes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "activations.h"
#include "weights.h"

namespace octavo {

struct Rows {  // float32 [tokens][stride]
    float* data;
    int stride;

    float* row(int token) const { return data + (size_t)token * stride; }
};

constexpr int PAGE = 16;   // tokens of a KV page
constexpr int SPAN = 256;  // keys that attention takes at a time: 16 pages

// A block: the keys, or the values, of one page, layer and KV head. Keys lie as [head_dim][PAGE],
// values as [PAGE][head_dim]:
//
//   float16   halves
//   int8      codes, then float scales[PAGE]; a number is its code * the scale of its token
//
// Also written down in octavo/kvcache/pool.py.
enum class PageKind { float16, int8 };

constexpr size_t block_bytes(PageKind kind, int head_dim) {
    size_t numbers = (size_t)head_dim * PAGE;
    return kind == PageKind::int8 ? numbers + PAGE * sizeof(float) : numbers * sizeof(uint16_t);
}

// The blocks of one layer: keys of page p and KV head h are at data + p * page + h * head, its
// values `value` bytes after.
struct Pages {
    uint8_t* data;
    size_t page, head, value;  // bytes from one to the next
    PageKind kind;
};

// What attention has gathered for one query and head over some spans of keys: the largest score,
// the sum of e^(score - largest), and the values weighted by the same.
struct Partial {
    float largest, total;
    float* mixed;  // [head_dim]
};

// One KV head, `queries` neighbouring tokens of one sequence, one span of its keys.
struct SpanWork {
    const int32_t* table;  // the sequence's pages
    Pages pages;
    int head_dim, heads;    // query heads that share the KV head
    int queries, position;  // of the first query
    int window;             // keys a query sees, its own included
    int span;               // keys [span * SPAN, (span + 1) * SPAN)
    const float* q;         // query t, head h: q + t * q_stride + h * head_dim; scaled already
    int q_stride;
};

constexpr int LOGITS_BLOCK = 64;  // neighbours in a row of logits that share a maximum
constexpr int NO_TOKEN = -1;      // the logits hold no choice: not a number, infinite, or all -inf

// Of one row of logits; see octavo/sampling/sampler.py. Prompt and output are those whose tokens
// penalties count, none where there is no penalty.
struct SampleIn {
    float temperature, top_p, min_p;
    int top_k;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    uint32_t position;
    const int32_t* prompt;
    int num_prompt;
    const int32_t* output;
    int num_output;
    const int32_t* bias_ids;
    const float* biases;
    int num_biases;
    const uint32_t* allowed = nullptr;  // bit i allows token i; null: all are
};

struct Kernels {
    const char* name;

    // Fills rows [first, first + rows); first is a multiple of 8. Where the last group of eight
    // has fewer rows, the rest is zero.
    void (*pack_codes)(const Weight& w, uint8_t* to, const CodesIn& from, int first, int rows);
    void (*pack_floats)(const Weight& w, uint8_t* to, const uint8_t* from, int first, int rows);

    // Columns of `tokens` rows -> tiles of activations. Row t of x is token first + t of `tokens`.
    void (*quantize)(const float* x, int columns, int token, int tokens, uint8_t* tiles);

    // out[t][8g .. 8g+7] for the row groups g of [first, last): codes want tiles, floats want x.
    void (*linear)(const Weight& w, int first, int last, const uint8_t* tiles, Rows x, int tokens,
                   const float* bias, Rows out);

    void (*rms_norm)(const float* x, const float* weight, int size, float eps, float* out);
    void (*add)(const float* a, const float* b, int size, float* out);
    void (*scale)(const float* x, float factor, int size, float* out);
    void (*silu_mul)(const float* gate, const float* up, int size, float* out);
    void (*gelu_mul)(const float* gate, const float* up, int size, float* out);
    void (*rope)(const float* x, const float* cosines, const float* sines, int heads, int half,
                 float* out);
    void (*store_kv)(const float* k, const float* v, Pages pages, int page, int slot, int head_dim,
                     int kv_heads);

    // Partial [queries][heads] of a span; scratch of queries * heads * SPAN floats. False where no
    // query of the work sees any key of the span (the partials are then not written).
    bool (*attend_span)(const SpanWork& work, float* scratch, Partial* out);
    void (*merge)(Partial& into, const Partial& next, int head_dim);
    void (*finish)(const Partial& partial, int head_dim, float* out);

    // The maximum of each block of a row of logits; not a number where one of them is not.
    void (*block_maxima)(const float* logits, int size, float* out);
    // A token, or NO_TOKEN. Logits and maxima change while it runs and are then as they were.
    int (*sample)(float* logits, float* maxima, int size, const SampleIn& in);
    float (*log_sum_exp)(const float* logits, const float* maxima, int size);
    // The `count` largest, best first, ties to the lower index. No logit may be not a number.
    void (*top)(const float* logits, const float* maxima, int size, int count, int32_t* ids);

    // Limits of the machine, for `octavo bench roofline`; each returns a value that depends on the
    // work.
    float (*read_bytes)(const uint8_t* data, size_t bytes, size_t ahead);  // 0: nothing prefetched
    int (*multiply_bytes)(size_t rounds);     // 1536 multiply-adds of bytes a round
    float (*multiply_floats)(size_t rounds);  // 384 multiply-adds of floats a round
};

namespace generic {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}

}  // namespace octavo
