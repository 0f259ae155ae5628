// Convolutions by cuDNN. A configuration is chosen while compiling: each one that keeps the rules
// (cudnn_graph.h) is timed, and our own kernel beside them; the choice is kept (plan_cache.h). With
// $PYCNN_CUDA_DETERMINISTIC=1 nothing is timed and the library's first one taken.
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "backends/cuda/conv2d.h"
#include "backends/cuda/conv2d_problem.h"
#include "backends/cuda/cudnn_graph.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/glue.h"
#include "backends/cuda/library_choice.h"
#include "backends/cuda/plan_cache.h"
#include "backends/cuda/queue.h"

namespace pycnn::cuda {
namespace {

using cudnn::ConvProblem;
using cudnn::Direction;

constexpr int kMostCompiled = 3;

// cuDNN on one device; never destroyed, since kernels use it until the process ends.
struct Link {
  const cudnn::Functions* functions = nullptr;
  // A program may run while another one is compiled.
  cudnn::Handle for_runs = nullptr, for_choices = nullptr;
  std::string problem;  // why there are no functions
};

const Link& link_of(int device) {
  static std::mutex mutex;
  static auto* const links = new std::map<int, Link>;
  const std::lock_guard lock(mutex);
  const auto [entry, is_new] = links->try_emplace(device);
  Link& link = entry->second;
  if (!is_new) return link;
  link.functions = load_cudnn(link.problem);
  if (link.functions == nullptr) return link;
  const cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess && link.functions->cudnnCreate(&link.for_runs) == 0 &&
      link.functions->cudnnCreate(&link.for_choices) == 0)
    return link;
  (void)cudaGetLastError();
  link.functions = nullptr;
  link.problem = "cuDNN cannot use the device";
  return link;
}

// Where things lie in a kernel's scratch.
struct Layout {
  std::int64_t workspace = 0, weight = 0, bias = 0, partials = 0, bytes = 0;
};

// What a kernel needs besides its views: lives in Kernel::state.
struct Plan {
  const Link& link;
  ConvProblem problem;  // with what the engine joins
  cudnn::Descriptor plan;
  Layout layout;
};

Layout layout_of(const ConvProblem& problem, bool has_bias, std::int64_t workspace) {
  const bool narrow = problem.image == Image::kBFloat16;
  Layout layout;
  layout.weight = aligned_scratch(workspace);
  layout.bias = layout.weight + aligned_scratch(narrow ? problem.shape.weights() * 2 : 0);
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

// The tensors of one call.
struct Call {
  const void* input;
  const void* output;  // or its gradient
  const float* weight;
  float* grad_weight;
  float* grad_bias;
  ConvEpilogue epilogue;
};

void run_plan(DeviceQueue& queue, cudnn::Handle handle, const Plan& plan, const Call& call,
              std::byte* scratch) {
  const ConvProblem& p = plan.problem;
  const ConvShape& s = p.shape;
  const bool narrow = p.image == Image::kBFloat16;
  void* const workspace = scratch;
  std::byte* const narrow_weight = scratch + plan.layout.weight;
  std::byte* const narrow_bias = scratch + plan.layout.bias;
  if (p.direction == Direction::kGradWeight) {
    void* const target = narrow ? static_cast<void*>(narrow_weight) : call.grad_weight;
    execute(queue, handle, plan,
            {{cudnn::kInput, call.input}, {cudnn::kOutput, call.output}, {cudnn::kWeight, target}},
            workspace);
    if (narrow)
      cast(queue, Image::kBFloat16, Image::kFloat32, target, call.grad_weight, s.weights());
    if (call.grad_bias != nullptr)
      conv2d_grad_bias(queue, p.image, s, call.output, call.grad_bias,
                       scratch + plan.layout.partials);
    return;
  }
  const void* weight = call.weight;
  if (narrow) {
    cast(queue, Image::kFloat32, Image::kBFloat16, weight, narrow_weight, s.weights());
    weight = narrow_weight;
  }
  std::vector<Operand> operands = {
      {cudnn::kInput, call.input}, {cudnn::kWeight, weight}, {cudnn::kOutput, call.output}};
  if (p.bias) {
    const void* bias = call.epilogue.bias;
    if (narrow) {
      cast(queue, Image::kFloat32, Image::kBFloat16, bias, narrow_bias, s.out_channels);
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

std::string key_of(const Link& link, int device, const ConvTask& task,
                   const cudnn::EngineRules& rules) {
  const ConvShape& s = task.shape;
  std::string key = "pycnn " PYCNN_VERSION "; cudnn " +
                    std::to_string(link.functions->cudnnGetVersion()) + "; " +
                    device_identity(device) + "; conv2d";
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
                           rules.tf32 ? 1 : 0,
                           rules.winograd ? 1 : 0})
    key += " " + std::to_string(number);
  return key;
}

std::shared_ptr<Plan> plan_of(const Link& link, const ConvProblem& problem, bool has_bias,
                              cudnn::Descriptor descriptor) {
  const std::int64_t workspace = descriptor.integer(cudnn::kPlanWorkspace);
  if (workspace > kMostWorkspace) throw cudnn::Error("the workspace is too large");
  return std::make_shared<Plan>(
      Plan{link, problem, std::move(descriptor), layout_of(problem, has_bias, workspace)});
}

// The plans of all configurations that work, those that join the epilogue first.
std::vector<std::shared_ptr<Plan>> plans_of(const Link& link, const ConvTask& task,
                                            const cudnn::EngineRules& rules, bool only_first) {
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
      for (const cudnn::Candidate& candidate : graph.candidates(rules)) {
        // Each takes up to seconds to compile.
        if (candidate.engine.compiles() && ++compiled > kMostCompiled) continue;
        try {
          plans.push_back(
              plan_of(link, problem, task.bias, make_plan(*link.functions, candidate, target)));
        } catch (const cudnn::Error&) {
          continue;
        }
        if (only_first) return plans;
      }
    } catch (const cudnn::Error&) {
      continue;  // no engine knows this graph
    }
  }
  return plans;
}

// Memory like that of a call.
struct Operands {
  Call call{};
  std::byte* scratch = nullptr;
  bool there = false;

