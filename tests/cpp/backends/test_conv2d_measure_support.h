#pragma once
#include "backends/test_conv2d_cases.h"
#include "backends/test_conv2d_support.h"

// What convolutions measure of their results, by definition (test_conv2d_measure.cpp and
// test_conv2d_measure_bfloat16.cpp).
namespace pycnn::testing {

inline ops::Conv2d measured(ops::Conv2d op) {
  op.epilogue.moments = true;
  return op;
}

struct Column {
  double mean = 0, variance = 0, farthest = 0;  // from the mean
  std::size_t rows = 0;
};

inline Column column_of(const std::vector<float>& x, std::size_t channels, std::size_t c) {
  Column column;
  column.rows = x.size() / channels;
  const double n = std::max(static_cast<double>(column.rows), 1.0);
  for (std::size_t i = c; i < x.size(); i += channels) column.mean += static_cast<double>(x[i]);
  column.mean /= n;
  for (std::size_t i = c; i < x.size(); i += channels) {
    const double d = static_cast<double>(x[i]) - column.mean;
    column.variance += d * d / n;
    column.farthest = std::max(column.farthest, std::abs(d));
  }
  return column;
}

// The bounds do not grow with the mean but for what two floats cannot hold of it.
inline bool are_moments_of(const std::vector<float>& moments, const std::vector<float>& x,
                           double slack = 1) {
  const std::size_t channels = moments.size() / 3;
  for (std::size_t c = 0; c < channels; ++c) {
    const Column want = column_of(x, channels, c);
    const double units = slack * (4 + 2 * std::sqrt(static_cast<double>(want.rows))) * 0x1p-24;
    const double mean =
        static_cast<double>(moments[c]) + static_cast<double>(moments[channels + c]);
    const double variance = moments[2 * channels + c];
    CAPTURE(c);
    CAPTURE(mean - want.mean);
    CAPTURE(variance - want.variance);
    const bool mean_is_close =
        std::abs(mean - want.mean) <= units * want.farthest + 0x1p-46 * std::abs(want.mean);
    const bool variance_is_close =
        variance >= 0 && std::abs(variance - want.variance) <=
                             units * want.variance + 0x1p-64 * want.mean * want.mean;
    CHECK(mean_is_close);
    CHECK(variance_is_close);
    if (!mean_is_close || !variance_is_close) return false;
  }
  return true;
}

// The batch norm before a convolution. All is exact, and far from where activations bend.
struct Before {
  Values x, mean, factor, offset;

  Before(const Shape& shape, std::mt19937& random) : x(whole_numbers(shape, random)) {
    const Shape channels = {shape.back()};
    mean = factor = offset = whole_numbers(channels, random);
    for (std::size_t c = 0; c < mean.data.size(); ++c) {
      mean.data[c] += 0.25f;
      factor.data[c] = c % 3 == 0 ? -1.0f : 2.0f;
      offset.data[c] += 0.125f;
    }
  }
  // What comes back through the activation to element i.
  float passed(const NormSums& norm, float g, std::size_t i) const {
    const std::size_t c = i % mean.data.size();
    const float y = (x.data[i] - mean.data[c]) * factor.data[c] + offset.data[c];
    switch (norm.activation) {
      case ActivationKind::kRelu:
        return y > 0 ? g : 0.0f;
      case ActivationKind::kRelu6:
        return y > 0 && y < 6 ? g : 0.0f;
      case ActivationKind::kLeakyRelu:
        return y > 0 ? g : static_cast<float>(norm.slope) * g;
      default:
        return g;
    }
  }
};

inline bool are_sums_of(const std::vector<float>& sums, const std::vector<float>& gradient,
                        const Before& before, const NormSums& norm) {
  const std::size_t channels = sums.size() / 2;
  std::vector<double> want(2 * channels), size(2 * channels);
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    const std::size_t c = i % channels;
    const double g = before.passed(norm, gradient[i], i);
    const double product = g * static_cast<double>(before.x.data[i] - before.mean.data[c]);
    want[c] += g, size[c] += std::abs(g);
    want[channels + c] += product, size[channels + c] += std::abs(product);
  }
  const double terms = static_cast<double>(gradient.size()) / static_cast<double>(channels);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double error = std::abs(static_cast<double>(sums[i]) - want[i]);
    CAPTURE(i);
    if (!(error <= (4 + 2 * std::sqrt(terms)) * 0x1p-24 * size[i])) {
      CHECK(static_cast<double>(sums[i]) == want[i]);
      return false;
    }
  }
  return true;
}

inline constexpr NormSums kNorms[] = {{true, ActivationKind::kIdentity, 0.01},
                                      {true, ActivationKind::kRelu, 0.01},
                                      {true, ActivationKind::kRelu6, 0.01},
                                      {true, ActivationKind::kLeakyRelu, 0.25}};

// Large ones: more parts than threads, and channels that are shared out.
inline const std::vector<Case> kLargeCases = {
    {.n = 3, .h = 3, .w = 43, .ic = 128, .oc = 128, .kh = 1, .kw = 1},
    {.n = 1, .h = 16, .w = 8, .ic = 128, .oc = 448, .kh = 1, .kw = 1},
    {.n = 2, .h = 29, .w = 31, .ic = 130, .oc = 128, .kh = 1, .kw = 1},
    {.n = 2, .h = 23, .w = 25, .ic = 130, .oc = 192, .kh = 1, .kw = 1, .stride = {2, 2}},
    {.n = 9, .h = 14, .w = 14, .ic = 64, .oc = 130, .padding = {1, 1, 1, 1}},
    {.n = 4, .h = 7, .w = 7, .ic = 130, .oc = 192, .padding = {1, 1, 1, 1}},
    {.n = 3, .h = 30, .w = 33, .ic = 17, .oc = 70, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
    {.n = 3, .h = 29, .w = 30, .ic = 66, .oc = 100, .stride = {2, 2}, .padding = {1, 1, 1, 1}},
    {.n = 3, .h = 28, .w = 28, .ic = 128, .oc = 128, .padding = {1, 1, 1, 1}, .groups = 32},
    {.n = 3, .h = 27, .w = 26, .ic = 144, .oc = 144, .padding = {1, 1, 1, 1}, .groups = 9},
};

}  // namespace pycnn::testing
