#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

const std::vector<Shape> kShapes = {{2, 1, 1, 1},  {3, 5, 4, 1},   {1, 3, 1, 3},  {2, 9, 5, 15},
                                    {4, 8, 8, 16}, {2, 14, 9, 17}, {1, 7, 5, 33}, {3, 4, 4, 64},
                                    {2, 3, 3, 65}, {7, 1000},      {2, 60, 70, 6}};

const std::vector<Epilogue> kEpilogues = {
    {false, ActivationKind::kIdentity, 0.01}, {false, ActivationKind::kRelu, 0.01},
    {true, ActivationKind::kRelu, 0.01},      {true, ActivationKind::kIdentity, 0.01},
    {false, ActivationKind::kRelu6, 0.01},    {true, ActivationKind::kLeakyRelu, 0.3}};

double activated(const Epilogue& epilogue, double x) {
  switch (epilogue.activation) {
    case ActivationKind::kRelu:
      return std::max(x, 0.0);
    case ActivationKind::kRelu6:
      return std::min(std::max(x, 0.0), 6.0);
    case ActivationKind::kLeakyRelu:
      return x > 0 ? x : epilogue.slope * x;
    default:
      return x;
  }
}

double slope_at(ActivationKind kind, double slope, double x) {
  switch (kind) {
    case ActivationKind::kRelu:
      return x > 0 ? 1 : 0;
    case ActivationKind::kRelu6:
      return x > 0 && x < 6 ? 1 : 0;
    case ActivationKind::kLeakyRelu:
      return x > 0 ? 1 : slope;
    default:
      return 1;
  }
}

std::vector<HostTensor> to_float64(const std::vector<HostTensor>& tensors) {
  std::vector<HostTensor> wide;
  for (const HostTensor& tensor : tensors) wide.push_back(testing::to_float64(tensor));
  return wide;
}

// Moves inputs away from where the activation bends, so that no rounding crosses a bend.
void keep_from_bends(HostTensor& x, const HostTensor& mean, const HostTensor& factor,
                     const HostTensor& offset) {
  const std::size_t channels = mean.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    for (const double bend : {0.0, 6.0}) {
      const double y = (x[i] - mean[c]) * factor[c] + offset[c];
      if (std::abs(y - bend) < 0.01) x.set(i, x[i] + 0.05 / factor[c]);
    }
  }
}

}  // namespace

TEST_CASE("the first half of batch norm measures what the whole does") {
  for (const Shape& shape : kShapes) {
    CAPTURE(to_string(shape));
    const Shape channels = {shape.back()};
    const std::vector<HostTensor> in = {random_tensor(shape, 1, 1000, 1002),
                                        random_tensor(channels, 2, 0.5, 2.0),
                                        random_tensor(channels, 3), random_tensor(channels, 4),
                                        random_tensor(channels, 5, 0.5, 2.0)};
    const ops::BatchNormStatistics op{1e-3, 0.3};
    const auto want = run_kernel(ops::BatchNormTrain{1e-3, 0.3}, to_float64(in));
    const double n = static_cast<double>(in[0].size()) / static_cast<double>(in[1].size());
    const auto verify = [&](const std::vector<HostTensor>& out) {
      for (std::size_t c = 0; c < out[0].size(); ++c) {
        CAPTURE(c);
        for (std::size_t k = 0; k < 4; ++k)
          CHECK(is_close(out[k], c, want[k + 1][c], std::abs(want[k + 1][c]) + (k == 1 ? 0 : 1002),
                         sum_units(n)));
        const double factor = in[1][c] * want[2][c];
        CHECK(is_close(out[4], c, factor, std::abs(factor), sum_units(n)));
        // The mean as float and the offset together have what the whole kernel has.
        const double offset = in[2][c] - (want[1][c] - out[0][c]) * factor;
        CHECK(is_close(out[5], c, offset, std::abs(in[2][c]) + std::abs(factor), sum_units(n)));
      }
    };
    check_kernels(op, in, verify);
  }
}

