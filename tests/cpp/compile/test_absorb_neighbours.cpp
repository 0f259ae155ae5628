#include <doctest/doctest.h>

#include <algorithm>

#include "compile/passes.h"
#include "compile/steps.h"

namespace pycnn {
namespace {

const TensorSpec kWide{{4, 2}, DType::kFloat32}, kNarrow{{4, 2}, DType::kBFloat16};

// Takes casts on both sides, and gradients of activations behind it.
bool takes(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  const bool cast = std::holds_alternative<ops::Cast>(*neighbour.op);
  const bool gradient = std::holds_alternative<ops::ActivationGrad>(*neighbour.op);
  if (!cast && !(gradient && neighbour.is_reader)) return false;
  kernel.scratch_bytes += neighbour.is_reader ? 100 : 1;
  return true;
}
bool takes_nothing(Kernel&, const Op&, const Neighbour&) noexcept { return false; }

struct Steps {
  Schedule schedule;
  int input = schedule.add_value({ScheduleValue::Kind::kInput, kWide, 0});
  int variable = schedule.add_value({ScheduleValue::Kind::kVariable, kWide, 0});

  Steps() {
    schedule.inputs = {{"x", kWide}};
    schedule.variables = {"v"};
  }
  int add(const std::string& name, const Op& op, std::vector<int> inputs,
          decltype(Kernel::absorb) absorb = nullptr, const TensorSpec& spec = kWide) {
    Kernel kernel;
    kernel.absorb = absorb;
    return test::add_step(schedule, name, op, std::move(inputs), kernel, spec);
  }
  int layer(const std::string& name, std::vector<int> inputs,
            decltype(Kernel::absorb) absorb = takes, const TensorSpec& spec = kWide) {
    return add(name, ops::Affine{}, std::move(inputs), absorb, spec);
  }
  int cast(const std::string& name, int value) {
    return add(name, ops::Cast{DType::kBFloat16}, {value}, nullptr, kNarrow);
  }
  std::vector<std::string> absorb(const std::map<std::string, std::string>& pins = {}) {
    absorb_neighbours(schedule, pins);
    return test::names_of(schedule.run);
  }
  const ScheduleStep& step(std::size_t i) const { return schedule.run[i]; }
};
using Names = std::vector<std::string>;
using Named = std::vector<std::pair<std::string, std::string>>;

TEST_CASE("a cast goes to the step that alone it reads of") {
  Steps steps;
  const int made = steps.layer("maker", {steps.input});
  const int rounded = steps.cast("cast", made);
  steps.layer("reader", {rounded}, nullptr);
  REQUIRE(steps.absorb() == Names{"maker", "reader"});
  CHECK(steps.step(0).outputs == std::vector<int>{rounded});
  CHECK(steps.step(0).kernel.scratch_bytes == 100);
}

TEST_CASE("a cast goes to all its readers where they can do it, or to nobody") {
  for (const bool all : {true, false}) {
    CAPTURE(all);
    Steps steps;
    const int made = steps.layer("maker", {steps.input}, nullptr);
    const int rounded = steps.cast("cast", made);
    steps.layer("one", {steps.variable, rounded});
    steps.layer("other", {rounded}, all ? takes : takes_nothing);
    if (!all) {
      CHECK(steps.absorb() == Names{"maker", "cast", "one", "other"});
      CHECK(steps.step(2).kernel.scratch_bytes == 0);
      continue;
    }
    REQUIRE(steps.absorb() == Names{"maker", "one", "other"});
    CHECK(steps.step(1).inputs == std::vector<int>{steps.variable, made});
    CHECK(steps.step(1).input_specs[1] == kWide);
    CHECK(steps.step(2).inputs == std::vector<int>{made});
    CHECK(steps.step(2).kernel.scratch_bytes == 1);
    for (const std::size_t i : {1, 2}) CHECK(steps.step(i).absorbed == Named{{"cast", "cast"}});
  }
}

TEST_CASE(
    "the gradient of an activation goes to the maker of what comes back, with its other input") {
  const ops::ActivationGrad gradient;
  Steps steps;
  const int y = steps.layer("y", {steps.input}, nullptr);
  const int made = steps.layer("maker", {steps.input});
  const int result = steps.add("gradient", gradient, {y, made});
  const int after = steps.cast("cast", result);
  steps.layer("reader", {after}, nullptr);
  REQUIRE(steps.absorb() == Names{"y", "maker", "reader"});
  CHECK(steps.step(1).inputs == std::vector<int>{steps.input, y});
  CHECK(steps.step(1).input_specs.size() == 2);
  CHECK(steps.step(1).outputs == std::vector<int>{after});
  CHECK(steps.step(1).kernel.scratch_bytes == 200);
  CHECK(steps.step(1).absorbed == Named{{"gradient", "activation_grad"}, {"cast", "cast"}});

  Steps late;  // y is not there yet
  const int early = late.layer("maker", {late.input});
  late.add("gradient", gradient, {late.layer("y", {late.input}, nullptr), early});
  CHECK(late.absorb().size() == 3);
  Steps replaced;  // an update may have been there
  replaced.add("gradient", gradient, {replaced.variable, replaced.layer("m", {replaced.input})});
  CHECK(replaced.absorb().size() == 2);
  Steps first;  // of the activation's result, not of what comes back
  const int maker = first.layer("m", {first.input});
  first.add("gradient", gradient, {maker, first.layer("g", {first.input}, nullptr)});
  CHECK(first.absorb().size() == 3);
}

TEST_CASE("a step stays that is pinned, wanted by others or a result") {
  const auto names = [](const auto& change, const std::map<std::string, std::string>& pins = {}) {
    Steps steps;
    const int made = steps.layer("maker", {steps.input});
    const int rounded = steps.cast("cast", made);
    change(steps, made, rounded);
    return steps.absorb(pins).size();
  };
  const auto nothing = [](Steps&, int, int) {};
  CHECK(names(nothing) == 1);
  for (const char* const pin : {"cast", "*"}) CHECK(names(nothing, {{pin, "reference"}}) == 2);
  CHECK(names([](Steps& s, int made, int) { s.layer("other", {made}, nullptr); }) == 3);
  CHECK(names([](Steps& s, int made, int) { s.schedule.outputs = {{"y", made}}; }) == 2);
  CHECK(names([](Steps& s, int made, int) { s.schedule.assignments = {{0, made}}; }) == 2);
  CHECK(names([](Steps& s, int made, int) {
          ScheduleValue alias;
          alias.spec = kWide;
          alias.alias_of = made;
          s.layer("other", {s.schedule.add_value(alias)}, nullptr);
        }) == 3);
  CHECK(names([](Steps& s, int, int rounded) { s.schedule.outputs = {{"y", rounded}}; }) == 1);
}

// Makes what it reads by itself.
bool makes_norms(Kernel& kernel, const Op&, const Neighbour& neighbour) noexcept {
  if (neighbour.is_reader || neighbour.place != 0 || neighbour.inputs.size() < 4) return false;
  kernel.scratch_bytes += neighbour.outputs.size();
  return true;
}

TEST_CASE("the first reader of a batch norm makes it, for those who come later, too") {
  const ops::BatchNormApply norm;
  Steps steps;
  const int x = steps.layer("x", {steps.input}, nullptr);
  const int mean = steps.layer("mean", {x}, nullptr);
  const int y = steps.add("norm", norm, {x, mean, steps.variable, mean});
  const int first = steps.layer("first", {y, steps.variable}, makes_norms);
  steps.layer("later", {first, y}, makes_norms);
  REQUIRE(steps.absorb() == Names{"x", "mean", "first", "later"});
  CHECK(steps.step(2).inputs == std::vector<int>{x, steps.variable, mean, steps.variable, mean});
  CHECK(steps.step(2).input_specs.size() == 5);
  CHECK(steps.step(2).outputs == std::vector<int>{first, y});
  CHECK(steps.step(2).kernel.scratch_bytes == 1);
  CHECK(steps.step(2).absorbed == Named{{"norm", "batch_norm_apply"}});
  CHECK(steps.step(3).inputs == std::vector<int>{first, y});
}

TEST_CASE("a batch norm stays where its first reader cannot make it, or something is in between") {
  const auto stays = [](const auto& change, const std::map<std::string, std::string>& pins = {}) {
    Steps steps;
    const int x = steps.layer("x", {steps.input}, nullptr);
    const int y = steps.add("norm", ops::BatchNormApply{}, {x, x, steps.variable, x});
    change(steps, y);
    const Names names = steps.absorb(pins);
    return std::find(names.begin(), names.end(), "norm") != names.end();
  };
  const auto read = [](Steps& s, int y) { s.layer("reader", {y}, makes_norms); };
  CHECK(!stays(read));
  CHECK(stays([](Steps& s, int y) { s.layer("reader", {y}, takes_nothing); }));
  for (const char* const pin : {"norm", "batch_norm_apply", "*"}) CHECK(stays(read, {{pin, ""}}));
  CHECK(stays([](Steps& s, int y) { s.layer("reader", {s.input, y}, makes_norms); }));
  CHECK(stays([](Steps& s, int y) { s.layer("reader", {y, y}, makes_norms); }));
  CHECK(stays([&](Steps& s, int y) {
    s.layer("earlier", {y}, nullptr);
    read(s, y);
  }));
  CHECK(stays([&](Steps& s, int y) {
    read(s, y);
    s.add("part", ops::Concat{}, {y});
  }));
  CHECK(stays([&](Steps& s, int y) {
    read(s, y);
    s.schedule.outputs = {{"y", y}};
  }));
  // The variable that it reads is another one by then.
  CHECK(stays([&](Steps& s, int y) {
    s.schedule.assignments = {{0, s.layer("update", {s.input}, nullptr)}};
    read(s, y);
  }));
  CHECK(!stays([&](Steps& s, int y) {
    read(s, y);
    s.schedule.assignments = {{0, s.layer("update", {s.input}, nullptr)}};
  }));
}

}  // namespace
}  // namespace pycnn
