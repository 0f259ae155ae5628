#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "compile/schedule.h"
#include "pycnn/graph.h"
#include "pycnn/program.h"
#include "runtime/program_plan.h"

// The passes that compile.cpp strings together; `specialize`, `lower_precision` and `differentiate`
// are public (pycnn/graph.h). Each has a file of its name.
namespace pycnn {

// Parameters that an optimizer is to train: those that `loss` depends on and that no group freezes.
// Throws ArgumentError for a group that names no parameter of the graph, GraphError when nothing is
// left to train.
std::vector<Symbol> trained_parameters(const Graph& graph, Symbol loss, const Optimizer& optimizer);

// Adds the update of each parameter by its gradient, with the optimizer's state as buffers, and the
// assignments that make them last. Counts `train.step`. Gradients may be `scaled`, those of
// `scaled_loss`: then the scale follows them, and a step whose gradients are not all finite changes
// no variable else.
void append_update(Graph& graph, const Optimizer& optimizer, std::span<const Symbol> parameters,
                   std::span<const Symbol> gradients, bool scaled = false);

// The loss times the variable `train.loss_scale`, which lifts gradients into float16's range.
Symbol scaled_loss(Graph& graph, Symbol loss);

// Joins batch norms of running statistics to the convolution or dense layer before them, by a
// FoldBatchNorm of their variables.
Graph fold_batch_norm(const Graph& graph);

// When siblings are merged.
struct SiblingRule {
  const Backend* backend = &cpu_backend();
  bool training = false;
  std::map<std::string, std::string> pins = {};  // CompileOptions::variants; what they name stays
};

// Makes one convolution of several that read the same image by the same window, with the
// activations that follow all of them alike; their results are slices of its own.
Graph merge_siblings(const Graph& graph, const SiblingRule& rule);

// Turns sums of tensors that are zero outside of one slice each into concatenations of the slices.
Graph concat_pads(const Graph& graph);

// Keeps what outputs and assignments need.
Graph drop_unused(const Graph& graph);

// Parts batch norms of training into statistics and one pass that applies them. `pins` are
// CompileOptions::variants: what is pinned to a kernel stays whole.
Graph split_batch_norm(const Graph& graph, const std::map<std::string, std::string>& pins);

// Joins residual additions and activations to the convolution, dense layer or BatchNormApply before
// them.
Graph fuse_epilogue(const Graph& graph);

// Joins the gradient of an activation to that of the batch norm before it.
Graph fuse_batch_norm_gradient(const Graph& graph);

// When gradients are finished where they are made.
struct FinishRule {
  const Backend* backend = &cpu_backend();
  std::map<std::string, std::string> pins = {};  // CompileOptions::variants; what they name stays
  Isa isa = Isa::kBaseline;
  bool winograd = true;
};

// Joins the addition of another gradient and the gradient of a ReLU to the gradient of a
// convolution's input before them.
Graph finish_gradients(const Graph& graph, const FinishRule& rule);

// When convolutions measure what they write.
struct MeasureRule {
  const Backend* backend = &cpu_backend();
  std::map<std::string, std::string> pins = {};  // CompileOptions::variants; what they name stays
  Isa isa = Isa::kBaseline;
  bool winograd = true;
};

// Has convolutions give what the batch norm behind them, or in the backward pass the one before
// them, wants to know of their results.
Graph measure_outputs(const Graph& graph, const MeasureRule& rule);

// Leaves out adaptive pools with a cell for each pixel, so that steps around them, such as a pool
// and what flattens, see one another; but for those that `pins` (CompileOptions::variants) name.
Graph drop_idle_pools(const Graph& graph, const std::map<std::string, std::string>& pins);

// When a max pool normalises and activates what it reads.
struct PoolRule {
  const Backend* backend = &cpu_backend();
  std::map<std::string, std::string> pins = {};  // CompileOptions::variants; what they name stays
  Isa isa = Isa::kBaseline;
};

// Has max pools apply the batch norm before them, with its activation, and has its gradient look
// through the pool, so that what lies between the two is never stored.
Graph fuse_max_pool(const Graph& graph, const PoolRule& rule);

// Has a batch norm with a residual apply the batch norm that makes it, too; but for those that
// `pins` (CompileOptions::variants) name.
Graph fuse_residual_norm(const Graph& graph, const std::map<std::string, std::string>& pins);

// Joins the gradient of a large dense layer's weight to the update that takes it.
Graph fuse_update(const Graph& graph, const std::map<std::string, std::string>& pins);

// Has results of the forward pass computed again where the backward pass first needs them. A kernel
// that `pins` names for a node is named for its repetition, too.
Graph recompute(const Graph& graph, Recompute which, std::map<std::string, std::string>& pins,
                bool on_device = false);

// Has batch norms that end with a ReLU keep where it was open, a bit a value, for gradients that go
// back through it within that of a convolution; but for those that `pins` name. For a device.
Graph keep_signs(const Graph& graph, const std::map<std::string, std::string>& pins);

// For each node whether its value depends on no input and on no variable that the graph assigns, so
// that it need not be computed in every run. Leaves are never in.
std::vector<bool> split_prepare(const Graph& graph);

struct KernelChoice {
  Isa isa = Isa::kBaseline;
  int threads = 1;
  std::map<std::string, std::string> pins = {};  // CompileOptions::variants
  std::vector<std::string> warnings = {};        // for Program::warnings
  bool winograd = true;
  const Backend* backend = &cpu_backend();
  bool tf32 = false;
};

// Asks the backend for a kernel for each op; ops that only rename memory become aliases. `prepared`
// is what split_prepare said.
Schedule select_kernels(const Graph& graph, const std::vector<bool>& prepared,
                        const KernelChoice& choice);

// Adds the packing steps that kernels ask for.
void prepack_weights(Schedule& schedule);

// Has updates write what is rounded of a weight for the next run, so that this one needs no step
// for that. For programs of a device.
void keep_roundings(Schedule& schedule);

// Has gradients that kernels make in 16 bits stay so where an update alone reads them.
void narrow_gradients(Schedule& schedule);

// Moves each update of a parameter to the earliest place in the run, so that its gradient dies
// early.
void hasten_updates(Schedule& schedule);

// Has kernels do what a step beside them does, where they can; `pins` are CompileOptions::variants:
// what they name stays.
void absorb_neighbours(Schedule& schedule, const std::map<std::string, std::string>& pins);

// Makes one step of all whose kernels are joined by the same function.
void join_updates(Schedule& schedule);

// Puts the steps first that make labels, so that these can be looked at before anything is written.
void hasten_labels(Schedule& schedule);

// Spares concats and slices their copies: what is joined is made where the result has it, a slice
// is read where it is, as far as the kernels around them can work on pixels that lie apart.
void join_parts(Schedule& schedule);

// Puts the gradients that updates take into buckets of about `bucket_bytes`, and the updates last,
// for a GradientExchange. Throws UnsupportedError for gradients that are not float32.
void exchange_gradients(Schedule& schedule, std::size_t bucket_bytes);

// Gives every value its place. With `reuse`, values that never live together share memory and
// kernels work in place where they can.
ProgramPlan plan_memory(Schedule schedule, bool reuse);

}  // namespace pycnn
