#include "backends/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "backends/cpu/bfloat16_pieces.h"
#include "backends/cpu/broadcast_plan.h"
#include "backends/cpu/pixel_runs.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "backends/cpu/widened.h"
#include "core/half.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// Rows shorter than this are repeated into a pattern of about kPattern floats, so that a channel
// vector of 6 is added in long strides.
constexpr std::int64_t kShortRow = 128;
constexpr std::int64_t kPattern = 512;

const BroadcastPlan& plan_of(const KernelArgs& args) noexcept {
  return *reinterpret_cast<const BroadcastPlan*>(args.plan);
}

template <class T>
T apply(const ops::Add&, T a, T b) {
  return a + b;
}
template <class T>
T apply(const ops::Subtract&, T a, T b) {
  return a - b;
}
template <class T>
T apply(const ops::Multiply&, T a, T b) {
  return a * b;
}
template <class T>
T apply(const ops::Binary& op, T a, T b) {
  switch (op.kind) {
    case BinaryKind::kDivide:
      return a / b;
    case BinaryKind::kMaximum:
      return a > b || a != a ? a : b;
    case BinaryKind::kMinimum:
      return a < b || a != a ? a : b;
    case BinaryKind::kPower:
      return std::pow(a, b);
    case BinaryKind::kPrelu:
      return a > T(0) ? a : b * a;
    case BinaryKind::kPreluSlope:
      return a > T(0) ? T(1) : b;
    case BinaryKind::kEqual:
      return a == b ? T(1) : T(0);
    case BinaryKind::kStep:
      return a > b ? T(1) : a == b ? T(0.5) : T(0);
  }
  return a;
}

// The vector functions of an op.
const BinaryFunctions& functions_of(const ElementwiseFunctions& functions, const ops::Add&) {
  return functions.add;
}
const BinaryFunctions& functions_of(const ElementwiseFunctions& functions, const ops::Subtract&) {
  return functions.subtract;
}
const BinaryFunctions& functions_of(const ElementwiseFunctions& functions, const ops::Multiply&) {
  return functions.multiply;
}
const BinaryFunctions& functions_of(const ElementwiseFunctions& functions, const ops::Binary& op) {
  return functions.binary[static_cast<std::size_t>(op.kind)];
}

// Its loop over two arrays of bfloat16, if it has one of its own.
template <class OpType>
auto bfloat16_arrays_of(const ElementwiseFunctions& functions) noexcept {
  constexpr int kIndex = std::is_same_v<OpType, ops::Add>        ? 0
                         : std::is_same_v<OpType, ops::Subtract> ? 1
                         : std::is_same_v<OpType, ops::Multiply> ? 2
                                                                 : -1;
  return kIndex < 0 ? nullptr : functions.bfloat16_arrays[std::max(kIndex, 0)];
}

template <class OpType>
void reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<OpType>(args);
  const BroadcastPlan& plan = plan_of(args);
  with_float(args.outputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* a = args.inputs[0].as<const T>();
    const T* b = args.inputs[1].as<const T>();
    T* output = args.outputs[0].as<T>();
    auto segment = [&](std::int64_t at, const std::int64_t* from, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i)
        output[at + i] =
            apply(op, a[from[0] + i * plan.inner_stride(0)], b[from[1] + i * plan.inner_stride(1)]);
    };
    parallel_ranges(
        args.threads, plan.count, kElementGrain,
        [&](std::int64_t begin, std::int64_t end) { for_each_segment(plan, begin, end, segment); });
  });
}

// One input is a single short row, the other has many.
void run_short_rows(const KernelArgs& args, const BroadcastPlan& plan, int repeated,
                    const BinaryFunctions& functions) noexcept {
  const std::int64_t inner = plan.inner();
  const std::int64_t rows_per_pattern = kPattern / inner;
  const std::int64_t block = rows_per_pattern * inner;
  const auto* row = args.inputs[static_cast<std::size_t>(repeated)].as<const float>();
  const auto* other = args.inputs[static_cast<std::size_t>(1 - repeated)].as<const float>();
  auto* output = args.outputs[0].as<float>();
  parallel_ranges(args.threads, plan.count, kElementGrain / block * block,
                  [&](std::int64_t begin, std::int64_t end) {
                    float pattern[kPattern];
                    for (std::int64_t r = 0; r < rows_per_pattern; ++r)
                      std::copy_n(row, inner, pattern + r * inner);
                    for (std::int64_t at = begin; at < end; at += block) {
                      const std::int64_t n = std::min(block, end - at);
                      if (repeated == 1)
                        functions.arrays(other + at, pattern, output + at, n);
                      else
                        functions.arrays(pattern, other + at, output + at, n);
                    }
                  });
}

