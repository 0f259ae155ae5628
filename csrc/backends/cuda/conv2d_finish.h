#pragma once
#include "backends/cuda/conv2d.h"

namespace pycnn::cuda {

// What becomes of `count` sums that lie from element `begin` of (rows, channels) on (ConvEpilogue):
// to be stored, which rounds them.
template <class T>
PYCNN_BOTH void finish_values(const ConvEpilogue& epilogue, std::int64_t begin, int count,
                              std::int64_t channels, float (&y)[kVector<T>]) {
  float r[kVector<T>] = {}, gate[kVector<T>] = {};
  if (epilogue.residual != nullptr)
    load(static_cast<const T*>(epilogue.residual) + begin, count, r);
  if (epilogue.gate != nullptr) load(static_cast<const T*>(epilogue.gate) + begin, count, gate);
  std::int64_t c = begin % channels;
  for (int i = 0; i < count && i < kVector<T>; ++i) {
    if (epilogue.bias != nullptr) y[i] += epilogue.bias[c];
    y[i] = epilogue.gate != nullptr ? passed(epilogue.curve, gate[i], rounded<T>(y[i] + r[i]))
                                    : activate(epilogue.curve, y[i] + r[i]);
    c = c + 1 == channels ? 0 : c + 1;
  }
}

}  // namespace pycnn::cuda
