#include <array>

#include "rounded_results.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

constexpr std::array kKinds = {ActivationKind::kIdentity,  ActivationKind::kRelu,
                               ActivationKind::kRelu6,     ActivationKind::kLeakyRelu,
                               ActivationKind::kSigmoid,   ActivationKind::kTanh,
                               ActivationKind::kScaledTanh};

double expected_value(ActivationKind kind, double x, double slope) {
  switch (kind) {
    case ActivationKind::kRelu:
      return x < 0 ? 0.0 : x;
    case ActivationKind::kRelu6:
      return x < 0 ? 0.0 : std::min(x, 6.0);
    case ActivationKind::kLeakyRelu:
      return x < 0 ? slope * x : x;
    case ActivationKind::kSigmoid:
      return 1.0 / (1.0 + std::exp(-x));
    case ActivationKind::kTanh:
      return std::tanh(x);
    case ActivationKind::kScaledTanh:
      return 1.7159 * std::tanh(2.0 / 3.0 * x);
    default:
      return x;
  }
}

// Derivative at the point whose output is y.
double expected_slope(ActivationKind kind, double y, double slope) {
  switch (kind) {
    case ActivationKind::kRelu:
      return y > 0 ? 1.0 : 0.0;
    case ActivationKind::kRelu6:
      return y > 0 && y < 6 ? 1.0 : 0.0;
    case ActivationKind::kLeakyRelu:
      return y > 0 ? 1.0 : slope;
    case ActivationKind::kSigmoid:
      return y * (1.0 - y);
    case ActivationKind::kTanh:
      return 1.0 - y * y;
    case ActivationKind::kScaledTanh:
      return 1.7159 * (2.0 / 3.0) * (1.0 - (y / 1.7159) * (y / 1.7159));
    default:
      return 1.0;
  }
}

double ulp_of(double y) {
  int exponent = 0;
  std::frexp(y, &exponent);
  return std::ldexp(1.0, std::max(exponent - 24, -149));
}

// Floats of all magnitudes: every 2^32 / count-th bit pattern.
HostTensor all_kinds_of_floats(std::int64_t count) {
  HostTensor tensor(TensorSpec{{count}, DType::kFloat32});
  const std::uint64_t step = (std::uint64_t{1} << 32) / static_cast<std::uint64_t>(count);
  for (std::size_t i = 0; i < tensor.size(); ++i) {
    const auto bits = static_cast<std::uint32_t>(i * step);
    std::memcpy(tensor.as<float>() + i, &bits, sizeof bits);
  }
  return tensor;
}

}  // namespace

TEST_CASE("activations follow their formula on odd sizes") {
  for (const ActivationKind kind : kKinds)
    for (const std::int64_t n : kOddSizes) {
      CAPTURE(activation_name(kind));
      const HostTensor x = random_tensor({n}, 7, -9.0, 9.0);
      const ops::Activation op{kind, 0.1};
      const bool exact = kind == ActivationKind::kRelu || kind == ActivationKind::kRelu6 ||
                         kind == ActivationKind::kIdentity;
      check_kernels(op, {x}, [&](const std::vector<HostTensor>& y) {
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double wanted = expected_value(kind, x[i], 0.1);
          CHECK(is_close(y[0], i, wanted, std::abs(wanted), exact ? 0.0 : kElementwiseUnits));
        }
      });
      const HostTensor wide = to_float64(x);
      check_kernels(op, {wide}, [&](const std::vector<HostTensor>& y) {
        for (std::size_t i = 0; i < wide.size(); ++i) {
          const double wanted = expected_value(kind, wide[i], 0.1);
          CHECK(is_close(y[0], i, wanted, std::abs(wanted), 1.0));
        }
      });
    }
}

TEST_CASE("tanh and sigmoid are within 4 units of the last place over all floats") {
  const HostTensor x = all_kinds_of_floats(1 << 18);
  for (const ActivationKind kind : {ActivationKind::kTanh, ActivationKind::kSigmoid}) {
    check_kernels(ops::Activation{kind, 0.0}, {x}, [&](const std::vector<HostTensor>& y) {
      double worst = 0.0;
      int wrong = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double wanted = expected_value(kind, x[i], 0.0), value = y[0][i];
        if (std::isnan(wanted)) {
          wrong += std::isnan(value) ? 0 : 1;
          continue;
        }
        worst = std::max(worst, std::abs(value - wanted) / ulp_of(wanted));
        wrong += wanted == 0.0 && std::signbit(wanted) != std::signbit(value) ? 1 : 0;
      }
      CHECK(wrong == 0);
      CHECK(worst <= 4.0);
    });
  }
}

