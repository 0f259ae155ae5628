// A launch costs a GPU a microsecond or two, and most updates are of less work than that. Those
// whose kernels can be joined become one step, where the last of them stood: all gradients wait
// for it, so kernels of large tensors do not ask for it. What reads a result of them moves behind.
#include <algorithm>
#include <iterator>

#include "compile/passes.h"

namespace pycnn {
namespace {

class UpdateJoiner {
 public:
  explicit UpdateJoiner(Schedule& schedule) : schedule_(schedule) {}

  void run() {
    std::vector<JoinFunction> kinds;  // in the order in which they come
    for (const ScheduleStep& step : schedule_.run)
      if (step.kernel.join != nullptr &&
          std::find(kinds.begin(), kinds.end(), step.kernel.join) == kinds.end())
        kinds.push_back(step.kernel.join);
    for (const JoinFunction kind : kinds) join(kind);
  }

 private:
  std::size_t root_of(int value) const {
    while (schedule_.value(value).alias_of >= 0) value = schedule_.value(value).alias_of;
    return static_cast<std::size_t>(value);
  }

  static bool have_as_many(const ScheduleStep& a, const ScheduleStep& b) {
    return a.inputs.size() == b.inputs.size() &&
           a.outputs.size() - static_cast<std::size_t>(a.roundings) ==
               b.outputs.size() - static_cast<std::size_t>(b.roundings);
  }

  void join(JoinFunction kind) {
    // What waits for a step to be joined is none itself.
    std::vector<bool> late_value(schedule_.values.size(), false);
    std::vector<bool> joins(schedule_.run.size(), false), late(schedule_.run.size(), false);
    std::size_t count = 0, first = 0, last = 0;
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      const ScheduleStep& step = schedule_.run[i];
      late[i] = std::any_of(step.inputs.begin(), step.inputs.end(),
                            [&](int value) { return late_value[root_of(value)]; });
      joins[i] = !late[i] && step.kernel.join == kind &&
                 (count == 0 || have_as_many(step, schedule_.run[first]));
      if (joins[i]) {
        if (count++ == 0) first = i;
        last = i;
      }
      if (joins[i] || late[i])
        for (const int value : step.outputs) late_value[root_of(value)] = true;
    }
    if (count < 2) return;
    std::vector<ScheduleStep> members, waiting, sorted;
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      ScheduleStep& step = schedule_.run[i];
      (joins[i] ? members : late[i] && i < last ? waiting : sorted).push_back(std::move(step));
      if (i != last) continue;
      sorted.push_back(joined(kind, members));
      std::move(waiting.begin(), waiting.end(), std::back_inserter(sorted));
    }
    schedule_.run = std::move(sorted);
  }

  static ScheduleStep joined(JoinFunction kind, std::vector<ScheduleStep>& members) {
    std::vector<Joining> steps;
    for (const ScheduleStep& member : members) steps.push_back({&member.op, &member.kernel});
    ScheduleStep step;
    step.kernel = kind(steps);
    step.kernel.variant = members[0].kernel.variant;
    step.name = members[0].name + " and " + std::to_string(members.size() - 1) + " more";
    step.op_name = members[0].op_name;
    step.joined = static_cast<int>(members.size());
    step.refused = std::move(members[0].refused);
    std::vector<int> roundings;
    for (ScheduleStep& member : members) {
      const auto own = member.outputs.end() - member.roundings;
      step.inputs.insert(step.inputs.end(), member.inputs.begin(), member.inputs.end());
      step.outputs.insert(step.outputs.end(), member.outputs.begin(), own);
      roundings.insert(roundings.end(), own, member.outputs.end());
      step.input_specs.insert(step.input_specs.end(), member.input_specs.begin(),
                              member.input_specs.end());
    }
    step.outputs.insert(step.outputs.end(), roundings.begin(), roundings.end());
    step.roundings = static_cast<int>(roundings.size());
    step.op = std::move(members[0].op);
    return step;
  }

  Schedule& schedule_;
};

}  // namespace

void join_updates(Schedule& schedule) { UpdateJoiner(schedule).run(); }

}  // namespace pycnn
