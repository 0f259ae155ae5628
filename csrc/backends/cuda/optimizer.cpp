#include "backends/cuda/optimizer.h"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/cuda/glue.h"
#include "backends/cuda/squares.h"
#include "backends/cuda/total_scratch.h"

namespace pycnn::cuda {
namespace {

using Views = std::span<const TensorView>;

SgdParams params_of(const ops::SgdUpdate& op, Views inputs, Views outputs) {
  const bool has_velocity = inputs.size() > (op.clipped ? 4u : 3u);
  SgdParams p{};
  p.own.parameter = inputs[0].as<const float>();
  p.own.gradient = inputs[1].data;
  p.own.gradient_type = image_of(inputs[1]);
  p.own.velocity = has_velocity ? inputs[3].as<const float>() : nullptr;
  p.own.new_parameter = outputs[0].as<float>();
  p.own.new_velocity = has_velocity ? outputs[1].as<float>() : nullptr;
  p.own.rate_scale = static_cast<float>(op.rate_scale);
  p.own.weight_decay = static_cast<float>(op.weight_decay);
  p.own.count = count_of(outputs[0]);
  p.learning_rate = inputs[2].as<const float>();
  p.factor = op.clipped ? inputs.back().as<const float>() : nullptr;
  p.momentum = static_cast<float>(op.momentum);
  p.nesterov = op.nesterov;
  return p;
}

AdamParams params_of(const ops::AdamUpdate& op, Views inputs, Views outputs) {
  AdamParams p{};
  p.own.parameter = inputs[0].as<const float>();
  p.own.gradient = inputs[1].data;
  p.own.gradient_type = image_of(inputs[1]);
  p.own.mean = inputs[4].as<const float>();
  p.own.variance = inputs[5].as<const float>();
  p.own.new_parameter = outputs[0].as<float>();
  p.own.new_mean = outputs[1].as<float>();
  p.own.new_variance = outputs[2].as<float>();
  p.own.weight_decay = op.weight_decay;
  p.own.rate_scale = op.rate_scale;
  p.own.count = count_of(outputs[0]);
  p.learning_rate = inputs[2].as<const float>();
  p.step = inputs[3].as<const std::int64_t>();
  p.factor = op.clipped ? inputs.back().as<const float>() : nullptr;
  p.beta1 = op.beta1;
  p.beta2 = op.beta2;
  p.eps = op.eps;
  p.decoupled = op.decoupled;
  return p;
}

EmaParams params_of(const ops::EmaUpdate& op, Views inputs, Views outputs) {
  EmaParams p{};
  p.own.average = inputs[0].as<const float>();
  p.own.value = inputs[1].as<const float>();
  p.own.output = outputs[0].as<float>();
  p.own.count = count_of(outputs[0]);
  p.step = inputs[2].as<const std::int64_t>();
  p.decay = op.decay;
  return p;
}

bool round_alike(Image a, Image b) { return a == b || !is_narrow(a) || !is_narrow(b); }

// Whether all but what is a tensor's own is the same, so that one launch does.
bool are_alike(const SgdParams& a, const SgdParams& b) {
  return round_alike(a.rounds_to, b.rounds_to) && a.learning_rate == b.learning_rate &&
         a.factor == b.factor && a.momentum == b.momentum && a.nesterov == b.nesterov &&
         (a.own.velocity == nullptr) == (b.own.velocity == nullptr);
}
bool are_alike(const AdamParams& a, const AdamParams& b) {
  return round_alike(a.rounds_to, b.rounds_to) && a.learning_rate == b.learning_rate &&
         a.step == b.step && a.factor == b.factor && a.beta1 == b.beta1 && a.beta2 == b.beta2 &&
         a.eps == b.eps && a.decoupled == b.decoupled;
}
bool are_alike(const EmaParams& a, const EmaParams& b) {
  return a.step == b.step && a.decay == b.decay;
}

// Whether there is an update that rounds to 16 bits what it writes, too: into the last of its
// outputs.
template <class OpType>
constexpr bool kRounds = !std::is_same_v<OpType, ops::EmaUpdate>;

template <Image kRounded, class OpType>
auto rounding_params(const OpType& op, Views inputs, Views outputs) {
  auto params = params_of(op, inputs, outputs);
  if constexpr (kRounded != Image::kFloat32) {
    params.own.rounded = outputs.back().data;
    params.rounds_to = kRounded;
  }
  return params;
}

template <class OpType, auto update, Image kRounded = Image::kFloat32>
void run_update(const KernelArgs& args) noexcept {
  update(queue_of(args), rounding_params<kRounded>(op_of<OpType>(args), args.inputs, args.outputs));
}

// Lives in Kernel::state of joined updates. Roundings come behind all other outputs.
template <class OpType>
struct JoinedUpdates {
  std::vector<OpType> ops;
  std::vector<Image> rounded;  // kFloat32: not at all
  std::size_t roundings = 0;
};

template <class OpType, auto update_all>
void run_updates(const KernelArgs& args) noexcept {
  const auto& [ops, rounded, roundings] =
      *static_cast<const JoinedUpdates<OpType>*>(static_cast<const DeviceKernelArgs&>(args).state);
  const std::size_t ins = args.inputs.size() / ops.size();
  const std::size_t outs = (args.outputs.size() - roundings) / ops.size();
  std::size_t rounding = args.outputs.size() - roundings;
  using Params = decltype(params_of(ops[0], args.inputs, args.outputs));
  Params together[kMostTensors];
  int count = 0;
  const auto launch = [&] {
    if (count > 0) update_all(queue_of(args), together, count);
    count = 0;
  };
  for (std::size_t i = 0; i < ops.size(); ++i) {
    Params params =
        params_of(ops[i], args.inputs.subspan(i * ins, ins), args.outputs.subspan(i * outs, outs));
    if constexpr (kRounds<OpType>) {
      params.rounds_to = rounded[i];
      if (params.rounds_to != Image::kFloat32) params.own.rounded = args.outputs[rounding++].data;
    }
    if (params.own.count == 0) continue;
    if (count == kMostTensors || (count > 0 && !are_alike(together[0], params))) launch();
    together[count++] = params;
    // The first one's is that of all.
    if constexpr (kRounds<OpType>)
      if (together[0].rounds_to == Image::kFloat32) together[0].rounds_to = params.rounds_to;
  }
  launch();
}

// Of parameter and state.
std::vector<std::uint32_t> in_place_of(const ops::SgdUpdate&) { return {1u << 0, 1u << 3}; }
std::vector<std::uint32_t> in_place_of(const ops::AdamUpdate&) {
  return {1u << 0, 1u << 4, 1u << 5};
}
std::vector<std::uint32_t> in_place_of(const ops::EmaUpdate&) { return {1u << 0}; }

// The state of one that rounds tells to what.
template <class OpType, auto update_all>
Kernel join(std::span<const Joining> steps) noexcept {
  auto joined = std::make_shared<JoinedUpdates<OpType>>();
  for (const Joining& step : steps) {
    joined->ops.push_back(*std::get_if<OpType>(step.op));
    const bool rounds = step.kernel->state != nullptr;
    joined->rounded.push_back(rounds ? *static_cast<const Image*>(step.kernel->state.get())
                                     : Image::kFloat32);
    joined->roundings += rounds ? 1 : 0;
  }
  Kernel kernel;
  kernel.run = run_updates<OpType, update_all>;
  kernel.in_place = in_place_of(joined->ops[0]);
  kernel.state = std::move(joined);
  return kernel;
}

// Scratch: a sum for each gradient, then the pieces of all.
void run_clip(const KernelArgs& args) noexcept {
  auto* const totals = reinterpret_cast<double*>(args.scratch);
  double* pieces = totals + args.inputs.size();
  for (std::size_t first = 0; first < args.inputs.size(); first += kMostSquares) {
    Squares squares[kMostSquares];
    std::int64_t bytes = 0;
    const std::size_t count = std::min<std::size_t>(args.inputs.size() - first, kMostSquares);
    for (std::size_t i = 0; i < count; ++i) {
      const TensorView& gradient = args.inputs[first + i];
      squares[i] = {gradient.data, count_of(gradient), image_of(gradient)};
      bytes += total_scratch_bytes(count_of(gradient));
    }
    sums_of_squares(queue_of(args), squares, static_cast<int>(count), totals + first, pieces);
    pieces += bytes / static_cast<std::int64_t>(sizeof(double));
  }
  clip_factor(queue_of(args), totals, static_cast<int>(args.inputs.size()),
              op_of<ops::ClipFactor>(args).max_norm, args.outputs[0].as<float>(),
              args.outputs[1].as<float>());
}

void run_loss_scale(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::LossScale>(args);
  loss_scale(queue_of(args), {args.inputs[0].as<const float>(), args.inputs[1].as<const float>(),
                              args.inputs[2].as<const std::int64_t>(), args.outputs[0].as<float>(),
                              args.outputs[1].as<float>(), args.outputs[2].as<float>(),
                              args.outputs[3].as<std::int64_t>(), op.growth_interval, op.max_norm});
}

void run_commit(const KernelArgs& args) noexcept {
  const TensorView& output = args.outputs[0];
  commit(queue_of(args), item_size(output.spec->dtype), args.inputs[0].data, args.inputs[1].data,
         args.inputs[2].as<const float>(), output.data, count_of(output));
}

Choice take(KernelFunction run, const Problem& problem, std::vector<std::uint32_t> in_place) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  return {run, 0, std::move(in_place)};
}

// From here on a launch of its own is little beside the update's work, which may run beside other
// steps as soon as the gradient is there, and the gradient's memory is free again at once.
constexpr std::int64_t kLargeTensor = std::int64_t{1} << 20;

template <class OpType, auto update, Image kRounded>
void round_to(Kernel& kernel) {
  kernel.run = run_update<OpType, update, kRounded>;
  kernel.state = std::make_shared<Image>(kRounded);
  kernel.rounds = nullptr;
}
template <class OpType, auto update>
bool rounds(Kernel& kernel, DType dtype) noexcept {
  if (dtype == DType::kBFloat16)
    round_to<OpType, update, Image::kBFloat16>(kernel);
  else if (dtype == DType::kFloat16)
    round_to<OpType, update, Image::kFloat16>(kernel);
  return is_low_precision(dtype);
}

template <auto update, auto update_all, class OpType>
Choice take_update(const OpType& op, const Problem& problem) {
  Choice choice = take(run_update<OpType, update>, problem, in_place_of(op));
  if (problem.pinned.empty() && count_of(problem.outputs[0]) < kLargeTensor)
    choice.join = join<OpType, update_all>;
  if constexpr (kRounds<OpType>)
    if (problem.pinned.empty()) {
      choice.rounds = rounds<OpType, update>;
      choice.takes_narrow_gradient = true;
    }
  return choice;
}

}  // namespace

