// From a row of logits to a token: penalties, temperature, cuts, and noise that depends on nothing
// but (seed, position, token). The chosen token is an argmax: of the logits at temperature 0, of
// logit / temperature + Gumbel noise above it (Gumbel-max trick), over the tokens that the cuts
// leave. Ties go to the lower id. Tokens that a mask does not allow are as if their logits were
// -inf from the beginning. A cut keeps the tokens of an order (order.h) up to a last one:
//
//   min_p   a bound on the logits
//   top_k   the k-th token, found by counting
//   top_p   a race over everyone has the same winner as one over those kept, if it is one of them:
//           what is before it in the order weighs less than top_p. If it is not, those kept are
//           before it, and the race is run again among those.
#include "order.h"

namespace octavo::OCTAVO_SET {
namespace {

// ---- noise

// splitmix64's finisher (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

constexpr uint32_t inverse_of(uint32_t odd) {  // modulo 2^32, by Newton's iteration
    uint32_t x = odd;
    for (int i = 0; i < 5; ++i) x *= 2 - odd * x;
    return x;
}

// Noise of a row's tokens: 32 bits a token, its id through MurmurHash3's finisher twice, with half
// of the row's key before each. It can be turned round: from bits to the token that has them.
struct Noise {
    static constexpr uint32_t FIRST = 0x85ebca6b, SECOND = 0xc2b2ae35;
    i32x8 low, high;  // of mix(mix(seed + golden) + position), golden = 2^64 / phi

    Noise(uint64_t seed, uint32_t position) {
        constexpr uint64_t GOLDEN = 0x9e3779b97f4a7c15u;
        uint64_t key = mix(mix(seed + GOLDEN) + position);
        low = broadcast((int32_t)key), high = broadcast((int32_t)(key >> 32));
    }

    static i32x8 scatter(i32x8 x) {
        x = (x ^ shift_right<16>(x)) * broadcast((int32_t)FIRST);
        x = (x ^ shift_right<13>(x)) * broadcast((int32_t)SECOND);
        return x ^ shift_right<16>(x);
    }
    static i32x8 unscatter(i32x8 x) {
        x = (x ^ shift_right<16>(x)) * broadcast((int32_t)inverse_of(SECOND));
        x = (x ^ shift_right<13>(x) ^ shift_right<26>(x)) * broadcast((int32_t)inverse_of(FIRST));
        return x ^ shift_right<16>(x);
    }
    i32x8 bits(i32x8 tokens) const { return scatter(scatter(tokens ^ low) ^ high); }
    i32x8 tokens(i32x8 bits) const { return unscatter(unscatter(bits) ^ high) ^ low; }
    uint32_t bits(int token) const {
        int32_t out[8];
        store(out, bits(broadcast((int32_t)token)));
        return (uint32_t)out[0];
    }
};

// -log(-log u), u = (bits + 1/2) / 2^32.
double gumbel(uint32_t bits) { return -std::log(-std::log(((double)bits + 0.5) * 0x1p-32)); }

// No less than gumbel(): -log(-log u) <= -log(1 - u), and the exponent of 1 - u is known at once.
f32x8 most_gumbel(i32x8 bits_of) {
    i32x8 rest = shift_right<1>(bits_of ^ broadcast(-1));  // (1 - u) 2^31, rounded down
    i32x8 exponent = shift_right<23>(bits(to_float(rest))) - broadcast(127 + 31);
    return fma(to_float(exponent), broadcast(-0.6931472f), broadcast(0.001f));
}

// The argmax of logit / temperature + noise over the tokens that a cut keeps. A winner has a large
// logit or much noise: tokens of much noise are found from the noise, whatever their logits, until
// the blocks whose logits may still win are few; all tokens of those are looked at.
struct Race {
    // What looking at a block takes, in noises looked at.
    static constexpr int64_t BLOCK_COST = LOGITS_BLOCK / 2;

    const Blocks& row;
    const Cut& cut;
    double temperature;
    Noise noise;
    int winner = -1;
    double highest = 0;
    int64_t seen_bits = int64_t{1} << 32;  // tokens with these bits and more have entered
    float least_logit = 0, least_sum = 0;  // that could still win, with noise of fewer bits
    int waiting = 0;                       // tokens to be looked at, eight at a time
    int32_t ids[8] = {};
    float logits[8] = {};

