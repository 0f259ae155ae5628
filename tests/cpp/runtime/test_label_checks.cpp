#include <doctest/doctest.h>

#include <cmath>

#include "compile/nets.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

using Results = std::map<std::string, Tensor>;

template <class Integer>
Tensor labels_of(std::initializer_list<std::int64_t> values, DType dtype) {
  Tensor tensor({{static_cast<std::int64_t>(values.size())}, dtype});
  std::copy(values.begin(), values.end(), tensor.mutable_data<Integer>());
  return tensor;
}

Tensor labels64(std::initializer_list<std::int64_t> values) {
  return labels_of<std::int64_t>(values, DType::kInt64);
}

}  // namespace

TEST_CASE("a training step refuses labels that are no classes, and changes nothing") {
  const test::Compiled net(test::small_net(4, true), test::training_options());
  const Tensor x = test::random_tensor({4, 8, 8, 2}, 9);
  const Variables before = test::clone(net.variables);

  const auto refused = [&](std::initializer_list<std::int64_t> values, const char* text) {
    CHECK_THROWS_WITH_AS(net.program.run(Results{{"x", x}, {"y", labels64(values)}}),
                         doctest::Contains(text), LabelError);
    CHECK(test::same_bits(before, net.variables));
  };
  refused({0, 1, 4, 2}, "label 4 at position 2 of input 'y', there are 4 classes (0..3)");
  refused({0, -1, 9, 2}, "label -1 at position 1");
  refused({INT64_MAX, 0, 0, 0}, "label 9223372036854775807 at position 0");
  refused({0, 0, 0, INT64_MIN}, "label -9223372036854775808 at position 3");
  // Equal to a class in 32 bits.
  refused({0, 0, (std::int64_t{1} << 32) + 1, 0}, "label 4294967297 at position 2");
  CHECK_NOTHROW(net.program.run(Results{{"x", x}, {"y", labels64({0, 3, 1, 2})}}));
}

TEST_CASE("labels of 32 bits, and labels that count and are scored with different classes") {
  Graph graph;
  const Symbol logits = graph.input("logits", {{2, 3}, DType::kFloat32});
  const Symbol labels = graph.input("labels", {{2}, DType::kInt32});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {logits, labels}));
  const Symbol more = graph.input("more", {{2, 5}, DType::kFloat32});
  graph.set_output("correct", graph.add(ops::TopKCorrect{1}, {more, labels}));
  Variables variables;
  const Program program = compile(graph, variables);
  const auto run = [&](std::initializer_list<std::int64_t> values) {
    return program.run(Results{{"logits", Tensor({{2, 3}, DType::kFloat32})},
                               {"more", Tensor({{2, 5}, DType::kFloat32})},
                               {"labels", labels_of<std::int32_t>(values, DType::kInt32)}});
  };
  CHECK_THROWS_WITH_AS(run({2, 3}), doctest::Contains("label 3 at position 1 of input 'labels'"),
                       LabelError);
  CHECK_THROWS_WITH_AS(run({-2147483647, 3}), doctest::Contains("label -2147483647 at position 0"),
                       LabelError);
  CHECK(*run({2, 0}).at("loss").data<float>() == doctest::Approx(1.0986123));
}

namespace {

// Labels that the graph computes from its input `packed`: the second column of it.
Symbol labels_in_graph(Graph& graph, std::int64_t count) {
  const Symbol packed = graph.input("packed", {{count, 2}, DType::kInt64});
  const Symbol column = graph.add(ops::Slice{{0, 1}, {count, 1}}, {packed}, "column");
  return graph.add(ops::Reshape{{count}}, {column}, "classes");
}

Tensor packed_of(std::initializer_list<std::int64_t> values) {
  Tensor tensor({{static_cast<std::int64_t>(values.size()), 2}, DType::kInt64});
  std::int64_t* next = tensor.mutable_data<std::int64_t>();
  for (const std::int64_t value : values) *next++ = -7, *next++ = value;
  return tensor;
}

}  // namespace

TEST_CASE("labels computed in a training program are refused before anything is written") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{4, 8, 8, 2}, DType::kFloat32});
  // Running statistics are written by the forward pass, ahead of the loss.
  Symbol h = net.norm(net.conv(x, "conv", 5, 3), "bn");
  h = net.dense(graph.add(ops::Reshape{{4, -1}}, {h}), "fc", 4);
  const Symbol y = labels_in_graph(graph, 4);
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}, "loss"));
  graph.set_output("correct", graph.add(ops::TopKCorrect{1}, {h, y}, "correct"));
  graph.set_output("labels", y);
  const Tensor image = test::random_tensor({4, 8, 8, 2}, 9);
  for (const bool reuse : {true, false}) {
    CAPTURE(reuse);
    CompileOptions options = test::training_options();
    options.reuse_memory = reuse;
    test::Compiled compiled(graph, options);
    Variables& variables = compiled.variables;
    const Program& program = compiled.program;
    variables["train.learning_rate"].mutable_data<float>()[0] = 0.1f;
    const Variables before = test::clone(variables);
    for (int run = 0; run < 6; ++run) {  // thread counts settle meanwhile
      CHECK_THROWS_WITH_AS(
          program.run(Results{{"x", image}, {"packed", packed_of({0, 3, 4, 1})}}),
          doctest::Contains("label 4 at position 2 of 'column', there are 4 classes (0..3)"),
          LabelError);
      CHECK(test::same_bits(before, variables));
    }
    program.start_profile();
    CHECK_THROWS_WITH_AS(program.run(Results{{"x", image}, {"packed", packed_of({-1, 3, 0, 1})}}),
                         doctest::Contains("label -1 at position 0 of 'column'"), LabelError);
    (void)program.profile();
    const Results good = program.run(Results{{"x", image}, {"packed", packed_of({0, 3, 2, 1})}});
    CHECK(std::isfinite(*good.at("loss").data<float>()));
    CHECK(test::same_bits(good.at("labels"), labels64({0, 3, 2, 1})));
    CHECK(!test::same_bits(before, variables));
  }
}

