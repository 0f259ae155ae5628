#include <doctest/doctest.h>
#include <time.h>

#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {

// A small net: conv, relu, two outputs, and a running value that is assigned.
struct Net {
  Graph graph;
  Symbol x, weight, mean, conv, relu;
  Net() {
    x = graph.input("x", f32({2, 8, 8, 3}));
    weight = graph.parameter("conv1.weight", f32({4, 3, 3, 3}),
                             {Initializer::Kind::kNormal, 0.0, 0.5}, ParameterLayout::kConvWeight);
    mean = graph.buffer("mean", f32({4}));
    conv = graph.add(ops::Conv2d{}, {x, weight}, "conv1", "net.py:7");
    relu = graph.add(ops::Activation{}, {conv});
    const Symbol reduced = graph.add(ops::Reduce{Reduction::kMean, {0, 1, 2}}, {relu});
    graph.set_output("features", relu);
    graph.assign(mean, reduced);
  }
};

}  // namespace

TEST_CASE("a graph records nodes in order with their specs") {
  const Net net;
  CHECK(net.graph.nodes().size() == 6);
  CHECK(net.graph.spec(net.conv) == f32({2, 6, 6, 4}));
  CHECK(net.graph.node(net.conv).name == "conv1");
  CHECK(net.graph.node(net.conv).origin == "net.py:7");
  CHECK(net.graph.node(net.relu).name == "activation");
  CHECK(net.graph.find("conv1") == net.conv);
  CHECK(net.graph.contains("conv1.weight"));
  CHECK(!net.graph.contains("conv2"));
  CHECK(net.graph.node(net.weight).layout == ParameterLayout::kConvWeight);
}

TEST_CASE("names of ops get suffixes, names of leaves must be free") {
  Graph graph;
  const Symbol x = graph.input("relu", f32({2}));
  std::vector<std::string> names;
  for (int i = 0; i < 5; ++i)
    names.push_back(graph.node(graph.add(ops::Activation{}, {x}, "relu")).name);
  CHECK(names == std::vector<std::string>{"relu_1", "relu_2", "relu_3", "relu_4", "relu_5"});
  CHECK(graph.node(graph.add(ops::Activation{}, {x})).name == "activation");
  CHECK(graph.node(graph.add(ops::Activation{}, {x})).name == "activation_1");
  check_error<GraphError>([&] { graph.input("relu_2", f32({1})); }, {"input 'relu_2'", "taken"});
  check_error<GraphError>([&] { graph.parameter("relu", f32({1})); }, {"parameter 'relu'"});
}

TEST_CASE("many nodes of one name stay cheap and unique") {
  Graph graph;
  Symbol x = graph.input("x", f32({1}));
  for (int i = 0; i < 20000; ++i) x = graph.add(ops::Activation{}, {x}, "relu");
  CHECK(graph.nodes().size() == 20001);
  CHECK(graph.node(x).name == "relu_19999");
}

TEST_CASE("names that could not stand in files are refused") {
  Graph graph;
  const Symbol x = graph.input("größe/日本", f32({2}));
  CHECK(graph.contains("größe/日本"));
  const std::vector<std::pair<std::string, const char*>> wrong = {
      {"", "empty"},
      {std::string("a\0b", 3), "control"},
      {"a\nb", "control"},
      {"a\"b", "quote"},
      {"a\\b", "backslash"},
      {"a\x7f", "control"},
      {"\xff\xfe", "UTF-8"},
      {"\xc0\x80", "UTF-8"},
      {"\xed\xa0\x80", "UTF-8"},
      {"caf\xc3", "UTF-8"},
      {std::string(1025, 'a'), "1024"}};
  for (const auto& [name, part] : wrong) {
    check_error<GraphError>([&, n = name] { graph.input(n, f32({2})); }, {"input name", part});
    check_error<GraphError>([&, n = name] { graph.set_output(n, x); }, {"output name", part});
    if (name.empty()) continue;
    check_error<GraphError>([&, n = name] { graph.add(ops::Activation{}, {x}, n); },
                            {"node name", part});
  }
  CHECK(graph.nodes().size() == 1);
}

TEST_CASE("an error tells op, node, inputs and origin, and changes nothing") {
  Net net;
  const std::string before = net.graph.text();
  const std::string text = error_text<ShapeError>([&] {
    net.graph.add(ops::Conv2d{}, {net.conv, net.weight}, "conv2", "train.py:41");
  });
  CHECK(text ==
        "conv2d 'conv2': input has 4 channels, weight expects 3\n"
        "  input  f32(2, 6, 6, 4) read as (N, H, W, C)\n"
        "  weight f32(4, 3, 3, 3) read as (OC, KH, KW, IC / groups)\n"
        "  at train.py:41");
  check_error<DTypeError>(
      [&] {
        Graph graph;
        graph.add(ops::Softmax{}, {graph.input("x", u8({2, 3}))});
      },
      {"softmax: input is u8", "input u8(2, 3) read as (..., C)", "normalize_image"});
  CHECK(net.graph.text() == before);
}

TEST_CASE("symbols that are foreign, empty or out of range are refused") {
  Net net, other;
  const auto add = [&](Symbol symbol) { net.graph.add(ops::Activation{}, {symbol}, "relu2"); };
  check_error<GraphError>([&] { add(other.conv); }, {"activation 'relu2'", "another graph"});
  check_error<GraphError>([&] { add({}); }, {"empty"});
  check_error<GraphError>(
      [&] {
        add({net.conv.node, 1, net.graph.id()});
      },
      {"output 1", "'conv1'"});
  check_error<GraphError>([&] { add({net.conv.node, -1, net.graph.id()}); }, {"output -1"});
  check_error<GraphError>([&] { add({99, 0, net.graph.id()}); }, {"node 99", "has 6"});
  check_error<GraphError>([&] { net.graph.set_output("y", other.conv); }, {"another graph"});
  check_error<GraphError>([&] { net.graph.assign(other.mean, net.conv); }, {"another graph"});
}

