#include "backends/cpu/activation.h"

#include <cstring>

#include "backends/cpu/activation_reference.h"
#include "backends/cpu/bfloat16_pieces.h"
#include "backends/cpu/pixel_runs.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "backends/cpu/widened.h"
#include "core/parallel.h"

namespace pycnn::cpu {

ActivationFunctions::Forward forward_of(const ActivationFunctions& functions,
                                        ActivationKind kind) noexcept {
  switch (kind) {
    case ActivationKind::kIdentity:
      break;
    case ActivationKind::kRelu:
      return functions.relu;
    case ActivationKind::kRelu6:
      return functions.relu6;
    case ActivationKind::kLeakyRelu:
      return functions.leaky_relu;
    case ActivationKind::kSigmoid:
      return functions.sigmoid;
    case ActivationKind::kTanh:
      return functions.tanh;
    case ActivationKind::kScaledTanh:
      return functions.scaled_tanh;
  }
  return nullptr;
}

namespace {

void reference_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Activation>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i)
                        output[i] = activated(op.kind, input[i], static_cast<T>(op.slope));
                    });
  });
}

void reference_gradient(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::ActivationGrad>(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* output = args.inputs[0].as<const T>();
    const T* grad_output = args.inputs[1].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    const T slope = static_cast<T>(op.slope);
    parallel_ranges(args.threads, count_of(args.outputs[0]), kElementGrain,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; ++i)
                        grad_input[i] = passed_back(op.kind, output[i], grad_output[i], slope);
                    });
  });
}

// Null for the identity.
ActivationFunctions::Gradient gradient_of(const ActivationFunctions& functions,
                                          ActivationKind kind) noexcept {
  switch (kind) {
    case ActivationKind::kIdentity:
      break;
    case ActivationKind::kRelu:
      return functions.relu_grad;
    case ActivationKind::kRelu6:
      return functions.relu6_grad;
    case ActivationKind::kLeakyRelu:
      return functions.leaky_relu_grad;
    case ActivationKind::kSigmoid:
      return functions.sigmoid_grad;
    case ActivationKind::kTanh:
      return functions.tanh_grad;
    case ActivationKind::kScaledTanh:
      return functions.scaled_tanh_grad;
  }
  return nullptr;
}

template <const ActivationFunctions& Functions>
void vector_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Activation>(args);
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  const ActivationFunctions::Forward function = forward_of(Functions, op.kind);
  if (function == nullptr && input == output) return;
  const auto slope = static_cast<float>(op.slope);
  parallel_runs(args.threads, {&args.inputs[0], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t n) {
                  if (function != nullptr)
                    function(input + at[0], output + at[1], n, slope);
                  else
                    std::memcpy(output + at[1], input + at[0],
                                static_cast<std::size_t>(n) * sizeof(float));
                });
}

template <const ActivationFunctions& Functions>
void vector_gradient(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::ActivationGrad>(args);
  const auto* output = args.inputs[0].as<const float>();
  const auto* grad_output = args.inputs[1].as<const float>();
  auto* grad_input = args.outputs[0].as<float>();
  const ActivationFunctions::Gradient function = gradient_of(Functions, op.kind);
  if (function == nullptr && grad_output == grad_input) return;
  const auto slope = static_cast<float>(op.slope);
  parallel_runs(args.threads, {&args.inputs[0], &args.inputs[1], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t n) {
                  if (function != nullptr)
                    function(output + at[0], grad_output + at[1], grad_input + at[2], n, slope);
                  else
                    std::memcpy(grad_input + at[2], grad_output + at[1],
                                static_cast<std::size_t>(n) * sizeof(float));
                });
}

// These give zero, a bound, or what they were given.
Results results_of(ActivationKind kind) noexcept {
  const bool exact = kind == ActivationKind::kIdentity || kind == ActivationKind::kRelu ||
                     kind == ActivationKind::kRelu6;
  return exact ? Results::kExact : Results::kRounded;
}

template <const ActivationFunctions& Functions>
void bfloat16_forward(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::Activation>(args);
  const auto* input = args.inputs[0].as<const BFloat16>();
  auto* output = args.outputs[0].as<BFloat16>();
  const ActivationFunctions::Forward function = forward_of(Functions, op.kind);
  const auto slope = static_cast<float>(op.slope);
  const Results results = results_of(op.kind);
  parallel_runs(args.threads, {&args.inputs[0], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t count) {
                  if (op.kind == ActivationKind::kRelu)
                    return Functions.bfloat16_relu(input + at[0], output + at[1], count);
                  in_pieces(
                      *Functions.convert, input + at[0], output + at[1], count,
                      [=](float* values, std::int64_t, std::int64_t n) {
                        if (function != nullptr) function(values, values, n, slope);
                      },
                      results);
                });
}

template <const ActivationFunctions& Functions>
void bfloat16_gradient(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::ActivationGrad>(args);
  const auto* output = args.inputs[0].as<const BFloat16>();
  const auto* grad_output = args.inputs[1].as<const BFloat16>();
  auto* grad_input = args.outputs[0].as<BFloat16>();
  const ActivationFunctions::Gradient function = gradient_of(Functions, op.kind);
  const auto slope = static_cast<float>(op.slope);
  const Results results = results_of(op.kind);
  parallel_runs(args.threads, {&args.inputs[0], &args.inputs[1], &args.outputs[0]},
                [&](const std::int64_t* at, std::int64_t count) {
                  if (op.kind == ActivationKind::kRelu)
                    return Functions.bfloat16_relu_grad(output + at[0], grad_output + at[1],
                                                        grad_input + at[2], count);
                  in_pieces(
                      *Functions.convert, grad_output + at[1], output + at[0], grad_input + at[2],
                      count,
                      [=](float* grad, const float* y, std::int64_t n) {
                        if (function != nullptr) function(y, grad, grad, n, slope);
                      },
                      results);
                });
}

Kernel make_kernel(KernelFunction run, std::uint32_t in_place) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = {in_place};
  return kernel;
}

Kernel strided(Kernel kernel, std::uint32_t inputs) {
  kernel.strided_inputs = inputs;
  kernel.strided_outputs = 1;
  return kernel;
}

template <const ActivationFunctions& Functions>
Kernel make_forward(const ops::Activation&, const Problem& problem) {
  const auto run = has_bfloat16(problem) ? bfloat16_forward<Functions> : vector_forward<Functions>;
  return strided(make_kernel(run, 0b1), 0b1);
}
Kernel make_forward_reference(const ops::Activation&, const Problem&) {
  return make_kernel(reference_forward, 0b1);
}
template <const ActivationFunctions& Functions>
Kernel make_gradient(const ops::ActivationGrad&, const Problem& problem) {
  const auto run =
      has_bfloat16(problem) ? bfloat16_gradient<Functions> : vector_gradient<Functions>;
  return strided(make_kernel(run, 0b11), 0b11);
}
Kernel make_gradient_reference(const ops::ActivationGrad&, const Problem&) {
  return make_kernel(reference_gradient, 0b11);
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::Activation, "activation", accept_float32, make_forward, kActivation,
                      make_forward_reference, Images::kAny)
PYCNN_DEFINE_VARIANTS(ops::ActivationGrad, "activation_grad", accept_float32, make_gradient,
                      kActivation, make_gradient_reference, Images::kAny)

}  // namespace pycnn::cpu