Choice select(const ops::SgdUpdate& op, const Problem& problem) {
  return take_update<sgd, sgd_of_all>(op, problem);
}
Choice select(const ops::AdamUpdate& op, const Problem& problem) {
  return take_update<adam, adam_of_all>(op, problem);
}
Choice select(const ops::EmaUpdate& op, const Problem& problem) {
  return take_update<ema, ema_of_all>(op, problem);
}

Choice select(const ops::LossScale&, const Problem& problem) {
  return take(run_loss_scale, problem, {0, 1u << 0, 1u << 1, 1u << 2});
}

Choice select(const ops::Commit&, const Problem& problem) {
  if (problem.inputs[2].dtype != DType::kFloat32) return refuse("the factor is not float32");
  return {run_commit, 0, {1u << 0 | 1u << 1}};
}

Choice select(const ops::ClipFactor&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem, true)) return refuse(reason);
  std::int64_t bytes = 0;
  for (const TensorSpec& spec : problem.inputs) bytes += total_scratch_bytes(count_of(spec));
  const auto sums = static_cast<std::int64_t>(problem.inputs.size() * sizeof(double));
  Choice choice{run_clip, scratch(sums + bytes)};
  choice.takes_narrow_gradient = problem.pinned.empty();
  return choice;
}

}  // namespace pycnn::cuda