TEST_CASE("a copy keeps the symbols of its original, a new graph does not") {
  Net net;
  Graph copy = net.graph;
  CHECK(copy.id() == net.graph.id());
  CHECK_NOTHROW(copy.add(ops::Activation{}, {net.conv}));
  CHECK(copy.nodes().size() == net.graph.nodes().size() + 1);
  CHECK(Graph().id() != Graph().id());
}

TEST_CASE("outputs and assignments are checked") {
  Net net;
  check_error<GraphError>([&] { net.graph.set_output("features", net.conv); }, {"'features'"});
  net.graph.clear_outputs();
  CHECK_NOTHROW(net.graph.set_output("features", net.conv));
  const Symbol value = net.graph.assignments()[0].value;
  check_error<GraphError>([&] { net.graph.assign(net.mean, value); }, {"'mean'", "already"});
  check_error<GraphError>([&] { net.graph.assign(net.x, net.x); }, {"'x'", "input"});
  check_error<GraphError>([&] { net.graph.assign(net.conv, net.conv); }, {"'conv1'", "op"});
  check_error<ShapeError>([&] { net.graph.assign(net.weight, value); },
                          {"f32(4)", "f32(4, 3, 3, 3)"});
  const Symbol step = net.graph.buffer("step", i64({4}));
  check_error<DTypeError>([&] { net.graph.assign(step, value); }, {"f32(4)", "i64(4)"});
}

TEST_CASE("an unknown name is answered by the closest ones") {
  const Net net;
  check_error<GraphError>([&] { net.graph.find("conv2"); }, {"'conv2'", "closest are 'conv1'"});
  check_error<GraphError>([&] { net.graph.find("weight"); }, {"'conv1.weight'"});
  check_error<GraphError>([&] { net.graph.find("activaton"); }, {"'activation'"});
  const std::string far = error_text<GraphError>([&] { net.graph.find("zzzzzzzzzzzz"); });
  CHECK(far == "no node is called 'zzzzzzzzzzzz'");
  check_error<GraphError>([&] { net.graph.find(std::string(100000, '\x01')); }, {"???...'"});
}

TEST_CASE("leaves with impossible specs are refused") {
  Graph graph;
  const std::int64_t big = std::int64_t{1} << 40;
  check_error<ShapeError>([&] { graph.input("x", f32({2, -3})); }, {"'x'", "(2, -3)"});
  check_error<ShapeError>([&] { graph.input("x", f32({big, big})); }, {"'x'", "2^62"});
  check_error<ShapeError>([&] { graph.input("x", f32({0, big, big})); }, {"'x'", "2^62"});
  check_error<ShapeError>([&] { graph.input("x", f32(Shape(9, 1))); }, {"'x'", "9 axes"});
  check_error<ShapeError>(
      [&] {
        graph.parameter("w", f32({3, 3}), {}, ParameterLayout::kConvWeight);
      },
      {"'w'", "4 axes"});
}

TEST_CASE("with_inputs infers every spec again") {
  const Net net;
  const Graph wide = net.graph.with_inputs({{"x", f32({5, 10, 12, 3})}});
  CHECK(wide.id() != net.graph.id());
  CHECK(wide.spec(wide.find("conv1")) == f32({5, 8, 10, 4}));
  CHECK(wide.node(wide.find("conv1")).origin == "net.py:7");
  CHECK(wide.node(wide.find("conv1.weight")).initializer.b == 0.5);
  CHECK(wide.outputs()[0].first == "features");
  CHECK(wide.spec(wide.outputs()[0].second) == f32({5, 8, 10, 4}));
  CHECK(wide.with_inputs({{"x", f32({2, 8, 8, 3})}}).text() == net.graph.text());
}

TEST_CASE("with_inputs names the node that does not fit, and inputs that do not exist") {
  const Net net;
  check_error<ShapeError>(
      [&] {
        net.graph.with_inputs({{"x", f32({2, 2, 2, 3})}});
      },
      {"conv2d 'conv1'", "N = 2", "at net.py:7"});
  check_error<GraphError>([&] { net.graph.with_inputs({{"X", f32({1})}}); }, {"'X'", "'x'"});
  check_error<GraphError>(
      [&] {
        net.graph.with_inputs({{"conv1", f32({1})}});
      },
      {"'conv1'", "not an input"});
}

TEST_CASE("a hundred thousand outputs and assignments are recorded in linear time") {
  constexpr int kCount = 100'000;
  Graph graph;
  std::vector<Symbol> variables;
  for (int i = 0; i < kCount; ++i)
    variables.push_back(graph.buffer("b" + std::to_string(i), {{1}, DType::kFloat32}));
  timespec begin{}, end{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
  for (int i = 0; i < kCount; ++i) {
    const auto at = static_cast<std::size_t>(i);
    graph.set_output("o" + std::to_string(i), variables[at]);
    graph.assign(variables[at], variables[variables.size() - 1 - at]);
  }
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  // Comparing each with all others takes half a minute.
  CHECK(end.tv_sec - begin.tv_sec < 10);
  CHECK(graph.outputs().size() == kCount);
  CHECK(graph.assignments().size() == kCount);
  CHECK_THROWS_AS(graph.set_output("o77777", variables[0]), GraphError);
  CHECK_THROWS_AS(graph.assign(variables[77777], variables[0]), GraphError);
  graph.clear_outputs();
  graph.clear_assignments();
  CHECK_NOTHROW(graph.set_output("o77777", variables[0]));
  CHECK_NOTHROW(graph.assign(variables[77777], variables[0]));
}
