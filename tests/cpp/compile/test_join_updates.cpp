#include <doctest/doctest.h>

#include "compile/passes.h"
#include "compile/steps.h"

namespace pycnn {
namespace {

Kernel join_all(std::span<const Joining> steps) noexcept {
  Kernel kernel;
  kernel.variant = "joined";
  kernel.in_place = {1u << 0};
  kernel.plan.resize(steps.size());
  return kernel;
}
Kernel join_others(std::span<const Joining>) noexcept { return {}; }

using Names = std::vector<std::string>;

// Steps over variables, which are the first values.
struct Steps {
  Schedule schedule;

  explicit Steps(int variables) {
    for (int i = 0; i < variables; ++i) test::add_variables(schedule, {"v" + std::to_string(i)});
  }
  int add(const std::string& name, std::vector<int> inputs, JoinFunction join = nullptr,
          const Op& op = ops::EmaUpdate{}) {
    Kernel kernel;
    kernel.variant = "single";
    kernel.join = join;
    kernel.in_place = {1u << 0};
    return test::add_step(schedule, name, op, std::move(inputs), kernel);
  }
  Names order() const { return test::names_of(schedule.run); }
};

TEST_CASE("steps that can be joined are one, where the last of them stood") {
  Steps steps(3);
  const int a = steps.add("a", {0, 2}, join_all);
  steps.add("between", {2, 2});
  const int b = steps.add("b", {1, 2}, join_all);
  steps.add("behind", {2, 2});
  join_updates(steps.schedule);
  CHECK(steps.order() == Names{"between", "a and 1 more", "behind"});
  const ScheduleStep& joined = steps.schedule.run[1];
  CHECK(joined.inputs == std::vector<int>{0, 2, 1, 2});
  CHECK(joined.outputs == std::vector<int>{a, b});
  CHECK(joined.input_specs.size() == 4);
  CHECK(joined.joined == 2);
  CHECK(joined.kernel.plan.size() == 2);
  CHECK(std::string(joined.kernel.variant) == "single");
}

TEST_CASE("what reads a joined result comes behind, and joins only what it does not wait for") {
  Steps steps(4);
  const int a = steps.add("a", {0, 3}, join_all);
  const int reader = steps.add("reader", {a, 3});
  steps.add("reads the reader", {reader, 3}, join_all);
  steps.add("other reader", {a, 3}, join_others);
  steps.add("between", {3, 3});
  steps.add("b", {1, 3}, join_all);
  steps.add("c", {2, 3}, join_others);
  join_updates(steps.schedule);
  CHECK(steps.order() ==
        Names{"between", "a and 1 more", "reader", "reads the reader", "other reader and 1 more"});
}

TEST_CASE(
    "a step stays by itself that is alone, asks for nothing or has other numbers of tensors") {
  Steps steps(3);
  steps.add("a", {0, 2}, join_all);
  steps.add("b", {1, 2}, join_others);
  steps.add("c", {1, 2, 0}, join_all);
  steps.add("d", {1, 2});
  steps.add("e", {1, 2});
  join_updates(steps.schedule);
  CHECK(steps.order() == Names{"a", "b", "c", "d", "e"});
}

TEST_CASE("each result of a joined step is written over its own variable") {
  Steps steps(3);
  std::vector<int> results;
  for (const int variable : {0, 1}) results.push_back(steps.add("update", {variable, 2}, join_all));
  steps.schedule.assignments = {{0, results[0]}, {1, results[1]}};
  join_updates(steps.schedule);
  const ProgramPlan plan = plan_memory(std::move(steps.schedule), true);
  REQUIRE(plan.run.size() == 1);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    CHECK(plan.run[0].outputs[i].place == Place{Place::Space::kVariable, static_cast<int>(i), 0});
    CHECK(plan.run[0].outputs[i].place == plan.run[0].inputs[2 * i].place);
  }
  // Three operations and three tensors of 16 bytes for each element of each.
  CHECK(plan.run[0].cost.other_flops == 2 * 3 * 4);
  CHECK(plan.run[0].cost.bytes == 5 * 16);  // the third variable is read once
}

TEST_CASE("what some of the joined steps round comes behind all other results") {
  Steps steps(3);
  std::vector<int> results, roundings;
  for (const int variable : {0, 1}) {
    results.push_back(steps.add("update", {variable, 2}, join_all));
    if (variable == 0) continue;
    ScheduleValue value;
    value.spec = {{8}, DType::kUInt8};
    value.prepared = true;
    roundings.push_back(steps.schedule.add_value(value));
    steps.schedule.run.back().outputs.push_back(roundings[0]);
    steps.schedule.run.back().roundings = 1;
  }
  results.push_back(steps.add("another", {1, 2}, join_all));
  steps.schedule.assignments = {{0, results[0]}};
  join_updates(steps.schedule);
  CHECK(steps.order() == Names{"update and 2 more"});
  const ScheduleStep& joined = steps.schedule.run[0];
  CHECK(joined.outputs == std::vector<int>{results[0], results[1], results[2], roundings[0]});
  CHECK(joined.roundings == 1);
  const ProgramPlan plan = plan_memory(std::move(steps.schedule), true);
  CHECK(plan.run[0].outputs[0].place == Place{Place::Space::kVariable, 0, 0});
  CHECK(plan.run[0].outputs[3].place.space == Place::Space::kPrepared);
  // Two of the three tensors of each that are read are read once, in all three variables.
  CHECK(plan.run[0].cost.bytes == 3 * 16 + 3 * 16 + 8);
}

TEST_CASE("a variable that another joined update reads is not written over") {
  Steps steps(2);
  const int a = steps.add("a", {0, 1}, join_all), b = steps.add("b", {1, 0}, join_all);
  steps.schedule.assignments = {{0, a}, {1, b}};
  join_updates(steps.schedule);
  const ProgramPlan plan = plan_memory(std::move(steps.schedule), true);
  REQUIRE(plan.run.size() == 3);
  CHECK(plan.run[0].outputs[0].place.space == Place::Space::kArena);
  CHECK(plan.run[0].outputs[1].place.space == Place::Space::kArena);
  CHECK(plan.run[1].op_name == "copy");
  CHECK(plan.run[2].op_name == "copy");
}

}  // namespace
}  // namespace pycnn
