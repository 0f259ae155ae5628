#include <doctest/doctest.h>

#include <stdexcept>

#include "compile/nets.h"
#include "compile/passes.h"
#include "compile/steps.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

struct Net {
  Graph graph;
  Variables variables;
  std::map<std::string, Tensor> inputs;

  Net() {
    test::Layers net{graph};
    const Symbol x = graph.input("x", {{3, 6, 5, 2}, DType::kFloat32});
    const Symbol y = graph.input("y", {{3}, DType::kInt64});
    Symbol h = net.relu(net.norm(net.conv(x, "conv1", 4, 3, false), "norm"), "act");
    h = net.conv(h, "conv2", 4, 3);
    const Symbol flat = graph.add(ops::Reshape{{3, 120}}, {h}, "flat");
    graph.set_output("loss",
                     graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(flat, "fc", 5), y}, "loss"));
    create_variables(graph, variables, 3);
    inputs = {{"x", test::random_tensor({3, 6, 5, 2}, 1)}, {"y", test::labels(3, 5)}};
  }

  CompileOptions options() const {
    CompileOptions options;
    options.mode = Mode::kTraining;
    options.threads = 1;
    options.optimizer = Optimizer{};
    options.optimizer->momentum = 0.9;
    return options;
  }
};

class Scale : public GradientExchange {
 public:
  explicit Scale(float factor) : factor_(factor) {}
  void begin(std::size_t bucket, std::span<float> gradients) override {
    CHECK(bucket == open_.size());
    open_.push_back(gradients);
    sizes.push_back(gradients.size());
  }
  void finish() override {
    if (fails) throw std::runtime_error("gone");
    for (const std::span<float> gradients : open_)
      for (float& gradient : gradients) gradient *= factor_;
    open_.clear();
  }

  std::vector<std::size_t> sizes;
  bool fails = false;

 private:
  float factor_;
  std::vector<std::span<float>> open_;
};

std::vector<float> values_of(const Tensor& tensor) {
  return {tensor.data<float>(), tensor.data<float>() + element_count(tensor.shape())};
}

TEST_CASE("gradients given back as they were change no bit, in buckets of any size") {
  Net plain;
  const Program expected = compile(plain.graph, plain.variables, plain.options());
  for (int i = 0; i < 3; ++i) expected.run(plain.inputs);
  for (const std::size_t bucket_bytes : {std::size_t{1}, std::size_t{600}, std::size_t{4} << 20}) {
    for (const bool reuse : {true, false}) {
      Net net;
      CompileOptions options = net.options();
      const auto exchange = std::make_shared<Scale>(1.0f);
      options.exchange = exchange;
      options.bucket_bytes = bucket_bytes;
      options.reuse_memory = reuse;
      const Program program = compile(net.graph, net.variables, options);
      for (int i = 0; i < 3; ++i) program.run(net.inputs);
      for (const auto& [key, tensor] : plain.variables) {
        const std::string& name = key;
        if (tensor.dtype() == DType::kFloat32)
          CHECK_MESSAGE(values_of(tensor) == values_of(net.variables.at(name)), name);
      }
      // conv1, norm's two, conv2's two, fc's two.
      if (bucket_bytes == 1) CHECK(exchange->sizes.size() == 3 * 7);
      if (bucket_bytes > 1000) CHECK(exchange->sizes.size() == 3);
    }
  }
}

TEST_CASE("updates take what the exchange leaves") {
  Net net, half;
  CompileOptions options = net.options();
  options.optimizer->momentum = 0.0;
  const Program plain = compile(net.graph, net.variables, options);
  options.exchange = std::make_shared<Scale>(0.0f);
  const Program frozen = compile(half.graph, half.variables, options);
  const std::vector<float> before = values_of(half.variables.at("conv1.weight"));
  plain.run(net.inputs);
  frozen.run(half.inputs);
  CHECK(values_of(half.variables.at("conv1.weight")) == before);
  CHECK(values_of(net.variables.at("conv1.weight")) != before);
  CHECK(values_of(half.variables.at("norm.running_mean")) ==
        values_of(net.variables.at("norm.running_mean")));
}

