// A thread has a vector of a pixel's channels and reads the vectors beside it for windows of the
// usual 5 channels; otherwise it has one channel and computes the denominators of all around it.
#include <cmath>

#include "backends/cuda/divider.h"
#include "backends/cuda/local_response_norm.h"
#include "backends/cuda/map.h"

namespace pycnn::cuda {
namespace {

// value^-beta. With the usual 0.75 by roots, a power would take ten times as long.
PYCNN_BOTH float inverse_power(float value, float beta) {
  if (beta == 0.75f) {
    const float root = 1.0f / sqrtf(value);
    return root * sqrtf(root);
  }
  return powf(value, -beta);
}

constexpr int kSide = 2;  // channels on each side of a window of 5

// Channels [c - kBeside, c + Width + kBeside) of a pixel, zeros beyond the image.
template <int Width>
struct Neighbours {
  static constexpr int kBeside = Width;
  float value[3 * Width];
  template <class T>
  PYCNN_BOTH Neighbours(const T* pixel, std::int64_t c, std::int64_t channels) {
    PYCNN_UNROLL
    for (int v = 0; v < 3; ++v) {
      const std::int64_t begin = c + (v - 1) * Width;
      float part[Width] = {};
      if (begin >= 0 && begin < channels) load(pixel + begin, Width, part);
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) value[v * Width + i] = part[i];
    }
  }
  // Of the channel `at` behind the first one of the vector.
  PYCNN_BOTH float operator[](int at) const { return value[kBeside + at]; }
};

// k + alpha / size * the sum of squares around a channel.
template <int Width>
PYCNN_BOTH float denominator(const ResponseNorm& norm, const Neighbours<Width>& x, int at) {
  float sum = 0.0f;
  PYCNN_UNROLL
  for (int j = -kSide; j <= kSide; ++j) sum += x[at + j] * x[at + j];
  return norm.k + norm.alpha_over_size * sum;
}
template <class T>
PYCNN_BOTH float denominator(const ResponseNorm& norm, const T* pixel, std::int64_t c) {
  const std::int64_t first = c - norm.before, end = c + norm.after + 1;
  float sum = 0.0f;
  for (std::int64_t j = first < 0 ? 0 : first; j < (end < norm.channels ? end : norm.channels);
       ++j) {
    const float x = widened(pixel[j]);
    sum += x * x;
  }
  return norm.k + norm.alpha_over_size * sum;
}

template <class T, int Width>
struct ResponseVectors {
  static constexpr int kWidth = 1;
  ResponseNorm norm;
  WideDivider vectors;
  const T* input;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t pixel = vectors.split(at), c = at * Width;
    const Neighbours<Width> x(input + pixel * norm.input_pitch, c, norm.channels);
    float result[Width];
    PYCNN_UNROLL
    for (int i = 0; i < Width; ++i)
      result[i] = x[i] * inverse_power(denominator(norm, x, i), norm.beta);
    store(output + pixel * norm.output_pitch + c, Width, result);
  }
};

template <class T>
struct Response {
  static constexpr int kWidth = 1;
  ResponseNorm norm;
  WideDivider channels;
  const T* input;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t c, int) const {
    const std::int64_t pixel = channels.split(c);
    const T* const x = input + pixel * norm.input_pitch;
    narrow(widened(x[c]) * inverse_power(denominator(norm, x, c), norm.beta),
           output[pixel * norm.output_pitch + c]);
  }
};

// d_j is the denominator of channel j:
//   grad_input[c] = g[c] d_c^-beta
//                   - 2 alpha beta / size x[c] * sum of g[j] x[j] d_j^-beta / d_j over all j whose
//                     window holds c
PYCNN_BOTH float combined(const ResponseNorm& norm, float straight, float x, float sum) {
  return straight - 2.0f * norm.alpha_over_size * norm.beta * x * sum;
}

