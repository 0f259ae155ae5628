#include <doctest/doctest.h>

#include "compile/passes.h"
#include "compile/steps.h"

namespace pycnn {
namespace {

// Values 0 and 1 are variables, a weight and the rate. A step makes the weight's gradient in
// 16 bits, and an update takes it.
struct Steps {
  Schedule schedule;
  int gradient = -1;

  explicit Steps(std::optional<DType> made_in = DType::kBFloat16) {
    test::add_variables(schedule, {"w", "rate"});
    Kernel kernel;
    kernel.widened_from = made_in;
    gradient = add("gradient", ops::Affine{}, {1}, kernel);
  }
  int add(const std::string& name, Op op, std::vector<int> inputs, Kernel kernel = {}) {
    return test::add_step(schedule, name, std::move(op), std::move(inputs), std::move(kernel));
  }
  int update(bool takes_narrow = true, std::vector<int> inputs = {}) {
    if (inputs.empty()) inputs = {0, gradient, 1};
    Kernel kernel;
    kernel.takes_narrow_gradient = takes_narrow;
    return add("update", ops::SgdUpdate{}, std::move(inputs), kernel);
  }
  // Of the gradient, and what the last step is told of its second input.
  std::pair<DType, DType> types() {
    narrow_gradients(schedule);
    for (const ScheduleStep& step : schedule.run)
      for (std::size_t i = 0; i < step.inputs.size(); ++i)
        CHECK(step.input_specs[i] == schedule.value(step.inputs[i]).spec);
    return {schedule.value(gradient).spec.dtype, schedule.run.back().input_specs[1].dtype};
  }
};

using Types = std::pair<DType, DType>;
const Types kWide{DType::kFloat32, DType::kFloat32};

TEST_CASE("a gradient that is made in 16 bits and that an update alone reads stays so") {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    Steps steps(dtype);
    steps.schedule.assignments = {{0, steps.update()}};
    CHECK(steps.types() == Types{dtype, dtype});
    const ProgramPlan plan = plan_memory(std::move(steps.schedule), false);
    CHECK(plan.run[0].outputs[0].spec.dtype == dtype);
    CHECK(plan.run[1].inputs[1].spec.dtype == dtype);
    CHECK(plan.run[1].inputs[1].place == plan.run[0].outputs[0].place);
  }
}

TEST_CASE("a gradient is float32 where its kernel makes it so or the update wants it so") {
  Steps wide(std::nullopt);
  wide.update();
  CHECK(wide.types() == kWide);
  Steps unable;
  unable.update(false);
  CHECK(unable.types() == kWide);
}

TEST_CASE("a norm of all gradients reads them in 16 bits, wherever they stand, if it can") {
  const auto types = [](bool can, bool update_can) {
    Steps steps;
    Kernel kernel;
    kernel.takes_narrow_gradient = can;
    steps.add("norm", ops::ClipFactor{1.0}, {steps.gradient, 1, steps.gradient}, kernel);
    steps.update(update_can);
    return steps.types();
  };
  CHECK(types(true, true) == Types{DType::kBFloat16, DType::kBFloat16});
  CHECK(types(false, true) == kWide);
  CHECK(types(true, false) == kWide);
}

TEST_CASE("a gradient that somebody else reads is float32") {
  Steps late;
  late.update();
  late.add("sum", ops::Add{}, {late.gradient, late.gradient});
  CHECK(late.types() == kWide);

  Steps twice;
  twice.update(true, {0, twice.gradient, twice.gradient});
  CHECK(twice.types() == kWide);

  Steps output;
  output.update();
  output.schedule.outputs = {{"gradient", output.gradient}};
  CHECK(output.types() == kWide);

  Steps kept;
  kept.update();
  kept.schedule.assignments = {{0, kept.gradient}};
  CHECK(kept.types() == kWide);
}

TEST_CASE("a gradient that is known under another shape, or as a part, is float32") {
  Steps alias;
  ScheduleValue flat{ScheduleValue::Kind::kResult, test::kFour};
  flat.alias_of = alias.gradient;
  alias.schedule.add_value(flat);
  alias.update();
  CHECK(alias.types() == kWide);

  Steps aliased;
  flat.alias_of = aliased.gradient;
  aliased.update(true, {0, aliased.schedule.add_value(flat), 1});
  CHECK(aliased.types() == kWide);

  Steps part;
  const int whole = part.schedule.add_value({ScheduleValue::Kind::kResult, test::kFour});
  part.schedule.values[static_cast<std::size_t>(part.gradient)].part_of = whole;
  part.update();
  CHECK(part.types() == kWide);
}

TEST_CASE("of several results the first is the gradient, and a step may have none") {
  Steps several;
  ScheduleStep& step = several.schedule.run[0];
  const int bias = several.schedule.add_value({ScheduleValue::Kind::kResult, test::kFour});
  step.outputs.push_back(bias);
  several.update();
  several.update(true, {1, bias, 1});
  CHECK(several.types() == Types{DType::kBFloat16, DType::kFloat32});

  Steps none;
  none.add("nothing", ops::Affine{}, {1});
  none.schedule.run.back().outputs.clear();
  none.update();
  CHECK(none.types() == Types{DType::kBFloat16, DType::kBFloat16});
}

TEST_CASE("only what is the gradient of an update is taken in 16 bits") {
  Steps steps;
  steps.update(true, {steps.gradient, 0, 1});
  CHECK(steps.types() == kWide);
}

}  // namespace
}  // namespace pycnn
