// A weight under training that is multiplied in 16 bits is rounded in each run, before its first
// reader, by a pass that reads it for this alone. The update has just had it in registers: where
// its kernel can, it writes the rounding of the next run. The rounding then stays from run to run,
// as what is prepared does, and is made by a step of its own only when somebody else has written
// the weight.
#include <algorithm>
#include <map>
#include <utility>

#include "compile/passes.h"

namespace pycnn {
namespace {

class RoundingKeeper {
 public:
  explicit RoundingKeeper(Schedule& schedule)
      : schedule_(schedule), gone_(schedule.run.size(), false) {
    for (const auto& [variable, value] : schedule.assignments)
      variable_of_[root_of(value)] = variable;
  }

  void run() {
    for (std::size_t i = 0; i < schedule_.run.size(); ++i)
      if (schedule_.run[i].kernel.rounds != nullptr) keep_rounding_of(i);
    std::vector<ScheduleStep> kept;
    for (std::size_t i = 0; i < gone_.size(); ++i)
      (gone_[i] ? schedule_.prepare : kept).push_back(std::move(schedule_.run[i]));
    schedule_.run = std::move(kept);
  }

 private:
  int root_of(int value) const {
    while (schedule_.value(value).alias_of >= 0) value = schedule_.value(value).alias_of;
    return value;
  }

  bool is_variable(int value, int variable) const {
    const ScheduleValue& root = schedule_.value(root_of(value));
    return root.kind == ScheduleValue::Kind::kVariable && root.index == variable;
  }

  // In this run the old one is wanted.
  bool is_read_behind(std::size_t update, int value) const {
    return std::any_of(schedule_.run.begin() + static_cast<std::ptrdiff_t>(update),
                       schedule_.run.end(), [&](const ScheduleStep& step) {
                         return std::find(step.inputs.begin(), step.inputs.end(), value) !=
                                step.inputs.end();
                       });
  }

  void keep_rounding_of(std::size_t i) {
    ScheduleStep& update = schedule_.run[i];
    const auto assigned = variable_of_.find(root_of(update.outputs[0]));
    if (assigned == variable_of_.end()) return;
    for (std::size_t p = 0; p < i; ++p) {
      const ScheduleStep& pack = schedule_.run[p];
      if (gone_[p] || !pack.rounded || !is_variable(pack.inputs[0], assigned->second) ||
          is_read_behind(i, pack.outputs[0]))
        continue;
      Kernel kernel = update.kernel;
      if (!kernel.rounds(kernel, *pack.rounded)) continue;
      update.kernel = std::move(kernel);
      update.outputs.push_back(pack.outputs[0]);
      update.roundings = 1;
      schedule_.values[static_cast<std::size_t>(pack.outputs[0])].prepared = true;
      gone_[p] = true;
      return;
    }
  }

  Schedule& schedule_;
  std::map<int, int> variable_of_;  // by the value that it takes
  std::vector<bool> gone_;          // to what is prepared, by step of the run
};

}  // namespace

void keep_roundings(Schedule& schedule) { RoundingKeeper(schedule).run(); }

}  // namespace pycnn
