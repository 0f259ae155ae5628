#include "rounded_results.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

struct Case {
  Shape input;
  ops::MaxPool2d pool;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {{2, 28, 28, 6}, {}},
      {{1, 7, 9, 17}, {}},  // an uncovered row and column
      {{3, 11, 10, 64}, {{3, 3}, {2, 2}, {1, 1, 1, 1}}},
      {{2, 5, 5, 1}, {{2, 2}, {2, 2}, {}, {1, 1}, true}},
      {{1, 13, 13, 33}, {{3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}, true}},
      {{2, 8, 8, 65}, {{3, 3}, {1, 1}, {1, 1, 1, 1}}},
      {{1, 9, 11, 5}, {{4, 5}, {3, 2}, {1, 2, 0, 2}, {1, 1}, true}},
      {{2, 10, 9, 6}, {{4, 3}, {2, 3}, {2, 0, 1, 1}}},
      {{2, 1, 1, 17}, {{3, 3}, {1, 1}, {1, 1, 1, 1}}},
      {{2, 9, 9, 6}, {{2, 2}, {3, 3}}},  // stride > kernel
      {{1, 20, 20, 3}, {{1, 1}, {50, 7}}},
      {{2, 14, 14, 17}, {{2, 3}, {4, 7}, {0, 1, 0, 2}, {3, 2}, true}},
      {{3, 7, 5, 23}, {{3, 3}, {1, 4}, {1, 1, 0, 0}, {2, 2}}},
      {{0, 6, 6, 4}, {{3, 3}, {2, 2}}},
      // Of many channels, which bfloat16 takes by parts, of few images or many.
      {{8, 6, 6, 200}, {{3, 3}, {2, 2}, {1, 1, 1, 1}}},
      {{3, 6, 6, 200}, {{2, 2}, {2, 2}, {}, {1, 1}, true}},
      // More than a band of rows, and more than 4 MB, part of which goes past the caches.
      {{2, 132, 70, 64}, {{3, 3}, {2, 2}, {1, 1, 1, 1}}},
      {{1, 90, 181, 67}, {{2, 2}, {2, 2}, {1, 0, 0, 1}}},
      {{1, 80, 600, 5}, {{3, 2}, {5, 3}, {1, 0, 0, 1}}},
      {{1, 601, 33, 24}, {{2, 3}, {7, 2}, {1, 1, 1, 1}, {9, 1}}},
  };
  return list;
}

const std::vector<ActivationKind> kActivations = {ActivationKind::kRelu, ActivationKind::kIdentity,
                                                  ActivationKind::kRelu6,
                                                  ActivationKind::kLeakyRelu};

// Numbers whose products and sums float32 (and those of one element bfloat16) holds all exactly:
// the order of sums makes no difference. There are ties everywhere, and channels that fall.
struct Inputs {
  HostTensor x, scale, mean, inv_std, factor, offset, grad_output;

  Inputs(const Case& c, DType dtype, int limit = 3) : x(random_integers(c.input, 1, limit, dtype)) {
    const Shape channels = {c.input[3]};
    scale = random_integers(channels, 2, 2), mean = random_integers(channels, 3, 2);
    offset = random_integers(channels, 4, 2);
    factor = inv_std = HostTensor({channels, DType::kFloat32});
    const double factors[] = {0.5, -1.0, 1.0, 2.0, -0.5};
    for (std::size_t i = 0; i < factor.size(); ++i) {
      factor.set(i, factors[i % 5]);
      inv_std.set(i, i % 2 == 0 ? 1.0 : 0.5);
    }
    const Shape output = c.pool.infer({&x.spec, 1})[0].shape;
    grad_output = random_integers(output, 5, 3, dtype);
  }
  std::vector<HostTensor> forward() const { return {x, mean, factor, offset}; }
  std::vector<HostTensor> backward() const {
    return {x, scale, mean, inv_std, factor, offset, grad_output};
  }
  // With some NaN in the input, of each fourth channel.
  std::vector<HostTensor> with_nan() const {
    std::vector<HostTensor> in = backward();
    const auto channels = static_cast<std::size_t>(x.spec.shape[3]);
    for (std::size_t pixel = 2; pixel < x.size() / channels; pixel += 5)
      for (std::size_t c = pixel % 2; c < channels; c += 4) in[0].set(pixel * channels + c, kNaN);
    return in;
  }
};

std::vector<HostTensor> wide(std::vector<HostTensor> tensors) {
  for (HostTensor& tensor : tensors) tensor = to_float64(tensor);
  return tensors;
}

