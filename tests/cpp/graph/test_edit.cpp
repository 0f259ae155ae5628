#include <doctest/doctest.h>

#include "graph/edit.h"
#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {

Symbol output_of(Symbol symbol, int output) {
  symbol.output = output;
  return symbol;
}

// x -> conv1 -> relu1 -> drop -> y, a batch norm whose statistics are assigned, and a node nobody
// uses.
struct Net {
  Graph graph;
  Symbol x, weight, scale, mean, conv, relu, drop, norm, unused;
  Net() {
    x = graph.input("x", f32({2, 8, 8, 3}));
    weight = graph.parameter("conv1.weight", f32({4, 3, 3, 3}),
                             {Initializer::Kind::kNormal, 0.0, 0.5}, ParameterLayout::kConvWeight);
    scale = graph.parameter("scale", f32({4}));
    mean = graph.buffer("mean", f32({4}));
    conv = graph.add(ops::Conv2d{}, {x, weight}, "conv1", "net.py:7");
    relu = graph.add(ops::Activation{}, {conv}, "relu1");
    drop = graph.add(ops::Dropout{}, {relu}, "drop");
    norm = graph.add(ops::BatchNormTrain{}, {drop, scale, scale, mean, mean}, "bn");
    unused = graph.add(ops::Softmax{}, {norm}, "unused");
    graph.set_output("y", norm);
    graph.assign(mean, output_of(norm, 3));
  }
};

}  // namespace

TEST_CASE("a leaf may be kept with another spec, and what follows is inferred again") {
  const Net net;
  GraphEditor editor(net.graph);
  for (int i = 0; i < editor.size(); ++i) {
    if (i == net.x.node)
      editor.keep(i, f32({5, 9, 8, 3}));
    else
      editor.keep(i);
  }
  const Graph wider = editor.finish();
  CHECK(wider.spec(wider.find("x")) == f32({5, 9, 8, 3}));
  CHECK(wider.spec(wider.find("conv1")) == f32({5, 7, 6, 4}));
  GraphEditor other(net.graph);
  other.keep(net.x.node);
  other.keep(net.weight.node);
  CHECK_THROWS_AS(other.keep(net.conv.node, f32({1})), InternalError);
}

TEST_CASE("keeping every node gives the same graph") {
  const Net net;
  GraphEditor editor(net.graph);
  for (int i = 0; i < editor.size(); ++i) editor.keep(i);
  const Graph copy = editor.finish();
  CHECK(copy.text() == net.graph.text());
  CHECK(copy.id() != net.graph.id());
  CHECK(copy.node(copy.find("conv1")).origin == "net.py:7");
  CHECK(copy.node(copy.find("conv1.weight")).initializer.b == 0.5);
  CHECK(editor.mapped(net.norm) == copy.find("bn"));
}

TEST_CASE("a node is dropped by substituting its input") {
  const Net net;
  GraphEditor editor(net.graph);
  for (int i = 0; i < editor.size(); ++i) {
    const Node& node = editor.source_node(i);
    if (std::holds_alternative<ops::Dropout>(node.op)) {
      editor.substitute(editor.source_symbol(i), editor.mapped(node.inputs[0]));
    } else {
      editor.keep(i);
    }
  }
  const Graph result = editor.finish();
  CHECK(!result.contains("drop"));
  CHECK(result.node(result.find("bn")).inputs[0] == result.find("relu1"));
  CHECK(result.assignments()[0].value == output_of(result.find("bn"), 3));
}

TEST_CASE("two nodes become one under the name of the first") {
  const Net net;
  GraphEditor editor(net.graph);
  ops::Conv2d fused;
  fused.epilogue.activation = ActivationKind::kRelu;
  for (int i = 0; i < editor.size(); ++i) {
    if (i == net.conv.node) continue;
    if (i == net.relu.node) {
      editor.replace(i, net.conv.node, fused, editor.mapped(net.graph.node(net.conv).inputs));
    } else {
      editor.keep(i);
    }
  }
  const Graph result = editor.finish();
  CHECK(!result.contains("relu1"));
  CHECK(std::get<ops::Conv2d>(result.node(result.find("conv1")).op).epilogue == fused.epilogue);
  CHECK(result.node(result.find("conv1")).origin == "net.py:7");
  CHECK(result.node(result.find("drop")).inputs[0] == result.find("conv1"));
}

TEST_CASE("added nodes never take a name of the source, even of a node that comes later") {
  const Net net;
  GraphEditor editor(net.graph);
  editor.keep(0);
  const Symbol extra = editor.emit(ops::Activation{}, {editor.mapped(net.x)}, "bn");
  CHECK(editor.graph().node(extra).name == "bn_1");
  CHECK(editor.graph().node(editor.emit(ops::Activation{}, {extra}, "bn")).name == "bn_2");
  CHECK(editor.graph().node(editor.emit(ops::Activation{}, {extra}, "new")).name == "new");
  for (int i = 1; i < editor.size(); ++i) editor.keep(i);
  CHECK(editor.finish().contains("bn"));
}

TEST_CASE("mistakes of a pass are internal errors") {
  const Net net;
  GraphEditor editor(net.graph);
  check_error<InternalError>([&] { editor.mapped(net.conv); }, {"'conv1'", "report"});
  check_error<InternalError>([&] { editor.keep(net.conv.node); }, {"'x'"});
  const Symbol x = editor.keep(0);
  check_error<InternalError>([&] { editor.substitute(net.conv, x); },
                             {"f32(2, 6, 6, 4)", "f32(2, 8, 8, 3)"});
  check_error<GraphError>([&] { editor.mapped(x); }, {"another graph"});
  check_error<InternalError>([&] { editor.finish(); }, {"'bn'"});
}

TEST_CASE("uses count inputs and results") {
  const Net net;
  const GraphUses uses(net.graph);
  CHECK(uses.consumers(net.scale.node) == std::vector<int>{net.norm.node});
  CHECK(uses.count(net.scale.node) == 2);
  CHECK(uses.sole_consumer(net.scale.node) == -1);
  CHECK(uses.sole_consumer(net.conv.node) == net.relu.node);
  CHECK(uses.count(net.norm.node) == 3);  // unused, y and the assignment
  CHECK(uses.sole_consumer(net.norm.node) == -1);
  CHECK(uses.is_result(net.norm.node));
  CHECK(uses.is_result(net.mean.node));
  CHECK(!uses.is_result(net.conv.node));
  CHECK(uses.count(net.unused.node) == 0);
}

TEST_CASE("live nodes are those that results need") {
  const Net net;
  const std::vector<bool> live = live_nodes(net.graph);
  for (int i = 0; i < static_cast<int>(live.size()); ++i) CHECK(live[i] == (i != net.unused.node));
}