TEST_CASE("the second half normalises, adds and activates") {
  for (const Shape& shape : kShapes) {
    for (const Epilogue& epilogue : kEpilogues) {
      CAPTURE(to_string(shape));
      CAPTURE(activation_name(epilogue.activation));
      const Shape channels = {shape.back()};
      std::vector<HostTensor> in = {random_tensor(shape, 1, -5, 9), random_tensor(channels, 2),
                                    random_tensor(channels, 3, 0.5, 2.0),
                                    random_tensor(channels, 4)};
      if (epilogue.residual) in.push_back(random_tensor(shape, 5));
      const auto verify = [&](const std::vector<HostTensor>& out) {
        for (std::size_t i = 0; i < in[0].size(); ++i) {
          const std::size_t c = i % in[1].size();
          const double y =
              (in[0][i] - in[1][c]) * in[2][c] + in[3][c] + (epilogue.residual ? in[4][i] : 0.0);
          const double magnitude =
              (std::abs(in[0][i]) + std::abs(in[1][c])) * in[2][c] + std::abs(in[3][c]) + 1.0;
          if (!is_close(out[0], i, activated(epilogue, y), magnitude, kElementwiseUnits))
            FAIL_CHECK("output " << i << " is " << out[0][i]);
        }
      };
      const ops::BatchNormApply op{epilogue};
      check_kernels(op, in, verify);
      verify(run_kernel(op, to_float64(in)));
    }
  }
}

TEST_CASE("a residual that is normalised, too, gives the bits of one norm after the other") {
  for (const Shape& shape : kShapes) {
    for (const Epilogue& epilogue : kEpilogues) {
      if (!epilogue.residual) continue;
      CAPTURE(to_string(shape));
      CAPTURE(activation_name(epilogue.activation));
      const Shape channels = {shape.back()};
      const std::vector<HostTensor> in = {
          random_tensor(shape, 1, -5, 9),        random_tensor(channels, 2),
          random_tensor(channels, 3, 0.5, 2.0),  random_tensor(channels, 4),
          random_tensor(shape, 5, -3, 3),        random_tensor(channels, 6),
          random_tensor(channels, 7, -2.0, 2.0), random_tensor(channels, 8)};
      const ops::BatchNormApply op{epilogue};
      const auto verify = [&](const std::vector<HostTensor>& out) {
        for (std::size_t i = 0; i < in[0].size(); ++i) {
          const std::size_t c = i % in[1].size();
          const double y = (in[0][i] - in[1][c]) * in[2][c] + in[3][c] +
                           (in[4][i] - in[5][c]) * in[6][c] + in[7][c];
          const double magnitude = 2 * (std::abs(in[0][i]) + std::abs(in[4][i])) + 8;
          if (!is_close(out[0], i, activated(epilogue, y), magnitude, kElementwiseUnits))
            FAIL_CHECK("output " << i << " is " << out[0][i]);
        }
      };
      check_kernels(op, in, verify);
      verify(run_kernel(op, to_float64(in)));
      const auto first = run_kernel(ops::BatchNormApply{}, {in[4], in[5], in[6], in[7]});
      const auto apart = run_kernel(op, {in[0], in[1], in[2], in[3], first[0]});
      const auto both = run_kernel(op, in);
      for (std::size_t i = 0; i < in[0].size(); ++i) CHECK(both[0][i] == apart[0][i]);
    }
  }
}

TEST_CASE("both halves give the bits of the whole") {
  const Shape shape = {3, 9, 5, 17};
  const std::vector<HostTensor> in = {random_tensor(shape, 1, -2, 2), random_tensor({17}, 2),
                                      random_tensor({17}, 3), random_tensor({17}, 4),
                                      random_tensor({17}, 5, 0.5, 2.0)};
  const auto whole = run_kernel(ops::BatchNormTrain{}, in);
  const auto measured = run_kernel(ops::BatchNormStatistics{}, in);
  const auto applied =
      run_kernel(ops::BatchNormApply{}, {in[0], measured[0], measured[4], measured[5]});
  for (std::size_t i = 0; i < in[0].size(); ++i) CHECK(applied[0][i] == whole[0][i]);
  for (std::size_t k = 0; k < 4; ++k)
    for (std::size_t c = 0; c < 17; ++c) CHECK(measured[k][c] == whole[k + 1][c]);
}

