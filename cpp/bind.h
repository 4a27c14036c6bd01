// What the files that bind to Python share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>

#include "arena.h"
#include "kernels.h"

namespace octavo {

namespace nb = nanobind;
using namespace nb::literals;

template <typename T, int dims>
using Array = nb::ndarray<T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float, 1>;
using Ints = Array<const int32_t, 1>;
using Matrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

inline void require(bool holds, const char* what) {
    if (!holds) throw nb::value_error(what);
}

// Raises ValueError for a set that this machine or build lacks.
const Kernels& kernels_of(const std::string& set);

// A matrix in an arena, filled eight rows at a time by whoever reads the file.
struct PackedWeight {
    Weight w;
    std::shared_ptr<Arena> arena;
    uint8_t* memory;

    PackedWeight(std::shared_ptr<Arena> arena, Weight shape) : w(shape), arena(std::move(arena)) {
        w.stride = stride_of(w);
        memory = this->arena->take(bytes());
        w.data = memory;
    }
    PackedWeight(const PackedWeight&) = delete;

    size_t bytes() const { return w.row_groups() * w.stride; }

    void check_rows(int64_t first, int64_t rows, size_t columns) const {
        require(first >= 0 && first % LANES == 0 && first + rows <= w.rows,
                "first: not a group of the rows");
        require(rows % LANES == 0 || first + rows == w.rows, "rows: not whole groups of 8");
        require(columns == (size_t)w.columns, "columns: not the weight's");
    }
};

void bind_weights(nb::module_& m);
void bind_program(nb::module_& m);
void bind_sampling(nb::module_& m);

}  // namespace octavo
