#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double inner(double x) { return 0.79788456080286535588 * (x + 0.044715 * x * x * x); }

struct Function {
  UnaryKind kind;
  double a, b;
  double (*value)(double x);
  double (*slope)(double x);
  // What cancels inside of the value, and of the slope.
  double value_size = 0.0, slope_size = 1.0;
  bool positive = false;  // defined for positive numbers
};

// Constants are written out in the formulas.
const std::vector<Function> kFunctions = {
    {UnaryKind::kAbs, 0, 0, [](double x) { return std::abs(x); },
     [](double x) { return x > 0   ? 1.0
                           : x < 0 ? -1.0
                                   : 0.0; }},
    {UnaryKind::kCelu, 0.75, 0, [](double x) { return x > 0 ? x : 0.75 * std::expm1(x / 0.75); },
     [](double x) { return x > 0 ? 1.0 : std::exp(x / 0.75); }},
    {UnaryKind::kClip, -1.25, 3.5, [](double x) { return std::min(std::max(x, -1.25), 3.5); },
     [](double x) { return x >= -1.25 && x <= 3.5 ? 1.0 : 0.0; }},
    {UnaryKind::kElu, 1.5, 0, [](double x) { return x > 0 ? x : 1.5 * std::expm1(x); },
     [](double x) { return x > 0 ? 1.0 : 1.5 * std::exp(x); }},
    {UnaryKind::kErf, 0, 0, [](double x) { return std::erf(x); },
     [](double x) { return 2.0 / std::sqrt(3.14159265358979323846) * std::exp(-x * x); }},
    {UnaryKind::kExp, 0, 0, [](double x) { return std::exp(x); },
     [](double x) { return std::exp(x); }},
    {UnaryKind::kGelu, 0, 0, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); },
     [](double x) {
       return 0.5 * std::erfc(-x / std::sqrt(2.0)) +
              x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * 3.14159265358979323846);
     },
     1.0},
    {UnaryKind::kGeluTanh, 0, 0, [](double x) { return 0.5 * x * (1.0 + std::tanh(inner(x))); },
     [](double x) {
       const double t = std::tanh(inner(x));
       return 0.5 * (1.0 + t) +
              0.5 * x * (1.0 - t * t) * 0.79788456080286535588 * (1.0 + 3.0 * 0.044715 * x * x);
     },
     1.0, 8.0},
    {UnaryKind::kHardSigmoid, 0.25, 0.375,
     [](double x) { return std::min(std::max(0.25 * x + 0.375, 0.0), 1.0); },
     [](double x) { return 0.25 * x + 0.375 > 0 && 0.25 * x + 0.375 < 1 ? 0.25 : 0.0; }, 1.0},
    {UnaryKind::kHardSwish, 0, 0,
     [](double x) { return x * std::min(std::max(x / 6.0 + 0.5, 0.0), 1.0); },
     [](double x) { return x <= -3 ? 0.0
                           : x < 3 ? x / 3.0 + 0.5
                                   : 1.0; }, 1.0},
    {UnaryKind::kLog, 0, 0, [](double x) { return std::log(x); }, [](double x) { return 1.0 / x; },
     0.0, 0.0, true},
    {UnaryKind::kMish, 0, 0, [](double x) { return x * std::tanh(softplus(x)); },
     [](double x) {
       const double t = std::tanh(softplus(x));
       return t + x * (1.0 - t * t) * sigmoid(x);
     },
     0.0, 2.0},
    {UnaryKind::kPower, 2.5, 0, [](double x) { return std::pow(x, 2.5); },
     [](double x) { return 2.5 * std::pow(x, 1.5); }, 0.0, 0.0, true},
    {UnaryKind::kReciprocal, 0, 0, [](double x) { return 1.0 / x; },
     [](double x) { return -1.0 / (x * x); }, 0.0, 0.0, true},
    {UnaryKind::kReciprocalSqrt, 0, 0, [](double x) { return 1.0 / std::sqrt(x); },
     [](double x) { return -0.5 / (x * std::sqrt(x)); }, 0.0, 0.0, true},
    {UnaryKind::kSelu, 0, 0,
     [](double x) {
       return 1.0507009873554804934 * (x > 0 ? x : 1.6732632423543772848 * std::expm1(x));
     },
     [](double x) {
       return 1.0507009873554804934 * (x > 0 ? 1.0 : 1.6732632423543772848 * std::exp(x));
     }},
    {UnaryKind::kSilu, 0, 0, [](double x) { return x * sigmoid(x); },
     [](double x) { return sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))); }, 0.0, 2.0},
    {UnaryKind::kSoftplus, 1.25, 0, [](double x) { return softplus(1.25 * x) / 1.25; },
     [](double x) { return sigmoid(1.25 * x); }},
    {UnaryKind::kSoftsign, 0, 0, [](double x) { return x / (1.0 + std::abs(x)); },
     [](double x) { return 1.0 / ((1.0 + std::abs(x)) * (1.0 + std::abs(x))); }},
    {UnaryKind::kSqrt, 0, 0, [](double x) { return std::sqrt(x); },
     [](double x) { return 0.5 / std::sqrt(x); }, 0.0, 0.0, true},
    {UnaryKind::kThreshold, 0.5, -2.0, [](double x) { return x > 0.5 ? x : -2.0; },
     [](double x) { return x > 0.5 ? 1.0 : 0.0; }},
};

