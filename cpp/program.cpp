#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <stdexcept>

namespace octavo {

namespace {

constexpr size_t CHUNK_BYTES =
    32 * 1024;  // of weights; a smaller chunk costs more than it balances

// Row groups of a block of logits; and as many as are written before their maxima are made, so that
// sixteen rows of them are still in the first-level cache.
constexpr int BLOCK_GROUPS = LOGITS_BLOCK / LANES, SLAB = 4 * BLOCK_GROUPS;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Rows of a power of two bytes fall on the same cache sets; an odd number of lines does not.
int padded(int width) {
    int lines = ceil_div(width, 16);
    return 16 * (lines | 1);
}

}  // namespace

Program::Program(const Kernels& kernels, int threads, int max_tokens, int max_rows,
                 std::vector<Group> groups)
    : kernels_(kernels),
      threads_(threads),
      max_tokens_(max_tokens),
      max_rows_(max_rows),
      groups_(std::move(groups)),
      group_heads_(groups_.size(), 0),
      plans_(groups_.size()),
      scratch_(threads) {}

// ---- recording

Program::Buffer& Program::add_buffer(size_t bytes, int stride) {
    bytes = (bytes + 127) / 64 * 64;
    auto* memory = (uint8_t*)std::aligned_alloc(64, bytes);
    if (!memory) throw std::bad_alloc();
    std::fill_n(memory, bytes, 0);
    bytes_ += bytes;
    return buffers_.emplace_back(std::unique_ptr<uint8_t, Free>(memory), stride);
}

BufferId Program::buffer(int width) {
    int stride = padded(width), rows = taken_ ? max_rows_ : max_tokens_;
    add_buffer((size_t)rows * stride * 4, stride);
    return (int)buffers_.size() - 1;
}

BufferId Program::tiles(int columns) {
    add_buffer(activation_bytes(taken_ ? max_rows_ : max_tokens_, columns), 0);
    return (int)buffers_.size() - 1;
}

void Program::row_op(const RowOp& op) {
    auto& stages = taken_ ? head_ : body_;
    if (stages.empty() || stages.back().kind != Stage::rows)
        stages.push_back({.kind = Stage::rows});
    stages.back().ops.push_back(op);
}

void Program::embed(const Weight& table, BufferId out) {
    row_op({.kind = RowOp::embed, .out = out, .constant = &table});
}

void Program::take(BufferId x, BufferId out) {
    row_op({.kind = RowOp::take, .a = x, .out = out, .size = buffers_[x].stride});
}

void Program::rms_norm(BufferId x, const float* weight, int size, int parts, float eps,
                       BufferId out) {
    row_op({.kind = RowOp::rms_norm,
            .a = x,
            .out = out,
            .constant = weight,
            .size = size,
            .parts = parts,
            .number = eps});
}

void Program::add(BufferId a, BufferId b, int size, BufferId out) {
    row_op({.kind = RowOp::add, .a = a, .b = b, .out = out, .size = size});
}

void Program::scale(BufferId x, float factor, int size, BufferId out) {
    row_op({.kind = RowOp::scale, .a = x, .out = out, .size = size, .number = factor});
}

void Program::silu_mul(BufferId gate, BufferId up, int size, BufferId out) {
    row_op({.kind = RowOp::silu_mul, .a = gate, .b = up, .out = out, .size = size});
}

void Program::gelu_mul(BufferId gate, BufferId up, int size, BufferId out) {
    row_op({.kind = RowOp::gelu_mul, .a = gate, .b = up, .out = out, .size = size});
}

void Program::angles(const float* inv_freq, int half, BufferId out) {
    row_op({.kind = RowOp::angles, .out = out, .constant = inv_freq, .size = half});
}

void Program::rope(BufferId x, BufferId angles, int heads, int half, BufferId out) {
    row_op({.kind = RowOp::rope, .a = x, .b = angles, .out = out, .size = half, .parts = heads});
}

void Program::quantize(BufferId x, int columns, BufferId tiles) {
    row_op({.kind = RowOp::quantize, .a = x, .out = tiles, .size = columns});
}

void Program::store_kv(BufferId k, BufferId v, int group, int layer) {
    row_op({.kind = RowOp::store_kv, .a = k, .b = v, .size = group, .parts = layer});
}

void Program::attend(BufferId q, int heads, int group, int layer, BufferId out) {
    group_heads_[group] = heads;
    body_.push_back({.kind = Stage::attend,
                     .x = q,
                     .out = out,
                     .heads = heads,
                     .group = group,
                     .layer = layer});
    row_op({.kind = RowOp::merge, .out = out, .size = group});
}

void Program::linear(BufferId x, const std::vector<Product>& products) {
    (taken_ ? head_ : body_).push_back({.kind = Stage::linear, .products = products, .x = x});
}

// The matrix that makes the logits makes their maxima too, while they are in the cache; where it is
// some other stage, each row is read once more.
void Program::result(BufferId out, int size) {
    logits_ = out, num_logits_ = size, maxima_ = buffer(ceil_div(size, LOGITS_BLOCK));
    Stage* last = head_.empty() ? nullptr : &head_.back();
    if (last && last->products.size() == 1 && last->products[0].out == out)
        last->makes_maxima = true;
    else
        row_op({.kind = RowOp::maxima});
}

// ---- replaying

void Program::run(const Step& step) {
    step_ = &step;
    plan_attention(step);
    replay(body_, step.tokens);
    step_ = nullptr;
}

Program::Logits Program::finish(const Step& step, int first, int last) {
    step_ = &step;
    first_row_ = first;
    replay(head_, last - first);
    step_ = nullptr;
    return {buffers_[logits_].rows(), buffers_[maxima_].rows()};
}

void Program::replay(const std::vector<Stage>& stages, int rows) {
    num_rows_ = rows;
    if (rows == 0) return;
    if (!pool_) pool_.emplace(threads_, std::max(body_.size(), head_.size()));
    std::vector<uint16_t> chunks = chunks_of(stages, rows);
    pool_->run(chunks, [&](int stage, int chunk, int thread) {
        work(stages[stage], chunk, chunks[stage], thread);
    });
}

std::vector<uint16_t> Program::chunks_of(const std::vector<Stage>& stages, int rows) const {
    int most = threads_ == 1 ? 1 : 6 * threads_;
    std::vector<uint16_t> chunks;
    for (const Stage& stage : stages) {
        size_t count = std::min(rows, most);
        if (stage.kind == Stage::attend)
            count = std::min<size_t>(plans_[stage.group].items.size(), Pool::MOST_CHUNKS);
        if (stage.kind == Stage::linear) {
            size_t bytes = 0, groups = 0;
            for (auto& product : stage.products) {
                groups += product.weight->row_groups();
                bytes += product.weight->row_groups() * product.weight->stride;
            }
            count = bytes * ceil_div(rows, TILE) / CHUNK_BYTES;
            count = std::clamp<size_t>(count, 1, std::min<size_t>(groups, most));
        }
        chunks.push_back((uint16_t)count);
    }
    return chunks;
}

void Program::work(const Stage& stage, int chunk, int chunks, int thread) {
    auto share = [&](size_t count, int of) { return (int)((int64_t)count * of / chunks); };
    switch (stage.kind) {
        case Stage::rows:
            for (int row = share(num_rows_, chunk); row < share(num_rows_, chunk + 1); ++row)
                for (const RowOp& op : stage.ops) run_row(op, row);
            return;
        case Stage::linear:
            return run_products(stage, chunk, chunks);
        case Stage::attend:
            const auto& items = plans_[stage.group].items;
            int last = share(items.size(), chunk + 1);
            for (int i = share(items.size(), chunk); i < last; ++i)
                run_item(stage, items[i], thread);
    }
}

void Program::run_products(const Stage& stage, int chunk, int chunks) {
    int total = 0;
    for (auto& product : stage.products) total += product.weight->row_groups();
    int unit = stage.makes_maxima ? BLOCK_GROUPS : 1, units = ceil_div(total, unit);
    int first = (int)((int64_t)units * chunk / chunks) * unit;
    int last = std::min(total, (int)((int64_t)units * (chunk + 1) / chunks) * unit);
    if (stage.makes_maxima) return run_head(stage, first, last);
    for (auto& product : stage.products) {
        int groups = product.weight->row_groups();
        if (first < groups && last > 0)
            kernels_.linear(*product.weight, std::max(first, 0), std::min(last, groups),
                            buffers_[stage.x].tiles(), buffers_[stage.x].rows(), num_rows_,
                            product.bias, buffers_[product.out].rows());
        first -= groups, last -= groups;
    }
}

void Program::run_head(const Stage& stage, int first, int last) {
    const Product& product = stage.products[0];
    for (int from = first; from < last; from += SLAB) {
        int to = std::min(from + SLAB, last);
        kernels_.linear(*product.weight, from, to, buffers_[stage.x].tiles(),
                        buffers_[stage.x].rows(), num_rows_, product.bias,
                        buffers_[product.out].rows());
        for (int row = 0; row < num_rows_; ++row) make_maxima(row, from * LANES, to * LANES);
    }
}

// Of the logits [first, last) of a row as far as there are any; `first` begins a block.
void Program::make_maxima(int row, int first, int last) {
    kernels_.block_maxima(buffers_[logits_].rows().row(row) + first,
                          std::min(last, num_logits_) - first,
                          buffers_[maxima_].rows().row(row) + first / LOGITS_BLOCK);
}

void Program::run_row(const RowOp& op, int row) {
    const Step& step = *step_;
    auto at = [&](BufferId id) { return buffers_[id].rows().row(row); };
    auto* constant = (const float*)op.constant;
    switch (op.kind) {
        case RowOp::embed:
            return unpack_row(*(const Weight*)op.constant, step.token_ids[row], at(op.out));
        case RowOp::take: {
            const float* from = buffers_[op.a].rows().row(step.outputs[first_row_ + row]);
            std::copy_n(from, op.size, at(op.out));
            return;
        }
        case RowOp::rms_norm:
            for (int i = 0; i < op.parts * op.size; i += op.size)
                kernels_.rms_norm(at(op.a) + i, constant, op.size, op.number, at(op.out) + i);
            return;
        case RowOp::add:
            return kernels_.add(at(op.a), at(op.b), op.size, at(op.out));
        case RowOp::scale:
            return kernels_.scale(at(op.a), op.number, op.size, at(op.out));
        case RowOp::silu_mul:
            return kernels_.silu_mul(at(op.a), at(op.b), op.size, at(op.out));
        case RowOp::gelu_mul:
            return kernels_.gelu_mul(at(op.a), at(op.b), op.size, at(op.out));
        case RowOp::angles:
            for (int d = 0; d < op.size; ++d) {
                float angle = (float)step.positions[row] * constant[d];
                at(op.out)[d] = std::cos(angle);
                at(op.out)[op.size + d] = std::sin(angle);
            }
            return;
        case RowOp::rope:
            return kernels_.rope(at(op.a), at(op.b), at(op.b) + op.size, op.parts, op.size,
                                 at(op.out));
        case RowOp::quantize:
            return kernels_.quantize(at(op.a), op.size, row, num_rows_, buffers_[op.out].tiles());
        case RowOp::store_kv: {
            const Group& group = groups_[op.size];
            const int32_t* after = std::upper_bound(step.starts, step.starts + step.sequences, row);
            int sequence = (int)(after - step.starts) - 1, position = step.positions[row];
            int page = step.tables[op.size]
                                  [(size_t)sequence * step.table_widths[op.size] + position / PAGE];
            return kernels_.store_kv(at(op.a), at(op.b), group.layer(op.parts), page,
                                     position % PAGE, group.head_dim, group.kv_heads);
        }
        case RowOp::merge:
            return merge_partials(op, row);
        case RowOp::maxima:
            return make_maxima(row, 0, num_logits_);
    }
}

// ---- attention

// Spans [*first, returned) hold every key that the token may see.
int Program::spans_of(const Step& step, int group, int token, int* first) const {
    int position = step.positions[token];
    *first = std::max(0, position - groups_[group].window + 1) / SPAN;
    return position / SPAN + 1;
}

void Program::plan_attention(const Step& step) {
    for (size_t g = 0; g < groups_.size(); ++g)
        if (group_heads_[g] > 0) plan_group(step, (int)g);
}

// Queries of a sequence go in tiles; a lone tile over a long past is cut by spans, so that there is
// something to do for everyone.
void Program::plan_group(const Step& step, int g) {
    const Group& group = groups_[g];
    GroupPlan& plan = plans_[g];
    plan.items.clear();
    plan.partials.assign(step.tokens, NOWHERE);
    int heads = group_heads_[g] / group.kv_heads, most = std::max(1, ITEM_ROWS / heads);
    int tiles = 0;
    for (int s = 0; s < step.sequences; ++s)
        tiles += ceil_div(step.starts[s + 1] - step.starts[s], most);
    bool split = threads_ > 1 && tiles * group.kv_heads < 4 * threads_;
    size_t floats = 0;
    for (int s = step.sequences - 1; s >= 0; --s) {
        int tokens = step.starts[s + 1] - step.starts[s];
        for (int query = (ceil_div(tokens, most) - 1) * most; query >= 0; query -= most) {
            int queries = std::min(most, tokens - query), token = step.starts[s] + query, first,
                none;
            spans_of(step, g, token, &first);
            int last = spans_of(step, g, token + queries - 1, &none);
            bool cut = split && queries == 1 && last - first > 1;
            if (cut) {
                plan.partials[token] = floats;
                floats += (last - first) * group_heads_[g] * partial_floats(g);
            }
            for (int head = 0; head < group.kv_heads; ++head)
                for (int span = first; span < last; span = cut ? span + 1 : last)
                    plan.items.push_back(
                        {s, head, query, queries, span, cut ? span + 1 : last, cut});
        }
    }
    if (plan.room.size() < floats) plan.room.resize(floats);
}

void Program::run_item(const Stage& stage, const Item& item, int thread) {
    const Step& step = *step_;
    const Group& group = groups_[stage.group];
    int heads = stage.heads / group.kv_heads, rows = item.queries * heads;
    int dim = group.head_dim, token = step.starts[item.sequence] + item.query;
    Rows q = buffers_[stage.x].rows(), out = buffers_[stage.out].rows();
    SpanWork work = {
        .table = step.tables[stage.group] + (size_t)item.sequence * step.table_widths[stage.group],
        .pages = group.layer(stage.layer),
        .head_dim = dim,
        .heads = heads,
        .queries = item.queries,
        .position = step.positions[token],
        .window = group.window,
        .span = item.first_span,
        .q = q.row(token) + item.head * heads * dim,
        .q_stride = q.stride,
    };
    work.pages.data += item.head * work.pages.head;

    auto& scratch = scratch_[thread];
    size_t scores = (size_t)rows * SPAN, mixed = (size_t)rows * dim;
    if (scratch.size() < scores + 2 * mixed) scratch.resize(scores + 2 * mixed);
    Partial next[MOST_SHARING], all[MOST_SHARING];
    for (int r = 0; r < rows; ++r) {
        next[r] = {0, 0, scratch.data() + scores + r * dim};
        all[r] = {0, 0, scratch.data() + scores + mixed + r * dim};
    }
    if (item.split) {
        GroupPlan& plan = plans_[stage.group];
        int first;
        int spans = spans_of(step, stage.group, token, &first) - first;
        for (int r = 0; r < rows; ++r) {
            size_t place = (size_t)(item.head * heads + r) * spans + item.first_span - first;
            float* to =
                plan.room.data() + plan.partials[token] + place * partial_floats(stage.group);
            next[r].mixed = to + 2;
        }
        kernels_.attend_span(work, scratch.data(), next);
        for (int r = 0; r < rows; ++r)
            next[r].mixed[-2] = next[r].largest, next[r].mixed[-1] = next[r].total;
        return;
    }
    for (; work.span < item.last_span; ++work.span)
        if (kernels_.attend_span(work, scratch.data(), next))
            for (int r = 0; r < rows; ++r) kernels_.merge(all[r], next[r], dim);
    for (int r = 0; r < rows; ++r)
        kernels_.finish(all[r], dim,
                        out.row(token + r / heads) + (item.head * heads + r % heads) * dim);
}

void Program::merge_partials(const RowOp& op, int token) {
    GroupPlan& plan = plans_[op.size];
    if (plan.partials[token] == NOWHERE) return;
    int first, dim = groups_[op.size].head_dim;
    int spans = spans_of(*step_, op.size, token, &first) - first;
    float* at = plan.room.data() + plan.partials[token];
    for (int head = 0; head < group_heads_[op.size]; ++head) {
        Partial all = {at[0], at[1], at + 2};
        for (int span = 1; span < spans; ++span) {
            float* next = at + span * partial_floats(op.size);
            kernels_.merge(all, {next[0], next[1], next + 2}, dim);
        }
        kernels_.finish(all, dim, buffers_[op.out].rows().row(token) + head * dim);
        at += spans * partial_floats(op.size);
    }
}

}  // namespace octavo
