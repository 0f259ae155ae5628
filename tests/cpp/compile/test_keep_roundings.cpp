#include <doctest/doctest.h>

#include <algorithm>

#include "compile/passes.h"
#include "compile/steps.h"

namespace pycnn {
namespace {

void pack(const KernelArgs&) noexcept {}
void multiply(const KernelArgs&) noexcept {}
bool round_bfloat16(Kernel& kernel, DType dtype) noexcept {
  kernel.variant = "rounding";
  kernel.rounds = nullptr;
  return dtype == DType::kBFloat16;
}

// Values 0 and 1 are variables, a weight and the rate; an update of the weight comes last.
struct Steps {
  Schedule schedule;
  int updated = -1;

  Steps() { test::add_variables(schedule, {"w", "rate"}); }
  int add(const std::string& name, Op op, std::vector<int> inputs, Kernel kernel = {}) {
    return test::add_step(schedule, name, std::move(op), std::move(inputs), std::move(kernel));
  }
  int multiplies(const std::string& name, int image, std::optional<DType> rounded,
                 const Op& op = ops::Dense{}) {
    Kernel kernel;
    kernel.run = multiply;
    kernel.packed = {1, 64, pack, 0, "format"};
    kernel.packed.rounded = rounded;
    return add(name, op, {image, 0}, kernel);
  }
  void update(decltype(Kernel::rounds) rounds) {
    Kernel kernel;
    kernel.variant = "plain";
    kernel.in_place = {1u << 0};
    kernel.rounds = rounds;
    updated = add("update", ops::SgdUpdate{}, {0, schedule.run.back().outputs[0], 1}, kernel);
    schedule.assignments = {{0, updated}};
  }
  std::string order() const {
    std::string text;
    for (const ScheduleStep& step : schedule.run)
      text += step.name + (step.op_name == "pack" ? ":pack " : " ");
    return text;
  }
};

TEST_CASE("an update writes the rounding that the next run reads") {
  Steps steps;
  steps.multiplies("forward", 1, DType::kBFloat16);
  steps.multiplies("backward", 1, DType::kBFloat16, ops::DenseGradInput{});
  steps.update(round_bfloat16);
  prepack_weights(steps.schedule);
  CHECK(steps.order() == "forward:pack forward backward update ");  // one rounding for both
  keep_roundings(steps.schedule);
  CHECK(steps.order() == "forward backward update ");
  REQUIRE(steps.schedule.prepare.size() == 1);
  const int rounding = steps.schedule.prepare[0].outputs[0];
  CHECK(steps.schedule.value(rounding).prepared);
  const ScheduleStep& update = steps.schedule.run[2];
  CHECK(update.outputs == std::vector<int>{steps.updated, rounding});
  CHECK(std::string(update.kernel.variant) == "rounding");

  // It has one place from run to run, and is read before it is written.
  hasten_updates(steps.schedule);
  join_updates(steps.schedule);
  CHECK(steps.order() == "forward backward update ");
  const ProgramPlan plan = plan_memory(std::move(steps.schedule), true);
  CHECK(plan.prepare_reads == std::vector<int>{0});
  CHECK(plan.assigned == std::vector<int>{0});
  const Place place = plan.prepare[0].outputs[0].place;
  CHECK(place.space == Place::Space::kPrepared);
  CHECK(plan.run[0].inputs[1].place == place);
  CHECK(plan.run[1].inputs[1].place == place);
  CHECK(plan.run[2].outputs[1].place == place);
  CHECK(plan.run[2].outputs[0].place == Place{Place::Space::kVariable, 0, 0});
  CHECK(plan.prepared_bytes == 64);
  // The parameter, its gradient and the rate, what becomes of it, and the rounding.
  CHECK(plan.run[2].cost.bytes == 4 * 16 + 64);
}

TEST_CASE("an update waits for who reads the rounding that it writes over") {
  Steps steps;
  const int gradient = steps.add("gradient", ops::Affine{}, {1});
  const int result = steps.multiplies("reader", 1, DType::kBFloat16);
  steps.add("another", ops::Affine{}, {result});
  steps.update(round_bfloat16);
  steps.schedule.run.back().inputs[1] = gradient;
  prepack_weights(steps.schedule);
  keep_roundings(steps.schedule);
  hasten_updates(steps.schedule);
  CHECK(steps.order() == "gradient reader update another ");
}

TEST_CASE("what is no plain rounding, of another type or read afterwards is packed in each run") {
  const auto order_of = [](const auto& fill, decltype(Kernel::rounds) rounds = round_bfloat16) {
    Steps steps;
    fill(steps);
    steps.update(rounds);
    prepack_weights(steps.schedule);
    keep_roundings(steps.schedule);
    for (const ScheduleStep& step : steps.schedule.run)
      if (step.name == "update") CHECK(step.outputs.size() == 1);
    CHECK(steps.schedule.prepare.empty());
    return steps.order();
  };
  const auto one = [](std::optional<DType> rounded) {
    return [rounded](Steps& steps) { steps.multiplies("one", 1, rounded); };
  };
  const std::string packed = "one:pack one update ";
  CHECK(order_of(one(std::nullopt)) == packed);
  CHECK(order_of(one(DType::kFloat16)) == packed);
  CHECK(order_of(one(DType::kBFloat16), nullptr) == packed);

  Steps late;
  late.multiplies("one", 1, DType::kBFloat16);
  late.update(round_bfloat16);
  late.multiplies("two", 1, DType::kBFloat16);
  prepack_weights(late.schedule);
  keep_roundings(late.schedule);
  CHECK(late.order() == "one:pack one update two ");
}

TEST_CASE("of two types of one weight the update writes one") {
  Steps steps;
  steps.multiplies("a", 1, DType::kFloat16);
  steps.multiplies("b", 1, DType::kBFloat16);
  steps.update(round_bfloat16);
  prepack_weights(steps.schedule);
  keep_roundings(steps.schedule);
  CHECK(steps.order() == "a:pack a b update ");
  CHECK(steps.schedule.prepare.size() == 1);
}

}  // namespace
}  // namespace pycnn
