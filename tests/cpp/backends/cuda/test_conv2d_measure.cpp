// What convolutions measure of their results for batch norms, by our own kernels and in a pass
// behind a library's.
#include "backends/cuda/check_kernel.h"
#include "backends/cuda/conv2d_center.h"
#include "backends/cuda/run_blocks.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// What a convolution measures against float64's moments of what it stored, relative to the spread.
void check_moments(const ops::Conv2d& plain, const Tensors& inputs) {
  ops::Conv2d op = plain;
  op.epilogue.moments = true;
  const std::vector<TensorSpec> outputs = op.infer(specs_of(inputs));
  Kernel kernel;
  const Tensors actual = run_on_device(op, inputs, outputs, {}, kernel);
  CHECK(same_bits(run_on_device(op, inputs, outputs, {other_device()}, kernel), actual));
  CHECK(same_bits(run_on_device(op, inputs, outputs, {}, kernel), actual));
  CHECK(same_bits({run_on_device(plain, inputs, {outputs[0]}, {}, kernel)[0]}, {actual[0]}));
  const auto channels = static_cast<std::size_t>(outputs[0].shape[3]);
  const std::size_t rows = actual[0].size() / channels;
  for (std::size_t c = 0; c < channels; ++c) {
    double mean = 0.0, square = 0.0;
    for (std::size_t r = 0; r < rows; ++r) mean += actual[0][r * channels + c];
    mean /= static_cast<double>(rows);
    for (std::size_t r = 0; r < rows; ++r) {
      const double d = actual[0][r * channels + c] - mean;
      square += d * d;
    }
    const double variance = square / static_cast<double>(rows);
    CAPTURE(c);
    CHECK(std::abs(actual[1][c] + actual[1][channels + c] - mean) <=
          1e-5 * std::sqrt(variance) + 1e-13 * std::abs(mean));
    CHECK(std::abs(actual[1][2 * channels + c] - variance) <= 1e-5 * variance);
    CHECK(std::abs(actual[1][channels + c]) <= 0x1p-24 * std::abs(actual[1][c]));
  }
}

// A value of the result for each channel, of whole numbers, whose sums are exact in any order.
template <class T, int Width>
void check_center(const cuda::ConvShape& s, int shift, int pitch) {
  const auto number = [](std::size_t i) { return static_cast<float>(i * 7919 % 5) - 2.0f; };
  std::vector<T> input(static_cast<std::size_t>(s.height * s.width * pitch + shift)),
      weight(static_cast<std::size_t>(s.weights() + shift));
  for (std::size_t i = 0; i < input.size(); ++i) cuda::narrow(number(i), input[i]);
  for (std::size_t i = 0; i < weight.size(); ++i) cuda::narrow(number(3 * i + 1), weight[i]);
  const T* const x = input.data() + shift;
  const T* const w = weight.data() + shift;
  cuda::ConvShape shape = s;
  shape.input_step = pitch;
  std::vector<float> expected, center(static_cast<std::size_t>(s.out_channels), NAN), again(center);
  for (int oc = 0; oc < s.out_channels; ++oc) {
    float sum = 0.0f;
    for (int kh = 0; kh < s.kernel_height; ++kh)
      for (int kw = 0; kw < s.kernel_width; ++kw)
        for (int c = 0; c < s.in_group(); ++c) {
          const int ih = s.out_height / 2 * s.stride_y - s.top + kh * s.dilation_y;
          const int iw = s.out_width / 2 * s.stride_x - s.left + kw * s.dilation_x;
          if (ih < 0 || iw < 0 || ih >= s.height || iw >= s.width) continue;
          sum += cuda::widened(
                     x[(ih * s.width + iw) * pitch + oc / s.out_group() * s.in_group() + c]) *
                 cuda::widened(w[oc * s.window() + (kh * s.kernel_width + kw) * s.in_group() + c]);
        }
    expected.push_back(sum);
  }
  using Kernel = cuda::CenterValue<T, Width>;
  cuda::run_blocks(Kernel::of(shape, x, w, center.data()), false);
  cuda::run_blocks(Kernel::of(shape, x, w, again.data()), true);
  CHECK(center == expected);
  CHECK(again == expected);
}

}  // namespace

