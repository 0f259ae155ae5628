#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

HostTensor number(std::int64_t value) {
  return HostTensor({1}, {static_cast<double>(value)}, DType::kInt64);
}
HostTensor rate(double value) { return HostTensor({1}, {value}); }
HostTensor scalar(double value, DType dtype) { return HostTensor(Shape{}, {value}, dtype); }

struct Expected {
  double value, magnitude;
};

void check_each(const HostTensor& actual, const std::function<Expected(std::size_t)>& expected) {
  int wrong = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const Expected e = expected(i);
    wrong += is_close(actual, i, e.value, e.magnitude, kElementwiseUnits) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("sgd: momentum, Nesterov, weight decay, clipping") {
  struct Options {
    double momentum;
    bool nesterov;
    double decay;
    bool clipped;
  };
  for (const std::int64_t n : kOddSizes)
    for (const Options o : {Options{0.0, false, 0.0, false}, Options{0.0, false, 0.01, true},
                            Options{0.9, false, 0.0, false}, Options{0.9, false, 0.01, true},
                            Options{0.9, true, 0.01, false}})
      for (const bool wide : {false, true}) {
        auto tensor = [&](std::uint64_t seed) {
          const HostTensor narrow = random_tensor({n}, seed);
          return wide ? to_float64(narrow) : narrow;
        };
        const HostTensor p = tensor(1), g = tensor(2), v = tensor(3);
        const DType dtype = p.spec.dtype;
        const double factor = o.clipped ? 0.375 : 1.0, speed = rate(0.1)[0] * 2.0;
        std::vector<HostTensor> inputs = {p, g, rate(0.1)};
        if (o.momentum > 0.0) inputs.push_back(v);
        if (o.clipped) inputs.push_back(scalar(factor, dtype));
        const ops::SgdUpdate op{o.momentum, o.nesterov, o.decay, 2.0, o.clipped};
        check_kernels(op, inputs, [&](const std::vector<HostTensor>& out) {
          auto velocity = [&](std::size_t i) {
            const double step = factor * g[i] + o.decay * p[i];
            const double old = o.momentum * v[i];
            return Expected{old + step,
                            std::abs(old) + std::abs(factor * g[i]) + std::abs(o.decay * p[i])};
          };
          check_each(out[0], [&](std::size_t i) {
            const double step = factor * g[i] + o.decay * p[i];
            const Expected e = velocity(i);
            const double move = o.momentum == 0.0 ? step
                                : o.nesterov      ? step + o.momentum * e.value
                                                  : e.value;
            return Expected{p[i] - speed * move, std::abs(p[i]) + speed * 2.0 * e.magnitude};
          });
          REQUIRE(out.size() == (o.momentum > 0.0 ? 2 : 1));
          if (o.momentum > 0.0) check_each(out[1], velocity);
        });
      }
}

TEST_CASE("adam and adamw over the first and later steps") {
  for (const std::int64_t n : kOddSizes)
    for (const bool decoupled : {false, true})
      for (const std::int64_t step : {std::int64_t{0}, std::int64_t{1}, std::int64_t{100000}})
        for (const bool wide : {false, true}) {
          auto tensor = [&](std::uint64_t seed, double low) {
            const HostTensor narrow = random_tensor({n}, seed, low, 1.0);
            return wide ? to_float64(narrow) : narrow;
          };
          const HostTensor p = tensor(1, -1.0), g = tensor(2, -1.0), m = tensor(3, -1.0),
                           v = tensor(4, 0.0);
          const double decay = 0.02, factor = 0.5, speed = rate(0.01)[0] * 3.0;
          const ops::AdamUpdate op{0.9, 0.999, 1e-8, decay, decoupled, 3.0, true};
          check_kernels(
              op, {p, g, rate(0.01), number(step), m, v, scalar(factor, p.spec.dtype)},
              [&](const std::vector<HostTensor>& out) {
                // As torch.optim.Adam writes it.
                const double t = static_cast<double>(step) + 1.0;
                auto gradient = [&](std::size_t i) {
                  return factor * g[i] + (decoupled ? 0.0 : decay * p[i]);
                };
                auto mean = [&](std::size_t i) {
                  return Expected{0.9 * m[i] + 0.1 * gradient(i), 2.0};
                };
                auto variance = [&](std::size_t i) {
                  const double value = 0.999 * v[i] + 0.001 * gradient(i) * gradient(i);
                  return Expected{value, value + 0.001};
                };
                check_each(out[1], mean);
                check_each(out[2], variance);
                check_each(out[0], [&](std::size_t i) {
                  const double start = decoupled ? p[i] * (1.0 - speed * decay) : p[i];
                  const double denominator =
                      std::sqrt(variance(i).value) / std::sqrt(1.0 - std::pow(0.999, t)) + 1e-8;
                  const double size = speed / (1.0 - std::pow(0.9, t)) / denominator;
                  // The mean's and the variance's own errors count as much as they move the step.
                  const double blur = 2.0 + std::abs(mean(i).value) * 0.001 / variance(i).value;
                  return Expected{start - size * mean(i).value, std::abs(start) + size * blur};
                });
              });
        }
}

TEST_CASE("muon: wide, tall and odd matrices, with and without Nesterov") {
  const std::vector<Shape> shapes = {{1, 1},       {1, 17},  {17, 1},      {5, 7},
                                     {9, 3, 3, 3}, {33, 16}, {49, 129, 1}, {20, 300}};
  for (const Shape& shape : shapes)
    for (const bool nesterov : {false, true})
      for (const bool wide : {false, true}) {
        auto tensor = [&](std::uint64_t seed) {
          const HostTensor narrow = random_tensor(shape, seed);
          return wide ? to_float64(narrow) : narrow;
        };
        const HostTensor p = tensor(1), g = tensor(2), v = tensor(3);
        const double decay = 0.2, factor = 0.5, momentum = 0.875, speed = rate(0.1)[0] * 2.0;
        const std::size_t rows = static_cast<std::size_t>(shape[0]), columns = p.size() / rows;
        const ops::MuonUpdate op{momentum, nesterov, decay, 5, 2.0, true};
        check_kernels(
            op, {p, g, rate(0.1), v, scalar(factor, p.spec.dtype)},
            [&](const std::vector<HostTensor>& out) {
              auto velocity = [&](std::size_t i) { return momentum * v[i] + factor * g[i]; };
              check_each(out[1], [&](std::size_t i) {
                return Expected{velocity(i), std::abs(v[i]) + std::abs(g[i])};
              });
              // As written down, on the columns' side too: x (a + b s + c s s) with s = x^T x.
              std::vector<double> x(p.size());
              double norm = 0.0;
              for (std::size_t i = 0; i < x.size(); ++i) {
                x[i] = nesterov ? factor * g[i] + momentum * velocity(i) : velocity(i);
                norm += x[i] * x[i];
              }
              for (double& value : x) value /= std::sqrt(norm);
              for (int iteration = 0; iteration < 5; ++iteration) {
                auto times_square = [&](const std::vector<double>& left) {
                  std::vector<double> s(columns * columns), result(left.size());
                  for (std::size_t i = 0; i < columns; ++i)
                    for (std::size_t j = 0; j < columns; ++j)
                      for (std::size_t k = 0; k < rows; ++k)
                        s[i * columns + j] += x[k * columns + i] * x[k * columns + j];
                  for (std::size_t i = 0; i < rows; ++i)
                    for (std::size_t k = 0; k < columns; ++k)
                      for (std::size_t j = 0; j < columns; ++j)
                        result[i * columns + j] += left[i * columns + k] * s[k * columns + j];
                  return result;
                };
                const std::vector<double> cubic = times_square(x), quintic = times_square(cubic);
                for (std::size_t i = 0; i < x.size(); ++i)
                  x[i] = 3.4445 * x[i] - 4.7750 * cubic[i] + 2.0315 * quintic[i];
              }
              const double stretch =
                  speed * std::sqrt(std::max(1.0, double(rows) / double(columns)));
              // A small singular value, and its rounding error, grows by 3.4445 five times.
              check_each(out[0], [&](std::size_t i) {
                return Expected{(1.0 - speed * decay) * p[i] - stretch * x[i],
                                std::abs(p[i]) + stretch * std::pow(3.4445, 5.0)};
              });
            });
      }
}

TEST_CASE("moving average limits its decay while there are few steps") {
  for (const std::int64_t n : kOddSizes)
    for (const std::int64_t step : {std::int64_t{0}, std::int64_t{5}, std::int64_t{1000000}}) {
      const HostTensor average = random_tensor({n}, 1), value = random_tensor({n}, 2);
      const double decay =
          std::min(0.999, (1.0 + static_cast<double>(step)) / (10.0 + static_cast<double>(step)));
      for (const bool wide : {false, true})
        check_kernels(
            ops::EmaUpdate{0.999},
            {wide ? to_float64(average) : average, wide ? to_float64(value) : value, number(step)},
            [&](const std::vector<HostTensor>& out) {
              check_each(out[0], [&](std::size_t i) {
                return Expected{decay * average[i] + (1.0 - decay) * value[i],
                                std::abs(average[i]) + std::abs(value[i])};
              });
            });
    }
}

TEST_CASE("increment adds one") {
  for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40})
    check_kernels(ops::Increment{}, {number(value)}, [&](const std::vector<HostTensor>& out) {
      CHECK(*out[0].as<std::int64_t>() == value + 1);
    });
}

