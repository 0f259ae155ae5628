#include "backends/cuda/elementwise.h"

#include <bit>
#include <cmath>
#include <span>

#include "backends/cuda/glue.h"
#include "backends/cuda/move.h"
#include "core/half.h"

namespace pycnn::cuda {
namespace {

bool lie_apart(const KernelArgs& args) {
  for (const std::span<const TensorView> views : {args.inputs, args.outputs})
    for (const TensorView& view : views)
      if (view.pixel_pitch != 0) return true;
  return false;
}

// Of a kernel that declares `strided` for tensors of one shape.
PixelParts parts_of(const KernelArgs& args) {
  const TensorView &a = args.inputs[0], &output = args.outputs[0];
  PixelParts p{};
  p.a = a.data;
  p.output = output.data;
  p.pixels = rows_of(*output.spec);
  p.channels = channels_of(*output.spec);
  p.a_pitch = a.pitch();
  p.output_pitch = output.pitch();
  if (args.inputs.size() > 1) {
    p.b = args.inputs[1].data;
    p.b_pitch = args.inputs[1].pitch();
  }
  return p;
}

void run_activation(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Activation>(args);
  if (lie_apart(args))
    return activation_parts(queue_of(args), image_of(args.inputs[0]), parts_of(args),
                            curve_of(op.kind, op.slope));
  activation(queue_of(args), image_of(args.inputs[0]), args.inputs[0].data, args.outputs[0].data,
             curve_of(op.kind, op.slope), count_of(args.outputs[0]));
}

void run_activation_grad(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::ActivationGrad>(args);
  if (lie_apart(args))
    return activation_grad_parts(queue_of(args), image_of(args.inputs[0]), parts_of(args),
                                 curve_of(op.kind, op.slope));
  activation_grad(queue_of(args), image_of(args.inputs[0]), args.inputs[0].data,
                  args.inputs[1].data, args.outputs[0].data, curve_of(op.kind, op.slope),
                  count_of(args.outputs[0]));
}

// Steps of an input that is broadcast to `result`, aligned at the last axis.
void set_steps(const Shape& input, const Shape& result, std::int64_t (&step)[kMaxAxes]) {
  const std::size_t missing = result.size() - input.size();
  std::int64_t next = 1;
  for (std::size_t axis = result.size(); axis-- > 0;) {
    const std::int64_t size = axis < missing ? 1 : input[axis - missing];
    step[axis] = size == 1 ? 0 : next;
    next *= size;
  }
}

void run_pair(const KernelArgs& args, Pairing pairing) {
  const Shape& a = args.inputs[0].spec->shape;
  const Shape& b = args.inputs[1].spec->shape;
  const Shape& result = args.outputs[0].spec->shape;
  PairParams p{};
  p.pairing = pairing;
  p.a = args.inputs[0].data;
  p.b = args.inputs[1].data;
  p.output = args.outputs[0].data;
  p.count = count_of(args.outputs[0]);
  p.same_shape = a == b;
  p.axes = static_cast<int>(result.size());
  for (std::size_t axis = 0; axis < result.size(); ++axis) p.shape[axis] = result[axis];
  set_steps(a, result, p.a_step);
  set_steps(b, result, p.b_step);
  combine_pair(queue_of(args), image_of(args.outputs[0]), p);
}

template <Pairing kPairing>
void run_sum(const KernelArgs& args) noexcept {
  if (kPairing == Pairing::kAdd && lie_apart(args))
    return add_parts(queue_of(args), image_of(args.outputs[0]), parts_of(args));
  run_pair(args, kPairing);
}

constexpr Pairing pairing_of(BinaryKind kind) {
  return static_cast<Pairing>(static_cast<int>(Pairing::kDivide) + static_cast<int>(kind));
}
static_assert(pairing_of(BinaryKind::kDivide) == Pairing::kDivide &&
              pairing_of(BinaryKind::kPrelu) == Pairing::kPrelu &&
              pairing_of(BinaryKind::kStep) == Pairing::kStep);

void run_binary(const KernelArgs& args) noexcept {
  run_pair(args, pairing_of(op_of<ops::Binary>(args).kind));
}

void run_affine(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Affine>(args);
  affine(queue_of(args), image_of(args.inputs[0]), args.inputs[0].data, args.outputs[0].data,
         static_cast<float>(op.scale), static_cast<float>(op.offset), count_of(args.outputs[0]));
}

void run_cast(const KernelArgs& args) noexcept {
  if (lie_apart(args))
    return cast_parts(queue_of(args), image_of(args.inputs[0]), image_of(args.outputs[0]),
                      parts_of(args));
  cast(queue_of(args), image_of(args.inputs[0]), image_of(args.outputs[0]), args.inputs[0].data,
       args.outputs[0].data, count_of(args.outputs[0]));
}

std::uint64_t bits_of(double value, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return std::bit_cast<std::uint32_t>(static_cast<float>(value));
    case DType::kFloat64:
      return std::bit_cast<std::uint64_t>(value);
    case DType::kBFloat16:
      return bfloat16_from_float(static_cast<float>(value));
    case DType::kFloat16:
      return float16_from_float(static_cast<float>(value));
    case DType::kUInt8:
    case DType::kInt32:
    case DType::kInt64:
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
  }
  return 0;
}

void run_fill(const KernelArgs& args) noexcept {
  const TensorView& output = args.outputs[0];
  fill(queue_of(args), output.data, item_size(output.spec->dtype),
       bits_of(op_of<ops::Fill>(args).value, output.spec->dtype), count_of(output));
}

void run_dropout(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::DropoutTrain>(args);
  DropoutParams p{};
  p.input = args.inputs[0].data;
  p.seed = args.inputs[1].as<const std::int64_t>();
  p.step = args.inputs[2].as<const std::int64_t>();
  p.output = args.outputs[0].data;
  p.stream = static_cast<std::uint64_t>(op.stream);
  // k * 2^-24 >= p for whole k is k >= ceil(p * 2^24); the product is exact.
  p.threshold = static_cast<std::uint32_t>(std::ceil(op.p * 0x1p24));
  p.scale = static_cast<float>(1.0 / (1.0 - op.p));
  p.count = count_of(args.outputs[0]);
  if (lie_apart(args)) {
    PixelParts parts = parts_of(args);
    parts.b = nullptr;  // the seed
    return dropout_parts(queue_of(args), image_of(args.inputs[0]), p, parts);
  }
  dropout(queue_of(args), image_of(args.inputs[0]), p);
}

double value_of(const std::vector<double>& list, std::int64_t channel, double missing) {
  if (list.empty()) return missing;
  return list[list.size() == 1 ? 0 : static_cast<std::size_t>(channel)];
}

// One coefficient serves all channels where mean and deviation do.
std::int64_t pattern_of(const ops::NormalizeImage& op, const TensorSpec& spec) {
  return op.mean.size() > 1 || op.std.size() > 1 ? channels_of(spec) : 1;
}

float scale_of(const ops::NormalizeImage& op, std::int64_t channel) {
  return static_cast<float>(op.scale / value_of(op.std, channel, 1.0));
}
float offset_of(const ops::NormalizeImage& op, std::int64_t channel) {
  return static_cast<float>(-value_of(op.mean, channel, 0.0) / value_of(op.std, channel, 1.0));
}

// Of more channels than a kernel is given as numbers: all that they are multiplied by, then all
// that is added.
std::vector<std::byte> table_of(const ops::NormalizeImage& op, std::int64_t channels) {
  std::vector<float> table;
  for (std::int64_t c = 0; c < channels; ++c) table.push_back(scale_of(op, c));
  for (std::int64_t c = 0; c < channels; ++c) table.push_back(offset_of(op, c));
  return bytes_of(table);
}

void run_normalize(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::NormalizeImage>(args);
  NormalizeParams p{};
  p.input = args.inputs[0].data;
  p.bytes = args.inputs[0].spec->dtype == DType::kUInt8;
  p.output = args.outputs[0].data;
  p.count = count_of(args.outputs[0]);
  if (args.plan != nullptr) {
    p.table = reinterpret_cast<const float*>(args.plan);
    p.table_channels = channels_of(*args.outputs[0].spec);
  } else {
    p.factors = factors_of(op, *args.outputs[0].spec);
  }
  normalize_image(queue_of(args), image_of(args.outputs[0]), p);
}

// Stores of images are by their type. Once only: a second cast would undo the first's rounding.
bool rounds_result(Kernel&, const Op&, const Neighbour& neighbour) noexcept {
  return neighbour.is_reader && is_cast(neighbour) && neighbour.inputs[0].dtype == DType::kFloat32;
}

void run_increment(const KernelArgs& args) noexcept {
  increment(queue_of(args), args.inputs[0].as<const std::int64_t>(),
            args.outputs[0].as<std::int64_t>());
}

Choice select_pair(KernelFunction run, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  if (problem.outputs[0].shape.size() > kMaxAxes) return refuse("more than 8 axes");
  std::uint32_t in_place = 0;
  for (std::size_t i = 0; i < 2; ++i)
    if (problem.inputs[i] == problem.outputs[0]) in_place |= 1u << i;
  return {run, 0, {in_place}};
}

}  // namespace

