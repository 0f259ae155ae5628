#include <doctest/doctest.h>

#include <string>

#include "network/small_model.h"
#include "pycnn/error.h"
#include "support/errors.h"

using namespace pycnn;
using namespace pycnn::test;

TEST_CASE("with_batch changes the first axis of the images and nothing else") {
  const Model model = small_model();
  const Graph graph = with_batch(model.graph, 5);
  const auto [name, spec] = image_input(graph);
  CHECK(name == "x");
  CHECK(spec == TensorSpec{{5, 6, 6, 1}});
  CHECK(graph.spec(graph.outputs()[0].second) == TensorSpec{{5, 3}});
  CHECK(with_batch(model.graph, 1).text() == model.graph.text());
}

TEST_CASE("byte images are read as value / 255") {
  Model model = small_model();
  const Graph graph = with_batch(model.graph, 2, DType::kUInt8);
  CHECK(image_input(graph).second == TensorSpec{{2, 6, 6, 1}, DType::kUInt8});
  Tensor bytes({{2, 6, 6, 1}, DType::kUInt8}), floats({{2, 6, 6, 1}});
  for (int i = 0; i < 72; ++i) {
    bytes.mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 37 % 256);
    floats.mutable_data<float>()[i] =
        static_cast<float>(static_cast<double>(i * 37 % 256) * (1.0 / 255.0));
  }
  const Tensor of_bytes = compile(graph, model.variables).run({{"x", bytes}}).at("output");
  const Tensor of_floats =
      compile(with_batch(model.graph, 2), model.variables).run({{"x", floats}}).at("output");
  for (int i = 0; i < 6; ++i)
    CHECK(of_bytes.data<float>()[i] == doctest::Approx(of_floats.data<float>()[i]).epsilon(1e-5));
}

TEST_CASE("with_batch refuses what is no batch or no image") {
  const Model model = small_model();
  check_error<ArgumentError>([&] { with_batch(model.graph, -1); }, {"batch is -1"});
  check_error<DTypeError>([&] { with_batch(model.graph, 1, DType::kInt64); }, {"int64", "uint8"});
  check_error<DTypeError>(
      [&] { with_batch(with_batch(model.graph, 1, DType::kUInt8), 1, DType::kUInt8); },
      {"no float32 input"});
  Graph two;
  two.set_output("sum", two.add(ops::Add{}, {two.input("a", {{1, 2}}), two.input("b", {{1, 2}})}));
  check_error<ArgumentError>([&] { image_input(two); }, {"2 inputs", "'a', 'b'"});
}

TEST_CASE("names of classes come from the metadata, and damaged ones are refused") {
  Model model = small_model();
  CHECK(class_names(model).empty());
  model.metadata["class_names"] = R"(["ca\u0074", "d\"og", "b\u00e4r"])";
  CHECK(class_names(model) == std::vector<std::string>{"cat", "d\"og", "b\xc3\xa4r"});
  for (const char* damaged : {"", "[", "{}", "[1]", "[\"a\"] x"}) {
    model.metadata["class_names"] = damaged;
    check_error<FormatError>([&] { class_names(model); }, {"class_names"});
  }
}

TEST_CASE("auxiliary heads come from the metadata, and damaged ones are refused") {
  Model model = small_model(3, true);
  const auto heads = auxiliary_heads(model);
  REQUIRE(heads.size() == 1);
  CHECK(heads[0].node == "aux");
  CHECK(heads[0].weight == 0.25);
  for (const char* damaged :
       {R"([{"node": "aux"}])", R"([{"weight": 1}])", R"([{"node": "aux", "weight": -1}])",
        R"([{"node": "nowhere", "weight": 1}])", R"([{"node": "x", "weight": 1}])",
        R"([{"node": "aux", "weight": 1e999}])", R"([{"node": "aux", "weight": 1, "more": 2}])"}) {
    INFO(std::string(damaged));
    model.metadata["pycnn.auxiliary"] = damaged;
    check_error<FormatError>([&] { auxiliary_heads(model); }, {"pycnn.auxiliary"});
  }
}

TEST_CASE("without_training_state leaves network, weights and texts") {
  Model model = small_model();
  model.variables["train.step"] = Tensor({{1}, DType::kInt64});
  model.variables["optim.momentum.fc.bias"] = Tensor({{3}});
  model.variables["ema.fc.bias"] = Tensor({{3}});
  model.metadata = {{"trainer", "{}"}, {"class_names", "[]"}};
  const Model rest = without_training_state(model);
  CHECK(rest.variables.size() == small_model().variables.size());
  CHECK(rest.metadata.size() == 1);
  CHECK(rest.variables.at("fc.bias").shares_storage_with(model.variables.at("fc.bias")));
}
