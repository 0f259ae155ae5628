#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

HostTensor scalar(double value, DType dtype = DType::kFloat32) {
  return HostTensor(Shape{}, {value}, dtype);
}

HostTensor random_labels(std::int64_t n, std::int64_t classes, DType dtype) {
  HostTensor labels(TensorSpec{{n}, dtype});
  const Philox philox(77);
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels.set(i, static_cast<double>(philox(i, 0)[0] % static_cast<std::uint64_t>(classes)));
  return labels;
}

// Rows of target probabilities, smoothed; NaN for a label that is no class.
std::vector<double> targets_of(const HostTensor& labels, std::size_t n, std::size_t classes,
                               double smoothing) {
  std::vector<double> targets;
  for (std::size_t row = 0; row < n; ++row)
    for (std::size_t c = 0; c < classes; ++c) {
      double t = 0.0;
      if (is_floating(labels.spec.dtype)) {
        t = labels[row * classes + c];
      } else {
        const double label = labels[row];
        const bool known = label >= 0.0 && label < static_cast<double>(classes);
        t = !known ? kNaN : label == static_cast<double>(c) ? 1.0 : 0.0;
      }
      targets.push_back((1.0 - smoothing) * t + smoothing / static_cast<double>(classes));
    }
  return targets;
}

struct Expected {
  double loss = 0.0, loss_magnitude = 0.0;
  std::vector<double> grad, grad_magnitude;  // for a grad_loss of 1
};

Expected cross_entropy(const HostTensor& x, const HostTensor& labels, double smoothing) {
  const auto n = static_cast<std::size_t>(x.spec.shape[0]);
  const auto classes = static_cast<std::size_t>(x.spec.shape[1]);
  const std::vector<double> targets = targets_of(labels, n, classes, smoothing);
  const auto samples = static_cast<double>(n);
  Expected result;
  for (std::size_t row = 0; row < n; ++row) {
    const std::size_t at = row * classes;
    long double largest = x[at], sum = 0.0L;
    double total = 0.0;
    for (std::size_t c = 0; c < classes; ++c) {
      largest = std::max<long double>(largest, x[at + c]);
      total += targets[at + c];
    }
    for (std::size_t c = 0; c < classes; ++c) sum += std::exp(x[at + c] - largest);
    for (std::size_t c = 0; c < classes; ++c) {
      const double shifted = static_cast<double>(x[at + c] - largest);
      const double log_p = shifted - static_cast<double>(std::log(sum));
      const double p = static_cast<double>(std::exp(shifted) / sum), t = targets[at + c];
      if (!(t == 0.0 && std::isinf(log_p))) result.loss -= t * log_p / samples;
      if (t != 0.0)
        result.loss_magnitude += t * (1.0 + std::abs(shifted) + std::abs(log_p)) / samples;
      result.grad.push_back((p * total - t) / samples);
      result.grad_magnitude.push_back(
          (p * total * (2.0 + std::abs(std::isinf(shifted) ? 0.0 : shifted)) + std::abs(t)) /
          samples);
    }
  }
  return result;
}

void check_cross_entropy(const HostTensor& x, const HostTensor& labels, double smoothing) {
  CAPTURE(to_string(x.spec));
  CAPTURE(to_string(labels.spec));
  CAPTURE(smoothing);
  const Expected expected = cross_entropy(x, labels, smoothing);
  const double units = kElementwiseUnits + sum_units(static_cast<double>(x.spec.shape[1]));
  check_kernels(ops::SoftmaxCrossEntropy{smoothing}, {x, labels},
                [&](const std::vector<HostTensor>& y) {
                  CHECK(is_close(y[0], 0, expected.loss, expected.loss_magnitude, units));
                });
  constexpr double kGradLoss = 0.75;
  check_kernels(
      ops::SoftmaxCrossEntropyGrad{smoothing}, {x, labels, scalar(kGradLoss, x.spec.dtype)},
      [&](const std::vector<HostTensor>& y) {
        int wrong = 0;
        for (std::size_t i = 0; i < x.size(); ++i)
          wrong +=
              is_close(y[0], i, kGradLoss * expected.grad[i], expected.grad_magnitude[i], units)
                  ? 0
                  : 1;
        CHECK(wrong == 0);
      });
}

}  // namespace

