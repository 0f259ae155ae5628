#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

struct Sums {
  std::vector<double> sum, magnitude, largest;
  double terms = 1.0;
};

Sums expected_sums(const HostTensor& x, const std::vector<std::int64_t>& axes) {
  const Shape& shape = x.spec.shape;
  std::size_t outputs = 1;
  Sums result;
  std::vector<std::size_t> step(shape.size(), 0);
  for (std::size_t k = shape.size(); k-- > 0;) {
    const bool reduced =
        std::find(axes.begin(), axes.end(), static_cast<std::int64_t>(k)) != axes.end();
    if (reduced) {
      result.terms *= static_cast<double>(shape[k]);
    } else {
      step[k] = outputs;
      outputs *= static_cast<std::size_t>(shape[k]);
    }
  }
  result.sum.assign(outputs, 0.0);
  result.magnitude.assign(outputs, 0.0);
  result.largest.assign(outputs, -kInfinity);
  for (std::size_t i = 0; i < x.size(); ++i) {
    std::size_t rest = i, at = 0;
    for (std::size_t k = shape.size(); k-- > 0;) {
      const auto size = static_cast<std::size_t>(shape[k]);
      at += rest % size * step[k];
      rest /= size;
    }
    result.sum[at] += x[i];
    result.magnitude[at] += std::abs(x[i]);
    result.largest[at] = std::max(result.largest[at], x[i]);
  }
  return result;
}

struct Case {
  Shape shape;
  std::vector<std::int64_t> axes;
};
const std::vector<Case> kCases = {
    {{1}, {0}},
    {{17}, {0}},
    {{1000}, {0}},
    {{100003}, {0}},
    {{}, {}},
    {{5, 3}, {}},
    {{2, 3, 4}, {0, 1, 2}},
    // Leading: a bias gradient.
    {{3, 7, 5, 6}, {0, 1, 2}},
    {{40, 28, 28, 1}, {0, 1, 2}},
    {{200, 33}, {0}},
    {{9000, 17}, {0}},
    {{3, 2049}, {0}},
    {{2, 20001}, {0}},
    {{700, 4500}, {0}},
    // Trailing.
    {{33, 10}, {1}},
    {{5, 2049}, {1}},
    {{3, 50001}, {1}},
    {{20001, 2}, {1}},
    {{4, 6, 5}, {1, 2}},
    // Middle: a mean over the image.
    {{3, 7, 7, 33}, {1, 2}},
    {{2, 60, 60, 3}, {1, 2}},
    {{2, 1, 1, 65}, {1, 2}},
    {{3, 5, 1, 7}, {1}},
    // Anything else.
    {{3, 4, 5}, {0, 2}},
    {{2, 3, 4, 5, 2}, {1, 3}},
    {{4, 1, 5, 3}, {0, 1, 3}},
    // Empty.
    {{0, 6}, {0}},
    {{0, 6}, {1}},
    {{6, 0}, {0}},
    {{0}, {0}},
    {{2, 0, 3}, {1}},
};

}  // namespace

TEST_CASE("sums of small integers are exact over any axes") {
  for (const Case& c : kCases)
    for (const bool keep : {false, true}) {
      CAPTURE(to_string(c.shape));
      const HostTensor x = random_integers(c.shape, 3, 100);
      const Sums expected = expected_sums(x, c.axes);
      for (const HostTensor& input : {x, to_float64(x)})
        check_kernels(ops::Reduce{Reduction::kSum, c.axes, keep}, {input},
                      [&](const std::vector<HostTensor>& y) {
                        REQUIRE(y[0].size() == expected.sum.size());
                        for (std::size_t i = 0; i < y[0].size(); ++i)
                          CHECK(y[0][i] == expected.sum[i]);
                      });
    }
}