// By the kernels of the two ops; "" chooses the best ones.
HostTensor apart(const ops::BatchNormMaxPool& op, const std::vector<HostTensor>& in,
                 const std::string& norm = "", const std::string& pool = "") {
  KernelRun first, second;
  first.variant = norm, second.variant = pool;
  const auto between = run_kernel(ops::BatchNormApply{{false, op.activation, op.slope}}, in, first);
  return run_kernel(op.pool, between, second)[0];
}
std::vector<HostTensor> gradients_apart(const ops::BatchNormMaxPool& op,
                                        const std::vector<HostTensor>& in,
                                        const std::string& norm = "",
                                        const std::string& pool = "") {
  KernelRun first, second;
  first.variant = norm, second.variant = pool;
  const auto between = run_kernel(ops::BatchNormApply{{false, op.activation, op.slope}},
                                  {in[0], in[2], in[4], in[5]}, first);
  std::vector<HostTensor> inputs = in;
  inputs[6] = run_kernel(ops::MaxPool2dGrad{op.pool}, {between[0], in[6]}, second)[0];
  if (!norm.empty()) first.variant = "batch_norm_apply_grad" + norm.substr(norm.find('.'));
  return run_kernel(ops::BatchNormApplyGrad{op.activation, op.slope}, inputs, first);
}

}  // namespace

TEST_CASE("a max pool that normalises what it reads is the two ops") {
  for (const Case& c : cases())
    for (const ActivationKind kind : kActivations) {
      CAPTURE(activation_name(kind));
      const ops::BatchNormMaxPool op{c.pool, kind, 0.25};
      const std::vector<HostTensor> in = Inputs(c, DType::kFloat32).forward();
      const HostTensor want = apart(op, in);
      check_kernels(op, in, [&](const auto& out) { CHECK(same_numbers(out, {want})); });
    }
}

TEST_CASE("the gradient through a max pool and a batch norm is that of the two") {
  for (const Case& c : cases())
    for (const ActivationKind kind : kActivations) {
      CAPTURE(activation_name(kind));
      const ops::BatchNormMaxPool op{c.pool, kind, 0.25};
      const std::vector<HostTensor> in = Inputs(c, DType::kFloat32).backward();
      const auto want =
          gradients_apart(op, wide(in), "batch_norm_apply.reference", "max_pool2d_grad.reference");
      check_kernels(ops::BatchNormMaxPoolGrad{op}, in, [&](const std::vector<HostTensor>& out) {
        for (std::size_t k = 0; k < 3; ++k) {
          std::size_t wrong = 0;
          for (std::size_t i = 0; i < want[k].size(); ++i)
            wrong += !is_close(out[k], i, want[k][i], 32 + std::abs(want[k][i]), 16);
          CHECK(wrong == 0);
        }
      });
      CHECK(same_bits(run_kernel(ops::BatchNormMaxPoolGrad{op}, wide(in)), want));
    }
}

TEST_CASE("a fused max pool has the bits of the two ops' kernels") {
  for (const Case& c : cases())
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      const bool narrow = dtype == DType::kBFloat16;
      CAPTURE(to_string(c.input));
      CAPTURE(narrow);
      const ops::BatchNormMaxPool op{c.pool, ActivationKind::kRelu, 0.0};
      const Inputs exact(c, dtype);
      std::vector<HostTensor> odd = exact.forward();
      odd[0] = random_tensor(c.input, 6, -3, 3, dtype);
      for (std::size_t i = 0; i < odd[0].size(); ++i) {
        if (i % 37 == 3) odd[0].set(i, kNaN);
        if (i % 41 == 5) odd[0].set(i, kInfinity);
        if (i % 43 == 2) odd[0].set(i, -kInfinity);
      }
      odd[1] = random_tensor({c.input[3]}, 7), odd[2] = random_tensor({c.input[3]}, 8);
      odd[3] = random_tensor({c.input[3]}, 9);
      int ran = 0;
      for (const Isa each : {Isa::kAvx512, Isa::kAvx2, Isa::kBaseline}) {
        if (each > best_isa() || (narrow && each != Isa::kAvx512)) continue;
        const std::string isa = isa_name(each);
        CAPTURE(isa);
        const std::string norm = "batch_norm_apply.chunked." + isa;
        const std::string kind = narrow ? "bfloat16." : "";
        const std::string direct = "max_pool2d." + (narrow ? kind : "direct.") + isa;
        // Which of the gradients' kernels takes the windows makes no difference.
        const std::string pool_grad = narrow ? "" : "max_pool2d_grad.overlapping.baseline";
        KernelRun run;
        run.variant = "batch_norm_max_pool.rows." + kind + isa;
        for (const auto& in : {exact.forward(), odd})
          CHECK(same_numbers(
              run_kernel(op, in, run),
              {apart(op, in, norm,
                     // Few channels are not for vectors as long as that.
                     c.input[3] <= 8 && !narrow ? "max_pool2d.direct.baseline" : direct)}));
        run.variant = "batch_norm_max_pool_grad.rows." + kind + isa;
        for (const auto& in : {exact.backward(), exact.with_nan()})
          CHECK(same_numbers(run_kernel(ops::BatchNormMaxPoolGrad{op}, in, run),
                             gradients_apart(op, in, norm, pool_grad)));
        ++ran;
      }
      CHECK((ran > 0 || narrow));
    }
}

