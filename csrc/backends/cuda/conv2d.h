#pragma once
#include "backends/cuda/curve.h"
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Convolutions and their gradients as products of matrices that are never built (implicit GEMM,
// conv2d_tiles.h), for every stride, dilation and number of groups. A dense layer is one of 1x1
// images. Weights are float32 and, beside 16-bit images, rounded to their type when they are
// multiplied; sums are float32. Pixels of all images, and elements of one, are fewer than 2^31.
namespace pycnn::cuda {

struct ConvShape {
  int images, height, width, in_channels;   // input
  int out_height, out_width, out_channels;  // output
  int kernel_height, kernel_width;
  int stride_y, stride_x, top, left, dilation_y, dilation_x;
  int groups;
  // Elements from pixel to pixel where images are parts of larger ones; 0: they follow one another.
  int input_step, output_step, residual_step, gate_step;

  PYCNN_BOTH int input_pitch() const { return input_step != 0 ? input_step : in_channels; }
  PYCNN_BOTH int output_pitch() const { return output_step != 0 ? output_step : out_channels; }
  PYCNN_BOTH int residual_pitch() const {
    return residual_step != 0 ? residual_step : out_channels;
  }
  PYCNN_BOTH int in_group() const { return in_channels / groups; }
  PYCNN_BOTH int out_group() const { return out_channels / groups; }
  PYCNN_BOTH std::int64_t pixels() const { return std::int64_t{images} * out_height * out_width; }
  // Multiply-adds of one result.
  PYCNN_BOTH int taps() const { return kernel_height * kernel_width; }
  PYCNN_BOTH int window() const { return taps() * in_group(); }
  PYCNN_BOTH std::int64_t weights() const { return std::int64_t{out_channels} * window(); }
};

enum class Direction : std::uint8_t { kForward, kGradInput, kGradWeight };

// How products are computed. kTf32: float32 images by tensor cores, rounded to 10 bits of mantissa.
enum class Arithmetic : std::uint8_t { kFloat32, kTf32, kBFloat16, kFloat16 };
inline Image image_of(Arithmetic arithmetic) {
  if (arithmetic == Arithmetic::kFloat16) return Image::kFloat16;
  return arithmetic == Arithmetic::kBFloat16 ? Image::kBFloat16 : Image::kFloat32;
}
inline Arithmetic arithmetic_of(Image image, bool tf32) {
  if (image == Image::kFloat16) return Arithmetic::kFloat16;
  if (image == Image::kBFloat16) return Arithmetic::kBFloat16;
  return tf32 ? Arithmetic::kTf32 : Arithmetic::kFloat32;
}

// output = activate(sum + bias + residual), or where there is a gate, what comes back of the
// rounded sum through gate = activate(...)
struct ConvEpilogue {
  const float* bias;     // null: none
  const void* residual;  // null: none
  Curve curve;
  const void* gate = nullptr;
  // Of the gate, bit e % 8 of byte e / 8 (ops::BatchNormApply), which is read instead; null: not.
  const std::uint8_t* signs = nullptr;
};
// Whether `input` may be a part of a larger image (input_step).
bool conv2d_reads_parts(const ConvShape& shape);

// What a batch norm wants to know of a result, as it is stored (Epilogue::moments, NormSums).
enum class MeasureKind : std::uint8_t { kNothing, kMoments, kSums };
struct Measure {
  MeasureKind kind;
  // kSums: where the batch norm's input lies, and its vectors of channels; factor and offset are
  // for the curve.
  const void* normed;
  std::int64_t normed_pitch;  // elements from pixel to pixel
  const float* mean;
  const float* factor;
  const float* offset;
  Curve curve;
  float* result;  // (3, channels) or (2, channels)
};

// The weights as they are multiplied: made for many convolutions at a time, or by a launch of their
// own in front of each.
enum class PackForm : std::uint8_t {
  kForward,   // for our own kernel
  kBackward,  // for that of the input's gradient
  kRounded,   // for libraries: in place, of the images' type
};
struct ConvPacking {
  ConvShape shape;
  PackForm form;
  const float* weight;
  void* packed;
};
// 0: they are read as they lie.
std::int64_t conv2d_packed_bytes(Arithmetic arithmetic, const ConvShape& shape, PackForm form);
// Whether they are the weights as they are stored, each rounded to 16 bits.
bool conv2d_packing_rounds(Arithmetic arithmetic, const ConvShape& shape, PackForm form);
constexpr int kMostPackings = 48;  // what fits the parameters of a launch
void conv2d_pack(DeviceQueue& queue, Arithmetic arithmetic, const ConvPacking* packings, int count);

struct ConvWeights {
  const float* stored;
  const void* packed;  // null: scratch holds them, and behind them the sums of tiles
};
std::int64_t conv2d_scratch_bytes(Arithmetic arithmetic, const ConvShape& shape, MeasureKind kind,
                                  bool packed);
void conv2d(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape, const void* input,
            const ConvWeights& weights, const ConvEpilogue& epilogue, const Measure& measure,
            void* output, void* scratch);
// output = activate(output + bias + residual), for a sum that was computed elsewhere.
void conv2d_epilogue(DeviceQueue& queue, Image image, const ConvShape& shape,
                     const ConvEpilogue& epilogue, void* output);
// The same of a gradient for the input.
void conv2d_gradient_epilogue(DeviceQueue& queue, Image image, const ConvShape& shape,
                              const ConvEpilogue& epilogue, void* grad_input);
std::int64_t conv2d_grad_input_scratch_bytes(Arithmetic arithmetic, const ConvShape& shape,
                                             MeasureKind kind, bool packed);
void conv2d_grad_input(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                       const void* grad_output, const ConvWeights& weights,
                       const ConvEpilogue& epilogue, const Measure& measure, void* grad_input,
                       void* scratch);

// The pixels are summed in chunks that depend on the shape alone, and these in order.
std::int64_t conv2d_grad_weight_scratch_bytes(Arithmetic arithmetic, const ConvShape& shape,
                                              bool bias);
void conv2d_grad_weight(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                        const void* input, const void* grad_output, float* grad_weight,
                        float* grad_bias, void* scratch);
std::int64_t conv2d_grad_bias_scratch_bytes(const ConvShape& shape);
void conv2d_grad_bias(DeviceQueue& queue, Image image, const ConvShape& shape,
                      const void* grad_output, float* grad_bias, void* scratch);

}  // namespace pycnn::cuda
