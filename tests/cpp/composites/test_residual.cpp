#include <doctest/doctest.h>

#include <cmath>

#include "pycnn/composites.h"
#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;
using composites::BlockTensor;
using composites::Residual;

namespace {

// Learned values, without running statistics.
std::int64_t parameter_count(const std::vector<BlockTensor>& tensors) {
  std::int64_t count = 0;
  for (const BlockTensor& t : tensors) {
    if (t.trainable) count += element_count(t.spec.shape);
  }
  return count;
}

std::vector<std::string> names(const std::vector<BlockTensor>& tensors) {
  std::vector<std::string> result;
  for (const BlockTensor& t : tensors) result.push_back(t.name);
  return result;
}

const BlockTensor& named(const std::vector<BlockTensor>& tensors, const std::string& name) {
  for (const BlockTensor& t : tensors) {
    if (t.name == name) return t;
  }
  FAIL("no " << name);
  return tensors.front();
}

std::vector<Symbol> declare(Graph& graph, const std::vector<BlockTensor>& tensors,
                            DType dtype = DType::kFloat32) {
  std::vector<Symbol> symbols;
  for (const BlockTensor& t : tensors) {
    const TensorSpec spec{t.spec.shape, dtype};
    symbols.push_back(t.trainable ? graph.parameter(t.name, spec, t.initializer, t.layout)
                                  : graph.buffer(t.name, spec, t.initializer));
  }
  return symbols;
}

Residual bottleneck(std::int64_t in, std::int64_t channels, std::int64_t stride) {
  Residual block;
  block.kind = Residual::Kind::kBottleneck;
  block.in_channels = in;
  block.channels = channels;
  block.stride = stride;
  return block;
}

}  // namespace

TEST_CASE("tensors of a bottleneck carry torchvision's names, in its order") {
  const auto tensors = composites::parameters(bottleneck(64, 64, 1));
  std::vector<std::string> expected;
  for (const char* pair : {"conv1 bn1", "conv2 bn2", "conv3 bn3", "downsample.0 downsample.1"}) {
    const std::string text = pair, conv = text.substr(0, text.find(' ')),
                      norm = text.substr(text.find(' ') + 1);
    expected.push_back(conv + ".weight");
    for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"}) {
      expected.push_back(norm + part);
    }
  }
  CHECK(names(tensors) == expected);
  CHECK(named(tensors, "conv2.weight").spec == f32({64, 3, 3, 64}));
  CHECK(named(tensors, "conv2.weight").layout == ParameterLayout::kConvWeight);
  CHECK(named(tensors, "downsample.0.weight").spec == f32({256, 1, 1, 64}));
  CHECK(!named(tensors, "bn1.running_var").trainable);
  CHECK(named(tensors, "bn1.running_var").initializer.a == 1.0);
  CHECK(named(tensors, "bn1.running_mean").initializer.a == 0.0);
  CHECK(named(tensors, "bn3.weight").initializer.a == 1.0);
  const Initializer he = named(tensors, "conv2.weight").initializer;
  CHECK(he.kind == Initializer::Kind::kNormal);
  CHECK(he.a == 0.0);
  CHECK(he.b == std::sqrt(2.0 / (3 * 3 * 64)));
}

TEST_CASE("the blocks of resnet18, resnet50 and resnext50 add up to their known sizes") {
  const auto total = [](Residual::Kind kind, const std::vector<int>& repeats, std::int64_t groups,
                        std::int64_t base_width) {
    std::int64_t in = 64, count = 7 * 7 * 3 * 64 + 2 * 64, channels = 64;
    for (std::size_t stage = 0; stage < repeats.size(); ++stage, channels *= 2) {
      for (int i = 0; i < repeats[stage]; ++i) {
        Residual block;
        block.kind = kind;
        block.in_channels = in;
        block.channels = channels;
        block.stride = i == 0 && stage > 0 ? 2 : 1;
        block.groups = groups;
        block.base_width = base_width;
        count += parameter_count(composites::parameters(block));
        in = block.out_channels();
      }
    }
    return count + in * 1000 + 1000;
  };
  using Kind = Residual::Kind;
  CHECK(total(Kind::kBasic, {2, 2, 2, 2}, 1, 64) == 11689512);
  CHECK(total(Kind::kBasic, {3, 4, 6, 3}, 1, 64) == 21797672);
  CHECK(total(Kind::kBottleneck, {3, 4, 6, 3}, 1, 64) == 25557032);
  CHECK(total(Kind::kBottleneck, {3, 4, 23, 3}, 1, 64) == 44549160);
  CHECK(total(Kind::kBottleneck, {3, 8, 36, 3}, 1, 64) == 60192808);
  CHECK(total(Kind::kBottleneck, {3, 4, 6, 3}, 32, 4) == 25028904);
  CHECK(total(Kind::kBottleneck, {3, 4, 23, 3}, 32, 8) == 88791336);
}

