#pragma once
#include <cstdint>

#include "backends/cpu/convert.h"

namespace pycnn {
enum class ActivationKind : std::uint8_t;  // ops.h has more than .isa.cpp files may see
}

// Contract of activation.isa.cpp: unaligned arrays of n floats; results may lie on either input.
namespace pycnn::cpu {

struct ActivationFunctions {
  using Forward = void (*)(const float* input, float* output, std::int64_t n, float slope);
  using Gradient = void (*)(const float* output, const float* grad_output, float* grad_input,
                            std::int64_t n, float slope);
  Forward relu, relu6, leaky_relu, sigmoid, tanh, scaled_tanh;
  Gradient relu_grad, relu6_grad, leaky_relu_grad, sigmoid_grad, tanh_grad, scaled_tanh_grad;
  // Of bfloat16, where nothing needs rounding.
  void (*bfloat16_relu)(const BFloat16* input, BFloat16* output, std::int64_t n);
  void (*bfloat16_relu_grad)(const BFloat16* output, const BFloat16* grad_output,
                             BFloat16* grad_input, std::int64_t n);
  const ConvertFunctions* convert;
};

// The function of a kind; null for the identity.
ActivationFunctions::Forward forward_of(const ActivationFunctions& functions,
                                        ActivationKind kind) noexcept;

namespace baseline {
extern const ActivationFunctions kActivation;
}
namespace avx2 {
extern const ActivationFunctions kActivation;
}
namespace avx512 {
extern const ActivationFunctions kActivation;
}

}  // namespace pycnn::cpu
