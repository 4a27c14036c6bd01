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

// Of RowOp::Kind, in its order.
constexpr const char* NAMES[] = {"embed",    "take",     "rms_norm", "add",  "scale",
                                 "silu_mul", "gelu_mul", "angles",   "rope", "quantize",
                                 "store_kv", "merge",    "maxima"};
// Row groups of a block of logits; and as many as are written before their maxima are made, so that
// sixteen rows of them are still in the first-level cache.
constexpr int BLOCK_GROUPS = LOGITS_BLOCK / LANES, SLAB = 4 * BLOCK_GROUPS;

// Rows of a power of two bytes fall on the same cache sets; an odd number of lines does not.
int padded(int width) {
    int lines = ceil_div(width, 16);
    return 16 * (lines | 1);
}

// Where a chunk of a matrix begins. Where threads take several, each is shorter than the one before
// it, 2n - 1 : 2n - 3 : ... : 1, so that who takes the last one is not waited for long.
int begin_of(int chunk, int chunks, int units, int threads) {
    int64_t n = chunks, all = units;
    if (chunks <= threads) return (int)(all * chunk / n);
    return (int)(all * chunk * (2 * n - chunk) / (n * n));
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
    stages.back().ops.back().operation = profile_.add();
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
                     .layer = layer,
                     .operation = profile_.add()});
    row_op({.kind = RowOp::merge, .out = out, .size = group});
}

void Program::linear(BufferId x, const std::vector<Product>& products) {
    auto& stages = taken_ ? head_ : body_;
    stages.push_back({.kind = Stage::linear, .products = products, .x = x});
    for (Product& product : stages.back().products) product.operation = profile_.add();
}

std::vector<Program::Measured> Program::stop_profile() {
    std::vector<Measured> all = {{.op = "elapsed", .ticks = profile_.stop()},
                                 {.op = "replay", .ticks = profile_.of(replay_)}};
    for (auto* stages : {&body_, &head_})
        for (const Stage& stage : *stages) {
            auto measured = [&](const char* op, int operation) {
                return Measured{
                    .op = op, .ticks = profile_.of(operation), .is_head = stages == &head_};
            };
            for (const RowOp& op : stage.ops) all.push_back(measured(NAMES[op.kind], op.operation));
            for (const Product& product : stage.products) {
                all.push_back(measured("linear", product.operation));
                all.back().weight = product.weight;
            }
            if (stage.kind != Stage::attend) continue;
            const Group& group = groups_[stage.group];
            all.push_back(measured("attend", stage.operation));
            all.back().heads = stage.heads, all.back().head_dim = group.head_dim;
            all.back().window = group.window;
            all.back().key_bytes = group.layer(0).head * 2 * group.kv_heads / PAGE;
        }
    return all;
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
    profile_.time(replay_, 0, [&] {
        pool_->run(chunks, [&](int stage, int chunk, int thread) {
            work(stages[stage], chunk, chunks[stage], thread);
        });
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
                for (const RowOp& op : stage.ops)
                    profile_.time(op.operation, thread, [&] { run_row(op, row); });
            return;
        case Stage::linear:
            return run_products(stage, chunk, chunks, thread);
        case Stage::attend:
            const auto& items = plans_[stage.group].items;
            int last = share(items.size(), chunk + 1);
            for (int i = share(items.size(), chunk); i < last; ++i)
                profile_.time(stage.operation, thread, [&] { run_item(stage, items[i], thread); });
    }
}

void Program::run_products(const Stage& stage, int chunk, int chunks, int thread) {
    int total = 0;
    for (auto& product : stage.products) total += product.weight->row_groups();
    int unit = stage.makes_maxima ? BLOCK_GROUPS : 2, units = ceil_div(total, unit);
    int first = begin_of(chunk, chunks, units, threads_) * unit;
    int last = std::min(total, begin_of(chunk + 1, chunks, units, threads_) * unit);
    if (stage.makes_maxima) return run_head(stage, first, last, thread);
    for (auto& product : stage.products) {
        int groups = product.weight->row_groups();
        if (first < groups && last > 0)
            profile_.time(product.operation, thread, [&] {
                kernels_.linear(*product.weight, std::max(first, 0), std::min(last, groups),
                                buffers_[stage.x].tiles(), buffers_[stage.x].rows(), num_rows_,
                                product.bias, buffers_[product.out].rows());
            });
        first -= groups, last -= groups;
    }
}

void Program::run_head(const Stage& stage, int first, int last, int thread) {
    const Product& product = stage.products[0];
    for (int from = first; from < last; from += SLAB) {
        int to = std::min(from + SLAB, last);
        profile_.time(product.operation, thread, [&] {
            kernels_.linear(*product.weight, from, to, buffers_[stage.x].tiles(),
                            buffers_[stage.x].rows(), num_rows_, product.bias,
                            buffers_[product.out].rows());
            for (int row = 0; row < num_rows_; ++row) make_maxima(row, from * LANES, to * LANES);
        });
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

}  // namespace octavo
