#include <new>
#include <stdexcept>

#include "compile/options.h"
#include "compile/passes.h"
#include "pycnn/error.h"

namespace pycnn {

namespace {

Program run_passes(const Graph& recorded, Variables& variables, const CompileOptions& options) {
  check_options(recorded, options);
  Graph graph = specialize(recorded, options.mode);
  if (options.optimizer) {
    const Symbol loss = loss_of(graph, options.loss);
    const std::vector<Symbol> parameters = trained_parameters(graph, loss, *options.optimizer);
    const std::vector<Symbol> gradients = differentiate(graph, loss, parameters);
    append_update(graph, *options.optimizer, parameters, gradients);
  }
  if (options.fuse && options.mode == Mode::kInference) graph = fold_batch_norm(graph);
  graph = drop_unused(graph);
  if (options.fuse) graph = fuse_epilogue(graph);

  check_sizes(graph);
  const KernelChoice choice = kernel_choice(recorded, graph, options);
  Schedule schedule = select_kernels(graph, split_prepare(graph), choice);
  prepack_weights(schedule);
  hasten_updates(schedule);
  ProgramPlan plan = plan_memory(std::move(schedule), options.reuse_memory);
  check_memory(plan, options.memory_limit_bytes);

  Variables complete = with_training_state(graph, variables);
  for (const std::string& name : plan.variable_names) plan.variables.push_back(complete.at(name));
  plan.isa = choice.isa;
  plan.graph_text = graph.text();
  Program program = make_program(std::move(plan));
  variables = std::move(complete);
  return program;
}

}  // namespace

Program compile(const Graph& recorded, Variables& variables, const CompileOptions& options) {
  try {
    return run_passes(recorded, variables, options);
  } catch (const std::bad_alloc&) {
    throw MemoryLimitError("compile: the machine has no memory left for the plan", 0);
  } catch (const std::length_error&) {
    throw MemoryLimitError("compile: the plan is larger than memory can be", 0);
  }
}

}  // namespace pycnn
