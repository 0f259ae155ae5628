#include <doctest/doctest.h>

#include "compile/passes.h"
#include "compile/same_attributes.h"
#include "compile/steps.h"

namespace pycnn {
namespace {

void nothing(const KernelArgs&) noexcept {}
void pack_a(const KernelArgs&) noexcept {}
void pack_b(const KernelArgs&) noexcept {}

// Value 0: input; 1: variable 0; 2: variable 1.
struct Draft {
  Schedule schedule;
  Draft() {
    schedule.inputs = {{"x", test::kFour}};
    schedule.add_value({ScheduleValue::Kind::kInput, test::kFour, 0});
    test::add_variables(schedule, {"v0", "v1"});
  }
  int step(const std::string& name, std::vector<int> inputs, KernelFunction pack = nullptr,
           Op op = ops::Dense{}) {
    Kernel kernel;
    kernel.run = nothing;
    if (pack != nullptr) kernel.packed = {1, 100, pack, 32, "format"};
    return test::add_step(schedule, name, std::move(op), std::move(inputs), kernel);
  }
};

std::string names(const std::vector<ScheduleStep>& steps) {
  std::string text;
  for (const ScheduleStep& step : steps) text += step.name + ":" + step.op_name + " ";
  return text;
}

TEST_CASE("a weight that no run changes is packed in prepare, once for equal steps") {
  Draft draft;
  draft.step("one", {0, 1}, pack_a);
  draft.step("two", {3, 1}, pack_a);
  draft.step("other_function", {3, 1}, pack_b);
  draft.step("other_weight", {3, 2}, pack_a);
  Schedule& schedule = draft.schedule;
  prepack_weights(schedule);
  CHECK(names(schedule.prepare) == "one:pack other_function:pack other_weight:pack ");
  CHECK(names(schedule.run) == "one:dense two:dense other_function:dense other_weight:dense ");
  CHECK(schedule.run[0].inputs[1] == schedule.run[1].inputs[1]);
  CHECK(schedule.run[0].inputs[1] != schedule.run[2].inputs[1]);
  const ScheduleStep& pack = schedule.prepare[0];
  CHECK(pack.inputs == std::vector<int>{1});
  CHECK(pack.kernel.scratch_bytes == 32);
  CHECK(schedule.value(pack.outputs[0]).spec == TensorSpec{{100}, DType::kUInt8});
  CHECK(schedule.value(pack.outputs[0]).prepared);
  CHECK(schedule.run[0].input_specs[1] == test::kFour);  // the original's
}

TEST_CASE("a bias is packed as the weight is, each for itself") {
  for (const bool trained : {false, true}) {
    Draft draft;
    for (const char* const name : {"one", "two"}) {
      draft.step(name, {0, 1, 2}, pack_a);
      PackedInput& bias = draft.schedule.run.back().kernel.packed_bias;
      bias = {2, 8, pack_b, 0, "bias"};
      bias.rounded = DType::kBFloat16;
    }
    if (trained) draft.schedule.assignments = {{1, draft.step("update", {2})}};
    prepack_weights(draft.schedule);
    // The weight is no variable that this update changes.
    CHECK(names(draft.schedule.prepare) == (trained ? "one:pack " : "one:pack one:pack "));
    CHECK(names(draft.schedule.run) ==
          (trained ? "one:pack one:dense two:dense update:dense " : "one:dense two:dense "));
    const ScheduleStep& bias = trained ? draft.schedule.run[0] : draft.schedule.prepare[1];
    CHECK(bias.inputs == std::vector<int>{2});
    CHECK((bias.kernel.run == pack_b));
    CHECK(bias.rounded == DType::kBFloat16);
    CHECK(draft.schedule.value(bias.outputs[0]).spec == TensorSpec{{8}, DType::kUInt8});
    for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
      const ScheduleStep& reader = draft.schedule.run[i + (trained ? 1 : 0)];
      CHECK(reader.inputs[1] == draft.schedule.prepare[0].outputs[0]);
      CHECK(reader.inputs[2] == bias.outputs[0]);
      CHECK(reader.input_specs[2] == test::kFour);
    }
  }
}

TEST_CASE("a weight under training is packed in each run, right before its first use") {
  Draft draft;
  draft.step("before", {0});
  draft.step("one", {0, 1}, pack_a);
  draft.step("two", {0, 1}, pack_a);
  const int updated = draft.step("update", {1});
  draft.schedule.assignments = {{0, updated}};
  prepack_weights(draft.schedule);
  CHECK(draft.schedule.prepare.empty());
  CHECK(names(draft.schedule.run) == "before:dense one:pack one:dense two:dense update:dense ");
}

TEST_CASE("a weight under training is read as it is where the kernel can do that") {
  for (const bool trained : {false, true}) {
    Draft draft;
    draft.step("one", {0, 1}, pack_a);
    Kernel& kernel = draft.schedule.run[0].kernel;
    kernel.scratch_bytes = 10;
    kernel.packed.run_unpacked = pack_b, kernel.packed.unpacked_scratch_bytes = 20;
    if (trained) draft.schedule.assignments = {{0, draft.step("update", {1})}};
    prepack_weights(draft.schedule);
    const ScheduleStep& one = draft.schedule.run[0];
    CHECK(names(draft.schedule.prepare) == (trained ? "" : "one:pack "));
    CHECK(one.name == "one");
    CHECK((one.inputs[1] == 1) == trained);
    CHECK((one.kernel.run == pack_b) == trained);
    CHECK(one.kernel.scratch_bytes == (trained ? 20u : 10u));
    CHECK((one.kernel.packed.input < 0) == trained);
  }
}

TEST_CASE("steps with other attributes do not share a packing") {
  Draft draft;
  ops::Dense relu;
  relu.epilogue.activation = ActivationKind::kRelu;
  draft.step("one", {0, 1}, pack_a);
  draft.step("two", {0, 1}, pack_a, relu);
  prepack_weights(draft.schedule);
  CHECK(draft.schedule.prepare.size() == 2);
  CHECK(same_attributes(relu, relu));
  CHECK(!same_attributes(relu, ops::Dense{}));
  CHECK(!same_attributes(ops::Add{}, ops::Subtract{}));
}

}  // namespace
}  // namespace pycnn
