#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

const std::vector<Shape> kShapes = {
    {2, 1, 1, 1},  {3, 5, 4, 1},   {2, 7, 7, 2},   {1, 3, 1, 3},   {3, 6, 6, 6},     {2, 9, 5, 15},
    {4, 8, 8, 16}, {2, 14, 9, 17}, {1, 7, 5, 33},  {2, 5, 5, 63},  {3, 4, 4, 64},    {2, 3, 3, 65},
    {7, 1000},     {2, 2049},      {3, 2, 2, 257}, {2, 60, 70, 6}, {1, 130, 130, 64}};

struct Column {
  double mean = 0, variance = 0, magnitude = 0, n = 0;
};
std::vector<Column> columns_of(const HostTensor& x) {
  const auto channels = static_cast<std::size_t>(x.spec.shape.back());
  std::vector<Column> columns(channels);
  const double n = static_cast<double>(x.size() / channels);
  for (std::size_t i = 0; i < x.size(); ++i) {
    columns[i % channels].mean += x[i] / n;
    columns[i % channels].magnitude += std::abs(x[i]) / n;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    Column& c = columns[i % channels];
    c.variance += (x[i] - c.mean) * (x[i] - c.mean) / n;
    c.n = n;
  }
  return columns;
}

std::vector<HostTensor> train_inputs(const Shape& shape, std::uint64_t seed, double low,
                                     double high) {
  const Shape channels = {shape.back()};
  return {random_tensor(shape, seed, low, high), random_tensor(channels, seed + 1, 0.5, 2.0),
          random_tensor(channels, seed + 2), random_tensor(channels, seed + 3),
          random_tensor(channels, seed + 4, 0.5, 2.0)};
}

std::vector<HostTensor> to_float64(const std::vector<HostTensor>& tensors) {
  std::vector<HostTensor> wide;
  for (const HostTensor& tensor : tensors) wide.push_back(testing::to_float64(tensor));
  return wide;
}

void verify_train(const std::vector<HostTensor>& in, const std::vector<HostTensor>& out,
                  const ops::BatchNormTrain& op) {
  const std::vector<Column> columns = columns_of(in[0]);
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const Column& k = columns[c];
    CAPTURE(c);
    // The deviations are as exact as the inputs, not as the mean is small: a one-pass formula
    // fails.
    const double inv_std = 1 / std::sqrt(k.variance + op.eps), units = sum_units(k.n);
    const double unbiased = k.variance * k.n / (k.n - 1);
    CHECK(is_close(out[1], c, k.mean, k.magnitude, units));
    CHECK(is_close(out[2], c, inv_std, inv_std, units));
    CHECK(is_close(out[3], c, (1 - op.momentum) * in[3][c] + op.momentum * k.mean,
                   std::abs(in[3][c]) + k.magnitude, units));
    CHECK(is_close(out[4], c, (1 - op.momentum) * in[4][c] + op.momentum * unbiased,
                   std::abs(in[4][c]) + unbiased, units));
  }
  for (std::size_t i = 0; i < in[0].size(); ++i) {
    const std::size_t c = i % columns.size();
    const Column& k = columns[c];
    const double factor = in[1][c] / std::sqrt(k.variance + op.eps);
    const double centered = in[0][i] - k.mean;
    // One rounding of the shift, a few of the product; what float loses of the mean is in neither.
    const double magnitude =
        std::abs(in[2][c]) + std::abs(factor) * (std::abs(centered) + std::sqrt(k.variance));
    if (!is_close(out[0], i, centered * factor + in[2][c], magnitude, sum_units(k.n)))
      FAIL_CHECK("output " << i << " is " << out[0][i] << ", expected "
                           << centered * factor + in[2][c]);
  }
}

}  // namespace

TEST_CASE("training batch norm normalises by the batch's moments") {
  for (const Shape& shape : kShapes) {
    CAPTURE(to_string(shape));
    ops::BatchNormTrain op;
    op.momentum = 0.3;
    const auto inputs = train_inputs(shape, 1, -2, 2);
    check_kernels(op, inputs, [&](const auto& out) { verify_train(inputs, out, op); });
    verify_train(inputs, run_kernel(op, to_float64(inputs)), op);
  }
}

TEST_CASE("a mean of 3000 at a deviation of 1 does not spoil the variance") {
  for (const Shape& shape : {Shape{2, 60, 70, 6}, Shape{1, 130, 130, 64}, Shape{9, 1000}}) {
    CAPTURE(to_string(shape));
    const ops::BatchNormTrain op;
    const auto inputs = train_inputs(shape, 11, 3000 - std::sqrt(3.0), 3000 + std::sqrt(3.0));
    check_kernels(op, inputs, [&](const auto& out) { verify_train(inputs, out, op); });
  }
}

TEST_CASE("an outlier in the first row does not spoil the variance") {
  const ops::BatchNormTrain op;
  auto inputs = train_inputs({2, 20, 20, 6}, 12, 2999, 3001);
  for (std::size_t c = 0; c < 6; ++c) inputs[0].set(c, 0.0);
  check_kernels(op, inputs, [&](const auto& out) { verify_train(inputs, out, op); });
}

