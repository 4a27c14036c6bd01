// Weights as Python fills them: check shapes, drop the GIL, pack.
#include "bind.h"

namespace octavo {
namespace {

PackedWeight* new_codes(std::shared_ptr<Arena> arena, int rows, int columns, int bits, int group,
                        bool has_min, bool has_sub) {
    require(rows > 0 && columns > 0, "rows, columns: at least 1 each");
    require(columns % (has_sub ? SUPER : BLOCK) == 0, "columns: not whole blocks");
    require(has_codes(bits, group, has_min, has_sub), "bits, group: no kernel for this format");
    return new PackedWeight(std::move(arena), {.data = nullptr,
                                               .stride = 0,
                                               .rows = rows,
                                               .columns = columns,
                                               .kind = Kind::codes,
                                               .bits = bits,
                                               .group = group,
                                               .has_min = has_min,
                                               .has_sub = has_sub});
}

PackedWeight* new_floats(std::shared_ptr<Arena> arena, int rows, int columns,
                         const std::string& format) {
    Kind kind = format == "f32" ? Kind::f32 : format == "f16" ? Kind::f16 : Kind::bf16;
    require(kind != Kind::bf16 || format == "bf16", "format: f32, f16 or bf16");
    require(rows > 0 && columns > 0, "rows, columns: at least 1 each");
    return new PackedWeight(std::move(arena), {.data = nullptr,
                                               .stride = 0,
                                               .rows = rows,
                                               .columns = columns,
                                               .kind = kind,
                                               .bits = 0,
                                               .group = 0,
                                               .has_min = false,
                                               .has_sub = false});
}

template <typename T, int dims>
using View = nb::ndarray<const T, nb::ndim<dims>, nb::device::cpu>;
using PlaneIn = std::pair<int, View<uint8_t, 4>>;  // bits, [rows, blocks, pieces, run]
using Factors = std::optional<Array<const int8_t, 2>>;

Plane plane_of(const PlaneIn& in, const Weight& w, size_t rows) {
    const auto& [bits, bytes] = in;
    require(bytes.shape(0) == rows, "planes: rows differ");
    Plane plane = {bytes.data(),
                   bytes.stride(0),
                   bytes.stride(1),
                   bytes.stride(2),
                   (int)bytes.shape(2),
                   (int)bytes.shape(3),
                   bits};
    bool in_order = plane.run == 1 && plane.pieces == 4 && plane.piece == 1;
    require((plane.run % 16 == 0 && bytes.stride(3) == 1) || (in_order && bits == 1),
            "planes: no runs of 16 bytes, nor 4 bytes of single bits");
    size_t columns = bytes.shape(2) * bytes.shape(3) * (8 / bits), span = w.has_sub ? SUPER : BLOCK;
    require(columns == span && bytes.shape(1) * span == (size_t)w.columns,
            "planes: columns are not the weight's");
    return plane;
}

// The planes of a block; see cpp/weights.h.
std::vector<int> plane_bits(int bits) {
    if (bits == 3) return {2, 1};
    if (bits == 5 || bits == 6) return {4, bits - 4};
    return {bits};
}

std::vector<Plane> planes_of(const std::vector<PlaneIn>& in, const Weight& w, size_t rows) {
    std::vector<int> bits = plane_bits(w.bits);
    require(in.size() == bits.size(), "planes: not the weight's");
    std::vector<Plane> planes;
    for (size_t i = 0; i < in.size(); ++i) {
        require(in[i].first == bits[i], "planes: not the weight's bits");
        planes.push_back(plane_of(in[i], w, rows));
    }
    return planes;
}

Halves halves_of(const View<uint16_t, 2>& view) {
    return {(const uint8_t*)view.data(), 2 * view.stride(0), 2 * view.stride(1)};
}

void put_codes(PackedWeight& packed, const std::string& set, int first,
               const std::vector<PlaneIn>& planes, View<uint16_t, 2> scale,
               std::optional<View<uint16_t, 2>> min, Factors sub_scale, Factors sub_min) {
    const Kernels& kernels = kernels_of(set);
    const Weight& w = packed.w;
    size_t rows = planes.empty() ? 0 : planes[0].second.shape(0), span = w.has_sub ? SUPER : BLOCK;
    auto fits = [&](auto& array, size_t each) {
        return array.shape(0) == rows && array.shape(1) * each == (size_t)w.columns;
    };
    require(w.kind == Kind::codes, "weight: has no codes");
    require(!planes.empty(), "planes: none");
    packed.check_rows(first, rows, w.columns);
    require(fits(scale, span), "scale: shape is not [rows, columns / span]");
    require((bool)min == w.has_min && (!min || fits(*min, span)),
            "min: shape is not [rows, columns / span]");
    require((bool)sub_scale == w.has_sub && (!sub_scale || fits(*sub_scale, w.group)),
            "sub_scale: shape is not [rows, columns / group]");
    require((bool)sub_min == (w.has_sub && w.has_min) && (!sub_min || fits(*sub_min, w.group)),
            "sub_min: shape is not [rows, columns / group]");
    CodesIn from = {planes_of(planes, w, rows), halves_of(scale), min ? halves_of(*min) : Halves(),
                    sub_scale ? sub_scale->data() : nullptr, sub_min ? sub_min->data() : nullptr};
    nb::gil_scoped_release unlocked;
    kernels.pack_codes(w, packed.memory, from, first, (int)rows);
}

void put_floats(PackedWeight& packed, const std::string& set, int first,
                Array<const uint8_t, 2> data) {
    const Kernels& kernels = kernels_of(set);
    size_t size = packed.w.kind == Kind::f32 ? 4 : 2;
    require(packed.w.kind != Kind::codes, "weight: has codes");
    packed.check_rows(first, data.shape(0), data.shape(1) / size);
    nb::gil_scoped_release unlocked;
    kernels.pack_floats(packed.w, packed.memory, data.data(), first, (int)data.shape(0));
}

Matrix unpack(const PackedWeight& packed) {
    size_t rows = packed.w.rows, columns = packed.w.columns;
    auto* out = new float[rows * columns];
    nb::capsule owner(out, [](void* p) noexcept { delete[] (float*)p; });
    for (size_t row = 0; row < rows; ++row) unpack_row(packed.w, (int)row, out + row * columns);
    return Matrix(out, {rows, columns}, owner);
}

}  // namespace

void bind_weights(nb::module_& m) {
    nb::class_<Arena>(m, "Arena", "Memory for weights; see cpp/arena.h.").def(nb::init<>());
    nb::class_<PackedWeight>(m, "Weight", "A packed matrix; see cpp/weights.h.")
        .def_static("codes", &new_codes, "arena"_a, "rows"_a, "columns"_a, "bits"_a, "group"_a,
                    "has_min"_a, "has_sub"_a, nb::rv_policy::take_ownership)
        .def_static("floats", &new_floats, "arena"_a, "rows"_a, "columns"_a, "format"_a,
                    nb::rv_policy::take_ownership)
        .def("put_codes", &put_codes, "instruction_set"_a, "first"_a, "planes"_a, "scale"_a,
             "min"_a.none(), "sub_scale"_a.none(), "sub_min"_a.none(),
             "Rows [first, first + rows of the planes); see octavo/quant/_codes.py.")
        .def("put_floats", &put_floats, "instruction_set"_a, "first"_a, "data"_a,
             "Rows [first, first + len(data)), as bytes of the weight's own format.")
        .def_prop_ro("rows", [](PackedWeight& p) { return p.w.rows; })
        .def_prop_ro("columns", [](PackedWeight& p) { return p.w.columns; })
        .def_prop_ro("is_codes", [](PackedWeight& p) { return p.w.kind == Kind::codes; })
        .def_prop_ro("bytes", &PackedWeight::bytes)
        .def("unpack", &unpack, "float32 [rows, columns]");
}

}  // namespace octavo
