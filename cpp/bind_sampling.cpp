// Sampling, and the machine's limits, as Python asks for them.
#include <algorithm>
#include <vector>

#include "bind.h"

namespace octavo {

namespace {

using Logits = Array<float, 1>;

void check(const Logits& logits, const Logits& maxima) {
    require(logits.shape(0) > 0, "logits: empty");
    require(maxima.shape(0) == (logits.shape(0) + LOGITS_BLOCK - 1) / LOGITS_BLOCK,
            "maxima: not one for each 64 logits");
}

}  // namespace

void bind_sampling(nb::module_& m) {
    m.def(
        "sample",
        [](const std::string& set, Logits logits, Logits maxima, float temperature, int top_k,
           float top_p, float min_p, float repetition_penalty, float presence_penalty,
           float frequency_penalty, uint64_t seed, uint32_t position,
           const std::vector<int32_t>& prompt, const std::vector<int32_t>& output,
           const std::vector<int32_t>& bias_ids, const std::vector<float>& biases,
           std::optional<Array<const uint32_t, 1>> allowed) -> std::optional<int> {
            const Kernels& kernels = kernels_of(set);
            check(logits, maxima);
            int size = (int)logits.shape(0);
            require(bias_ids.size() == biases.size(), "biases: not one an id");
            for (auto* ids : {&prompt, &output, &bias_ids})
                for (int32_t id : *ids)
                    require(id >= 0 && id < size, "token ids: outside the vocabulary");
            require(!allowed || allowed->shape(0) >= (logits.shape(0) + 31) / 32,
                    "allowed: not a bit for each logit");
            SampleIn in = {temperature,
                           top_p,
                           min_p,
                           top_k,
                           repetition_penalty,
                           presence_penalty,
                           frequency_penalty,
                           seed,
                           position,
                           prompt.data(),
                           (int)prompt.size(),
                           output.data(),
                           (int)output.size(),
                           bias_ids.data(),
                           biases.data(),
                           (int)biases.size(),
                           allowed ? allowed->data() : nullptr};
            nb::gil_scoped_release unlocked;
            int token = kernels.sample(logits.data(), maxima.data(), size, in);
            return token == NO_TOKEN ? std::nullopt : std::optional(token);
        },
        "instruction_set"_a, "logits"_a, "maxima"_a, "temperature"_a, "top_k"_a, "top_p"_a,
        "min_p"_a, "repetition_penalty"_a, "presence_penalty"_a, "frequency_penalty"_a, "seed"_a,
        "position"_a, "prompt"_a, "output"_a, "bias_ids"_a, "biases"_a, "allowed"_a = nb::none(),
        "The chosen token id; None where logits are not numbers. See cpp/kernels/sample.cpp.");
    m.def(
        "log_sum_exp",
        [](const std::string& set, Logits logits, Logits maxima) {
            check(logits, maxima);
            return kernels_of(set).log_sum_exp(logits.data(), maxima.data(), (int)logits.shape(0));
        },
        "instruction_set"_a, "logits"_a, "maxima"_a, "Not finite where the logits hold no choice.");
    m.def(
        "top",
        [](const std::string& set, Logits logits, Logits maxima, int count) {
            check(logits, maxima);
            require(count >= 1, "count: at least 1");
            std::vector<int32_t> ids(std::min((size_t)count, logits.shape(0)));
            kernels_of(set).top(logits.data(), maxima.data(), (int)logits.shape(0), (int)ids.size(),
                                ids.data());
            return ids;
        },
        "instruction_set"_a, "logits"_a, "maxima"_a, "count"_a);
    m.def(
        "read_bytes",
        [](const std::string& set, Array<const uint8_t, 1> data, size_t ahead) {
            const Kernels& kernels = kernels_of(set);
            nb::gil_scoped_release unlocked;
            return kernels.read_bytes(data.data(), data.shape(0), ahead);
        },
        "instruction_set"_a, "data"_a, "ahead"_a,
        "Reads all of it once, calling for what lies `ahead` bytes on (0: for nothing); what comes "
        "back means nothing.");
    m.def(
        "multiply_bytes",
        [](const std::string& set, size_t rounds) {
            const Kernels& kernels = kernels_of(set);
            nb::gil_scoped_release unlocked;
            return kernels.multiply_bytes(rounds);
        },
        "instruction_set"_a, "rounds"_a, "1536 multiply-adds of bytes a round.");
    m.def(
        "multiply_floats",
        [](const std::string& set, size_t rounds) {
            const Kernels& kernels = kernels_of(set);
            nb::gil_scoped_release unlocked;
            return kernels.multiply_floats(rounds);
        },
        "instruction_set"_a, "rounds"_a, "384 multiply-adds of floats a round.");
}

}  // namespace octavo
