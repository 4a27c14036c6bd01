// Python's door: check shapes, drop the GIL, call. No arithmetic here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

#include "program.h"
#include "weights.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace octavo {
namespace {

template <typename T, int dims>
using Array = nb::ndarray<T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float, 1>;
using Ints = Array<const int32_t, 1>;
using Matrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

void require(bool holds, const char* what) {
    if (!holds) throw nb::value_error(what);
}

// ---- instruction sets

std::vector<std::string> instruction_sets() {
#if defined(OCTAVO_HAS_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        return {"avx2", "generic"};
#endif
    return {"generic"};
}

const Kernels& kernels_of(const std::string& set) {
    auto sets = instruction_sets();
    if (std::find(sets.begin(), sets.end(), set) == sets.end())
        throw nb::value_error(("instruction set " + set + ": this machine or build lacks it").c_str());
#if defined(OCTAVO_HAS_AVX2)
    if (set == "avx2") return avx2::kernels;
#endif
    return generic::kernels;
}

// ---- weights

// Memory for a matrix, filled eight rows at a time by whoever reads the file.
struct PackedWeight {
    Weight w;
    uint8_t* memory;

    explicit PackedWeight(Weight shape) : w(shape) {
        w.stride = stride_of(w);
        // Kernels prefetch beyond the end.
        size_t bytes = (w.row_groups() * w.stride + 4096 + 63) / 64 * 64;
        memory = (uint8_t*)std::aligned_alloc(64, bytes);
        if (!memory) throw std::bad_alloc();
        w.data = memory;
    }
    PackedWeight(const PackedWeight&) = delete;
    ~PackedWeight() { std::free(memory); }

    size_t bytes() const { return w.row_groups() * w.stride; }