TEST_CASE("clip factor brings the norm of all gradients to the limit") {
  for (const bool wide : {false, true}) {
    std::vector<HostTensor> gradients;
    double sum = 0.0;
    for (const std::int64_t n : kOddSizes) {
      const HostTensor g = random_tensor({n}, static_cast<std::uint64_t>(n) + 1);
      for (std::size_t i = 0; i < g.size(); ++i) sum += g[i] * g[i];
      gradients.push_back(wide ? to_float64(g) : g);
    }
    const double norm = std::sqrt(sum);
    for (const double limit : {norm / 3.0, norm * 2.0, kInfinity})
      check_kernels(ops::ClipFactor{limit}, gradients, [&](const std::vector<HostTensor>& out) {
        const double factor = std::min(1.0, limit / norm);
        CHECK(is_close(out[0], 0, factor, factor, 2.0));
        CHECK(is_close(out[1], 0, norm, norm, 2.0));
      });
  }
}

TEST_CASE("clip factor: neither overflow nor a lost NaN") {
  const HostTensor huge({3}, {3e38, 0.0, -3e38}), tiny({2}, {3e-38, 4e-38});
  check_kernels(ops::ClipFactor{1.0}, {huge}, [](const std::vector<HostTensor>& out) {
    CHECK(out[0][0] > 0.0);
    CHECK(out[0][0] < 1e-37);
  });
  check_kernels(ops::ClipFactor{1.0}, {tiny}, [](const std::vector<HostTensor>& out) {
    CHECK(out[0][0] == 1.0);
    CHECK(is_close(out[1], 0, 5e-38, 5e-38, 4.0));
  });
  check_kernels(ops::ClipFactor{1.0}, {HostTensor({2}, {0.0, 0.0})},
                [](const std::vector<HostTensor>& out) { CHECK(out[0][0] == 1.0); });
  for (const double special : {kNaN, kInfinity})
    check_kernels(ops::ClipFactor{1.0}, {tiny, HostTensor({2}, {1.0, special})},
                  [](const std::vector<HostTensor>& out) { CHECK(std::isnan(out[0][0])); });
}