TEST_CASE("the gradient of both halves passes through where the activation was open") {
  for (const Shape& shape : kShapes) {
    for (const Epilogue& epilogue : kEpilogues) {
      if (epilogue.residual && epilogue.activation != ActivationKind::kLeakyRelu) continue;
      CAPTURE(to_string(shape));
      CAPTURE(activation_name(epilogue.activation));
      const Shape channels = {shape.back()};
      const std::size_t count = static_cast<std::size_t>(shape.back());
      // input; scale; mean; inv_std; factor; offset; grad_output
      std::vector<HostTensor> in = {random_tensor(shape, 1, -4, 9),
                                    random_tensor(channels, 2),
                                    random_tensor(channels, 3),
                                    random_tensor(channels, 4, 0.5, 2.0),
                                    random_tensor(channels, 5, 0.5, 2.0),
                                    random_tensor(channels, 6),
                                    random_tensor(shape, 7)};
      keep_from_bends(in[0], in[2], in[4], in[5]);
      const double n = static_cast<double>(in[0].size()) / static_cast<double>(count);
      std::vector<double> sum(count), product(count), sum_size(count), product_size(count);
      const auto gated = [&](std::size_t i) {
        const std::size_t c = i % count;
        const double y = (in[0][i] - in[2][c]) * in[4][c] + in[5][c];
        return in[6][i] * slope_at(epilogue.activation, epilogue.slope, y);
      };
      for (std::size_t i = 0; i < in[0].size(); ++i) {
        const std::size_t c = i % count;
        const double centered = in[0][i] - in[2][c];
        sum[c] += gated(i), sum_size[c] += std::abs(gated(i));
        product[c] += gated(i) * centered, product_size[c] += std::abs(gated(i) * centered);
      }
      const auto verify = [&](const std::vector<HostTensor>& out) {
        for (std::size_t c = 0; c < count; ++c) {
          CHECK(
              is_close(out[1], c, product[c] * in[3][c], product_size[c] * in[3][c], sum_units(n)));
          CHECK(is_close(out[2], c, sum[c], sum_size[c], sum_units(n)));
        }
        for (std::size_t i = 0; i < in[0].size(); ++i) {
          const std::size_t c = i % count;
          const double f = in[1][c] * in[3][c], centered = (in[0][i] - in[2][c]) * in[3][c];
          const double want = f * (gated(i) - sum[c] / n - centered * product[c] * in[3][c] / n);
          const double size = std::abs(f) * (std::abs(gated(i)) + sum_size[c] / n +
                                             std::abs(centered) * product_size[c] * in[3][c] / n);
          if (!is_close(out[0], i, want, size, sum_units(n)))
            FAIL_CHECK("grad_input " << i << " is " << out[0][i] << ", expected " << want);
        }
      };
      const ops::BatchNormApplyGrad op{epilogue.activation, epilogue.slope};
      check_kernels(op, in, verify);
      verify(run_kernel(op, to_float64(in)));
    }
  }
}

TEST_CASE("a closed unit stops even an infinite gradient") {
  std::vector<HostTensor> in = {
      random_tensor({2, 3, 3, 5}, 1, -2, -1), random_tensor({5}, 2),
      random_tensor({5}, 3, 0, 0.1),          random_tensor({5}, 4, 0.5, 2.0),
      random_tensor({5}, 5, 0.5, 2.0),        random_tensor({5}, 6, -1, -0.5),
      random_tensor({2, 3, 3, 5}, 7)};
  in[6].set(7, kInfinity);
  check_kernels(ops::BatchNormApplyGrad{}, in, [&](const auto& out) {
    for (std::size_t i = 0; i < out[0].size(); ++i) CHECK(out[0][i] == 0.0);
  });
}

