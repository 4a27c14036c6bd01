// A pool that works through stages, each cut into chunks that whoever is free takes next.
//
// A stage is over when its chunks are done, not when every thread has come by: a thread that the
// system has taken off its core holds up nobody unless it has a chunk in hand, and one thread can
// finish alone. Waiting threads spin briefly, then sleep; an idle pool costs nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace octavo {

class Pool {
  public:
    static constexpr int MOST_CHUNKS = 0xffff;  // of a stage

    // `threads` includes the one that calls run().
    Pool(int threads, size_t max_stages);
    ~Pool();
    Pool(const Pool&) = delete;

    int threads() const { return (int)workers_.size() + 1; }

    // Calls work(stage, chunk, thread) for every chunk of every stage, stage after stage.
    // chunks[s] is the number of chunks of stage s. Returns when all is done.
    using Work = std::function<void(int stage, int chunk, int thread)>;
    void run(const std::vector<uint16_t>& chunks, const Work& work);

  private:
    // One stage's progress. Both words carry the run's number in their upper half, so that a thread
    // which comes late from an earlier run takes nothing and waits for nothing.
    struct alignas(64) Stage {
        std::atomic<uint64_t> next{0};  // run << 32 | chunks << 16 | next chunk to take
        std::atomic<uint64_t> done{0};  // run << 32 | chunks done
    };

    void work_through(uint32_t run, int stages, int thread);
    void wait_for(Stage& stage, uint32_t run, uint32_t chunks);
    void idle(int thread);

    std::vector<Stage> stages_;
    std::vector<std::thread> workers_;
    const Work* work_ = nullptr;
    std::atomic<uint64_t> current_{0};  // run << 32 | number of stages
    std::atomic<bool> ending_{false};
};

}  // namespace octavo
