// Python's door. The files beside this one check shapes, drop the GIL and call; no arithmetic here.
#include "bind.h"

#include <algorithm>
#include <vector>

namespace octavo {
namespace {

std::vector<std::string> instruction_sets() {
#if defined(OCTAVO_HAS_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        return {"avx2", "generic"};
#endif
    return {"generic"};
}

}  // namespace

const Kernels& kernels_of(const std::string& set) {
    auto sets = instruction_sets();
    if (std::find(sets.begin(), sets.end(), set) == sets.end())
        throw nb::value_error(
            ("instruction set " + set + ": this machine or build lacks it").c_str());
#if defined(OCTAVO_HAS_AVX2)
    if (set == "avx2") return avx2::kernels;
#endif
    return generic::kernels;
}

}  // namespace octavo

NB_MODULE(_cpu, m) {
    using namespace octavo;
    m.doc() = "Octavo's native kernels.";
    m.def("instruction_sets", &instruction_sets, "Those this machine can run, best first.");
    bind_weights(m);
    bind_program(m);
    bind_sampling(m);
}
