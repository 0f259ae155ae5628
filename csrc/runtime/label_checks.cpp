#include "runtime/label_checks.h"

#include <algorithm>

#include "pycnn/error.h"

namespace pycnn {
namespace {

template <class Integer>
void check(const LabelCheck& what, const Integer* labels) {
  const std::int64_t count = element_count(what.labels.spec.shape), classes = what.classes;
  // One comparison an element, negative ones being huge: the usual case is a quick pass.
  std::uint64_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i)
    largest = std::max(largest, static_cast<std::uint64_t>(static_cast<std::int64_t>(labels[i])));
  if (count == 0 || largest < static_cast<std::uint64_t>(classes)) return;
  const Integer* const bad = std::find_if(
      labels, labels + count, [&](Integer label) { return label < 0 || label >= classes; });
  throw LabelError("program: label " + std::to_string(*bad) + " at position " +
                   std::to_string(bad - labels) + " of " + what.what + ", there are " +
                   std::to_string(classes) + " classes (0.." + std::to_string(classes - 1) + ")");
}

std::string quoted(const char* what, const std::string& name) {
  return std::string(what).append("'").append(name).append("'");
}

std::string name_of(const ProgramPlan& plan, const Place& place, std::size_t reader) {
  const auto index = static_cast<std::size_t>(place.index);
  if (place.space == Place::Space::kInput) return quoted("input ", plan.inputs[index].first);
  if (place.space == Place::Space::kVariable)
    return quoted("variable ", plan.variable_names[index]);
  // Memory is shared: the last step before the reader that writes there has made what it reads.
  const auto makes = [&](const Step& step) {
    return std::any_of(step.outputs.begin(), step.outputs.end(),
                       [&](const Operand& output) { return output.place == place; });
  };
  const auto begin = plan.run.rend() - static_cast<std::ptrdiff_t>(reader);
  const auto maker = std::find_if(begin, plan.run.rend(), makes);
  if (maker != plan.run.rend()) return quoted("", maker->name);
  const auto prepared = std::find_if(plan.prepare.rbegin(), plan.prepare.rend(), makes);
  return prepared != plan.prepare.rend() ? quoted("", prepared->name) : "a computed tensor";
}

}  // namespace

bool reads_labels(const Op& op) {
  return std::holds_alternative<ops::SoftmaxCrossEntropy>(op) ||
         std::holds_alternative<ops::SoftmaxCrossEntropyGrad>(op) ||
         std::holds_alternative<ops::TopKCorrect>(op);
}

bool step_reads_labels(const std::string& step_op_name, const Op& op, const TensorSpec& second) {
  return step_op_name == op_name(op) && reads_labels(op) && !is_floating(second.dtype);
}

LabelChecks label_checks(const ProgramPlan& plan) {
  LabelChecks checks;
  for (std::size_t i = 0; i < plan.run.size(); ++i) {
    const Step& step = plan.run[i];
    if (step.inputs.size() < 2 || !step_reads_labels(step.op_name, step.op, step.inputs[1].spec))
      continue;
    const Operand& labels = step.inputs[1];
    const std::int64_t classes = step.inputs[0].spec.shape[1];
    const bool input = labels.place.space == Place::Space::kInput;
    std::vector<LabelCheck>& known = input ? checks.inputs : checks.computed;
    const auto same = std::find_if(known.begin(), known.end(), [&](const LabelCheck& check) {
      return check.labels.place == labels.place;
    });
    if (same == known.end())
      known.push_back({labels, i, classes, name_of(plan, labels.place, i)});
    else
      same->classes = std::min(same->classes, classes);
  }
  return checks;
}

void check_labels(const LabelCheck& what, const void* labels) {
  if (what.labels.spec.dtype == DType::kInt64)
    check(what, static_cast<const std::int64_t*>(labels));
  else
    check(what, static_cast<const std::int32_t*>(labels));
}

}  // namespace pycnn
