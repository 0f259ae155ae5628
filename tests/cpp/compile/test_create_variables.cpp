#include <doctest/doctest.h>

#include "compile/nets.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

TEST_CASE("variables are filled by their initializers, the same for the same seed") {
  Graph graph;
  graph.parameter("w", {{100}, DType::kFloat32}, test::uniform(0.5));
  graph.buffer("one", {{3}, DType::kFloat32}, test::constant(1.0));
  graph.buffer("count", {{1}, DType::kInt64}, test::constant(7.0));
  graph.buffer("table", {{2}, DType::kInt32}, test::constant(-3.0));
  graph.buffer("bytes", {{2}, DType::kUInt8}, test::constant(200.0));
  Variables a, b, other;
  create_variables(graph, a, 5);
  create_variables(graph, b, 5);
  create_variables(graph, other, 6);
  CHECK(a.size() == 5);
  CHECK(test::same_bits(a, b));
  CHECK(!test::same_bits(a["w"], other["w"]));
  CHECK(a["one"].data<float>()[2] == 1.0f);
  CHECK(*a["count"].data<std::int64_t>() == 7);
  CHECK(a["table"].data<std::int32_t>()[1] == -3);
  CHECK(a["bytes"].data<std::uint8_t>()[1] == 200);
}

TEST_CASE("what is there stays, when it fits; else nothing is added") {
  Graph graph;
  graph.parameter("a", {{2}, DType::kFloat32});
  graph.parameter("b", {{3}, DType::kFloat32});
  Variables variables = {{"b", Tensor({{3}, DType::kFloat32})}};
  const Tensor kept = variables["b"];
  create_variables(graph, variables);
  CHECK(variables["b"].shares_storage_with(kept));
  variables = {{"b", Tensor({{4}, DType::kFloat32})}};
  CHECK_THROWS_WITH_AS(create_variables(graph, variables),
                       doctest::Contains("'b': the tensor is (4), the graph has (3)"), ShapeError);
  CHECK(variables.size() == 1);
  variables = {{"b", Tensor({{3}, DType::kFloat64})}};
  CHECK_THROWS_WITH_AS(create_variables(graph, variables),
                       doctest::Contains("is float64, the graph has float32"), DTypeError);
}

TEST_CASE("whole numbers start from constants only") {
  Graph graph;
  graph.buffer("count", {{1}, DType::kInt64}, test::uniform(1.0));
  Variables variables;
  CHECK_THROWS_AS(create_variables(graph, variables), ArgumentError);
}

}  // namespace
}  // namespace pycnn