bool is_apart(const KernelArgs& args) noexcept {
  return args.inputs[0].pixel_pitch != 0 || args.inputs[1].pixel_pitch != 0 ||
         args.outputs[0].pixel_pitch != 0;
}

template <const ElementwiseFunctions& Functions, class OpType>
void run_vector(const KernelArgs& args) noexcept {
  const BinaryFunctions& functions = functions_of(Functions, op_of<OpType>(args));
  if (is_apart(args)) {
    const auto* const a = args.inputs[0].as<const float>();
    const auto* const b = args.inputs[1].as<const float>();
    auto* const output = args.outputs[0].as<float>();
    return parallel_runs(args.threads, {&args.inputs[0], &args.inputs[1], &args.outputs[0]},
                         [&](const std::int64_t* at, std::int64_t n) {
                           functions.arrays(a + at[0], b + at[1], output + at[2], n);
                         });
  }
  const BroadcastPlan& plan = plan_of(args);
  if (plan.rank == 2 && plan.inner() < kShortRow && plan.inner_stride(0) == 1 &&
      plan.inner_stride(1) == 1) {
    if (plan.stride[1][0] == 0) return run_short_rows(args, plan, 1, functions);
    if (plan.stride[0][0] == 0) return run_short_rows(args, plan, 0, functions);
  }
  const auto* a = args.inputs[0].as<const float>();
  const auto* b = args.inputs[1].as<const float>();
  auto* output = args.outputs[0].as<float>();
  // An output of one element has no axis left: both inner strides are 0.
  const bool a_varies = plan.inner_stride(0) != 0, b_varies = plan.inner_stride(1) != 0;
  auto segment = [&](std::int64_t at, const std::int64_t* from, std::int64_t n) {
    if (a_varies && b_varies)
      functions.arrays(a + from[0], b + from[1], output + at, n);
    else if (a_varies)
      functions.array_scalar(a + from[0], b[from[1]], output + at, n);
    else
      functions.scalar_array(a[from[0]], b + from[1], output + at, n);
  };
  parallel_ranges(
      args.threads, plan.count, kElementGrain,
      [&](std::int64_t begin, std::int64_t end) { for_each_segment(plan, begin, end, segment); });
}

// Inputs that do not vary along the innermost axis are single values.
template <const ElementwiseFunctions& Functions, class OpType>
void run_bfloat16(const KernelArgs& args) noexcept {
  const BinaryFunctions& functions = functions_of(Functions, op_of<OpType>(args));
  const ConvertFunctions& convert = *Functions.convert;
  const auto arrays = bfloat16_arrays_of<OpType>(Functions);
  const BroadcastPlan& plan = plan_of(args);
  const auto* a = args.inputs[0].as<const BFloat16>();
  const auto* b = args.inputs[1].as<const BFloat16>();
  auto* output = args.outputs[0].as<BFloat16>();
  const bool a_varies = plan.inner_stride(0) != 0, b_varies = plan.inner_stride(1) != 0;
  auto segment = [&](std::int64_t at, const std::int64_t* from, std::int64_t n) {
    const BFloat16 *first = a + from[0], *second = b + from[1];
    if (a_varies && b_varies && arrays != nullptr) {
      arrays(first, second, output + at, n);
    } else if (a_varies && b_varies) {
      in_pieces(
          convert, first, second, output + at, n,
          [&](float* x, const float* y, std::int64_t count) { functions.arrays(x, y, x, count); });
    } else if (a_varies) {
      const float y = float_from_bfloat16(second->bits);
      in_pieces(convert, first, output + at, n, [&](float* x, std::int64_t, std::int64_t count) {
        functions.array_scalar(x, y, x, count);
      });
    } else if (b_varies) {
      const float x = float_from_bfloat16(first->bits);
      in_pieces(convert, second, output + at, n, [&](float* y, std::int64_t, std::int64_t count) {
        functions.scalar_array(x, y, y, count);
      });
    } else {
      const float x = float_from_bfloat16(first->bits), y = float_from_bfloat16(second->bits);
      float sum;
      functions.arrays(&x, &y, &sum, 1);
      std::fill_n(output + at, n, BFloat16{bfloat16_from_float(sum)});
    }
  };
  parallel_ranges(
      args.threads, plan.count, kElementGrain,
      [&](std::int64_t begin, std::int64_t end) { for_each_segment(plan, begin, end, segment); });
}

