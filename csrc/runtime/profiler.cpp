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
    if (step_ns[i] == kNotRun) continue;
    Times& times = times_[first + i];
    times.min_ns = times.runs == 0 ? step_ns[i] : std::min(times.min_ns, step_ns[i]);
    times.total_ns += step_ns[i];
    ++times.runs;
  }
}

std::vector<StepProfile> Profiler::finish() {
  const std::lock_guard lock(mutex_);
  running_.store(false);
  std::vector<StepProfile> lines = untimed();
  for (std::size_t i = 0; i < times_.size(); ++i) {
    lines[i].runs = times_[i].runs;
    lines[i].total_seconds = static_cast<double>(times_[i].total_ns) * 1e-9;
    lines[i].min_seconds = static_cast<double>(times_[i].min_ns) * 1e-9;
  }
  return lines;
}

std::vector<StepProfile> Profiler::untimed() const {
  std::vector<StepProfile> lines;
  lines.reserve(plan_.prepare.size() + plan_.run.size());
  for (const bool prepares : {true, false}) {
    for (const Step& step : prepares ? plan_.prepare : plan_.run) {
      StepProfile line;
      line.name = step.name;
      line.op = step.op_name;
      line.variant = step.kernel.variant;
      line.phase = prepares ? "prepare" : "run";
      line.cost = step.cost;
      for (const Refusal& refusal : step.refused)
        line.refused.emplace_back(refusal.variant, refusal.reason);
      line.absorbed = step.absorbed;
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

}  // namespace pycnn
