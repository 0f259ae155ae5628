// A label that is no class must be found before a run has written anything. Labels among the inputs
// are looked at before the run begins; those that the graph computes are made by its first steps,
// behind which the runtime looks at them.
#include <algorithm>

#include "compile/passes.h"
#include "runtime/label_checks.h"

namespace pycnn {

void hasten_labels(Schedule& schedule) {
  const auto root_of = [&](int value) {
    while (schedule.value(value).alias_of >= 0) value = schedule.value(value).alias_of;
    return static_cast<std::size_t>(value);
  };
  std::vector<bool> wanted(schedule.values.size(), false);
  std::vector<bool> first(schedule.run.size(), false);
  // Backwards, so that who needs a value is met before who makes it.
  for (std::size_t i = schedule.run.size(); i-- > 0;) {
    const ScheduleStep& step = schedule.run[i];
    for (const int value : step.outputs) first[i] = first[i] || wanted[root_of(value)];
    if (first[i])
      for (const int value : step.inputs) wanted[root_of(value)] = true;
    if (step.inputs.size() > 1 &&
        step_reads_labels(step.op_name, step.op, schedule.value(step.inputs[1]).spec))
      wanted[root_of(step.inputs[1])] = true;
  }
  std::vector<ScheduleStep> sorted;
  sorted.reserve(schedule.run.size());
  for (const bool now : {true, false}) {
    for (std::size_t i = 0; i < first.size(); ++i)
      if (first[i] == now) sorted.push_back(std::move(schedule.run[i]));
    if (now) schedule.label_steps = static_cast<int>(sorted.size());
  }
  schedule.run = std::move(sorted);
}

}  // namespace pycnn