TEST_CASE("cuda kernels: a value of a convolution's result that distances are from") {
  const auto square = [](int image, int in, int out, int kernel, int stride, int padding) {
    const int result = (image + 2 * padding - kernel) / stride + 1;
    cuda::ConvShape shape{};
    shape.images = shape.groups = shape.dilation_y = shape.dilation_x = 1;
    shape.height = shape.width = image;
    shape.in_channels = in;
    shape.out_channels = out;
    shape.out_height = shape.out_width = result;
    shape.kernel_height = shape.kernel_width = kernel;
    shape.stride_y = shape.stride_x = stride;
    shape.top = shape.left = padding;
    return shape;
  };
  cuda::ConvShape grouped = square(9, 32, 24, 3, 2, 1);
  grouped.groups = 4;
  cuda::ConvShape wide = square(11, 16, 5, 3, 1, 2);
  wide.dilation_y = 2;
  wide.dilation_x = 3;
  wide.out_width = 9;
  for (const cuda::ConvShape& s :
       {square(1, 8, 1, 1, 1, 0), square(1, 8, 3, 7, 1, 3), square(5, 16, 70, 3, 1, 1),
        square(7, 64, 33, 1, 2, 0), square(4, 72, 2, 4, 3, 2), grouped, wide,
        square(3, 1000, 3, 3, 1, 1)}) {
    CAPTURE(s.in_channels);
    CAPTURE(s.out_channels);
    for (const int pitch : {s.in_channels, s.in_channels + 8, s.in_channels + 3})
      for (const int shift : {0, 1}) {
        check_center<BFloat16, 8>(s, shift, pitch);
        check_center<Float16, 8>(s, shift, pitch);
        check_center<float, 4>(s, shift, pitch);
        check_center<float, 1>(s, shift, pitch);
      }
  }
  for (const cuda::ConvShape& s : {square(13, 3, 10, 7, 2, 3), square(6, 1, 1, 5, 1, 0)})
    check_center<BFloat16, 1>(s, 0, s.in_channels);
  // Threads enough that each reads all it has at once, and several blocks.
  const BFloat16* const none = nullptr;
  const auto kernel = [&](const cuda::ConvShape& s) {
    return cuda::CenterValue<BFloat16, 8>::of(s, none, none, nullptr);
  };
  CHECK(kernel(square(7, 512, 512, 3, 1, 1)).blocks() == 512);
  CHECK(kernel(square(7, 512, 512, 3, 1, 1)).lanes == 256);
  CHECK(kernel(square(14, 256, 1024, 1, 1, 0)).blocks() == 32);
  CHECK(kernel(square(14, 256, 1024, 1, 1, 0)).lanes == 8);
}

TEST_CASE("cuda kernels: moments of what a convolution stores") {
  for (const char* const tile : {"large", "medium", "small"}) {
    CAPTURE(tile);
    const Variable named("PYCNN_CUDA_TILE", tile);
    for (const DType dtype : kImages) {
      const auto image = [&](Shape shape) {
        return random_tensor(std::move(shape), 1, -2, 2, dtype);
      };
      check_moments({}, {image({1, 1, 1, 3}), coarse({2, 1, 1, 3}, 2)});
      check_moments(conv({1, 1}, {1, 1, 1, 1}), {image({2, 13, 11, 3}), coarse({5, 3, 3, 3}, 2)});
      check_moments(conv({2, 2}, {1, 1, 1, 1}, {1, 1}, 2),
                    {image({1, 27, 26, 16}), coarse({136, 3, 3, 8}, 2)});
      check_moments({}, {image({3, 17, 19, 9}), coarse({70, 1, 1, 9}, 2), random_tensor({70}, 3)});
      // Far from zero, and of one value alone: a bias for each channel, most weights zero.
      HostTensor weight = coarse({6, 1, 1, 4}, 4), bias = random_tensor({6}, 5, 100.0, 120.0);
      for (std::size_t i = 0; i < 8; ++i) weight.set(i, 0.0);
      check_moments({}, {image({2, 31, 9, 4}), weight, bias});
    }
    // What is added to the convolution is what lies far from zero.
    ops::Conv2d sum;
    sum.epilogue.residual = true;
    sum.epilogue.activation = ActivationKind::kRelu;
    check_moments(sum, {random_tensor({2, 13, 11, 3}, 1), coarse({5, 1, 1, 3}, 2),
                        random_tensor({2, 13, 11, 5}, 3, 9000.0, 9001.0)});
    // A spread of 1e-4 of the mean and less.
    check_moments({},
                  {random_tensor({2, 40, 41, 1}, 6), HostTensor(Shape{2, 1, 1, 1}, {0.125, 1.0}),
                   HostTensor(Shape{2}, {4096.0, 1e6})});
  }
}

