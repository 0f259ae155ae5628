#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "pycnn/ops.h"

// A graph on its way to a program: steps with kernels, over numbered values that have no place in
// memory yet.
namespace pycnn {

struct ScheduleValue {
  enum class Kind : std::uint8_t { kInput, kVariable, kResult };
  Kind kind = Kind::kResult;
  TensorSpec spec;
  int index = -1;     // kInput, kVariable: which
  int alias_of = -1;  // kResult: the value whose memory this is, under another shape
  // kResult: the value in whose memory this has a part, from element `part_begin` on, and the
  // TensorView::pixel_pitch there. No alias, and no part itself.
  int part_of = -1;
  std::int64_t part_begin = 0;
  std::int64_t pixel_pitch = 0;
  bool prepared = false;  // kResult: of a prepare step
};

struct ScheduleStep {
  std::string name;
  std::string op_name;
  Op op;
  Kernel kernel;
  std::vector<Refusal> refused;
  std::vector<int> inputs;  // values
  std::vector<int> outputs;
  // What the kernel is told of its inputs; a packed input keeps the spec of the original.
  std::vector<TensorSpec> input_specs;
  std::vector<std::pair<std::string, std::string>> absorbed;  // as StepProfile::absorbed
  std::optional<DType> rounded = {};  // of a step that packs: PackedInput::rounded
  int roundings = 0;                  // of the outputs, the last ones (Kernel::rounds)
  int joined = 1;  // how many steps of one kind it is (JoinFunction); `op` is that of the first
};

// See GradientExchange.
struct ScheduledBucket {
  int steps = 0;  // of the run, that come before
  int value = -1;
};

struct Schedule {
  std::vector<ScheduleValue> values;
  std::vector<ScheduleStep> prepare;
  std::vector<ScheduleStep> run;
  std::vector<std::pair<std::string, TensorSpec>> inputs;
  std::vector<std::string> variables;
  std::vector<std::pair<std::string, int>> outputs;  // values
  std::vector<std::pair<int, int>> assignments;      // variable, value
  int label_steps = 0;                               // first steps of the run, which make labels
  std::vector<ScheduledBucket> buckets;              // of gradients to exchange
  int exchange_steps = 0;  // before the first that reads what was exchanged
  int threads = 1;
  std::vector<std::string> warnings;  // for Program::warnings, each once

  int add_value(ScheduleValue value) {
    values.push_back(std::move(value));
    return static_cast<int>(values.size()) - 1;
  }
  const ScheduleValue& value(int v) const { return values[static_cast<std::size_t>(v)]; }
};

}  // namespace pycnn
