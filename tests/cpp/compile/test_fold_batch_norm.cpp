#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

constexpr const char* kHead = R"(pycnn.graph 1
input "x" = f32(2, 4)
parameter "w" = f32(3, 4)
parameter "b" = f32(3)
parameter "s" = f32(3)
buffer "m" = f32(3)
)";

Graph parsed(const std::string& body) { return Graph::parse(kHead + body); }

TEST_CASE("a batch norm behind a dense layer joins its weight and bias") {
  const Graph graph = parsed(
      R"("fc" = dense("x", "w", "b") {epilogue=(false, identity, 0.01)} -> f32(2, 3)
"bn" = batch_norm_inference("fc", "s", "s", "m", "m") {eps=0.5} -> f32(2, 3)
output "y" = "bn"
)");
  CHECK(
      fold_batch_norm(graph).text() ==
      kHead +
          std::string(
              R"("bn.fold" = fold_batch_norm("w", "s", "s", "m", "m", "b") {eps=0.5} -> f32(3, 4), f32(3)
"fc" = dense("x", "bn.fold", "bn.fold":1) {epilogue=(false, identity, 0.01)} -> f32(2, 3)
output "y" = "fc"
)"));
}

TEST_CASE("variables of the batch norm may be recorded behind the layer") {
  const Graph graph = Graph::parse(R"(pycnn.graph 1
input "x" = f32(2, 4)
parameter "w" = f32(3, 4)
"fc" = dense("x", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 3)
parameter "s" = f32(3)
"bn" = batch_norm_inference("fc", "s", "s", "s", "s") {eps=0.5} -> f32(2, 3)
output "y" = "bn"
)");
  const Graph folded = fold_batch_norm(graph);
  CHECK(folded.node(folded.find("fc")).inputs.size() == 3);
  CHECK(!folded.contains("bn"));
}

TEST_CASE("a batch norm stays where folding would change results or cost time") {
  for (const char* body : {// The layer's result is wanted by itself.
                           R"("fc" = dense("x", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 3)
"bn" = batch_norm_inference("fc", "s", "s", "m", "m") {eps=0.5} -> f32(2, 3)
output "y" = "bn"
output "raw" = "fc"
)",
                           // An activation comes first.
                           R"("fc" = dense("x", "w") {epilogue=(false, relu, 0.01)} -> f32(2, 3)
"bn" = batch_norm_inference("fc", "s", "s", "m", "m") {eps=0.5} -> f32(2, 3)
output "y" = "bn"
)",
                           // The statistics are no variables.
                           R"(input "n" = f32(3)
"fc" = dense("x", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 3)
"bn" = batch_norm_inference("fc", "s", "s", "n", "m") {eps=0.5} -> f32(2, 3)
output "y" = "bn"
)",
                           // The weight changes with every run.
                           R"("fc" = dense("x", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 3)
"bn" = batch_norm_inference("fc", "s", "s", "m", "m") {eps=0.5} -> f32(2, 3)
"next" = affine("w") {scale=0.5, offset=0} -> f32(3, 4)
output "y" = "bn"
assign "w" = "next"
)"}) {
    CAPTURE(body);
    CHECK(fold_batch_norm(parsed(body)).text() == kHead + std::string(body));
  }
}

TEST_CASE("folding leaves results unchanged") {
  const Graph graph = test::small_net(3, false);
  Variables variables;
  create_variables(graph, variables, 5);
  for (const char* name : {"bn1.running_mean", "bn2.running_mean"})
    fill(variables[name], test::uniform(0.3), 1, 2);
  CompileOptions plain;
  plain.fuse = false;
  plain.variants = {{"*", "reference"}};
  CompileOptions fused;
  fused.variants = {{"*", "reference"}};
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({3, 8, 8, 2}, 4)}};
  const Tensor expected = compile(graph, variables, plain).run(inputs).at("logits");
  const Program program = compile(graph, variables, fused);
  CHECK(program.graph_text().find("batch_norm_inference") == std::string::npos);
  CHECK(test::difference(program.run(inputs).at("logits"), expected) < 1e-5);
}

}  // namespace
}  // namespace pycnn