TEST_CASE("a strided bottleneck shrinks the image in its 3x3 convolution and its shortcut") {
  Graph graph;
  const Residual block = bottleneck(256, 128, 2);
  const Symbol x = graph.input("x", f32({2, 56, 56, 256}));
  const auto tensors = declare(graph, composites::parameters(block));
  const Symbol y = composites::build(block, graph, x, tensors, "layer2.0.", "net.py:5");
  CHECK(graph.spec(y) == f32({2, 28, 28, 512}));
  CHECK(graph.node(y).name == "layer2.0.relu");
  CHECK(graph.node(y).origin == "net.py:5");
  CHECK(graph.spec(graph.find("layer2.0.conv1")) == f32({2, 56, 56, 128}));
  CHECK(graph.spec(graph.find("layer2.0.conv2")) == f32({2, 28, 28, 128}));
  CHECK(std::get<ops::Conv2d>(graph.node(graph.find("layer2.0.downsample.0")).op).stride ==
        Pair{2, 2});
  const Node& sum = graph.node(graph.find("layer2.0.add"));
  CHECK(sum.inputs == std::vector{graph.find("layer2.0.bn3"), graph.find("layer2.0.downsample.1")});
}

TEST_CASE("a basic block of unchanged shape has the identity as shortcut") {
  Graph graph;
  Residual block;
  block.zero_init_residual = true;
  block.eps = 1e-3;
  block.momentum = 0.5;
  const auto described = composites::parameters(block);
  CHECK(described.size() == 10);
  CHECK(named(described, "bn2.weight").initializer.a == 0.0);
  CHECK(named(described, "bn1.weight").initializer.a == 1.0);
  const Symbol x = graph.input("x", f64({2, 8, 8, 64}));
  const auto tensors = declare(graph, described, DType::kFloat64);
  const Symbol y = composites::build(block, graph, x, tensors);
  CHECK(graph.spec(y) == f64({2, 8, 8, 64}));
  CHECK(graph.node(graph.find("add")).inputs == std::vector{graph.find("bn2"), x});
  const auto& norm = std::get<ops::BatchNorm>(graph.node(graph.find("bn1")).op);
  CHECK(norm.eps == 1e-3);
  CHECK(norm.momentum == 0.5);
}

TEST_CASE("a grouped bottleneck has its own width") {
  Residual block = bottleneck(256, 64, 1);
  block.groups = 32;
  block.base_width = 4;
  const auto tensors = composites::parameters(block);
  CHECK(named(tensors, "conv1.weight").spec == f32({128, 1, 1, 256}));
  CHECK(named(tensors, "conv2.weight").spec == f32({128, 3, 3, 4}));
  Graph graph;
  const Symbol x = graph.input("x", f32({1, 4, 4, 256}));
  composites::build(block, graph, x, declare(graph, tensors), "b.");
  CHECK(std::get<ops::Conv2d>(graph.node(graph.find("b.conv2")).op).groups == 32);
}

