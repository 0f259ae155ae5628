#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <span>
#include <vector>

#include "runtime/program_plan.h"

namespace pycnn {

// Sums the times of steps over runs, also of runs in several threads.
class Profiler {
 public:
  explicit Profiler(const ProgramPlan& plan);

  bool running() const noexcept { return running_.load(std::memory_order_relaxed); }
  void start();
  // Of a step that is left out.
  static constexpr std::int64_t kNotRun = -1;
  void record_prepare(std::span<const std::int64_t> step_ns) noexcept { record(0, step_ns); }
  void record_run(std::span<const std::int64_t> step_ns) noexcept {
    record(prepare_steps_, step_ns);
  }
  // Stops.
  std::vector<StepProfile> finish();
  // The lines of `finish` without times; stops nothing.
  std::vector<StepProfile> untimed() const;
  // In a forked child a run that was recording is gone.
  void renew_after_fork() noexcept { new (&mutex_) std::mutex; }

 private:
  void record(std::size_t first, std::span<const std::int64_t> step_ns) noexcept;

  struct Times {
    std::int64_t runs = 0;
    std::int64_t total_ns = 0;
    std::int64_t min_ns = 0;
  };
  const ProgramPlan& plan_;
  std::size_t prepare_steps_;
  std::atomic<bool> running_{false};
  std::mutex mutex_;
  std::vector<Times> times_;
};

}  // namespace pycnn