TEST_CASE("scale of the loss: halved by what is not finite, doubled after enough good steps") {
  struct Step {
    double norm, scale;
    std::int64_t good_steps;
    double factor, new_norm, new_scale;
    std::int64_t new_good_steps;
  };
  const double limit = 0x1p24;
  for (const Step& s :
       {Step{8.0, 1024.0, 3, 1.0 / 1024, 8.0 / 1024, 1024.0, 4},
        Step{8.0, 4.0, 3, 1.0 / 8, 2.0, 4.0, 4},  // 2 is more than max_norm of 1
        Step{0.0, 4.0, 9, 0.25, 0.0, 8.0, 0}, Step{0.0, limit, 9, 1.0 / limit, 0.0, limit, 0},
        Step{kInfinity, 4.0, 9, -1.0, kInfinity, 2.0, 0}, Step{kNaN, 4.0, 5, -1.0, kNaN, 2.0, 0},
        Step{kNaN, 1.0 / limit, 5, -1.0, kNaN, 1.0 / limit, 0},
        // A scale that somebody set.
        Step{0.0, 0.0, 5, -1.0, kNaN, 1.0 / limit, 0},
        Step{3.0, -4.0, 5, -1.0, kNaN, 1.0 / limit, 0},
        Step{3.0, 2.0 * limit, 9, -1.0, kNaN, limit, 0},
        Step{3.0, kInfinity, 5, -1.0, kNaN, limit, 0}, Step{3.0, kNaN, 5, -1.0, kNaN, limit, 0}})
    for (const DType dtype : {DType::kFloat32, DType::kFloat64})
      check_kernels(
          ops::LossScale{10, 1.0},
          {scalar(s.norm, dtype), scalar(s.scale, dtype), number(s.good_steps)},
          [&](const std::vector<HostTensor>& out) {
            CHECK(out[0][0] == s.factor);
            CHECK((out[1][0] == s.new_norm || (std::isnan(out[1][0]) && std::isnan(s.new_norm))));
            CHECK(out[2][0] == s.new_scale);
            CHECK(*out[3].as<std::int64_t>() == s.new_good_steps);
          });
}

