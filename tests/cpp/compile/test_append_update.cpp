#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

// A loss of two parameters, with stand-ins for their gradients.
struct Recorded {
  Graph graph;
  std::vector<Symbol> parameters;
  std::vector<Symbol> gradients;
};

Recorded recorded() {
  Recorded r;
  const TensorSpec spec{{3}, DType::kFloat32};
  for (const char* name : {"a", "b"}) {
    r.parameters.push_back(r.graph.parameter(name, spec));
    r.gradients.push_back(r.graph.input(std::string("grad_") + name, spec));
  }
  return r;
}

TEST_CASE("plain descent adds an update and an assignment for each parameter, and counts steps") {
  Recorded r = recorded();
  append_update(r.graph, Optimizer{}, r.parameters, r.gradients);
  CHECK(r.graph.text() == R"(pycnn.graph 1
parameter "a" = f32(3)
input "grad_a" = f32(3)
parameter "b" = f32(3)
input "grad_b" = f32(3)
buffer "train.step" = i64(1)
buffer "train.learning_rate" = f32(1)
"update.a" = sgd_update("a", "grad_a", "train.learning_rate") {momentum=0, nesterov=false, weight_decay=0, rate_scale=1, clipped=false} -> f32(3)
"update.b" = sgd_update("b", "grad_b", "train.learning_rate") {momentum=0, nesterov=false, weight_decay=0, rate_scale=1, clipped=false} -> f32(3)
"increment.step" = increment("train.step") -> i64(1)
assign "a" = "update.a"
assign "b" = "update.b"
assign "train.step" = "increment.step"
)");
}

TEST_CASE("a scaled loss: one factor unscales, clips and says whether the step counts") {
  Recorded r = recorded();
  const TensorSpec vector{{3}, DType::kFloat32};
  const Symbol mean = r.graph.buffer("running_mean", vector);
  r.graph.assign(mean, r.graph.input("new_mean", vector));
  Optimizer optimizer;
  optimizer.momentum = 0.9;
  optimizer.clip_norm = 5.0;
  optimizer.ema_decay = 0.5;
  append_update(r.graph, optimizer, r.parameters, r.gradients, true);
  CHECK(r.graph.text() == R"(pycnn.graph 1
parameter "a" = f32(3)
input "grad_a" = f32(3)
parameter "b" = f32(3)
input "grad_b" = f32(3)
buffer "running_mean" = f32(3)
input "new_mean" = f32(3)
buffer "train.step" = i64(1)
buffer "train.learning_rate" = f32(1)
"grad_norm" = clip_factor("grad_a", "grad_b") {max_norm=inf} -> f32(), f32()
buffer "train.loss_scale" = f32()
buffer "train.good_steps" = i64(1)
"loss_scale" = loss_scale("grad_norm":1, "train.loss_scale", "train.good_steps") {growth_interval=2000, max_norm=5} -> f32(), f32(), f32(), i64(1)
"commit.running_mean" = commit("new_mean", "running_mean", "loss_scale") -> f32(3)
buffer "optim.momentum.a" = f32(3)
"update.a" = sgd_update("a", "grad_a", "train.learning_rate", "optim.momentum.a", "loss_scale") {momentum=0.9, nesterov=false, weight_decay=0, rate_scale=1, clipped=true} -> f32(3), f32(3)
buffer "ema.a" = f32(3)
"ema_update.a" = ema_update("ema.a", "update.a", "train.step") {decay=0.5} -> f32(3)
"commit.ema.a" = commit("ema_update.a", "ema.a", "loss_scale") -> f32(3)
buffer "optim.momentum.b" = f32(3)
"update.b" = sgd_update("b", "grad_b", "train.learning_rate", "optim.momentum.b", "loss_scale") {momentum=0.9, nesterov=false, weight_decay=0, rate_scale=1, clipped=true} -> f32(3), f32(3)
buffer "ema.b" = f32(3)
"ema_update.b" = ema_update("ema.b", "update.b", "train.step") {decay=0.5} -> f32(3)
"commit.ema.b" = commit("ema_update.b", "ema.b", "loss_scale") -> f32(3)
"increment.step" = increment("train.step") -> i64(1)
"commit.train.step" = commit("increment.step", "train.step", "loss_scale") -> i64(1)
output "grad_norm" = "loss_scale":1
assign "running_mean" = "commit.running_mean"
assign "train.loss_scale" = "loss_scale":2
assign "train.good_steps" = "loss_scale":3
assign "optim.momentum.a" = "update.a":1
assign "a" = "update.a"
assign "ema.a" = "commit.ema.a"
assign "optim.momentum.b" = "update.b":1
assign "b" = "update.b"
assign "ema.b" = "commit.ema.b"
assign "train.step" = "commit.train.step"
)");
  Variables variables;
  create_variables(r.graph, variables);
  CHECK(*variables.at("train.loss_scale").data<float>() == 65536.0f);
}