    int run(int best) {
        enter(best);
        for (int64_t more = 512; blocks_left() * BLOCK_COST > more; more *= 2) enter_noisiest(more);
        cut.each(
            row, [&] { return least_logit; },
            [&](int first, const float* x, float bound) { enter_block(first, x, bound); });
        enter_waiting();
        return winner;
    }

    void enter(int id) {
        double value = (double)row.logit(id) / temperature + gumbel(noise.bits(id));
        if (winner >= 0 && (value < highest || (value == highest && id > winner))) return;
        winner = id, highest = value;
        set_bounds();
    }

    // The margin is beyond what rounding to float32 can hide.
    void set_bounds() {
        double sum = highest - 0.01 - 1e-5 * std::fabs(highest);
        double logit = (sum - gumbel((uint32_t)(seen_bits - 1))) * temperature;
        least_sum = (float)sum, least_logit = -larger(-(float)logit);
    }

    int blocks_left() const {
        return count_at_least(row.maxima, row.count, std::max(least_logit, cut.last.logit));
    }

    void enter_noisiest(int64_t more) {
        seen_bits -= more;
        i32x8 size = broadcast((int32_t)row.size);
        for (int64_t from = seen_bits; from < seen_bits + more; from += 8) {
            i32x8 ids = noise.tokens(eight_from((int32_t)from));
            int mask = lanes_below(ids, size);
            if (!mask) continue;
            int32_t id[8];
            for (store(id, ids); mask; mask &= mask - 1) {
                int32_t token = id[__builtin_ctz(mask)];
                if (cut.keeps({row.logit(token), token})) enter(token);
            }
        }
        set_bounds();
    }

    // A few tokens of a block wait until there are eight; many are looked at where they are.
    void enter_block(int first, const float* x, float bound) {
        uint64_t mask = block_at_least(x, std::max(bound, least_logit));
        if (__builtin_popcountll(mask) > LOGITS_BLOCK / 4) {
            for (int i = 0; i < LOGITS_BLOCK; i += 8)
                enter_eight(eight_from(first + i), load(x + i), (int)(mask >> i & 255));
            return;
        }
        for (; mask; mask &= mask - 1) {
            int i = __builtin_ctzll(mask);
            ids[waiting] = first + i, logits[waiting] = x[i];
            if (++waiting == 8) enter_waiting();
        }
    }

    void enter_waiting() {
        enter_eight(load(ids), load(logits), (1 << waiting) - 1);
        waiting = 0;
    }

    void enter_eight(i32x8 tokens, f32x8 values, int mask) {
        if (temperature > 1e-37) {  // else its inverse is no float32
            f32x8 factor = broadcast((float)(1 / temperature));
            f32x8 sums = fma(values, factor, most_gumbel(noise.bits(tokens)));
            mask &= lanes_at_least(sums, broadcast(least_sum));
        }
        if (!mask) return;
        int32_t id[8];
        for (store(id, tokens); mask; mask &= mask - 1) enter(id[__builtin_ctz(mask)]);
    }

    static i32x8 eight_from(int32_t first) {
        static const int32_t COUNT[8] = {0, 1, 2, 3, 4, 5, 6, 7};
        return load(COUNT) + broadcast(first);
    }
};

// ---- penalties

// A row under penalties and biases. It is put back once this is gone.
struct Bent {
    struct Change {
        float *place, before;
    };
    float *logits, *maxima;
    int size;
    std::vector<Change> changes;

    Bent(float* logits, float* maxima, int size) : logits(logits), maxima(maxima), size(size) {}
    Bent(const Bent&) = delete;
    ~Bent() {
        for (auto change = changes.rbegin(); change != changes.rend(); ++change)
            *change->place = change->before;
    }

    void set(int id, float x) {
        float &logit = logits[id], &most = maxima[id / LOGITS_BLOCK], before = logit;
        put(logit, x);
        if (!(x <= most)) put(most, x);
        if (before == most && x < before) {
            int first = id / LOGITS_BLOCK * LOGITS_BLOCK;
            put(most, best_of(logits + first, std::min(LOGITS_BLOCK, size - first)));
        }
    }
    void put(float& place, float x) {
        changes.push_back({&place, place});
        place = x;
    }

