#include <doctest/doctest.h>

#include "compile/nets.h"
#include "pycnn/error.h"
#include "pycnn/graph.h"

namespace pycnn {
namespace {

constexpr const char* kRecorded = R"(pycnn.graph 1
input "x" = f32(2, 4)
parameter "scale" = f32(4)
parameter "shift" = f32(4)
buffer "mean" = f32(4)
buffer "var" = f32(4)
"bn" = batch_norm("x", "scale", "shift", "mean", "var") {eps=1e-05, momentum=0.1, frozen=false} -> f32(2, 4)
"drop" = dropout("bn") {p=0.5} -> f32(2, 4)
output "y" = "drop"
)";

TEST_CASE("inference uses running statistics and drops dropout") {
  const Graph graph = specialize(Graph::parse(kRecorded), Mode::kInference);
  CHECK(graph.text() == R"(pycnn.graph 1
input "x" = f32(2, 4)
parameter "scale" = f32(4)
parameter "shift" = f32(4)
buffer "mean" = f32(4)
buffer "var" = f32(4)
"bn" = batch_norm_inference("x", "scale", "shift", "mean", "var") {eps=1e-05} -> f32(2, 4)
output "y" = "bn"
)");
}

TEST_CASE("training uses batch statistics, assigns running ones and drops by seed and step") {
  const Graph graph = specialize(Graph::parse(kRecorded), Mode::kTraining);
  const std::string stream = std::to_string(stream_of("drop") & 0x7FFFFFFFFFFFFFFFu);
  CHECK(graph.text() == R"(pycnn.graph 1
input "x" = f32(2, 4)
parameter "scale" = f32(4)
parameter "shift" = f32(4)
buffer "mean" = f32(4)
buffer "var" = f32(4)
"bn" = batch_norm_train("x", "scale", "shift", "mean", "var") {eps=1e-05, momentum=0.1} -> f32(2, 4), f32(4), f32(4), f32(4), f32(4)
buffer "train.seed" = i64(1)
buffer "train.step" = i64(1)
"drop" = dropout_train("bn", "train.seed", "train.step") {p=0.5, stream=)" +
                            stream + R"(} -> f32(2, 4)
output "y" = "drop"
assign "mean" = "bn":3
assign "var" = "bn":4
)");
}

TEST_CASE("a specialised graph comes back unchanged") {
  for (const Mode mode : {Mode::kInference, Mode::kTraining}) {
    const Graph once = specialize(Graph::parse(kRecorded), mode);
    CHECK(specialize(once, Mode::kInference).text() == once.text());
    CHECK(specialize(once, Mode::kTraining).text() == once.text());
  }
}

TEST_CASE("a frozen batch norm keeps its statistics in training") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  const Symbol recorded = net.norm(x, "bn");
  ops::BatchNorm frozen;
  frozen.frozen = true;
  graph.set_output("y", graph.add(frozen, graph.node(recorded).inputs, "frozen"));
  const Graph trained = specialize(graph, Mode::kTraining);
  CHECK(std::holds_alternative<ops::BatchNormInference>(trained.node(trained.find("frozen")).op));
  CHECK(trained.assignments().size() == 2);  // of the other one
}

TEST_CASE("dropout of probability zero disappears from training too") {
  Graph graph;
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  graph.set_output("y", graph.add(ops::Dropout{0.0}, {x}));
  const Graph trained = specialize(graph, Mode::kTraining);
  CHECK(trained.nodes().size() == 1);
  CHECK(!trained.contains("train.step"));
}

TEST_CASE("a batch norm that is used twice updates its statistics one after the other") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  const Symbol first = net.norm(x, "bn");
  std::vector<Symbol> inputs = graph.node(first).inputs;
  inputs[0] = first;
  graph.set_output("y", graph.add(ops::BatchNorm{}, inputs, "again"));
  const Graph trained = specialize(graph, Mode::kTraining);
  const Symbol again = trained.find("again");
  CHECK(trained.node(again).inputs[3] == Symbol{trained.find("bn").node, 3, trained.id()});
  REQUIRE(trained.assignments().size() == 2);
  CHECK(trained.assignments()[0].value == Symbol{again.node, 3, trained.id()});
}

TEST_CASE("buffers of dropout that are recorded later in the graph are found") {
  Graph graph;
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  const Symbol dropped = graph.add(ops::Dropout{0.5}, {x}, "drop");
  const Symbol step = graph.buffer("train.step", {{1}, DType::kInt64});
  graph.set_output("y", dropped);
  graph.set_output("step", step);
  const Graph trained = specialize(graph, Mode::kTraining);
  CHECK(trained.node(trained.find("drop")).inputs[2] == trained.find("train.step"));
}

TEST_CASE("names that training needs must not mean something else") {
  Graph graph;
  const Symbol x = graph.input("train.step", {{2, 4}, DType::kFloat32});
  graph.set_output("y", graph.add(ops::Dropout{0.5}, {x}, "drop"));
  CHECK_THROWS_WITH_AS(specialize(graph, Mode::kTraining),
                       doctest::Contains("'train.step' is needed for a buffer i64(1)"), GraphError);
}

TEST_CASE("running statistics that are no variable cannot be trained") {
  Graph graph;
  const TensorSpec spec{{4}, DType::kFloat32};
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  const Symbol s = graph.parameter("s", spec);
  const Symbol mean = graph.input("mean", spec);
  graph.set_output("y", graph.add(ops::BatchNorm{}, {x, s, s, mean, s}, "bn", "net.py:9"));
  CHECK_THROWS_WITH_AS(specialize(graph, Mode::kTraining), doctest::Contains("at net.py:9"),
                       GraphError);
  CHECK_NOTHROW(specialize(graph, Mode::kInference));
}

}  // namespace
}  // namespace pycnn
