#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"
#include "compile/view_ops.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

Schedule schedule_of(const Graph& graph, std::map<std::string, std::string> pins = {}) {
  return select_kernels(graph, split_prepare(graph), {best_isa(), 2, std::move(pins)});
}

Graph two_layers() {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  graph.set_output("y", net.relu(net.dense(net.dense(x, "fc1", 3), "fc2", 5), "act"));
  return graph;
}

TEST_CASE("each op becomes a step, in order") {
  const Schedule schedule = schedule_of(two_layers());
  REQUIRE(schedule.run.size() == 3);
  CHECK(schedule.run[0].name == "fc1");
  CHECK(schedule.run[2].op_name == "activation");
  CHECK(schedule.prepare.empty());
  CHECK(schedule.inputs.size() == 1);
  CHECK(schedule.variables.size() == 4);
}

TEST_CASE("a reshape is another name for the same memory") {
  Graph graph;
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  graph.set_output("y", graph.add(ops::Reshape{{8}}, {x}));
  const Schedule schedule = schedule_of(graph);
  CHECK(schedule.run.empty());
  CHECK(schedule.value(schedule.outputs[0].second).alias_of == 0);
}

TEST_CASE("ops that leave every element where it is only rename") {
  const TensorSpec flat{{6}, DType::kFloat32}, row{{1, 6}, DType::kFloat32};
  const TensorSpec cube{{2, 1, 3}, DType::kFloat32};
  CHECK(only_renames(ops::Reshape{{1, 6}}, flat, row));
  CHECK(only_renames(ops::Broadcast{{1, 6}}, flat, row));
  CHECK(!only_renames(ops::Broadcast{{2, 6}}, flat, {{2, 6}, DType::kFloat32}));
  CHECK(only_renames(ops::Transpose{{1, 0, 2}}, cube, {{1, 2, 3}, DType::kFloat32}));
  CHECK(only_renames(ops::Transpose{{0, 2, 1}}, cube, {{2, 3, 1}, DType::kFloat32}));
  CHECK(!only_renames(ops::Transpose{{2, 1, 0}}, cube, {{3, 1, 2}, DType::kFloat32}));
  CHECK(only_renames(ops::Concat{0}, flat, flat));
  CHECK(only_renames(ops::Slice{{0}, {-1}}, flat, flat));
  CHECK(!only_renames(ops::Slice{{0}, {5}}, flat, {{5}, DType::kFloat32}));
  CHECK(!only_renames(ops::Activation{ActivationKind::kRelu}, flat, flat));
  CHECK(only_renames(ops::Activation{ActivationKind::kIdentity}, flat, flat));
  CHECK(!only_renames(ops::Affine{}, flat, flat));
  const TensorSpec image{{1, 2, 3, 1}, DType::kFloat32}, other{{1, 3, 2, 1}, DType::kFloat32};
  CHECK(only_renames(ops::AdaptiveAvgPool2d{{2, 3}}, image, image));
  CHECK(!only_renames(ops::AdaptiveAvgPool2d{{3, 2}}, image, other));
}

TEST_CASE("a pinned node goes before a pinned op, and that before all") {
  const std::vector<std::string> dense = variants("dense");
  REQUIRE(dense.size() >= 2);
  const std::string reference = dense.back();
  const Schedule all = schedule_of(two_layers(), {{"*", "reference"}});
  CHECK(all.run[0].kernel.variant == reference);
  CHECK(all.run[2].kernel.variant == variants("activation").back());
  const Schedule one = schedule_of(two_layers(), {{"fc2", "reference"}});
  CHECK(one.run[0].kernel.variant != reference);
  CHECK(one.run[1].kernel.variant == reference);
  CHECK(!one.run[1].refused.empty());
  const std::string best = one.run[0].kernel.variant;
  const Schedule mixed = schedule_of(two_layers(), {{"dense", "reference"}, {"fc1", best}});
  CHECK(mixed.run[0].kernel.variant == best);
  CHECK(mixed.run[1].kernel.variant == reference);
}

TEST_CASE("an unknown variant is refused with node, specs and the known ones") {
  CHECK_THROWS_WITH_AS(schedule_of(two_layers(), {{"fc2", "dense.fastest"}}),
                       doctest::Contains("compile 'fc2': dense: no variant is called"),
                       ArgumentError);
}

// By channels of the result: what kernels are told of the pitch that it may have.
std::map<std::int64_t, std::int64_t>& told_pitches() {
  static std::map<std::int64_t, std::int64_t> pitches;
  return pitches;
}

TEST_CASE("a kernel is told of the concat of channels that reads its result") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 3, 3, 4}, DType::kFloat32});
  const auto conv = [&](const char* name, std::int64_t channels) {
    return net.conv(x, name, channels, 1, false, 0);
  };
  const Symbol a = conv("a", 5), b = conv("b", 3), c = conv("c", 6);
  graph.set_output("y", graph.add(ops::Concat{3}, {a, b}));
  graph.set_output("z", graph.add(ops::Concat{0}, {c, c}));
  graph.set_output("last", graph.add(ops::Concat{-1}, {conv("d", 7), conv("e", 9)}));
  told_pitches().clear();
  const Backend spy{"spy",
                    [](const Op& op, const Problem& problem) {
                      told_pitches()[problem.outputs[0].shape.back()] = problem.output_pitch;
                      return cpu_backend().select(op, problem);
                    },
                    cpu_backend().variants,
                    nullptr,
                    nullptr,
                    nullptr,
                    nullptr};
  KernelChoice choice{best_isa(), 2, {}};
  choice.backend = &spy;
  (void)select_kernels(graph, split_prepare(graph), choice);
  CHECK(told_pitches() == std::map<std::int64_t, std::int64_t>{
                              {3, 8}, {5, 8}, {6, 0}, {7, 16}, {8, 0}, {9, 16}, {16, 0}});
}

}  // namespace
}  // namespace pycnn