TEST_CASE("a shortcut of zero padding has no weights, keeps pixels and adds channels") {
  Residual block;
  block.in_channels = 16;
  block.channels = 32;
  block.stride = 2;
  block.shortcut = Residual::Shortcut::kZeroPad;
  const auto described = composites::parameters(block);
  CHECK(described.size() == 10);
  Graph graph;
  const Symbol x = graph.input("x", f32({1, 9, 8, 16}));
  const Symbol y = composites::build(block, graph, x, declare(graph, described), "b.");
  CHECK(graph.spec(y) == f32({1, 5, 4, 32}));
  CHECK(graph.node(graph.find("b.add")).inputs ==
        std::vector{graph.find("b.bn2"), graph.find("b.downsample.1")});
  CHECK(std::get<ops::Pad>(graph.node(graph.find("b.downsample.1")).op).after ==
        std::vector<std::int64_t>{0, 0, 0, 16});
}

TEST_CASE("a pre-activated block norms before it convolves, and its sum is the result") {
  Residual block = bottleneck(64, 32, 2);
  block.pre_activation = true;
  const auto described = composites::parameters(block);
  CHECK(described.front().name == "bn1.weight");
  CHECK(described.back().name == "downsample.0.weight");
  CHECK(named(described, "bn1.weight").spec == f32({64}));
  CHECK(named(described, "bn3.running_var").spec == f32({32}));
  Graph graph;
  const Symbol x = graph.input("x", f32({1, 8, 8, 64}));
  const Symbol y = composites::build(block, graph, x, declare(graph, described));
  CHECK(graph.spec(y) == f32({1, 4, 4, 128}));
  CHECK(graph.node(y).inputs == std::vector{graph.find("conv3"), graph.find("downsample.0")});
  CHECK(graph.node(graph.find("downsample.0")).inputs[0] == graph.find("relu1"));
  CHECK(graph.node(graph.find("bn1")).inputs[0] == x);
  block.in_channels = 128;
  block.stride = 1;
  Graph same;
  const Symbol input = same.input("x", f32({1, 8, 8, 128}));
  const Symbol sum =
      composites::build(block, same, input, declare(same, composites::parameters(block)));
  CHECK(same.node(sum).inputs == std::vector{same.find("conv3"), input});
}

TEST_CASE("residual fields out of range and wrong tensors are refused by name") {
  const auto refused = [](auto change, std::initializer_list<const char*> parts) {
    Residual block;
    change(block);
    check_error<ArgumentError>([&] { composites::parameters(block); }, parts);
  };
  refused([](Residual& b) { b.in_channels = 0; }, {"residual: in_channels is 0"});
  refused([](Residual& b) { b.channels = -4; }, {"channels is -4"});
  refused([](Residual& b) { b.stride = std::int64_t{1} << 60; }, {"stride is 1152921504606846976"});
  refused([](Residual& b) { b.groups = 2; }, {"groups is 2", "basic"});
  refused([](Residual& b) { b.eps = 0; }, {"eps is 0"});
  refused([](Residual& b) { b.momentum = 2; }, {"momentum is 2"});
  refused([](Residual& b) { b.kind = Residual::Kind::kBottleneck, b.base_width = 0; },
          {"base_width is 0"});
  refused([](Residual& b) { b.pre_activation = true, b.zero_init_residual = true; },
          {"zero_init_residual", "pre_activation"});
  refused([](Residual& b) { b.in_channels = 65, b.shortcut = Residual::Shortcut::kZeroPad; },
          {"in_channels is 65", "has 64"});
  refused(
      [](Residual& b) { b.kind = Residual::Kind::kBottleneck, b.channels = 4, b.base_width = 4; },
      {"base_width 4", "channel of 4"});

  const Residual block;
  Graph graph;
  const Symbol x = graph.input("x", f32({1, 8, 8, 64}));
  auto tensors = declare(graph, composites::parameters(block));
  auto fewer = tensors;
  fewer.pop_back();
  check_error<ArgumentError>([&] { composites::build(block, graph, x, fewer, "l.", "n.py:1"); },
                             {"residual 'l.'", "got 9", "expected 10", "at n.py:1"});
  std::swap(tensors[0], tensors[1]);
  check_error<ShapeError>([&] { composites::build(block, graph, x, tensors); },
                          {"conv1.weight is (64)", "(64, 3, 3, 64)"});
}
