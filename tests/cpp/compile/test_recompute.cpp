#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

// Blocks of convolution, batch norm, relu, some with a residual, with dropout between, so that all
// that must not change is there.
Graph deep_net(int blocks, DType dtype = DType::kFloat32) {
  Graph graph;
  test::Layers net{graph, dtype};
  const Symbol x = graph.input("x", {{2, 12, 12, 3}, dtype});
  Symbol h = net.conv(x, "stem", 8, 3);
  for (int i = 0; i < blocks; ++i) {
    const std::string name = "block" + std::to_string(i);
    Symbol inner = net.relu(net.norm(net.conv(h, name + ".conv1", 8, 3), name + ".bn1"));
    if (i % 3 == 1) inner = graph.add(ops::Dropout{0.25}, {inner}, name + ".drop");
    inner = net.norm(net.conv(inner, name + ".conv2", 8, 3, false), name + ".bn2");
    h = net.relu(i == 0 ? inner : graph.add(ops::Add{}, {inner, h}));
  }
  h = graph.add(ops::Reshape{{2, -1}}, {graph.add(ops::MaxPool2d{}, {h})});
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  graph.set_output("loss",
                   graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc", 4), y}, "loss"));
  return graph;
}

CompileOptions options_of(Recompute which) {
  CompileOptions options = test::training_options();
  options.recompute = which;
  options.optimizer->momentum = 0.9;
  return options;
}

std::size_t count_again(const Program& program) {
  const std::string text = program.graph_text();
  std::size_t count = 0;
  for (std::size_t at = text.find(".again\" = "); at != std::string::npos;
       at = text.find(".again\" = ", at + 1))
    ++count;
  return count;
}

TEST_CASE("computing again gives the same bits in less memory") {
  const DType dtype = DType::kFloat32;
  const Graph graph = deep_net(8, dtype);
  const std::map<std::string, Tensor> inputs = {
      {"x", test::random_tensor({2, 12, 12, 3}, 1, 1.0, dtype)}, {"y", test::labels(2, 4)}};
  for (const bool fuse : {true, false}) {
    for (const bool winograd : {true, false}) {
      CompileOptions options = options_of(Recompute::kNone);
      options.fuse = fuse;
      options.winograd = winograd;
      test::Compiled kept(graph, options);
      std::map<std::string, Tensor> wanted;
      for (int step = 0; step < 3; ++step) wanted = kept.program.run(inputs);
      CHECK(count_again(kept.program) == 0);
      for (const Recompute which : {Recompute::kCheap, Recompute::kSqrt}) {
        CAPTURE(recompute_name(which));
        options.recompute = which;
        for (const int threads : {1, 2}) {
          options.threads = threads;
          test::Compiled again(graph, options);
          std::map<std::string, Tensor> found;
          for (int step = 0; step < 3; ++step) found = again.program.run(inputs);
          CHECK(count_again(again.program) > 0);
          CHECK(test::same_bits(found, wanted));
          CHECK(test::same_bits(again.variables, kept.variables));
        }
      }
    }
  }
}

TEST_CASE("planned memory falls from none to cheap to sqrt") {
  const Graph graph = deep_net(16);
  const auto arena = [&](Recompute which) {
    return static_cast<double>(plan_memory(graph, options_of(which)).memory.arena_bytes);
  };
  const double none = arena(Recompute::kNone), cheap = arena(Recompute::kCheap),
               sqrt = arena(Recompute::kSqrt);
  CHECK(cheap < 0.9 * none);
  CHECK(sqrt < 0.5 * none);
}

TEST_CASE("statistics are measured once, and running ones move once") {
  const Graph graph = deep_net(6);
  for (const Recompute which : {Recompute::kCheap, Recompute::kSqrt}) {
    test::Compiled compiled(graph, options_of(which));
    const std::string text = compiled.program.graph_text();
    CHECK(text.find("statistics.again") == std::string::npos);
    CHECK(text.find("loss.again") == std::string::npos);
  }
}

TEST_CASE("kernels pinned for a node hold for its repetition") {
  const Graph graph = deep_net(8);
  CompileOptions options = options_of(Recompute::kSqrt);
  for (int i = 0; i < 8; ++i)
    options.variants["block" + std::to_string(i) + ".conv1"] = "conv2d.reference";
  test::Compiled compiled(graph, options);
  int pinned = 0;
  for (const StepProfile& step : compiled.program.steps())
    if (step.name.find(".conv1.again") != std::string::npos) {
      CHECK(step.variant == "conv2d.reference");
      ++pinned;
    }
  CHECK(pinned > 0);
}

TEST_CASE("a frozen net is not computed again for its own sake") {
  Graph graph = deep_net(4);
  CompileOptions options = options_of(Recompute::kSqrt);
  ParameterGroup frozen;
  frozen.frozen = true;
  for (const Node& node : graph.nodes())
    if (node.kind == NodeKind::kParameter && !node.name.starts_with("fc"))
      frozen.names.push_back(node.name);
  options.optimizer->groups = {frozen};
  test::Compiled compiled(graph, options);
  CHECK(count_again(compiled.program) == 0);
}

TEST_CASE("inference is left alone, and results of the graph stay what they are") {
  Graph graph = deep_net(4);
  CompileOptions options;
  options.recompute = Recompute::kSqrt;
  test::Compiled inference(graph, options);
  CHECK(count_again(inference.program) == 0);
  // Every block's output is wanted.
  for (const Node& node : std::vector<Node>(graph.nodes()))
    if (node.name.starts_with("activation")) graph.set_output(node.name, graph.find(node.name));
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({2, 12, 12, 3}, 1)},
                                                {"y", test::labels(2, 4)}};
  test::Compiled kept(graph, options_of(Recompute::kNone));
  test::Compiled again(graph, options_of(Recompute::kSqrt));
  CHECK(test::same_bits(kept.program.run(inputs), again.program.run(inputs)));
}

TEST_CASE("names of the choices read back") {
  for (const Recompute which : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt})
    CHECK(parse_recompute(recompute_name(which)) == which);
  CHECK_THROWS_WITH_AS(parse_recompute("all"),
                       "recompute: 'all' is not one of 'none', 'cheap', 'sqrt'", ArgumentError);
}

}  // namespace
}  // namespace pycnn
