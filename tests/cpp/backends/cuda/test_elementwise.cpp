#include "backends/cuda/check_kernel.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

TEST_CASE("cuda kernels: element by element") {
  for (const DType dtype : kImages)
    for (const std::int64_t n : {0, 1, 5, 8, 31, 2049}) {
      const HostTensor x = random_tensor({n}, 1, -8, 8, dtype);
      const HostTensor y = random_tensor({n}, 2, -2, 2, dtype);
      for (const ActivationKind kind :
           {ActivationKind::kIdentity, ActivationKind::kRelu, ActivationKind::kRelu6,
            ActivationKind::kLeakyRelu, ActivationKind::kSigmoid, ActivationKind::kTanh,
            ActivationKind::kScaledTanh}) {
        CAPTURE(activation_name(kind));
        check(ops::Activation{kind, 0.1}, {x});
        check(ops::ActivationGrad{kind, 0.1}, {x, y});
      }
      check(ops::Add{}, {x, y});
      check(ops::Subtract{}, {x, y});
      check(ops::Multiply{}, {x, y});
      check(ops::Affine{1.5, -0.25}, {x});
      check(ops::Cast{DType::kFloat32}, {x});
      for (const double p : {0.0, 0.3, 0.75})
        check(ops::DropoutTrain{p, -77}, {y, integers({123456789012345}), integers({9})});
    }
  HostTensor special(Shape{5}, {kNaN, kInfinity, -kInfinity, 0.0, -3.0});
  check(ops::Activation{ActivationKind::kRelu}, {special});
  check(ops::Activation{ActivationKind::kRelu6}, {special});
  check(ops::Activation{ActivationKind::kSigmoid}, {special});
  for (const ActivationKind kind :
       {ActivationKind::kRelu, ActivationKind::kRelu6, ActivationKind::kLeakyRelu})
    check(ops::ActivationGrad{kind, 0.25}, {special, HostTensor(Shape{5}, {1, 2, 3, 4, 5})});
}

TEST_CASE("cuda kernels: casts and dropout of parts of larger images") {
  for (const DType dtype : kImages)
    for (const std::int64_t channels : {1, 5, 12, 16}) {
      const HostTensor x = random_tensor({2, 3, 5, channels}, 1, -8, 8, dtype);
      for (const DType to : kImages) check(ops::Cast{to}, {x});
      const Tensors inputs = {x, integers({123456789012345}), integers({9})};
      const ops::DropoutTrain dropout{0.3, -77};
      check(dropout, inputs);
      Kernel kernel;
      const ops::Cast cast{DType::kBFloat16};
      for (const auto& [op, given] :
           {std::pair<Op, Tensors>{cast, {x}}, std::pair<Op, Tensors>{dropout, inputs}}) {
        run_on_device(op, given, infer(op, specs_of(given)), {}, kernel);
        CHECK(kernel.strided_inputs == 1u);
        CHECK(kernel.strided_outputs == 1u);
      }
    }
}

TEST_CASE("cuda kernels: a cast to bfloat16 rounds as the CPU's does") {
  HostTensor x = random_tensor({4001}, 1, -3, 3);
  x.set(0, kNaN);
  x.set(1, kInfinity);
  x.set(2, 0x1.01p0);  // a tie, to even
  x.set(3, 0x1.03p0);
  Kernel kernel;
  x.set(4, 0x1.006p0);  // ties of float16
  x.set(5, 0x1.002p0);
  x.set(6, 65519.0);
  x.set(7, 65520.0);  // infinity there
  x.set(8, 0x1.8p-24);
  x.set(9, 0x1p-25);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    const ops::Cast op{dtype}, back{DType::kFloat32};
    const Tensors narrow = run_on_device(op, {x}, op.infer(specs_of({x})), {}, kernel);
    const Tensors expected = run_kernel(op, {x}, {"reference"});
    for (std::size_t i = 1; i < x.size(); ++i)
      CHECK(narrow[0].as<std::uint16_t>()[i] == expected[0].as<std::uint16_t>()[i]);
    CHECK(std::isnan(narrow[0][0]));  // which one is the device's affair
    const std::vector<TensorSpec> wide = {x.spec};
    CHECK(same_bits(run_on_device(back, expected, wide, {}, kernel),
                    run_kernel(back, expected, {"reference"})));
  }
}

TEST_CASE("cuda kernels: broadcasting") {
  for (const DType dtype : kImages) {
    const HostTensor a = random_tensor({2, 3, 1, 5}, 1, -2, 2, dtype);
    const HostTensor b = random_tensor({3, 4, 1}, 2, -2, 2, dtype);
    check(ops::Add{}, {a, b});
    check(ops::Subtract{}, {b, a});
    check(ops::Multiply{}, {a, random_tensor({}, 3, -2, 2, dtype)});
    check(ops::Broadcast{{2, 2, 3, 4, 5}}, {random_tensor({3, 1, 5}, 4, -2, 2, dtype)});
  }
}

