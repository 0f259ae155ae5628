#pragma once
#include "backends/cuda/curve.h"
#include "backends/cuda/image_factors.h"
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Kernels that make each element of the result from those at its place. Results may lie on inputs.
namespace pycnn::cuda {

void activation(DeviceQueue& queue, Image image, const void* input, void* output, Curve curve,
                std::int64_t count);
void activation_grad(DeviceQueue& queue, Image image, const void* output, const void* grad_output,
                     void* grad_input, Curve curve, std::int64_t count);

// The same where pixels lie apart: `..._pitch` elements from one to the next.
struct PixelParts {
  const void* a;
  const void* b;  // null: none
  void* output;
  std::int64_t pixels, channels, a_pitch, b_pitch, output_pitch;
};
void activation_parts(DeviceQueue& queue, Image image, const PixelParts& parts, Curve curve);
void activation_grad_parts(DeviceQueue& queue, Image image, const PixelParts& parts, Curve curve);
void add_parts(DeviceQueue& queue, Image image, const PixelParts& parts);
void cast_parts(DeviceQueue& queue, Image from, Image to, const PixelParts& parts);

void affine(DeviceQueue& queue, Image image, const void* input, void* output, float scale,
            float offset, std::int64_t count);

enum class Pairing : std::uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  // BinaryKind, in its order:
  kDivide,
  kMaximum,
  kMinimum,
  kPower,
  kPrelu,
  kPreluSlope,
  kEqual,
  kStep,
};

// With broadcasting: elements of `a` and `b` from one place of an axis of the result to the next.
constexpr int kMaxAxes = 8;
struct PairParams {
  Pairing pairing;
  const void* a;
  const void* b;
  void* output;
  std::int64_t count;
  bool same_shape;
  int axes;
  std::int64_t shape[kMaxAxes];
  std::int64_t a_step[kMaxAxes];
  std::int64_t b_step[kMaxAxes];
};
void combine_pair(DeviceQueue& queue, Image image, const PairParams& params);

void cast(DeviceQueue& queue, Image from, Image to, const void* input, void* output,
          std::int64_t count);

struct DropoutParams {
  const void* input;
  const std::int64_t* seed;
  const std::int64_t* step;
  void* output;
  std::uint64_t stream;
  std::uint32_t threshold;  // of the high 24 bits of a word, at least which keep an element
  float scale;
  std::int64_t count;
};
void dropout(DeviceQueue& queue, Image image, const DropoutParams& params);
// Of `parts` the places; which elements are kept is that of tensors in one piece.
void dropout_parts(DeviceQueue& queue, Image image, const DropoutParams& params,
                   const PixelParts& parts);

struct NormalizeParams {
  const void* input;
  bool bytes;  // of uint8, else float32
  void* output;
  std::int64_t count;
  ImageFactors factors;
  // On the device, of more channels than `factors` has: what each is multiplied by and then what is
  // added to each. Null: `factors` are read.
  const float* table;
  std::int64_t table_channels;
};
void normalize_image(DeviceQueue& queue, Image output, const NormalizeParams& params);

// For timing: small numbers of either sign as any image type reads them, others for each seed.
void fill_timed(DeviceQueue& queue, void* output, std::int64_t bytes, std::uint64_t seed);

// Of `count` numbers, a multiple of 8 (numbers.h).
void write_signs(DeviceQueue& queue, Image image, const void* input, void* signs,
                 std::int64_t count);

void increment(DeviceQueue& queue, const std::int64_t* input, std::int64_t* output);

// grad_input = (input - target) * factor * *grad_loss
void squared_error_grad(DeviceQueue& queue, const float* input, const float* target,
                        const float* grad_loss, float factor, float* grad_input,
                        std::int64_t count);

}  // namespace pycnn::cuda
