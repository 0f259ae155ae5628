#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

const std::vector<ops::LocalResponseNorm> kNorms = {
    {5, 1e-4, 0.75, 1.0}, {5, 2.0, 0.75, 2.0}, {3, 1.0, 0.5, 1.0},  {4, 1.5, 1.0, 0.5},
    {1, 0.7, 0.6, 1.0},   {2, 0.9, 1.3, 1.0},  {9, 3.0, 0.75, 1.0}, {1000, 5.0, 0.75, 1.0}};
const std::vector<Shape> kShapes = {{0, 2, 2, 5}, {1, 1, 1, 1},  {2, 3, 3, 2},  {1, 5, 3, 3},
                                    {3, 4, 4, 6}, {2, 3, 5, 15}, {1, 4, 4, 16}, {2, 3, 3, 17},
                                    {5, 33},      {2, 9, 9, 96}, {1, 2, 2, 65}};

// Channels first, windows written out: d[c] and what follows from it.
struct Pixel {
  std::vector<double> x, d;
  Pixel(const ops::LocalResponseNorm& op, const HostTensor& t, std::size_t begin, std::size_t n)
      : x(n), d(n, op.k) {
    for (std::size_t c = 0; c < n; ++c) x[c] = t[begin + c];
    for (std::int64_t c = 0; c < static_cast<std::int64_t>(n); ++c)
      for (std::int64_t j = c - op.size / 2; j <= c + (op.size - 1) / 2; ++j)
        if (j >= 0 && j < static_cast<std::int64_t>(n))
          d[static_cast<std::size_t>(c)] += op.alpha / static_cast<double>(op.size) *
                                            x[static_cast<std::size_t>(j)] *
                                            x[static_cast<std::size_t>(j)];
  }
};

// Roundings of the window's sum and of the power, which passes on the error of its logarithm.
double units(const ops::LocalResponseNorm& op, double d) {
  const bool roots = op.beta == 0.75 || op.beta == 0.5 || op.beta == 1.0;
  return kElementwiseUnits + (roots ? 0.0 : 3 * op.beta * std::abs(std::log(d)));
}

}  // namespace

TEST_CASE("local response norm divides by the power of the window's energy") {
  for (const Shape& shape : kShapes)
    for (const ops::LocalResponseNorm& op : kNorms) {
      CAPTURE(op.size);
      CAPTURE(op.beta);
      const HostTensor input = random_tensor(shape, 1, -3, 3);
      const auto n = static_cast<std::size_t>(shape.back());
      auto verify = [&](const std::vector<HostTensor>& out) {
        for (std::size_t begin = 0; begin < input.size(); begin += n) {
          const Pixel p(op, input, begin, n);
          for (std::size_t c = 0; c < n; ++c) {
            const double want = p.x[c] / std::pow(p.d[c], op.beta);
            CHECK(is_close(out[0], begin + c, want, std::abs(want), units(op, p.d[c])));
          }
        }
      };
      check_kernels(op, {input}, verify);
      verify(run_kernel(op, {to_float64(input)}));
    }
}

TEST_CASE("the gradient of local response norm sums over the windows that hold a channel") {
  for (const Shape& shape : kShapes)
    for (const ops::LocalResponseNorm& op : kNorms) {
      CAPTURE(op.size);
      CAPTURE(op.beta);
      const HostTensor input = random_tensor(shape, 2, -3, 3), grad = random_tensor(shape, 3);
      const auto n = static_cast<std::size_t>(shape.back());
      auto verify = [&](const std::vector<HostTensor>& out) {
        for (std::size_t begin = 0; begin < input.size(); begin += n) {
          const Pixel p(op, input, begin, n);
          // d output[j] / d input[c], entry by entry.
          for (std::int64_t c = 0; c < static_cast<std::int64_t>(n); ++c) {
            const auto uc = static_cast<std::size_t>(c);
            double want = grad[begin + uc] * std::pow(p.d[uc], -op.beta);
            double magnitude = std::abs(want), most = units(op, p.d[uc]), terms = 1;
            for (std::int64_t j = 0; j < static_cast<std::int64_t>(n); ++j) {
              const auto uj = static_cast<std::size_t>(j);
              if (c < j - op.size / 2 || c > j + (op.size - 1) / 2) continue;
              const double term = -grad[begin + uj] * p.x[uj] * op.beta *
                                  std::pow(p.d[uj], -op.beta - 1) * 2 * op.alpha /
                                  static_cast<double>(op.size) * p.x[uc];
              want += term, magnitude += std::abs(term), terms += 1;
              most = std::max(most, units(op, p.d[uj]));
            }
            CHECK(is_close(out[0], begin + uc, want, magnitude, most + sum_units(terms)));
          }
        }
      };
      check_kernels(ops::LocalResponseNormGrad{op}, {input, grad}, verify);
      verify(run_kernel(ops::LocalResponseNormGrad{op}, {to_float64(input), to_float64(grad)}));
    }
}

TEST_CASE("the gradient of local response norm matches finite differences in float64") {
  for (const ops::LocalResponseNorm& op : kNorms) {
    const HostTensor x = random_tensor({2, 3, 11}, 4, -2, 2, DType::kFloat64);
    const HostTensor g = random_tensor({2, 3, 11}, 5, -1, 1, DType::kFloat64);
    const HostTensor direction = random_tensor({2, 3, 11}, 6, -1, 1, DType::kFloat64);
    const auto grad = run_kernel(ops::LocalResponseNormGrad{op}, {x, g});
    constexpr double kStep = 1e-5;
    HostTensor ahead = x, behind = x;
    double analytic = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      ahead.set(i, x[i] + kStep * direction[i]);
      behind.set(i, x[i] - kStep * direction[i]);
      analytic += grad[0][i] * direction[i];
    }
    const auto up = run_kernel(op, {ahead}), down = run_kernel(op, {behind});
    double numeric = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      numeric += g[i] * (up[0][i] - down[0][i]) / (2 * kStep);
    CHECK(analytic == doctest::Approx(numeric).epsilon(1e-7));
  }
}

TEST_CASE("NaN spreads over the windows that hold it and no further") {
  const ops::LocalResponseNorm op{5, 1.0, 0.75, 1.0};
  HostTensor input = random_tensor({3, 1, 1, 20}, 7);
  input.set(20 + 10, kNaN);
  check_kernels(op, {input}, [&](const std::vector<HostTensor>& out) {
    for (std::size_t i = 0; i < out[0].size(); ++i)
      CHECK(std::isnan(out[0][i]) == (i >= 28 && i <= 32));
  });
  const HostTensor grad = random_tensor({3, 1, 1, 20}, 8);
  check_kernels(ops::LocalResponseNormGrad{op}, {input, grad},
                [&](const std::vector<HostTensor>& out) {
                  for (std::size_t i = 0; i < out[0].size(); ++i)
                    CHECK(std::isnan(out[0][i]) == (i >= 26 && i <= 34));
                });
}