TEST_CASE("cross-entropy and its gradient: labels, soft targets, smoothing") {
  struct Size {
    std::int64_t n, classes;
  };
  for (const Size size : {Size{1, 1}, Size{3, 2}, Size{5, 10}, Size{2, 15}, Size{3, 16},
                          Size{3, 17}, Size{2, 33}, Size{2, 1000}, Size{2, 2049}, Size{1000, 10}})
    for (const double smoothing : {0.0, 0.1, 1.0}) {
      const HostTensor x = random_tensor({size.n, size.classes}, 5, -6.0, 6.0);
      HostTensor soft = random_tensor({size.n, size.classes}, 6, 0.0, 1.0);
      check_cross_entropy(x, random_labels(size.n, size.classes, DType::kInt64), smoothing);
      check_cross_entropy(x, random_labels(size.n, size.classes, DType::kInt32), smoothing);
      check_cross_entropy(x, soft, smoothing);
      check_cross_entropy(to_float64(x), random_labels(size.n, size.classes, DType::kInt64),
                          smoothing);
      check_cross_entropy(to_float64(x), to_float64(soft), smoothing);
    }
}

TEST_CASE("cross-entropy takes huge logits and minus infinity") {
  std::vector<double> values(3 * 20, -1e4);
  values[0] = 1e4;
  values[1] = 1e4;
  values[5] = -kInfinity;
  values[20] = 1e4;
  values[40 + 19] = 0.0;
  const HostTensor x({3, 20}, values);
  check_cross_entropy(x, HostTensor({3}, {1, 0, 19}, DType::kInt64), 0.0);
  // Sure and wrong: a loss of 2e4, not infinity.
  check_cross_entropy(x, HostTensor({3}, {2, 1, 3}, DType::kInt64), 0.0);
  HostTensor soft({3, 20}, std::vector<double>(60, 0.0));
  soft.set(1, 1.0);
  soft.set(20, 0.5);
  soft.set(21, 0.5);
  check_cross_entropy(x, soft, 0.0);
  // The class of probability 0 is wanted.
  check_cross_entropy(x, HostTensor({3}, {5, 0, 19}, DType::kInt64), 0.0);
}

TEST_CASE("a NaN logit makes the loss and its own row's gradient NaN") {
  HostTensor x = random_tensor({3, 20}, 1);
  x.set(20 + 18, kNaN);
  const HostTensor labels({3}, {1, 2, 3}, DType::kInt64);
  HostTensor soft({3, 20}, std::vector<double>(60, 0.0));
  for (const HostTensor& wanted : {labels, soft}) {
    check_kernels(ops::SoftmaxCrossEntropy{}, {x, wanted},
                  [](const std::vector<HostTensor>& y) { CHECK(std::isnan(y[0][0])); });
    check_kernels(ops::SoftmaxCrossEntropyGrad{}, {x, wanted, scalar(1.0)},
                  [](const std::vector<HostTensor>& y) {
                    for (std::size_t i = 0; i < 60; ++i)
                      CHECK(std::isnan(y[0][i]) == (i >= 20 && i < 40));
                  });
  }
}

TEST_CASE("a label outside the classes makes the loss and its row's gradient NaN") {
  const HostTensor x = random_tensor({3, 10}, 1);
  for (const double bad : {-1.0, 10.0, 2147483647.0, -2147483648.0})
    for (const DType dtype : {DType::kInt32, DType::kInt64}) {
      const HostTensor labels({3}, {1, bad, 3}, dtype);
      check_kernels(ops::SoftmaxCrossEntropy{}, {x, labels},
                    [](const std::vector<HostTensor>& y) { CHECK(std::isnan(y[0][0])); });
      check_kernels(ops::SoftmaxCrossEntropyGrad{}, {x, labels, scalar(1.0)},
                    [](const std::vector<HostTensor>& y) {
                      for (std::size_t i = 0; i < 30; ++i)
                        CHECK(std::isnan(y[0][i]) == (i >= 10 && i < 20));
                    });
    }
}