TEST_CASE("cuda kernels: moments of many tiles, and of none") {
  const Variable named("PYCNN_CUDA_TILE", "small");
  check_moments({}, {random_tensor({1, 95, 97, 1}, 1), HostTensor(Shape{1, 1, 1, 1}, {1.0}),
                     HostTensor(Shape{1}, {300.0})});
  ops::Conv2d op;
  op.epilogue.moments = true;
  const Tensors empty = {random_tensor({0, 4, 4, 3}, 1), coarse({2, 1, 1, 3}, 2)};
  Kernel kernel;
  const Tensors none = run_on_device(op, empty, op.infer(specs_of(empty)), {}, kernel);
  for (std::size_t i = 0; i < none[1].size(); ++i) CHECK(none[1][i] == 0.0);
  ops::Conv2dGradInput back;
  back.input_size = {4, 4};
  back.sums.wanted = true;
  const HostTensor vector = random_tensor({3}, 1);
  const Tensors nothing = {
      random_tensor({0, 4, 4, 2}, 1), empty[1], empty[0], vector, vector, vector};
  const Tensors zeros = run_on_device(back, nothing, back.infer(specs_of(nothing)), {}, kernel);
  for (std::size_t i = 0; i < zeros[1].size(); ++i) CHECK(zeros[1][i] == 0.0);
}

TEST_CASE("cuda kernels: sums of what comes back to a batch norm") {
  for (const char* const tile : {"large", "medium", "small"}) {
    const Variable named("PYCNN_CUDA_TILE", tile);
    for (const DType dtype : kImages)
      for (const ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu,
                                        ActivationKind::kRelu6, ActivationKind::kLeakyRelu})
        for (const bool strided : {false, true}) {
          const ops::Conv2d forward =
              strided ? conv({3, 2}, {1, 0, 0, 1}, {1, 3}, 5) : conv({1, 1}, {1, 1, 1, 1});
          const Shape input = strided ? Shape{2, 8, 9, 15} : Shape{2, 9, 13, 6};
          const Shape weight = strided ? Shape{10, 2, 3, 3} : Shape{8, 3, 3, 6};
          const std::int64_t c = input[3];
          const HostTensor w = coarse(weight, 2);
          const Shape output = forward.infer(specs_of({random_tensor(input, 1), w}))[0].shape;
          auto op = gradient_of<ops::Conv2dGradInput>(forward);
          op.input_size = {input[1], input[2]};
          const HostTensor g = random_tensor(output, 3, -2, 2, dtype);
          HostTensor ones(TensorSpec{{c}, DType::kFloat32});
          for (std::size_t i = 0; i < static_cast<std::size_t>(c); ++i) ones.set(i, 1.0);
          const Tensors plain = {g, w};
          Kernel kernel;
          const HostTensor alone =
              run_on_device(op, plain, op.infer(specs_of(plain)), {}, kernel)[0];
          op.sums = {true, kind, 0.25};
          const Tensors inputs = {g,
                                  w,
                                  random_tensor(input, 4, -2, 2, dtype),
                                  random_tensor({c}, 5),
                                  random_tensor({c}, 6),
                                  random_tensor({c}, 7)};
          const std::vector<TensorSpec> outputs = op.infer(specs_of(inputs));
          const Tensors actual = run_on_device(op, inputs, outputs, {}, kernel);
          CHECK(same_bits({actual[0]}, {alone}));
          CHECK(same_bits(run_on_device(op, inputs, outputs, {other_device()}, kernel), actual));
          // The batch norm's input may be a part of a larger image.
          CHECK((kernel.strided_inputs >> 2 & 1u) == 1u);
          OnDevice apart;
          apart.apart_inputs = kernel.strided_inputs;
          apart.gap = strided ? 3 : 8;
          CHECK(same_bits(run_on_device(op, inputs, outputs, apart, kernel), actual));
          // Of the gradient as it was stored.
          const Tensors expected = run_kernel(
              ops::BatchNormApplyGrad{kind, 0.25},
              {to_float64(inputs[2]), to_float64(ones), to_float64(inputs[3]), to_float64(ones),
               to_float64(inputs[4]), to_float64(inputs[5]), to_float64(actual[0])},
              {"reference"});
          HostTensor sums(TensorSpec{{2, c}, DType::kFloat64});
          for (std::size_t i = 0; i < static_cast<std::size_t>(c); ++i) {
            sums.set(i, expected[2][i]);
            sums.set(static_cast<std::size_t>(c) + i, expected[1][i]);
          }
          check_close(actual[1], sums);
        }
  }
}