TEST_CASE("constant channels have variance 0") {
  const ops::BatchNormTrain op;
  for (const double value : {0.0, 0.1, 3000.3}) {
    auto inputs = train_inputs({3, 17, 5, 6}, 13, -1, 1);
    for (std::size_t i = 0; i < inputs[0].size(); ++i) inputs[0].set(i, value);
    check_kernels(op, inputs, [&](const auto& out) {
      for (std::size_t c = 0; c < 6; ++c) CHECK(out[2][c] == doctest::Approx(1 / std::sqrt(1e-5)));
    });
  }
}

TEST_CASE("NaN and infinities stay in their channel") {
  for (const Shape& shape : {Shape{2, 7, 7, 6}, Shape{2, 3, 3, 65}, Shape{3, 9, 17}}) {
    CAPTURE(to_string(shape));
    for (const double poison : {kNaN, kInfinity}) {
      auto inputs = train_inputs(shape, 14, -1, 1);
      const auto channels = static_cast<std::size_t>(shape.back());
      inputs[0].set(channels * 3 + 2, poison);
      check_kernels(ops::BatchNormTrain{}, inputs, [&](const auto& out) {
        for (std::size_t i = 0; i < out[0].size(); ++i)
          CHECK(std::isnan(out[0][i]) == (i % channels == 2));
        for (std::size_t c = 0; c < channels; ++c) {
          CHECK(std::isfinite(out[3][c]) == (c != 2));
          CHECK(std::isfinite(out[4][c]) == (c != 2));
        }
      });
    }
  }
}

namespace {

// From the definitions, without simplification: the gradient through mean and variance apart.
struct Gradients {
  std::vector<double> input, scale, shift, input_magnitude, scale_magnitude, shift_magnitude;
};
Gradients expected_gradients(const std::vector<HostTensor>& in, bool through_statistics,
                             const std::vector<double>& inv_std) {
  const HostTensor &x = in[0], &scale = in[1], &mean = in[2], &g = in[4];
  const std::size_t channels = scale.size();
  const double n = static_cast<double>(x.size() / channels);
  Gradients r;
  r.input.resize(x.size()), r.input_magnitude.resize(x.size());
  r.scale.resize(channels), r.scale_magnitude.resize(channels);
  r.shift.resize(channels), r.shift_magnitude.resize(channels);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    const double term = g[i] * (x[i] - mean[c]) * inv_std[c];
    r.scale[c] += term, r.scale_magnitude[c] += std::abs(term);
    r.shift[c] += g[i], r.shift_magnitude[c] += std::abs(g[i]);
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    const double normal = (x[i] - mean[c]) * inv_std[c], f = scale[c] * inv_std[c];
    r.input[i] = f * g[i];
    r.input_magnitude[i] = std::abs(f * g[i]);
    if (!through_statistics) continue;
    r.input[i] -= f * (r.shift[c] + normal * r.scale[c]) / n;
    r.input_magnitude[i] +=
        std::abs(f) * (r.shift_magnitude[c] + std::abs(normal) * r.scale_magnitude[c]) / n;
  }
  return r;
}

void verify_gradients(const Gradients& want, const std::vector<HostTensor>& out, double rows) {
  const double units = sum_units(rows);
  for (std::size_t i = 0; i < want.input.size(); ++i)
    if (!is_close(out[0], i, want.input[i], want.input_magnitude[i], units))
      FAIL_CHECK("grad_input " << i << " is " << out[0][i] << ", expected " << want.input[i]);
  for (std::size_t c = 0; c < want.scale.size(); ++c) {
    CHECK(is_close(out[1], c, want.scale[c], want.scale_magnitude[c], units));
    CHECK(is_close(out[2], c, want.shift[c], want.shift_magnitude[c], units));
  }
}

}  // namespace

TEST_CASE("the gradient of training batch norm passes through mean and variance") {
  for (const Shape& shape : kShapes) {
    CAPTURE(to_string(shape));
    auto in = train_inputs(shape, 21, -2, 2);
    std::vector<double> inv_std;
    for (std::size_t c = 0; c < in[1].size(); ++c) {
      const Column column = columns_of(in[0])[c];
      in[2].set(c, column.mean);
      in[3].set(c, 1 / std::sqrt(column.variance + 1e-5));
      inv_std.push_back(in[3][c]);
      if (in[1].size() > 300) break;
    }
    for (std::size_t c = inv_std.size(); c < in[1].size(); ++c) inv_std.push_back(in[3][c]);
    in[4] = random_tensor(shape, 22);
    const Gradients want = expected_gradients(in, true, inv_std);
    const double rows = static_cast<double>(in[0].size() / in[1].size());
    const ops::BatchNormTrainGrad op;
    check_kernels(op, in, [&](const auto& out) { verify_gradients(want, out, rows); });
    verify_gradients(want, run_kernel(op, to_float64(in)), rows);
  }
}

