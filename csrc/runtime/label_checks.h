#pragma once
#include <span>
#include <string>
#include <vector>

#include "runtime/program_plan.h"

// Class labels that a program reads. They are looked at before a run writes anything: a label that
// is no class would make the loss NaN and, in training, every weight with it.
namespace pycnn {

bool reads_labels(const Op& op);

// Of a step of a schedule or plan: whether its second input holds labels. Soft targets are none.
bool step_reads_labels(const std::string& step_op_name, const Op& op, const TensorSpec& second);

struct LabelCheck {
  Operand labels;
  std::size_t step = 0;  // that reads them, as its second input
  std::int64_t classes = 0;
  std::string what;  // "input 'y'"
};

struct LabelChecks {
  std::vector<LabelCheck> inputs;    // arrays of the caller
  std::vector<LabelCheck> computed;  // all else; known once plan.label_steps have run
};

// What steps read as labels, each once with the smallest number of classes.
LabelChecks label_checks(const ProgramPlan& plan);

// Throws LabelError with position, value and number of classes.
void check_labels(const LabelCheck& check, const void* labels);

}  // namespace pycnn
