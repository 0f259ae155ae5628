// Convolutions by cuDNN: configurations that keep the rules (cudnn_graph.h), chosen as
// library_kernel.h tells.
#include "backends/cuda/cudnn_graph.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/library_kernel.h"
#include "backends/cuda/queue.h"

namespace pycnn::cuda {
namespace {

using cudnn::ConvProblem;

constexpr int kMostCompiled = 3;

struct Link {
  const cudnn::Functions* functions = nullptr;
  // A program may run while another one is compiled.
  cudnn::Handle for_runs = nullptr, for_choices = nullptr;
  std::string problem;  // why there are no functions
};

// Where things lie in a kernel's scratch. Narrow weights that are read are packed (packed_bytes).
struct Layout {
  std::int64_t workspace = 0, weight = 0, bias = 0, partials = 0, bytes = 0;
};

// What a kernel needs besides its views: lives in Kernel::state.
struct Plan {
  const Link& link;
  ConvProblem problem;  // with what the engine joins
  cudnn::Descriptor plan;
  Layout layout;

  std::int64_t scratch_bytes() const { return layout.bytes; }
};

Layout layout_of(const ConvProblem& problem, bool has_bias, std::int64_t workspace) {
  const bool narrow = is_narrow(problem.image);
  Layout layout;
  layout.weight = aligned_scratch(workspace);
  const bool makes_weight = problem.direction == Direction::kGradWeight;
  layout.bias =
      layout.weight + aligned_scratch(narrow && makes_weight ? problem.shape.weights() * 2 : 0);
  layout.partials =
      layout.bias + aligned_scratch(narrow && problem.bias ? problem.shape.out_channels * 2 : 0);
  layout.bytes = layout.partials;
  if (problem.direction == Direction::kGradWeight && has_bias)
    layout.bytes += conv2d_grad_bias_scratch_bytes(problem.shape);
  return layout;
}

struct Operand {
  std::int64_t id;
  const void* data;
};

// Gives the plan's work to the queue. During a recording, too: descriptors are of the host.
void execute(DeviceQueue& queue, cudnn::Handle handle, const Plan& plan,
             const std::vector<Operand>& operands, void* workspace) {
  const cudnn::Functions& f = *plan.link.functions;
  std::vector<std::int64_t> ids;
  std::vector<const void*> pointers;
  for (const Operand& operand : operands) {
    ids.push_back(operand.id);
    pointers.push_back(operand.data);
  }
  cudnn::Descriptor pack(f, cudnn::kVariantPack);
  pack.integers(cudnn::kPackIds, ids)
      .set(cudnn::kPackPointers, cudnn::kTypePointer, static_cast<std::int64_t>(pointers.size()),
           pointers.data())
      .pointer(cudnn::kPackWorkspace, cudnn::kTypePointer, workspace)
      .finalize();
  cudnn::Status status = f.cudnnSetStream(handle, queue.stream);
  if (status == 0) status = f.cudnnBackendExecute(handle, plan.plan.object(), pack.object());
  if (status != 0) note_library(queue, f.cudnnGetErrorString(status));
}

void run_plan(DeviceQueue& queue, cudnn::Handle handle, const Plan& plan, const ConvCall& call,
              std::byte* scratch) {
  const ConvProblem& p = plan.problem;
  const ConvShape& s = p.shape;
  const bool narrow = is_narrow(p.image);
  void* const workspace = scratch;
  std::byte* const narrow_weight = scratch + plan.layout.weight;
  std::byte* const narrow_bias = scratch + plan.layout.bias;
  if (p.direction == Direction::kGradWeight) {
    void* const target = narrow ? static_cast<void*>(narrow_weight) : call.grad_weight;
    execute(queue, handle, plan,
            {{cudnn::kInput, call.input}, {cudnn::kOutput, call.output}, {cudnn::kWeight, target}},
            workspace);
    if (narrow) cast(queue, p.image, Image::kFloat32, target, call.grad_weight, s.weights());
    if (call.grad_bias != nullptr)
      conv2d_grad_bias(queue, p.image, s, call.output, call.grad_bias,
                       scratch + plan.layout.partials);
    return;
  }
  const void* const weight = call.packed != nullptr ? call.packed : call.weight;
  std::vector<Operand> operands = {
      {cudnn::kInput, call.input}, {cudnn::kWeight, weight}, {cudnn::kOutput, call.output}};
  if (p.bias) {
    const void* bias = call.epilogue.bias;
    if (narrow) {
      cast(queue, Image::kFloat32, p.image, bias, narrow_bias, s.out_channels);
      bias = narrow_bias;
    }
    operands.push_back({cudnn::kBias, bias});
  }
  if (p.residual) operands.push_back({cudnn::kResidual, call.epilogue.residual});
  execute(queue, handle, plan, operands, workspace);
  if (p.direction != Direction::kForward) return;
  ConvEpilogue rest = call.epilogue;
  if (p.bias) rest.bias = nullptr;
  if (p.residual) rest.residual = nullptr;
  if (p.relu) rest.curve = {};
  if (rest.bias != nullptr || rest.residual != nullptr || rest.curve.kind != CurveKind::kIdentity)
    conv2d_epilogue(queue, p.image, s, rest, const_cast<void*>(call.output));
}

// ---- Choosing

ConvProblem plain_problem(const ConvTask& task) {
  ConvProblem problem;
  problem.direction = task.direction;
  problem.image = task.image;
  problem.shape = task.shape;
  problem.bottom = task.bottom;
  problem.right = task.right;
  return problem;
}

// With what of the epilogue engines can join.
ConvProblem joined_problem(const ConvTask& task) {
  ConvProblem problem = plain_problem(task);
  if (task.direction != Direction::kForward) return problem;
  const CurveKind kind = task.curve.kind;
  if (!task.bias || (kind != CurveKind::kIdentity && kind != CurveKind::kRelu)) return problem;
  problem.bias = true;
  problem.residual = task.residual;
  problem.relu = kind == CurveKind::kRelu;
  return problem;
}

std::shared_ptr<Plan> plan_of(const Link& link, const ConvProblem& problem, bool has_bias,
                              cudnn::Descriptor descriptor) {
  const std::int64_t workspace = descriptor.integer(cudnn::kPlanWorkspace);
  if (workspace > kMostWorkspace) throw cudnn::Error("the workspace is too large");
  return std::make_shared<Plan>(
      Plan{link, problem, std::move(descriptor), layout_of(problem, has_bias, workspace)});
}

struct Cudnn {
  using Link = cuda::Link;
  using Plan = cuda::Plan;
  static constexpr const char* kName = "cuDNN";
  static constexpr const char* kNoPlan = "cuDNN has no engine for it";
  static constexpr const char* kNotGiven = "cuDNN could not be given work";

