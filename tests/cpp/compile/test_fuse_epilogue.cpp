#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

constexpr const char* kHead = R"(pycnn.graph 1
input "x" = f32(2, 4)
input "r" = f32(2, 3)
parameter "w" = f32(3, 4)
)";

std::string fused(const std::string& body) {
  const std::string text = fuse_epilogue(Graph::parse(kHead + body)).text();
  return text.substr(std::string(kHead).size());
}

constexpr const char* kDense =
    "\"fc\" = dense(\"x\", \"w\") {epilogue=(false, identity, 0.01)} -> f32(2, 3)\n";

TEST_CASE("an activation joins the layer before it, under the layer's name") {
  CHECK(fused(kDense +
              std::string(R"("act" = activation("fc") {kind=leaky_relu, slope=0.2} -> f32(2, 3)
output "y" = "act"
)")) == R"("fc" = dense("x", "w") {epilogue=(false, leaky_relu, 0.2)} -> f32(2, 3)
output "y" = "fc"
)");
}

TEST_CASE("residual and activation join together") {
  CHECK(fused(kDense + std::string(R"("sum" = add("r", "fc") -> f32(2, 3)
"act" = activation("sum") {kind=relu, slope=0.01} -> f32(2, 3)
output "y" = "act"
)")) == R"("fc" = dense("x", "w", "r") {epilogue=(true, relu, 0.01)} -> f32(2, 3)
output "y" = "fc"
)");
}

TEST_CASE("of two layers the later one takes the other's result") {
  CHECK(fused(kDense +
              std::string(R"("fc2" = dense("x", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 3)
"sum" = add("fc2", "fc") -> f32(2, 3)
output "y" = "sum"
)")) ==
        kDense + std::string(
                     R"("fc2" = dense("x", "w", "fc") {epilogue=(true, identity, 0.01)} -> f32(2, 3)
output "y" = "fc2"
)"));
}

TEST_CASE("a second addition is left alone") {
  CHECK(fused(kDense + std::string(R"("sum" = add("fc", "r") -> f32(2, 3)
"more" = add("sum", "r") -> f32(2, 3)
output "y" = "more"
)")) == R"("fc" = dense("x", "w", "r") {epilogue=(true, identity, 0.01)} -> f32(2, 3)
"more" = add("fc", "r") -> f32(2, 3)
output "y" = "more"
)");
}

TEST_CASE("what others read stays as it is") {
  for (const char* body : {R"("act" = activation("fc") {kind=relu, slope=0.01} -> f32(2, 3)
output "y" = "act"
output "raw" = "fc"
)",
                           R"("sum" = add("fc", "fc") -> f32(2, 3)
output "y" = "sum"
)",
                           // A bias of another shape is no residual.
                           R"(parameter "b" = f32(3)
"sum" = add("fc", "b") -> f32(2, 3)
output "y" = "sum"
)",
                           // Two activations in a row: only the first may join.
                           R"("s" = softmax("fc") -> f32(2, 3)
"act" = activation("s") {kind=relu, slope=0.01} -> f32(2, 3)
output "y" = "act"
)"}) {
    CAPTURE(body);
    CHECK(fused(std::string(kDense) + body) == std::string(kDense) + body);
  }
}

TEST_CASE("in training a layer joins its activation when the gradient needs the result alone") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 6, 6, 1}, DType::kFloat32});
  const Symbol h = net.relu(net.conv(x, "conv", 3, 3), "relu");
  const Symbol flat = graph.add(ops::Reshape{{2, -1}}, {h});
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(flat, "fc", 3), y}));
  const auto loss_after = [&](bool fuse) {
    Variables variables;
    create_variables(graph, variables, 3);
    CompileOptions options;
    options.mode = Mode::kTraining;
    options.optimizer = Optimizer{};
    options.fuse = fuse;
    const Program program = compile(graph, variables, options);
    CHECK((program.graph_text().find(" = activation(") == std::string::npos) == fuse);
    const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({2, 6, 6, 1}, 1)},
                                                  {"y", test::labels(2, 3)}};
    for (int step = 0; step < 5; ++step) program.run(inputs);
    return *program.run(inputs).at("loss").data<float>();
  };
  CHECK(loss_after(true) == doctest::Approx(loss_after(false)).epsilon(1e-5));
}

}  // namespace
}  // namespace pycnn
