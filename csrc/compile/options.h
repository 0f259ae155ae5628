#pragma once
#include "backends/devices.h"
#include "compile/passes.h"
#include "pycnn/graph.h"
#include "pycnn/program.h"

// What compile does around its passes: options, limits, variables.
namespace pycnn {

// The device that is asked for. Throws DeviceError for one that is not there, ArgumentError for
// options that contradict one another, GraphError for a graph without results.
DeviceChoice check_options(const Graph& graph, const CompileOptions& options);
// Of all tensors of a graph, at most 2^62.
std::size_t tensor_bytes(const Graph& graph);
// Throws MemoryLimitError when all tensors together are beyond any machine.
void check_sizes(const Graph& graph);

// The output that training minimises. Throws ArgumentError with the names that there are.
Symbol loss_of(const Graph& graph, const std::string& name);

// Throws ArgumentError for a variant pinned to a name that is neither a node (of the recorded or
// the final graph) nor an op.
KernelChoice kernel_choice(const Graph& recorded, const Graph& final_graph,
                           const CompileOptions& options);

// Throws MemoryLimitError when arena and scratch take more than the limit (0 is none), or when
// they, packed weights, results and the variables that are still missing take more than the machine
// has left.
void check_memory(const ProgramPlan& plan, const Graph& graph, const Variables& variables,
                  std::size_t limit_bytes);

// The given variables and those that training adds: state starts at zero, averages as a copy of
// their parameter. Throws ArgumentError for other variables that are missing, ShapeError or
// DTypeError for one that is not what the graph says.
Variables with_training_state(const Graph& graph, const Variables& variables);

}  // namespace pycnn
