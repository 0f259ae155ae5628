// The iteration works on the wide form x (rows <= columns) of the matrix, for the side of x x^T
// counts:
//   square = x x^T;  polynomial = a I + b square + c square square;  x = polynomial x
#include <cmath>
#include <utility>

#include "backends/cuda/conv2d.h"
#include "backends/cuda/map.h"
#include "backends/cuda/muon.h"
#include "backends/cuda/numbers.h"
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

struct Momentum {
  static constexpr int kWidth = 1;
  MuonParams p;
  float* x;
  PYCNN_BOTH void operator()(std::int64_t i, int) const {
    const auto momentum = static_cast<float>(p.momentum);
    if (p.factor != nullptr && *p.factor < 0.0f) {
      p.new_velocity[i] = p.velocity[i];
      x[WidePlace{p.first, p.rest}(i)] = 0.0f;
      return;
    }
    const float g = p.factor != nullptr ? *p.factor * p.gradient[i] : p.gradient[i];
    const float v = momentum * p.velocity[i] + g;
    p.new_velocity[i] = v;
    x[WidePlace{p.first, p.rest}(i)] = p.nesterov ? g + momentum * v : v;
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

// polynomial = a I + b square + c * (square square), which `polynomial` holds the last part of.
struct Polynomial {
  static constexpr int kWidth = 1;
  std::int64_t side;
  const float* square;
  float* polynomial;
  PYCNN_BOTH void operator()(std::int64_t i, int) const {
    const float diagonal = i / side == i % side ? kLinear : 0.0f;
    polynomial[i] = kCubic * square[i] + kQuintic * polynomial[i] + diagonal;
  }
};

// Products of float32 as those of dense layers: result[m][n] = sum over k of a[m][k] b[n][k].
ConvShape product_shape(std::int64_t rows, std::int64_t depth, std::int64_t columns) {
  ConvShape shape{};
  shape.images = static_cast<int>(rows);
  shape.in_channels = static_cast<int>(depth);
  shape.out_channels = static_cast<int>(columns);
  shape.height = shape.width = shape.out_height = shape.out_width = 1;
  shape.kernel_height = shape.kernel_width = shape.stride_y = shape.stride_x = 1;
  shape.dilation_y = shape.dilation_x = shape.groups = 1;
  return shape;
}
constexpr Arithmetic kPlain = Arithmetic::kFloat32;
constexpr MeasureKind kNothing = MeasureKind::kNothing;

struct Step {
  static constexpr int kWidth = 1;
  MuonParams p;
  const float* x;
  PYCNN_BOTH void operator()(std::int64_t i, int) const {
    if (p.factor != nullptr && *p.factor < 0.0f) {
      p.new_parameter[i] = p.parameter[i];
      return;
    }
    const double rate = static_cast<double>(*p.learning_rate) * p.rate_scale;
    const double ratio = static_cast<double>(p.first) / static_cast<double>(p.rest);
    const auto shrink = static_cast<float>(1.0 - rate * p.weight_decay);
    const auto step = static_cast<float>(rate * sqrt(ratio > 1.0 ? ratio : 1.0));
    p.new_parameter[i] = shrink * p.parameter[i] - step * x[WidePlace{p.first, p.rest}(i)];
  }
};

// Two wide matrices, two squares, the sum's pieces and the scale, then what products want.
struct Scratch {
  std::int64_t rows, columns;  // of the wide matrix
  static std::int64_t aligned(std::int64_t floats) { return (floats + 3) / 4 * 4; }

  Scratch(std::int64_t first, std::int64_t rest)
      : rows(first < rest ? first : rest), columns(first < rest ? rest : first) {}
  std::int64_t count() const { return rows * columns; }
  ConvShape square() const { return product_shape(rows, columns, rows); }  // x x^T
  ConvShape quartic() const { return product_shape(rows, rows, rows); }    // of squares
  ConvShape step() const { return product_shape(rows, columns, rows); }    // its grad_input

  std::int64_t wide() const { return aligned(count()); }
  std::int64_t narrow() const { return aligned(rows * rows); }
  std::int64_t sums() const { return aligned(2 * (total_pieces(count()) + 1)); }
  std::int64_t floats() const { return 2 * wide() + 2 * narrow() + sums(); }
  std::int64_t bytes() const {
    std::int64_t products = conv2d_scratch_bytes(kPlain, square(), kNothing, false);
    for (const std::int64_t other :
         {conv2d_scratch_bytes(kPlain, quartic(), kNothing, false),
          conv2d_grad_input_scratch_bytes(kPlain, step(), kNothing, false)})
      if (other > products) products = other;
    return floats() * static_cast<std::int64_t>(sizeof(float)) + products;
  }
};

}  // namespace

std::int64_t muon_scratch_bytes(std::int64_t first, std::int64_t rest) {
  return Scratch(first, rest).bytes();
}

void muon(DeviceQueue& queue, const MuonParams& params, void* scratch) {
  const Scratch sizes(params.first, params.rest);
  const std::int64_t count = sizes.count();
  if (count == 0) return;
  auto* x = static_cast<float*>(scratch);
  float* next = x + sizes.wide();
  float* const square = next + sizes.wide();
  float* const polynomial = square + sizes.narrow();
  auto* const pieces = reinterpret_cast<double*>(polynomial + sizes.narrow());
  auto* const scale = reinterpret_cast<float*>(pieces + total_pieces(count));
  void* const packed = static_cast<float*>(scratch) + sizes.floats();

  launch_map(queue, Momentum{params, x}, count);
  launch_total(queue, SquareTerm<float>{x}, StoreScale{scale}, count, pieces);
  launch_map(queue, Scale{scale, x}, count);
  for (std::int64_t i = 0; i < params.iterations; ++i) {
    conv2d(queue, kPlain, sizes.square(), x, {x, nullptr}, {}, {}, square, packed);
    // A square is symmetric: its rows are its columns.
    conv2d(queue, kPlain, sizes.quartic(), square, {square, nullptr}, {}, {}, polynomial, packed);
    launch_map(queue, Polynomial{sizes.rows, square, polynomial}, sizes.rows * sizes.rows);
    conv2d_grad_input(queue, kPlain, sizes.step(), polynomial, {x, nullptr}, {}, {}, next, packed);
    std::swap(x, next);
  }
  launch_map(queue, Step{params, x}, count);
}

}  // namespace pycnn::cuda
