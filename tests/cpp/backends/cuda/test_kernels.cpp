// Kernels of the CUDA module (check_kernel.h) that have no file of their own here.
#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

TEST_CASE("cuda kernels: softmax, losses and ranks") {
  for (const std::int64_t classes : {1, 3, 10, 300}) {
    const HostTensor x = random_tensor({5, classes}, 1, -9, 9);
    const HostTensor g = random_tensor({5, classes}, 2);
    check(ops::Softmax{}, {x});
    check(ops::LogSoftmax{}, {x});
    check(ops::SoftmaxGrad{}, {random_tensor({5, classes}, 3, 0, 1), g});
    check(ops::LogSoftmaxGrad{}, {random_tensor({5, classes}, 3, -9, 0), g});
    const HostTensor labels = integers({0, classes - 1, classes / 2, classes / 3, 0});
    const HostTensor soft = random_tensor({5, classes}, 4, 0, 1);
    const HostTensor grad_loss(Shape{}, {0.7});
    for (const double smoothing : {0.0, 0.1})
      for (const HostTensor& target :
           {labels, integers({0, 0, classes - 1, 0, 0}, DType::kInt32), soft}) {
        check(ops::SoftmaxCrossEntropy{smoothing}, {x, target});
        check(ops::SoftmaxCrossEntropyGrad{smoothing}, {x, target, grad_loss});
      }
    for (const std::int64_t k : {1, 2, 5})
      if (k <= classes) check(ops::TopKCorrect{k}, {random_integers({5, classes}, 5, 2), labels});
    check(ops::MeanSquaredError{}, {x, g});
    check(ops::MeanSquaredErrorGrad{}, {x, g, grad_loss});
  }
}

TEST_CASE("cuda kernels: labels that are no class make the loss NaN") {
  check(ops::SoftmaxCrossEntropy{}, {random_tensor({2, 4}, 1), integers({1, 4})});
  check(ops::TopKCorrect{1}, {random_tensor({2, 4}, 1), integers({-1, 4})});
}

TEST_CASE("cuda kernels: ranks among many classes, some of which are no numbers") {
  for (const std::int64_t classes : {32, 33, 300, 1000}) {
    HostTensor scores = random_integers({6, classes}, 5, 3);
    const auto at = [&](std::int64_t row, std::int64_t c) {
      return static_cast<std::size_t>(row * classes + c);
    };
    scores.set(at(2, 7), NAN);
    scores.set(at(3, 8), NAN);
    const HostTensor labels = integers({-1, classes, 7, 9, 0, classes - 1});
    // The rank of the last row's label, and those around it.
    std::int64_t rank = 0;
    for (std::int64_t c = 0; c + 1 < classes; ++c)
      rank += scores[at(5, c)] >= scores[at(5, classes - 1)] ? 1 : 0;
    for (const std::int64_t k : {std::int64_t{1}, rank, rank + 1, classes})
      if (k > 0) check(ops::TopKCorrect{k}, {scores, labels});
  }
}

// One thread for each row would read one class after the other.
TEST_CASE("cuda kernels: a row of many classes has threads of its own") {
  if (!is_emulated()) return;
  const auto launches = [](std::int64_t classes) {
    const Calls calls;
    Kernel kernel;
    const Tensors inputs = {random_tensor({3, classes}, 1), integers({0, 1, 2})};
    const ops::TopKCorrect op{1};
    run_on_device(op, inputs, op.infer(specs_of(inputs)), {}, kernel);
    return calls.count("launch");
  };
  CHECK(launches(10) == 1);
  CHECK(launches(1000) == 2);
}

TEST_CASE("cuda kernels: optimizers") {
  for (const std::int64_t n : {1, 3, 1030}) {
    const HostTensor p = random_tensor({n}, 1), g = random_tensor({n}, 2), rate(Shape{1}, {0.03}),
                     v = random_tensor({n}, 3), positive = random_tensor({n}, 4, 0.1, 2.0),
                     factor(Shape{}, {0.4});
    const HostTensor step = integers({12});
    constexpr std::size_t kRate = 2;
    check(ops::SgdUpdate{}, {p, g, rate}, kRate);
    check(ops::SgdUpdate{0.0, false, 0.01, 0.5, true}, {p, g, rate, factor}, kRate);
    check(ops::SgdUpdate{0.9, false, 0.01}, {p, g, rate, v}, kRate);
    check(ops::SgdUpdate{0.9, true, 0.0, 2.0, true}, {p, g, rate, v, factor}, kRate);
    check(ops::AdamUpdate{}, {p, g, rate, step, v, positive}, kRate);
    check(ops::AdamUpdate{0.8, 0.9, 1e-5, 0.1, true, 0.5, true},
          {p, g, rate, step, v, positive, factor}, kRate);
    const HostTensor skip(Shape{}, {-1.0});
    HostTensor lost = g;
    lost.set(0, kNaN);
    check(ops::SgdUpdate{0.0, false, 0.01, 0.5, true}, {p, lost, rate, skip}, kRate);
    check(ops::SgdUpdate{0.9, true, 0.01, 2.0, true}, {p, lost, rate, v, skip}, kRate);
    check(ops::AdamUpdate{0.8, 0.9, 1e-5, 0.1, true, 0.5, true},
          {p, lost, rate, step, v, positive, skip}, kRate);
    for (const HostTensor& each : {skip, factor}) {
      check(ops::Commit{}, {g, p, each});
      check(ops::Commit{}, {step, integers({11}), each});
    }
    check(ops::EmaUpdate{0.99}, {p, g, step});
    check(ops::EmaUpdate{0.2}, {p, g, step});
    check(ops::ClipFactor{1.0}, {p, random_tensor({5000}, 5), g});
    check(ops::ClipFactor{1e9}, {p});
    check(ops::ClipFactor{kInfinity}, {p, g});
  }
  for (const double norm : {0.0, 8.0, 1e6, kInfinity, kNaN})
    for (const double scale : {0x1p-24, 1024.0, 0x1p24})
      for (const std::int64_t good_steps : {0, 9})
        check(ops::LossScale{10, 1.0},
              {HostTensor(Shape{}, {norm}), HostTensor(Shape{}, {scale}), integers({good_steps})});
  Kernel kernel;
  const Tensors next = run_on_device(ops::Increment{}, {integers({41})},
                                     {TensorSpec{{1}, DType::kInt64}}, {}, kernel);
  CHECK(next[0].as<std::int64_t>()[0] == 42);
}

