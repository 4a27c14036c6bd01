// Where a program's time goes, per recorded operation, for `octavo bench ops`.
#pragma once

#include <cstdint>
#include <vector>

#include "simd.h"

namespace octavo {

class Profile {
  public:
    // The next operation's number.
    int add() { return operations_++; }

    void start(int threads) {
        spent_.assign(threads, std::vector<Spent>(operations_));
        on_ = true;
        began_ = OCTAVO_SET::ticks();
    }
    // Returns the ticks since start().
    uint64_t stop() {
        on_ = false;
        return OCTAVO_SET::ticks() - began_;
    }

    // Calls f, and where a profile is taken counts its time.
    template <typename F>
    void time(int operation, int thread, F f) {
        if (!on_) return f();
        uint64_t before = OCTAVO_SET::ticks();
        f();
        Spent& spent = spent_[thread][operation];
        spent.ticks += OCTAVO_SET::ticks() - before, spent.calls += 1;
    }

    struct Spent {
        uint64_t ticks = 0, calls = 0;
    };
    // Of all threads together.
    Spent of(int operation) const {
        Spent all;
        for (auto& thread : spent_)
            all.ticks += thread[operation].ticks, all.calls += thread[operation].calls;
        return all;
    }

  private:
    int operations_ = 0;
    bool on_ = false;
    uint64_t began_ = 0;
    std::vector<std::vector<Spent>> spent_;  // per thread
};

}  // namespace octavo
