#pragma once
#include <cstdint>

// Contract of loss.isa.cpp.
namespace pycnn::cpu {

// Some rows of a softmax cross-entropy with n classes. Exactly one of labels64, labels32 and
// targets is set; targets lie like the logits.
struct CrossEntropyRows {
  const float* logits;
  const std::int64_t* labels64;
  const std::int32_t* labels32;
  const float* targets;
  std::int64_t rows;
  std::int64_t n;
  double smoothing;
  float grad_scale;  // of the gradient: grad_loss / batch
  float* grad;       // of the gradient: may be the logits
};

struct LossFunctions {
  // Sum of the rows' losses, in row order. A label outside [0, n) makes it NaN.
  double (*cross_entropy)(const CrossEntropyRows& rows);
  // A label outside [0, n) makes its row NaN.
  void (*cross_entropy_grad)(const CrossEntropyRows& rows);
  // Sum of (a - b)^2.
  double (*squared_error)(const float* a, const float* b, std::int64_t n);
  // grad = (a - b) * scale; grad may be a or b.
  void (*squared_error_grad)(const float* a, const float* b, float scale, float* grad,
                             std::int64_t n);
};

namespace baseline {
extern const LossFunctions kLoss;
}
namespace avx2 {
extern const LossFunctions kLoss;
}
namespace avx512 {
extern const LossFunctions kLoss;
}

}  // namespace pycnn::cpu