TEST_CASE("sums and means of reals stay within the condition bound") {
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.shape));
    const HostTensor x = random_tensor(c.shape, 11, -1.0, 3.0);
    const Sums expected = expected_sums(x, c.axes);
    check_kernels(ops::Reduce{Reduction::kSum, c.axes}, {x}, [&](const std::vector<HostTensor>& y) {
      for (std::size_t i = 0; i < y[0].size(); ++i)
        CHECK(is_close(y[0], i, expected.sum[i], expected.magnitude[i], sum_units(expected.terms)));
    });
    if (expected.terms == 0.0) continue;
    check_kernels(
        ops::Reduce{Reduction::kMean, c.axes}, {x}, [&](const std::vector<HostTensor>& y) {
          for (std::size_t i = 0; i < y[0].size(); ++i)
            CHECK(is_close(y[0], i, expected.sum[i] / expected.terms,
                           expected.magnitude[i] / expected.terms, sum_units(expected.terms)));
        });
  }
}

TEST_CASE("maxima are exact over any axes, and NaN wins") {
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.shape));
    const HostTensor x = random_tensor(c.shape, 5, -3.0, -1.0);
    const Sums expected = expected_sums(x, c.axes);
    if (expected.terms == 0.0) continue;
    for (const HostTensor& input : {x, to_float64(x)})
      check_kernels(ops::Reduce{Reduction::kMax, c.axes}, {input},
                    [&](const std::vector<HostTensor>& y) {
                      int wrong = 0;
                      for (std::size_t i = 0; i < y[0].size(); ++i)
                        wrong += y[0][i] == expected.largest[i] ? 0 : 1;
                      CHECK(wrong == 0);
                    });
  }
  HostTensor x = random_tensor({70, 33}, 1);
  x.set(33 * 41 + 32, kNaN);
  x.set(33 * 41 + 5, kInfinity);
  check_kernels(ops::Reduce{Reduction::kMax, {0}}, {x}, [](const std::vector<HostTensor>& y) {
    for (std::size_t i = 0; i < 33; ++i) CHECK(std::isnan(y[0][i]) == (i == 32));
  });
  check_kernels(ops::Reduce{Reduction::kMax, {1}}, {x}, [](const std::vector<HostTensor>& y) {
    for (std::size_t i = 0; i < 70; ++i) CHECK(std::isnan(y[0][i]) == (i == 41));
  });
}

TEST_CASE("long sums of one sign lose little") {
  // Adding 0.1 in a plain float loop is off by a percent here.
  HostTensor x(TensorSpec{{1 << 22}, DType::kFloat32});
  for (std::size_t i = 0; i < x.size(); ++i) x.set(i, 0.1);
  const double wanted = static_cast<double>(1 << 22) * x[0];
  for (const Shape& shape : {Shape{1 << 22, 1}, Shape{1 << 21, 2}}) {
    HostTensor input(TensorSpec{shape, DType::kFloat32});
    input.bytes = x.bytes;
    check_kernels(ops::Reduce{Reduction::kSum, {0}}, {input},
                  [&](const std::vector<HostTensor>& y) {
                    const double share = wanted / static_cast<double>(shape[1]);
                    CHECK(is_close(y[0], 0, share, share, 8.0));
                  });
  }
}

TEST_CASE("a NaN reaches its own sum only") {
  HostTensor x = random_tensor({300, 33}, 1);
  x.set(33 * 299 + 32, kNaN);
  check_kernels(ops::Reduce{Reduction::kSum, {0}}, {x}, [](const std::vector<HostTensor>& y) {
    for (std::size_t i = 0; i < 33; ++i) CHECK(std::isnan(y[0][i]) == (i == 32));
  });
  check_kernels(ops::Reduce{Reduction::kSum, {1}}, {x}, [](const std::vector<HostTensor>& y) {
    for (std::size_t i = 0; i < 300; ++i) CHECK(std::isnan(y[0][i]) == (i == 299));
  });
}

TEST_CASE("scattered axes are refused by the vector variants with the reason") {
  const std::vector<TensorSpec> inputs = {{{3, 4, 5}, DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {{{4}, DType::kFloat32}};
  const Selection selection =
      select_kernel(ops::Reduce{Reduction::kSum, {0, 2}}, inputs, outputs, {});
  CHECK(std::string(selection.kernel.variant) == "reduce.reference");
  REQUIRE(!selection.refused.empty());
  CHECK(selection.refused.back().reason.find("alternate") != std::string::npos);
}
