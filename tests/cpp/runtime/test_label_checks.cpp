#include <doctest/doctest.h>

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
  const Graph graph = test::small_net(4, true);
  Variables variables;
  create_variables(graph, variables, 2);
  CompileOptions options;
  options.mode = Mode::kTraining;
  options.optimizer = Optimizer{};
  const Program program = compile(graph, variables, options);
  const Tensor x = test::random_tensor({4, 8, 8, 2}, 9);
  Variables before;
  for (const auto& [name, tensor] : variables) before[name] = tensor.clone();

  const auto refused = [&](std::initializer_list<std::int64_t> values, const char* text) {
    CHECK_THROWS_WITH_AS(program.run(Results{{"x", x}, {"y", labels64(values)}}),
                         doctest::Contains(text), LabelError);
    CHECK(test::same_bits(before, variables));
  };
  refused({0, 1, 4, 2}, "label 4 at position 2 of input 'y', there are 4 classes (0..3)");
  refused({0, -1, 9, 2}, "label -1 at position 1");
  refused({INT64_MAX, 0, 0, 0}, "label 9223372036854775807 at position 0");
  refused({0, 0, 0, INT64_MIN}, "label -9223372036854775808 at position 3");
  // Equal to a class in 32 bits.
  refused({0, 0, (std::int64_t{1} << 32) + 1, 0}, "label 4294967297 at position 2");
  CHECK_NOTHROW(program.run(Results{{"x", x}, {"y", labels64({0, 3, 1, 2})}}));
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
