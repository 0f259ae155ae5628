#pragma once
#include <cstddef>
#include <vector>

#include "runtime/program_plan.h"

namespace pycnn {

// Steps of `prepare` that are made together, and the variables that they read.
struct PrepareGroup {
  std::vector<std::size_t> steps;  // of ProgramPlan::prepare, in their order
  std::vector<std::size_t> reads;  // of ProgramPlan::prepare_reads
};

// Parts of `prepare` that have no byte in common: a variable that changed asks for those that read
// it alone. What one step leaves another reads, or it lies where something else has been: both
// belong together then.
std::vector<PrepareGroup> prepare_groups(const ProgramPlan& plan);

}  // namespace pycnn