// As behind a library's kernels, whose place our own take.
TEST_CASE("cuda kernels: a pass over a result gives what our own convolutions measure") {
  if (!is_emulated()) return;
  const auto check_passes = [](const Op& op, const Tensors& inputs) {
    const std::vector<TensorSpec> outputs = infer(op, specs_of(inputs));
    Kernel kernel;
    const Tensors expected = run_on_device(op, inputs, outputs, {}, kernel);
    int rewrites = 0;
    for (;; ++rewrites) {
      const Variable number("PYCNN_EMULATED_REWRITE", std::to_string(rewrites).c_str());
      OnDevice how;
      how.pinned = "";
      const Tensors actual = run_on_device(op, inputs, outputs, how, kernel);
      if (std::string(kernel.variant).find('+') == std::string::npos) break;
      CHECK(same_bits({actual[0]}, {expected[0]}));
      check_close(actual[1], expected[1]);
      how.device = other_device();
      CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), actual));
      how.apart_inputs = kernel.strided_inputs;
      how.gap = 8;
      CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), actual));
    }
    CHECK(rewrites > 0);
  };
  for (const DType dtype : kImages) {
    // In small integers, whose sums are exact; 589 pixels are two tiles of the pass. What is
    // measured has whole vectors of channels or has not; the other side is what is rewritten.
    for (const bool whole : {false, true}) {
      const auto ones = [&](const Shape& shape, std::uint64_t seed) {
        return random_integers(shape, seed, 1, dtype);
      };
      ops::Conv2d forward = conv({1, 1}, {1, 1, 1, 1});
      forward.epilogue.moments = true;
      forward.epilogue.activation = ActivationKind::kRelu;
      const std::int64_t results = whole ? 16 : 10;
      check_passes(forward, {ones({1, 31, 19, 3}, 1), random_integers({results, 3, 3, 3}, 2, 1),
                             random_integers({results}, 3, 1)});
      const std::int64_t in = whole ? 8 : 3, out = 10;
      const Shape input{1, 31, 19, in};
      const HostTensor w = random_integers({out, 3, 3, in}, 2, 1);
      auto backward = gradient_of<ops::Conv2dGradInput>(forward);
      backward.input_size = {31, 19};
      const auto vector = [&](std::uint64_t seed) { return random_integers({in}, seed, 1); };
      for (const ActivationKind kind :
           {ActivationKind::kIdentity, ActivationKind::kRelu, ActivationKind::kLeakyRelu}) {
        backward.sums = {true, kind, 0.0};
        check_passes(backward, {ones({1, 31, 19, out}, 4), w, ones(input, 5), vector(6), vector(7),
                                vector(8)});
        // Of a gradient that is finished in the same pass.
        auto finished = backward;
        finished.finish.residual = true;
        check_passes(finished, {ones({1, 31, 19, out}, 4), w, ones(input, 9), ones(input, 5),
                                vector(6), vector(7), vector(8)});
        finished.finish.relu = true;
        check_passes(finished, {ones({1, 31, 19, out}, 4), w, ones(input, 9), ones(input, 10),
                                ones(input, 5), vector(6), vector(7), vector(8)});
      }
    }
  }
}

