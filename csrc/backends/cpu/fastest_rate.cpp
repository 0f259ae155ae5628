#include "backends/cpu/fastest_rate.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "pycnn/error.h"

#if defined(__linux__)
#include <time.h>
#endif

namespace pycnn::cpu {
namespace {

using Work = FunctionRef<void(int worker, std::int64_t repeats)>;

// Short, so that of many tries some meet no other process; long against the start of the threads.
constexpr std::int64_t kTryNs = 200'000;
constexpr std::int64_t kMostRepeats = std::int64_t{1} << 40;
constexpr int kEnoughClean = 5;
// Part of a try that each thread must have run for, or somebody else did.
constexpr double kCleanPart = 0.95;

std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Processor time of this thread; steady time where there is no such clock, as if it always ran.
std::int64_t thread_ns() noexcept {
#if defined(__linux__)
  timespec time{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0)
    return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
#endif
  return steady_ns();
}

class Tries {
 public:
  Tries(int threads, double seconds, Work work)
      : threads_(threads),
        total_ns_(static_cast<std::int64_t>(seconds * 1e9)),
        work_(work),
        spans_(static_cast<std::size_t>(threads)) {}

  // Repeats of one worker a nanosecond, in the fastest try.
  double best() const { return best_; }
  bool disturbed() const { return clean_ == 0; }

  void run() {
    std::vector<std::thread> others;
    others.reserve(static_cast<std::size_t>(threads_));
    try {
      for (int worker = 1; worker < threads_; ++worker)
        others.emplace_back([this, worker] { take_part(worker); });
    } catch (const std::system_error&) {
      given_up_.store(true);
    }
    if (!given_up_.load()) take_part(0);
    for (std::thread& other : others) other.join();
    if (given_up_.load())
      throw DeviceError("measure_peaks: the system grants " + std::to_string(others.size() + 1) +
                        " of " + std::to_string(threads_) + " threads");
  }

 private:
  struct alignas(64) Span {
    std::int64_t begin = 0, end = 0;
    std::int64_t ran = 0;  // of the processor's time
  };

  void take_part(int worker) noexcept {
    Span& span = spans_[static_cast<std::size_t>(worker)];
    for (std::int64_t meeting = 1;; meeting += 2) {
      if (!meet(meeting)) return;
      const std::int64_t repeats = repeats_.load(std::memory_order_relaxed);
      if (repeats == 0) return;
      span.begin = steady_ns();
      const std::int64_t ran = thread_ns();
      work_(worker, repeats);
      span.ran = thread_ns() - ran;
      span.end = steady_ns();
      if (!meet(meeting + 1)) return;
      if (worker == 0) repeats_.store(after_try(repeats), std::memory_order_relaxed);
    }
  }

  // Waits until all are there for the n-th time; false when somebody never will be.
  bool meet(std::int64_t n) noexcept {
    arrived_.fetch_add(1);
    for (int spins = 0; arrived_.load() < n * threads_; ++spins) {
      if (given_up_.load(std::memory_order_relaxed)) return false;
      if (spins > kSpins) std::this_thread::yield();
    }
    return true;
  }

  // How many repeats the next try has; 0 ends them.
  std::int64_t after_try(std::int64_t repeats) noexcept {
    std::int64_t begin = spans_[0].begin, end = spans_[0].end, ran = spans_[0].ran;
    for (const Span& span : spans_) {
      begin = std::min(begin, span.begin);
      end = std::max(end, span.end);
      ran = std::min(ran, span.ran);
    }
    const auto took = static_cast<double>(std::max<std::int64_t>(end - begin, 1));
    const double rate = static_cast<double>(repeats) / took;
    if (started_ == 0) {  // the first fills caches
      started_ = end;
      return repeats;
    }
    guess_ = std::max(guess_, rate);
    if (took * 4 >= kTryNs) {  // long enough for the clock
      best_ = std::max(best_, rate);
      if (static_cast<double>(ran) >= kCleanPart * took) ++clean_;
      const std::int64_t limit = clean_ >= kEnoughClean ? total_ns_ : kPatience * total_ns_;
      if (end - started_ >= limit) return 0;
    }
    // As many as fill a try at the highest rate so far: of one that was disturbed nothing follows.
    const double wanted = std::min(guess_ * kTryNs, static_cast<double>(repeats) * 1000);
    return std::clamp(static_cast<std::int64_t>(wanted), repeats, kMostRepeats);
  }

  static constexpr int kSpins = 2000;

  const int threads_;
  const std::int64_t total_ns_;
  const Work work_;
  std::vector<Span> spans_;
  alignas(64) std::atomic<std::int64_t> arrived_{0};
  std::atomic<std::int64_t> repeats_{1};
  std::atomic<bool> given_up_{false};
  // Of worker 0.
  alignas(64) std::int64_t started_ = 0;
  int clean_ = 0;
  double guess_ = 0.0, best_ = 0.0;
};

}  // namespace

FastestRate fastest_rate(int threads, double seconds, double amount, Work work) {
  Tries tries(threads, seconds, work);
  tries.run();
  return {tries.best() * 1e9 * amount * threads, tries.disturbed()};
}

}  // namespace pycnn::cpu
