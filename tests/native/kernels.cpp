// Drives the kernels, the pool and whole programs over shapes chosen to be awkward, for sanitizers
// to watch (sanitize.sh). What is right is the Python tests' business: here every array is as long
// as the kernels may assume and no longer, and answers are only compared with themselves.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "program.h"

using namespace octavo;

namespace {

std::mt19937 dice(1);

int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(dice); }

std::vector<float> normal(size_t size) {
    std::normal_distribution<float> draw;
    std::vector<float> out(size);
    for (float& x : out) x = draw(dice);
    return out;
}

std::vector<uint8_t> bytes(size_t size) {
    std::vector<uint8_t> out(size);
    for (uint8_t& x : out) x = (uint8_t)dice();
    return out;
}

void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "not so: %s\n", what);
    std::exit(1);
}

// ---- weights

struct Format {
    Kind kind;
    int bits, group;
    bool has_min, has_sub;
};

const Format FORMATS[] = {
    {Kind::f32, 0, 0, false, false},   {Kind::f16, 0, 0, false, false},
    {Kind::bf16, 0, 0, false, false},  {Kind::codes, 4, 32, false, false},
    {Kind::codes, 4, 32, true, false}, {Kind::codes, 5, 32, false, false},
    {Kind::codes, 5, 32, true, false}, {Kind::codes, 8, 32, false, false},
    {Kind::codes, 2, 16, true, true},  {Kind::codes, 3, 16, false, true},
    {Kind::codes, 4, 32, true, true},  {Kind::codes, 5, 32, true, true},
    {Kind::codes, 6, 16, false, true},
};

bool has_avx2() {
#if defined(OCTAVO_HAS_AVX2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
#else
    return false;
#endif
}

// One of the sets, by chance: all pack alike.
const Kernels& any_set() {
#if defined(OCTAVO_HAS_AVX2)
    if (has_avx2() && between(0, 1)) return avx2::kernels;
#endif
    return generic::kernels;
}

// A packed matrix of noise in exactly the memory that it needs.
struct Matrix {
    std::vector<uint8_t> memory;
    Weight w;

    Matrix(Format f, int rows, int columns)
        : w{nullptr, 0, rows, columns, f.kind, f.bits, f.group, f.has_min, f.has_sub} {
        w.stride = stride_of(w);
        memory.resize(w.row_groups() * w.stride);
        w.data = memory.data();
        for (int first = 0; first < rows; first += 8) fill(first, std::min(8, rows - first));
    }

    void fill(int first, int rows) {
        const Kernels& kernels = any_set();
        size_t count = (size_t)rows * w.columns;
        if (w.kind != Kind::codes) {
            auto data = bytes(count * (w.kind == Kind::f32 ? 4 : 2));
            // Exponents near one: no infinities, which would hide differences.
            for (size_t i = 1; i < data.size(); i += 2) data[i] = 0x3c | (data[i] & 0x80);
            return kernels.pack_floats(w, memory.data(), data.data(), first, rows);
        }
        auto subs = bytes(count / w.group), mins = bytes(count / w.group);
        int span = w.has_sub ? SUPER : BLOCK;
        std::vector<uint16_t> scales(count / span, 0x2c00);
        Halves halves = {(uint8_t*)scales.data(), w.columns / span * 2, 2};
        CodesIn from = {{},
                        halves,
                        w.has_min ? halves : Halves(),
                        w.has_sub ? (const int8_t*)subs.data() : nullptr,
                        w.has_sub && w.has_min ? (const int8_t*)mins.data() : nullptr};
        std::vector<std::vector<uint8_t>> files;
        for (int bits : w.bits == 3   ? std::vector{2, 1}
                        : w.bits == 5 ? std::vector{4, 1}
                        : w.bits == 6 ? std::vector{4, 2}
                                      : std::vector{w.bits}) {
            files.push_back(bytes(count / 8 * bits));
            int block = span / 8 * bits;
            int run = block < 16 ? 1 : block % 32 || between(0, 1) ? 16 : 32;
            from.planes.push_back({files.back().data(), w.columns / span * block, block, run,
                                   block / run, run, bits});
        }
        kernels.pack_codes(w, memory.data(), from, first, rows);
    }
};