    void check_rows(int64_t first, int64_t rows, size_t columns) const {
        require(first >= 0 && first % LANES == 0 && first + rows <= w.rows,
                "first: not a group of the rows");
        require(rows % LANES == 0 || first + rows == w.rows, "rows: not whole groups of 8");
        require(columns == (size_t)w.columns, "columns: not the weight's");
    }
};

PackedWeight* new_codes(int rows, int columns, int bits, int group, bool has_min, bool has_sub) {
    require(rows > 0 && columns > 0, "rows, columns: at least 1 each");
    require(columns % (has_sub ? SUPER : BLOCK) == 0, "columns: not whole blocks");
    require(has_codes(bits, group, has_min, has_sub), "bits, group: no kernel for this format");
    return new PackedWeight({.data = nullptr,
                             .stride = 0,
                             .rows = rows,
                             .columns = columns,
                             .kind = Kind::codes,
                             .bits = bits,
                             .group = group,
                             .has_min = has_min,
                             .has_sub = has_sub});
}

PackedWeight* new_floats(int rows, int columns, const std::string& format) {
    Kind kind = format == "f32" ? Kind::f32 : format == "f16" ? Kind::f16 : Kind::bf16;
    require(kind != Kind::bf16 || format == "bf16", "format: f32, f16 or bf16");
    require(rows > 0 && columns > 0, "rows, columns: at least 1 each");
    return new PackedWeight({.data = nullptr,
                             .stride = 0,
                             .rows = rows,
                             .columns = columns,
                             .kind = kind,
                             .bits = 0,
                             .group = 0,
                             .has_min = false,
                             .has_sub = false});
}

template <typename T>
using MaybeArray = std::optional<Array<const T, 2>>;

void put_codes(PackedWeight& packed, int first, Array<const uint8_t, 2> codes,
               Array<const uint16_t, 2> scale, MaybeArray<uint16_t> min, MaybeArray<int8_t> sub_scale,
               MaybeArray<int8_t> sub_min) {
    const Weight& w = packed.w;
    size_t rows = codes.shape(0), span = w.has_sub ? SUPER : BLOCK;
    auto fits = [&](auto& array, size_t each) {
        return array.shape(0) == rows && array.shape(1) * each == codes.shape(1);
    };
    require(w.kind == Kind::codes, "weight: has no codes");
    packed.check_rows(first, rows, codes.shape(1));
    require(fits(scale, span), "scale: shape is not [rows, columns / span]");
    require((bool)min == w.has_min && (!min || fits(*min, span)),
            "min: shape is not [rows, columns / span]");
    require((bool)sub_scale == w.has_sub && (!sub_scale || fits(*sub_scale, w.group)),
            "sub_scale: shape is not [rows, columns / group]");
    require((bool)sub_min == (w.has_sub && w.has_min) && (!sub_min || fits(*sub_min, w.group)),
            "sub_min: shape is not [rows, columns / group]");
    CodesIn from = {codes.data(), scale.data(), min ? min->data() : nullptr,
                    sub_scale ? sub_scale->data() : nullptr, sub_min ? sub_min->data() : nullptr};
    nb::gil_scoped_release unlocked;
    pack_codes(w, packed.memory, from, first, (int)rows);
}

void put_floats(PackedWeight& packed, int first, Array<const uint8_t, 2> data) {
    size_t size = packed.w.kind == Kind::f32 ? 4 : 2;
    require(packed.w.kind != Kind::codes, "weight: has codes");
    packed.check_rows(first, data.shape(0), data.shape(1) / size);
    nb::gil_scoped_release unlocked;
    pack_floats(packed.w, packed.memory, data.data(), first, (int)data.shape(0));
}

Matrix unpack(const PackedWeight& packed) {
    size_t rows = packed.w.rows, columns = packed.w.columns;
    auto* out = new float[rows * columns];
    nb::capsule owner(out, [](void* p) noexcept { delete[] (float*)p; });
    for (size_t row = 0; row < rows; ++row) unpack_row(packed.w, (int)row, out + row * columns);
    return Matrix(out, {rows, columns}, owner);
}

// ---- programs

using PoolArray = Array<uint16_t, 5>;  // half precision [page][layer][k|v][kv_head][...]

Group group_of(const PoolArray& pool, int head_dim, int window) {
    require(pool.shape(2) == 2 && pool.shape(4) == (size_t)head_dim * PAGE,
            "pool: shape is not [pages, layers, 2, kv_heads, head_dim * 16]");
    require(head_dim % 16 == 0, "head_dim: not a multiple of 16");
    return {pool.data(),           (int)pool.shape(0), (int)pool.shape(1),
            (int)pool.shape(3),    head_dim,           window};
}

// Checks what Python says against the program's limits, and holds the last step for finish().
struct RunningProgram {
    Program program;
    std::vector<Group> groups;
    int max_tokens, max_rows, vocabulary = 0, logits_size = 0;
    BufferId logits = -1;
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

void run(RunningProgram& self, Ints token_ids, Ints positions, Ints starts,
         std::vector<Array<const int32_t, 2>> tables, Ints outputs) {
    size_t tokens = token_ids.shape(0), sequences = starts.shape(0) - 1;
    require(starts.shape(0) >= 1 && tokens <= (size_t)self.max_tokens, "token_ids: more than max_tokens");
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
                require(page >= 0 && page < self.groups[g].num_pages, "tables: a page that is not there");
            }
        }
    }
    self.memory.assign(outputs.data(), outputs.data() + outputs.shape(0));
    self.step = {token_ids.data(), positions.data(), starts.data(), (int)tokens, (int)sequences,
                 {}, {}, self.memory.data(), (int)self.memory.size()};
    for (auto& table : tables) {
        self.step.tables.push_back(table.data());
        self.step.table_widths.push_back((int)table.shape(1));
    }
    nb::gil_scoped_release unlocked;
    self.program.run(self.step);
}