  static const cudnn::Functions* load(std::string& problem) { return load_cudnn(problem); }
  static bool open(Link& link) {
    return link.functions->cudnnCreate(&link.for_runs) == 0 &&
           link.functions->cudnnCreate(&link.for_choices) == 0;
  }

  static cudnn::EngineRules rules_of(const Link& link, const ConvTask& task,
                                     const LibraryOptions& options) {
    return {options.tf32, options.deterministic, task.winograd,
            missing_compiler(*link.functions).empty()};
  }

  static std::string left_out(const Link& link, const LibraryOptions& options) {
    const std::string& missing = missing_compiler(*link.functions);
    if (options.deterministic || missing.empty()) return {};
    return "no engines that are compiled at run time: " + missing;
  }

  static std::string key(const Link& link, const ConvTask& task, const LibraryOptions& options) {
    const ConvShape& s = task.shape;
    std::string key = "cudnn " + std::to_string(link.functions->cudnnGetVersion()) + "; conv2d";
    for (const int number : {static_cast<int>(task.direction),
                             static_cast<int>(task.image),
                             s.images,
                             s.height,
                             s.width,
                             s.in_channels,
                             s.out_height,
                             s.out_width,
                             s.out_channels,
                             s.kernel_height,
                             s.kernel_width,
                             s.stride_y,
                             s.stride_x,
                             s.top,
                             s.left,
                             task.bottom,
                             task.right,
                             s.dilation_y,
                             s.dilation_x,
                             s.groups,
                             task.bias ? 1 : 0,
                             task.residual ? 1 : 0,
                             static_cast<int>(task.curve.kind),
                             options.tf32 ? 1 : 0,
                             task.winograd ? 1 : 0,
                             static_cast<int>(task.measure),
                             static_cast<int>(task.norm_curve.kind)})
      key += " " + std::to_string(number);
    // What was fastest without a compiler is not kept for those who have one.
    return missing_compiler(*link.functions).empty() ? key : key + "; not compiled";
  }

