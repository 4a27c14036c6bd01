// Memory for weights, in large pieces that the system may back with huge pages: a generated token
// reads all of it once, and with small pages a fifth of that time goes to address translation.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace octavo {

class Arena {
  public:
    Arena() = default;
    Arena(const Arena&) = delete;
    ~Arena() {
        for (auto [piece, bytes] : pieces_) munmap(piece, bytes);
    }

    // Zeroed, 64-byte aligned, there as long as the arena. What is never written costs nothing.
    uint8_t* take(size_t bytes) {
        bytes = (bytes + 63) / 64 * 64;
        if (bytes > left_) add_piece(bytes);
        uint8_t* taken = next_;
        next_ += bytes, left_ -= bytes;
        return taken;
    }

  private:
    static constexpr size_t HUGE_PAGE = 2 << 20, PIECE = 64 << 20;

    void add_piece(size_t bytes) {
        bytes = (bytes > PIECE ? bytes : PIECE) + HUGE_PAGE;
        void* piece =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (piece == MAP_FAILED) throw std::bad_alloc();
        pieces_.emplace_back(piece, bytes);
        size_t skipped = -(uintptr_t)piece % HUGE_PAGE;
        next_ = (uint8_t*)piece + skipped, left_ = bytes - skipped;
        madvise(next_, left_, MADV_HUGEPAGE);  // a wish: without it everything works, slower
    }

    std::vector<std::pair<void*, size_t>> pieces_;
    uint8_t* next_ = nullptr;
    size_t left_ = 0;
};

}  // namespace octavo
