#include "compile/options.h"

#include <algorithm>
#include <string_view>

#include "compile/training_buffers.h"
#include "core/bfloat16_units.h"
#include "core/cpu_features.h"
#include "core/memory.h"
#include "pycnn/error.h"
#include "pycnn/ops.h"

namespace pycnn {
namespace {

bool is_training_state(std::string_view name) {
  return name == kSeedName || name == kStepName || name == kLearningRateName ||
         name == kLossScaleName || name == kGoodStepsName || name.starts_with(kMomentumPrefix) ||
         name.starts_with(kMeanPrefix) || name.starts_with(kVariancePrefix) ||
         name.starts_with(kAveragePrefix);
}

bool is_variable(const Node& node) {
  return node.kind == NodeKind::kParameter || node.kind == NodeKind::kBuffer;
}

bool is_op_name(const std::string& name) {
  const std::vector<Op>& ops = each_op();
  return std::any_of(ops.begin(), ops.end(), [&](const Op& op) { return name == op_name(op); });
}

void check_dtype(const CompileOptions& options, const DeviceChoice& device) {
  if (options.dtype == DType::kFloat32) return;
  if (!is_low_precision(options.dtype))
    throw DTypeError(std::string("compile: dtype is ") + long_name(options.dtype) +
                     ", expected float32, bfloat16 or float16");
  if (device.module != nullptr) return;
  if (options.dtype == DType::kFloat16)
    throw UnsupportedError(
        "compile: dtype float16 is computed on GPUs only, the device is cpu\n  hint: bfloat16 "
        "takes "
        "as much memory and runs where the processor has AMX or AVX512-BF16; its range is "
        "float32's, so that no loss needs scaling");
  if (options.emulate_bfloat16) return;
  const bool has_unit = has_amx_bf16() || has_avx512_bf16();
  const Isa isa = parse_isa(options.isa);
  // The units' kernels hold their sums in vectors of AVX-512.
  if (has_unit && isa >= Isa::kAvx512) return;
  throw UnsupportedError(
      std::string("compile: dtype bfloat16 needs a processor with AMX or AVX512-BF16; ") +
      (has_unit
           ? std::string("this one has it, but the instruction set is limited to ") + isa_name(isa)
           : "this one has neither") +
      "\n  hint: float32 runs here; emulate_bfloat16 computes what bfloat16 would, slowly, to see "
      "how accurate a net is");
}

void require_variables(const Graph& graph, const Variables& variables) {
  constexpr int kListed = 10;
  std::string names;
  int missing = 0;
  for (const Node& node : graph.nodes()) {
    if (!is_variable(node) || is_training_state(node.name)) continue;
    const auto found = variables.find(node.name);
    if (found != variables.end() && found->second.defined()) continue;
    if (++missing <= kListed) names += (names.empty() ? "'" : ", '") + node.name + "'";
  }
  if (missing == 0) return;
  if (missing > kListed) names += " and " + std::to_string(missing - kListed) + " more";
  throw ArgumentError("compile: the variables lack " + names + "; create_variables makes them");
}

}  // namespace

const char* recompute_name(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return "none";
    case Recompute::kCheap:
      return "cheap";
    case Recompute::kSqrt:
      return "sqrt";
  }
  return "none";
}

Recompute parse_recompute(std::string_view name) {
  for (const Recompute each : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt})
    if (name == recompute_name(each)) return each;
  throw ArgumentError("recompute: '" + std::string(name) +
                      "' is not one of 'none', 'cheap', 'sqrt'");
}

DeviceChoice check_options(const Graph& graph, const CompileOptions& options) {
  const DeviceChoice device = find_device("compile", options.device);
  check_dtype(options, device);
  if (options.optimizer && options.mode != Mode::kTraining)
    throw ArgumentError("compile: an optimizer needs the training mode");
  if (options.exchange && !options.optimizer)
    throw ArgumentError("compile: a gradient exchange needs an optimizer");
  if (options.exchange && device.module != nullptr)
    throw UnsupportedError(
        "compile: gradients are exchanged between programs on the CPU only, the "
        "device is " +
        options.device);
  if (graph.outputs().empty() && graph.assignments().empty())
    throw GraphError("compile: the graph has no outputs; mark them with set_output");
  return device;
}

