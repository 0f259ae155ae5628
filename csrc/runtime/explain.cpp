#include "runtime/program_state.h"

namespace pycnn {
namespace {

std::string bytes_text(std::size_t bytes) {
  constexpr std::size_t kKibi = 1024;
  if (bytes < 10 * kKibi) return std::to_string(bytes) + " B";
  if (bytes < 10 * kKibi * kKibi) return std::to_string(bytes / kKibi) + " KiB";
  return std::to_string(bytes / kKibi / kKibi) + " MiB";
}

std::string behind(std::size_t offset) { return offset == 0 ? "" : "+" + std::to_string(offset); }

std::string place_text(const ProgramPlan& plan, const Place& place) {
  const auto index = static_cast<std::size_t>(place.index);
  switch (place.space) {
    case Place::Space::kArena:
      return "arena+" + std::to_string(place.offset);
    case Place::Space::kPrepared:
      return "prepared+" + std::to_string(place.offset);
    case Place::Space::kVariable:
      return "variable '" + plan.variable_names[index] + "'";
    case Place::Space::kInput:
      return "input '" + plan.inputs[index].first + "'" + behind(place.offset);
    case Place::Space::kOutput:
      return "output '" + plan.outputs[index].first + "'" + behind(place.offset);
  }
  return {};
}

// "arena+128 of 256 a pixel": a part of a larger tensor.
std::string operand_text(const ProgramPlan& plan, const Operand& operand) {
  std::string text = place_text(plan, operand.place);
  if (operand.pixel_pitch != 0) text += " of " + std::to_string(operand.pixel_pitch) + " a pixel";
  return text;
}

std::string places_text(const ProgramPlan& plan, const std::vector<Operand>& operands) {
  std::string text;
  for (const Operand& operand : operands)
    text += (text.empty() ? "" : ", ") + operand_text(plan, operand);
  return text;
}

std::string specs_text(const std::vector<Operand>& operands) {
  std::string text;
  for (const Operand& operand : operands)
    text += (text.empty() ? "" : ", ") + to_string(operand.spec);
  return text;
}

bool works_in_place(const Step& step) {
  for (const Operand& output : step.outputs)
    for (const Operand& input : step.inputs)
      if (output.place == input.place && element_count(output.spec.shape) > 0) return true;
  return false;
}

std::string device_text(const ProgramPlan& plan) {
  if (plan.device.module != nullptr)
    return std::string(plan.device.backend->name) + ":" + std::to_string(plan.device.index);
  return "cpu, " + std::string(isa_name(plan.isa)) + ", up to " + std::to_string(plan.threads) +
         (plan.threads == 1 ? " thread" : " threads");
}

// Empty for the CPU, which reads and writes the caller's arrays.
std::string transfers_text(const MemoryReport& memory) {
  if (memory.transfer_bytes == 0) return "";
  return ", inputs and outputs up to " + bytes_text(memory.transfer_bytes) + ", on the host " +
         bytes_text(memory.staging_bytes);
}

std::string step_text(const ProgramPlan& plan, std::size_t index, const Step& step, int threads) {
  std::string text = "  ";
  text +=
      std::to_string(index) + "  " + step.name + "  " + step.op_name + "  " + step.kernel.variant;
  if (plan.device.module == nullptr) text += "  threads " + std::to_string(threads);
  if (step.scratch_bytes > 0) text += "  scratch " + bytes_text(step.scratch_bytes);
  if (works_in_place(step)) text += "  in place";
  text += "\n       " + specs_text(step.inputs) + " -> " + specs_text(step.outputs);
  text += "\n       " + places_text(plan, step.inputs) + " -> " + places_text(plan, step.outputs) +
          "\n";
  for (const auto& [name, op] : step.absorbed) text += "       does " + op + " of " + name + "\n";
  for (const Refusal& refusal : step.refused)
    text += "       not " + refusal.variant + ": " + refusal.reason + "\n";
  return text;
}

}  // namespace

std::string Program::State::explain() {
  std::size_t variable_bytes = 0;
  for (const Tensor& variable : plan.variables) variable_bytes += variable.bytes();
  std::string text = device_text(plan) + "\narena " + bytes_text(plan.arena_bytes) + " (" +
                     bytes_text(plan.unshared_bytes) + " without sharing), scratch " +
                     bytes_text(plan.scratch_bytes) + ", prepared " +
                     bytes_text(plan.prepared_bytes) + ", variables " + bytes_text(variable_bytes) +
                     transfers_text(memory_of(plan)) + "\n";
  if (const std::string how = recording(); !how.empty()) text += how + "\n";
  if (!plan.prepare.empty()) text += "prepare, when a variable has changed:\n";
  for (std::size_t i = 0; i < plan.prepare.size(); ++i)
    text += step_text(plan, i, plan.prepare[i], plan.threads);
  text += "run:\n";
  const std::lock_guard lock(tuner_.mutex());
  for (std::size_t i = 0; i < plan.run.size(); ++i)
    text += step_text(plan, i, plan.run[i], tuner_.threads(i));
  return text;
}

}  // namespace pycnn
