#pragma once
#include <cmath>
#include <cstdint>

// Batch normalisation by the formulas, for float and double. Sums are taken in double, in two
// passes.
namespace pycnn::cpu::batch_norm_reference {

// Column c of a (rows, channels) matrix.
template <class T>
struct Column {
  const T* data;
  std::int64_t rows, channels, c;
  double operator[](std::int64_t r) const noexcept {
    return static_cast<double>(data[r * channels + c]);
  }
};

struct Moments {
  double mean = 0.0;
  double variance = 0.0;  // biased
};

template <class T>
Moments moments(const Column<T>& x) noexcept {
  Moments m;
  if (x.rows == 0) return m;
  for (std::int64_t r = 0; r < x.rows; ++r) m.mean += x[r];
  m.mean /= static_cast<double>(x.rows);
  for (std::int64_t r = 0; r < x.rows; ++r) m.variance += (x[r] - m.mean) * (x[r] - m.mean);
  m.variance /= static_cast<double>(x.rows);
  return m;
}

// Sums over the rows of g and of g * (x - mean).
struct GradientSums {
  double sum = 0.0;
  double product = 0.0;
};

template <class T>
GradientSums gradient_sums(const Column<T>& x, const Column<T>& g, double mean) noexcept {
  GradientSums s;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    s.sum += g[r];
    s.product += g[r] * (x[r] - mean);
  }
  return s;
}

}  // namespace pycnn::cpu::batch_norm_reference
