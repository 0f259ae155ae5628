// Which sibling convolutions are merged, from what moves with and without.
#include <vector>

#include "backends/cuda/cuda_module.h"
#include "backends/cuda/training.h"
#include "compile/nets.h"

namespace pycnn {
namespace {

const Op kNorm = ops::BatchNormTrain{}, kPool = ops::MaxPool2d{}, kConcat = ops::Concat{3},
         kSoftmax = ops::Softmax{};

struct Case {
  std::int64_t channels = 64;  // of the image
  std::vector<Siblings::Result> results;
  std::int64_t pixels = 56 * 56;
  DType dtype = DType::kBFloat16;
  bool training = true;
  std::int64_t stride = 1, kernel = 1;
};

bool merges(const Case& c) {
  ops::Conv2d conv;
  conv.stride = {c.stride, c.stride};
  Siblings siblings;
  siblings.op = &conv;
  siblings.input = {{1, c.pixels, 1, c.channels}, c.dtype};
  siblings.results = c.results;
  siblings.weight = {c.results[0].channels, c.kernel, c.kernel, c.channels};
  siblings.training = c.training;
  return testing::cuda_module().merges(siblings);
}

TEST_CASE("cuda siblings: what readers take where it is costs nothing") {
  // Of six times 64 channels that are spared, four times those that are copied.
  CHECK(merges({.results = {{64, {&kNorm}}, {256, {&kNorm}}}}));
  CHECK(merges({.results = {{64, {&kNorm}}, {256, {&kNorm, &kPool}}}}));
  CHECK_FALSE(merges({.results = {{64, {&kConcat}}, {256, {&kConcat}}}}));
  CHECK_FALSE(merges({.results = {{64, {&kNorm}}, {256, {&kConcat}}}}));
  CHECK(merges({.results = {{64, {&kConcat}}, {256, {&kNorm}}}}));
}

TEST_CASE("cuda siblings: what is copied counts where it is more than what is spared") {
  const auto one_copied = [](std::int64_t channels, const Siblings::Result& like) {
    Siblings::Result copied = like;
    copied.channels = channels;
    return merges({.results = {{8, {&kNorm}}, copied}, .pixels = 1 << 20});
  };
  for (const Siblings::Result& like :
       {Siblings::Result{0, {&kConcat}}, Siblings::Result{0, {&kSoftmax}},
        Siblings::Result{0, {&kNorm, &kConcat}}, Siblings::Result{0, {&kNorm}, true},
        Siblings::Result{0, {}, true}}) {
    CHECK(one_copied(88, like));  // 4 * 88 < 6 * 64
    CHECK_FALSE(one_copied(96, like));
  }
  // Each sibling but one is spared something.
  CHECK_FALSE(merges({.results = {{96, {&kConcat}}, {8, {&kNorm}}}, .pixels = 1 << 20}));
  CHECK(merges({.results = {{96, {&kConcat}}, {8, {&kNorm}}, {8, {&kNorm}}}, .pixels = 1 << 20}));
}

TEST_CASE("cuda siblings: weights are copied together in every step") {
  const std::vector<Siblings::Result> results = {{64, {&kNorm}}, {64, {&kNorm}}};
  // Of bfloat16 6 * 64 * 2 bytes a pixel, of float32 twice that; 128 * 64 weights of 2 * 4.
  CHECK_FALSE(merges({.results = results, .pixels = 85}));
  CHECK(merges({.results = results, .pixels = 86}));
  CHECK_FALSE(merges({.results = results, .pixels = 42, .dtype = DType::kFloat32}));
  CHECK(merges({.results = results, .pixels = 43, .dtype = DType::kFloat32}));
  CHECK_FALSE(merges({.results = results, .pixels = 9 * 85, .kernel = 3}));
  CHECK(merges({.results = results, .pixels = 9 * 86, .kernel = 3}));
}

TEST_CASE("cuda siblings: strides and odd channels stay apart") {
  const std::vector<Siblings::Result> results = {{64, {&kNorm}}, {64, {&kNorm}}};
  CHECK(merges({.results = results}));
  CHECK_FALSE(merges({.results = results, .stride = 2}));
  CHECK_FALSE(
      merges({.results = {{64, {&kPool}}, {64, {&kPool}}}, .training = false, .stride = 2}));
  CHECK_FALSE(merges({.results = {{64, {&kNorm}}, {60, {&kNorm}}}}));
}

TEST_CASE("cuda siblings: inference spares reading images, and copies results that are joined") {
  const Op conv = ops::Conv2d{};
  const auto merges_forward = [](std::int64_t channels, std::int64_t pixels,
                                 const std::vector<Siblings::Result>& results) {
    return merges({.channels = channels, .results = results, .pixels = pixels, .training = false});
  };
  // A launch less, and nothing is copied.
  CHECK(merges_forward(8, 1, {{64, {&kPool}}, {256, {&kPool}}}));
  CHECK_FALSE(merges_forward(8, 1, {{64, {&kPool}}, {60, {&kPool}}}));
  // Two reads of 480 channels are spared, 304 channels read and written, with a launch more than
  // before: worth it from 5958 pixels on.
  const std::vector<Siblings::Result> inception = {{192, {&kConcat}}, {96, {&conv}}, {16, {&conv}}};
  CHECK_FALSE(merges_forward(480, 5957, inception));
  CHECK(merges_forward(480, 5958, inception));
  CHECK_FALSE(merges_forward(304, 1 << 20, inception));
  CHECK(merges_forward(306, 1 << 20, inception));
  // One who keeps it gets a copy.
  CHECK_FALSE(merges_forward(64, 1 << 20, {{64, {&kPool}}, {64, {&kPool}, true}}));
  CHECK(merges_forward(136, 1 << 20, {{64, {&kPool}}, {64, {&kPool}, true}}));
}

// Two convolutions of one image with batch norms, each pooled.
Graph pooled_branches() {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 6, 6, 8}, DType::kFloat32});
  const auto branch = [&](const std::string& name, std::int64_t channels) {
    const Symbol y = net.relu(net.norm(net.conv(x, name, channels, 1, false, 0), name + ".norm"));
    graph.set_output(name + ".pooled", graph.add(ops::MaxPool2d{{2, 2}, {2, 2}}, {y}));
  };
  branch("a", 16);
  branch("b", 24);
  return graph;
}

TEST_CASE("cuda siblings: in inference they are one, of weights with their batch norms") {
  const Graph graph = pooled_branches();
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({2, 6, 6, 8}, 5)}};
  CompileOptions options;
  options.mode = Mode::kInference;
  const test::Compiled host(graph, options);
  options.device = "cuda";
  const test::Compiled device(graph, options);
  int convolutions = 0;
  for (const StepProfile& step : device.program.steps()) {
    if (step.phase != "run") continue;
    convolutions += step.op == "conv2d" ? 1 : 0;
    const bool is_known = step.op == "conv2d" || step.op == "max_pool2d";
    CHECK(is_known);  // nothing is copied, and weights are joined once
  }
  CHECK(convolutions == 1);
  const auto wanted = host.program.run(inputs), got = device.program.run(inputs);
  for (const auto& [name, tensor] : wanted) CHECK(test::difference(got.at(name), tensor) < 1e-4);
  options.variants = {{"a", "conv2d.cuda"}};
  const test::Compiled apart(graph, options);
  CHECK(apart.program.graph_text().find(".merged") == std::string::npos);
}

}  // namespace
}  // namespace pycnn
