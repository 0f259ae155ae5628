#pragma once
#include <string>
#include <utility>
#include <vector>

#include "compile/schedule.h"

// Schedules made by hand, for tests of the passes over steps.
namespace pycnn::test {

inline const TensorSpec kFour{{4}, DType::kFloat32};

// Variables, the first values.
inline void add_variables(Schedule& schedule, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto index = static_cast<int>(schedule.variables.size());
    schedule.add_value({ScheduleValue::Kind::kVariable, kFour, index});
    schedule.variables.push_back(name);
  }
}

// A step of the run behind all others. Returns the value that it makes.
inline int add_step(Schedule& schedule, const std::string& name, Op op, std::vector<int> inputs,
                    Kernel kernel = {}, const TensorSpec& result = kFour) {
  ScheduleStep step;
  step.name = name;
  step.op_name = op_name(op);
  step.op = std::move(op);
  step.kernel = std::move(kernel);
  for (const int value : inputs) step.input_specs.push_back(schedule.value(value).spec);
  step.inputs = std::move(inputs);
  step.outputs = {schedule.add_value({ScheduleValue::Kind::kResult, result})};
  schedule.run.push_back(std::move(step));
  return schedule.run.back().outputs[0];
}

inline std::vector<std::string> names_of(const std::vector<ScheduleStep>& steps) {
  std::vector<std::string> names;
  for (const ScheduleStep& step : steps) names.push_back(step.name);
  return names;
}

}  // namespace pycnn::test
