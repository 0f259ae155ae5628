#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

TEST_CASE("arg_max finds the first or the last of the largest along any axis") {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 17}, Shape{2, 3, 5, 9}, Shape{0, 3},
                             Shape{20001, 2}, Shape{2, 2049}}) {
    CAPTURE(to_string(shape));
    const HostTensor x = random_integers(shape, 3, 2);  // so that many are equal
    const auto rank = static_cast<std::int64_t>(shape.size());
    for (std::int64_t axis = -rank; axis < rank; ++axis) {
      const auto at = static_cast<std::size_t>(axis < 0 ? axis + rank : axis);
      if (shape[at] == 0) continue;
      std::size_t inner = 1;
      for (std::size_t k = at + 1; k < shape.size(); ++k)
        inner *= static_cast<std::size_t>(shape[k]);
      const auto n = static_cast<std::size_t>(shape[at]);
      for (const bool last : {false, true})
        for (const HostTensor& input : {x, to_float64(x)})
          check_kernels(ops::ArgMax{axis, last, last}, {input}, [&](const auto& y) {
            int wrong = 0;
            for (std::size_t i = 0; i < y[0].size(); ++i) {
              const std::size_t base = i / inner * n * inner + i % inner;
              std::size_t best = 0;
              for (std::size_t k = 1; k < n; ++k) {
                const double value = x[base + k * inner], largest = x[base + best * inner];
                if (value > largest || (last && value == largest)) best = k;
              }
              wrong += y[0][i] == static_cast<double>(best) ? 0 : 1;
            }
            CHECK(wrong == 0);
          });
    }
  }
}

TEST_CASE("a NaN is the largest") {
  const HostTensor x({2, 5}, {1.0, kNaN, kInfinity, kNaN, 2.0, kInfinity, 0.0, kNaN, 0.0, 9.0});
  check_kernels(ops::ArgMax{1}, {x}, [](const std::vector<HostTensor>& y) {
    CHECK(y[0][0] == 1.0);
    CHECK(y[0][1] == 2.0);
  });
  check_kernels(ops::ArgMax{1, false, true}, {x}, [](const std::vector<HostTensor>& y) {
    CHECK(y[0][0] == 3.0);
    CHECK(y[0][1] == 2.0);
  });
}