  Operands(DeviceTimer& timer, const ConvTask& task, std::int64_t scratch_bytes) {
    const ConvShape& s = task.shape;
    const std::int64_t item = task.image == Image::kBFloat16 ? 2 : 4;
    const auto memory = [&](std::int64_t bytes) {
      return timer.allocate(static_cast<std::size_t>(bytes));
    };
    const std::int64_t outputs = s.pixels() * s.out_channels;
    const std::int64_t inputs = std::int64_t{s.images} * s.height * s.width * s.in_channels;
    call.input = memory(inputs * item);
    call.output = memory(outputs * item);
    auto* const weight = static_cast<float*>(memory(s.weights() * 4));
    auto* const bias = static_cast<float*>(memory(std::int64_t{s.out_channels} * 4));
    const void* const residual = task.residual ? memory(outputs * item) : bias;
    scratch = static_cast<std::byte*>(memory(scratch_bytes));
    call.weight = call.grad_weight = weight;
    call.grad_bias = task.bias ? bias : nullptr;
    call.epilogue = {task.bias ? bias : nullptr, task.residual ? residual : nullptr, task.curve};
    there = call.input != nullptr && call.output != nullptr && weight != nullptr &&
            bias != nullptr && residual != nullptr && scratch != nullptr;
  }
};

void run_own(DeviceQueue& queue, const ConvTask& task, const Operands& o) {
  void* const output = const_cast<void*>(o.call.output);
  switch (task.direction) {
    case Direction::kForward:
      return conv2d(queue, task.image, task.shape, o.call.input, o.call.weight, o.call.epilogue,
                    output);
    case Direction::kGradInput:
      return conv2d_grad_input(queue, task.image, task.shape, o.call.output, o.call.weight,
                               const_cast<void*>(o.call.input));
    case Direction::kGradWeight:
      return conv2d_grad_weight(queue, task.image, task.shape, o.call.input, o.call.output,
                                o.call.grad_weight, o.call.grad_bias, o.scratch);
  }
}

// The fastest of the plans; null: our own kernel is. None: they could not be timed.
std::optional<std::shared_ptr<Plan>> fastest(int device, const ConvTask& task,
                                             std::vector<std::shared_ptr<Plan>> plans) {
  std::int64_t scratch_bytes = task.direction == Direction::kGradWeight
                                   ? conv2d_grad_weight_scratch_bytes(task.shape, task.bias)
                                   : 0;
  for (const auto& plan : plans) scratch_bytes = std::max(scratch_bytes, plan->layout.bytes);
  DeviceTimer timer(device);
  if (!timer.works()) return std::nullopt;
  const Operands operands(timer, task, scratch_bytes);
  if (!operands.there) return std::nullopt;
  std::vector<Work> works;
  for (const auto& plan : plans)
    works.push_back([&, plan] {
      run_plan(timer.queue(), plan->link.for_choices, *plan, operands.call, operands.scratch);
    });
  works.push_back([&] { run_own(timer.queue(), task, operands); });
  const int best = fastest_of(timer, works);
  if (best < 0) return std::nullopt;
  const auto index = static_cast<std::size_t>(best);
  return index < plans.size() ? plans[index] : nullptr;
}

// Null: our own kernel is to be used; `why` says the reason.
std::shared_ptr<Plan> find_plan(int device, const ConvTask& task, std::string& why) {
  const Link& link = link_of(device);
  if (link.functions == nullptr) {
    why = link.problem;
    return nullptr;
  }
  if (cudaSetDevice(device) != cudaSuccess) {
    (void)cudaGetLastError();
    why = "cuDNN cannot use the device";
    return nullptr;
  }
  const std::lock_guard lock(choice_mutex());  // under which the handle is used, too
  const LibraryOptions options = library_options();
  const cudnn::EngineRules rules{options.tf32, options.deterministic, task.winograd};
  const std::string key = key_of(link, device, task, rules);
  if (!rules.deterministic) {
    if (const std::optional<std::string> known = plan_cache().find(key)) {
      if (*known == kOwnKernel) {
        why = kOwnWasFaster;
        return nullptr;
      }
      // The first character tells whether the epilogue is joined.
      try {
        const ConvProblem problem =
            known->starts_with('+') ? joined_problem(task) : plain_problem(task);
        return plan_of(link, problem, task.bias,
                       read_plan(*link.functions, known->substr(1), {link.for_choices, nullptr}));
      } catch (const cudnn::Error&) {
        // Chosen anew below.
      }
    }
  }
  std::vector<std::shared_ptr<Plan>> plans = plans_of(link, task, rules, rules.deterministic);
  if (plans.empty()) {
    why = "cuDNN has no engine for it";
    return nullptr;
  }
  if (rules.deterministic) return plans.front();
  const std::shared_ptr<Plan> first = plans.front();
  const std::optional<std::shared_ptr<Plan>> best = fastest(device, task, std::move(plans));
  if (!best) return first;
  try {
    plan_cache().put(key, *best == nullptr ? kOwnKernel
                                           : ((*best)->problem.bias ? "+" : "-") +
                                                 (*best)->plan.text(cudnn::kPlanJson));
  } catch (const cudnn::Error&) {
    // A plan without a text is chosen anew in the next process.
  }
  if (*best == nullptr) why = kOwnWasFaster;
  return *best;
}

// ---- Kernels

const Plan& plan_of(const KernelArgs& args) {
  return *static_cast<const Plan*>(static_cast<const DeviceKernelArgs&>(args).state);
}

template <class Body>
void guarded(const KernelArgs& args, const Body& body) noexcept {
  try {
    body();
  } catch (...) {
    note_library(queue_of(args), "cuDNN could not be given work");
  }
}

void run_forward(const KernelArgs& args) noexcept {
  guarded(args, [&] {
    Call call{};
    call.input = args.inputs[0].data;
    call.output = args.outputs[0].data;
    call.weight = args.inputs[1].as<const float>();
    call.epilogue = epilogue_of(op_of<ops::Conv2d>(args).epilogue, args);
    run_plan(queue_of(args), plan_of(args).link.for_runs, plan_of(args), call, args.scratch);
  });
}

void run_grad_input(const KernelArgs& args) noexcept {
  guarded(args, [&] {
    Call call{};
    call.input = args.outputs[0].data;
    call.output = args.inputs[0].data;
    call.weight = args.inputs[1].as<const float>();
    run_plan(queue_of(args), plan_of(args).link.for_runs, plan_of(args), call, args.scratch);
  });
}

void run_grad_weight(const KernelArgs& args) noexcept {
  guarded(args, [&] {
    Call call{};
    call.input = args.inputs[0].data;
    call.output = args.inputs[1].data;
    call.grad_weight = args.outputs[0].as<float>();
    call.grad_bias =
        op_of<ops::Conv2dGradWeight>(args).bias ? args.outputs[1].as<float>() : nullptr;
    run_plan(queue_of(args), plan_of(args).link.for_runs, plan_of(args), call, args.scratch);
  });
}

Choice choose(int device, ConvTask task, const Problem& problem, KernelFunction run) {
  task.winograd = problem.winograd;
  if (task.shape.pixels() == 0 || task.shape.weights() == 0) return refuse("a tensor is empty");
  std::string why;
  std::shared_ptr<Plan> plan;
  try {
    plan = find_plan(device, task, why);
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (plan == nullptr) return refuse(kept_text(why));
  Choice choice{run, scratch(plan->layout.bytes)};
  choice.state = std::move(plan);
  return choice;
}

}  // namespace

Choice select_library(int device, const ops::Conv2d& op, const Problem& problem) {
  return choose(device, task_of(op, problem), problem, run_forward);
}
Choice select_library(int device, const ops::Conv2dGradInput& op, const Problem& problem) {
  return choose(device, task_of(op, problem), problem, run_grad_input);
}
Choice select_library(int device, const ops::Conv2dGradWeight& op, const Problem& problem) {
  return choose(device, task_of(op, problem), problem, run_grad_weight);
}

}  // namespace pycnn::cuda
