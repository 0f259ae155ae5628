// Convolutions and dense layers that are computed as others (conv2d_rewrite.h), here by our own
// kernels on the emulated device.
#include "backends/cuda/device_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// Of each rewrite there is: in small integers, whose sums are exact, all of it gives the bits of
// the convolution itself. Gives their names.
template <class OpType>
std::vector<std::string> check_rewrites(const OpType& op, const Tensors& inputs) {
  const std::vector<TensorSpec> outputs = op.infer(specs_of(inputs));
  Kernel kernel;
  const Tensors expected = run_on_device(op, inputs, outputs, {}, kernel);
  std::vector<std::string> names;
  for (int number = 0;; ++number) {
    const Variable rewrite("PYCNN_EMULATED_REWRITE", std::to_string(number).c_str());
    const Tensors actual = run_on_device(op, inputs, outputs, {0, -1, -1, ""}, kernel);
    const std::string variant = kernel.variant;
    if (variant.find('+') == std::string::npos) return names;
    CAPTURE(variant);
    CHECK(same_bits(actual, expected));
    CHECK(same_bits(run_on_device(op, inputs, outputs, {1, -1, -1, ""}, kernel), expected));
    OnDevice apart{0, -1, -1, ""};
    apart.apart_inputs = kernel.strided_inputs, apart.apart_outputs = kernel.strided_outputs;
    apart.gap = 8;
    CHECK(same_bits(run_on_device(op, inputs, outputs, apart, kernel), expected));
    names.push_back(variant.substr(variant.find('+') + 1));
  }
}

HostTensor ones(const Shape& shape, std::uint64_t seed, DType dtype) {
  return random_integers(shape, seed, 1, dtype);
}

std::vector<std::string> check_conv_rewrites(const ops::Conv2d& plain, const Shape& input,
                                             const Shape& weight, DType dtype,
                                             bool residual = false) {
  const HostTensor x = ones(input, 1, dtype), w = ones(weight, 2, DType::kFloat32);
  ops::Conv2d op = plain;
  const HostTensor y = ones(op.infer(specs_of({x, w}))[0].shape, 4, dtype);
  op.epilogue = {residual, ActivationKind::kRelu, 0.0};
  Tensors inputs = {x, w, ones({weight[0]}, 3, DType::kFloat32)};
  if (residual) inputs.push_back(y);
  const std::vector<std::string> names = check_rewrites(op, inputs);
  auto grad_input = gradient_of<ops::Conv2dGradInput>(op);
  grad_input.input_size = {input[1], input[2]};
  CHECK(check_rewrites(grad_input, {y, w}) == names);
  for (const bool adds : {false, true})
    for (const bool gates : {false, true})
      for (const bool sums : {false, true}) {
        // On the host a large one takes a second: all or nothing of it there.
        if (w.size() > 4096 && (adds != gates || gates != sums)) continue;
        grad_input.finish = {adds, gates};
        grad_input.sums = {sums, ActivationKind::kIdentity, 0.0};
        Tensors finished = {y, w};
        if (adds) finished.push_back(ones(input, 5, dtype));
        if (gates) finished.push_back(ones(input, 6, dtype));
        if (sums) finished.push_back(ones(input, 7, dtype));
        for (std::uint64_t i = 0; sums && i < 3; ++i)
          finished.push_back(ones({input[3]}, 8 + i, DType::kFloat32));
        CHECK(check_rewrites(grad_input, finished) == names);
      }
  for (const bool bias : {false, true}) {
    auto grad_weight = gradient_of<ops::Conv2dGradWeight>(op);
    grad_weight.kernel_size = {weight[1], weight[2]};
    grad_weight.bias = bias;
    CHECK(check_rewrites(grad_weight, {x, y}) == names);
  }
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("cuda rewrites: what known convolutions become") {
  if (!is_emulated()) return;
  const DType narrow = DType::kBFloat16;
  const auto stem = conv({2, 2}, {3, 3, 3, 3});
  CHECK(check_conv_rewrites(stem, {1, 10, 11, 3}, {64, 7, 7, 3}, narrow) ==
        Names{"blocks2x2c16k64", "paddedc8k64", "paddedc16k64"});
  CHECK(check_conv_rewrites(stem, {1, 12, 13, 3}, {8, 7, 7, 3}, DType::kFloat32) ==
        Names{"blocks2x2c12k8", "blocks2x2c16k8", "paddedc4k8", "paddedc8k8"});
  CHECK(check_conv_rewrites(conv({4, 4}, {2, 2, 2, 2}), {1, 15, 19, 3}, {16, 11, 11, 3}, narrow)
            .front() == "blocks4x4c48k16");
  const auto same = conv({1, 1}, {1, 1, 1, 1});
  CHECK(check_conv_rewrites(same, {2, 6, 5, 3}, {64, 3, 3, 3}, narrow, true) ==
        Names{"paddedc8k64", "paddedc16k64"});
  CHECK(check_conv_rewrites(same, {1, 5, 4, 16}, {10, 3, 3, 16}, narrow, true) ==
        Names{"paddedc16k16"});
  CHECK(check_conv_rewrites(same, {1, 5, 4, 16}, {24, 3, 3, 16}, narrow).empty());
  const auto grouped = conv({2, 2}, {1, 1, 1, 1}, {1, 1}, 32);
  CHECK(check_conv_rewrites(grouped, {1, 5, 4, 128}, {128, 3, 3, 4}, narrow) ==
        Names{"joined2c8k8", "joined4c16k16", "joined8c32k32"});
  CHECK(check_conv_rewrites(conv({1, 1}, {0, 1, 0, 1}, {1, 1}, 3), {2, 5, 4, 6}, {9, 2, 2, 2},
                            narrow) == Names{"joined3c8k16"});
}

TEST_CASE("cuda rewrites: windows, strides, paddings and dilations at random") {
  if (!is_emulated()) return;
  std::uint64_t state = 7;
  const auto below = [&](std::uint64_t most) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::int64_t>((state >> 33) % most);
  };
  int blocks = 0;
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const Pair stride = {1 + below(4), 1 + below(4)}, dilation = {1 + below(3), 1 + below(2)};
    const Padding padding = {below(4), below(4), below(4), below(4)};
    const std::int64_t kh = 1 + below(5), kw = 1 + below(5);
    const std::int64_t height = (kh - 1) * dilation[0] + 1 + below(9);
    const std::int64_t width = (kw - 1) * dilation[1] + 1 + below(9);
    const std::int64_t groups = 1 + below(4) / 3 * below(4), in = groups * (1 + below(5));
    const Names names = check_conv_rewrites(
        conv(stride, padding, dilation, groups), {1 + below(2), height, width, in},
        {groups * (1 + below(9)), kh, kw, in / groups}, kImages[round % 3], round % 2 == 0);
    if (!names.empty() && names.front().starts_with("blocks")) ++blocks;
  }
  CHECK(blocks >= 10);
}

