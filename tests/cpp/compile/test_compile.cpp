#include <doctest/doctest.h>

#include "compile/nets.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

struct Compiled {
  Graph graph = test::small_net(2, true);
  Variables variables;
  CompileOptions options;
  Compiled() {
    create_variables(graph, variables, 1);
    options.mode = Mode::kTraining;
    options.optimizer = Optimizer{};
  }
  Program program() { return compile(graph, variables, options); }
};

TEST_CASE("compile adds the state of training and keeps what is there") {
  Compiled c;
  c.options.optimizer->momentum = 0.9;
  c.options.optimizer->ema_decay = 0.9;
  const Tensor weight = c.variables["fc.weight"];
  c.program();
  CHECK(c.variables["fc.weight"].shares_storage_with(weight));
  CHECK(*c.variables.at("train.step").data<std::int64_t>() == 0);
  CHECK(*c.variables.at("train.learning_rate").data<float>() == 0.01f);
  CHECK(c.variables.at("optim.momentum.fc.weight").data<float>()[3] == 0.0f);
  const Tensor average = c.variables.at("ema.fc.weight");
  CHECK(test::same_bits(average, weight));
  CHECK(!average.shares_storage_with(weight));

  c.variables["train.step"].mutable_data<std::int64_t>()[0] = 5;
  c.program();
  CHECK(*c.variables.at("train.step").data<std::int64_t>() == 5);
  CHECK(c.variables.at("ema.fc.weight").shares_storage_with(average));
}

TEST_CASE("variables that are missing or wrong are named") {
  Compiled c;
  c.variables.erase("fc.weight");
  c.variables["fc.bias"] = Tensor();
  CHECK_THROWS_WITH_AS(c.program(), doctest::Contains("lack 'fc.weight', 'fc.bias'"),
                       ArgumentError);
  create_variables(c.graph, c.variables, 1);
  c.variables["fc.bias"] = Tensor({{5}, DType::kFloat32});
  CHECK_THROWS_WITH_AS(c.program(), doctest::Contains("'fc.bias': the tensor is (5), the graph"),
                       ShapeError);
  c.variables["fc.bias"] = Tensor({{4}, DType::kFloat64});
  CHECK_THROWS_AS(c.program(), DTypeError);
}

TEST_CASE("options that cannot be met are refused and leave the variables as they were") {
  Compiled c;
  const std::size_t before = c.variables.size();
  SUBCASE("device") {
    c.options.device = "cuda";
    CHECK_THROWS_WITH_AS(c.program(), doctest::Contains("'cuda'"), DeviceError);
  }
  SUBCASE("isa") {
    c.options.isa = "sse9";
    CHECK_THROWS_AS(c.program(), ArgumentError);
  }
  SUBCASE("threads") {
    c.options.threads = -1;
    CHECK_THROWS_AS(c.program(), ArgumentError);
  }
  SUBCASE("loss") {
    c.options.loss = "cost";
    CHECK_THROWS_WITH_AS(c.program(), doctest::Contains("'logits', 'loss', 'correct'"),
                         ArgumentError);
  }
  SUBCASE("optimizer in inference") {
    c.options.mode = Mode::kInference;
    CHECK_THROWS_WITH_AS(c.program(), doctest::Contains("training mode"), ArgumentError);
  }
  SUBCASE("variant of a stranger") {
    c.options.variants = {{"conv9", "reference"}};
    CHECK_THROWS_WITH_AS(c.program(), doctest::Contains("'conv9'"), ArgumentError);
  }
  SUBCASE("memory") {
    c.options.memory_limit_bytes = 1000;
    try {
      c.program();
      FAIL("no error");
    } catch (const MemoryLimitError& error) {
      CHECK(error.wanted_bytes() > 1000);
      CHECK(std::string(error.what()).find("the limit is 1000") != std::string::npos);
      CHECK(std::string(error.what()).find(std::to_string(error.wanted_bytes())) !=
            std::string::npos);
    }
  }
  SUBCASE("impossible hyper-parameter") {
    c.options.optimizer->momentum = -1.0;
    CHECK_THROWS_AS(c.program(), ArgumentError);
  }
  CHECK(c.variables.size() == before);
}

TEST_CASE("a limit that suffices is accepted, and the report says what is used") {
  Compiled c;
  const MemoryReport report = c.program().memory();
  c.options.memory_limit_bytes = report.arena_bytes + report.scratch_bytes;
  CHECK_NOTHROW(c.program());
  c.options.memory_limit_bytes -= 1;
  CHECK_THROWS_AS(c.program(), MemoryLimitError);
  CHECK(report.arena_bytes < report.unshared_bytes);
  CHECK(report.variable_bytes > 0);
}

TEST_CASE("a node of the recorded graph may be named although a pass removed it") {
  Compiled c;
  c.options = {};
  c.options.variants = {{"bn1", "reference"}, {"conv2d", "reference"}};
  const Program program = c.program();
  CHECK(program.explain().find("conv2d.reference") != std::string::npos);
}

TEST_CASE("a graph without results is refused") {
  Graph graph;
  graph.input("x", {{1}, DType::kFloat32});
  Variables variables;
  CHECK_THROWS_WITH_AS(compile(graph, variables), doctest::Contains("no outputs"), GraphError);
}

TEST_CASE("inputs that no result needs are not asked for") {
  const Graph graph = test::small_net(2, true);
  Graph forward = graph;
  forward.clear_outputs();
  forward.set_output("logits", forward.find("fc"));
  Variables variables;
  create_variables(graph, variables, 1);
  const Program program = compile(forward, variables);
  REQUIRE(program.inputs().size() == 1);
  CHECK(program.inputs()[0].first == "x");
}

TEST_CASE("explain tells step, variant, refusals, section and places") {
  Compiled c;
  c.options = {};
  c.options.isa = "baseline";
  c.options.variants = {{"conv1", "reference"}};
  const std::string text = c.program().explain();
  for (const char* part : {"baseline", "prepare, when", "run:", "conv1  conv2d  conv2d.reference",
                           "another variant is pinned", "f32(2, 8, 8, 2)", "input 'x'", "arena+",
                           "output 'logits'", "threads"}) {
    CAPTURE(part);
    CHECK(text.find(part) != std::string::npos);
  }
}

TEST_CASE("a chain of fifty thousand ops compiles and runs") {
  Graph graph;
  Symbol h = graph.input("x", {{4}, DType::kFloat32});
  for (int i = 0; i < 50000; ++i) h = graph.add(ops::Affine{1.0, 1.0}, {h});
  graph.set_output("y", h);
  Variables variables;
  const Program program = compile(graph, variables);
  const auto results = program.run({{"x", Tensor({{4}, DType::kFloat32})}});
  CHECK(results.at("y").data<float>()[2] == 50000.0f);
  CHECK(program.memory().arena_bytes <= 128);
}

}  // namespace
}  // namespace pycnn