TEST_CASE("cuda kernels: Muon") {
  const HostTensor rate(Shape{1}, {0.03}), factor(Shape{}, {0.4});
  constexpr std::size_t kRate = 2;
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 5}, Shape{7, 2}, Shape{4, 3, 3, 2},
                             Shape{70, 66}, Shape{66, 5, 14}}) {
    const HostTensor p = random_tensor(shape, 1), g = random_tensor(shape, 2),
                     v = random_tensor(shape, 3);
    check(ops::MuonUpdate{}, {p, g, rate, v}, kRate);
    check(ops::MuonUpdate{0.8, false, 0.1, 3, 2.0, true}, {p, g, rate, v, factor}, kRate);
  }
  const HostTensor zero(Shape{2, 3}, std::vector<double>(6, 0.0));
  check(ops::MuonUpdate{}, {zero, zero, rate, zero}, kRate);
}

TEST_CASE("cuda kernels: what there is none for is refused with a reason") {
  const DeviceModule& module = cuda_module();
  const auto refusal_of = [&](const Op& op, const std::vector<TensorSpec>& inputs,
                              const char* pinned = "") {
    Problem problem;
    problem.inputs = inputs;
    problem.pinned = pinned;
    Selection selection;
    std::string refusal;
    CHECK(!module.select(0, op, problem, selection, refusal));
    return refusal;
  };
  const TensorSpec matrix{{2, 3}, DType::kFloat32};
  CHECK(refusal_of(ops::DenseSgdUpdate{}, {matrix}) ==
        "dense_sgd_update: not on cuda yet: there is no kernel for this op");
  CHECK(refusal_of(ops::Softmax{}, {{{2, 3}, DType::kFloat64}}) ==
        "softmax: not on cuda yet: float64 is computed on the CPU only");
  CHECK(refusal_of(ops::Softmax{}, {matrix}, "softmax.avx2") ==
        "softmax: no kernel 'softmax.avx2' on cuda, there is softmax.cuda");
  const TensorSpec images{{1, 4, 4, 2}, DType::kFloat32}, weight{{3, 1, 1, 2}, DType::kFloat32};
  for (const ops::Conv2d& op :
       {conv({std::int64_t{1} << 33, 1}, {}), conv({1, 1}, {}, {1, std::int64_t{1} << 32})})
    CHECK(refusal_of(op, {images, weight}) ==
          "conv2d: not on cuda yet: a stride, dilation or padding is more than 2^29");
  const auto images_of = [](std::int64_t n, std::int64_t size, std::int64_t channels) {
    return TensorSpec{{n, size, size, channels}, DType::kBFloat16};
  };
  const TensorSpec square{{64, 3, 3, 64}, DType::kFloat32};
  CHECK(
      refusal_of(ops::Conv2d{}, {images_of(1, 1 << 15, 64), square}) ==
      "conv2d: not on cuda yet: an image has more than 2^31 elements or all images more than 2^31 "
      "pixels");
  CHECK(refusal_of(ops::Conv2d{}, {images_of(1, 1 << 14, 1), {{1, 16384, 16384, 1}}}) ==
        "conv2d: not on cuda yet: a window has more than 2^27 elements");
  CHECK(refusal_of(ops::Dense{}, {{{1, std::int64_t{1} << 28}}, {{1, std::int64_t{1} << 28}}}) ==
        "dense: not on cuda yet: a matrix has more than 2^31 rows or 2^27 columns");
  CHECK(module.variants(ops::DenseSgdUpdate{}).empty());
  CHECK(module.variants(ops::Softmax{}) == std::vector<std::string>{"softmax.cuda"});
}