TEST_CASE("a step that changes nothing") {
  for (const std::int64_t n : {1, 17, 20001})
    for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
      // The gradient is what it is then.
      HostTensor g(TensorSpec{{n}, dtype});
      for (std::size_t i = 0; i < g.size(); ++i) g.set(i, i % 2 == 0 ? kNaN : kInfinity);
      const HostTensor p = random_tensor({n}, 1, -2, 2, dtype),
                       v = random_tensor({n}, 2, 0, 2, dtype),
                       w = random_tensor({n}, 3, 0, 2, dtype), skip = scalar(-1.0, dtype);
      const auto keeps = [&](const std::vector<HostTensor>& expected) {
        return [=](const std::vector<HostTensor>& out) { CHECK(same_bits(out, expected)); };
      };
      check_kernels(ops::SgdUpdate{0.0, false, 0.1, 1.0, true}, {p, g, rate(0.1), skip},
                    keeps({p}));
      check_kernels(ops::SgdUpdate{0.9, true, 0.1, 1.0, true}, {p, g, rate(0.1), v, skip},
                    keeps({p, v}));
      check_kernels(ops::AdamUpdate{0.9, 0.99, 1e-8, 0.1, true, 1.0, true},
                    {p, g, rate(0.1), number(3), v, w, skip}, keeps({p, v, w}));
      const auto matrix = [&](HostTensor tensor) {
        tensor.spec.shape = {n, 1};
        return tensor;
      };
      check_kernels(ops::MuonUpdate{0.9, true, 0.1, 2, 1.0, true},
                    {matrix(p), matrix(g), rate(0.1), matrix(v), skip},
                    keeps({matrix(p), matrix(v)}));
      check_kernels(ops::Commit{}, {v, p, skip}, keeps({p}));
      check_kernels(ops::Commit{}, {v, p, scalar(0.25, dtype)}, keeps({v}));
    }
  check_kernels(ops::Commit{}, {number(4), number(3), scalar(-1.0, DType::kFloat32)},
                [](const std::vector<HostTensor>& out) { CHECK(*out[0].as<std::int64_t>() == 3); });
}

