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

// The lock is a bool here, and what others do with the variables meanwhile is done behind `work`.
TEST_CASE("compile beside others keeps their tensors and gives away the lock meanwhile") {
  Compiled c;
  c.options.optimizer->momentum = 0.9;
  const std::string added = "optim.momentum.fc.weight";
  const Tensor others(c.variables.at("fc.weight").spec());
  bool is_held = true;
  int compiled = 0;
  std::function<void()> meanwhile = [] {};
  const auto compile_it = [&] {
    return compile_beside(c.graph, c.variables, c.options, [&](const auto& work) {
      CHECK(is_held);
      is_held = false;
      ++compiled;
      CHECK(!c.variables.contains(added));
      work();
      meanwhile();
      is_held = true;
    });
  };
  SUBCASE("nobody comes") {
    compile_it();
    CHECK(compiled == 1);
    CHECK(c.variables.at(added).data<float>()[3] == 0.0f);
  }
  SUBCASE("a new name stays") {
    meanwhile = [&] { c.variables["theirs"] = others; };
    compile_it();
    CHECK(compiled == 1);
    CHECK(c.variables.at("theirs").shares_storage_with(others));
    CHECK(c.variables.contains(added));
  }
  SUBCASE("a name that was forgotten meanwhile stays forgotten") {
    c.variables["theirs"] = others;
    meanwhile = [&] { c.variables.erase("theirs"); };
    compile_it();
    CHECK(!c.variables.contains("theirs"));
    CHECK(c.variables.contains(added));
  }
  SUBCASE("a refusal adds nothing") {
    c.options.loss = "cost";
    const std::size_t before = c.variables.size();
    CHECK_THROWS_AS(compile_it(), ArgumentError);
    CHECK(c.variables.size() == before);
  }
}

TEST_CASE("what somebody else gave while it was compiled is what the program shares") {
  Compiled c;
  c.options.optimizer->momentum = 0.9;
  const std::string name = "optim.momentum.fc.weight";
  Tensor others(c.variables.at("fc.weight").spec());
  std::fill_n(others.mutable_data<float>(), others.size(), 1.0f);
  int compiled = 0;
  const Program program = compile_beside(c.graph, c.variables, c.options, [&](const auto& work) {
    work();
    if (compiled++ == 0) c.variables[name] = others;
  });
  CHECK(compiled == 2);
  CHECK(c.variables.at(name).shares_storage_with(others));
  program.run(
      {{"x", Tensor({{2, 8, 8, 2}, DType::kFloat32})}, {"y", Tensor({{2}, DType::kInt64})}});
  CHECK(others.data<float>()[0] != 1.0f);
}

TEST_CASE("a program has its own tensors, whatever others put under their names meanwhile") {
  Compiled c;
  c.options.optimizer->momentum = 0.9;
  c.options.optimizer->weight_decay = 0.1;
  const Tensor mine = c.variables.at("fc.weight");
  const Tensor before = mine.clone();
  const Tensor others = mine.clone();
  const Variables own = {{"fc.weight", mine}};
  int compiled = 0;
  bool is_late = false;
  SUBCASE("before it is compiled") {}
  SUBCASE("while it is compiled, which is done again") { is_late = true; }
  if (!is_late) c.variables["fc.weight"] = others;
  const Program program = compile_beside(
      c.graph, c.variables, c.options,
      [&](const auto& work) {
        work();
        if (!is_late || compiled++ > 0) return;
        c.variables["fc.weight"] = others;
        c.variables["optim.momentum.fc.weight"] = others.clone();
      },
      own);
  CHECK(compiled == (is_late ? 2 : 0));
  CHECK(c.variables.at("fc.weight").shares_storage_with(others));
  program.run(
      {{"x", Tensor({{2, 8, 8, 2}, DType::kFloat32})}, {"y", Tensor({{2}, DType::kInt64})}});
  CHECK(test::same_bits(others, before));
  CHECK(!test::same_bits(mine, before));
}

TEST_CASE("of a tensor that it is to have alone and is not given a program makes its own") {
  Compiled c;
  c.options.optimizer->momentum = 0.9;
  const std::string momentum = "optim.momentum.fc.weight";
  const Program shared = c.program();
  const Tensor before = c.variables.at(momentum).clone();
  const auto compile_with = [&](const std::string& name) {
    return compile_beside(c.graph, c.variables, c.options, [](const auto& work) { work(); },
                          {{name, Tensor()}});
  };
  const std::map<std::string, Tensor> batch = {{"x", Tensor({{2, 8, 8, 2}, DType::kFloat32})},
                                               {"y", Tensor({{2}, DType::kInt64})}};
  compile_with(momentum).run(batch);
  CHECK(test::same_bits(c.variables.at(momentum), before));
  shared.run(batch);
  CHECK(!test::same_bits(c.variables.at(momentum), before));
  CHECK_THROWS_WITH_AS(compile_with("fc.weight"),
                       doctest::Contains("the variables lack 'fc.weight'"), ArgumentError);
}

