#pragma once
#include <cstddef>
#include <optional>

#include "backends/backend.h"
#include "backends/cpu/batch_norm.h"
#include "core/ceil_div.h"

// What a convolution tells batch norms of its result (Epilogue::moments, Conv2dGradInput::sums),
// taken of each part as soon as it is stored, while a cache near the core has it. A part is some
// pixels; its borders depend on the shapes alone. What the parts give is joined in their order in
// the end, so that the thread count does not show.
namespace pycnn::cpu {

enum class MeasureKind : std::int64_t { kNothing, kMoments, kSums };

// Of the batch norm whose gradient the sums are for, behind all other inputs of a convolution.
constexpr std::size_t kMeasuredNormInputs = 4;

// Whether a convolution measures such a result cheaper than a pass of its own. Few channels do not
// fill the vectors in which rows are summed up, where such a pass takes several pixels for one row.
inline bool worth_measuring(const TensorSpec& result) {
  constexpr std::int64_t kLeastChannels = 64;
  const bool has_kernels = result.dtype == DType::kFloat32 || result.dtype == DType::kBFloat16;
  return has_kernels && result.shape.back() >= kLeastChannels;
}

// None for the identity. (Behind a batch norm no other activations are fused than those of straight
// pieces.)
std::optional<Rectifier> rectifier_of(ActivationKind kind, double slope) noexcept;

// Part of the plans of kernels, which say how many parts there are.
struct MeasurePlan {
  MeasureKind kind = MeasureKind::kNothing;
  std::int64_t parts = 0, channels = 0;
  std::int64_t offset = 0;  // of the partial results in the kernel's scratch, bytes

  // Takes its place behind the scratch of `kernel`, whose result this is.
  void reserve(Kernel& kernel);
  // Floats of a part. Of moments: pivots, distances of the means from them, sums of squares around
  // the means; of sums: the two of them. In the end the number of its pixels.
  std::int64_t numbers() const { return kind == MeasureKind::kSums ? 2 : 3; }
  std::int64_t part_floats() const {
    return ceil_div(numbers() * channels + 1, std::int64_t{16}) * 16;
  }
  // Of all parts.
  std::int64_t floats() const { return kind == MeasureKind::kNothing ? 0 : parts * part_floats(); }
};

// For results of one type.
struct MeasureFunctions {
  constexpr MeasureFunctions(const BatchNormFunctions<float>* functions) : of_float(functions) {}
  constexpr MeasureFunctions(const BatchNormFunctions<BFloat16>* functions)
      : of_bfloat16(functions) {}

  const BatchNormFunctions<float>* of_float = nullptr;
  const BatchNormFunctions<BFloat16>* of_bfloat16 = nullptr;
};

// Of one run of a kernel.
class Measure {
 public:
  Measure(const MeasurePlan& plan, const KernelArgs& args, const MeasureFunctions& functions);

  bool wanted() const { return plan_.kind != MeasureKind::kNothing; }
  // What sums of float32 read beside the result: the batch norm's input, of as many pixels and
  // channels. Otherwise null.
  const float* norm_input() const {
    if (plan_.kind != MeasureKind::kSums) return nullptr;
    return args_.inputs.last(kMeasuredNormInputs).front().as<const float>();
  }
  // Once all parts are there.
  void finish() const;

 private:
  friend class MeasuredPart;
  float* partial(std::int64_t part) const {
    return reinterpret_cast<float*>(args_.scratch + plan_.offset) + part * plan_.part_floats();
  }
  std::int64_t pixels_of(std::int64_t part) const {
    return static_cast<std::int64_t>(partial(part)[plan_.numbers() * plan_.channels]);
  }
  template <class T>
  void take(const BatchNormFunctions<T>& functions, std::int64_t pixel, const MoreRows& rows,
            std::int64_t first_channel, float* partial) const;
  void take(std::int64_t pixel, const MoreRows& rows, std::int64_t first_channel,
            float* partial) const;
  void finish_moments() const;
  void finish_sums() const;

  const MeasurePlan& plan_;
  const KernelArgs& args_;
  MeasureFunctions functions_;
  std::optional<Rectifier> rectifier_;  // of sums
};

// Some channels of a part, by whoever stored them.
class MeasuredPart {
 public:
  MeasuredPart(const Measure& measure, std::int64_t part, std::int64_t first_channel,
               std::int64_t channels)
      : measure_(measure),
        partial_(measure.partial(part)),
        first_channel_(first_channel),
        channels_(channels) {}
  ~MeasuredPart();
  MeasuredPart(const MeasuredPart&) = delete;
  MeasuredPart& operator=(const MeasuredPart&) = delete;

  // Pixels of the result that follow one another, all images counted.
  void add(std::int64_t pixel, std::int64_t count) {
    if (pixel != pixel_ + count_) take(), pixel_ = pixel;
    count_ += count;
  }

 private:
  void take();

  const Measure& measure_;
  float* partial_;
  std::int64_t first_channel_, channels_;
  std::int64_t pixel_ = 0, count_ = 0;  // not taken yet
  std::int64_t taken_ = 0;
};

}  // namespace pycnn::cpu
