#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "backends/cpu/pool_window.h"

// Pooling by the formulas, for float and double: what the fast kernels are checked against. One
// image a call.
namespace pycnn::cpu::pool_reference {

template <class T>
struct Winner {
  std::int64_t cell = -1;  // offset of the pixel's channel in the image; -1: no tap in the image
  T value = -std::numeric_limits<T>::infinity();
};

// First maximum in row-major order; the first NaN beats everything.
template <class T>
Winner<T> find_winner(const PoolGeometry& g, const T* image, const Taps& v, const Taps& h,
                      std::int64_t c) noexcept {
  Winner<T> best;
  for (std::int64_t kh = v.first; kh < v.end; ++kh) {
    for (std::int64_t kw = h.first; kw < h.end; ++kw) {
      const std::int64_t ih = v.start + kh * g.rows.dilation;
      const std::int64_t iw = h.start + kw * g.columns.dilation;
      const std::int64_t cell = ih * g.input_row() + iw * g.channels + c;
      const T x = image[cell];
      if (best.cell < 0 || x > best.value || (std::isnan(x) && !std::isnan(best.value)))
        best = {cell, x};
    }
  }
  return best;
}

template <class T>
void max_pool(const PoolGeometry& g, const T* image, T* output) noexcept {
  for (std::int64_t oh = 0; oh < g.rows.output; ++oh)
    for (std::int64_t ow = 0; ow < g.columns.output; ++ow)
      for (std::int64_t c = 0; c < g.channels; ++c)
        *output++ = find_winner(g, image, g.rows.taps(oh), g.columns.taps(ow), c).value;
}

template <class T>
void max_pool_grad(const PoolGeometry& g, const T* image, const T* grad_output,
                   T* grad_input) noexcept {
  for (std::int64_t i = 0; i < g.input_image(); ++i) grad_input[i] = 0;
  for (std::int64_t oh = 0; oh < g.rows.output; ++oh)
    for (std::int64_t ow = 0; ow < g.columns.output; ++ow)
      for (std::int64_t c = 0; c < g.channels; ++c, ++grad_output) {
        const auto best = find_winner(g, image, g.rows.taps(oh), g.columns.taps(ow), c);
        if (best.cell >= 0) grad_input[best.cell] += *grad_output;
      }
}

template <class T>
void avg_pool(const PoolGeometry& g, bool count_padding, const T* image, T* output) noexcept {
  for (std::int64_t oh = 0; oh < g.rows.output; ++oh) {
    for (std::int64_t ow = 0; ow < g.columns.output; ++ow) {
      const Taps v = g.rows.taps(oh), h = g.columns.taps(ow);
      const std::int64_t cells =
          g.rows.mean_cells(oh, count_padding) * g.columns.mean_cells(ow, count_padding);
      for (std::int64_t c = 0; c < g.channels; ++c) {
        T sum = 0;
        for (std::int64_t kh = v.first; kh < v.end; ++kh)
          for (std::int64_t kw = h.first; kw < h.end; ++kw)
            sum += image[(v.start + kh) * g.input_row() + (h.start + kw) * g.channels + c];
        *output++ = sum / static_cast<T>(cells);
      }
    }
  }
}

template <class T>
void avg_pool_grad(const PoolGeometry& g, bool count_padding, const T* grad_output,
                   T* grad_input) noexcept {
  for (std::int64_t i = 0; i < g.input_image(); ++i) grad_input[i] = 0;
  for (std::int64_t oh = 0; oh < g.rows.output; ++oh) {
    for (std::int64_t ow = 0; ow < g.columns.output; ++ow) {
      const Taps v = g.rows.taps(oh), h = g.columns.taps(ow);
      const std::int64_t cells =
          g.rows.mean_cells(oh, count_padding) * g.columns.mean_cells(ow, count_padding);
      for (std::int64_t c = 0; c < g.channels; ++c, ++grad_output)
        for (std::int64_t kh = v.first; kh < v.end; ++kh)
          for (std::int64_t kw = h.first; kw < h.end; ++kw)
            grad_input[(v.start + kh) * g.input_row() + (h.start + kw) * g.channels + c] +=
                *grad_output / static_cast<T>(cells);
    }
  }
}

}  // namespace pycnn::cpu::pool_reference
