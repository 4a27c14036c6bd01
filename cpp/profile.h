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
        spent_.assign(threads, std::vector<uint64_t>(operations_));
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
        uint64_t& spent = spent_[thread][operation];
        spent += OCTAVO_SET::ticks() - before;
    }

    // Ticks of all threads together.
    uint64_t of(int operation) const {
        uint64_t all = 0;
        for (auto& thread : spent_) all += thread[operation];
        return all;
    }

  private:
    int operations_ = 0;
    bool on_ = false;
    uint64_t began_ = 0;
    std::vector<std::vector<uint64_t>> spent_;  // ticks, per thread
};

}  // namespace octavo
