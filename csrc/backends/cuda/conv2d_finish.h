#pragma once
#include "backends/cuda/conv2d.h"

namespace pycnn::cuda {

// What becomes of `count` sums of channels from `c` on (ConvEpilogue), beside `r` of the residual
// and `gate`: to be stored, which rounds them.
template <class T>
PYCNN_BOTH void finish_beside(const ConvEpilogue& epilogue, std::int64_t c, int count,
                              std::int64_t channels, const float (&r)[kVector<T>],
                              const float (&gate)[kVector<T>], float (&y)[kVector<T>]) {
  for (int i = 0; i < count && i < kVector<T>; ++i) {
    if (epilogue.bias != nullptr) y[i] += epilogue.bias[c];
    y[i] = epilogue.gate != nullptr ? passed(epilogue.curve, gate[i], rounded<T>(y[i] + r[i]))
                                    : activate(epilogue.curve, y[i] + r[i]);
    c = c + 1 == channels ? 0 : c + 1;
  }
}

// The same where they lie from element `begin` of (rows, channels) on.
template <class T>
PYCNN_BOTH void finish_values(const ConvEpilogue& epilogue, std::int64_t begin, int count,
                              std::int64_t channels, float (&y)[kVector<T>]) {
  float r[kVector<T>] = {}, gate[kVector<T>] = {};
  if (epilogue.residual != nullptr)
    load(static_cast<const T*>(epilogue.residual) + begin, count, r);
  if (epilogue.signs != nullptr)
    widen_signs(load_signs(epilogue.signs, begin, count), gate);
  else if (epilogue.gate != nullptr)
    load(static_cast<const T*>(epilogue.gate) + begin, count, gate);
  finish_beside<T>(epilogue, begin % channels, count, channels, r, gate, y);
}

}  // namespace pycnn::cuda
