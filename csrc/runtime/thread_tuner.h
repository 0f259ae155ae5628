#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <span>
#include <vector>

namespace pycnn {

// Finds the steps that gain nothing from a second thread, from the times of a program's first
// runs: two with all threads, then two in which the short steps have one thread. Results do not
// depend on it, since no result depends on the thread count.
class ThreadTuner {
 public:
  ThreadTuner(std::size_t steps, int threads);

  bool finished() const noexcept { return round_.load(std::memory_order_acquire) == kRounds; }
  // Threads for a step; to be asked again after each `record` until finished.
  int threads(std::size_t step) const noexcept { return threads_[step]; }
  // Held by the one run that measures; others meanwhile run as they are.
  std::mutex& mutex() noexcept { return mutex_; }
  void record(std::span<const std::int64_t> step_ns) noexcept;
  // In a forked child the run that measured is gone.
  void renew_after_fork() noexcept { new (&mutex_) std::mutex; }

 private:
  static constexpr int kRounds = 4;
  static constexpr std::int64_t kShortNs = 15'000;
  // Worth trying alone. Above the limit for being short, for first runs meet cold memory.
  static constexpr std::int64_t kCandidateNs = 60'000;

  int all_threads_;
  std::atomic<int> round_{0};
  std::mutex mutex_;
  std::vector<int> threads_;
  std::vector<std::int64_t> together_ns_;
  std::vector<std::int64_t> alone_ns_;
};

}  // namespace pycnn