TEST_CASE("the gradient of batch norm matches finite differences in float64") {
  const Shape shape = {2, 5, 3, 7};
  const ops::BatchNormTrain op;
  auto in = to_float64(train_inputs(shape, 31, -2, 2));
  const HostTensor weights = random_tensor(shape, 32, -1, 1, DType::kFloat64);
  auto loss = [&](const std::vector<HostTensor>& inputs) {
    const auto out = run_kernel(op, inputs);
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) sum += weights[i] * out[0][i];
    return sum;
  };
  const auto forward = run_kernel(op, in);
  const auto grads =
      run_kernel(ops::BatchNormTrainGrad{}, {in[0], in[1], forward[1], forward[2], weights});
  for (std::size_t which = 0; which < 3; ++which) {
    const HostTensor direction = random_tensor(in[which].spec.shape, 33, -1, 1, DType::kFloat64);
    double analytic = 0;
    for (std::size_t i = 0; i < direction.size(); ++i) analytic += grads[which][i] * direction[i];
    auto ahead = in, behind = in;
    constexpr double kStep = 1e-5;
    for (std::size_t i = 0; i < direction.size(); ++i) {
      ahead[which].set(i, in[which][i] + kStep * direction[i]);
      behind[which].set(i, in[which][i] - kStep * direction[i]);
    }
    const double numeric = (loss(ahead) - loss(behind)) / (2 * kStep);
    CHECK(analytic == doctest::Approx(numeric).epsilon(1e-7));
  }
}

TEST_CASE("inference batch norm applies the running statistics") {
  std::vector<Shape> shapes = kShapes;
  shapes.push_back({0, 4, 4, 6});
  shapes.push_back({1, 1, 1, 64});
  for (const Shape& shape : shapes) {
    CAPTURE(to_string(shape));
    const ops::BatchNormInference op;
    const auto in = train_inputs(shape, 41, -2, 2);
    auto verify = [&](const std::vector<HostTensor>& out) {
      for (std::size_t i = 0; i < in[0].size(); ++i) {
        const std::size_t c = i % in[1].size();
        const double f = in[1][c] / std::sqrt(in[4][c] + op.eps);
        const double want = (in[0][i] - in[3][c]) * f + in[2][c];
        const double magnitude =
            std::abs(f) * (std::abs(in[0][i]) + std::abs(in[3][c])) + std::abs(in[2][c]);
        if (!is_close(out[0], i, want, magnitude, kElementwiseUnits))
          FAIL_CHECK("output " << i << " is " << out[0][i] << ", expected " << want);
      }
    };
    check_kernels(op, in, verify);
    verify(run_kernel(op, to_float64(in)));

    // input; scale; running_mean; running_var; grad_output
    const std::vector<HostTensor> grad_in = {in[0], in[1], in[3], in[4], random_tensor(shape, 42)};
    std::vector<double> inv_std;
    for (std::size_t c = 0; c < in[4].size(); ++c)
      inv_std.push_back(1 / std::sqrt(in[4][c] + 1e-5));
    const Gradients want = expected_gradients(grad_in, false, inv_std);
    const double rows = static_cast<double>(in[0].size() / in[1].size());
    check_kernels(ops::BatchNormInferenceGrad{}, grad_in,
                  [&](const auto& out) { verify_gradients(want, out, rows); });
  }
}

TEST_CASE("with fixed statistics the gradient does not look at the input") {
  auto in = train_inputs({2, 5, 5, 6}, 51, -1, 1);
  in[0].set(8, kInfinity);
  in[4] = random_tensor({2, 5, 5, 6}, 52);
  in[3] = random_tensor({6}, 53, 0.5, 2.0);
  check_kernels(ops::BatchNormInferenceGrad{}, in, [&](const auto& out) {
    for (std::size_t i = 0; i < out[0].size(); ++i) CHECK(std::isfinite(out[0][i]));
  });
}

TEST_CASE("folding a batch norm gives the weights of the joined layer") {
  for (const bool with_bias : {true, false}) {
    std::vector<HostTensor> in = {random_tensor({6, 3, 3, 5}, 61), random_tensor({6}, 62),
                                  random_tensor({6}, 63), random_tensor({6}, 64),
                                  random_tensor({6}, 65, 0.5, 2.0)};
    if (with_bias) in.push_back(random_tensor({6}, 66));
    const ops::FoldBatchNorm op{1e-3};
    check_kernels(op, in, [&](const auto& out) {
      for (std::size_t oc = 0; oc < 6; ++oc) {
        const double f = in[1][oc] / std::sqrt(in[4][oc] + 1e-3);
        const double bias = with_bias ? in[5][oc] : 0.0;
        for (std::size_t i = oc * 45; i < (oc + 1) * 45; ++i)
          CHECK(is_close(out[0], i, in[0][i] * f, std::abs(in[0][i] * f), 2));
        CHECK(is_close(out[1], oc, (bias - in[3][oc]) * f + in[2][oc],
                       (std::abs(bias) + std::abs(in[3][oc])) * std::abs(f) + std::abs(in[2][oc]),
                       2));
      }
    });
  }
}
