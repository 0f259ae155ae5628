#include "runtime/thread_tuner.h"

#include <algorithm>
#include <limits>

namespace pycnn {

ThreadTuner::ThreadTuner(std::size_t steps, int threads)
    : all_threads_(threads),
      threads_(steps, threads),
      together_ns_(steps, std::numeric_limits<std::int64_t>::max()),
      alone_ns_(steps, std::numeric_limits<std::int64_t>::max()) {
  if (threads == 1) round_.store(kRounds);
}

void ThreadTuner::record(std::span<const std::int64_t> step_ns) noexcept {
  const int round = round_.load(std::memory_order_relaxed);
  if (round == kRounds) return;
  const bool last = round + 1 == kRounds;
  for (std::size_t i = 0; i < step_ns.size(); ++i) {
    std::int64_t& best = threads_[i] == 1 ? alone_ns_[i] : together_ns_[i];
    best = std::min(best, step_ns[i]);
    if (round + 1 == kRounds / 2 && together_ns_[i] < kCandidateNs) threads_[i] = 1;
    if (last && threads_[i] == 1 && alone_ns_[i] > kShortNs && alone_ns_[i] > together_ns_[i])
      threads_[i] = all_threads_;
  }
  round_.store(round + 1, std::memory_order_release);
}

}  // namespace pycnn