template <const ElementwiseFunctions& Functions>
void run_affine_bfloat16(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Affine>(args);
  const auto scale = static_cast<float>(op.scale), offset = static_cast<float>(op.offset);
  const auto* input = args.inputs[0].as<const BFloat16>();
  auto* output = args.outputs[0].as<BFloat16>();
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [=](std::int64_t begin, std::int64_t end) {
                    in_pieces(*Functions.convert, input + begin, output + begin, end - begin,
                              [=](float* values, std::int64_t, std::int64_t n) {
                                Functions.affine(values, scale, offset, values, n);
                              });
                  });
}

template <const ElementwiseFunctions& Functions>
void run_affine(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Affine>(args);
  const auto scale = static_cast<float>(op.scale), offset = static_cast<float>(op.offset);
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                  [=](std::int64_t begin, std::int64_t end) {
                    Functions.affine(input + begin, scale, offset, output + begin, end - begin);
                  });
}

void affine_reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Affine>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T scale = static_cast<T>(op.scale), offset = static_cast<T>(op.offset);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                    [=](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i)
                        output[i] = scale * input[i] + offset;
                    });
  });
}

Kernel make_binary_kernel(KernelFunction run, const Problem& problem) {
  Kernel kernel;
  kernel.run = run;
  kernel.plan = to_bytes(plan_broadcast(problem.outputs[0].shape, problem.inputs));
  std::uint32_t in_place = 0;
  for (std::size_t i = 0; i < 2; ++i)
    if (problem.inputs[i] == problem.outputs[0]) in_place |= 1u << i;
  kernel.in_place = {in_place};
  return kernel;
}

// Of inputs that have the output's shape, pixels may lie apart.
template <const ElementwiseFunctions& Functions, class OpType>
Kernel make_binary(const OpType&, const Problem& problem) {
  if (has_bfloat16(problem)) return make_binary_kernel(run_bfloat16<Functions, OpType>, problem);
  Kernel kernel = make_binary_kernel(run_vector<Functions, OpType>, problem);
  if (kernel.in_place[0] == 0b11) kernel.strided_inputs = 0b11, kernel.strided_outputs = 1;
  return kernel;
}
template <class OpType>
Kernel make_reference(const OpType&, const Problem& problem) {
  return make_binary_kernel(reference<OpType>, problem);
}

Kernel make_affine_kernel(KernelFunction run) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = {0b1};
  return kernel;
}
template <const ElementwiseFunctions& Functions>
Kernel make_affine(const ops::Affine&, const Problem& problem) {
  return make_affine_kernel(has_bfloat16(problem) ? run_affine_bfloat16<Functions>
                                                  : run_affine<Functions>);
}
Kernel make_affine_reference(const ops::Affine&, const Problem&) {
  return make_affine_kernel(affine_reference);
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::Add, "add", accept_float32, make_binary, kElementwise, make_reference,
                      Images::kAny)
PYCNN_DEFINE_VARIANTS(ops::Subtract, "subtract", accept_float32, make_binary, kElementwise,
                      make_reference, Images::kAny)
PYCNN_DEFINE_VARIANTS(ops::Multiply, "multiply", accept_float32, make_binary, kElementwise,
                      make_reference, Images::kAny)
PYCNN_DEFINE_VARIANTS(ops::Binary, "binary", accept_float32, make_binary, kElementwise,
                      make_reference, Images::kAny)
PYCNN_DEFINE_VARIANTS(ops::Affine, "affine", accept_float32, make_affine, kElementwise,
                      make_affine_reference, Images::kAny)

}  // namespace pycnn::cpu
