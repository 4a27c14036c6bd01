#include "threads.h"

#include <chrono>

#include "simd.h"

namespace octavo {

namespace {

// A few tens of microseconds: longer than a neighbour thread needs to finish its chunk, much
// shorter than a time slice.
constexpr int SPINS = 2000;
// Between two steps the caller samples and schedules; threads that sleep through it wake slowly.
constexpr auto PATIENCE = std::chrono::microseconds(300);

}  // namespace

Pool::Pool(int threads, size_t max_stages) : stages_(max_stages) {
    for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { idle(t); });
}

Pool::~Pool() {
    ending_ = true;
    current_.fetch_add(uint64_t{1} << 32);
    current_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Pool::run(const std::vector<uint16_t>& chunks, const Work& work) {
    auto run = (uint32_t)(current_.load(std::memory_order_relaxed) >> 32) + 1;
    work_ = &work;
    for (size_t s = 0; s < chunks.size(); ++s) {
        stages_[s].done.store((uint64_t)run << 32, std::memory_order_relaxed);
        stages_[s].next.store((uint64_t)run << 32 | (uint64_t)chunks[s] << 16,
                              std::memory_order_release);
    }
    current_.store((uint64_t)run << 32 | chunks.size());
    current_.notify_all();
    work_through(run, (int)chunks.size(), 0);
}

void Pool::work_through(uint32_t run, int stages, int thread) {
    for (int s = 0; s < stages; ++s) {
        Stage& stage = stages_[s];
        uint64_t next = stage.next.load(std::memory_order_acquire);
        uint32_t chunks = next >> 16 & 0xffff;
        while (next >> 32 == run && (next & 0xffff) < chunks) {
            if (!stage.next.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel))
                continue;
            (*work_)(s, (int)(next & 0xffff), thread);
            uint64_t done = stage.done.fetch_add(1, std::memory_order_acq_rel) + 1;
            if ((done & 0xffffffff) == chunks) stage.done.notify_all();
            next = stage.next.load(std::memory_order_acquire);
        }
        if (next >> 32 != run) return;
        // Whoever else wants the core gets it here, where no chunk is in hand that others would
        // wait for: the system takes it anyway.
        std::this_thread::yield();
        wait_for(stage, run, chunks);
    }
}

void Pool::wait_for(Stage& stage, uint32_t run, uint32_t chunks) {
    int spins = 0;
    while (true) {
        uint64_t done = stage.done.load(std::memory_order_acquire);
        if (done >> 32 != run || (done & 0xffffffff) >= chunks) return;
        if (++spins < SPINS)
            OCTAVO_SET::relax();
        else
            stage.done.wait(done, std::memory_order_acquire);
    }
}

void Pool::idle(int thread) {
    uint64_t seen = 0;
    auto since = std::chrono::steady_clock::now();
    while (!ending_.load(std::memory_order_relaxed)) {
        uint64_t current = current_.load(std::memory_order_acquire);
        if (current != seen) {
            seen = current;
            if (ending_.load(std::memory_order_relaxed)) return;
            work_through((uint32_t)(current >> 32), (int)(current & 0xffffffff), thread);
            since = std::chrono::steady_clock::now();
        } else if (std::chrono::steady_clock::now() - since < PATIENCE) {
            for (int i = 0; i < 20; ++i) OCTAVO_SET::relax();
        } else {
            current_.wait(current, std::memory_order_acquire);
        }
    }
}

}  // namespace octavo
