#include <doctest/doctest.h>
#include <time.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "core/copy_bytes.h"
#include "core/cpu_features.h"

using namespace pycnn;

namespace {

std::vector<std::uint8_t> numbered(std::size_t bytes) {
  std::vector<std::uint8_t> result(bytes);
  for (std::size_t i = 0; i < bytes; ++i) result[i] = static_cast<std::uint8_t>(i * 131 + i / 251);
  return result;
}

}  // namespace

TEST_CASE("copies of all sizes arrive, and nothing behind them is touched") {
  constexpr std::size_t kShared = std::size_t{1} << 20;
  for (const int threads : {1, 2, 3})
    for (const std::size_t bytes :
         {std::size_t{0}, std::size_t{1}, kShared - 1, kShared, kShared + 1, 5 * kShared + 77}) {
      CAPTURE(threads);
      CAPTURE(bytes);
      const std::vector<std::uint8_t> from = numbered(bytes);
      std::vector<std::uint8_t> to(bytes + 1, 7);
      copy_bytes(threads, to.data(), from.data(), bytes);
      CHECK(to.back() == 7);
      to.pop_back();
      CHECK(to == from);
    }
  copy_bytes(2, nullptr, nullptr, 0);
}

#if defined(CLOCK_PROCESS_CPUTIME_ID) && defined(CLOCK_THREAD_CPUTIME_ID)
TEST_CASE("large copies are shared out") {
  if (thread_choice().affinity < 2) return;
  const auto seconds = [](clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const auto of_helpers = [&] {
    return seconds(CLOCK_PROCESS_CPUTIME_ID) - seconds(CLOCK_THREAD_CPUTIME_ID);
  };
  const std::vector<std::uint8_t> from = numbered(std::size_t{32} << 20);
  std::vector<std::uint8_t> to(from.size());
  const double before = of_helpers();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  // A busy machine may leave helpers waiting for a while.
  while (of_helpers() - before < 5e-3 && std::chrono::steady_clock::now() < deadline)
    copy_bytes(2, to.data(), from.data(), from.size());
  CHECK(of_helpers() - before >= 5e-3);
}
#endif