// As PyTorch has it: a leaky ReLU passes `x > 0 ? g : slope * g`, the others `x <= 0 ? 0 : g`. Sums
// of such numbers are exact.
TEST_CASE("NaN behind a batch norm passes what its activation says") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
    for (const Shape& shape : {Shape{2, 5, 4, 33}, Shape{1, 7, 9, 1}, Shape{40, 8}, Shape{3, 70}})
      for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                                        ActivationKind::kRelu6, ActivationKind::kLeakyRelu}) {
        CAPTURE(to_string(shape));
        CAPTURE(activation_name(kind));
        const auto channels = static_cast<std::size_t>(shape.back());
        const Shape vector = {shape.back()};
        const HostTensor zero(TensorSpec{vector, DType::kFloat32});
        const HostTensor one(vector, std::vector<double>(channels, 1.0));
        std::vector<HostTensor> in = {
            random_integers(shape, 1, 9, dtype), one, zero, one, one, zero,
            random_integers(shape, 2, 3, dtype)};
        std::vector<double> sums(channels);
        std::vector<bool> lost(channels);
        for (std::size_t i = 0; i < in[0].size(); ++i) {
          const std::size_t c = i % channels;
          if (c % 3 == 0 && i / channels % 4 == 1) in[0].set(i, kNaN), lost[c] = true;
          const double rest = kind == ActivationKind::kLeakyRelu ? 0.25 : 1.0;
          sums[c] += in[6][i] * (std::isnan(in[0][i]) ? rest : slope_at(kind, 0.25, in[0][i]));
        }
        check_kernels(ops::BatchNormApplyGrad{kind, 0.25}, in, [&](const auto& out) {
          for (std::size_t c = 0; c < channels; ++c) {
            CHECK(out[2][c] == sums[c]);
            CHECK(std::isnan(out[1][c]) == lost[c]);
          }
        });
      }
}

// More than 4 MB: what is stored first goes past the caches, unless it takes the place of an input;
// both have the same bits. Of one channel, some rows are left over; 100 are no whole lines.
TEST_CASE("results that go past the caches are those that do not") {
  for (const Shape& shape : std::vector<Shape>{{16'600, 64}, {1'060'009, 1}, {10'603, 100}}) {
    CAPTURE(to_string(shape));
    const Shape channels = {shape[1]};
    const std::vector<HostTensor> in = {random_tensor(shape, 1, -5, 9), random_tensor(channels, 2),
                                        random_tensor(channels, 3, 0.5, 2.0),
                                        random_tensor(channels, 4), random_tensor(shape, 5)};
    const ops::BatchNormApply op{{true, ActivationKind::kRelu, 0.01}};
    std::vector<HostTensor> both = in;
    both.insert(both.end(), {in[1], in[2], in[3]});
    for (const auto& inputs : {in, both}) {
      const auto want = run_kernel(op, to_float64(inputs));
      check_kernels(op, inputs, [&](const std::vector<HostTensor>& out) {
        std::size_t far = 0;
        for (std::size_t i = 0; i < out[0].size(); ++i)
          far += !is_close(out[0], i, want[0][i], 32, kElementwiseUnits);
        CHECK(far == 0);
      });
    }
    // input; scale; mean; inv_std; factor; offset; grad_output; and, then in the other order, sums
    std::vector<HostTensor> grad_in = {in[0], in[2], in[1], in[2], in[2], in[3], in[4]};
    for (const bool known : {false, true}) {
      if (known) grad_in.push_back(random_tensor({2, shape[1]}, 6));
      const auto want = run_kernel(ops::BatchNormApplyGrad{}, to_float64(grad_in));
      check_kernels(ops::BatchNormApplyGrad{}, grad_in, [&](const std::vector<HostTensor>& out) {
        std::size_t far = 0;
        for (std::size_t i = 0; i < out[0].size(); ++i)
          far += !is_close(out[0], i, want[0][i], 64, sum_units(static_cast<double>(shape[0])));
        // Some are at the bend.
        CHECK(far < 20);
      });
    }
  }
}