Matrix logits(RunningProgram& self, int first, int last, nb::handle owner) {
    require(self.logits >= 0, "result: not recorded yet");
    require(0 <= first && first <= last && last <= self.step.num_outputs, "rows: not of the last batch");
    require(last - first <= self.max_rows, "rows: more than max_rows");
    Rows rows;
    {
        nb::gil_scoped_release unlocked;
        rows = self.program.finish(self.step, first, last, self.logits);
    }
    return Matrix(rows.data, {(size_t)(last - first), (size_t)self.logits_size}, owner,
                  {rows.stride, 1});
}

void bind_program(nb::module_& m) {
    using P = RunningProgram;
    auto width = [](size_t columns) {
        require(columns % 8 == 0, "width: not a multiple of 8");
        return (int)columns;
    };
    nb::class_<P>(m, "Program", "A model recorded as stages; see cpp/program.h.")
        .def("__init__",
             [](P* self, const std::string& set, int threads, int max_tokens, int max_rows,
                std::vector<std::tuple<PoolArray, int, int>> pools) {
                 std::vector<Group> groups;
                 for (auto& [pool, head_dim, window] : pools)
                     groups.push_back(group_of(pool, head_dim, window));
                 require(threads >= 1 && max_tokens >= 1 && max_rows >= 1, "limits: at least 1 each");
                 new (self) P(set, threads, max_tokens, max_rows, groups);
                 for (auto& [pool, head_dim, window] : pools) self->kept.push_back(nb::cast(pool));
             },
             "instruction_set"_a, "threads"_a, "max_tokens"_a, "max_rows"_a, "pools"_a)
        .def("buffer", [=](P& p, int columns) { return p.program.buffer(columns); })
        .def("tiles", [](P& p, int columns) { return p.program.tiles(columns); })
        .def("start_outputs", [](P& p) { p.program.start_outputs(); })
        .def("embed",
             [](P& p, nb::object table, BufferId out) {
                 auto& weight = nb::cast<PackedWeight&>(table).w;
                 p.kept.push_back(table);
                 p.vocabulary = weight.rows;
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
        .def("quantize", [](P& p, BufferId x, int columns, BufferId tiles) {
                 require(columns % BLOCK == 0, "columns: not a multiple of 32");
                 p.program.quantize(x, columns, tiles);
             })
        .def("store_kv", [](P& p, BufferId k, BufferId v, int group, int layer) {
                 p.program.store_kv(k, v, group, layer);
             })
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
                         p.kept.push_back(*bias);
                     }
                     p.kept.push_back(weight);
                     all.push_back({&w, terms, out});
                 }
                 p.program.linear(x, all);
             })
        .def("result",
             [](P& p, BufferId out, int size) { p.logits = out, p.logits_size = size; })
        .def_prop_ro("buffer_bytes", [](P& p) { return p.program.buffer_bytes(); })
        .def("run", &run, "token_ids"_a, "positions"_a, "starts"_a, "tables"_a, "outputs"_a)
        .def("logits", [](nb::handle self, int first, int last) {
            return logits(nb::cast<P&>(self), first, last, self);
        });
}

// ---- sampling