TEST_CASE("activations let NaN through and follow IEEE at infinity") {
  // In the vectors and in their tail.
  std::vector<double> values(19, 0.5);
  for (const std::size_t at : {std::size_t{1}, std::size_t{17}}) values[at] = kNaN;
  values[2] = kInfinity;
  values[3] = -kInfinity;
  values[18] = kInfinity;
  const HostTensor x({19}, values);
  for (const ActivationKind kind : kKinds) {
    CAPTURE(activation_name(kind));
    check_kernels(ops::Activation{kind, 0.25}, {x}, [&](const std::vector<HostTensor>& y) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double wanted = expected_value(kind, x[i], 0.25);
        CHECK(is_close(y[0], i, std::isnan(x[i]) ? kNaN : wanted, std::abs(wanted),
                       kElementwiseUnits));
      }
    });
  }
}

TEST_CASE("activation gradients follow from the output") {
  for (const ActivationKind kind : kKinds)
    for (const std::int64_t n : kOddSizes) {
      CAPTURE(activation_name(kind));
      const HostTensor x = random_tensor({n}, 3, -8.0, 8.0);
      HostTensor y = x;
      for (std::size_t i = 0; i < x.size(); ++i) y.set(i, expected_value(kind, x[i], 0.1));
      const HostTensor g = random_tensor({n}, 5);
      check_kernels(ops::ActivationGrad{kind, 0.1}, {y, g}, [&](const std::vector<HostTensor>& gx) {
        for (std::size_t i = 0; i < x.size(); ++i)
          CHECK(is_close(gx[0], i, g[i] * expected_slope(kind, y[i], 0.1), 2.0 * std::abs(g[i]),
                         kElementwiseUnits));
      });
    }
}

TEST_CASE("relu's gradient is closed at zero, also for infinite gradients, and open for NaN") {
  const HostTensor y({4}, {0.0, 0.0, 2.0, kNaN});
  const HostTensor g({4}, {kInfinity, 3.0, 5.0, 7.0});
  check_kernels(ops::ActivationGrad{ActivationKind::kRelu, 0.0}, {y, g},
                [](const std::vector<HostTensor>& gx) {
                  CHECK(gx[0][0] == 0.0);
                  CHECK(gx[0][1] == 0.0);
                  CHECK(gx[0][2] == 5.0);
                  CHECK(gx[0][3] == 7.0);
                });
}

TEST_CASE("relu6's gradient is closed at both ends, also for infinite gradients") {
  const HostTensor y({6}, {0.0, 6.0, 2.0, kNaN, 5.5, 6.0});
  const HostTensor g({6}, {kInfinity, kInfinity, 5.0, 7.0, -1.0, 3.0});
  check_kernels(ops::ActivationGrad{ActivationKind::kRelu6, 0.0}, {y, g},
                [](const std::vector<HostTensor>& gx) {
                  const double wanted[] = {0.0, 0.0, 5.0, 7.0, -1.0, 0.0};
                  for (std::size_t i = 0; i < 6; ++i) CHECK(gx[0][i] == wanted[i]);
                });
}

TEST_CASE("a leaky relu's gradient is the scaled one for NaN") {
  // In the vectors and in their tail.
  for (const std::int64_t n : {19, 64}) {
    HostTensor y = random_integers({n}, 1, 5);
    const HostTensor g = random_integers({n}, 2, 5);
    for (const std::int64_t at : {1, 18}) y.set(static_cast<std::size_t>(at), kNaN);
    check_kernels(ops::ActivationGrad{ActivationKind::kLeakyRelu, 0.25}, {y, g},
                  [&](const std::vector<HostTensor>& gx) {
                    for (std::size_t i = 0; i < g.size(); ++i)
                      CHECK(gx[0][i] == (y[i] > 0.0 ? g[i] : 0.25 * g[i]));
                  });
  }
}

TEST_CASE("float64 is refused by the vector variants with the reason") {
  const std::vector<TensorSpec> specs = {{{4}, DType::kFloat64}};
  const Selection selection = select_kernel(ops::Activation{}, specs, specs, {});
  CHECK(std::string(selection.kernel.variant) == "activation.reference");
  CHECK(!selection.refused.empty());
}

TEST_CASE("activations of bfloat16 have the numbers of float32, rounded") {
  for (const ActivationKind kind :
       {ActivationKind::kRelu, ActivationKind::kRelu6, ActivationKind::kLeakyRelu}) {
    CAPTURE(activation_name(kind));
    for (const std::int64_t n : kOddSizes)
      for (const Shape& shape : {Shape{n}, Shape{n / 64, 64}}) {
        CAPTURE(to_string(shape));
        const std::vector<HostTensor> in = {odd_bfloat16(shape, 1), odd_bfloat16(shape, 3)};
        check_rounded(ops::Activation{kind, 0.3}, {in[0]});
        check_rounded(ops::ActivationGrad{kind, 0.3}, in);
      }
  }
}