TEST_CASE("what an exchange throws ends the run before a parameter changes") {
  Net net;
  CompileOptions options = net.options();
  const auto exchange = std::make_shared<Scale>(1.0f);
  exchange->fails = true;
  options.exchange = exchange;
  const Program program = compile(net.graph, net.variables, options);
  std::map<std::string, std::vector<float>> before;
  for (const auto& [name, tensor] : net.variables)
    if (tensor.dtype() == DType::kFloat32 && name.find("running") == std::string::npos)
      before[name] = values_of(tensor);
  CHECK_THROWS_WITH_AS(program.run(net.inputs), "gone", std::runtime_error);
  for (const auto& [key, values] : before) {
    const std::string& name = key;
    CHECK_MESSAGE(values_of(net.variables.at(name)) == values, name);
  }
}

TEST_CASE("a gradient of two parameters, or of none that is computed, is exchanged as a copy") {
  constexpr int kW = 0, kV = 1, kRate = 2, kConstant = 3;
  Schedule schedule;
  test::add_variables(schedule, {"w", "v", "rate", "constant"});
  const auto add = [&](const std::string& name, Op op, std::vector<int> inputs) {
    return test::add_step(schedule, name, std::move(op), std::move(inputs));
  };
  const int gradient = add("gradient", ops::Affine{}, {kRate});
  const int w = add("update.w", ops::SgdUpdate{}, {kW, gradient, kRate});
  add("reader", ops::Affine{}, {gradient});
  const int v = add("update.v", ops::SgdUpdate{}, {kV, kConstant, kRate});
  schedule.assignments = {{0, w}, {1, v}};
  exchange_gradients(schedule, 4 << 20);
  CHECK(test::names_of(schedule.run) == std::vector<std::string>{"exchange", "gradient", "exchange",
                                                                 "reader", "update.w", "update.v"});
  REQUIRE(schedule.buckets.size() == 1);
  CHECK(schedule.buckets[0].steps == 3);
  CHECK(schedule.exchange_steps == 4);
  CHECK(schedule.run[3].inputs[0] == gradient);
  CHECK(schedule.run[4].inputs[1] == schedule.run[2].outputs[0]);
  CHECK(schedule.run[5].inputs[1] == schedule.run[0].outputs[0]);
}

TEST_CASE("a bucket is ready as soon as its gradients are, the last layers' first") {
  Net net;
  Graph graph = net.graph;
  const Optimizer optimizer;
  graph = specialize(graph, Mode::kTraining);
  const std::vector<Symbol> parameters =
      trained_parameters(graph, graph.outputs()[0].second, optimizer);
  append_update(graph, optimizer, parameters,
                differentiate(graph, graph.outputs()[0].second, parameters));
  graph = drop_unused(graph);
  Schedule schedule =
      select_kernels(graph, split_prepare(graph), {Isa::kBaseline, 1, {{"*", "reference"}}});
  const std::size_t steps = schedule.run.size();
  exchange_gradients(schedule, 1);
  CHECK(schedule.run.size() == steps);  // no gradient is copied
  REQUIRE(schedule.buckets.size() == 7);
  int before = 0;
  for (const ScheduledBucket& bucket : schedule.buckets) {
    CHECK(bucket.steps >= before);
    before = bucket.steps;
  }
  // The head's are there while the convolutions' backward pass is still to come.
  CHECK(schedule.buckets[1].steps + 4 < schedule.buckets[6].steps);
  CHECK(before <= schedule.exchange_steps);
  for (int i = 0; i < schedule.exchange_steps; ++i)
    CHECK(!std::holds_alternative<ops::SgdUpdate>(schedule.run[static_cast<std::size_t>(i)].op));
}

TEST_CASE("an exchange needs an optimizer") {
  Net net;
  CompileOptions options = net.options();
  options.exchange = std::make_shared<Scale>(1.0f);
  options.optimizer.reset();
  CHECK_THROWS_AS(compile(net.graph, net.variables, options), ArgumentError);
}

}  // namespace
}  // namespace pycnn
