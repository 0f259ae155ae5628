#pragma once
#include "backends/backend.h"
#include "backends/cpu/batch_norm.h"
#include "core/ceil_div.h"

// A batch norm whose result a convolution reads first (BatchNormApply), or whose gradient the
// gradient of a convolution's input does, done by that kernel: it has some pixels of the result
// made just before it reads them, while it multiplies others. The result is stored where it would
// be anyway, for others who read it, and has the same bits.
//
// The kernel then finds the batch norm's first input in place of its own, the others behind all of
// its own inputs, and the batch norm's outputs behind its own.
namespace pycnn::cpu {

// Part of the plans of kernels.
struct NormInputPlan {
  enum : std::int64_t { kNothing, kApply, kGrad };
  std::int64_t kind = kNothing;
  std::int64_t channels = 0;
  std::int64_t inputs = 0, outputs = 0;  // of the kernel itself
  std::int64_t second = -1;  // the batch norm's input of the result's shape beside the first, or -1
  std::int64_t gated = 0;    // a gradient that comes back through an activation
  std::int64_t residual_norm = -1;  // the first of the three inputs of the residual's norm, or -1
  std::int64_t offset = 0;          // of the coefficients in the kernel's scratch, bytes
  std::int64_t activation = 0;      // ActivationKind
  double slope = 0;

  bool wanted() const { return kind != kNothing; }
  // Whether the batch norm can be made some pixels at a time: the plan and `kernel` are changed so,
  // which has `own_inputs` and `own_outputs`. Of gradients only those whose sums are known.
  // Without memory it throws and leaves the kernel as it was.
  bool take(Kernel& kernel, const Neighbour& norm, std::size_t own_inputs, std::size_t own_outputs);
};

// Of one run of a kernel.
class NormInput {
 public:
  NormInput(const NormInputPlan& plan, const KernelArgs& args,
            const BatchNormFunctions<float>& functions) noexcept;

  // What the kernel itself reads and writes. Its input is what is made.
  KernelArgs own() const noexcept;
  const float* made() const noexcept { return made_; }
  // Makes pixels that follow one another, all images counted.
  void make(std::int64_t pixel, std::int64_t count) const noexcept;
  // What that reads; `second` may be null.
  const float* first() const noexcept { return first_; }
  const float* second() const noexcept { return second_; }

 private:
  const float* channel(std::size_t input) const noexcept {
    return args_.inputs[input].as<const float>();
  }

  const NormInputPlan& plan_;
  const KernelArgs& args_;
  const BatchNormFunctions<float>& functions_;
  const float* first_ = nullptr;
  const float* second_ = nullptr;
  float* made_ = nullptr;
  const float* mean_ = nullptr;
  const float* factors_[3] = {};  // of an apply: factor, offset; of a gradient: a, b, c
  ColumnNorm residual_norm_{};
  bool has_rectifier_ = false;
  Gate gate_{};
};

}  // namespace pycnn::cpu
