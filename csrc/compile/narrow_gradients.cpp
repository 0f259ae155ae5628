// Libraries make the gradient of a weight in the images' 16 bits, and their kernels widen it in a
// pass of its own: 2 bytes read and 4 written for each number, which then are read once more. An
// update can read the 16 bits itself, and so can what takes the norm of all gradients. Where nobody
// else wants the gradient (a sum over several batches, an output), it stays as it was made.
#include <cstddef>
#include <optional>
#include <variant>
#include <vector>

#include "compile/passes.h"

namespace pycnn {
namespace {

// Whether input `i` of the step may be of 16 bits.
bool takes(const ScheduleStep& step, std::size_t i) {
  constexpr std::size_t kGradient = 1;  // of an update
  return step.kernel.takes_narrow_gradient &&
         (i == kGradient || std::holds_alternative<ops::ClipFactor>(step.op));
}

}  // namespace

void narrow_gradients(Schedule& schedule) {
  const auto at = [](int value) { return static_cast<std::size_t>(value); };
  const std::size_t count = schedule.values.size();
  std::vector<bool> shared(count, false);
  std::vector<int> readers(count, 0), takers(count, 0);
  std::vector<std::optional<DType>> made_in(count);
  for (std::size_t v = 0; v < shared.size(); ++v)
    for (const int other : {schedule.values[v].alias_of, schedule.values[v].part_of})
      if (other >= 0) shared[v] = shared[at(other)] = true;
  for (const auto& [name, value] : schedule.outputs) shared[at(value)] = true;
  for (const auto& [variable, value] : schedule.assignments) shared[at(value)] = true;
  for (const std::vector<ScheduleStep>* steps : {&schedule.prepare, &schedule.run})
    for (const ScheduleStep& step : *steps)
      for (std::size_t i = 0; i < step.inputs.size(); ++i) {
        ++readers[at(step.inputs[i])];
        if (takes(step, i)) ++takers[at(step.inputs[i])];
      }
  // Whether all that read the value take it in 16 bits.
  const auto stays_narrow = [&](std::size_t value) {
    return !shared[value] && readers[value] > 0 && takers[value] == readers[value];
  };
  for (ScheduleStep& step : schedule.run) {
    // Of what a kernel makes, the first is the gradient of the weight: Kernel::widened_from.
    if (const std::optional<DType> made = step.kernel.widened_from)
      if (const auto gradient = at(step.outputs.at(0)); stays_narrow(gradient))
        made_in[gradient] = schedule.values[gradient].spec.dtype = *made;
    for (std::size_t i = 0; i < step.inputs.size(); ++i)
      if (const std::optional<DType> narrow = made_in[at(step.inputs[i])])
        step.input_specs[i].dtype = *narrow;
  }
}

}  // namespace pycnn
