#pragma once
#include "backends/cuda/batch_norm.h"

// What kernels of a batch norm's gradient share.
namespace pycnn::cuda {

// Numbers of the channels from c on, by as many accesses as they are vectors.
template <int Width, class T>
PYCNN_BOTH void load_vector(const T* from, std::int64_t c, float (&to)[Width]) {
  constexpr int kPart = Width < kVector<T> ? Width : kVector<T>;
  PYCNN_UNROLL
  for (int i = 0; i < Width; i += kPart) {
    float part[kPart];
    load(from + c + i, kPart, part);
    PYCNN_UNROLL
    for (int j = 0; j < kPart; ++j) to[i + j] = part[j];
  }
}
template <int Width, class T>
PYCNN_BOTH void store_vector(T* to, std::int64_t c, const float (&from)[Width]) {
  constexpr int kPart = Width < kVector<T> ? Width : kVector<T>;
  PYCNN_UNROLL
  for (int i = 0; i < Width; i += kPart) {
    float part[kPart];
    PYCNN_UNROLL
    for (int j = 0; j < kPart; ++j) part[j] = from[i + j];
    store(to + c + i, kPart, part);
  }
}

// What comes back through the activation, at one element.
PYCNN_BOTH float open_gradient(const Curve& curve, float centered, float factor, float offset,
                               float g) {
  return passed(curve, activate(curve, normalised(centered, factor, offset)), g);
}

// grad_input = a * g + b * (x - mean) + c
struct GradientFinish {
  GradientParams p;
  float* a;
  float* b;
  float* c;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t at, const double (&sums)[2]) const {
    const auto inv_std = static_cast<double>(p.inv_std[at]), rows = static_cast<double>(p.rows);
    const double factor = inv_std * static_cast<double>(p.scale[at]);
    p.grad_shift[at] = static_cast<float>(sums[0]);
    p.grad_scale[at] = static_cast<float>(sums[1] * inv_std);
    a[at] = static_cast<float>(factor);
    const bool through = p.through_statistics && p.rows > 0;
    b[at] = through ? static_cast<float>(-factor * inv_std * inv_std * sums[1] / rows) : 0.0f;
    c[at] = through ? static_cast<float>(-factor * sums[0] / rows) : 0.0f;
  }
};

}  // namespace pycnn::cuda
