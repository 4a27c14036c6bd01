// Programs as Python records and runs them: check what it says, drop the GIL, call.
#include <algorithm>
#include <optional>
#include <vector>

#include "bind.h"
#include "program.h"

namespace octavo {
namespace {

using PoolArray = Array<uint8_t, 5>;  // [page][layer][k|v][kv_head][bytes of a block]
using PagePool = std::tuple<PoolArray, std::string, int, int>;  // with kind, head_dim and window

PageKind kind_of(const std::string& name) {
    if (name == "float16") return PageKind::float16;
    if (name == "int8") return PageKind::int8;
    throw nb::value_error("pool: neither float16 nor int8");
}

Group group_of(const PagePool& made) {
    auto& [pool, name, head_dim, window] = made;
    PageKind kind = kind_of(name);
    require(head_dim % 16 == 0, "head_dim: not a multiple of 16");
    require(pool.shape(2) == 2 && pool.shape(4) == block_bytes(kind, head_dim),
            "pool: shape is not [pages, layers, 2, kv_heads, bytes of a block]");
    return {pool.data(), kind,  (int)pool.shape(0), (int)pool.shape(1), (int)pool.shape(3),
            head_dim,    window};
}

// Checks what Python says against the program's limits, and holds the last step for finish().
struct RunningProgram {
    Program program;
    std::vector<Group> groups;
    int max_tokens, max_rows, vocabulary = 0, num_logits = 0;
    std::vector<nb::object> kept;  // weights and constants that the program points into
    Step step = {};
    std::vector<int32_t> memory;  // of step

