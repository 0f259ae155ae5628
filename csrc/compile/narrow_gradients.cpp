// Libraries make the gradient of a weight in the images' 16 bits, and their kernels widen it in a
// pass of its own: 2 bytes read and 4 written for each number, which then are read once more. An
// update can read the 16 bits itself. Where nobody else wants the gradient (its norm, a sum over
// several batches, an output), it stays as it was made.
#include <cstddef>
#include <vector>

#include "compile/passes.h"

namespace pycnn {
namespace {

constexpr std::size_t kGradient = 1;  // among the inputs of an update

}  // namespace

void narrow_gradients(Schedule& schedule) {
  const auto at = [](int value) { return static_cast<std::size_t>(value); };
  std::vector<bool> shared(schedule.values.size(), false);
  std::vector<int> readers(schedule.values.size(), 0);
  std::vector<const ScheduleStep*> maker(schedule.values.size(), nullptr);
  for (std::size_t v = 0; v < shared.size(); ++v)
    for (const int other : {schedule.values[v].alias_of, schedule.values[v].part_of})
      if (other >= 0) shared[v] = shared[at(other)] = true;
  for (const auto& [name, value] : schedule.outputs) shared[at(value)] = true;
  for (const auto& [variable, value] : schedule.assignments) shared[at(value)] = true;
  for (const std::vector<ScheduleStep>* steps : {&schedule.prepare, &schedule.run})
    for (const ScheduleStep& step : *steps)
      for (const int value : step.inputs) ++readers[at(value)];
  for (ScheduleStep& step : schedule.run) {
    if (step.kernel.widened_from) maker[at(step.outputs[0])] = &step;
    if (!step.kernel.takes_narrow_gradient) continue;
    const int gradient = step.inputs[kGradient];
    if (maker[at(gradient)] == nullptr || shared[at(gradient)] || readers[at(gradient)] != 1)
      continue;
    const DType dtype = *maker[at(gradient)]->kernel.widened_from;
    schedule.values[at(gradient)].spec.dtype = dtype;
    step.input_specs[kGradient].dtype = dtype;
  }
}

}  // namespace pycnn