// Its channel alone is lost, and of that the shift's gradient is what the windows gave.
TEST_CASE("NaN wins a window in the gradient of a fused max pool, too") {
  const Case c{{1, 4, 4, 5}, {}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16})
    for (const ActivationKind kind : kActivations) {
      CAPTURE(activation_name(kind));
      Inputs in(c, dtype);
      const ops::BatchNormMaxPoolGrad op{{c.pool, kind, 0.25}};
      const std::vector<HostTensor> before = run_kernel(op, in.backward());
      // One that wins and one that a larger number beat; the rest is closed where something can be.
      for (std::size_t pixel = 0; pixel < 16; ++pixel) in.x.set(pixel * 5 + 1, -9.0);
      in.factor.set(1, 1.0), in.mean.set(1, 0.0), in.offset.set(1, 0.0);
      in.x.set(6 * 5 + 1, kNaN), in.x.set(7 * 5 + 1, kInfinity), in.x.set(8 * 5 + 1, 2.0);
      for (std::size_t window = 0; window < 4; ++window)
        in.grad_output.set(window * 5 + 1, static_cast<double>(window + 1));
      // NaN is not below 0, nor above it: a ReLU is open for it, a leaky one is not.
      const double shift = kind == ActivationKind::kIdentity    ? 1.0 + 2.0 + 3.0 + 4.0
                           : kind == ActivationKind::kLeakyRelu ? 0.25 * (1.0 + 2.0 + 4.0) + 3.0
                                                                : 2.0 + 3.0;
      check_kernels(op, in.backward(), [&](const std::vector<HostTensor>& out) {
        for (std::size_t i = 0; i < out[0].size(); ++i)
          CHECK((i % 5 == 1 ? std::isnan(out[0][i])
                            : is_close(out[0], i, before[0][i], 32 + std::abs(before[0][i]), 16)));
        for (std::size_t channel = 0; channel < 5; ++channel) {
          if (channel == 1) continue;
          CHECK(out[1][channel] == before[1][channel]);
          CHECK(out[2][channel] == before[2][channel]);
        }
        CHECK(std::isnan(out[1][1]));
        CHECK(out[2][1] == shift);
      });
    }
}

// Those of bfloat16 as well, by whichever kernel.
TEST_CASE("threads and pixels that lie apart do not change a fused max pool of bfloat16") {
  for (const Case& c : cases()) {
    const ops::BatchNormMaxPool op{c.pool, ActivationKind::kRelu6, 0.0};
    const Inputs in(c, DType::kBFloat16);
    check_kernels(op, in.forward(), [](const auto&) {});
    check_kernels(ops::BatchNormMaxPoolGrad{op}, in.backward(), [](const auto&) {});
  }
}

TEST_CASE("a closed unit that wins a window stops even an infinite gradient") {
  const Case c{{2, 6, 6, 5}, {{3, 3}, {2, 2}, {1, 1, 1, 1}}};
  Inputs in(c, DType::kFloat32);
  in.x = random_tensor(c.input, 1, -2, -1);
  in.mean = in.offset = HostTensor({{5}, DType::kFloat32});
  in.factor = random_tensor({5}, 2, 0.5, 1.0);
  in.grad_output.set(7, kInfinity);
  check_kernels(ops::BatchNormMaxPoolGrad{{c.pool}}, in.backward(), [&](const auto& out) {
    for (const HostTensor& tensor : out)
      for (std::size_t i = 0; i < tensor.size(); ++i) CHECK(tensor[i] == 0.0);
  });
}

TEST_CASE("fused max pools take what their parts take") {
  const TensorSpec image{{2, 5, 5, 3}, DType::kFloat32}, vector{{3}, DType::kFloat32};
  const std::vector<TensorSpec> in = {image, vector, vector, vector};
  CHECK(ops::BatchNormMaxPool{}.infer(in)[0].shape == Shape{2, 2, 2, 3});
  CHECK_THROWS_WITH_AS((ops::BatchNormMaxPool{{}, ActivationKind::kTanh}.infer(in)),
                       doctest::Contains("activation is tanh"), ArgumentError);
  CHECK_THROWS_AS(ops::BatchNormMaxPool{}.infer({{image, vector, vector, {{2}, DType::kFloat32}}}),
                  ShapeError);
  CHECK_THROWS_WITH_AS(
      ops::BatchNormMaxPoolGrad{}.infer({{image, vector, vector, vector, vector, vector, image}}),
      doctest::Contains("the output of the pool"), ShapeError);
}