TEST_CASE("mean squared error and its gradient") {
  for (const std::int64_t n : kOddSizes) {
    if (n == 0) continue;
    const HostTensor a = random_tensor({n}, 1), b = random_tensor({n}, 2);
    const double units = kElementwiseUnits + sum_units(static_cast<double>(n));
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    const double mean = sum / static_cast<double>(n);
    for (const bool wide : {false, true}) {
      const HostTensor x = wide ? to_float64(a) : a, y = wide ? to_float64(b) : b;
      check_kernels(ops::MeanSquaredError{}, {x, y}, [&](const std::vector<HostTensor>& out) {
        CHECK(is_close(out[0], 0, mean, mean, units));
      });
      check_kernels(ops::MeanSquaredErrorGrad{}, {x, y, scalar(0.5, x.spec.dtype)},
                    [&](const std::vector<HostTensor>& out) {
                      int wrong = 0;
                      for (std::size_t i = 0; i < a.size(); ++i) {
                        const double wanted = (a[i] - b[i]) / static_cast<double>(n);
                        wrong += is_close(out[0], i, wanted, std::abs(wanted), 4.0) ? 0 : 1;
                      }
                      CHECK(wrong == 0);
                    });
    }
  }
}

TEST_CASE("mean squared error sees NaN and infinity") {
  for (const double special : {kNaN, kInfinity}) {
    HostTensor a = random_tensor({50}, 1);
    a.set(49, special);
    check_kernels(
        ops::MeanSquaredError{}, {a, random_tensor({50}, 2)},
        [&](const std::vector<HostTensor>& out) { CHECK(is_close(out[0], 0, special, 0.0, 0.0)); });
  }
}

TEST_CASE("top-k counts labels among the k largest, the lower index first") {
  const HostTensor scores({6, 4}, {
                                      0,          3, 3, 1,     // label 2 ties with 1: rank 1
                                      0,          3, 3, 1,     // label 1: rank 0
                                      5,          5, 5, 5,     // label 3: rank 3
                                      kNaN,       1, 0, kNaN,  // label 1: rank 0
                                      kNaN,       1, 0, 2,     // label 0 is NaN: never
                                      -kInfinity, 1, 2, 3      // label 0: rank 3
                                  });
  for (const DType dtype : {DType::kInt64, DType::kInt32}) {
    const HostTensor labels({6}, {2, 1, 3, 1, 0, 0}, dtype);
    const double wanted[] = {2, 3, 3, 5};
    for (std::int64_t k = 1; k <= 4; ++k)
      for (const HostTensor& x : {scores, to_float64(scores)})
        check_kernels(ops::TopKCorrect{k}, {x, labels},
                      [&](const std::vector<HostTensor>& y) { CHECK(y[0][0] == wanted[k - 1]); });
  }
}

TEST_CASE("top-k ignores labels outside the classes and empty batches") {
  const HostTensor labels({3}, {-1, 4, 0}, DType::kInt64);
  check_kernels(ops::TopKCorrect{4}, {random_tensor({3, 4}, 1), labels},
                [](const std::vector<HostTensor>& y) { CHECK(y[0][0] == 1.0); });
  check_kernels(ops::TopKCorrect{1}, {HostTensor({0, 4}, {}), HostTensor({0}, {}, DType::kInt64)},
                [](const std::vector<HostTensor>& y) { CHECK(y[0][0] == 0.0); });
  const HostTensor many = random_tensor({5000, 10}, 3);
  check_kernels(ops::TopKCorrect{10}, {many, random_labels(5000, 10, DType::kInt32)},
                [](const std::vector<HostTensor>& y) { CHECK(y[0][0] == 5000.0); });
}
