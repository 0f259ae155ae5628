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

TEST_CASE("training sees the weights that inference sees, after each update and each writing") {
  for (const bool best_unit : {false, true}) {
    CompileOptions train = portable_options(true), infer = portable_options(false);
    if (best_unit) train.variants.clear(), infer.variants.clear();
    test::Compiled training(net_of(3, 1056, 1024), train);
    const Program inference = compile(net_of(3, 1056, 1024), training.variables, infer);
    for (std::uint64_t step = 1; step <= 4; ++step) {
      const auto inputs = batch_of(3, step);
      if (step == 3)
        for (std::int64_t i = 0; i < 1024; ++i)
          training.variables.at("fc2.weight").mutable_data<float>()[i * 1056] *= -2;
      const Tensor expected = inference.run(inputs).at("loss");
      CHECK(test::same_bits(training.program.run(inputs).at("loss"), expected));
    }
  }
}

}  // namespace
}  // namespace pycnn