TEST_CASE("a NaN gradient reaches its parameter and no other") {
  HostTensor g = random_tensor({40}, 1);
  g.set(37, kNaN);
  const HostTensor p = random_tensor({40}, 2), zeros({40}, std::vector<double>(40, 0.0));
  auto verify = [](const std::vector<HostTensor>& out) {
    for (std::size_t i = 0; i < 40; ++i) CHECK(std::isnan(out[0][i]) == (i == 37));
  };
  check_kernels(ops::SgdUpdate{}, {p, g, rate(0.1)}, verify);
  check_kernels(ops::AdamUpdate{}, {p, g, rate(0.1), number(0), zeros, zeros}, verify);
}

TEST_CASE("a dense layer's gradient and update in one: as the two") {
  // Two pieces of rows, the last of one row; then single ones.
  struct Case {
    std::int64_t images, in, out;
    bool bias, momentum;
  };
  // Images of bfloat16: more than a step of 32 for some, more than the steps that stay near for
  // 200.
  for (const Case& c :
       {Case{2, 66000, 17, true, true}, Case{3, 7, 5, false, false}, Case{33, 257, 65, true, false},
        Case{1, 70, 33, false, true}, Case{200, 1060, 34, true, true}, Case{0, 40, 33, true, true}})
    for (const DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16}) {
      const bool wide = dtype == DType::kFloat64;
      if (wide && c.in > 1000) continue;
      CAPTURE(c.in);
      CAPTURE(static_cast<int>(dtype));
      const auto tensor = [&](const Shape& shape, std::uint64_t seed) {
        const HostTensor narrow = random_tensor(shape, seed);
        return wide ? to_float64(narrow) : narrow;
      };
      const auto image = [&](const Shape& shape, std::uint64_t seed) {
        return dtype == DType::kBFloat16 ? random_tensor(shape, seed, -2, 2, dtype)
                                         : tensor(shape, seed);
      };
      const HostTensor p = tensor({c.out, c.in}, 1), x = image({c.images, c.in}, 2),
                       g = image({c.images, c.out}, 3), v = tensor({c.out, c.in}, 4),
                       w = tensor({c.out, c.in}, 5);
      const auto gradient = [&](std::size_t i) {
        const std::size_t o = i / static_cast<std::size_t>(c.in),
                          k = i % static_cast<std::size_t>(c.in);
        Expected sum{0.0, 0.0};
        for (std::size_t n = 0; n < static_cast<std::size_t>(c.images); ++n) {
          const double term = g[n * static_cast<std::size_t>(c.out) + o] *
                              x[n * static_cast<std::size_t>(c.in) + k];
          sum.value += term, sum.magnitude += std::abs(term);
        }
        return sum;
      };
      const auto check_bias = [&](const HostTensor& bias) {
        for (std::size_t o = 0; o < bias.size(); ++o) {
          double sum = 0, magnitude = 0;
          for (std::size_t n = 0; n < static_cast<std::size_t>(c.images); ++n) {
            sum += g[n * bias.size() + o];
            magnitude += std::abs(g[n * bias.size() + o]);
          }
          CHECK(is_close(bias, o, sum, magnitude, sum_units(static_cast<double>(c.images))));
        }
      };
      const double units = sum_units(static_cast<double>(c.images)) + kElementwiseUnits;
      ops::DenseSgdUpdate sgd{c.bias, {c.momentum ? 0.9 : 0.0, c.momentum, 0.01, 2.0, false}};
      std::vector<HostTensor> inputs = {p, x, g, rate(0.1)};
      if (c.momentum) inputs.push_back(v);
      check_kernels(sgd, inputs, [&](const std::vector<HostTensor>& out) {
        int wrong = 0;
        for (std::size_t i = 0; i<p.size(); i += p.size()> 100000 ? 97 : 1) {
          const Expected sum = gradient(i);
          const double step = sum.value + 0.01 * p[i];
          const double size = sum.magnitude + std::abs(p[i]) + std::abs(v[i]);
          const double velocity = c.momentum ? 0.9 * v[i] + step : step;
          const double move = c.momentum ? step + 0.9 * velocity : step;
          wrong += is_close(out[0], i, p[i] - rate(0.1)[0] * 2.0 * move, size, units) ? 0 : 1;
          if (c.momentum) wrong += is_close(out[1], i, velocity, size, units) ? 0 : 1;
        }
        CHECK(wrong == 0);
        if (c.bias) check_bias(out.back());
      });
      if (c.in > 1000 && c.bias) continue;  // the pieces are those of SGD
      HostTensor second = w;
      for (std::size_t i = 0; i < second.size(); ++i) second.set(i, std::abs(w[i]) + 0.5);
      const ops::DenseAdamUpdate adam{c.bias, {0.9, 0.99, 1e-6, 0.02, true, 1.0, false}};
      check_kernels(
          adam, {p, x, g, rate(0.1), number(3), v, second},
          [&](const std::vector<HostTensor>& out) {
            int wrong = 0;
            for (std::size_t i = 0; i<p.size(); i += p.size()> 100000 ? 97 : 1) {
              const Expected sum = gradient(i);
              const double mean = 0.9 * v[i] + 0.1 * sum.value;
              const double variance = 0.99 * second[i] + 0.01 * sum.value * sum.value;
              const double rate_now = rate(0.1)[0];
              const double moved = mean / (1 - std::pow(0.9, 4)) /
                                   (std::sqrt(variance / (1 - std::pow(0.99, 4))) + 1e-6);
              const double size = std::abs(p[i]) + sum.magnitude + std::abs(v[i]);
              wrong += is_close(out[1], i, mean, size, units) ? 0 : 1;
              wrong += is_close(out[2], i, variance, size * size + second[i], units) ? 0 : 1;
              wrong += is_close(out[0], i, (1 - rate_now * 0.02) * p[i] - rate_now * moved,
                                size + 1.0, units)
                           ? 0
                           : 1;
            }
            CHECK(wrong == 0);
            if (c.bias) check_bias(out.back());
          });
    }
}