TEST_CASE("momentum, groups, clipping and averages") {
  Recorded r = recorded();
  Optimizer optimizer;
  optimizer.momentum = 0.9;
  optimizer.weight_decay = 0.1;
  optimizer.groups = {{{"b"}, 0.0, 2.0, false}, {{"b"}, 7.0, 7.0, false}};  // the first one counts
  optimizer.clip_norm = 5.0;
  optimizer.ema_decay = 0.5;
  append_update(r.graph, optimizer, r.parameters, r.gradients);
  CHECK(r.graph.text() == R"(pycnn.graph 1
parameter "a" = f32(3)
input "grad_a" = f32(3)
parameter "b" = f32(3)
input "grad_b" = f32(3)
buffer "train.step" = i64(1)
buffer "train.learning_rate" = f32(1)
"clip_factor" = clip_factor("grad_a", "grad_b") {max_norm=5} -> f32(), f32()
buffer "optim.momentum.a" = f32(3)
"update.a" = sgd_update("a", "grad_a", "train.learning_rate", "optim.momentum.a", "clip_factor") {momentum=0.9, nesterov=false, weight_decay=0.1, rate_scale=1, clipped=true} -> f32(3), f32(3)
buffer "ema.a" = f32(3)
"ema_update.a" = ema_update("ema.a", "update.a", "train.step") {decay=0.5} -> f32(3)
buffer "optim.momentum.b" = f32(3)
"update.b" = sgd_update("b", "grad_b", "train.learning_rate", "optim.momentum.b", "clip_factor") {momentum=0.9, nesterov=false, weight_decay=0, rate_scale=2, clipped=true} -> f32(3), f32(3)
buffer "ema.b" = f32(3)
"ema_update.b" = ema_update("ema.b", "update.b", "train.step") {decay=0.5} -> f32(3)
"increment.step" = increment("train.step") -> i64(1)
output "grad_norm" = "clip_factor":1
assign "optim.momentum.a" = "update.a":1
assign "a" = "update.a"
assign "ema.a" = "ema_update.a"
assign "optim.momentum.b" = "update.b":1
assign "b" = "update.b"
assign "ema.b" = "ema_update.b"
assign "train.step" = "increment.step"
)");
}

TEST_CASE("Adam keeps mean and variance; AdamW decouples its weight decay") {
  for (const auto kind : {Optimizer::Kind::kAdam, Optimizer::Kind::kAdamW}) {
    Recorded r = recorded();
    Optimizer optimizer;
    optimizer.kind = kind;
    append_update(r.graph, optimizer, r.parameters, r.gradients);
    const Node& update = r.graph.node(r.graph.find("update.a"));
    CHECK(std::get<ops::AdamUpdate>(update.op).decoupled == (kind == Optimizer::Kind::kAdamW));
    CHECK(update.inputs[3] == r.graph.find("train.step"));
    CHECK(update.inputs[4] == r.graph.find("optim.mean.a"));
    CHECK(update.inputs[5] == r.graph.find("optim.variance.a"));
    CHECK(r.graph.assignments().size() == 7);
  }
}

