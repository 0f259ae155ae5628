#include "core/clock_rate.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace pycnn {

double clock_rate() noexcept {
  using Clock = std::chrono::steady_clock;
  constexpr int kTries = 3, kRounds = 1 << 13, kUnroll = 32;
  double best = 0.0;
  std::uint64_t sum = 1;
  // Opaque, or the compiler would compute the end of the chain; in registers, for additions of a
  // constant take no cycle at all on some processors.
  std::uint64_t step = 3;
  __asm__ volatile("" : "+r"(step));
  for (int i = 0; i < kTries; ++i) {
    const auto begin = Clock::now();
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 32
      for (int j = 0; j < kUnroll; ++j) {
        sum += step;
        __asm__ volatile("" : "+r"(sum));
      }
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (seconds > 0.0) best = std::max(best, static_cast<double>(kRounds) * kUnroll / seconds);
  }
  return best;
}

}  // namespace pycnn