TEST_CASE("who lets go of a lock must have the work done") {
  Compiled c;
  CHECK_THROWS_WITH_AS(compile_beside(c.graph, c.variables, c.options, [](const auto&) {}),
                       doctest::Contains("did not call its argument"), ArgumentError);
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
      CHECK(error.available_bytes() == 1000);
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

TEST_CASE(
    "fifty thousand values that are alive at once, and as many aliases, are planned and run") {
  constexpr int kWidth = 50000;
  Graph graph;
  const Symbol x = graph.input("x", {{4}, DType::kFloat32});
  std::vector<Symbol> parts;
  for (int i = 0; i < kWidth; ++i)
    parts.push_back(graph.add(ops::Affine{1.0, static_cast<double>(i % 7)}, {x}));
  // A chain that only renames, too: its length must not be walked again for every step.
  Symbol renamed = graph.add(ops::Affine{2.0, 0.0}, {x});
  for (int i = 0; i < kWidth; ++i)
    renamed = graph.add(i % 2 == 0 ? ops::Reshape{{2, 2}} : ops::Reshape{{4}}, {renamed});
  graph.set_output("all", graph.add(ops::Concat{0}, parts));
  graph.set_output("renamed", renamed);
  Variables variables;
  CompileOptions copying;  // else each value would be written where the result has its part
  copying.variants = {{"concat", "reference"}};
  const Program program = compile(graph, variables, copying);
  const auto results = program.run({{"x", Tensor({{4}, DType::kFloat32})}});
  const Tensor all = results.at("all");
  CHECK(all.size() == 4 * kWidth);
  bool right = true;
  for (std::int64_t i = 0; i < all.size(); ++i)
    right &= all.data<float>()[i] == static_cast<float>(i / 4 % 7);
  CHECK(right);
  CHECK(program.memory().arena_bytes >= std::size_t{kWidth} * 64);
}

TEST_CASE("a plan beyond what the machine has left says both numbers, and a smaller batch works") {
  const auto net = [](std::int64_t batch) {
    Graph graph;
    Symbol h = graph.input("x", {{batch, 64}, DType::kFloat32});
    h = graph.add(ops::Activation{ActivationKind::kTanh, 0.0}, {h});
    h = graph.add(ops::Softmax{}, {h});
    graph.set_output("y", graph.add(ops::Reduce{Reduction::kSum, {0, 1}, false}, {h}));
    return graph;
  };
  Variables variables;
  try {
    (void)compile(net(std::int64_t{1} << 37), variables);  // 32 TiB
    FAIL("no error");
  } catch (const MemoryLimitError& error) {
    const std::string text = error.what();
    CAPTURE(text);
    CHECK(error.wanted_bytes() >= std::size_t{1} << 45);
    CHECK(error.available_bytes() > 0);
    CHECK(error.available_bytes() < error.wanted_bytes());
    CHECK(text.find(std::to_string(error.wanted_bytes()) + " bytes") != std::string::npos);
    CHECK(text.find(std::to_string(error.available_bytes()) + " are available") !=
          std::string::npos);
    CHECK(text.find("a smaller batch") != std::string::npos);
  }
  CHECK(variables.empty());
  const Program program = compile(net(2), variables);
  const Tensor y = program.run({{"x", Tensor({{2, 64}, DType::kFloat32})}}).at("y");
  CHECK(*y.data<float>() == doctest::Approx(2.0));
}

TEST_CASE("results that no memory can hold are refused before the run") {
  Graph graph;
  const Symbol x = graph.input("x", {{1, 1024}, DType::kFloat32});
  graph.set_output("y", graph.add(ops::Broadcast{{std::int64_t{1} << 33, 1024}}, {x}));
  Variables variables;
  try {
    (void)compile(graph, variables);  // 32 TiB, of which the arena holds nothing
    FAIL("no error");
  } catch (const MemoryLimitError& error) {
    const std::string text = error.what();
    CAPTURE(text);
    CHECK(error.wanted_bytes() >= std::size_t{1} << 45);
    CHECK(error.available_bytes() > 0);
    CHECK(text.find("35184372088832 for results") != std::string::npos);
    CHECK(text.find(std::to_string(error.available_bytes()) + " are available") !=
          std::string::npos);
  }
}

TEST_CASE("a plan alone tells what compile would take, for any size") {
  Compiled c;
  const MemoryReport real = c.program().memory();
  const MemoryPlan planned = plan_memory(c.graph, c.options);
  CHECK(planned.memory.arena_bytes == real.arena_bytes);
  CHECK(planned.memory.scratch_bytes == real.scratch_bytes);
  CHECK(planned.memory.prepared_bytes == real.prepared_bytes);
  CHECK(planned.memory.variable_bytes == real.variable_bytes);
  CHECK(planned.memory.unshared_bytes == real.unshared_bytes);
  CHECK(planned.threads == c.program().threads());
  CHECK(planned.isa == c.program().isa());
  Graph large;
  const Symbol x = large.input("x", {{std::int64_t{1} << 40, 8}, DType::kFloat32});
  const Symbol h = large.add(ops::Softmax{}, {x});
  large.set_output("y", large.add(ops::Reduce{Reduction::kSum, {0, 1}, false}, {h}));
  CHECK(plan_memory(large).memory.arena_bytes >= std::size_t{1} << 45);
}

TEST_CASE("new variables count, too") {
  Graph graph;
  const std::int64_t rows = std::int64_t{1} << 40;
  const Symbol table = graph.parameter("table", {{rows, 4}, DType::kFloat32});
  ops::Slice first{{0, 0}, {1, 4}};
  graph.set_output("y", graph.add(first, {table}));
  Variables variables;
  CHECK_THROWS_WITH_AS(create_variables(graph, variables), doctest::Contains("are available"),
                       MemoryLimitError);
  CHECK(variables.empty());
}

TEST_CASE("what was not done as asked is in the program's warnings") {
  Compiled c;
  CHECK(c.program().warnings().empty());
  c.options.threads = 1000000000;
  const Program program = c.program();
  CHECK(program.threads() <= 1024);
  REQUIRE(program.warnings().size() == 1);
  CHECK(program.warnings()[0].find("threads=1000000000") == 0);
}

}  // namespace
}  // namespace pycnn