template <class T, int Width>
struct ResponseGradVectors {
  static constexpr int kWidth = 1;
  ResponseNorm norm;
  WideDivider vectors;
  const T* input;
  const T* grad_output;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t pixel = vectors.split(at), c = at * Width;
    const Neighbours<Width> x(input + pixel * norm.input_pitch, c, norm.channels);
    const Neighbours<Width> g(grad_output + pixel * norm.grad_output_pitch, c, norm.channels);
    float straight[Width + 2 * kSide], term[Width + 2 * kSide];
    PYCNN_UNROLL
    for (int i = 0; i < Width + 2 * kSide; ++i) {
      const float d = denominator(norm, x, i - kSide);
      straight[i] = g[i - kSide] * inverse_power(d, norm.beta);
      term[i] = straight[i] * x[i - kSide] / d;
    }
    float result[Width];
    PYCNN_UNROLL
    for (int i = 0; i < Width; ++i) {
      float sum = 0.0f;
      PYCNN_UNROLL
      for (int j = 0; j <= 2 * kSide; ++j) sum += term[i + j];
      result[i] = combined(norm, straight[i + kSide], x[i], sum);
    }
    store(grad_input + pixel * norm.grad_input_pitch + c, Width, result);
  }
};

template <class T>
struct ResponseGrad {
  static constexpr int kWidth = 1;
  ResponseNorm norm;
  WideDivider channels;
  const T* input;
  const T* grad_output;
  T* grad_input;
  PYCNN_BOTH void operator()(std::int64_t c, int) const {
    const std::int64_t pixel = channels.split(c);
    const T* const x = input + pixel * norm.input_pitch;
    const T* const g = grad_output + pixel * norm.grad_output_pitch;
    const std::int64_t first = c - norm.after, end = c + norm.before + 1;
    float sum = 0.0f, straight = 0.0f;
    for (std::int64_t j = first < 0 ? 0 : first; j < (end < norm.channels ? end : norm.channels);
         ++j) {
      const float d = denominator(norm, x, j);
      const float passed = widened(g[j]) * inverse_power(d, norm.beta);
      if (j == c) straight = passed;
      sum += passed * widened(x[j]) / d;
    }
    narrow(combined(norm, straight, widened(x[c]), sum),
           grad_input[pixel * norm.grad_input_pitch + c]);
  }
};

// f(type, width): by vectors for windows of 5 and where the channels divide into them.
template <class F>
void with_windows(Image image, const ResponseNorm& norm, const F& f) {
  with_vectors(image, norm.channels, [&](auto type, auto width) {
    if (norm.before == kSide && norm.after == kSide)
      f(type, width);
    else
      f(type, std::integral_constant<int, 1>{});
  });
}

WideDivider divider_of(const ResponseNorm& norm, int width) {
  return WideDivider(norm.channels < width ? 1 : norm.channels / width);
}

}  // namespace

void response_norm(DeviceQueue& queue, Image image, const ResponseNorm& norm, const void* input,
                   void* output) {
  with_windows(image, norm, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    const auto* const x = static_cast<const T*>(input);
    auto* const y = static_cast<T*>(output);
    const std::int64_t count = norm.pixels * norm.channels / kWidth;
    if constexpr (kWidth > 1)
      launch_map(queue, ResponseVectors<T, kWidth>{norm, divider_of(norm, kWidth), x, y}, count);
    else
      launch_map(queue, Response<T>{norm, divider_of(norm, 1), x, y}, count);
  });
}

void response_norm_grad(DeviceQueue& queue, Image image, const ResponseNorm& norm,
                        const void* input, const void* grad_output, void* grad_input) {
  with_windows(image, norm, [&](auto type, auto width) {
    using T = decltype(type);
    constexpr int kWidth = decltype(width)::value;
    const auto* const x = static_cast<const T*>(input);
    const auto* const g = static_cast<const T*>(grad_output);
    auto* const result = static_cast<T*>(grad_input);
    const std::int64_t count = norm.pixels * norm.channels / kWidth;
    const WideDivider divider = divider_of(norm, kWidth);
    if constexpr (kWidth > 1)
      launch_map(queue, ResponseGradVectors<T, kWidth>{norm, divider, x, g, result}, count);
    else
      launch_map(queue, ResponseGrad<T>{norm, divider, x, g, result}, count);
  });
}

}  // namespace pycnn::cuda
