#include <doctest/doctest.h>

#include "pycnn/composites.h"
#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;
using composites::BlockTensor;
using composites::Inception;

namespace {

std::vector<Symbol> declare(Graph& graph, const std::vector<BlockTensor>& tensors) {
  std::vector<Symbol> symbols;
  for (const BlockTensor& t : tensors) {
    symbols.push_back(t.trainable ? graph.parameter(t.name, t.spec, t.initializer, t.layout)
                                  : graph.buffer(t.name, t.spec, t.initializer));
  }
  return symbols;
}

std::int64_t weights(const std::vector<BlockTensor>& tensors) {
  std::int64_t count = 0;
  for (const BlockTensor& t : tensors) {
    if (t.spec.shape.size() == 4) count += element_count(t.spec.shape);
  }
  return count;
}

}  // namespace

TEST_CASE("inception 3a and 3b have the sizes of the paper's table") {
  const Inception a;  // the defaults are 3a
  const auto tensors = composites::parameters(a);
  CHECK(weights(tensors) == 163328);  // 159 K in units of 1024
  CHECK(a.out_channels() == 256);
  const Inception b{256, 128, 128, 192, 32, 96, 64, 5, false};
  CHECK(weights(composites::parameters(b)) == 388096);
  CHECK(b.out_channels() == 480);
  std::vector<std::string> names;
  for (const BlockTensor& t : tensors) names.push_back(t.name);
  CHECK(names == std::vector<std::string>{
                     "branch1.conv.weight", "branch1.conv.bias", "branch2.0.conv.weight",
                     "branch2.0.conv.bias", "branch2.1.conv.weight", "branch2.1.conv.bias",
                     "branch3.0.conv.weight", "branch3.0.conv.bias", "branch3.1.conv.weight",
                     "branch3.1.conv.bias", "branch4.1.conv.weight", "branch4.1.conv.bias"});
}

TEST_CASE("inception with batch norm has torchvision's names and no bias") {
  Inception block;
  block.batch_norm = true;
  block.branch5_kernel = 3;
  const auto tensors = composites::parameters(block);
  CHECK(tensors.size() == 6 * 5);
  CHECK(tensors[0].name == "branch1.conv.weight");
  CHECK(tensors[1].name == "branch1.bn.weight");
  CHECK(tensors[4].name == "branch1.bn.running_var");
  CHECK(tensors[20].name == "branch3.1.conv.weight");
  CHECK(tensors[20].spec == f32({32, 3, 3, 16}));
  Graph graph;
  const Symbol x = graph.input("x", f32({1, 14, 14, 192}));
  const Symbol y = composites::build(block, graph, x, declare(graph, tensors), "inception3a.");
  CHECK(graph.spec(y) == f32({1, 14, 14, 256}));
  CHECK(std::get<ops::BatchNorm>(graph.node(graph.find("inception3a.branch1.bn")).op).eps == 1e-3);
}

TEST_CASE("inception joins four branches over the channels") {
  Graph graph;
  const Inception block;
  const Symbol x = graph.input("x", f32({2, 28, 28, 192}));
  const Symbol y = composites::build(block, graph, x, declare(graph, composites::parameters(block)),
                                     "3a.", "google.py:2");
  CHECK(graph.spec(y) == f32({2, 28, 28, 256}));
  const Node& concat = graph.node(y);
  CHECK(concat.name == "3a.concat");
  CHECK(concat.origin == "google.py:2");
  CHECK(concat.inputs == std::vector{graph.find("3a.branch1.relu"), graph.find("3a.branch2.1.relu"),
                                     graph.find("3a.branch3.1.relu"),
                                     graph.find("3a.branch4.1.relu")});
  CHECK(graph.spec(graph.find("3a.branch4.0")) == f32({2, 28, 28, 192}));
  // Multiply-adds of the paper's table: 128 M for one image.
  std::int64_t macs = 0;
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::kOp) continue;
    std::vector<TensorSpec> inputs;
    for (const Symbol s : node.inputs) inputs.push_back(graph.spec(s));
    macs += cost(node.op, inputs, node.outputs).macs;
  }
  CHECK(macs == 2 * 28 * 28 * 163328LL);
}

TEST_CASE("inception fields out of range are refused by name") {
  const auto refused = [](auto change, std::initializer_list<const char*> parts) {
    Inception block;
    change(block);
    check_error<ArgumentError>([&] { composites::parameters(block); }, parts);
  };
  refused([](Inception& b) { b.reduce3 = 0; }, {"inception: reduce3 is 0"});
  refused([](Inception& b) { b.pool = -1; }, {"pool is -1"});
  refused([](Inception& b) { b.branch5_kernel = 4; }, {"branch5_kernel is 4", "odd"});
  Graph graph;
  const Inception block;
  const Symbol x = graph.input("x", f32({1, 28, 28, 64}));
  const auto tensors = declare(graph, composites::parameters(block));
  check_error<ShapeError>([&] { composites::build(block, graph, x, tensors, "3a."); },
                          {"conv2d '3a.branch1.conv'", "64 channels", "expects 192"});
}
