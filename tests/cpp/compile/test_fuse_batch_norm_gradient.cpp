#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

constexpr const char* kHead = R"(pycnn.graph 1
input "x" = f32(4, 3)
input "g" = f32(4, 3)
input "r" = f32(4, 3)
parameter "s" = f32(3)
"st" = batch_norm_statistics("x", "s", "s", "s", "s") {eps=0.5, momentum=0.1} -> f32(3), f32(3), f32(3), f32(3), f32(3), f32(3)
)";
constexpr const char* kGrad =
    R"("d" = batch_norm_train_grad("x", "s", "st", "st":1, "a") -> f32(4, 3), f32(3), f32(3)
output "y" = "d"
)";

std::string fused(const std::string& body) {
  const std::string text = fuse_batch_norm_gradient(Graph::parse(kHead + body)).text();
  return text.substr(std::string(kHead).size());
}

TEST_CASE("the gradient of an activation joins that of its batch norm") {
  const std::string norm =
      R"("bn" = batch_norm_apply("x", "st", "st":4, "st":5) {epilogue=(false, relu, 0.01)} -> f32(4, 3)
)";
  CHECK(
      fused(norm + R"("a" = activation_grad("bn", "g") {kind=relu, slope=0.01} -> f32(4, 3)
)" + kGrad) ==
      norm +
          R"("d" = batch_norm_apply_grad("x", "s", "st", "st":1, "st":4, "st":5, "g") {activation=relu, slope=0.01} -> f32(4, 3), f32(3), f32(3)
output "y" = "d"
)");
}

TEST_CASE("a gradient that others read, or of a sum, stays by itself") {
  for (
      const std::string& body :
      {// A residual came between.
       std::string(
           R"("bn" = batch_norm_apply("x", "st", "st":4, "st":5, "r") {epilogue=(true, relu, 0.01)} -> f32(4, 3)
"a" = activation_grad("bn", "g") {kind=relu, slope=0.01} -> f32(4, 3)
)") + kGrad,
       // Another activation than the one that joined.
       std::string(
           R"("bn" = batch_norm_apply("x", "st", "st":4, "st":5) {epilogue=(false, relu6, 0.01)} -> f32(4, 3)
"a" = activation_grad("bn", "g") {kind=relu, slope=0.01} -> f32(4, 3)
)") + kGrad,
       // Another batch norm.
       std::string(
           R"("bn" = batch_norm_apply("r", "st", "st":4, "st":5) {epilogue=(false, relu, 0.01)} -> f32(4, 3)
"a" = activation_grad("bn", "g") {kind=relu, slope=0.01} -> f32(4, 3)
)") + kGrad,
       // Read twice.
       std::string(
           R"("bn" = batch_norm_apply("x", "st", "st":4, "st":5) {epilogue=(false, relu, 0.01)} -> f32(4, 3)
"a" = activation_grad("bn", "g") {kind=relu, slope=0.01} -> f32(4, 3)
)") + kGrad +
           "output \"z\" = \"a\"\n"}) {
    CAPTURE(body);
    CHECK(fused(body) == body);
  }
}

}  // namespace
}  // namespace pycnn