TEST_CASE("cuda rewrites: dense layers") {
  if (!is_emulated()) return;
  for (const DType dtype : kImages)
    for (const auto& [in, out] :
         {std::pair<std::int64_t, std::int64_t>{64, 10}, {37, 16}, {5, 3}}) {
      const HostTensor x = ones({9, in}, 1, dtype), y = ones({9, out}, 2, dtype);
      const HostTensor w = ones({out, in}, 3, DType::kFloat32);
      CHECK(!check_rewrites(ops::Dense{}, {x, w, ones({out}, 4, DType::kFloat32)}).empty());
      CHECK(!check_rewrites(ops::DenseGradInput{}, {y, w}).empty());
      ops::DenseGradWeight grad_weight;
      grad_weight.bias = true;
      CHECK(!check_rewrites(grad_weight, {x, y}).empty());
    }
}

// As on a GPU without them: a chain of convolutions whose weights are padded for both directions.
TEST_CASE("cuda rewrites: weights of many convolutions are packed by a few launches") {
  if (!is_emulated()) return;
  const Variable rewrite("PYCNN_EMULATED_REWRITE", "0");
  constexpr int kLayers = 24;
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.input("x", {{2, 3, 4, 3}});
  for (int i = 0; i < kLayers; ++i)
    h = net.conv(h, "conv" + std::to_string(i), i % 2 == 0 ? 5 : 3, 3);
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  h = graph.add(ops::GlobalAvgPool2d{}, {h});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}));
  const Results inputs = {{"x", test::random_tensor({2, 3, 4, 3}, 1)}, {"y", test::labels(2, 3)}};
  for (const DType dtype : kImages) {
    CompileOptions options = options_for("cuda");
    options.dtype = dtype;
    CompileOptions alone = options, elsewhere = options;
    for (const char* op : {"conv2d", "conv2d_grad_input"})
      alone.variants[op] = std::string(op) + ".cudnn";
    elsewhere.device = Device::cuda(other_device());
    const test::Compiled one(graph, options), many(graph, alone), backwards(graph, elsewhere);
    const auto packs = [](const Program& program) {
      const std::vector<StepProfile> steps = program.steps();
      return std::count_if(steps.begin(), steps.end(),
                           [](const StepProfile& step) { return step.op == "pack"; });
    };
    CHECK(packs(one.program) == 1);
    CHECK(packs(many.program) == 2 * kLayers - 1);  // no gradient of the first one's input
    for (int step = 0; step < 3; ++step) {
      const Calls calls;
      many.program.run(inputs);
      const int launches = calls.count("launch");
      CHECK(test::same_bits(one.program.run(inputs), backwards.program.run(inputs)));
      // 40 of them are one launch, the others another.
      CHECK(calls.count("launch") - launches == 2 * (launches - (2 * kLayers - 1) + 2));
    }
    for (const test::Compiled* each : {&one, &backwards})
      CHECK(test::same_bits(each->variables, many.variables));
  }
}