HostTensor arguments(const Function& f, std::int64_t n, std::uint64_t seed) {
  return random_tensor({n}, seed, f.positive ? 0.01 : -9.0, 9.0);
}

}  // namespace

TEST_CASE("the list of functions is complete") {
  REQUIRE(kFunctions.size() == static_cast<std::size_t>(UnaryKind::kThreshold) + 1);
  for (std::size_t i = 0; i < kFunctions.size(); ++i)
    CHECK(kFunctions[i].kind == static_cast<UnaryKind>(i));
}

TEST_CASE("unary functions follow their formula on odd sizes") {
  for (const Function& f : kFunctions)
    for (const std::int64_t n : kOddSizes) {
      CAPTURE(unary_name(f.kind));
      const HostTensor x = arguments(f, n, 7);
      for (const HostTensor& input : {x, to_float64(x)})
        check_kernels(ops::Unary{f.kind, f.a, f.b}, {input}, [&](const std::vector<HostTensor>& y) {
          int wrong = 0;
          for (std::size_t i = 0; i < x.size(); ++i) {
            const double wanted = f.value(input[i]), size = std::abs(wanted) + f.value_size;
            wrong += is_close(y[0], i, wanted, size, kElementwiseUnits) ? 0 : 1;
          }
          CHECK(wrong == 0);
        });
    }
}

TEST_CASE("unary functions keep their precision next to zero") {
  for (const Function& f : kFunctions) {
    CAPTURE(unary_name(f.kind));
    std::vector<double> values;
    for (double x = 1.0; x > 1e-20; x *= 0.13)
      for (const double sign : {1.0, -1.0})
        if (sign > 0 || !f.positive) values.push_back(sign * x);
    const HostTensor x({static_cast<std::int64_t>(values.size())}, values);
    check_kernels(ops::Unary{f.kind, f.a, f.b}, {x}, [&](const std::vector<HostTensor>& y) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        CAPTURE(x[i]);
        const double wanted = f.value(x[i]);
        const double size = std::abs(wanted) + (f.kind == UnaryKind::kHardSigmoid ? 1.0 : 0.0);
        CHECK(is_close(y[0], i, wanted, size, kElementwiseUnits));
      }
    });
  }
}

TEST_CASE("unary functions let NaN through and do not overflow") {
  std::vector<double> values(19, 0.5);
  for (const std::size_t at : {std::size_t{1}, std::size_t{17}}) values[at] = kNaN;
  values[2] = 3e38, values[3] = -3e38, values[4] = 100.0, values[5] = -100.0;
  const HostTensor x({19}, values);
  for (const Function& f : kFunctions) {
    CAPTURE(unary_name(f.kind));
    check_kernels(ops::Unary{f.kind, f.a, f.b}, {x}, [&](const std::vector<HostTensor>& y) {
      for (std::size_t i = 0; i < x.size(); ++i) {
        CAPTURE(x[i]);
        if (std::isnan(x[i])) {
          CHECK(std::isnan(y[0][i]));
          continue;
        }
        double wanted = f.value(x[i]);
        if (std::abs(wanted) > 3.4028235677973366e38) wanted = std::copysign(kInfinity, wanted);
        if (std::abs(wanted) < 1e-30) {
          CHECK(std::abs(y[0][i]) <= 1e-30);
        } else {
          CHECK(is_close(y[0], i, wanted, std::abs(wanted), kElementwiseUnits));
        }
      }
    });
  }
}

TEST_CASE("unary gradients are the slope times the gradient") {
  for (const Function& f : kFunctions)
    for (const std::int64_t n : kOddSizes) {
      CAPTURE(unary_name(f.kind));
      const HostTensor x = arguments(f, n, 3), g = random_tensor({n}, 5);
      for (const bool wide : {false, true}) {
        const std::vector<HostTensor> inputs =
            wide ? std::vector<HostTensor>{to_float64(x), to_float64(g)}
                 : std::vector<HostTensor>{x, g};
        check_kernels(
            ops::UnaryGrad{f.kind, f.a, f.b}, inputs, [&](const std::vector<HostTensor>& gx) {
              int wrong = 0;
              for (std::size_t i = 0; i < x.size(); ++i) {
                const double slope = f.slope(x[i]), size = std::abs(slope) + f.slope_size;
                wrong += is_close(gx[0], i, g[i] * slope, std::abs(g[i]) * size, kElementwiseUnits)
                             ? 0
                             : 1;
              }
              CHECK(wrong == 0);
            });
      }
    }
}

TEST_CASE("where a function is flat, not even an infinite gradient passes") {
  struct Flat {
    ops::UnaryGrad op;
    double x;
  };
  for (const Flat& flat :
       {Flat{{UnaryKind::kClip, -1.0, 1.0}, 1.5}, Flat{{UnaryKind::kThreshold, 0.0, 0.0}, 0.0},
        Flat{{UnaryKind::kHardSwish}, -4.0}, Flat{{UnaryKind::kHardSigmoid, 0.2, 0.5}, 9.0},
        Flat{{UnaryKind::kAbs}, 0.0}}) {
    CAPTURE(unary_name(flat.op.kind));
    const HostTensor x({9}, std::vector<double>(9, flat.x)),
        g({9}, std::vector<double>(9, kInfinity));
    check_kernels(flat.op, {x, g}, [](const std::vector<HostTensor>& gx) {
      for (std::size_t i = 0; i < 9; ++i) CHECK(gx[0][i] == 0.0);
    });
  }
}