bool lacks_factors(const ops::NormalizeImage& op, const TensorSpec& images) {
  return pattern_of(op, images) > kMaxImageChannels;
}

ImageFactors factors_of(const ops::NormalizeImage& op, const TensorSpec& images) {
  ImageFactors factors{};
  factors.channels = static_cast<int>(pattern_of(op, images));
  for (int c = 0; c < factors.channels; ++c) {
    factors.scale[c] = scale_of(op, c);
    factors.offset[c] = offset_of(op, c);
  }
  return factors;
}

Choice select(const ops::Activation& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  if (!has_curve(op.kind)) return refuse(kNoCurve);
  return strided({run_activation, 0, {1u << 0}}, 1, 1);
}

Choice select(const ops::ActivationGrad& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  if (!has_curve(op.kind)) return refuse(kNoCurve);
  return strided({run_activation_grad, 0, {1u << 0 | 1u << 1}}, 3, 1);
}

Choice select(const ops::Add&, const Problem& problem) {
  const bool alike = problem.inputs[0] == problem.inputs[1];
  return strided(select_pair(run_sum<Pairing::kAdd>, problem), alike ? 3 : 0, alike ? 1 : 0);
}
Choice select(const ops::Subtract&, const Problem& problem) {
  return select_pair(run_sum<Pairing::kSubtract>, problem);
}
Choice select(const ops::Multiply&, const Problem& problem) {
  return select_pair(run_sum<Pairing::kMultiply>, problem);
}
Choice select(const ops::Binary&, const Problem& problem) {
  return select_pair(run_binary, problem);
}

Choice select(const ops::Affine&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return {run_affine, 0, {1u << 0}};
}

Choice select(const ops::Cast&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return strided({run_cast}, 1, 1);
}

Choice select(const ops::Fill&, const Problem&) { return {run_fill}; }

Choice select(const ops::DropoutTrain&, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  return strided({run_dropout, 0, {1u << 0}}, 1, 1);
}

Choice select(const ops::NormalizeImage& op, const Problem& problem) {
  if (const char* const reason = unfit_type(problem)) return refuse(reason);
  const DType input = problem.inputs[0].dtype;
  if (input != DType::kUInt8 && input != DType::kFloat32)
    return refuse("images are neither uint8 nor float32");
  Choice choice{run_normalize};
  const TensorSpec& images = problem.outputs[0];
  if (lacks_factors(op, images)) choice.plan = table_of(op, channels_of(images));
  return absorbing(std::move(choice), problem, rounds_result);
}

Choice select(const ops::Increment&, const Problem&) { return {run_increment, 0, {1u << 0}}; }

}  // namespace pycnn::cuda