std::vector<float> product(const Kernels& kernels, const Matrix& m, const float* x, int tokens) {
    const Weight& w = m.w;
    int width = w.row_groups() * LANES;
    std::vector<uint8_t> tiles(w.kind == Kind::codes ? activation_bytes(tokens, w.columns) : 0);
    if (w.kind == Kind::codes)
        for (int t = 0; t < tokens; ++t)
            kernels.quantize(x + (size_t)t * w.columns, w.columns, t, tokens, tiles.data());
    std::vector<float> bias = normal(w.row_groups() * LANES), out((size_t)tokens * width);
    std::fill(bias.begin(), bias.end(), 0.5f);
    kernels.linear(w, 0, w.row_groups(), tiles.data(), {(float*)x, w.columns}, tokens, bias.data(),
                   {out.data(), width});
    return out;
}

void drive_linear(const Kernels& kernels) {
    for (const Format& f : FORMATS)
        for (int rows : {1, 8, 19}) {
            int block = f.has_sub ? SUPER : f.kind == Kind::codes ? BLOCK : 1;
            int columns = block * between(1, 2) + (block == 1 ? between(0, 40) : 0);
            Matrix m(f, rows, columns);
            std::vector<float> row(columns), x = normal(17 * columns);
            for (int i = 0; i < rows; ++i) unpack_row(m.w, i, row.data());
            auto all = product(kernels, m, x.data(), 17);
            for (int tokens : {1, 2, 3, 5, 7, 12, 16}) {
                auto some = product(kernels, m, x.data(), tokens);
                expect(!std::memcmp(some.data(), all.data(), some.size() * 4),
                       "a token is the same among others");
            }
        }
}

// ---- programs

// A decoder layer over two kinds of pages, an output head over the wanted rows.
struct Model {
    static constexpr int VOCABULARY = 197, BLOCKS = 4, HIDDEN = 256, HEADS = 6, KV_HEADS = 2,
                         DIM = 32;
    static constexpr int NUM_PAGES = 80, WINDOW = 40, MOST_TOKENS = 64, MOST_ROWS = 3;

    Format format = FORMATS[between(0, 12)];
    Matrix table{format, VOCABULARY, HIDDEN}, q{format, HEADS * DIM, HIDDEN},
        k{format, KV_HEADS * DIM, HIDDEN}, v{FORMATS[1], KV_HEADS * DIM, HIDDEN},
        mixed{FORMATS[3], HIDDEN, HEADS * DIM};
    std::vector<float> norm = normal(HIDDEN), inv_freq = normal(DIM / 2), bias = normal(HIDDEN);

    struct Running {
        std::vector<std::vector<uint8_t>> pools;
        Program program;
        BufferId logits;
    };

    std::vector<Group> groups(std::vector<std::vector<uint8_t>>& pools) {
        PageKind kinds[] = {PageKind::float16, PageKind::int8};
        for (int i : {0, 1})  // not a number, in halves and in floats
            pools[i].assign(NUM_PAGES * 2 * KV_HEADS * block_bytes(kinds[i], DIM), 0xff);
        return {{pools[0].data(), kinds[0], NUM_PAGES, 1, KV_HEADS, DIM, 1 << 30},
                {pools[1].data(), kinds[1], NUM_PAGES, 1, KV_HEADS, DIM, WINDOW}};
    }

    BufferId product(Program& p, BufferId x, const Matrix& m, const float* bias = nullptr) {
        BufferId from = x, out = p.buffer(m.w.row_groups() * LANES);
        if (m.w.kind == Kind::codes) p.quantize(x, m.w.columns, from = p.tiles(m.w.columns));
        p.linear(from, {{&m.w, bias, out}});
        return out;
    }

    void record(Program& p) {
        BufferId x = p.buffer(HIDDEN), angles = p.buffer(DIM), normed = p.buffer(HIDDEN);
        p.embed(table.w, x);
        p.angles(inv_freq.data(), DIM / 2, angles);
        for (int group : {0, 1}) {
            p.rms_norm(x, norm.data(), HIDDEN, 1, 1e-5f, normed);
            BufferId a = product(p, normed, q), b = product(p, normed, k);
            BufferId c = product(p, normed, v), out = p.buffer(HEADS * DIM);
            p.rope(a, angles, HEADS, DIM / 2, a);
            p.rope(b, angles, KV_HEADS, DIM / 2, b);
            p.store_kv(b, c, group, 0);
            p.scale(a, 0.1f, HEADS * DIM, a);
            p.attend(a, HEADS, group, 0, out);
            BufferId back = product(p, out, mixed, bias.data());
            p.silu_mul(back, back, HIDDEN, back);
            p.gelu_mul(back, x, HIDDEN, back);
            p.add(x, back, HIDDEN, x);
        }
        p.start_outputs();
        BufferId taken = p.buffer(HIDDEN);
        p.take(x, taken);
        p.rms_norm(taken, norm.data(), HIDDEN, 1, 1e-5f, taken);
        p.result(product(p, taken, table), VOCABULARY);
    }
};