void bind_sampling(nb::module_& m) {
    m.def(
        "sample",
        [](const std::string& set, Array<float, 1> logits, float temperature, int top_k,
           float top_p, float min_p, float repetition_penalty, float presence_penalty,
           float frequency_penalty, uint64_t seed, uint32_t position, Ints seen, Ints generated,
           Ints bias_ids, Floats biases) {
            const Kernels& kernels = kernels_of(set);
            int size = (int)logits.shape(0);
            require(size > 0, "logits: empty");
            require(seen.shape(0) == generated.shape(0), "generated: not one a token seen");
            require(bias_ids.shape(0) == biases.shape(0), "biases: not one an id");
            for (auto* ids : {&seen, &bias_ids})
                for (size_t i = 0; i < ids->shape(0); ++i)
                    require(ids->data()[i] >= 0 && ids->data()[i] < size,
                            "token ids: outside the vocabulary");
            SampleIn in = {temperature,       top_p,
                           min_p,             top_k,
                           repetition_penalty, presence_penalty,
                           frequency_penalty, seed,
                           position,          seen.data(),
                           generated.data(),  (int)seen.shape(0),
                           bias_ids.data(),   biases.data(),
                           (int)biases.shape(0)};
            nb::gil_scoped_release unlocked;
            return kernels.sample(logits.data(), size, in);
        },
        "instruction_set"_a, "logits"_a, "temperature"_a, "top_k"_a, "top_p"_a, "min_p"_a,
        "repetition_penalty"_a, "presence_penalty"_a, "frequency_penalty"_a, "seed"_a, "position"_a,
        "seen"_a, "generated"_a, "bias_ids"_a, "biases"_a,
        "The chosen token id; logits are overwritten. See cpp/kernels/sample.cpp.");
    m.def("log_sum_exp", [](const std::string& set, Array<const float, 1> logits) {
        return kernels_of(set).log_sum_exp(logits.data(), (int)logits.shape(0));
    });
    m.def(
        "read_bytes",
        [](const std::string& set, Array<const uint8_t, 1> data) {
            const Kernels& kernels = kernels_of(set);
            nb::gil_scoped_release unlocked;
            return kernels.read_bytes(data.data(), data.shape(0));
        },
        "instruction_set"_a, "data"_a, "Reads all of it once; what comes back means nothing.");
    m.def(
        "multiply_bytes",
        [](const std::string& set, size_t rounds) {
            const Kernels& kernels = kernels_of(set);
            nb::gil_scoped_release unlocked;
            return kernels.multiply_bytes(rounds);
        },
        "instruction_set"_a, "rounds"_a, "1024 multiply-adds of bytes a round.");
    m.def(
        "multiply_floats",
        [](const std::string& set, size_t rounds) {
            const Kernels& kernels = kernels_of(set);
            nb::gil_scoped_release unlocked;
            return kernels.multiply_floats(rounds);
        },
        "instruction_set"_a, "rounds"_a, "256 multiply-adds of floats a round.");
    m.def("top", [](const std::string& set, Array<const float, 1> logits, int count) {
        std::vector<int32_t> ids(std::min((size_t)count, logits.shape(0)));
        kernels_of(set).top(logits.data(), (int)logits.shape(0), (int)ids.size(), ids.data());
        return ids;
    });
}

}  // namespace
}  // namespace octavo

NB_MODULE(_cpu, m) {
    using namespace octavo;
    m.doc() = "Octavo's native kernels.";
    m.def("instruction_sets", &instruction_sets, "Those this machine can run, best first.");
    nb::class_<PackedWeight>(m, "Weight", "A packed matrix; see cpp/weights.h.")
        .def_static("codes", &new_codes, "rows"_a, "columns"_a, "bits"_a, "group"_a, "has_min"_a,
                    "has_sub"_a, nb::rv_policy::take_ownership)
        .def_static("floats", &new_floats, "rows"_a, "columns"_a, "format"_a,
                    nb::rv_policy::take_ownership)
        .def("put_codes", &put_codes, "first"_a, "codes"_a, "scale"_a, "min"_a.none(),
             "sub_scale"_a.none(), "sub_min"_a.none(), "Rows [first, first + len(codes)).")
        .def("put_floats", &put_floats, "first"_a, "data"_a,
             "Rows [first, first + len(data)), as bytes of the weight's own format.")
        .def_prop_ro("rows", [](PackedWeight& p) { return p.w.rows; })
        .def_prop_ro("columns", [](PackedWeight& p) { return p.w.columns; })
        .def_prop_ro("is_codes", [](PackedWeight& p) { return p.w.kind == Kind::codes; })
        .def_prop_ro("bytes", &PackedWeight::bytes)
        .def("unpack", &unpack, "float32 [rows, columns]");
    bind_program(m);
    bind_sampling(m);
}
