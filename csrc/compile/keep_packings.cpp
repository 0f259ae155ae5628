// A large dense weight's new values are in a cache when its update has made them: the update packs
// them for the next run, and the steps that packed them in each run only do so when somebody else
// has written the weight.
#include <algorithm>
#include <array>
#include <utility>

#include "compile/passes.h"

namespace pycnn {
namespace {

class Keeper {
 public:
  explicit Keeper(Schedule& schedule) : schedule_(schedule), moved_(schedule.run.size(), false) {}

  void run() {
    for (std::size_t i = 0; i < schedule_.run.size(); ++i)
      if (schedule_.run[i].kernel.writes_packings) keep(i);
    std::vector<ScheduleStep> rest;
    for (std::size_t i = 0; i < moved_.size(); ++i)
      (moved_[i] ? schedule_.prepare : rest).push_back(std::move(schedule_.run[i]));
    schedule_.run = std::move(rest);
  }

 private:
  int root_of(int value) const {
    while (schedule_.value(value).alias_of >= 0) value = schedule_.value(value).alias_of;
    return value;
  }

  bool is_assigned(const ScheduleValue& variable, int value) const {
    return std::any_of(schedule_.assignments.begin(), schedule_.assignments.end(),
                       [&](const std::pair<int, int>& assignment) {
                         return assignment.first == variable.index &&
                                root_of(assignment.second) == root_of(value);
                       });
  }

  // Whether it packs the update's weight in its own shape: another shape's packing lies otherwise.
  bool packs(const ScheduleStep& pack, const ScheduleStep& update) const {
    return pack.op_name == "pack" && pack.kernel.packed.layout != PackLayout::kOther &&
           root_of(pack.inputs[0]) == root_of(update.inputs[0]) &&
           pack.input_specs[0] == update.input_specs[0];
  }

  // Whether a step from the update on reads what the update is to write.
  bool is_read_from(std::size_t update, int value) const {
    for (std::size_t i = update; i < schedule_.run.size(); ++i)
      for (const int input : schedule_.run[i].inputs)
        if (root_of(input) == value) return true;
    return false;
  }

  void keep(std::size_t update) {
    const int weight = root_of(schedule_.run[update].inputs[0]);
    const ScheduleValue& variable = schedule_.value(weight);
    if (variable.kind != ScheduleValue::Kind::kVariable ||
        !is_assigned(variable, schedule_.run[update].outputs[0]))
      return;
    std::array<int, 2> packings = {-1, -1};  // by layout
    for (std::size_t i = 0; i < update; ++i) {
      const ScheduleStep& pack = schedule_.run[i];
      if (!packs(pack, schedule_.run[update]) || is_read_from(update, pack.outputs[0])) continue;
      int& packing = packings[pack.kernel.packed.layout == PackLayout::kDense ? 0 : 1];
      if (packing >= 0) continue;
      packing = pack.outputs[0];
      moved_[i] = true;
    }
    if (packings[0] < 0 && packings[1] < 0) return;
    for (int& packing : packings) {
      if (packing < 0) {
        ScheduleValue none;
        none.spec = {{0}, DType::kUInt8};
        packing = schedule_.add_value(std::move(none));
      }
      schedule_.values[static_cast<std::size_t>(packing)].prepared = true;
      schedule_.run[update].outputs.push_back(packing);
    }
  }

  Schedule& schedule_;
  std::vector<bool> moved_;  // by step of the run: to those that prepare
};

}  // namespace

void keep_packings(Schedule& schedule) { Keeper(schedule).run(); }

}  // namespace pycnn
