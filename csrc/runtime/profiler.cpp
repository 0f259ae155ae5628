#include "runtime/profiler.h"

#include <algorithm>

namespace pycnn {

Profiler::Profiler(const ProgramPlan& plan)
    : plan_(plan),
      prepare_steps_(plan.prepare.size()),
      times_(plan.prepare.size() + plan.run.size()) {}

void Profiler::start() {
  const std::lock_guard lock(mutex_);
  std::fill(times_.begin(), times_.end(), Times{});
  running_.store(true);
}

void Profiler::record(std::size_t first, std::span<const std::int64_t> step_ns) noexcept {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < step_ns.size(); ++i) {
    Times& times = times_[first + i];
    times.min_ns = times.runs == 0 ? step_ns[i] : std::min(times.min_ns, step_ns[i]);
    times.total_ns += step_ns[i];
    ++times.runs;
  }
}

std::vector<StepProfile> Profiler::finish() {
  const std::lock_guard lock(mutex_);
  running_.store(false);
  std::vector<StepProfile> lines;
  lines.reserve(times_.size());
  for (std::size_t i = 0; i < times_.size(); ++i) {
    const bool prepares = i < prepare_steps_;
    const Step& step = prepares ? plan_.prepare[i] : plan_.run[i - prepare_steps_];
    lines.push_back({step.name, step.op_name, step.kernel.variant, prepares ? "prepare" : "run",
                     times_[i].runs, static_cast<double>(times_[i].total_ns) * 1e-9,
                     static_cast<double>(times_[i].min_ns) * 1e-9, step.cost});
  }
  return lines;
}

}  // namespace pycnn