TEST_CASE("computed labels train like the same labels as an input") {
  const auto trained = [](bool computed) {
    Graph graph;
    test::Layers net{graph};
    const Symbol x = graph.input("x", {{4, 8, 8, 2}, DType::kFloat32});
    const Symbol h = net.dense(graph.add(ops::Reshape{{4, -1}}, {x}), "fc", 4);
    const Symbol y = computed ? labels_in_graph(graph, 4) : graph.input("y", {{4}, DType::kInt64});
    graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}, "loss"));
    test::Compiled compiled(graph, test::training_options());
    compiled.variables["train.learning_rate"].mutable_data<float>()[0] = 0.1f;
    Results inputs = {{"x", test::random_tensor({4, 8, 8, 2}, 9)}};
    if (computed)
      inputs["packed"] = packed_of({0, 3, 2, 1});
    else
      inputs["y"] = labels64({0, 3, 2, 1});
    for (int step = 0; step < 5; ++step) compiled.program.run(inputs);
    return compiled.variables;
  };
  CHECK(test::same_bits(trained(true), trained(false)));
}

TEST_CASE("a gradient alone refuses computed labels") {
  Graph graph;
  const Symbol logits = graph.input("logits", {{2, 3}, DType::kFloat32});
  const Symbol y = labels_in_graph(graph, 2);
  const Symbol loss = graph.add(ops::SoftmaxCrossEntropy{}, {logits, y}, "loss");
  const Symbol wrt[] = {logits};
  graph.set_output("gradient", differentiate(graph, loss, wrt)[0]);
  Variables variables;
  const Program program = compile(graph, variables);
  const Tensor zeros({{2, 3}, DType::kFloat32});
  CHECK_THROWS_WITH_AS(program.run(Results{{"logits", zeros}, {"packed", packed_of({1, 3})}}),
                       doctest::Contains("label 3 at position 1 of 'column'"), LabelError);
  const Results good = program.run(Results{{"logits", zeros}, {"packed", packed_of({1, 2})}});
  CHECK(good.at("gradient").data<float>()[1] == doctest::Approx(-1.0 / 3.0));
}

TEST_CASE("labels that are variables, or depend on variables only, are looked at in every run") {
  for (const bool computed : {false, true}) {
    CAPTURE(computed);
    Graph graph;
    const Symbol stored = graph.buffer("stored", {{2, 1}, DType::kInt64});
    Symbol y = graph.add(ops::Reshape{{2}}, {stored}, "y");
    if (computed) y = graph.add(ops::Take{{1, 0}}, {y}, "swapped");
    const Symbol logits = graph.parameter("logits", {{2, 3}, DType::kFloat32});
    graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {logits, y}, "loss"));
    Variables variables;
    create_variables(graph, variables, 2);
    const Program program = compile(graph, variables);
    const auto store = [&](std::int64_t first, std::int64_t second) {
      std::int64_t* const values = variables["stored"].mutable_data<std::int64_t>();
      values[0] = first, values[1] = second;
    };
    CHECK(*program.run(Results{}).at("loss").data<float>() == doctest::Approx(1.0986123));
    store(1, 5);
    const char* const text = computed ? "label 5 at position 0 of 'swapped'"
                                      : "label 5 at position 1 of variable 'stored'";
    CHECK_THROWS_WITH_AS(program.run(Results{}), doctest::Contains(text), LabelError);
    store(1, 2);
    CHECK_NOTHROW(program.run(Results{}));
  }
}

TEST_CASE("labels made from a counter do not advance it when they are refused") {
  Graph graph;
  const Symbol count = graph.buffer("count", {{1}, DType::kInt64});
  const Symbol next = graph.add(ops::Increment{}, {count}, "next");
  graph.assign(count, next);
  const Symbol y = graph.add(ops::Reshape{{1}}, {next}, "y");
  const Symbol logits = graph.input("logits", {{1, 3}, DType::kFloat32});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {logits, y}, "loss"));
  Variables variables;
  create_variables(graph, variables, 2);
  const Program program = compile(graph, variables);
  const Results inputs = {{"logits", Tensor({{1, 3}, DType::kFloat32})}};
  for (int run = 0; run < 2; ++run) CHECK_NOTHROW(program.run(inputs));
  for (int run = 0; run < 2; ++run) {
    CHECK_THROWS_WITH_AS(program.run(inputs), doctest::Contains("label 3 at position 0 of 'next'"),
                         LabelError);
    CHECK(*variables.at("count").data<std::int64_t>() == 2);
  }
}

TEST_CASE("soft targets and other whole numbers are no labels") {
  Graph graph;
  const Symbol logits = graph.input("logits", {{2, 3}, DType::kFloat32});
  const Symbol targets = graph.input("targets", {{2, 3}, DType::kFloat32});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {logits, targets}));
  Variables variables;
  const Program program = compile(graph, variables);
  CHECK_NOTHROW(program.run(Results{{"logits", Tensor({{2, 3}, DType::kFloat32})},
                                    {"targets", test::random_tensor({2, 3}, 4, 7.0)}}));
}

}  // namespace pycnn
