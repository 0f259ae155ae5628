// Updates of many parameters by one launch have the bits of updates one by one, which `variants`
// asks for.
#include <algorithm>
#include <string>

#include "backends/cuda/training.h"

namespace pycnn {
namespace {

using testing::options_for;

// Dense layers of odd sizes; the first one's weight is of that many inputs.
Graph layers_net(int layers, std::int64_t inputs) {
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.input("x", {{2, inputs}});
  for (int i = 0; i < layers; ++i)
    h = net.relu(net.dense(h, "fc" + std::to_string(i), i % 3 == 0 ? 37 : 29));
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc", 3), y}));
  return graph;
}

int updates_in(const Program& program, const std::string& op) {
  const std::vector<StepProfile> steps = program.steps();
  return static_cast<int>(
      std::count_if(steps.begin(), steps.end(), [&](const auto& step) { return step.op == op; }));
}

// Joined, in `joined` steps, and one by one, in `single` ones.
void check_bits(const Graph& graph, const CompileOptions& options, const std::string& op,
                int joined, int single) {
  CompileOptions apart = options;
  apart.variants = {{op, "reference"}, {"ema_update", "reference"}};
  const testing::EachWay one(graph, options);
  const test::Compiled many(graph, apart);
  CHECK(updates_in(one.program(), op) == joined);
  CHECK(updates_in(many.program, op) == single);
  CHECK(updates_in(one.program(), "ema_update") == (options.optimizer->ema_decay ? joined : 0));
  const std::int64_t width = graph.spec(graph.find("x")).shape[1];
  const testing::Results inputs = {{"x", test::random_tensor({2, width}, 9)},
                                   {"y", test::labels(2, 3)}};
  one.expect_bits_of(many, 3, [&](std::uint64_t) { return inputs; });
}

TEST_CASE("cuda joined updates: the bits of updates one by one") {
  const Graph graph = layers_net(4, 31);
  CompileOptions options = options_for("cuda");  // momentum, clipping, averages
  for (const DType dtype : {DType::kFloat32, DType::kFloat16}) {
    CAPTURE(static_cast<int>(dtype));
    options.dtype = dtype;
    SUBCASE("momentum") { check_bits(graph, options, "sgd_update", 1, 10); }
    SUBCASE("sgd without a state") {
      options.optimizer->momentum = 0.0;
      options.optimizer->clip_norm.reset();
      options.optimizer->ema_decay.reset();
      check_bits(graph, options, "sgd_update", 1, 10);
    }
    SUBCASE("nesterov, groups of their own decay and rate") {
      options.optimizer->nesterov = true;
      options.optimizer->weight_decay = 0.1;
      options.optimizer->groups = {{{"fc0.bias", "fc2.bias"}, 0.0, 3.0}, {{"fc1.weight"}, 0.5}};
      check_bits(graph, options, "sgd_update", 1, 10);
    }
    SUBCASE("AdamW with groups") {
      options.optimizer->kind = Optimizer::Kind::kAdamW;
      options.optimizer->weight_decay = 0.1;
      options.optimizer->groups = {{{"fc0.bias", "fc2.bias"}, 0.0, 3.0}};
      check_bits(graph, options, "adam_update", 1, 10);
    }
    SUBCASE("Muon's vectors") {
      options.optimizer->kind = Optimizer::Kind::kMuon;
      options.optimizer->ema_decay.reset();
      check_bits(graph, options, "sgd_update", 1, 5);
    }
  }
}

// Weights as they are multiplied are made by few launches for all layers, forwards and backwards,
// with the bits of those that each layer makes for itself.
TEST_CASE("cuda joined packings: one step for all layers, but not for large ones") {
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  options.variants = {{"activation_grad", "reference"}};  // which a pinned layer does not do
  CompileOptions apart = options;
  apart.variants.insert({{"dense", "reference"}, {"dense_grad_input", "reference"}});
  const Graph small = layers_net(4, 31), many = layers_net(40, 5), large = layers_net(2, 29000);
  for (const Graph* graph : {&small, &many, &large}) {
    const test::Compiled one(*graph, options), single(*graph, apart);
    CHECK(updates_in(one.program, "pack") == (graph == &large ? 2 : 1));
    CHECK(updates_in(single.program, "pack") == 0);
    const std::int64_t width = graph->spec(graph->find("x")).shape[1];
    const testing::Results inputs = {{"x", test::random_tensor({2, width}, 9)},
                                     {"y", test::labels(2, 3)}};
    testing::Calls calls;
    one.program.run(inputs);
    const int joined = calls.count("launch");
    single.program.run(inputs);
    const int all = calls.count("launch") - joined;
    // Layers forwards and, but for the first one, backwards.
    const int layers = graph == &small ? 5 : graph == &many ? 41 : 3;
    const int packings = 2 * layers - 1, few = graph == &small ? 1 : 2;
    CHECK(all - joined == packings - few);
    for (int step = 0; step < 2; ++step) {
      one.program.run(inputs);
      single.program.run(inputs);
    }
    CHECK(test::same_bits(one.variables, single.variables));
  }
}

TEST_CASE("cuda joined updates: more tensors than one launch takes are one step still") {
  CompileOptions options = options_for("cuda");
  check_bits(layers_net(48, 5), options, "sgd_update", 1, 98);
  options.optimizer->kind = Optimizer::Kind::kAdam;
  check_bits(layers_net(48, 5), options, "adam_update", 1, 98);
}

TEST_CASE(
    "cuda joined updates: what is pinned or large has a step of its own, all have without "
    "fusion") {
  CompileOptions options = options_for("cuda");
  options.optimizer->ema_decay.reset();
  const Graph graph = layers_net(3, 29000);  // 37 times that is more than 2^20
  const auto count = [&] {
    return updates_in(test::Compiled(graph, options).program, "sgd_update");
  };
  CHECK(count() == 2);
  options.variants = {{"update.fc1.weight", "reference"}};
  CHECK(count() == 3);
  options.variants = {};
  options.fuse = false;
  CHECK(count() == 8);
  options.device = "cpu";
  options.fuse = true;
  CHECK(count() + updates_in(test::Compiled(graph, options).program, "dense_sgd_update") == 8);
}

}  // namespace
}  // namespace pycnn
