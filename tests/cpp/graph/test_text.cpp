#include <doctest/doctest.h>

#include <bit>

#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

TEST_CASE("the text of a graph") {
  Graph graph;
  const Symbol x = graph.input("x", f32({32, 28, 28, 1}));
  const Symbol w =
      graph.parameter("conv1.weight", f32({6, 5, 5, 1}), {}, ParameterLayout::kConvWeight);
  const Symbol scale = graph.parameter("bn1.weight", f32({6}));
  const Symbol mean = graph.buffer("bn1.running_mean", f32({6}));
  ops::Conv2d conv;
  conv.padding = {2, 2, 2, 2};
  const Symbol c = graph.add(conv, {x, w}, "conv1", "/home/someone/net.py:3");
  const Symbol bn = graph.add(ops::BatchNormTrain{}, {c, scale, scale, mean, mean}, "bn1");
  graph.add(ops::Reshape{{0, -1}}, {bn}, "flatten");
  graph.set_output("features", bn);
  graph.assign(mean, {bn.node, 3, bn.graph});
  CHECK(graph.text() ==
        R"(pycnn.graph 1
input "x" = f32(32, 28, 28, 1)
parameter "conv1.weight" = f32(6, 5, 5, 1) layout=conv
parameter "bn1.weight" = f32(6)
buffer "bn1.running_mean" = f32(6)
"conv1" = conv2d("x", "conv1.weight") {stride=(1, 1), padding=(2, 2, 2, 2), dilation=(1, 1), groups=1, epilogue=(false, identity, 0.01)} -> f32(32, 28, 28, 6)
"bn1" = batch_norm_train("conv1", "bn1.weight", "bn1.weight", "bn1.running_mean", "bn1.running_mean") {eps=1e-05, momentum=0.1} -> f32(32, 28, 28, 6), f32(6), f32(6), f32(6), f32(6)
"flatten" = reshape("bn1") {shape=(0, -1)} -> f32(32, 4704)
output "features" = "bn1"
assign "bn1.running_mean" = "bn1":3
)");
  CHECK(Graph::parse(graph.text()).text() == graph.text());
}

TEST_CASE("every op reads back as it was printed") {
  Graph all;
  for (const OpExample& example : op_examples()) {
    Graph graph;
    std::vector<Symbol> inputs;
    for (std::size_t i = 0; i < example.inputs.size(); ++i) {
      inputs.push_back(graph.input("in" + std::to_string(i), example.inputs[i]));
    }
    graph.set_output("out", graph.add(example.op, inputs));
    const std::string text = graph.text();
    INFO(text);
    const Graph read = Graph::parse(text);
    CHECK(read.text() == text);
    CHECK(read.nodes().back().op.index() == example.op.index());
    CHECK(read.nodes().back().outputs == graph.nodes().back().outputs);
  }
}

TEST_CASE("every op reads back with its defaults, where they are legal") {
  int legal = 0;
  const auto check = [&]<class T>(const T& op, const OpExample& example) {
    Graph graph;
    std::vector<Symbol> inputs;
    for (const TensorSpec& spec : example.inputs) {
      inputs.push_back(graph.input("in" + std::to_string(inputs.size()), spec));
    }
    try {
      graph.add(op, inputs);
    } catch (const Error&) {
      return;
    }
    ++legal;
    CHECK(Graph::parse(graph.text()).text() == graph.text());
  };
  for (const OpExample& example : op_examples()) {
    std::visit([&]<class T>(const T&) { check(T{}, example); }, example.op);
  }
  CHECK(legal > 30);
}

TEST_CASE("reals read back as the same bits") {
  for (const double value :
       {0.1, 1.0 / 3.0, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 123456.0}) {
    Graph graph;
    graph.add(ops::Fill{{1}, DType::kFloat64, value}, {});
    const Graph read = Graph::parse(graph.text());
    const double back = std::get<ops::Fill>(read.nodes()[0].op).value;
    CHECK(std::bit_cast<std::uint64_t>(back) == std::bit_cast<std::uint64_t>(value));
  }
}

TEST_CASE("a deep graph prints and reads without recursion") {
  Graph graph;
  Symbol x = graph.input("x", f32({1}));
  for (int i = 0; i < 50000; ++i) x = graph.add(ops::Activation{}, {x}, "r" + std::to_string(i));
  graph.set_output("y", x);
  const std::string text = graph.text();
  CHECK(Graph::parse(text).text() == text);
}

TEST_CASE("the empty graph and odd names read back") {
  CHECK(Graph().text() == "pycnn.graph 1\n");
  CHECK(Graph::parse("pycnn.graph 1\n").nodes().empty());
  Graph graph;
  graph.input("a = b(\u00e9), {c} -> d: 1", f32({}));
  CHECK(Graph::parse(graph.text()).text() == graph.text());
}