// Sequences that each own some pages and bring some tokens a step.
struct Batches {
    static constexpr int WIDTH = 20, SEQUENCES = 4;
    std::vector<int32_t> table, ids, positions, starts, outputs;
    int held[SEQUENCES] = {};

    Batches() {
        for (int page = 0; page < SEQUENCES * WIDTH; ++page) table.push_back(page);
        std::shuffle(table.begin(), table.end(), dice);
    }

    Step next() {
        ids.clear(), positions.clear(), outputs.clear(), starts.assign(1, 0);
        for (int s = 0; s < SEQUENCES; ++s) {
            int room = std::min(WIDTH * PAGE - held[s], 14);
            for (int i = between(1, std::max(1, room)); i > 0; --i) {
                if (held[s] == WIDTH * PAGE) held[s] = 0;  // another begins in its pages
                if (held[s] == 0 && !ids.empty() && starts.back() < (int)ids.size()) break;
                ids.push_back(between(0, Model::VOCABULARY - 1));
                positions.push_back(held[s]++);
            }
            starts.push_back((int)ids.size());
            if (between(0, 3)) outputs.push_back((int)ids.size() - 1);
        }
        return {ids.data(),      positions.data(), starts.data(),
                (int)ids.size(), SEQUENCES,        {table.data(), table.data()},
                {WIDTH, WIDTH},  outputs.data(),   (int)outputs.size()};
    }

    // The first sequence alone.
    Step lone(int first, int count) {
        ids.assign(count, 1), positions.clear(), starts = {0, count}, outputs.clear();
        for (int i = 0; i < count; ++i) positions.push_back(first + i);
        return {ids.data(),
                positions.data(),
                starts.data(),
                count,
                1,
                {table.data(), table.data()},
                {WIDTH, WIDTH},
                nullptr,
                0};
    }
};

void drive_program(const Kernels& kernels) {
    Model model;
    std::vector<std::vector<uint8_t>> pools[2] = {std::vector<std::vector<uint8_t>>(2),
                                                  std::vector<std::vector<uint8_t>>(2)};
    Program one(kernels, 1, Model::MOST_TOKENS, Model::MOST_ROWS, model.groups(pools[0]));
    Program many(kernels, between(2, 4), Model::MOST_TOKENS, Model::MOST_ROWS,
                 model.groups(pools[1]));
    model.record(one), model.record(many);
    Batches batches;
    for (int round = 0; round < 10; ++round) {
        Step step = batches.next();
        one.run(step), many.run(step);
        for (int row = 0; row < step.num_outputs; row += Model::MOST_ROWS) {
            int end = std::min(row + Model::MOST_ROWS, step.num_outputs);
            Program::Logits a = one.finish(step, row, end), b = many.finish(step, row, end);
            for (int i = 0; i < end - row; ++i) {
                expect(!std::memcmp(a.rows.row(i), b.rows.row(i), Model::VOCABULARY * 4),
                       "threads change no bit");
                expect(!std::memcmp(a.maxima.row(i), b.maxima.row(i), Model::BLOCKS * 4),
                       "threads change no maximum");
            }
        }
        expect(pools[0] == pools[1], "threads change no page");
    }
    // One token after a long past, which is cut between the threads.
    for (int held = 0; held < Batches::WIDTH * PAGE;) {
        int count = held < 300 ? 60 : 1;
        Step step = batches.lone(held, count);
        one.run(step), many.run(step);
        held += count;
    }
    expect(pools[0] == pools[1], "threads change no page of a decode");
    Step nothing = batches.lone(0, 0);
    nothing.sequences = 0;
    many.run(nothing), many.finish(nothing, 0, 0);
}

// ---- threads

