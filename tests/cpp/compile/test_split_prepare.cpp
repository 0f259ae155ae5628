#include <doctest/doctest.h>

#include "compile/passes.h"

namespace pycnn {
namespace {

TEST_CASE("what no run changes is prepared") {
  const Graph graph = Graph::parse(R"(pycnn.graph 1
input "x" = f32(2)
parameter "w" = f32(2)
buffer "count" = f32(2)
"constant" = fill() {shape=(2), dtype=f32, value=1} -> f32(2)
"of_weight" = add("w", "constant") -> f32(2)
"of_input" = add("x", "of_weight") -> f32(2)
"next" = add("count", "of_weight") -> f32(2)
output "y" = "of_input"
assign "count" = "next"
)");
  const std::vector<bool> prepared = split_prepare(graph);
  const auto is_prepared = [&](const char* name) {
    return static_cast<bool>(prepared[static_cast<std::size_t>(graph.find(name).node)]);
  };
  CHECK(is_prepared("constant"));
  CHECK(is_prepared("of_weight"));
  CHECK(!is_prepared("of_input"));
  CHECK(!is_prepared("next"));
  CHECK(!is_prepared("w"));  // a leaf is no work
}

}  // namespace
}  // namespace pycnn
