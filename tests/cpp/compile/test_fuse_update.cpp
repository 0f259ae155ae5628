#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

// A layer of 1088 x 1000 weights, which is large enough, and a small one.
Graph large_net(std::int64_t batch, DType dtype = DType::kFloat32) {
  Graph graph;
  test::Layers net{graph, dtype};
  const Symbol x = graph.input("x", {{batch, 1000}, dtype});
  const Symbol y = graph.input("y", {{batch}, DType::kInt64});
  const Symbol h = net.relu(net.dense(x, "fc1", 1088), "relu");
  graph.set_output("loss",
                   graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc2", 5), y}, "loss"));
  return graph;
}

bool is_joined(const Program& program) {
  return program.graph_text().find("_update(\"fc1.weight\", \"x\"") != std::string::npos;
}

CompileOptions options_of(Optimizer::Kind kind) {
  CompileOptions options = test::training_options();
  options.optimizer->kind = kind;
  options.optimizer->momentum = kind == Optimizer::Kind::kSgd ? 0.9 : 0.0;
  options.optimizer->weight_decay = 0.01;
  return options;
}

void check_same(const test::Compiled& a, const test::Compiled& b, double most) {
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({7, 1000}, 1)},
                                                {"y", test::labels(7, 5)}};
  for (int step = 0; step < 3; ++step) {
    a.program.run(inputs);
    b.program.run(inputs);
  }
  for (const auto& [key, tensor] : a.variables) {
    const std::string& name = key;
    CAPTURE(name);
    if (tensor.dtype() == DType::kFloat32)
      CHECK(test::difference(tensor, b.variables.at(name)) <= most);
  }
}

TEST_CASE("the gradient of a large dense layer joins its update and never stands in memory") {
  for (const auto kind : {Optimizer::Kind::kSgd, Optimizer::Kind::kAdam, Optimizer::Kind::kAdamW}) {
    const Graph graph = large_net(7);
    CompileOptions options = options_of(kind);
    options.optimizer->ema_decay = 0.9;
    test::Compiled joined(graph, options);
    options.variants = {{"dense_grad_weight", "reference"}};
    test::Compiled apart(graph, options);
    CHECK(is_joined(joined.program));
    CHECK(!is_joined(apart.program));
    constexpr std::size_t kGradient = 1088 * 1000 * sizeof(float);
    CHECK(apart.program.memory().arena_bytes > kGradient);
    CHECK(joined.program.memory().arena_bytes < kGradient / 8);
    check_same(joined, apart, 1e-5);
  }
}

TEST_CASE("of bfloat16 images the same update is joined, with the numbers of the two steps") {
  for (const auto kind : {Optimizer::Kind::kSgd, Optimizer::Kind::kAdamW}) {
    const Graph graph = large_net(7);
    CompileOptions options = options_of(kind);
    options.dtype = DType::kBFloat16, options.emulate_bfloat16 = true;
    test::Compiled joined(graph, options);
    options.variants = {
        {kind == Optimizer::Kind::kSgd ? "sgd_update" : "adam_update", "reference"}};
    test::Compiled apart(graph, options);
    CHECK(joined.program.graph_text().find("_update(\"fc1.weight\"") != std::string::npos);
    constexpr std::size_t kGradient = 1088 * 1000 * sizeof(float);
    CHECK(apart.program.memory().arena_bytes > kGradient);
    CHECK(joined.program.memory().arena_bytes < kGradient * 3 / 4);  // the packed weight
    check_same(joined, apart, 1e-4);
  }
}

TEST_CASE("a joined update gives the same bits with any number of threads") {
  const Graph graph = large_net(7);
  CompileOptions options = options_of(Optimizer::Kind::kSgd);
  SUBCASE("float32") {}
  SUBCASE("bfloat16") { options.dtype = DType::kBFloat16, options.emulate_bfloat16 = true; }
  options.threads = 1;
  test::Compiled alone(graph, options);
  options.threads = 2;
  test::Compiled together(graph, options);
  check_same(alone, together, 0.0);
}

TEST_CASE("an update that must see all gradients first, or another's, is left alone") {
  CompileOptions options = options_of(Optimizer::Kind::kSgd);
  SUBCASE("clipped") { options.optimizer->clip_norm = 1.0; }
  SUBCASE("muon") { options.optimizer->kind = Optimizer::Kind::kMuon; }
  SUBCASE("pinned update") { options.variants = {{"sgd_update", "reference"}}; }
  SUBCASE("pinned gradient") { options.variants = {{"grad.fc1", "reference"}}; }
  SUBCASE("frozen") { options.optimizer->groups = {{{"fc1.weight"}, 0.0, 1.0, true}}; }
  test::Compiled compiled(large_net(2), options);
  CHECK(!is_joined(compiled.program));
}

}  // namespace
}  // namespace pycnn