void drive_pool() {
    for (int threads = 1; threads <= 4; ++threads) {
        Pool pool(threads, 8);
        for (int round = 0; round < 200; ++round) {
            std::vector<uint16_t> chunks(between(0, 8));
            for (auto& count : chunks) count = (uint16_t)between(1, 12);
            std::vector<std::vector<int>> done;
            for (int count : chunks) done.emplace_back(count);
            // Not atomic: what a stage does must be seen by the next without more ado.
            pool.run(chunks, [&](int stage, int chunk, int) {
                ++done[stage][chunk];
                if (stage > 0)
                    for (int each : done[stage - 1])
                        expect(each == 1, "a stage begins when the last one is over");
            });
            for (auto& stage : done)
                for (int each : stage) expect(each == 1, "every chunk is done once");
        }
    }
}

// ---- sampling

void drive_sampling(const Kernels& kernels) {
    for (int size : {1, 7, 8, 9, 63, 64, 65, 5000})
        for (int round = 0; round < 40; ++round) {
            auto logits = normal(size), biases = normal(2);
            std::vector<float> maxima((size + LOGITS_BLOCK - 1) / LOGITS_BLOCK);
            int32_t prompt[2] = {0, size - 1}, ids[20];
            bool fails = round % 8 == 0 || round % 8 == 2;
            if (round % 8 == 0) std::fill(logits.begin(), logits.end(), -INFINITY);
            if (round % 8 == 1) std::fill(logits.begin(), logits.end(), 1.5f);
            if (round % 8 == 2) logits[size / 2] = NAN;
            if (round % 8 == 3) std::fill(logits.begin() + 1, logits.end(), -INFINITY);
            kernels.block_maxima(logits.data(), size, maxima.data());
            auto before = logits, maxima_before = maxima;
            std::vector<uint32_t> allowed((size + 31) / 32);
            for (auto& word : allowed) word = dice() | (round % 3 ? 0 : ~0u);
            allowed[0] |= 1;
            kernels.log_sum_exp(logits.data(), maxima.data(), size);
            int count = std::min(20, size);
            kernels.top(logits.data(), maxima.data(), size, count, ids);
            int token = kernels.sample(logits.data(), maxima.data(), size,
                                       {.temperature = (float)between(0, 3),
                                        .top_p = round % 3 ? 1.0f : 0.7f,
                                        .min_p = round % 5 ? 0.0f : 0.1f,
                                        .top_k = between(0, 2 * size),
                                        .repetition_penalty = 1.1f,
                                        .presence_penalty = 0.5f,
                                        .frequency_penalty = 0.1f,
                                        .seed = dice(),
                                        .position = (uint32_t)dice(),
                                        .prompt = prompt,
                                        .num_prompt = 2,
                                        .output = prompt,
                                        .num_output = round % 3,
                                        .bias_ids = prompt,
                                        .biases = biases.data(),
                                        .num_biases = 1,
                                        .allowed = round % 2 ? allowed.data() : nullptr});
            if (fails)
                expect(token == NO_TOKEN, "no choice");
            else
                expect(token >= 0 && token < size, "a token of the vocabulary");
            expect(!std::memcmp(logits.data(), before.data(), size * 4) &&
                       !std::memcmp(maxima.data(), maxima_before.data(), maxima.size() * 4),
                   "logits are as they were");
        }
}

void drive_limits(const Kernels& kernels) {
    auto data = bytes(4096);
    for (size_t ahead : {0, 4096}) kernels.read_bytes(data.data(), data.size(), ahead);
    kernels.multiply_bytes(3);
    kernels.multiply_floats(3);
}

// With the thread sanitizer, which is slow, only what threads share.
#if defined(__SANITIZE_THREAD__)
constexpr bool ONLY_SHARED = true;
#else
constexpr bool ONLY_SHARED = false;
#endif

void drive(const Kernels& kernels) {
    std::printf("%s\n", kernels.name);
    for (int i = 0; i < 3; ++i) drive_program(kernels);
    if (ONLY_SHARED) return;
    drive_linear(kernels);
    drive_sampling(kernels);
    drive_limits(kernels);
}

}  // namespace

int main() {
    drive_pool();
    drive(generic::kernels);
#if defined(OCTAVO_HAS_AVX2)
    if (has_avx2()) drive(avx2::kernels);
#endif
}
