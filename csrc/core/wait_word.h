#pragma once
#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Sleeping on a 32-bit word. On Linux this is the bare futex: the waiting of std::atomic spins and
// yields by its own rules first, and the team (parallel.cpp) has its own.
namespace pycnn {

// Sleeps while the word holds `value`. May return early for no reason.
inline void wait_word(std::atomic<std::uint32_t>& word, std::uint32_t value) noexcept {
#if defined(__linux__)
  static_assert(sizeof(word) == sizeof(std::uint32_t));
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr,
            nullptr, 0);
#else
  word.wait(value, std::memory_order_acquire);
#endif
}

inline void wake_word(std::atomic<std::uint32_t>& word) noexcept {
#if defined(__linux__)
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_PRIVATE, 1, nullptr,
            nullptr, 0);
#else
  word.notify_all();
#endif
}

}  // namespace pycnn
