#include <new>
#include <stdexcept>

#include "compile/options.h"
#include "compile/passes.h"
#include "core/memory.h"
#include "pycnn/error.h"

namespace pycnn {

namespace {

struct Planned {
  Graph graph;  // after all passes
  ProgramPlan plan;
};

Planned run_passes(const Graph& recorded, const CompileOptions& options) {
  const DeviceChoice device = check_options(recorded, options);
  Graph graph = specialize(options.fuse ? drop_idle_pools(recorded, options.variants) : recorded,
                           options.mode);
  if (options.dtype != DType::kFloat32) graph = lower_precision(graph, options.dtype);
  const bool training = options.optimizer.has_value();
  const bool inference = options.mode == Mode::kInference;
  const SiblingRule siblings{device.backend, training, options.variants};
  if (options.fuse && !inference) graph = merge_siblings(graph, siblings);
  if (options.optimizer) {
    const Symbol loss = loss_of(graph, options.loss);
    const std::vector<Symbol> parameters = trained_parameters(graph, loss, *options.optimizer);
    const bool scaled = options.dtype == DType::kFloat16;
    const std::vector<Symbol> gradients =
        differentiate(graph, scaled ? scaled_loss(graph, loss) : loss, parameters);
    append_update(graph, *options.optimizer, parameters, gradients, scaled);
  }
  if (options.fuse && training) graph = concat_pads(graph);
  // In this order: a batch norm does not see through the slice of a merged convolution.
  if (options.fuse && inference) graph = merge_siblings(fold_batch_norm(graph), siblings);
  graph = drop_unused(graph);
  if (options.fuse) {
    graph = split_batch_norm(graph, options.variants);
    graph = fuse_epilogue(graph);
    graph = fuse_batch_norm_gradient(graph);
    // After it: what a batch norm takes through its ReLU needs no gradient of that.
    graph = finish_gradients(
        graph, {device.backend, options.variants, parse_isa(options.isa), options.winograd});
    graph = measure_outputs(
        graph, {device.backend, options.variants, parse_isa(options.isa), options.winograd});
    graph = fuse_max_pool(graph, {device.backend, options.variants, parse_isa(options.isa)});
    graph = fuse_residual_norm(graph, options.variants);
    // For caches: elsewhere nothing computes a gradient by rows.
    // Whole gradients are exchanged.
    if (device.module == nullptr && !options.exchange) graph = fuse_update(graph, options.variants);
  }
  std::map<std::string, std::string> pins = options.variants;
  graph = recompute(graph, options.recompute, pins, device.module != nullptr);
  // Behind it: what is computed again gives its signs then, and not before.
  if (options.fuse && device.module != nullptr) graph = keep_signs(graph, pins);

  check_sizes(graph);
  KernelChoice choice = kernel_choice(recorded, graph, options);
  choice.pins = std::move(pins);
  choice.backend = device.backend;
  Schedule schedule = select_kernels(graph, split_prepare(graph), choice);
  choice.warnings.insert(choice.warnings.end(), schedule.warnings.begin(), schedule.warnings.end());
  prepack_weights(schedule);
  if (options.fuse) absorb_neighbours(schedule, choice.pins);
  if (!options.exchange) {
    if (options.fuse && device.module != nullptr) {
      narrow_gradients(schedule);
      keep_roundings(schedule);
    }
    hasten_updates(schedule);
    if (options.fuse) join_updates(schedule);
  }
  hasten_labels(schedule);
  if (options.reuse_memory) join_parts(schedule);
  if (options.exchange) exchange_gradients(schedule, options.bucket_bytes);
  ProgramPlan plan = plan_memory(std::move(schedule), options.reuse_memory);
  plan.exchange.exchange = options.exchange;
  plan.device = device;
  plan.isa = choice.isa;
  plan.warnings = choice.warnings;
  return {std::move(graph), std::move(plan)};
}

Program finish(Planned planned, Variables& variables, std::size_t limit_bytes) {
  auto& [graph, plan] = planned;
  check_memory(plan, graph, variables, limit_bytes);
  Variables complete = with_training_state(graph, variables);
  for (const std::string& name : plan.variable_names) plan.variables.push_back(complete.at(name));
  plan.graph_text = graph.text();
  Program program = make_program(std::move(plan));
  variables = std::move(complete);
  return program;
}

[[noreturn]] void out_of_memory(const Graph& graph) {
  const std::size_t wanted = tensor_bytes(graph), available = available_memory();
  throw MemoryLimitError("compile: no memory left for the plan of a graph whose tensors take " +
                             std::to_string(wanted) + " bytes; " + std::to_string(available) +
                             " are available",
                         wanted, available);
}

template <class Work>
auto within_memory(const Graph& graph, const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    out_of_memory(graph);
  } catch (const std::length_error&) {
    out_of_memory(graph);
  }
}

}  // namespace

Program compile(const Graph& recorded, Variables& variables, const CompileOptions& options) {
  return within_memory(recorded, [&] {
    return finish(run_passes(recorded, options), variables, options.memory_limit_bytes);
  });
}

MemoryPlan plan_memory(const Graph& recorded, const CompileOptions& options) {
  return within_memory(recorded, [&] {
    const auto [graph, plan] = run_passes(recorded, options);
    MemoryReport memory = memory_of(plan);
    for (const std::string& name : plan.variable_names)
      memory.variable_bytes += byte_size(graph.spec(graph.find(name)));
    return MemoryPlan{memory, isa_name(plan.isa), plan.threads};
  });
}

}  // namespace pycnn
