#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pycnn/graph.h"
#include "pycnn/tensor.h"

/// \file
/// From a graph to something that runs.
namespace pycnn {

/// Storage of parameters, buffers and optimizer state by name. Programs share the tensors: train
/// with one program and infer with another that was compiled with the same map.
using Variables = std::map<std::string, Tensor>;

/// Creates what the graph names and the map lacks, filled by each node's initializer. Throws
/// ShapeError or DTypeError where a tensor already in the map differs from the graph's spec.
PYCNN_API void create_variables(const Graph& graph, Variables& variables, std::uint64_t seed = 0);

/// Parameters that share hyper-parameters. A parameter belongs to the first group that names it;
/// one that none names belongs to the optimizer's own settings.
struct ParameterGroup {
  std::vector<std::string> names;  ///< exact names of parameters
  double weight_decay = 0.0;       ///< in place of the optimizer's
  double rate_scale = 1.0;         ///< factor on the learning rate
  bool frozen = false;             ///< no gradient is computed, no update made
};

/// Which update `compile` appends. The learning rate is not here: it is the variable
/// `train.learning_rate`, so that a schedule changes it without compiling again.
struct Optimizer {
  /// kMuon orthogonalises the momentum of parameters of two axes and more. The others are updated
  /// as by kSgd, without weight decay unless a group says so.
  enum class Kind : std::uint8_t { kSgd, kAdam, kAdamW, kMuon };
  Kind kind = Kind::kSgd;                         ///< the rule
  double momentum = 0.0;                          ///< kSgd, kMuon
  bool nesterov = false;                          ///< kSgd, kMuon
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;  ///< kAdam, kAdamW
  double weight_decay = 0.0;                      ///< factor of the weights in the gradient
  std::vector<ParameterGroup> groups;             ///< exceptions, the first that fits counts
  std::optional<double> clip_norm;                ///< limit of the global L2 norm of the gradients
  std::optional<double> ema_decay;  ///< keep exponential averages `ema.NAME` of the parameters
};

/// Which results of the forward pass are computed again for the backward pass instead of kept. All
/// give the same bits; a choice depends on the shapes alone.
enum class Recompute : std::uint8_t {
  kNone,
  kCheap,  ///< what one pass over kept values gives: normalised and activated, added, concatenated
  kSqrt,   ///< all but what joins about sqrt(n) segments of n layers (Chen et al. 2016,
           ///< arXiv:1604.06174): most of the forward pass runs twice
};

/// "none", "cheap", "sqrt" and back (ArgumentError for another name).
PYCNN_API const char* recompute_name(Recompute recompute);
PYCNN_API Recompute parse_recompute(std::string_view name);  ///< See `recompute_name`.

/// Adds up the gradients of several processes that train one net, each with a share of every batch.
/// A training program that was compiled with one calls it in the thread of the run:
///
///     backward pass ... begin(0) ... begin(1) ... begin(n - 1), finish(), updates
///
/// Gradients travel in buckets, the last layers' first. Which gradient is where in them depends on
/// the trained parameters alone, so that it is the same for every share of a batch.
class PYCNN_API GradientExchange {
 public:
  virtual ~GradientExchange();
  /// A bucket's gradients are there. The backward pass goes on when this returns, and leaves them
  /// alone: they may be read and replaced, here or elsewhere, until `finish` returns. A few
  /// elements between gradients belong to none and have any value.
  virtual void begin(std::size_t bucket, std::span<float> gradients) = 0;
  /// Returns when each bucket holds what the updates are to take. What this or `begin` throws ends
  /// the run; no parameter has been changed then, running statistics may have been.
  virtual void finish() = 0;
};

/// Names of devices for CompileOptions::device.
struct Device {
  static std::string cpu() { return "cpu"; }  ///< The processors.
  /// The NVIDIA GPU of that number, as the driver counts them.
  static std::string cuda(int index = 0) { return "cuda:" + std::to_string(index); }
};
/// How a graph becomes a program.
struct CompileOptions {
  Mode mode = Mode::kInference;  ///< kTraining for an optimizer
  /// "cpu", "cuda" (the first GPU) or "cuda:N": see Device. DeviceError says what is missing.
  std::string device = "cpu";
  std::string isa = "auto";  ///< "auto" "baseline" "avx2" "avx512", capped by PYCNN_MAX_ISA
  /// 0: the smallest of PYCNN_NUM_THREADS, OMP_NUM_THREADS, CPU affinity, cgroup quota and physical
  /// cores that says something. A count goes before the variables and the cores; more than affinity
  /// and quota allow is clamped, with a line in Program::warnings. Negative: ArgumentError.
  std::int64_t threads = 0;
  std::map<std::string, std::string>
      variants;  ///< node name, op name or "*" -> variant name or "reference"
  /// Let 3x3 and 5x5 convolutions use Winograd's algorithms, which multiply two to four times less
  /// and round up to about ten times more, and gradients of the weights of 1x1 convolutions (on
  /// some processors these themselves) Strassen's, which multiplies an eighth to a quarter less and
  /// rounds two to five times more.
  bool winograd = true;
  /// Let a GPU's tensor cores multiply float32 rounded to 10 bits of mantissa (TF32), with sums in
  /// float32: faster, with about a thousandth of the precision. The CPU never does.
  bool tf32 = false;
  /// kFloat32 runs the graph as recorded. kBFloat16 stores activations and their gradients as bf16
  /// (see `lower_precision`) and multiplies in bf16 with sums in f32; without AMX or AVX512-BF16
  /// that is an UnsupportedError. kFloat16 likewise, on a GPU alone; its range is small, so
  /// training scales the loss (ops::LossScale). Any other type: DTypeError.
  DType dtype = DType::kFloat32;
  /// Run bf16 on any processor: what is multiplied and stored is rounded likewise, by f32 kernels.
  /// Slow; to see how accurate a net is before it goes to a machine that has the units.
  bool emulate_bfloat16 = false;
  bool fuse = true;  ///< fold batch norm (inference), join epilogues
  bool reuse_memory =
      true;  ///< share arena space between tensors that never live together; in-place where allowed
  Recompute recompute = Recompute::kCheap;  ///< graphs with gradients only
  std::size_t memory_limit_bytes =
      0;  ///< 0: what the machine has left. More than this in arena and scratch: MemoryLimitError
  /// Training: the graph output to minimise and how. Without an optimizer only the forward pass in
  /// training mode runs.
  std::string loss = "loss";
  std::optional<Optimizer> optimizer;  ///< kTraining only
  /// Called between backward pass and updates; with an optimizer on the CPU, float32 parameters.
  std::shared_ptr<GradientExchange> exchange;
  std::size_t bucket_bytes = std::size_t{4} << 20;  ///< of `exchange`; a larger gradient is alone
};

/// One line of `Program::profile`.
struct StepProfile {
  std::string name;            ///< of the node
  std::string op;              ///< as in the graph's text
  std::string variant;         ///< "conv2d.implicit_gemm.avx512"
  std::string phase;           ///< "prepare" (only when variables changed) or "run"
  std::int64_t runs = 0;       ///< that were timed
  double total_seconds = 0.0;  ///< of all of them
  double min_seconds = 0.0;    ///< of the fastest
  Cost cost;                   ///< of one run; `bytes` with packed weights as packed
  /// Better variants that were refused, best first, each with the reason.
  std::vector<std::pair<std::string, std::string>> refused;
  /// What steps beside it would do that its kernel does as well: names of nodes and ops.
  std::vector<std::pair<std::string, std::string>> absorbed;
};
/// Bytes that a program takes.
struct MemoryReport {
  std::size_t arena_bytes = 0;     ///< activations and gradients, per concurrent run
  std::size_t scratch_bytes = 0;   ///< kernels' working space, per concurrent run
  std::size_t prepared_bytes = 0;  ///< folded and packed weights, shared
  std::size_t variable_bytes =
      0;  ///< parameters, buffers, optimizer state that the program touches
  std::size_t unshared_bytes = 0;  ///< what the arena would take without reuse
  /// On a GPU: inputs and outputs there, at most, with those of runs that `begin` began.
  std::size_t transfer_bytes = 0;
  /// For a GPU: memory of the host through which inputs and outputs go, at most.
  std::size_t staging_bytes = 0;
  /// On a GPU: scratch of steps that run beside others; 0 before the second run, and once they turn
  /// out to be no quicker so.
  std::size_t lane_scratch_bytes = 0;
};

/// A run that `Program::begin` began; copies share it. Keeps the program alive.
class PYCNN_API PendingRun {
 public:
  struct State;
  PendingRun() = default;                             ///< Of no run; `wait` does nothing.
  explicit PendingRun(std::shared_ptr<State> state);  ///< For Program::begin.
  /// Returns when the results are in the arrays that `begin` was given, which must live until then.
  /// May be called again. Throws DeviceError for what failed on the device, in this run or in one
  /// before it.
  void wait();

