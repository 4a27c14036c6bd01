// From a row of logits to a token: penalties, temperature, cuts, and noise that depends on nothing
// but (seed, position, token). The chosen token is an argmax: of the logits at temperature 0, of
// logit / temperature + Gumbel noise above it (Gumbel-max trick), over the tokens that the cuts
// leave. Ties go to the lower id.
#include <algorithm>
#include <cmath>
#include <functional>
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

// splitmix64's finisher (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// Noise of a row's tokens: 32 bits a token, its id through MurmurHash3's finisher twice, with half
// of the row's key before each.
struct Noise {
    int32_t low, high;  // of mix(mix(seed + golden) + position), golden = 2^64 / phi

    Noise(uint64_t seed, uint32_t position) {
        constexpr uint64_t GOLDEN = 0x9e3779b97f4a7c15u;
        uint64_t key = mix(mix(seed + GOLDEN) + position);
        low = (int32_t)key, high = (int32_t)(key >> 32);
    }

    static i32x8 scatter(i32x8 x) {
        x = (x ^ shift_right<16>(x)) * broadcast((int32_t)0x85ebca6b);
        x = (x ^ shift_right<13>(x)) * broadcast((int32_t)0xc2b2ae35);
        return x ^ shift_right<16>(x);
    }
    i32x8 bits(i32x8 tokens) const {
        return scatter(scatter(tokens ^ broadcast(low)) ^ broadcast(high));
    }
    uint32_t bits(int token) const {
        int32_t out[8];
        store(out, bits(broadcast((int32_t)token)));
        return (uint32_t)out[0];
    }
};

// -log(-log u), u = (bits + 1/2) / 2^32; between LEAST_NOISE and MOST_NOISE.
double gumbel(uint32_t bits) { return -std::log(-std::log(((double)bits + 0.5) * 0x1p-32)); }
constexpr double MOST_NOISE = 22.88, LEAST_NOISE = -3.14;

// No less than gumbel(): -log(-log u) <= -log(1 - u), and the exponent of 1 - u is known at once.
f32x8 most_gumbel(i32x8 bits_of) {
    i32x8 rest = shift_right<1>(bits_of ^ broadcast(-1));  // (1 - u) 2^31, rounded down
    i32x8 exponent = shift_right<23>(bits(to_float(rest))) - broadcast(127 + 31);
    return fma(to_float(exponent), broadcast(-0.6931472f), broadcast(0.001f));
}

// The argmax of logit / temperature + noise so far.
struct Race {
    const float* logits;
    double temperature;
    Noise noise;
    int winner = -1;
    double highest = 0;

    void enter(int id) {
        double value = (double)logits[id] / temperature + gumbel(noise.bits(id));
        if (winner < 0 || value > highest || (value == highest && id < winner))
            winner = id, highest = value;
    }

    // All tokens. Only those that noise might lift over the leader are looked at closely; the
    // margin is beyond what rounding to float32 can hide.
    void enter_all(int size) {
        static const int32_t COUNT[8] = {0, 1, 2, 3, 4, 5, 6, 7};
        f32x8 factor = broadcast((float)(1 / temperature));
        int i = 0;
        for (; i + 8 <= size; i += 8) {
            f32x8 scaled = load(logits + i) * factor;
            auto bound = (float)(highest - 0.01 - 1e-5 * std::fabs(highest));
            if (!lanes_at_least(scaled + broadcast((float)MOST_NOISE), broadcast(bound))) continue;
            f32x8 most = scaled + most_gumbel(noise.bits(load(COUNT) + broadcast((int32_t)i)));
            for (int mask = lanes_at_least(most, broadcast(bound)); mask; mask &= mask - 1)
                enter(i + __builtin_ctz(mask));
        }
        for (; i < size; ++i) enter(i);
    }
};

struct Candidate {
    float logit;
    int id;
};

bool better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// Sum of e^((logit - best) / temperature) over a row.
double total_weight(const float* logits, int size, float best, double temperature) {
    f32x8 total = broadcast(0.0f), factor = broadcast((float)(1 / temperature));
    int i = 0;
    for (; i + 8 <= size; i += 8)
        total = total + exp((load(logits + i) - broadcast(best)) * factor);
    double rest = 0;
    for (; i < size; ++i) rest += std::exp(((double)logits[i] - (double)best) / temperature);
    return (double)sum(total) + rest;
}

