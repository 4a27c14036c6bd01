#include <nanobind/nanobind.h>
NB_MODULE(_cpu, m) { m.doc() = "Octavo's kernels"; }
