#include <doctest/doctest.h>

#include <algorithm>

#include "compile/nets.h"

// Updates of large dense layers in bfloat16 pack the new weights for the next run.
namespace pycnn {
namespace {

struct Widths {
  std::int64_t input = 64, hidden = 1056, last = 1024;
};

// Of the three layers the middle one is large.
Graph net_of(std::int64_t batch, const Widths& widths) {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{batch, widths.input}, DType::kFloat32});
  const Symbol y = graph.input("y", {{batch}, DType::kInt64});
  Symbol h = net.relu(net.dense(x, "fc1", widths.hidden), "relu1");
  h = net.relu(net.dense(h, "fc2", widths.last), "relu2");
  graph.set_output("loss",
                   graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc3", 5), y}, "loss"));
  return graph;
}

// By the portable loops, which every machine has.
CompileOptions portable_options(Optimizer::Kind kind = Optimizer::Kind::kSgd) {
  CompileOptions options = test::training_options();
  options.dtype = DType::kBFloat16, options.emulate_bfloat16 = true;
  options.optimizer->kind = kind;
  options.optimizer->momentum = kind == Optimizer::Kind::kSgd ? 0.9 : 0.0;
  for (const char* op :
       {"dense", "dense_grad_input", "dense_grad_weight", "dense_sgd_update", "dense_adam_update"})
    if (op != std::string("dense_grad_weight"))
      options.variants[op] = std::string(op) + ".bfloat16.portable";
  return options;
}

// Packing steps of a layer in a phase.
std::size_t packings(const Program& program, const std::string& phase, const std::string& layer) {
  const std::vector<StepProfile> steps = program.steps();
  return static_cast<std::size_t>(
      std::count_if(steps.begin(), steps.end(), [&](const StepProfile& step) {
        const bool forward = step.name == layer, backward = step.name == "grad." + layer;
        return step.op == "pack" && step.phase == phase && (forward || backward);
      }));
}

std::map<std::string, Tensor> batch_of(std::int64_t batch, std::uint64_t seed) {
  return {{"x", test::random_tensor({batch, 64}, seed)}, {"y", test::labels(batch, 5, seed)}};
}

void check_same(const Variables& a, const Variables& b) {
  for (const auto& [key, tensor] : a) {
    const std::string& name = key;
    CAPTURE(name);
    CHECK(test::same_bits(tensor, b.at(name)));
  }
}

TEST_CASE("a large dense weight is packed by its update, a small one before it is read") {
  for (const auto kind : {Optimizer::Kind::kSgd, Optimizer::Kind::kAdam}) {
    const test::Compiled compiled(net_of(3, {}), portable_options(kind));
    CHECK(packings(compiled.program, "run", "fc2") == 0);
    CHECK(packings(compiled.program, "prepare", "fc2") == 2);
    CHECK(packings(compiled.program, "run", "fc3") == 2);
    CHECK(compiled.program.memory().prepared_bytes >= 2 * 2 * 1056 * 1024);
  }
}

TEST_CASE("a packing that the shape does not tell is made in each run") {
  // Sums over an odd number of inputs, or of outputs, end with a step that begins earlier.
  const test::Compiled inputs(net_of(3, {64, 1050, 1056}), portable_options());
  CHECK(packings(inputs.program, "run", "fc2") == 1);
  CHECK(packings(inputs.program, "prepare", "fc2") == 1);
  const test::Compiled outputs(net_of(3, {64, 1056, 1050}), portable_options());
  CHECK(packings(outputs.program, "run", "fc2") == 1);
  CHECK(packings(outputs.program, "prepare", "fc2") == 1);
  CompileOptions clipped = portable_options();
  clipped.optimizer->clip_norm = 1.0;
  const test::Compiled apart(net_of(3, {}), clipped);
  CHECK(packings(apart.program, "run", "fc2") == 2);
}

TEST_CASE("packings that updates wrote are those of the weights") {
  CompileOptions options = portable_options();
  std::vector<Widths> all = {{}};
  SUBCASE("portable") { all = {{64, 1050, 1056}, {64, 1056, 1050}, {}}; }
  SUBCASE("the best unit") { options.variants.clear(); }
  SUBCASE("adam") { options = portable_options(Optimizer::Kind::kAdamW); }
  SUBCASE("in no shared memory") { options.reuse_memory = false; }
  SUBCASE("computed again") { options.recompute = Recompute::kSqrt; }
  for (const Widths& widths : all) {
    const Graph graph = net_of(3, widths);
    test::Compiled kept(graph, options), anew(graph, options);
    for (std::uint64_t step = 1; step <= 3; ++step) {
      // Somebody else's writing has the other program pack all weights.
      for (auto& [name, tensor] : anew.variables) tensor.mark_written();
      const auto inputs = batch_of(3, step);
      CHECK(test::same_bits(kept.program.run(inputs), anew.program.run(inputs)));
    }
    check_same(kept.variables, anew.variables);
  }
}

TEST_CASE("weights that somebody else writes are packed anew") {
  const Graph graph = net_of(3, {});
  const CompileOptions options = portable_options();
  test::Compiled first(graph, options), second(graph, options);
  first.program.run(batch_of(3, 1));
  for (auto& [name, tensor] : second.variables)
    std::memcpy(tensor.mutable_raw(), first.variables.at(name).raw(), tensor.bytes());
  const auto inputs = batch_of(3, 2);
  CHECK(test::same_bits(first.program.run(inputs), second.program.run(inputs)));
  check_same(first.variables, second.variables);
}

TEST_CASE("programs of two batch sizes that train the same weights take turns") {
  const CompileOptions options = portable_options();
  test::Compiled three(net_of(3, {}), options);
  const Program two = compile(net_of(2, {}), three.variables, options);
  test::Compiled other(net_of(3, {}), options);
  for (std::uint64_t step = 1; step <= 4; ++step) {
    const std::int64_t batch = step % 2 == 0 ? 2 : 3;
    const auto inputs = batch_of(batch, step);
    const auto found = (batch == 2 ? two : three.program).run(inputs);
    // A new program has packed nothing yet.
    const Program fresh = compile(net_of(batch, {}), other.variables, options);
    CHECK(test::same_bits(found, fresh.run(inputs)));
  }
  check_same(three.variables, other.variables);
}

// A program that keeps packings, and one that makes all of them in each run.
void check_kept(const Graph& graph, Variables kept_variables, Variables anew_variables,
                const std::map<std::string, Tensor>& inputs) {
  const Program kept = compile(graph, kept_variables, portable_options());
  const Program anew = compile(graph, anew_variables, portable_options());
  for (int step = 1; step <= 3; ++step) {
    for (auto& [name, tensor] : anew_variables) tensor.mark_written();
    CHECK(test::same_bits(kept.run(inputs), anew.run(inputs)));
  }
  check_same(kept_variables, anew_variables);
}

Variables variables_of(const Graph& graph) {
  Variables variables;
  create_variables(graph, variables, 2);
  return variables;
}

TEST_CASE("a weight that is read in another shape, too, is packed for that in each run") {
  // The second has fewer bytes than the weight's own packing, whose rows are filled up to blocks.
  for (const auto& [rows, shape] : {std::pair{2048, Shape{1024, 2048}}, {1030, {32960, 32}}}) {
    Graph graph;
    test::Layers net{graph};
    const Symbol x = graph.input("x", {{3, 1024}, DType::kFloat32});
    const Symbol y = graph.input("y", {{3}, DType::kInt64});
    const Symbol probe = graph.input("probe", {{3, shape[1]}, DType::kFloat32});
    const Symbol weight =
        graph.parameter("fc1.weight", {{rows, 1024}, DType::kFloat32}, test::uniform(0.03));
    const Symbol again = graph.add(ops::Reshape{shape}, {weight}, "again");
    graph.set_output("probed", graph.add(ops::Dense{}, {probe, again}, "other"));
    const Symbol h = net.relu(graph.add(ops::Dense{}, {x, weight}, "fc1"), "relu1");
    graph.set_output("loss",
                     graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc2", 5), y}, "loss"));
    check_kept(graph, variables_of(graph), variables_of(graph),
               {{"x", test::random_tensor({3, 1024}, 1)},
                {"y", test::labels(3, 5, 1)},
                {"probe", test::random_tensor({3, shape[1]}, 2)}});
  }
}

TEST_CASE("a tensor that is the weight of two layers under two names is packed anew") {
  const Graph graph = net_of(3, {1056, 1056, 1056});
  Variables kept = variables_of(graph), anew = variables_of(graph);
  for (Variables* variables : {&kept, &anew})
    variables->at("fc2.weight") = variables->at("fc1.weight");
  check_kept(graph, kept, anew,
             {{"x", test::random_tensor({3, 1056}, 1)}, {"y", test::labels(3, 5, 1)}});
}

TEST_CASE("weights are updated by no images") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{0, 1024}, DType::kFloat32});
  const Symbol h = net.dense(net.dense(x, "fc1", 1056), "fc2", 1024);
  graph.set_output("loss", graph.add(ops::Reduce{Reduction::kSum, {0, 1}, false}, {h}, "loss"));
  check_kept(graph, variables_of(graph), variables_of(graph),
             {{"x", test::random_tensor({0, 1024}, 1)}});
}

TEST_CASE("a run that fails on its labels leaves weights and packings as they were") {
  const Graph graph = net_of(3, {});
  test::Compiled failing(graph, portable_options()), other(graph, portable_options());
  auto inputs = batch_of(3, 1);
  failing.program.run(inputs);
  other.program.run(inputs);
  auto broken = batch_of(3, 2);
  broken.at("y").mutable_data<std::int64_t>()[1] = 5;
  CHECK_THROWS(failing.program.run(broken));
  inputs = batch_of(3, 3);
  CHECK(test::same_bits(failing.program.run(inputs), other.program.run(inputs)));
  check_same(failing.variables, other.variables);
}

}  // namespace
}  // namespace pycnn
