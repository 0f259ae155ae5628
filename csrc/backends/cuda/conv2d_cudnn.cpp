#include "backends/cuda/conv2d_cudnn.h"

#include <algorithm>
#include <optional>

#include "backends/cuda/elementwise.h"
#include "backends/cuda/library_own.h"
#include "backends/cuda/missing_library.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/stream_users.h"

namespace pycnn::cuda {
namespace {

using cudnn::ConvProblem;
using Link = Cudnn::Link;
using Plan = Cudnn::Plan;
using Layout = Cudnn::Layout;

// A stream that ended may be looked at when the handle is given another one.
void forget_stream_of(const Link& link) {
  const std::lock_guard lock(link.running);
  if (link.stream == nullptr) return;
  (void)link.functions->cudnnSetStream(link.for_runs, nullptr);
  link.stream = nullptr;
}

// That are open, of all devices.
struct Links {
  std::mutex mutex;
  std::vector<const Link*> list;
};
Links& links() {
  static auto* const links = new Links;
  return *links;
}

void forget_streams_of(int device) noexcept {
  const std::lock_guard lock(links().mutex);
  for (const Link* const link : links().list)
    if (link->device == device) forget_stream_of(*link);
}

std::int64_t measured_channels(const ConvProblem& problem) {
  return problem.direction == Direction::kForward ? problem.shape.out_channels
                                                  : problem.shape.in_channels;
}

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
  if (problem.measure != MeasureKind::kNothing)
    layout.bytes += measure_scratch_bytes(1, measured_channels(problem));
  return layout;
}

struct Operand {
  std::int64_t id;
  const void* data;
};

// Gives the plan's work to the queue. During a recording, too: descriptors are of the host.
void execute(DeviceQueue& queue, const Plan& plan, const std::vector<Operand>& operands,
             void* workspace) {
  const Link& link = plan.link;
  const cudnn::Functions& f = *link.functions;
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
  const std::lock_guard lock(link.running);
  link.stream = queue.stream;
  cudnn::Status status = f.cudnnSetStream(link.for_runs, queue.stream);
  if (status == 0) status = f.cudnnBackendExecute(link.for_runs, plan.plan.object(), pack.object());
  if (status != 0) note_library(queue, f.cudnnGetErrorString(status));
}

// The engine leaves one tile's sums, of the whole result.
void run_measuring(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch) {
  const ConvProblem& p = plan.problem;
  const ConvShape& s = p.shape;
  const bool forward = p.direction == Direction::kForward;
  const std::int64_t channels = measured_channels(p);
  const std::int64_t rows = forward ? s.pixels() : std::int64_t{s.images} * s.height * s.width;
  std::byte* const measured = scratch + plan.layout.partials;
  float* const sums = measure_partials(measured, 1, channels);
  const void* const weight = call.packed != nullptr ? call.packed : call.weight;
  if (plan.zeroes)
    note(queue, cudaMemsetAsync(sums, 0, static_cast<std::size_t>(2 * channels) * sizeof(float),
                                queue.stream));
  std::vector<Operand> operands = {{cudnn::kInput, call.input},
                                   {cudnn::kWeight, weight},
                                   {cudnn::kOutput, call.output},
                                   {cudnn::kFirstSum, sums},
                                   {cudnn::kSecondSum, sums + channels}};
  if (forward) {
    float* const center = sums + 2 * channels;
    measure_center(queue, p.image, s, call.input, weight, center);
    operands.push_back({cudnn::kCenter, center});
  } else {
    operands.push_back({cudnn::kCenter, call.measure.mean});
    operands.push_back({cudnn::kNormed, call.measure.normed});
    if (p.residual) operands.push_back({cudnn::kResidual, call.epilogue.residual});
    if (p.gate)
      operands.push_back({cudnn::kGate, p.signs ? call.epilogue.signs : call.epilogue.gate});
    if (p.norm_relu) {
      operands.push_back({cudnn::kFactor, call.measure.factor});
      operands.push_back({cudnn::kOffset, call.measure.offset});
    }
  }
  execute(queue, plan, operands, scratch);
  finish_measure(queue, call.measure, {1, rows, rows, channels}, measured);
}

void run_plan(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch) {
  const ConvProblem& p = plan.problem;
  if (p.measure != MeasureKind::kNothing) return run_measuring(queue, plan, call, scratch);
  const ConvShape& s = p.shape;
  const bool narrow = is_narrow(p.image);
  void* const workspace = scratch;
  std::byte* const narrow_weight = scratch + plan.layout.weight;
  std::byte* const narrow_bias = scratch + plan.layout.bias;
  if (p.direction == Direction::kGradWeight) {
    // An update may read it as it is.
    const bool widens = narrow && call.narrow_grad_weight == nullptr;
    void* const target = widens   ? static_cast<void*>(narrow_weight)
                         : narrow ? call.narrow_grad_weight
                                  : call.grad_weight;
    execute(queue, plan,
            {{cudnn::kInput, call.input}, {cudnn::kOutput, call.output}, {cudnn::kWeight, target}},
            workspace);
    if (widens) cast(queue, p.image, Image::kFloat32, target, call.grad_weight, s.weights());
    if (call.grad_bias != nullptr)
      conv2d_grad_bias(queue, p.image, s, call.output, call.grad_bias,
                       scratch + plan.layout.partials);
    return;
  }
  const void* const weight = call.packed != nullptr ? call.packed : call.weight;
  std::vector<Operand> operands = {
      {cudnn::kInput, call.input}, {cudnn::kWeight, weight}, {cudnn::kOutput, call.output}};
  if (p.bias) {
    const void* bias = call.packed_bias != nullptr ? call.packed_bias : call.epilogue.bias;
    if (narrow && call.packed_bias == nullptr) {
      cast(queue, Image::kFloat32, p.image, bias, narrow_bias, s.out_channels);
      bias = narrow_bias;
    }
    operands.push_back({cudnn::kBias, bias});
  }
  if (p.residual) operands.push_back({cudnn::kResidual, call.epilogue.residual});
  execute(queue, plan, operands, workspace);
  if (p.direction != Direction::kForward) return;
  ConvEpilogue rest = call.epilogue;
  if (p.bias) rest.bias = nullptr;
  if (p.residual) rest.residual = nullptr;
  if (p.relu) rest.curve = {};
  if (rest.bias != nullptr || rest.residual != nullptr || rest.curve.kind != CurveKind::kIdentity)
    conv2d_epilogue(queue, p.image, s, rest, const_cast<void*>(call.output));
}

// ---- Choosing

std::shared_ptr<Plan> plan_of(const Link& link, const ConvProblem& problem, bool has_bias,
                              cudnn::Descriptor descriptor) {
  const std::int64_t workspace = descriptor.integer(cudnn::kPlanWorkspace);
  if (workspace > kLargestWorkspace) throw cudnn::Error("the workspace is too large");
  return std::make_shared<Plan>(
      Plan{link, problem, std::move(descriptor), layout_of(problem, has_bias, workspace)});
}

cudnn::EngineRules rules_of(const Link& link, const ConvTask& task, const LibraryOptions& options) {
  return {options.tf32, options.deterministic, task.winograd,
          missing_compiler(*link.functions).empty()};
}

// Those of one graph.
void offer(const Link& link, const ConvTask& task, const ConvProblem& problem,
           const cudnn::EngineRules& rules, OfferLimit& limit, std::vector<Offer<Plan>>& offers) {
  const auto engines = std::make_shared<CudnnEngines>(link, problem, rules);
  try {
    const std::vector<cudnn::Candidate>& candidates = engines->of(0);
    for (std::size_t place = 0; place < candidates.size(); ++place) {
      const cudnn::EngineFacts& engine = candidates[place].engine;
      if (!limit.takes(engine.compiles())) continue;
      offers.push_back({[engines, place, index = engine.index, has_bias = task.bias](int thread) {
                          return engines->plan(place, index, has_bias, thread);
                        },
                        engine.compiles(), problem.measure != MeasureKind::kNothing});
    }
  } catch (const cudnn::Error&) {
    // No engine knows this graph.
  }
}

// Whether it is a product of two matrices, or what it can be rewritten to.
bool may_be_product(const ConvTask& task) {
  if (is_product(task)) return true;
  const std::vector<ConvRewrite> rewrites = rewrites_of(task);
  return std::any_of(rewrites.begin(), rewrites.end(),
                     [](const ConvRewrite& rewrite) { return is_product(rewrite.task); });
}

template <class OpType>
Choice choose(int device, const OpType& op, const Problem& problem) {
  if (library_options().rewrites == Rewrites::kOwn)
    return choose_library<OwnLibrary>(device, op, problem);
  const bool products = may_be_product(task_of(op, problem));
  if (problem.pinned == kProductLibrary<OpType>)
    return products ? choose_library<CublasLt>(device, op, problem)
                    : refuse("it is no product of two matrices");
  return products && problem.pinned.empty() ? choose_library<CudnnOrCublasLt>(device, op, problem)
                                            : choose_library<Cudnn>(device, op, problem);
}

}  // namespace

