// The kernels of this instruction set, as the rest of the core finds them.
#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {

extern const Kernels kernels = {
    .name = OCTAVO_SET_NAME,
    .pack_codes = pack_codes,
    .pack_floats = pack_floats,
    .quantize = quantize,
    .linear = linear,
    .rms_norm = rms_norm,
    .add = add,
    .scale = scale,
    .silu_mul = silu_mul,
    .gelu_mul = gelu_mul,
    .rope = rope,
    .store_kv = store_kv,
    .attend_span = attend_span,
    .merge = merge,
    .finish = finish,
    .block_maxima = block_maxima,
    .sample = sample,
    .log_sum_exp = log_sum_exp,
    .top = top,
    .read_bytes = read_bytes,
    .multiply_bytes = multiply_bytes,
    .multiply_floats = multiply_floats,
};

}  // namespace octavo::OCTAVO_SET
