#include <doctest/doctest.h>

#include <algorithm>

#include "compile/nets.h"

// Large dense layers under training in bfloat16 read their weights as they are.
namespace pycnn {
namespace {

// Of the three layers the middle one is large.
Graph net_of(std::int64_t batch, std::int64_t hidden, std::int64_t last) {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{batch, 64}, DType::kFloat32});
  const Symbol y = graph.input("y", {{batch}, DType::kInt64});
  Symbol h = net.relu(net.dense(x, "fc1", hidden), "relu1");
  h = net.relu(net.dense(h, "fc2", last), "relu2");
  graph.set_output("loss",
                   graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc3", 5), y}, "loss"));
  return graph;
}

// By the portable loops, which every machine has.
CompileOptions portable_options(bool training) {
  CompileOptions options;
  if (training) options = test::training_options();
  options.dtype = DType::kBFloat16, options.emulate_bfloat16 = true;
  options.variants["dense"] = "dense.bfloat16.portable";
  if (!training) return options;
  options.optimizer->kind = Optimizer::Kind::kSgd, options.optimizer->momentum = 0.9;
  for (const char* op : {"dense_grad_input", "dense_sgd_update"})
    options.variants[op] = std::string(op) + ".bfloat16.portable";
  return options;
}

std::size_t packings(const Program& program, const std::string& layer) {
  const std::vector<StepProfile> steps = program.steps();
  return static_cast<std::size_t>(
      std::count_if(steps.begin(), steps.end(), [&](const StepProfile& step) {
        return step.op == "pack" && (step.name == layer || step.name == "grad." + layer);
      }));
}

std::map<std::string, Tensor> batch_of(std::int64_t batch, std::uint64_t seed) {
  return {{"x", test::random_tensor({batch, 64}, seed)}, {"y", test::labels(batch, 5, seed)}};
}

TEST_CASE("a large dense weight under training has no packing, others have") {
  const test::Compiled training(net_of(3, 1056, 1024), portable_options(true));
  CHECK(packings(training.program, "fc2") == 0);
  CHECK(packings(training.program, "fc3") == 2);
  CHECK(training.program.memory().prepared_bytes < 1056 * 1024);
  const test::Compiled inference(net_of(3, 1056, 1024), portable_options(false));
  CHECK(packings(inference.program, "fc2") == 1);
  CHECK(inference.program.memory().prepared_bytes >= 2 * 1056 * 1024);
  // Sums over an odd number of inputs, or of outputs, end with a step that begins earlier.
  CHECK(packings(test::Compiled(net_of(3, 1050, 1056), portable_options(true)).program, "fc2") ==
        1);
  CHECK(packings(test::Compiled(net_of(3, 1056, 1050), portable_options(true)).program, "fc2") ==
        1);
}

// Steps of training by several programs in turn, between which somebody writes a weight, give what
// inference gives for the weights before each.
void check_sees_weights(const std::vector<Graph>& graphs,
                        const std::vector<std::map<std::string, Tensor>>& inputs,
                        const std::string& written) {
  for (const bool best_unit : {false, true}) {
    CAPTURE(best_unit);
    CompileOptions train = portable_options(true), infer = portable_options(false);
    if (best_unit) train.variants.clear(), infer.variants.clear();
    Variables variables;
    create_variables(graphs[0], variables, 2);
    std::vector<Program> training, inference;
    for (const Graph& graph : graphs) {
      training.push_back(compile(graph, variables, train));
      inference.push_back(compile(graph, variables, infer));
    }
    for (std::size_t step = 0; step < 5; ++step) {
      const std::size_t i = step % graphs.size();
      if (step == 2)
        for (std::int64_t k = 0; k < 1000; ++k)
          variables.at(written).mutable_data<float>()[k * 1000] *= -2;
      const auto expected = inference[i].run(inputs[i]);
      CHECK(test::same_bits(training[i].run(inputs[i]), expected));
    }
  }
}

TEST_CASE("training sees the weights that inference sees, after each update and each writing") {
  check_sees_weights({net_of(3, 1056, 1024)}, {batch_of(3, 1)}, "fc2.weight");
}

TEST_CASE("programs of two batch sizes that train the same weights take turns") {
  check_sees_weights({net_of(3, 1056, 1024), net_of(20, 1056, 1024)},
                     {batch_of(3, 1), batch_of(20, 2)}, "fc2.weight");
}

TEST_CASE("a large weight may be read in another shape, too") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{3, 1024}, DType::kFloat32});
  const Symbol y = graph.input("y", {{3}, DType::kInt64});
  const Symbol probe = graph.input("probe", {{3, 2048}, DType::kFloat32});
  const Symbol weight =
      graph.parameter("fc1.weight", {{2048, 1024}, DType::kFloat32}, test::uniform(0.03));
  const Symbol again = graph.add(ops::Reshape{{1024, 2048}}, {weight}, "again");
  graph.set_output("probed", graph.add(ops::Dense{}, {probe, again}, "other"));
  const Symbol h = net.relu(graph.add(ops::Dense{}, {x, weight}, "fc1"), "relu1");
  graph.set_output("loss",
                   graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc2", 5), y}, "loss"));
  check_sees_weights({graph},
                     {{{"x", test::random_tensor({3, 1024}, 1)},
                       {"y", test::labels(3, 5, 1)},
                       {"probe", test::random_tensor({3, 2048}, 2)}}},
                     "fc1.weight");
}

TEST_CASE("a run that fails on its labels leaves large weights as they were") {
  const test::Compiled failing(net_of(3, 1056, 1024), portable_options(true));
  const Tensor& weight = failing.variables.at("fc2.weight");
  Tensor before(weight.spec());
  std::memcpy(before.mutable_raw(), weight.raw(), weight.bytes());
  auto broken = batch_of(3, 2);
  broken.at("y").mutable_data<std::int64_t>()[1] = 5;
  CHECK_THROWS(failing.program.run(broken));
  CHECK(test::same_bits(weight, before));
}

}  // namespace
}  // namespace pycnn