TEST_CASE("Muon takes the matrices; vectors descend without weight decay") {
  Graph graph;
  std::vector<Symbol> parameters, gradients;
  for (const auto& [name, shape] :
       {std::pair{"filters", Shape{4, 3, 3, 2}}, {"weight", Shape{5, 7}}, {"bias", Shape{5}}}) {
    const TensorSpec spec{shape, DType::kFloat32};
    parameters.push_back(graph.parameter(name, spec));
    gradients.push_back(graph.input(std::string("grad_") + name, spec));
  }
  Optimizer optimizer;
  optimizer.kind = Optimizer::Kind::kMuon;
  optimizer.momentum = 0.9;
  optimizer.nesterov = true;
  optimizer.weight_decay = 0.02;
  SUBCASE("alone") {}
  SUBCASE("with a group") { optimizer.groups = {{{"weight", "bias"}, 0.5, 3.0, false}}; }
  append_update(graph, optimizer, parameters, gradients);
  const bool grouped = !optimizer.groups.empty();
  const auto op_of = [&](const char* name) { return graph.node(graph.find(name)).op; };
  const auto filters = std::get<ops::MuonUpdate>(op_of("update.filters"));
  CHECK(filters.weight_decay == 0.02);
  CHECK(filters.momentum == 0.9);
  CHECK(filters.nesterov);
  CHECK(filters.rate_scale == 1.0);
  const auto weight = std::get<ops::MuonUpdate>(op_of("update.weight"));
  CHECK(weight.weight_decay == (grouped ? 0.5 : 0.02));
  CHECK(weight.rate_scale == (grouped ? 3.0 : 1.0));
  const auto bias = std::get<ops::SgdUpdate>(op_of("update.bias"));
  CHECK(bias.weight_decay == (grouped ? 0.5 : 0.0));
  CHECK(bias.momentum == 0.9);
  CHECK(bias.nesterov);
  CHECK(graph.assignments().size() == 7);
}

TEST_CASE("a norm that the graph already reports keeps its name") {
  Recorded r = recorded();
  r.graph.set_output("grad_norm", r.parameters[0]);
  Optimizer optimizer;
  optimizer.clip_norm = 1.0;
  append_update(r.graph, optimizer, r.parameters, r.gradients);
  CHECK(r.graph.outputs().size() == 1);
}

TEST_CASE("parameters that the loss needs are trained, but for frozen ones") {
  const Graph graph = test::small_net(2, true);
  Optimizer optimizer;
  optimizer.groups = {{{"conv1.weight", "bn1.bias"}, 0.0, 1.0, true}};
  const auto loss = graph.find("loss");
  std::vector<std::string> names;
  for (const Symbol symbol : trained_parameters(graph, loss, optimizer))
    names.push_back(graph.node(symbol).name);
  CHECK(names == std::vector<std::string>{"conv1.bias", "bn1.weight", "conv2.weight", "bn2.weight",
                                          "bn2.bias", "fc.weight", "fc.bias"});
}

TEST_CASE("what cannot be trained is said") {
  Graph graph;
  const Symbol x = graph.input("x", {{2}, DType::kFloat32});
  const Symbol used = graph.parameter("used", {{2}, DType::kFloat32});
  graph.parameter("idle", {{2}, DType::kFloat32});
  const Symbol loss = graph.add(ops::MeanSquaredError{}, {x, used});
  Optimizer optimizer;
  optimizer.groups = {{{"used"}, 0.0, 1.0, true}};
  CHECK_THROWS_WITH_AS(trained_parameters(graph, loss, optimizer),
                       doctest::Contains("1 are frozen and 1 do not influence the loss"),
                       GraphError);
  optimizer.groups = {{{"x"}, 0.0, 1.0, true}};
  CHECK_THROWS_WITH_AS(trained_parameters(graph, loss, optimizer),
                       doctest::Contains("names 'x', which is no parameter"), ArgumentError);
}

}  // namespace
}  // namespace pycnn
