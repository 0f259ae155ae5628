#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

constexpr const char* kHead = R"(pycnn.graph 1
input "x" = f32(4, 3)
parameter "s" = f32(3)
buffer "m" = f32(3)
)";
constexpr const char* kNorm =
    R"("bn" = batch_norm_train("x", "s", "s", "m", "m") {eps=0.5, momentum=0.1} -> f32(4, 3), f32(3), f32(3), f32(3), f32(3)
)";
constexpr const char* kTail = R"(output "y" = "bn"
output "inv_std" = "bn":2
assign "m" = "bn":3
)";

TEST_CASE("a batch norm of training is parted into statistics and their use") {
  const Graph graph = Graph::parse(std::string(kHead) + kNorm + kTail);
  CHECK(
      split_batch_norm(graph, {}).text() ==
      kHead +
          std::string(
              R"("bn.statistics" = batch_norm_statistics("x", "s", "s", "m", "m") {eps=0.5, momentum=0.1} -> f32(3), f32(3), f32(3), f32(3), f32(3), f32(3)
"bn" = batch_norm_apply("x", "bn.statistics", "bn.statistics":4, "bn.statistics":5) {epilogue=(false, identity, 0.01)} -> f32(4, 3)
output "y" = "bn"
output "inv_std" = "bn.statistics":1
assign "m" = "bn.statistics":2
)"));
}

TEST_CASE("a batch norm that is pinned to a kernel stays whole") {
  const std::string text = std::string(kHead) + kNorm + kTail;
  for (const char* pinned : {"bn", "batch_norm_train"})
    CHECK(split_batch_norm(Graph::parse(text), {{pinned, "batch_norm_train.reference"}}).text() ==
          text);
  CHECK(split_batch_norm(Graph::parse(text), {{"other", "reference"}}).text() != text);
}

TEST_CASE("the parts join what follows, and their gradients too; results agree with the whole") {
  const Graph graph = test::small_net(3, true);
  CompileOptions options = test::training_options();
  options.recompute = Recompute::kNone;
  test::Compiled parted(graph, options);
  options.variants = {{"batch_norm_train", "reference"}};
  test::Compiled whole(graph, options);
  const std::string text = parted.program.graph_text();
  CHECK(text.find("batch_norm_apply(") != std::string::npos);
  CHECK(text.find("batch_norm_apply_grad(") != std::string::npos);  // of bn1, whose relu joined it
  CHECK(text.find("batch_norm_train_grad(") != std::string::npos);  // of bn2, which has a residual
  CHECK(text.find("= activation(") == std::string::npos);
  CHECK(text.find("= add(") == std::string::npos);  // of two gradients: one of them adds the other
  CHECK(whole.program.graph_text().find("batch_norm_apply") == std::string::npos);
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({3, 8, 8, 2}, 1)},
                                                {"y", test::labels(3, 4)}};
  for (int step = 0; step < 3; ++step) {
    const auto found = parted.program.run(inputs), wanted = whole.program.run(inputs);
    CHECK(test::difference(found.at("logits"), wanted.at("logits")) < 1e-5);
  }
  for (const auto& [key, tensor] : whole.variables) {
    const std::string& name = key;
    CAPTURE(name);
    if (tensor.dtype() == DType::kFloat32)
      CHECK(test::difference(parted.variables.at(name), tensor) < 1e-5);
  }
}

}  // namespace
}  // namespace pycnn