    RunningProgram(const std::string& set, int threads, int max_tokens, int max_rows,
                   std::vector<Group> groups)
        : program(kernels_of(set), threads, max_tokens, max_rows, groups),
          groups(groups),
          max_tokens(max_tokens),
          max_rows(max_rows) {}
};

int bits_of(const Weight& w) {
    return w.kind == Kind::codes ? w.bits : w.kind == Kind::f32 ? 32 : 16;
}

void run(RunningProgram& self, Ints token_ids, Ints positions, Ints starts,
         std::vector<Array<const int32_t, 2>> tables, Ints outputs) {
    size_t tokens = token_ids.shape(0), sequences = starts.shape(0) - 1;
    require(starts.shape(0) >= 1 && tokens <= (size_t)self.max_tokens,
            "token_ids: more than max_tokens");
    require(positions.shape(0) == tokens, "positions: not one a token");
    require(starts.data()[0] == 0 && starts.data()[sequences] == (int32_t)tokens,
            "starts: not from 0 to the number of tokens");
    require(tables.size() == self.groups.size(), "tables: not one a group");
    for (size_t i = 0; i < tokens; ++i)
        require(token_ids.data()[i] >= 0 && token_ids.data()[i] < self.vocabulary,
                "token_ids: outside the vocabulary");
    for (size_t i = 0; i < outputs.shape(0); ++i)
        require(outputs.data()[i] >= 0 && (size_t)outputs.data()[i] < tokens,
                "outputs: a token that is not there");
    for (size_t s = 0; s < sequences; ++s) {
        int32_t first = starts.data()[s], last = starts.data()[s + 1];
        require(first < last && last <= (int32_t)tokens, "starts: not ascending up to the tokens");
        for (int32_t i = first; i < last; ++i)
            require(positions.data()[i] >= 0 &&
                        positions.data()[i] == positions.data()[first] + (i - first),
                    "positions: not ascending by one within a sequence");
    }
    for (size_t g = 0; g < tables.size(); ++g) {
        require(tables[g].shape(0) == sequences, "tables: not one row a sequence");
        for (size_t s = 0; s < sequences; ++s) {
            int first = positions.data()[starts.data()[s]] - self.groups[g].window + 1;
            size_t pages = positions.data()[starts.data()[s + 1] - 1] / PAGE + 1;
            require(pages <= tables[g].shape(1), "tables: too short for the positions");
            for (size_t p = std::max(0, first) / PAGE; p < pages; ++p) {
                int32_t page = tables[g].data()[s * tables[g].shape(1) + p];
                require(page >= 0 && page < self.groups[g].num_pages,
                        "tables: a page that is not there");
            }
        }
    }
    self.memory.assign(outputs.data(), outputs.data() + outputs.shape(0));
    self.step = {token_ids.data(),
                 positions.data(),
                 starts.data(),
                 (int)tokens,
                 (int)sequences,
                 {},
                 {},
                 self.memory.data(),
                 (int)self.memory.size()};
    for (auto& table : tables) {
        self.step.tables.push_back(table.data());
        self.step.table_widths.push_back((int)table.shape(1));
    }
    nb::gil_scoped_release unlocked;
    self.program.run(self.step);
}

std::pair<Matrix, Matrix> logits(RunningProgram& self, int first, int last, nb::handle owner) {
    require(self.num_logits > 0, "result: not recorded yet");
    require(0 <= first && first <= last && last <= self.step.num_outputs,
            "rows: not of the last batch");
    require(last - first <= self.max_rows, "rows: more than max_rows");
    Program::Logits logits;
    {
        nb::gil_scoped_release unlocked;
        logits = self.program.finish(self.step, first, last);
    }
    auto matrix = [&](Rows rows, int columns) {
        return Matrix(rows.data, {(size_t)(last - first), (size_t)columns}, owner,
                      {rows.stride, 1});
    };
    return {matrix(logits.rows, self.num_logits),
            matrix(logits.maxima, (self.num_logits + LOGITS_BLOCK - 1) / LOGITS_BLOCK)};
}

}  // namespace

void bind_program(nb::module_& m) {
    using P = RunningProgram;
    auto width = [](size_t columns) {
        require(columns % 8 == 0, "width: not a multiple of 8");
        return (int)columns;
    };
    using M = Program::Measured;
    nb::class_<M>(m, "Measured", "What one operation took; see cpp/program.h.")
        .def_ro("op", &M::op)
        .def_ro("ticks", &M::ticks)
        .def_ro("is_head", &M::is_head)
        .def_ro("heads", &M::heads)
        .def_ro("head_dim", &M::head_dim)
        .def_ro("window", &M::window)
        .def_ro("key_bytes", &M::key_bytes, "A token's keys and values, of one layer.")
        .def_prop_ro("rows", [](const M& m) { return m.weight ? m.weight->rows : 0; })
        .def_prop_ro("columns", [](const M& m) { return m.weight ? m.weight->columns : 0; })
        .def_prop_ro(
            "bits", [](const M& m) { return m.weight ? bits_of(*m.weight) : 0; },
            "Of a matrix: its codes', or 16 or 32 of its floats.")
        .def_prop_ro("bytes", [](const M& m) {
            return m.weight ? m.weight->row_groups() * m.weight->stride : 0;
        });
    nb::class_<P>(m, "Program", "A model recorded as stages; see cpp/program.h.")
        .def(
            "__init__",
            [](P* self, const std::string& set, int threads, int max_tokens, int max_rows,
               std::vector<PagePool> pools) {
                std::vector<Group> groups;
                for (auto& pool : pools) groups.push_back(group_of(pool));
                require(threads >= 1 && max_tokens >= 1 && max_rows >= 1,
                        "limits: at least 1 each");
                new (self) P(set, threads, max_tokens, max_rows, groups);
                for (auto& pool : pools) self->kept.push_back(nb::cast(std::get<0>(pool)));
            },
            "instruction_set"_a, "threads"_a, "max_tokens"_a, "max_rows"_a, "pools"_a)
        .def("buffer", [=](P& p, int columns) { return p.program.buffer(columns); })
        .def("tiles", [](P& p, int columns) { return p.program.tiles(columns); })
        .def("start_outputs", [](P& p) { p.program.start_outputs(); })
        .def("embed",
             [](P& p, nb::object table, BufferId out) {
                 auto& weight = nb::cast<PackedWeight&>(table).w;
                 p.kept.push_back(table);
                 p.vocabulary = p.vocabulary ? std::min(p.vocabulary, weight.rows) : weight.rows;
                 p.program.embed(weight, out);
             })
        .def("take", [](P& p, BufferId x, BufferId out) { p.program.take(x, out); })
        .def("rms_norm",
             [=](P& p, BufferId x, Floats weight, int parts, float eps, BufferId out) {
                 p.kept.push_back(nb::cast(weight));
                 p.program.rms_norm(x, weight.data(), width(weight.shape(0)), parts, eps, out);
             })
        .def("add", [=](P& p, BufferId a, BufferId b, int size,
                        BufferId out) { p.program.add(a, b, width(size), out); })
        .def("scale", [=](P& p, BufferId x, float factor, int size,
                          BufferId out) { p.program.scale(x, factor, width(size), out); })
        .def("silu_mul", [=](P& p, BufferId gate, BufferId up, int size,
                             BufferId out) { p.program.silu_mul(gate, up, width(size), out); })
        .def("gelu_mul", [=](P& p, BufferId gate, BufferId up, int size,
                             BufferId out) { p.program.gelu_mul(gate, up, width(size), out); })
        .def("angles",
             [=](P& p, Floats inv_freq, BufferId out) {
                 p.kept.push_back(nb::cast(inv_freq));
                 p.program.angles(inv_freq.data(), width(inv_freq.shape(0)), out);
             })
        .def("rope", [=](P& p, BufferId x, BufferId angles, int heads, int half,
                         BufferId out) { p.program.rope(x, angles, heads, width(half), out); })
        .def("quantize",
             [](P& p, BufferId x, int columns, BufferId tiles) {
                 require(columns % BLOCK == 0, "columns: not a multiple of 32");
                 p.program.quantize(x, columns, tiles);
             })
        .def("store_kv", [](P& p, BufferId k, BufferId v, int group,
                            int layer) { p.program.store_kv(k, v, group, layer); })
        .def("attend",
             [](P& p, BufferId q, int heads, int group, int layer, BufferId out) {
                 const Group& pages = p.groups.at(group);
                 require(layer < pages.num_layers, "layer: not of the group");
                 require(heads % pages.kv_heads == 0, "heads: not a multiple of kv_heads");
                 require(heads / pages.kv_heads <= MOST_SHARING, "heads: over 64 share a KV head");
                 p.program.attend(q, heads, group, layer, out);
             })
        .def("linear",
             [](P& p, BufferId x,
                std::vector<std::tuple<nb::object, std::optional<nb::object>, BufferId>> products) {
                 std::vector<Program::Product> all;
                 for (auto& [weight, bias, out] : products) {
                     const float* terms = nullptr;
                     const Weight& w = nb::cast<PackedWeight&>(weight).w;
                     if (bias) {
                         auto array = nb::cast<Floats>(*bias);
                         require(array.shape(0) == (size_t)w.row_groups() * LANES,
                                 "bias: not one a row, filled up to a multiple of 8");
                         terms = array.data();
                         p.kept.push_back(nb::cast(array));
                     }
                     p.kept.push_back(weight);
                     all.push_back({&w, terms, out});
                 }
                 p.program.linear(x, all);
             })
        .def("result",
             [](P& p, BufferId out, int size) {
                 require(size > 0, "size: at least 1");
                 p.num_logits = size;
                 p.program.result(out, size);
             })
        .def_prop_ro("buffer_bytes", [](P& p) { return p.program.buffer_bytes(); })
        .def("start_profile", [](P& p) { p.program.start_profile(); })
        .def("stop_profile", [](P& p) { return p.program.stop_profile(); })
        .def("run", &run, "token_ids"_a, "positions"_a, "starts"_a, "tables"_a, "outputs"_a)
        .def("logits", [](nb::handle self, int first, int last) {
            return logits(nb::cast<P&>(self), first, last, self);
        });
}

}  // namespace octavo
