#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>

#include "compile/nets.h"

namespace pycnn {
namespace {

TEST_CASE("the times of the steps add up to the time of the runs") {
  const test::Compiled compiled(test::small_net(64, true), test::training_options());
  const Program& program = compiled.program;
  const Tensor x = test::random_tensor({64, 8, 8, 2}, 9), y = test::labels(64, 4);
  std::vector<Tensor> results;
  std::vector<void*> outputs;
  for (const auto& [name, spec] : program.outputs()) {
    results.emplace_back(spec);
    outputs.push_back(results.back().mutable_raw());
  }
  const void* inputs[] = {x.raw(), y.raw()};
  for (int i = 0; i < 5; ++i) program.run(inputs, outputs);

  // A machine busy with other things may stop us between the steps; not in every run.
  double outside = 1.0;
  for (int attempt = 0; attempt < 200 && outside > 0.03; ++attempt) {
    program.start_profile();
    const auto begin = std::chrono::steady_clock::now();
    program.run(inputs, outputs);
    const double wall =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    double sum = 0.0;
    for (const StepProfile& step : program.profile()) {
      if (step.phase != "run") continue;
      sum += step.total_seconds;
      CHECK(step.runs == 1);
      CHECK(step.min_seconds == step.total_seconds);
    }
    CHECK(sum <= wall);
    outside = std::min(outside, (wall - sum) / wall);
  }
  CHECK(outside <= 0.03);
}

TEST_CASE("a line tells node, op, variant and cost; packing and preparing are lines, too") {
  const Graph graph = test::small_net(4, false);
  Variables variables;
  create_variables(graph, variables, 2);
  CompileOptions options;
  options.variants = {{"conv2", "reference"}};
  const Program program = compile(graph, variables, options);
  program.start_profile();
  program.run({{"x", test::random_tensor({4, 8, 8, 2}, 9)}});
  const std::vector<StepProfile> lines = program.profile();
  const auto find = [&](const std::string& name, const std::string& op) {
    const auto line = std::find_if(lines.begin(), lines.end(), [&](const StepProfile& step) {
      return step.name == name && step.op == op;
    });
    REQUIRE(line != lines.end());
    return *line;
  };
  CHECK(find("conv2", "conv2d").variant == "conv2d.reference");
  CHECK(find("conv2", "conv2d").phase == "run");
  CHECK(find("conv2", "conv2d").cost.macs == 4 * 8 * 8 * 5 * 9 * 5);
  CHECK(find("bn1.fold", "fold_batch_norm").phase == "prepare");
  CHECK(find("conv1", "pack").phase == "prepare");
  CHECK(find("conv1", "pack").runs == 1);
}

TEST_CASE(
    "the steps of a program are told without running it, with the reasons for their kernels") {
  const Graph graph = test::small_net(4, false);
  Variables variables;
  create_variables(graph, variables, 2);
  CompileOptions options;
  options.variants = {{"conv2", "reference"}};
  const Program program = compile(graph, variables, options);
  program.start_profile();
  const std::vector<StepProfile> steps = program.steps();
  program.run({{"x", test::random_tensor({4, 8, 8, 2}, 9)}});
  const std::vector<StepProfile> lines = program.profile();
  REQUIRE(steps.size() == lines.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    CHECK(steps[i].name == lines[i].name);
    CHECK(steps[i].phase == lines[i].phase);
    CHECK(steps[i].cost.bytes == lines[i].cost.bytes);
    CHECK(steps[i].refused == lines[i].refused);
    CHECK(steps[i].runs == 0);
    CHECK(lines[i].runs == 1);  // asking for the steps stopped nothing
    if (steps[i].name == "conv2" && steps[i].op == "conv2d") {
      std::vector<std::string> all = variants("conv2d");
      std::erase_if(all, [](const std::string& name) {  // for images of another type
        return name.find(".bfloat16.") != std::string::npos;
      });
      REQUIRE(steps[i].refused.size() == all.size() - 1);
      for (std::size_t v = 0; v + 1 < all.size(); ++v) {
        CHECK(steps[i].refused[v].first == all[v]);
        CHECK(!steps[i].refused[v].second.empty());
      }
    }
  }
}

TEST_CASE("bytes of a step: what it reads twice is read once, weights are as packed") {
  Graph graph;
  const Symbol x = graph.input("x", {{2, 3}, DType::kFloat32});
  graph.set_output("y", graph.add(ops::Add{}, {x, x}, "twice"));
  Variables variables;
  const std::vector<StepProfile> steps = compile(graph, variables).steps();
  REQUIRE(steps.size() == 1);
  CHECK(steps[0].cost.bytes == 2 * 4 * 2 * 3);

  const Graph net = test::small_net(4, false);
  create_variables(net, variables, 2);
  std::int64_t packed = -1;
  for (const StepProfile& step : compile(net, variables).steps()) {
    if (step.name != "conv1") continue;
    const std::int64_t weight = 4 * 5 * 3 * 3 * 2;
    if (step.op == "pack")
      packed = step.cost.bytes - weight;
    else if (step.op == "conv2d")
      CHECK(step.cost.bytes == packed + 4 * (4 * 8 * 8 * 2 + 5 + 4 * 8 * 8 * 5));
  }
  CHECK(packed > 0);
}

TEST_CASE("a profile counts the runs between its start and its end") {
  const Graph graph = test::small_net(2, false);
  Variables variables;
  create_variables(graph, variables, 2);
  const Program program = compile(graph, variables);
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({2, 8, 8, 2}, 9)}};
  program.run(inputs);
  CHECK(program.profile().back().runs == 0);
  program.start_profile();
  program.run(inputs);
  program.run(inputs);
  CHECK(program.profile().back().runs == 2);
  program.run(inputs);
  CHECK(program.profile().back().runs == 2);
  program.start_profile();
  CHECK(program.profile().back().runs == 0);
}

}  // namespace
}  // namespace pycnn