  // Those that join the epilogue first.
  static std::vector<std::shared_ptr<Plan>> plans(const Link& link, const ConvTask& task,
                                                  const LibraryOptions& options) {
    const cudnn::Target target{link.for_choices, nullptr};
    const ConvProblem plain = plain_problem(task), joined = joined_problem(task);
    std::vector<ConvProblem> problems;
    if (joined.bias) problems.push_back(joined);
    problems.push_back(plain);
    std::vector<std::shared_ptr<Plan>> plans;
    for (const ConvProblem& problem : problems) {
      try {
        const cudnn::ConvGraph graph(*link.functions, problem, target);
        int compiled = 0;
        for (const cudnn::Candidate& candidate : graph.candidates(rules_of(link, task, options))) {
          // Each takes up to seconds to compile.
          if (candidate.engine.compiles() && ++compiled > kMostCompiled) continue;
          try {
            plans.push_back(
                plan_of(link, problem, task.bias, make_plan(*link.functions, candidate, target)));
          } catch (const cudnn::Error&) {
            continue;
          }
          if (options.deterministic) return plans;
        }
      } catch (const cudnn::Error&) {
        continue;  // no engine knows this graph
      }
    }
    return plans;
  }

  // The first character tells whether the epilogue is joined.
  static std::string text(const Plan& plan) {
    try {
      return (plan.problem.bias ? "+" : "-") + plan.plan.text(cudnn::kPlanJson);
    } catch (const cudnn::Error&) {
      return {};
    }
  }
  static std::shared_ptr<Plan> read(const Link& link, const ConvTask& task, const LibraryOptions&,
                                    const std::string& text) {
    if (text.empty()) return nullptr;
    try {
      return plan_of(link, text.front() == '+' ? joined_problem(task) : plain_problem(task),
                     task.bias,
                     read_plan(*link.functions, text.substr(1), {link.for_choices, nullptr}));
    } catch (const cudnn::Error&) {
      return nullptr;
    }
  }

  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch,
                  bool is_choice) {
    run_plan(queue, is_choice ? plan.link.for_choices : plan.link.for_runs, plan, call, scratch);
  }
  static Image image(const Plan& plan) { return plan.problem.image; }
  // The handle would keep the stream of the timer, which ends, and the next plans are made with it.
  static void end_choice(const Link& link) {
    (void)link.functions->cudnnSetStream(link.for_choices, nullptr);
  }
};

}  // namespace

Choice select_library(int device, const ops::Conv2d& op, const Problem& problem) {
  return choose_library<Cudnn>(device, op, problem);
}
Choice select_library(int device, const ops::Conv2dGradInput& op, const Problem& problem) {
  return choose_library<Cudnn>(device, op, problem);
}
Choice select_library(int device, const ops::Conv2dGradWeight& op, const Problem& problem) {
  return choose_library<Cudnn>(device, op, problem);
}

}  // namespace pycnn::cuda