// How many of the best candidates together weigh what is wanted; sorts as many as it needs.
size_t reach(Candidate* all, size_t count, float best, double temperature, double wanted) {
    double sum = 0;
    size_t sorted = 0;
    for (size_t i = 0; i < count; ++i) {
        if (i == sorted) {
            size_t more = std::min(count, std::max<size_t>(64, 4 * sorted));
            std::partial_sort(all + sorted, all + more, all + count, better);
            sorted = more;
        }
        sum += std::exp(((double)all[i].logit - (double)best) / temperature);
        if (sum >= wanted) return i + 1;
    }
    return count;
}

// At most the k-th largest logit: each of many blocks has a largest one, and k of them are no less.
float kth_at_least(const float* logits, int size, int k) {
    constexpr int BLOCKS = 512;
    if (k > BLOCKS || size < 8 * BLOCKS) return -__builtin_inff();
    float largest_of[BLOCKS];
    for (int b = 0; b < BLOCKS; ++b) {
        int first = (int)((int64_t)size * b / BLOCKS),
            last = (int)((int64_t)size * (b + 1) / BLOCKS);
        largest_of[b] = best_of(logits + first, last - first);
    }
    std::nth_element(largest_of, largest_of + k - 1, largest_of + BLOCKS, std::greater<float>());
    return largest_of[k - 1];
}

// The tokens that top_k, top_p and min_p leave, in this order of cuts: min_p, top_k, top_p. Of
// those that noise could never lift to the top anyway, some are missing.
size_t cut(const float* logits, int size, const SampleIn& in, float best, Candidate* kept) {
    double temperature = in.temperature, reachable = MOST_NOISE - LEAST_NOISE, total = 0;
    if (in.min_p > 0) reachable = std::min(reachable, -std::log((double)in.min_p));
    bool counts_all = in.top_p < 1 && in.top_k == 0 && in.min_p == 0;
    if (counts_all) {
        // Tokens lighter than (1 - top_p) total / size cannot all together fill the rest of top_p.
        total = total_weight(logits, size, best, temperature);
        reachable = std::min(reachable, -std::log((1 - (double)in.top_p) * total / size));
    }
    auto bound = (float)((double)best - temperature * reachable);
    if (in.top_k > 0) bound = std::max(bound, kth_at_least(logits, size, in.top_k));
    size_t count = 0;
    each_at_least(logits, size, bound, [&](int id) { kept[count++] = {logits[id], id}; });
    if (in.top_k > 0 && (size_t)in.top_k < count) {
        std::nth_element(kept, kept + in.top_k, kept + count, better);
        count = in.top_k;
    }
    if (in.top_p == 1) return count;
    if (!counts_all)
        for (size_t i = 0; i < count; ++i)
            total += std::exp(((double)kept[i].logit - (double)best) / temperature);
    return reach(kept, count, best, temperature, in.top_p * total);
}

}  // namespace

int sample(float* logits, int size, const SampleIn& in) {
    penalize(logits, in);
    float best = best_of(logits, size);
    int first = first_at_least(logits, size, best);
    if (in.temperature == 0 || in.top_k == 1) return first;

    Race race = {logits, in.temperature, Noise(in.seed, in.position)};
    if (in.top_k == 0 && in.top_p == 1 && in.min_p == 0) {
        race.enter(first);
        race.enter_all(size);
        return race.winner;
    }
    thread_local std::vector<Candidate> kept;
    if (kept.size() < (size_t)size) kept.resize(size);
    size_t count = cut(logits, size, in, best, kept.data());
    for (size_t i = 0; i < count; ++i) race.enter(kept[i].id);
    return race.winner < 0 ? first : race.winner;
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
    std::vector<Candidate> all;
    float bound = kth_at_least(logits, size, count);
    each_at_least(logits, size, bound, [&](int id) { all.push_back({logits[id], id}); });
    for (int id = 0; (int)all.size() < count; ++id)  // only where some are not numbers
        if (!(logits[id] >= bound)) all.push_back({-__builtin_inff(), id});
    std::partial_sort(all.begin(), all.begin() + count, all.end(), better);
    for (int i = 0; i < count; ++i) ids[i] = all[i].id;
}

}  // namespace octavo::OCTAVO_SET
