#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

const std::vector<Shape> kShapes = {{1},       {7, 1},    {5, 2},     {3, 3},    {3, 10}, {2, 15},
                                    {3, 16},   {2, 17},   {2, 2, 31}, {2, 33},   {3, 64}, {2, 1000},
                                    {3, 2049}, {700, 10}, {0, 10},    {2, 20001}};

struct Row {
  std::vector<double> probability, log_probability;
};
// In extended precision, so that it is an oracle for the float64 kernels too.
Row softmax_row(const HostTensor& x, std::size_t begin, std::size_t n) {
  long double largest = x[begin];
  for (std::size_t c = 0; c < n; ++c) largest = std::max<long double>(largest, x[begin + c]);
  long double sum = 0.0L;
  for (std::size_t c = 0; c < n; ++c) sum += std::exp(x[begin + c] - largest);
  Row row;
  for (std::size_t c = 0; c < n; ++c) {
    const long double shifted = x[begin + c] - largest;
    row.probability.push_back(static_cast<double>(std::exp(shifted) / sum));
    row.log_probability.push_back(static_cast<double>(shifted - std::log(sum)));
  }
  return row;
}

std::size_t columns_of(const HostTensor& x) {
  return static_cast<std::size_t>(x.spec.shape.back());
}

}  // namespace

TEST_CASE("softmax and log-softmax over the last axis") {
  for (const Shape& shape : kShapes) {
    const HostTensor narrow = random_tensor(shape, 1, -8.0, 8.0);
    for (const HostTensor& x : {narrow, to_float64(narrow)}) {
      const std::size_t n = columns_of(x);
      const double units = kElementwiseUnits + sum_units(static_cast<double>(n));
      check_kernels(ops::Softmax{}, {x}, [&](const std::vector<HostTensor>& y) {
        int wrong = 0;
        for (std::size_t begin = 0; begin < x.size(); begin += n) {
          const Row row = softmax_row(x, begin, n);
          for (std::size_t c = 0; c < n; ++c)
            // exp of a rounded difference of up to 16.
            wrong += is_close(y[0], begin + c, row.probability[c], 16.0 * row.probability[c], units)
                         ? 0
                         : 1;
        }
        CHECK(wrong == 0);
      });
      check_kernels(ops::LogSoftmax{}, {x}, [&](const std::vector<HostTensor>& y) {
        int wrong = 0;
        for (std::size_t begin = 0; begin < x.size(); begin += n) {
          const Row row = softmax_row(x, begin, n);
          for (std::size_t c = 0; c < n; ++c)
            wrong += is_close(y[0], begin + c, row.log_probability[c],
                              1.0 + std::abs(row.log_probability[c]), units)
                         ? 0
                         : 1;
        }
        CHECK(wrong == 0);
      });
    }
  }
}

TEST_CASE("softmax takes huge logits and minus infinity, and keeps NaN in its row") {
  std::vector<double> values = {1e4, 1e4, -1e4, -kInfinity};
  values.resize(20, -1e4);
  std::vector<double> with_nan(20, 1.0);
  with_nan[18] = kNaN;
  std::vector<double> all;
  for (const auto& row : {values, with_nan, values, std::vector<double>(20, -kInfinity)})
    all.insert(all.end(), row.begin(), row.end());
  const HostTensor x({4, 20}, all);
  check_kernels(ops::Softmax{}, {x}, [](const std::vector<HostTensor>& y) {
    for (const std::size_t row : {0, 2}) {
      CHECK(y[0][row * 20] == 0.5);
      CHECK(y[0][row * 20 + 1] == 0.5);
      for (std::size_t c = 2; c < 20; ++c) CHECK(y[0][row * 20 + c] == 0.0);
    }
    for (const std::size_t row : {1, 3})
      for (std::size_t c = 0; c < 20; ++c) CHECK(std::isnan(y[0][row * 20 + c]));
  });
  check_kernels(ops::LogSoftmax{}, {x}, [](const std::vector<HostTensor>& y) {
    CHECK(y[0][0] == doctest::Approx(-std::log(2.0)));
    CHECK(y[0][2] == doctest::Approx(-2e4 - std::log(2.0)));
    CHECK(y[0][3] == -kInfinity);
    for (std::size_t c = 20; c < 40; ++c) CHECK(std::isnan(y[0][c]));
  });
}

TEST_CASE("softmax gradients") {
  for (const Shape& shape : kShapes) {
    const HostTensor x = random_tensor(shape, 1, -3.0, 3.0);
    const std::size_t n = columns_of(x);
    const double units = kElementwiseUnits + sum_units(static_cast<double>(n));
    HostTensor p = x, log_p = x;
    for (std::size_t begin = 0; begin < x.size(); begin += n) {
      const Row row = softmax_row(x, begin, n);
      for (std::size_t c = 0; c < n; ++c) {
        p.set(begin + c, row.probability[c]);
        log_p.set(begin + c, row.log_probability[c]);
      }
    }
    const HostTensor g = random_tensor(shape, 2);
    auto verify = [&](const HostTensor& gx, bool log) {
      int wrong = 0;
      for (std::size_t begin = 0; begin < x.size(); begin += n) {
        double sum = 0.0, magnitude = 0.0;
        for (std::size_t c = begin; c < begin + n; ++c) {
          sum += log ? g[c] : p[c] * g[c];
          magnitude += log ? std::abs(g[c]) : p[c] * std::abs(g[c]);
        }
        for (std::size_t c = begin; c < begin + n; ++c) {
          const double e = std::exp(log_p[c]);
          const double wanted = log ? g[c] - e * sum : p[c] * (g[c] - sum);
          const double scale =
              log ? std::abs(g[c]) + e * magnitude : p[c] * (std::abs(g[c]) + magnitude);
          wrong += is_close(gx, c, wanted, scale, units) ? 0 : 1;
        }
      }
      CHECK(wrong == 0);
    };
    check_kernels(ops::SoftmaxGrad{}, {p, g},
                  [&](const std::vector<HostTensor>& gx) { verify(gx[0], false); });
    check_kernels(ops::LogSoftmaxGrad{}, {log_p, g},
                  [&](const std::vector<HostTensor>& gx) { verify(gx[0], true); });
  }
}

TEST_CASE("softmax of a pair shows an exponential right to the last places") {
  // softmax(0, -x) = (1, exp(-x)) / (1 + exp(-x)); far out the second one is the exponential.
  for (int i = 0; i < 1000; ++i) {
    const double x = std::floor(17.0 * 1024 + i * 70.0) / 1024;
    const HostTensor pair({1, 2}, {0.0, -x});
    for (const std::string& variant : cpu::variants(ops::Softmax{})) {
      HostTensor y;
      try {
        y = run_kernel(ops::Softmax{}, {pair}, {variant})[0];
      } catch (const UnsupportedError&) {
        continue;  // this machine lacks the instruction set
      }
      const double wanted = std::exp(-x) / (1.0 + std::exp(-x));
      CHECK(is_close(y, 1, wanted, wanted, 6.0));
    }
  }
}
