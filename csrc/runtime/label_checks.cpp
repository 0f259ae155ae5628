#include "runtime/label_checks.h"

#include <algorithm>

#include "pycnn/error.h"

namespace pycnn {
namespace {

bool reads_labels(const Op& op) {
  return std::holds_alternative<ops::SoftmaxCrossEntropy>(op) ||
         std::holds_alternative<ops::SoftmaxCrossEntropyGrad>(op) ||
         std::holds_alternative<ops::TopKCorrect>(op);
}

template <class Integer>
void check(const std::string& name, const Integer* labels, std::int64_t count,
           std::int64_t classes) {
  // One comparison an element, negative ones being huge: the usual case is a quick pass.
  std::uint64_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i)
    largest = std::max(largest, static_cast<std::uint64_t>(static_cast<std::int64_t>(labels[i])));
  if (count == 0 || largest < static_cast<std::uint64_t>(classes)) return;
  const Integer* const bad = std::find_if(
      labels, labels + count, [&](Integer label) { return label < 0 || label >= classes; });
  throw LabelError("program: label " + std::to_string(*bad) + " at position " +
                   std::to_string(bad - labels) + " of input '" + name + "', there are " +
                   std::to_string(classes) + " classes (0.." + std::to_string(classes - 1) + ")");
}

}  // namespace

std::vector<LabelCheck> label_checks(const ProgramPlan& plan) {
  std::vector<LabelCheck> checks;
  for (const Step& step : plan.run) {
    if (step.op_name != op_name(step.op) || !reads_labels(step.op)) continue;
    const Operand& labels = step.inputs[1];
    if (labels.place.space != Place::Space::kInput || is_floating(labels.spec.dtype)) continue;
    const std::int64_t classes = step.inputs[0].spec.shape[1];
    const auto same = std::find_if(checks.begin(), checks.end(), [&](const LabelCheck& check) {
      return check.input == labels.place.index;
    });
    if (same == checks.end())
      checks.push_back({labels.place.index, classes});
    else
      same->classes = std::min(same->classes, classes);
  }
  return checks;
}

void check_labels(const ProgramPlan& plan, std::span<const LabelCheck> checks,
                  std::span<const void* const> inputs) {
  for (const LabelCheck& labels : checks) {
    const auto index = static_cast<std::size_t>(labels.input);
    const auto& [name, spec] = plan.inputs[index];
    const std::int64_t count = element_count(spec.shape);
    if (spec.dtype == DType::kInt64)
      check(name, static_cast<const std::int64_t*>(inputs[index]), count, labels.classes);
    else
      check(name, static_cast<const std::int32_t*>(inputs[index]), count, labels.classes);
  }
}

}  // namespace pycnn
