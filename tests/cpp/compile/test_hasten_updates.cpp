#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"
#include "compile/steps.h"

namespace pycnn {
namespace {

std::vector<std::string> order_of(const Schedule& schedule) {
  std::vector<std::string> names;
  for (const ScheduleStep& step : schedule.run)
    names.push_back(step.op_name == "pack" ? step.name + ".pack" : step.name);
  return names;
}

Schedule training_schedule(const Optimizer& optimizer) {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 4}, DType::kFloat32});
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  const Symbol h = net.relu(net.dense(x, "fc1", 3), "act");
  const Symbol loss = graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc2", 5), y}, "loss");
  graph.set_output("loss", loss);
  const std::vector<Symbol> parameters = trained_parameters(graph, loss, optimizer);
  append_update(graph, optimizer, parameters, differentiate(graph, loss, parameters));
  return select_kernels(graph, split_prepare(graph), {Isa::kBaseline, 1, {{"*", "reference"}}});
}

std::size_t position(const Schedule& schedule, const std::string& name) {
  const std::vector<std::string> order = order_of(schedule);
  return static_cast<std::size_t>(std::find(order.begin(), order.end(), name) - order.begin());
}

TEST_CASE("an update comes right after its gradient and the last reader of its parameter") {
  Schedule schedule = training_schedule(Optimizer{});
  const std::size_t steps = schedule.run.size();
  hasten_updates(schedule);
  REQUIRE(schedule.run.size() == steps);
  // The gradient of the first layer's activation still reads fc2.weight.
  std::size_t last_reader = 0;
  for (std::size_t i = 0; i < steps; ++i)
    if (schedule.run[i].op_name == "dense_grad_input") last_reader = i;
  CHECK(position(schedule, "update.fc2.weight") > last_reader);
  CHECK(position(schedule, "update.fc2.weight") < position(schedule, "update.fc1.weight"));
  CHECK(position(schedule, "update.fc2.weight") + 3 < steps);
  CHECK(order_of(schedule).back() == "increment.step");
}

TEST_CASE("an update waits for others who read its parameter, packed or not") {
  constexpr int kWeight = 0, kRate = 1;
  Schedule schedule;
  test::add_variables(schedule, {"w", "rate"});
  const auto add = [&](const std::string& name, Op op, std::vector<int> inputs) {
    return test::add_step(schedule, name, std::move(op), std::move(inputs));
  };
  const int gradient = add("gradient", ops::Affine{}, {kRate});
  add("other", ops::Affine{}, {kRate});
  add("reader", ops::Affine{}, {kWeight});
  add("another", ops::Affine{}, {kRate});
  const int updated = add("update", ops::SgdUpdate{}, {kWeight, gradient, kRate});
  add("average", ops::EmaUpdate{}, {kRate, updated});
  schedule.assignments = {{0, updated}};
  hasten_updates(schedule);
  CHECK(order_of(schedule) ==
        std::vector<std::string>{"gradient", "other", "reader", "update", "average", "another"});
}

TEST_CASE("every value is still made before it is read") {
  Optimizer optimizer;
  SUBCASE("adam") { optimizer.kind = Optimizer::Kind::kAdam; }
  SUBCASE("muon") { optimizer.kind = Optimizer::Kind::kMuon; }
  optimizer.clip_norm = 1.0;
  optimizer.ema_decay = 0.9;
  Schedule schedule = training_schedule(optimizer);
  prepack_weights(schedule);
  hasten_updates(schedule);
  std::vector<bool> made(schedule.values.size());
  for (std::size_t v = 0; v < made.size(); ++v)
    made[v] = schedule.values[v].kind != ScheduleValue::Kind::kResult;
  for (const ScheduleStep& step : schedule.prepare)
    for (const int value : step.outputs) made[static_cast<std::size_t>(value)] = true;
  for (const ScheduleStep& step : schedule.run) {
    for (int value : step.inputs) {
      while (schedule.value(value).alias_of >= 0) value = schedule.value(value).alias_of;
      CHECK_MESSAGE(made[static_cast<std::size_t>(value)], step.name);
    }
    for (const int value : step.outputs) made[static_cast<std::size_t>(value)] = true;
  }
}

}  // namespace
}  // namespace pycnn
