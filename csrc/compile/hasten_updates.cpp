// Any order in which values are made before they are read is right. Recorded, the updates come last
// and all gradients live until then. Here each update moves right behind the last step that it
// waits for: the ones that make its inputs, and the ones that still read the variable it replaces,
// or what was kept of it (keep_roundings).
#include <algorithm>
#include <map>

#include "compile/passes.h"

namespace pycnn {
namespace {

bool is_update(const ScheduleStep& step) {
  return std::holds_alternative<ops::SgdUpdate>(step.op) ||
         std::holds_alternative<ops::AdamUpdate>(step.op) ||
         std::holds_alternative<ops::MuonUpdate>(step.op) ||
         std::holds_alternative<ops::DenseSgdUpdate>(step.op) ||
         std::holds_alternative<ops::DenseAdamUpdate>(step.op) ||
         std::holds_alternative<ops::EmaUpdate>(step.op);
}

}  // namespace

void hasten_updates(Schedule& schedule) {
  const auto root_of = [&](int value) {
    while (schedule.value(value).alias_of >= 0) value = schedule.value(value).alias_of;
    return static_cast<std::size_t>(value);
  };
  std::map<std::size_t, int> variable_of;  // by the value that it takes
  for (const auto& [variable, value] : schedule.assignments) variable_of[root_of(value)] = variable;

  // A step that stays has its own number as its slot, a moved one the number it waits for.
  std::vector<int> made(schedule.values.size(), -1);       // slot
  std::vector<int> reader(schedule.variables.size(), -1);  // last step that reads it
  std::vector<int> last_reader(schedule.values.size(), -1);
  std::vector<std::pair<int, int>> order;  // slot, number
  for (const ScheduleStep& step : schedule.run) {
    const int number = static_cast<int>(order.size());
    int slot = number;
    if (is_update(step)) {
      slot = -1;
      for (const int value : step.inputs) slot = std::max(slot, made[root_of(value)]);
      for (const int value : step.outputs) {
        slot = std::max(slot, last_reader[root_of(value)]);
        const auto target = variable_of.find(root_of(value));
        if (target != variable_of.end())
          slot = std::max(slot, reader[static_cast<std::size_t>(target->second)]);
      }
    } else {
      for (const int value : step.inputs) {
        last_reader[root_of(value)] = number;
        const ScheduleValue& root = schedule.value(static_cast<int>(root_of(value)));
        if (root.kind == ScheduleValue::Kind::kVariable)
          reader[static_cast<std::size_t>(root.index)] = number;
      }
    }
    for (const int value : step.outputs) made[root_of(value)] = slot;
    order.emplace_back(slot, number);
  }
  std::sort(order.begin(), order.end());
  std::vector<ScheduleStep> sorted;
  sorted.reserve(order.size());
  for (const auto& [slot, number] : order)
    sorted.push_back(std::move(schedule.run[static_cast<std::size_t>(number)]));
  schedule.run = std::move(sorted);
}

}  // namespace pycnn