cudnn::Target target_of(const Link& link, int thread) {
  cudnn::Handle& handle = link.for_plans[static_cast<std::size_t>(thread)];
  if (handle == nullptr && link.functions->cudnnCreate(&handle) != 0) {
    handle = nullptr;
    throw cudnn::Error("cudnnCreate");
  }
  return {handle, nullptr};
}

ConvProblem plain_problem(const ConvTask& task) {
  ConvProblem problem;
  problem.direction = task.direction;
  problem.image = task.image;
  problem.shape = task.shape;
  problem.bottom = task.bottom;
  problem.right = task.right;
  return problem;
}

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

std::optional<ConvProblem> measuring_problem(const ConvTask& task) {
  const ConvShape& s = task.shape;
  ConvProblem problem = plain_problem(task);
  problem.measure = task.measure;
  if (s.groups != 1 || s.output_step != 0 || s.input_step != 0) return std::nullopt;
  if (measured_channels(problem) % (kVectorBytes / 4) != 0) return std::nullopt;
  const auto is_relu = [](const Curve& curve) { return curve.kind == CurveKind::kRelu; };
  const auto is_nothing = [](const Curve& curve) { return curve.kind == CurveKind::kIdentity; };
  switch (task.measure) {
    case MeasureKind::kNothing:
      return std::nullopt;
    case MeasureKind::kMoments:
      if (task.bias || task.residual || !is_nothing(task.curve)) return std::nullopt;
      return problem;
    case MeasureKind::kSums:
      if ((task.gate && !is_relu(task.curve)) ||
          (!is_relu(task.norm_curve) && !is_nothing(task.norm_curve)))
        return std::nullopt;
      problem.residual = task.residual;
      problem.gate = task.gate;
      problem.signs = task.signs;
      problem.norm_relu = is_relu(task.norm_curve);
      return problem;
  }
  return std::nullopt;
}

