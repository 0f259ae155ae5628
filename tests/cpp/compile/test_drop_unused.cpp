#include <doctest/doctest.h>

#include "compile/passes.h"

namespace pycnn {
namespace {

TEST_CASE("only what outputs and assignments need stays") {
  const Graph graph = Graph::parse(R"(pycnn.graph 1
input "x" = f32(2)
input "idle_input" = f32(2)
parameter "idle_parameter" = f32(2)
buffer "count" = f32(2)
"a" = affine("x") {scale=2, offset=0} -> f32(2)
"idle" = affine("a") {scale=2, offset=0} -> f32(2)
"next" = affine("count") {scale=1, offset=1} -> f32(2)
output "y" = "a"
assign "count" = "next"
)");
  CHECK(drop_unused(graph).text() == R"(pycnn.graph 1
input "x" = f32(2)
buffer "count" = f32(2)
"a" = affine("x") {scale=2, offset=0} -> f32(2)
"next" = affine("count") {scale=1, offset=1} -> f32(2)
output "y" = "a"
assign "count" = "next"
)");
}

}  // namespace
}  // namespace pycnn