// Numbers of channels, of images, of rows and of all, by 16 bytes where there are whole vectors.
TEST_CASE("cuda kernels: pairs of tensors of which one is smaller") {
  for (const DType dtype : kImages)
    for (const std::int64_t c : {1, 4, 7, 8, 24}) {
      CAPTURE(c);
      const HostTensor a = random_tensor({3, 2, 5, c}, 1, -2, 2, dtype);
      for (const Shape& shape :
           {Shape{c}, Shape{3, 1, 1, c}, Shape{3, 1, 1, 1}, Shape{2, 1, c}, Shape{5, 1},
            Shape{3, 2, 5, 1}, Shape{1, 1, 5, c}, Shape{1, 2, 1, 1}, Shape{}, Shape{1, 1, 1, 1}}) {
        CAPTURE(to_string(shape));
        const HostTensor b = random_tensor(shape, 2, 0.5, 2, dtype);
        check_anywhere(ops::Add{}, {a, b});
        check_anywhere(ops::Subtract{}, {b, a});
        check_anywhere(ops::Binary{BinaryKind::kDivide}, {a, b});
      }
      // Both are.
      check_anywhere(ops::Multiply{}, {random_tensor({3, 1, c}, 3, -2, 2, dtype),
                                       random_tensor({5, 1}, 4, -2, 2, dtype)});
      check_anywhere(ops::Multiply{}, {random_tensor({2, 1, c, 1}, 5, -2, 2, dtype),
                                       random_tensor({1, 3, 1, 8}, 6, -2, 2, dtype)});
    }
  const HostTensor none = random_tensor({0, 8}, 1), channels = random_tensor({8}, 2);
  check(ops::Add{}, {none, channels});
}

TEST_CASE("cuda kernels: images to numbers") {
  HostTensor bytes(TensorSpec{{2, 3, 3, 3}, DType::kUInt8});
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes.set(i, static_cast<double>(i * 37 % 256));
  check(ops::NormalizeImage{1.0 / 255, {0.4, 0.5, 0.6}, {0.2, 0.25, 0.3}}, {bytes});
  check(ops::NormalizeImage{1.0 / 255, {0.4}, {}}, {bytes});
  check(ops::NormalizeImage{2.0, {}, {0.3}}, {random_tensor({5, 7}, 1)});
  // As arguments of a kernel, and from a table in memory.
  for (const std::int64_t channels : {16, 17, 40}) {
    CAPTURE(channels);
    ops::NormalizeImage norm{1.0 / 255, {}, {}};
    for (std::int64_t c = 0; c < channels; ++c) norm.mean.push_back(0.01 * double(c));
    const Shape shape = {2, 3, 5, channels};
    check(norm, {random_integers(shape, 1, 100, DType::kUInt8)});
    for (std::int64_t c = 0; c < channels; ++c) norm.std.push_back(0.2 + 0.01 * double(c));
    check(norm, {random_tensor(shape, 1)});
    norm.mean = {0.4};
    check(norm, {random_tensor(shape, 2)});
  }
}

TEST_CASE("cuda kernels: functions of one number") {
  for (const DType dtype : kImages)
    for (const std::int64_t n : {1, 9, 2050}) {
      const HostTensor wide = random_tensor({n}, 1, -6, 6, dtype);
      const HostTensor positive = random_tensor({n}, 2, 0.25, 4, dtype);
      const HostTensor g = random_tensor({n}, 3, -2, 2, dtype);
      for (int kind = 0; kind <= static_cast<int>(UnaryKind::kThreshold); ++kind) {
        const auto k = static_cast<UnaryKind>(kind);
        CAPTURE(kind);
        const bool needs_positive = k == UnaryKind::kLog || k == UnaryKind::kPower ||
                                    k == UnaryKind::kReciprocal ||
                                    k == UnaryKind::kReciprocalSqrt || k == UnaryKind::kSqrt;
        const double a = k == UnaryKind::kClip ? -1.5 : k == UnaryKind::kHardSigmoid ? 0.2 : 1.25;
        const HostTensor& x = needs_positive ? positive : wide;
        check(ops::Unary{k, a, 0.5}, {x});
        check(ops::UnaryGrad{k, a, 0.5}, {x, g});
      }
    }
  const HostTensor special(Shape{5}, {kNaN, kInfinity, -kInfinity, 0.0, -3.0});
  const HostTensor infinite(Shape{5}, {1.0, kInfinity, kInfinity, 2.0, kInfinity});
  for (const UnaryKind kind :
       {UnaryKind::kAbs, UnaryKind::kClip, UnaryKind::kExp, UnaryKind::kErf, UnaryKind::kHardSwish,
        UnaryKind::kThreshold, UnaryKind::kSoftplus}) {
    check(ops::Unary{kind, 0.5, 1.0}, {special});
    check(ops::UnaryGrad{kind, 0.5, 1.0}, {special, infinite});
  }
}

TEST_CASE("cuda kernels: functions of two numbers") {
  for (const DType dtype : kImages)
    for (int kind = 0; kind <= static_cast<int>(BinaryKind::kStep); ++kind) {
      CAPTURE(kind);
      const auto k = static_cast<BinaryKind>(kind);
      const bool ties = k == BinaryKind::kEqual || k == BinaryKind::kStep;
      const auto tensor = [&](Shape shape, std::uint64_t seed) {
        return ties ? random_integers(std::move(shape), seed, 2, dtype)
                    : random_tensor(std::move(shape), seed,
                                    k == BinaryKind::kPower || k == BinaryKind::kDivide ? 0.5 : -2,
                                    2, dtype);
      };
      check(ops::Binary{k}, {tensor({2, 3, 1, 5}, 1), tensor({3, 4, 1}, 2)});
      check(ops::Binary{k}, {tensor({1031}, 3), tensor({1031}, 4)});
      check(ops::Binary{k}, {tensor({2, 7}, 5), tensor({}, 6)});
    }
  const HostTensor a(Shape{4}, {kNaN, 1.0, kInfinity, -kInfinity});
  const HostTensor b(Shape{4}, {1.0, kNaN, 3.0, 2.0});
  for (const BinaryKind kind : {BinaryKind::kMaximum, BinaryKind::kMinimum, BinaryKind::kDivide})
    check(ops::Binary{kind}, {a, b});
}