const std::vector<cudnn::Candidate>& CudnnEngines::of(int thread) {
  std::unique_ptr<Asked>& asked = asked_[static_cast<std::size_t>(thread)];
  if (asked == nullptr) {
    asked = std::make_unique<Asked>(*link_.functions, problem_, target_of(link_, thread));
    asked->candidates = asked->graph.candidates(rules_);
  }
  return asked->candidates;
}

std::shared_ptr<Plan> CudnnEngines::plan(std::size_t place, std::int64_t engine, bool has_bias,
                                         int thread) {
  try {
    const std::vector<cudnn::Candidate>& candidates = of(thread);
    if (place >= candidates.size() || candidates[place].engine.index != engine) return nullptr;
    return plan_of(link_, problem_, has_bias,
                   make_plan(*link_.functions, candidates[place], target_of(link_, thread)));
  } catch (const cudnn::Error&) {
    return nullptr;
  }
}

bool Cudnn::open(Link& link) {
  if (cudaGetDevice(&link.device) != cudaSuccess ||
      link.functions->cudnnCreate(&link.for_runs) != 0)
    return false;
  const std::lock_guard lock(links().mutex);
  links().list.push_back(&link);
  forget_streams = forget_streams_of;
  return true;
}

std::string Cudnn::left_out(const Link& link, const LibraryOptions& options) {
  const std::string& missing = missing_compiler(*link.functions);
  if (options.deterministic || missing.empty()) return {};
  const std::string text = "no engines that are compiled at run time: " + missing;
  return is_off(kNvrtcLibrary.variable) ? text : text + " (" + where_from(kNvrtcLibrary) + ")";
}

