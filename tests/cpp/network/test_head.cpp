#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "network/small_model.h"
#include "pycnn/error.h"
#include "support/errors.h"

using namespace pycnn;
using namespace pycnn::test;

TEST_CASE("the head is the last layer before the scores, and each auxiliary head's") {
  CHECK(head_names(small_model()) == std::vector<std::string>{"fc.weight", "fc.bias"});
  CHECK(head_names(small_model(3, true)) ==
        std::vector<std::string>{"fc.weight", "fc.bias", "aux.weight", "aux.bias"});
  // Behind it may stand what mixes no classes.
  Model soft = small_model();
  const Symbol scores = soft.graph.outputs()[0].second;
  soft.graph.clear_outputs();
  soft.graph.set_output("output", soft.graph.add(ops::Softmax{}, {scores}));
  CHECK(head_names(soft) == std::vector<std::string>{"fc.weight", "fc.bias"});
}

TEST_CASE("a fresh head has other classes and leaves the rest as it was") {
  const Model model = small_model(3, true);
  const Model changed = replace_head(model, 7, 11);
  CHECK(changed.graph.spec(changed.graph.outputs()[0].second) == TensorSpec{{1, 7}});
  CHECK(changed.graph.spec(changed.graph.find("aux")) == TensorSpec{{1, 7}});
  CHECK(model.graph.spec(model.graph.outputs()[0].second) == TensorSpec{{1, 3}});
  CHECK(
      changed.variables.at("conv1.weight").shares_storage_with(model.variables.at("conv1.weight")));
  const Tensor& weight = changed.variables.at("fc.weight");
  CHECK(weight.shape() == Shape{7, 144});
  // Uniform within 1 / sqrt(fan-in), the bias too.
  const float bound = 1.0f / std::sqrt(144.0f);
  const auto largest = [](const Tensor& t) {
    const float* data = t.data<float>();
    return std::abs(*std::max_element(data, data + t.size(),
                                      [](float a, float b) { return std::abs(a) < std::abs(b); }));
  };
  CHECK(largest(weight) <= bound);
  CHECK(largest(weight) > 0.95f * bound);
  CHECK(largest(changed.variables.at("fc.bias")) <= bound);
  CHECK(largest(changed.variables.at("fc.bias")) > 0.0f);
  CHECK(same_bits(weight, replace_head(model, 7, 11).variables.at("fc.weight")));
  CHECK_FALSE(same_bits(weight, replace_head(model, 7, 12).variables.at("fc.weight")));
}

TEST_CASE("a head of as many classes keeps its values, another drops the names of classes") {
  Model model = small_model();
  model.metadata["class_names"] = R"(["a", "b", "c"])";
  const Model same = replace_head(model, 3);
  CHECK(same_bits(same.variables.at("fc.weight"), model.variables.at("fc.weight")));
  CHECK(same.metadata.contains("class_names"));
  CHECK_FALSE(replace_head(model, 4).metadata.contains("class_names"));
}

TEST_CASE("what has no head, or its number of classes elsewhere too, is refused") {
  const Model model = small_model();
  check_error<ArgumentError>([&] { replace_head(model, 0); }, {"num_classes is 0"});
  // Too many is no fault of the layers behind.
  check_error<ShapeError>([&] { replace_head(model, std::int64_t{1} << 60); }, {"'fc.weight'"});
  Model pooled;
  const Symbol x = pooled.graph.input("x", {{1, 4, 4, 2}});
  pooled.graph.set_output("output", pooled.graph.add(ops::GlobalAvgPool2d{}, {x}, "pool"));
  check_error<GraphError>([&] { head_names(pooled); }, {"'pool'", "no head"});
  // A reshape that names the classes.
  Model fixed = small_model();
  const Symbol scores = fixed.graph.outputs()[0].second;
  fixed.graph.clear_outputs();
  fixed.graph.set_output("output", fixed.graph.add(ops::Reshape{{1, 3}}, {scores}, "shape"));
  check_error<UnsupportedError>([&] { replace_head(fixed, 4); }, {"built in", "shape"});
  // Flattened places would count as classes.
  Model map;
  Layers layers{map.graph};
  const Symbol image = map.graph.input("x", {{1, 2, 2, 1}});
  const Symbol planes = layers.conv(image, "conv", 3, 1, true, 0);
  map.graph.set_output("output", map.graph.add(ops::Reshape{{0, -1}}, {planes}, "flatten"));
  create_variables(map.graph, map.variables);
  check_error<UnsupportedError>([&] { replace_head(map, 4); }, {"4 classes", "(1, 16)"});
}
