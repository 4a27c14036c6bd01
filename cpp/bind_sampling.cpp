// Sampling, and the machine's limits, as Python asks for them.
#include <algorithm>
#include <vector>

#include "bind.h"

namespace octavo {

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
            SampleIn in = {temperature,
                           top_p,
                           min_p,
                           top_k,
                           repetition_penalty,
                           presence_penalty,
                           frequency_penalty,
                           seed,
                           position,
                           seen.data(),
                           generated.data(),
                           (int)seen.shape(0),
                           bias_ids.data(),
                           biases.data(),
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
        require(count >= 1, "count: at least 1");
        std::vector<int32_t> ids(std::min((size_t)count, logits.shape(0)));
        kernels_of(set).top(logits.data(), (int)logits.shape(0), (int)ids.size(), ids.data());
        return ids;
    });
}

}  // namespace octavo
