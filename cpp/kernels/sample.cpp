// From a row of logits to a token: penalties, temperature, cuts, and noise that depends on nothing
// but (seed, position, token). The chosen token is an argmax: of the logits at temperature 0, of
// logit / temperature + Gumbel noise above it (Gumbel-max trick), over the tokens that the cuts
// leave. Ties go to the lower id.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels_of_set.h"

namespace octavo::OCTAVO_SET {
namespace {

float best_of(const float* x, int size) {
    f32x8 most = broadcast(-__builtin_inff());
    int i = 0;
    for (; i + 8 <= size; i += 8) most = max(most, load(x + i));
    float best = largest(most);
    for (; i < size; ++i) best = x[i] > best ? x[i] : best;
    return best;
}

int first_at_least(const float* x, int size, float bound) {
    int i = 0;
    for (; i + 8 <= size; i += 8)
        if (int mask = lanes_at_least(load(x + i), broadcast(bound)))
            return i + __builtin_ctz(mask);
    for (; i < size; ++i)
        if (x[i] >= bound) return i;
    return 0;  // only where nothing is a number
}

// Calls keep(i) for each x[i] >= bound, in ascending order.
template <typename Keep>
void each_at_least(const float* x, int size, float bound, Keep keep) {
    int i = 0;
    for (; i + 8 <= size; i += 8)
        for (int mask = lanes_at_least(load(x + i), broadcast(bound)); mask; mask &= mask - 1)
            keep(i + __builtin_ctz(mask));
    for (; i < size; ++i)
        if (x[i] >= bound) keep(i);
}

void penalize(float* logits, const SampleIn& in) {
    for (int i = 0; i < in.num_seen; ++i) {
        float& x = logits[in.seen[i]];
        x = x > 0 ? x / in.repetition_penalty : x * in.repetition_penalty;
        if (in.generated[i] > 0)
            x -= in.presence_penalty + in.frequency_penalty * (float)in.generated[i];
    }
    for (int i = 0; i < in.num_biases; ++i) logits[in.bias_ids[i]] += in.biases[i];
}

// splitmix64's finisher (Steele, Lea, Flood 2014), over a counter of seed, position and token.
uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// -log(-log u), u uniform in (0, 1).
double gumbel(uint64_t seed, uint32_t position, uint32_t token) {
    uint64_t counter = (uint64_t)position << 32 | token;
    uint64_t bits = mix(mix(seed + 0x9e3779b97f4a7c15u) ^ mix(counter + 0x9e3779b97f4a7c15u));
    double u = ((double)(bits >> 12) + 0.5) * 0x1p-52;
    return -std::log(-std::log(u));
}

// Beyond the largest and the smallest noise there is: u = 1 - 2^-53 and 2^-53.
constexpr double MOST_NOISE = 36.8, LEAST_NOISE = -3.7;

struct Candidate {
    float logit;
    int id;
};

bool better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// How many of the best candidates reach top_p of the probability of all; sorts as many as it needs.
size_t reach(Candidate* all, size_t count, float best, double temperature, double top_p) {
    auto weight = [&](const Candidate& c) {
        return std::exp(((double)c.logit - (double)best) / temperature);
    };
    double total = 0, sum = 0;
    for (size_t i = 0; i < count; ++i) total += weight(all[i]);
    size_t sorted = 0;
    for (size_t i = 0; i < count; ++i) {
        if (i == sorted) {
            size_t more = std::min(count, std::max<size_t>(64, 4 * sorted));
            std::partial_sort(all + sorted, all + more, all + count, better);
            sorted = more;
        }
        sum += weight(all[i]);
        if (sum >= top_p * total) return i + 1;
    }
    return count;
}

}  // namespace

int sample(float* logits, int size, const SampleIn& in) {
    penalize(logits, in);
    float best = best_of(logits, size);
    if (in.temperature == 0 || in.top_k == 1) return first_at_least(logits, size, best);

    // A token further below the best than noise can lift it never wins; min_p may cut higher still.
    double temperature = in.temperature, reachable = MOST_NOISE - LEAST_NOISE;
    if (in.min_p > 0) reachable = std::min(reachable, -std::log((double)in.min_p));
    bool counts_all =
        in.top_p < 1 && in.min_p == 0;  // top_p is a share of every token's probability
    auto bound = (float)((double)best - temperature * (counts_all ? 750 : reachable));
    thread_local std::vector<Candidate> room;
    if (room.size() < (size_t)size) room.resize(size);
    Candidate* kept = room.data();
    size_t count = 0;
    each_at_least(logits, size, bound, [&](int id) { kept[count++] = {logits[id], id}; });

    if (in.top_k > 0 && (size_t)in.top_k < count) {
        std::nth_element(kept, kept + in.top_k, kept + count, better);
        count = in.top_k;
    }
    if (in.top_p < 1) count = reach(kept, count, best, temperature, in.top_p);

    int chosen = -1;
    double highest = 0;
    for (size_t i = 0; i < count; ++i) {
        int id = kept[i].id;
        if (logits[id] < (double)best - temperature * reachable) continue;
        double value =
            (double)logits[id] / temperature + gumbel(in.seed, in.position, (uint32_t)id);
        if (chosen < 0 || value > highest || (value == highest && id < chosen))
            chosen = id, highest = value;
    }
    return chosen < 0 ? first_at_least(logits, size, best) : chosen;
}

float log_sum_exp(const float* logits, int size) {
    float best = best_of(logits, size), rest = 0;
    f32x8 total = broadcast(0.0f);
    int i = 0;
    for (; i + 8 <= size; i += 8) total = total + exp(load(logits + i) - broadcast(best));
    for (; i < size; ++i) rest += std::exp(logits[i] - best);
    return best + std::log(sum(total) + rest);
}

void top(const float* logits, int size, int count, int32_t* ids) {
    std::vector<Candidate> all(size);
    for (int i = 0; i < size; ++i) all[i] = {logits[i], i};
    std::partial_sort(all.begin(), all.begin() + count, all.end(), better);
    for (int i = 0; i < count; ++i) ids[i] = all[i].id;
}

}  // namespace octavo::OCTAVO_SET