TEST_CASE(
    "a dense layer's update from bfloat16 images has the bits of the two steps by that unit") {
  int ran = 0;
  for (const char* unit : {"amx", "avx512_bf16", "portable"})
    for (const std::int64_t images : {1, 8, 37}) {
      CAPTURE(unit);
      CAPTURE(images);
      const Shape shape = {70, 1100};
      const HostTensor p = random_tensor(shape, 1), v = random_tensor(shape, 2),
                       x = random_tensor({images, 1100}, 3, -2, 2, DType::kBFloat16),
                       g = random_tensor({images, 70}, 4, -2, 2, DType::kBFloat16);
      const ops::SgdUpdate update{0.9, true, 0.01, 2.0, false};
      const std::string suffix = std::string(".bfloat16.") + unit;
      KernelRun both, one, two;
      both.variant = ops::DenseSgdUpdate::kName + suffix;
      one.variant = ops::DenseGradWeight::kName + suffix;
      two.variant = std::string(unit) == "portable" ? "sgd_update.vector.baseline"
                                                    : "sgd_update.vector.avx512";
      std::vector<HostTensor> found;
      try {
        found = run_kernel(ops::DenseSgdUpdate{true, update}, {p, x, g, rate(0.1), v}, both);
      } catch (const UnsupportedError&) {
        continue;
      }
      ++ran;
      const auto gradient = run_kernel(ops::DenseGradWeight{true}, {x, g}, one);
      auto expected = run_kernel(update, {p, gradient[0], rate(0.1), v}, two);
      expected.push_back(gradient[1]);
      CHECK(same_bits(found, expected));
    }
  CHECK(ran > 0);
}