std::size_t tensor_bytes(const Graph& graph) {
  double bytes = 0;
  for (const Node& node : graph.nodes())
    for (const TensorSpec& spec : node.outputs) bytes += static_cast<double>(byte_size(spec));
  return static_cast<std::size_t>(std::min(bytes, 0x1p62));
}

// No machine holds this much, and all later sums of sizes stay far from the limits of 64 bits.
void check_sizes(const Graph& graph) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 50;
  const std::size_t wanted = tensor_bytes(graph);
  if (wanted > kMaxBytes) {
    const std::size_t available = available_memory();
    throw MemoryLimitError("compile: the graph's tensors take " + std::to_string(wanted) +
                               " bytes together, more than any memory; " +
                               std::to_string(available) + " are available",
                           wanted, available);
  }
}

Symbol loss_of(const Graph& graph, const std::string& name) {
  std::string names;
  for (const auto& [output, symbol] : graph.outputs()) {
    if (output == name) return symbol;
    names += (names.empty() ? "'" : ", '") + output + "'";
  }
  throw ArgumentError("compile: the loss is to be the output '" + name +
                      "', but the graph has the outputs " + names);
}

KernelChoice kernel_choice(const Graph& recorded, const Graph& final_graph,
                           const CompileOptions& options) {
  for (const auto& [key, variant] : options.variants)
    if (key != "*" && !recorded.contains(key) && !final_graph.contains(key) && !is_op_name(key))
      throw ArgumentError("compile: variants names '" + key +
                          "', which is neither a node nor an op of the graph");
  KernelChoice choice{parse_isa(options.isa), 1, options.variants, {}, options.winograd};
  choice.tf32 = options.tf32;
  choice.threads = resolve_threads(options.threads, &choice.warnings);
  return choice;
}

void check_memory(const ProgramPlan& plan, const Graph& graph, const Variables& variables,
                  std::size_t limit_bytes) {
  constexpr const char* kHint = "\n  hint: a smaller batch needs less";
  const auto bytes = [](std::size_t count) { return std::to_string(count); };
  const std::size_t wanted = plan.arena_bytes + plan.scratch_bytes;
  const std::string parts =
      bytes(plan.arena_bytes) + " for activations, " + bytes(plan.scratch_bytes) + " of scratch";
  if (limit_bytes != 0 && wanted > limit_bytes)
    throw MemoryLimitError("compile: the program needs " + bytes(wanted) + " bytes (" + parts +
                               "), the limit is " + bytes(limit_bytes) + kHint,
                           wanted, limit_bytes);
  std::size_t state = 0;
  for (const Node& node : graph.nodes()) {
    const auto found = variables.find(node.name);
    if (is_variable(node) && (found == variables.end() || !found->second.defined()))
      state += byte_size(node.outputs[0]);
  }
  // What a run gives back is the caller's memory, which must be had too.
  std::size_t results = 0;
  for (const auto& [name, symbol] : graph.outputs()) results += byte_size(graph.spec(symbol));
  // A device is asked for its own when the program is made.
  if (plan.device.module != nullptr) return;
  const std::size_t all = wanted + plan.prepared_bytes + state + results;
  if (all < kCheckedBytes) return;
  const std::size_t available = available_memory();
  if (all > available)
    throw MemoryLimitError("compile: the program needs " + bytes(all) + " bytes (" + parts + ", " +
                               bytes(plan.prepared_bytes) + " of packed weights, " + bytes(state) +
                               " of new variables, " + bytes(results) + " for results), " +
                               bytes(available) + " are available" + kHint,
                           all, available);
}

Variables with_training_state(const Graph& graph, const Variables& variables) {
  require_variables(graph, variables);
  Variables complete = variables;
  for (const Node& node : graph.nodes()) {
    const std::string_view name = node.name;
    if (!is_variable(node) || !name.starts_with(kAveragePrefix)) continue;
    const auto parameter =
        variables.find(std::string(name.substr(std::string_view(kAveragePrefix).size())));
    Tensor& average = complete[node.name];
    if (!average.defined() && parameter != variables.end()) average = parameter->second.clone();
  }
  create_variables(graph, complete);
  return complete;
}

}  // namespace pycnn
