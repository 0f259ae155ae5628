// The iteration works on the wide form x (rows <= columns) of the matrix, for the side of x x^T
// counts:
//   square = x x^T;  polynomial = a I + b square + c square square;  x = polynomial x
#include <cmath>
#include <utility>

#include "backends/cuda/map.h"
#include "backends/cuda/muon.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/tiled_product.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

// The quintic that lifts small singular values fastest and leaves all near 1 (Jordan 2024).
constexpr float kLinear = 3.4445f, kCubic = -4.7750f, kQuintic = 2.0315f;
constexpr double kSmallestNorm = 1e-7;

// Where element i of the parameter is in x.
struct WidePlace {
  std::int64_t first, rest;
  PYCNN_BOTH std::int64_t operator()(std::int64_t i) const {
    return first > rest ? i % rest * first + i / rest : i;
  }
};

struct Direction {
  static constexpr int kWidth = 1;
  MuonParams p;
  float* x;
  PYCNN_BOTH void operator()(std::int64_t i, int) const {
    const auto momentum = static_cast<float>(p.momentum);
    const float g = p.factor != nullptr ? *p.factor * p.gradient[i] : p.gradient[i];
    const float v = momentum * p.velocity[i] + g;
    p.new_velocity[i] = v;
    x[WidePlace{p.first, p.rest}(i)] = p.nesterov ? g + momentum * v : v;
  }
};

struct SquareTerm {
  const float* x;
  PYCNN_BOTH double operator()(std::int64_t i) const {
    return static_cast<double>(x[i]) * static_cast<double>(x[i]);
  }
};

// A norm that is NaN stays so: a broken step shows.
struct StoreScale {
  float* scale;
  PYCNN_BOTH void operator()(std::int64_t, double sum) const {
    double norm = sqrt(sum);
    if (norm < kSmallestNorm) norm = kSmallestNorm;
    *scale = static_cast<float>(1.0 / norm);
  }
};

struct Scale {
  static constexpr int kWidth = 4;
  const float* scale;
  float* x;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float values[kWidth];
    load(x + begin, n, values);
    for (float& value : values) value *= *scale;
    store(x + begin, n, values);
  }
};

// c = sum over k of a[m][k] * b[k][n], of dense matrices; `transposed`: b is given as b[n][k].
template <bool kTransposed>
struct Product {
  static constexpr bool kAByDepth = true, kBByDepth = kTransposed;
  std::int64_t rows, columns, batches, depth;
  const float* left;
  const float* right;
  const float* square;  // null: none; else the result is the quintic's polynomial of it
  float* result;

  PYCNN_BOTH std::int64_t begin(std::int64_t) const { return 0; }
  PYCNN_BOTH std::int64_t end(std::int64_t) const { return depth; }
  PYCNN_BOTH std::int64_t a_row(std::int64_t, std::int64_t m) const { return m * depth; }
  PYCNN_BOTH std::int64_t a_depth(std::int64_t k) const { return k; }
  PYCNN_BOTH float a(std::int64_t row, std::int64_t k) const { return left[row + k]; }
  PYCNN_BOTH std::int64_t b_column(std::int64_t, std::int64_t n) const {
    return kTransposed ? n * depth : n;
  }
  PYCNN_BOTH std::int64_t b_depth(std::int64_t k) const { return kTransposed ? k : k * columns; }
  PYCNN_BOTH float b(std::int64_t column, std::int64_t k) const { return right[column + k]; }
  PYCNN_BOTH void store(std::int64_t, std::int64_t m, std::int64_t n, float sum) const {
    const std::int64_t at = m * columns + n;
    if (square != nullptr) sum = kCubic * square[at] + kQuintic * sum + (m == n ? kLinear : 0.0f);
    result[at] = sum;
  }
};

struct Step {
  static constexpr int kWidth = 1;
  MuonParams p;
  const float* x;
  PYCNN_BOTH void operator()(std::int64_t i, int) const {
    const double rate = static_cast<double>(*p.learning_rate) * p.rate_scale;
    const double ratio = static_cast<double>(p.first) / static_cast<double>(p.rest);
    const auto shrink = static_cast<float>(1.0 - rate * p.weight_decay);
    const auto step = static_cast<float>(rate * sqrt(ratio > 1.0 ? ratio : 1.0));
    p.new_parameter[i] = shrink * p.parameter[i] - step * x[WidePlace{p.first, p.rest}(i)];
  }
};

// Two wide matrices, two squares, then the sum's pieces and the scale.
struct Scratch {
  std::int64_t count, side;
  static std::int64_t even(std::int64_t floats) { return (floats + 1) / 2 * 2; }

  Scratch(std::int64_t first, std::int64_t rest)
      : count(first * rest), side(first < rest ? first : rest) {}
  std::int64_t floats() const { return 2 * even(count) + 2 * even(side * side); }
  std::int64_t bytes() const {
    return floats() * static_cast<std::int64_t>(sizeof(float)) +
           (total_pieces(count) + 1) * static_cast<std::int64_t>(sizeof(double));
  }
};

}  // namespace

std::int64_t muon_scratch_bytes(std::int64_t first, std::int64_t rest) {
  return Scratch(first, rest).bytes();
}

void muon(DeviceQueue& queue, const MuonParams& params, void* scratch) {
  const Scratch sizes(params.first, params.rest);
  if (sizes.count == 0) return;
  const std::int64_t rows = sizes.side, columns = sizes.count / rows;
  auto* x = static_cast<float*>(scratch);
  float* next = x + Scratch::even(sizes.count);
  float* const square = next + Scratch::even(sizes.count);
  float* const polynomial = square + Scratch::even(rows * rows);
  auto* const pieces = reinterpret_cast<double*>(static_cast<float*>(scratch) + sizes.floats());
  auto* const scale = reinterpret_cast<float*>(pieces + total_pieces(sizes.count));

  launch_map(queue, Direction{params, x}, sizes.count);
  launch_total(queue, SquareTerm{x}, StoreScale{scale}, sizes.count, pieces);
  launch_map(queue, Scale{scale, x}, sizes.count);
  for (std::int64_t i = 0; i < params.iterations; ++i) {
    launch_product(queue, Product<true>{rows, rows, 1, columns, x, x, nullptr, square});
    launch_product(queue, Product<false>{rows, rows, 1, rows, square, square, square, polynomial});
    launch_product(queue, Product<false>{rows, columns, 1, rows, polynomial, x, nullptr, next});
    std::swap(x, next);
  }
  launch_map(queue, Step{params, x}, sizes.count);
}

}  // namespace pycnn::cuda
