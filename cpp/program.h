// A model as a flat list of stages, recorded once (octavo/kernels/cpu.py) and replayed every step.
//
//   rows    a chain of operations on one token's rows, token after token
//   linear  matrices that read the same input, cut by output rows
//   attend  queries against the pages, cut by sequence, KV head, and span of keys
//
// Stages up to start_outputs() compute every token of the batch, those after it the rows whose
// logits are wanted. A program owns its buffers and its threads; weights and pages belong to the
// caller.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels.h"
#include "profile.h"
#include "threads.h"

namespace octavo {

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

constexpr int ITEM_ROWS = 24;     // queries x heads that attention takes at a time, where it can
constexpr int MOST_SHARING = 64;  // query heads of one KV head

// One KV group's pages: [page][layer][k|v][kv_head] blocks.
struct Group {
    uint8_t* data;
    PageKind kind;
    int num_pages, num_layers, kv_heads, head_dim, window;

    Pages layer(int index) const {
        size_t head = block_bytes(kind, head_dim), value = head * kv_heads, layer = 2 * value;
        return {data + index * layer, layer * num_layers, head, value, kind};
    }
};

// The tokens of one step; the arrays belong to the caller. See octavo/types.py.
struct Step {
    const int32_t *token_ids, *positions, *starts;
    int tokens, sequences;
    std::vector<const int32_t*> tables;  // per group [sequences][table_width]
    std::vector<int> table_widths;
    const int32_t* outputs;
    int num_outputs;
};

using BufferId = int;

class Program {
  public:
    Program(const Kernels& kernels, int threads, int max_tokens, int max_rows,
            std::vector<Group> groups);

    // A buffer has a row for every token of a step; after start_outputs(), for every wanted row.
    void start_outputs() { taken_ = true; }
    BufferId buffer(int width);
    BufferId tiles(int columns);  // of quantized activations

    void embed(const Weight& table, BufferId out);
    void take(BufferId x, BufferId out);
    void rms_norm(BufferId x, const float* weight, int size, int parts, float eps, BufferId out);
    void add(BufferId a, BufferId b, int size, BufferId out);
    void scale(BufferId x, float factor, int size, BufferId out);
    void silu_mul(BufferId gate, BufferId up, int size, BufferId out);
    void gelu_mul(BufferId gate, BufferId up, int size, BufferId out);
    void angles(const float* inv_freq, int half, BufferId out);
    void rope(BufferId x, BufferId angles, int heads, int half, BufferId out);
    void quantize(BufferId x, int columns, BufferId tiles);
    void store_kv(BufferId k, BufferId v, int group, int layer);
    void attend(BufferId q, int heads, int group, int layer, BufferId out);

    struct Product {
        const Weight* weight;
        const float* bias;
        BufferId out;
        int operation = -1;  // of the profile
    };
    // x is tiles where the weights are codes, floats where they are not.
    void linear(BufferId x, const std::vector<Product>& products);

    // Logits are the first `size` columns of `out`, which the last stage writes.
    void result(BufferId out, int size);

    size_t buffer_bytes() const { return bytes_; }

    // What one operation took between start_profile() and stop_profile(), on all threads together.
    // Two are no recorded ones: "replay", from the first stage to the last, and "elapsed", all of
    // it.
    struct Measured {
        const char* op;
        uint64_t ticks;
        bool is_head = false;                     // after start_outputs()
        const Weight* weight = nullptr;           // of linear
        int heads = 0, head_dim = 0, window = 0;  // of attend
        size_t key_bytes = 0;                     // the same: a token's keys and values
    };
    void start_profile() { profile_.start(threads_); }
    std::vector<Measured> stop_profile();

    struct Logits {
        Rows rows, maxima;  // [rows][size], [rows][blocks]
    };
    void run(const Step& step);
    // Of the wanted rows [first, last) of the last step.
    Logits finish(const Step& step, int first, int last);

  private:
    struct RowOp {
        enum Kind {
            embed,
            take,
            rms_norm,
            add,
            scale,
            silu_mul,
            gelu_mul,
            angles,
            rope,
            quantize,
            store_kv,
            merge,
            maxima
        } kind;
        BufferId a = 0, b = 0, out = 0;
        const void* constant = nullptr;  // a Weight, or floats
        int size = 0, parts = 0;
        float number = 0;
        int operation = -1;  // of the profile
    };
    struct Stage {
        enum Kind { rows, linear, attend } kind;
        std::vector<RowOp> ops = {};          // rows
        std::vector<Product> products = {};   // linear
        BufferId x = 0, out = 0;              // linear, attend
        int heads = 0, group = 0, layer = 0;  // attend
        int operation = -1;                   // of the profile; attend
        bool makes_maxima = false;            // linear: its one product is the logits
    };
    // Attention's unit of work: one KV head of some queries of one sequence, over spans
    // [first_span, last_span). An item that has not all its spans leaves partials behind.
    struct Item {
        int sequence, head, query, queries, first_span, last_span;
        bool split;
    };
    struct GroupPlan {
        std::vector<Item> items;
        std::vector<size_t> partials;  // per token: where its partials start; NOWHERE: not split
        std::vector<float> room;
    };
    static constexpr size_t NOWHERE = ~size_t{0};

    void row_op(const RowOp& op);
    void plan_attention(const Step& step);
    void plan_group(const Step& step, int group);
    std::vector<uint16_t> chunks_of(const std::vector<Stage>& stages, int rows) const;
    void replay(const std::vector<Stage>& stages, int rows);
    void work(const Stage& stage, int chunk, int chunks, int thread);
    void run_row(const RowOp& op, int row);
    void run_products(const Stage& stage, int chunk, int chunks, int thread);
    void run_head(const Stage& stage, int first, int last, int thread);
    void make_maxima(int row, int first, int last);
    void run_item(const Stage& stage, const Item& item, int thread);
    void merge_partials(const RowOp& op, int token);
    int spans_of(const Step& step, int group, int token, int* first) const;
    size_t partial_floats(int group) const { return groups_[group].head_dim + 2; }

    const Kernels& kernels_;
    int threads_;
    std::optional<Pool> pool_;  // made for the stages there are, at the first run
    int max_tokens_, max_rows_;
    std::vector<Group> groups_;
    std::vector<int> group_heads_;  // query heads that read each group

    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    struct Buffer {
        std::unique_ptr<uint8_t, Free> memory;
        int stride;  // floats; 0 for tiles

        Rows rows() const { return {(float*)memory.get(), stride}; }
        uint8_t* tiles() const { return memory.get(); }
    };
    Buffer& add_buffer(size_t bytes, int stride);

    std::vector<Buffer> buffers_;
    std::vector<Stage> body_, head_;
    bool taken_ = false;
    size_t bytes_ = 0;
    Profile profile_;
    int replay_ = profile_.add();
    BufferId logits_ = 0, maxima_ = 0;
    int num_logits_ = 0;

    // Of the step that runs.
    const Step* step_ = nullptr;
    int num_rows_ = 0, first_row_ = 0;
    std::vector<GroupPlan> plans_;
    std::vector<std::vector<float>> scratch_;  // per thread
};

}  // namespace octavo