// As plans of libraries do that measure: about a value of the result, which must be near it.
TEST_CASE("cuda kernels: one tile's sums about a center give what our own convolutions measure") {
  if (!is_emulated()) return;
  const Variable measures("PYCNN_EMULATED_MEASURE", "1");
  const auto run = [](const Op& op, const Tensors& inputs, Tensors& expected) {
    const std::vector<TensorSpec> outputs = infer(op, specs_of(inputs));
    Kernel kernel;
    expected = run_on_device(op, inputs, outputs, {}, kernel);
    OnDevice how;
    how.pinned = "";
    const Tensors actual = run_on_device(op, inputs, outputs, how, kernel);
    CHECK(std::string(kernel.variant) == "measured");
    CHECK(same_bits({actual[0]}, {expected[0]}));
    how.device = other_device();
    CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), actual));
    return actual;
  };
  for (const DType dtype : kImages)
    for (const bool strided : {false, true}) {
      // Values far from zero in a window without its border; a center there would be far from them.
      ops::Conv2d forward =
          strided ? conv({2, 3}, {2, 1, 0, 2}, {1, 2}, 4) : conv({1, 1}, {1, 1, 1, 1});
      const Shape input{2, 23, 21, 8}, weight{12, 3, 3, strided ? 2 : 8};
      HostTensor w = coarse(weight, 2);
      for (std::size_t i = 0; i < w.size(); ++i) w.set(i, std::abs(w[i]) + 0.25);
      forward.epilogue.moments = true;
      Tensors expected;
      const Tensors actual = run(forward, {random_tensor(input, 1, 19, 21, dtype), w}, expected);
      const std::size_t channels = 12;
      for (std::size_t c = 0; c < channels; ++c) {
        CAPTURE(c);
        const double variance = expected[1][2 * channels + c];
        CHECK(std::abs(actual[1][c] + actual[1][channels + c] - expected[1][c] -
                       expected[1][channels + c]) <= 1e-4 * std::sqrt(variance));
        CHECK(std::abs(actual[1][2 * channels + c] - variance) <= 1e-4 * variance);
      }
      auto backward = gradient_of<ops::Conv2dGradInput>(forward);
      backward.input_size = {23, 21};
      forward.epilogue.moments = false;
      const Shape output = forward.infer(specs_of({random_tensor(input, 1), w}))[0].shape;
      const auto image = [&](const Shape& shape, std::uint64_t seed) {
        return random_tensor(shape, seed, -2, 2, dtype);
      };
      for (const bool relu : {false, true}) {
        backward.finish = {relu, relu};
        backward.sums = {true, relu ? ActivationKind::kRelu : ActivationKind::kIdentity, 0.0};
        Tensors inputs = {image(output, 3), w};
        if (relu) inputs.insert(inputs.end(), {image(input, 9), image(input, 10)});
        inputs.push_back(image(input, 4));
        for (std::uint64_t seed = 5; seed < 8; ++seed) inputs.push_back(random_tensor({8}, seed));
        const Tensors sums = run(backward, inputs, expected);
        check_close(sums[1], expected[1]);
      }
    }
}

TEST_CASE("cuda kernels: batch norms that know moments and sums") {
  for (const DType dtype : kImages) {
    const Shape shape{2, 3, 3, 5};
    const HostTensor x = random_tensor(shape, 1, -1, 3, dtype);
    const HostTensor g = random_tensor(shape, 2, -2, 2, dtype);
    const auto vector = [&](std::uint64_t seed, double low = -2.0) {
      return random_tensor({5}, seed, low, 2.0);
    };
    const HostTensor scale = vector(4), shift = vector(5), mean = vector(6), var = vector(7, 0.5);
    HostTensor moments = random_tensor({3, 5}, 8, 0.5, 2.0);
    for (std::size_t c = 5; c < 10; ++c) moments.set(c, 1e-8);
    check(ops::BatchNormStatistics{1e-3, 0.2}, {x, scale, shift, mean, var, moments});
    const HostTensor sums = random_tensor({2, 5}, 9);
    check(ops::BatchNormTrainGrad{}, {x, scale, mean, var, g, sums});
    check(ops::BatchNormApplyGrad{ActivationKind::kRelu, 0.1},
          {x, scale, mean, var, scale, shift, g, sums});
  }
}
