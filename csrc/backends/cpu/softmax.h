#pragma once
#include <cstdint>

// Contract of softmax.isa.cpp: matrices of `rows` rows and `columns` columns, row-major, unaligned.
// The result may lie on any input. A row that holds a NaN or +inf, or nothing but -inf, becomes
// NaN.
namespace pycnn::cpu {

struct SoftmaxFunctions {
  using Forward = void (*)(const float* input, float* output, std::int64_t rows,
                           std::int64_t columns);
  using Gradient = void (*)(const float* output, const float* grad_output, float* grad_input,
                            std::int64_t rows, std::int64_t columns);
  Forward softmax, log_softmax;
  Gradient softmax_grad, log_softmax_grad;
};

namespace baseline {
extern const SoftmaxFunctions kSoftmax;
}
namespace avx2 {
extern const SoftmaxFunctions kSoftmax;
}
namespace avx512 {
extern const SoftmaxFunctions kSoftmax;
}

}  // namespace pycnn::cpu