 private:
  std::shared_ptr<State> state_;
};

/// A compiled graph: a flat list of steps over fixed memory. Copies share the same program.
///
/// `run` may be called from several threads at once in inference (each call takes a working space
/// of its own; results have the same bits as alone). Nothing is allocated by a run after the first
/// one (per concurrent caller).
///
/// A run that writes variables (training) has those for itself and shares what it only reads:
/// inference with any of them waits until the run has ended, so it never sees half an update. Runs
/// of one training program take turns; while one is under way, a run of another program that would
/// write the same variables is refused (TrainingError), for two trainers at once are a mistake.
class PYCNN_API Program {
 public:
  struct State;
  explicit Program(std::shared_ptr<State> state);  ///< For `compile`, which makes programs.

  /// In the order of the graph's inputs (only those that the outputs or assignments need) and
  /// outputs.
  const std::vector<std::pair<std::string, TensorSpec>>& inputs() const;
  const std::vector<std::pair<std::string, TensorSpec>>& outputs() const;  ///< See `inputs`.

  /// Fast path: contiguous arrays matching `inputs()` and `outputs()`, in that order. Throws
  /// ArgumentError when a count differs or a pointer is null, LabelError for an input of class
  /// labels of which one is no class, TrainingError as above, DeviceError for what a device
  /// refused; nothing has been written then, but for a step on a GPU after others: when that fails
  /// half-way, what it was to write is lost (reading it throws DeviceError) until it is
  /// overwritten. Input arrays are read only during the call.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs) const;
  /// As `run`, but does not wait for a GPU: it may be in the midst of several runs, whose inputs
  /// are copied to it meanwhile, and run follows run without a gap. The input arrays may be changed
  /// as soon as it returns; the outputs are written by PendingRun::wait, in any order of runs. When
  /// too many runs are under way, it waits for the oldest. On the CPU it is `run`. Throws what
  /// `run` throws, also for what failed in a run before it; what fails later, `wait` tells. Outputs
  /// of a few kilobytes that are asked for `late`, many runs later, stay on the GPU till then, and
  /// come together with those of all runs that have ended.
  PendingRun begin(std::span<const void* const> inputs, std::span<void* const> outputs,
                   bool late = false) const;
  /// Whether `begin` may return before the run has ended: on a GPU, unless labels that the program
  /// computes have to be looked at.
  bool overlaps() const;
  /// Checked and allocating. Throws ArgumentError for a missing or unknown name, ShapeError,
  /// DTypeError.
  std::map<std::string, Tensor> run(const std::map<std::string, Tensor>& inputs) const;