    void penalize(const SampleIn& in) {
        thread_local std::vector<int32_t> times;  // per token: 0 unless it is in `seen`
        if (times.size() < (size_t)size) times.resize(size);
        std::vector<int32_t> seen;
        auto see = [&](int32_t id, int32_t at_first, int32_t again) {
            if (times[id] == 0) seen.push_back(id), times[id] = at_first;
            times[id] += again;
        };
        for (int i = 0; i < in.num_prompt; ++i) see(in.prompt[i], 1, 0);
        for (int i = 0; i < in.num_output; ++i) see(in.output[i], 1, 1);
        for (int32_t id : seen) {
            float x = logits[id], generated = (float)(times[id] - 1);
            x = x > 0 ? x / in.repetition_penalty : x * in.repetition_penalty;
            if (generated > 0) x -= in.presence_penalty + in.frequency_penalty * generated;
            set(id, x);
            times[id] = 0;
        }
        for (int i = 0; i < in.num_biases; ++i)
            set(in.bias_ids[i], logits[in.bias_ids[i]] + in.biases[i]);
    }
};

}  // namespace

void block_maxima(const float* logits, int size, float* out) {
    for (; size >= LOGITS_BLOCK; size -= LOGITS_BLOCK, logits += LOGITS_BLOCK)
        *out++ = best_of(logits, LOGITS_BLOCK);
    if (size > 0) *out = best_of(logits, size);
}

int sample(float* logits, float* maxima, int size, const SampleIn& in) {
    if (!std::isfinite(best_of(maxima, blocks_of(size)))) return NO_TOKEN;
    Bent bent(logits, maxima, size);
    if (in.num_prompt + in.num_output + in.num_biases > 0) bent.penalize(in);
    Blocks row(logits, maxima, size, in.allowed);
    if (in.allowed) row.maxima = bounds_of_allowed(row);
    float best = best_of(row.maxima, row.count);
    if (!std::isfinite(best)) return NO_TOKEN;
    int first = row.first(best);
    if (in.temperature == 0 || in.top_k == 1) return first;

    double temperature = in.temperature;
    Token last = {-INF, NOBODY_AFTER};
    if (in.min_p > 0) last.logit = (float)((double)best + temperature * std::log((double)in.min_p));
    if (in.top_k > 0) last = std::min(last, kth(row, in.top_k, best), better);
    Cut kept{last};
    Noise noise(in.seed, in.position);
    int winner = Race{row, kept, temperature, noise}.run(first);
    if (in.top_p == 1 || winner == first) return winner;
    Nucleus nucleus{row, kept, best, temperature, in.top_p};
    while (winner != first && !nucleus.has({logits[winner], winner})) {
        Cut before{{logits[winner], winner - 1}};
        winner = Race{row, before, temperature, noise}.run(first);
    }
    return winner;
}

float log_sum_exp(const float* logits, const float* maxima, int size) {
    float best = best_of(maxima, blocks_of(size));
    if (!std::isfinite(best)) return best;
    // Blocks further below add less than 2^-25 of the sum, be there a million tokens.
    double total = 0;
    Blocks(logits, maxima, size)
        .each([=] { return best - 32; },
              [&](int, const float* x) {
                  f32x8 sums = broadcast(0.0f);
                  for (int i = 0; i < LOGITS_BLOCK; i += 8)
                      sums = sums + exp(load(x + i) - broadcast(best));
                  total += sum(sums);
              });
    return best + (float)std::log(total);
}

void top(const float* logits, const float* maxima, int size, int count, int32_t* ids) {
    Blocks row(logits, maxima, size);
    Cut cut{kth(row, count, best_of(maxima, row.count))};
    std::vector<Token> all;
    cut.each(
        row, [&] { return (int)all.size() < count ? -INF : INF; },
        [&](int first, const float* x, float bound) {
            for (uint64_t mask = block_at_least(x, bound); mask; mask &= mask - 1)
                if (int i = __builtin_ctzll(mask); first + i < size)
                    all.push_back({x[i], first + i});
        });
    std::sort(all.begin(), all.end(), better);
    for (int i = 0; i < std::min(count, (int)all.size()); ++i) ids[i] = all[i].id;
}

}  // namespace octavo::OCTAVO_SET
