#pragma once
#include <span>
#include <vector>

#include "runtime/program_plan.h"

// Class labels among the inputs of a program. They are looked at before a run begins: a label that
// is no class would make the loss NaN and, in training, every weight with it.
namespace pycnn {

struct LabelCheck {
  int input = 0;
  std::int64_t classes = 0;
};

// The inputs that steps read as labels, each once with the smallest number of classes.
std::vector<LabelCheck> label_checks(const ProgramPlan& plan);

// Throws LabelError with position, value and number of classes.
void check_labels(const ProgramPlan& plan, std::span<const LabelCheck> checks,
                  std::span<const void* const> inputs);

}  // namespace pycnn