  /// One line a step: variant chosen, and why faster ones were refused.
  std::string explain() const;
  /// The graph after all passes.
  std::string graph_text() const;
  MemoryReport memory() const;  ///< What it takes.
  /// On a GPU, from the second run on, all steps but those that find labels are recorded and given
  /// as one: "recorded on 3 lanes" and the like. Where that cannot be done, "not recorded", and
  /// what the device said: each step is launched by itself then. Empty before, and on the CPU.
  std::string recording() const;
  int threads() const;      ///< At most this many work on a run.
  std::string isa() const;  ///< Instruction set of its kernels: "avx2" ...
  /// What was not done as asked: a thread count that was clamped, a variable of the environment
  /// that holds nonsense; on a GPU, which library of NVIDIA's is missing that kernels would be
  /// taken from, what is done without it and what brings it. For the caller to show.
  const std::vector<std::string>& warnings() const;

  /// Times every step of the runs between `start_profile` and `profile` (steps then run with a
  /// clock around them; on a GPU one by one, by its own clock).
  void start_profile() const;
  std::vector<StepProfile> profile() const;  ///< Ends it; see `start_profile`.
  /// The same lines without times: what a run consists of, and what each step costs.
  std::vector<StepProfile> steps() const;

 private:
  std::shared_ptr<State> state_;
};

/// Runs the passes of compile/compile.cpp. `variables` must hold what the graph names (see
/// create_variables); training adds `train.step`, `train.seed`, `train.learning_rate`, `optim.*`
/// and `ema.*` where they are missing, in float16 also `train.loss_scale` and `train.good_steps`: a
/// step whose gradients are not all finite changes no other variable and is not counted.
PYCNN_API Program compile(const Graph& graph, Variables& variables,
                          const CompileOptions& options = {});
/// As `compile`, where other threads read `variables` and give it tensors meanwhile, each under one
/// lock that the caller holds: `unlocked` lets it go, runs what it is given and takes it again.
/// What compiling adds is in the map at the end; where somebody else has given one of these names
/// by then, the graph is compiled once more, with that tensor. Tensors of `own` are this program's,
/// whatever others put under their names before or meanwhile; the map is not given them. An
/// undefined one is as one that is missing: ArgumentError, but for what compiling adds, of which
/// the program then has its own.
PYCNN_API Program compile_beside(const Graph& graph, Variables& variables,
                                 const CompileOptions& options,
                                 const std::function<void(const std::function<void()>&)>& unlocked,
                                 const Variables& own = {});
/// What `plan_memory` found.
struct MemoryPlan {
  MemoryReport memory;  ///< bytes
  std::string isa;      ///< the plan depends on it and on the threads
  int threads = 1;      ///< that a run would take
};

/// What `compile` would take, without making a variable and without memory for a run. There is no
/// limit: nets that this machine could not run are planned, too.
PYCNN_API MemoryPlan plan_memory(const Graph& graph, const CompileOptions& options = {});

/// What this machine offers: threads and why, instruction sets. For diagnostics.
struct Machine {
  std::string cpu;                ///< the processor's name
  std::vector<std::string> isas;  ///< usable here, ascending
  std::string isa;                ///< the one chosen by "auto"
  /// What multiplies bfloat16, ascending: "avx512_bf16", "amx_bf16". Empty: CompileOptions::dtype
  /// cannot be that.
  std::vector<std::string> bfloat16_units;
  int threads = 1;                           ///< chosen by 0
  std::string threads_reason;                ///< what decided
  std::map<std::string, int> thread_limits;  ///< each input to the choice; 0 says nothing
  std::vector<std::string> devices;          ///< "cpu", then the usable GPUs: "cuda:0" ...
  std::string compiler;                      ///< that built the library
  std::vector<std::string> warnings;         ///< variables of the environment that hold nonsense
  std::size_t available_memory_bytes = 0;    ///< left now, swap and limits of this process counted
};
PYCNN_API Machine machine();  ///< Looks at the machine as it is now.

/// Highest rates that plain loops reached on this machine: what a step's time is held against.
struct MachinePeaks {
  /// Multiply-adds in registers.
  struct Compute {
    std::string dtype;   ///< "float32"; "bfloat16" where the processor multiplies it
    std::string unit;    ///< the instruction set, or "avx512_bf16", "amx_bf16"
    double flops = 0.0;  ///< a second; a multiply-add counts as two
  };
  /// Going through a buffer again and again.
  struct Memory {
    std::string level;  ///< "L1" "L2" "L3" "memory"; a level that adds nothing is left out
    std::size_t capacity_bytes = 0;  ///< of all caches that the threads have; 0 for memory
    std::size_t buffer_bytes = 0;    ///< in all threads together
    double read_bytes = 0.0;         ///< a second
    double copy_bytes = 0.0;         ///< a second, those read and those written together
  };
  std::string cpu;               ///< the processor's name
  std::string isa;               ///< of the loops
  int threads = 1;               ///< that ran them
  std::vector<Compute> compute;  ///< a rate for each unit
  std::vector<Memory> memory;    ///< nearest first
  /// Others used the processors all the time that some rate was measured, so it may be too low.
  bool disturbed = false;
};

/// Measures; takes about ten times `seconds`, which go to each rate, and while it goes through
/// memory a buffer beyond the caches. The fastest of many short tries counts; on a busy machine it
/// takes longer. `isa` and `threads` as in CompileOptions. Throws ArgumentError for `seconds`
/// outside of (0, 60], and what CompileOptions' fields throw.
PYCNN_API MachinePeaks measure_peaks(const std::string& isa = "auto", std::int64_t threads = 0,
                                     double seconds = 0.1);

/// Cycles a second of the core that the caller runs on, within some parts of a hundred; takes below
/// a millisecond. To see that a machine slows down during a measurement.
PYCNN_API double clock_hertz();

/// Names of the variants that a device has for an op, best first, for tests and benchmarks.
PYCNN_API std::vector<std::string> variants(const std::string& op_name,
                                            const std::string& device = "cpu");

}  // namespace pycnn

/// \var pycnn::Optimizer::beta1
/// kAdam, kAdamW: decay of the gradient's average.
///
/// \var pycnn::Optimizer::beta2
/// kAdam, kAdamW: decay of the squared gradient's average.