std::vector<std::string> Cudnn::missing(const Link& link, const LibraryOptions& options) {
  if (link.functions == nullptr) return missing_line(kCudnnLibrary, link.problem, link.is_loaded);
  const std::string& compiler = missing_compiler(*link.functions);
  if (options.deterministic || compiler.empty()) return {};
  return missing_line(kNvrtcLibrary, compiler);
}

std::string Cudnn::key(const Link& link, const ConvTask& task, const LibraryOptions& options) {
  const std::string key = "cudnn " + std::to_string(link.functions->cudnnGetVersion()) +
                          "; conv2d" + task_numbers(task, options.tf32);
  // What was fastest without a compiler is not kept for those who have one, nor what was before
  // engines measured.
  if (!missing_compiler(*link.functions).empty()) return key + "; not compiled";
  return measuring_problem(task) ? key + kMeasuredMark : key;
}

std::vector<Offer<Plan>> Cudnn::offers(const Link& link, const ConvTask& task,
                                       const LibraryOptions& options) {
  const ConvProblem plain = plain_problem(task), joined = joined_problem(task);
  std::vector<ConvProblem> problems;
  if (joined.bias) problems.push_back(joined);
  // What comes behind a plan takes images whose pixels follow one another.
  const bool ends_plain = !task.bias && !task.residual && task.curve.kind == CurveKind::kIdentity;
  if (ends_plain || task.shape.output_step == 0) problems.push_back(plain);
  std::vector<Offer<Plan>> offers;
  OfferLimit limit(task.shape.output_step != 0);
  for (const ConvProblem& problem : problems) {
    limit.begin_graph();
    offer(link, task, problem, rules_of(link, task, options), limit, offers);
  }
  // They are few together: a promise that costs speed is asked for once.
  if (std::optional<ConvProblem> measuring = measuring_problem(task)) {
    OfferLimit few(false);
    const cudnn::EngineRules rules = rules_of(link, task, options);
    few.begin_graph(kMostCompiled - 1);
    offer(link, task, *measuring, rules, few, offers);
    measuring->repeatable = true;
    few.begin_graph(1);
    offer(link, task, *measuring, rules, few, offers);
    if (!std::exchange(measuring->signs, false)) return offers;
    // As bits of theirs they may be slow, or refused.
    measuring->repeatable = false;
    few.begin_graph(1);
    offer(link, task, *measuring, rules, few, offers);
  }
  return offers;
}

std::string Cudnn::text(const Plan& plan) {
  try {
    const bool signs = plan.problem.signs;
    const char* const measured = plan.zeroes ? (signs ? "Z" : "z") : signs ? "M" : "m";
    const char* const kind = measures(plan) ? measured : plan.problem.bias ? "+" : "-";
    return kind + plan.plan.text(cudnn::kPlanJson);
  } catch (const cudnn::Error&) {
    return {};
  }
}
std::shared_ptr<Plan> Cudnn::read(const Link& link, const ConvTask& task, const LibraryOptions&,
                                  const std::string& text) {
  const char kind = text.empty() ? ' ' : text.front();
  std::optional<ConvProblem> problem;
  if (kind == '+') problem = joined_problem(task);
  if (kind == '-') problem = plain_problem(task);
  const bool zeroes = kind == 'z' || kind == 'Z', signs = kind == 'M' || kind == 'Z';
  if (kind == 'm' || zeroes || signs) problem = measuring_problem(task);
  if (!problem || (signs && !problem->signs)) return nullptr;
  problem->signs = signs;
  try {
    auto plan = plan_of(link, *problem, task.bias,
                        read_plan(*link.functions, text.substr(1), target_of(link, 0)));
    plan->zeroes = zeroes;
    return plan;
  } catch (const cudnn::Error&) {
    return nullptr;
  }
}

void Cudnn::run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch) {
  run_plan(queue, plan, call, scratch);
}

void Cudnn::forget_stream(const Link& link) { forget_stream_of(link); }

Choice select_library(int device, const ops::Conv2d& op, const Problem& problem) {
  return choose(device, op, problem);
}
Choice select_library(int device, const ops::Conv2dGradInput& op, const Problem& problem) {
  return choose(device, op, problem);
}
Choice select_library(int device, const ops::Conv2dGradWeight& op, const Problem& problem) {
  return choose(device, op, problem);
}

}  // namespace pycnn::cuda
