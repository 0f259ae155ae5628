#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "compile/nets.h"
#include "pycnn/error.h"
#include "runtime/variable_locks.h"

namespace pycnn {
namespace {

using Results = std::map<std::string, Tensor>;
using Hold = VariableLocks::Hold;

Tensor number() { return Tensor({{1}, DType::kFloat32}); }

void wait_until(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();
}

}  // namespace

TEST_CASE("a writer excludes other writers of the same variable, also through a third program") {
  const std::vector<Tensor> a = {number()}, b = {number()}, both = {a[0], b[0]}, other = {number()};
  const VariableLocks first(a), second(b), joint(both), apart(other);
  std::optional<Hold> writer(std::in_place, first, true);
  CHECK_THROWS_AS(Hold(joint, true), TrainingError);
  CHECK_THROWS_WITH(Hold(first, true), doctest::Contains("in another thread"));
  CHECK_NOTHROW(Hold(second, true));  // a refused writer has let go of what it had
  CHECK_NOTHROW(Hold(apart, true));
  writer.reset();
  CHECK_NOTHROW(Hold(joint, true));
  const VariableLocks none{std::vector<Tensor>()};
  const Hold one(none, true), two(none, true);
}

TEST_CASE("readers wait for a writer and a writer for readers") {
  const std::vector<Tensor> a = {number()};
  const VariableLocks program(a), same(a);
  std::atomic<int> stage{0};
  std::optional<Hold> writer(std::in_place, program, true);
  std::thread reader([&] {
    stage = 1;
    const Hold hold(same, false);
    stage = 2;
    wait_until([&] { return stage == 3; });
  });
  wait_until([&] { return stage == 1; });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(stage == 1);
  writer.reset();
  wait_until([&] { return stage == 2; });
  { const Hold beside(program, false); }  // readers do not mind one another
  std::atomic<bool> wrote{false};
  std::thread later([&] {
    const Hold hold(program, true);
    wrote = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(!wrote);
  stage = 3;
  reader.join();
  later.join();
  CHECK(wrote);
}

TEST_CASE("readers that keep coming do not keep a writer out") {
  const std::vector<Tensor> a = {number()};
  const VariableLocks program(a);
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) const Hold hold(program, false);
    });
  }
  for (int i = 0; i < 50; ++i) const Hold hold(program, true);
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

TEST_CASE("locks follow tensors, not addresses of tensors that are gone") {
  auto kept = std::vector<Tensor>{number()};
  const VariableLocks first(kept);
  for (int i = 0; i < 100; ++i) {
    const std::vector<Tensor> fresh = {number()};
    const Hold writer(first, true);
    CHECK_NOTHROW(Hold(VariableLocks(fresh), true));
  }
}

namespace {

struct Trained {
  Graph graph = test::small_net(4, true, 0.0);
  Variables variables;
  Results inputs = {{"x", test::random_tensor({4, 8, 8, 2}, 9)}, {"y", test::labels(4, 4)}};

  Trained() { create_variables(graph, variables, 2); }
  Program training(double rate) {
    CompileOptions options;
    options.mode = Mode::kTraining;
    options.optimizer = Optimizer{};
    Program program = compile(graph, variables, options);
    variables["train.learning_rate"].mutable_data<float>()[0] = static_cast<float>(rate);
    return program;
  }
};

}  // namespace

TEST_CASE("two training programs on the same variables at once: one is refused, none is harmed") {
  Trained t;
  const Program first = t.training(0.0), second = t.training(0.0);
  std::atomic<int> refused{0}, done{0};
  const auto work = [&](const Program& program) {
    for (int run = 0; run < 5000 && refused == 0; ++run) {
      try {
        program.run(t.inputs);
        ++done;
      } catch (const TrainingError&) {
        ++refused;
      }
    }
  };
  std::thread other([&] { work(second); });
  work(first);
  other.join();
  CHECK(refused > 0);
  // Steps were counted once each: no update was lost or made twice.
  CHECK(*t.variables.at("train.step").data<std::int64_t>() == done);
  CHECK_NOTHROW(first.run(t.inputs));
  CHECK_NOTHROW(second.run(t.inputs));
}

TEST_CASE("inference beside training sees whole updates only") {
  // Weight and bias are equal before and after each step, since their gradients are.
  Graph graph;
  const Symbol x = graph.input("x", {{1, 1}, DType::kFloat32});
  const Symbol w = graph.parameter("w", {{65536}, DType::kFloat32});
  const Symbol b = graph.parameter("b", {{65536}, DType::kFloat32});
  const Symbol sum = graph.add(ops::Add{}, {w, b});
  const Symbol shifted = graph.add(ops::Add{}, {x, sum});
  graph.set_output("loss", graph.add(ops::Reduce{Reduction::kSum, {0, 1}, false}, {shifted}));
  Graph difference;
  const Symbol dw = difference.parameter("w", {{65536}, DType::kFloat32});
  const Symbol db = difference.parameter("b", {{65536}, DType::kFloat32});
  const Symbol apart = difference.add(ops::Subtract{}, {dw, db});
  const Symbol square = difference.add(ops::Multiply{}, {apart, apart});
  difference.set_output("d", difference.add(ops::Reduce{Reduction::kSum, {0}, false}, {square}));

  Variables variables;
  create_variables(graph, variables, 2);
  CompileOptions options;
  options.mode = Mode::kTraining;
  options.optimizer = Optimizer{};
  const Program training = compile(graph, variables, options);
  const Program inference = compile(difference, variables);
  std::atomic<bool> stop{false};
  std::atomic<int> steps{0};
  std::thread trainer([&] {
    const Results inputs = {{"x", Tensor({{1, 1}, DType::kFloat32})}};
    for (; !stop; ++steps) training.run(inputs);
  });
  int torn = 0;
  for (int run = 0; run < 300 || steps < 20; ++run)
    torn += *inference.run(Results{}).at("d").data<float>() != 0.0f;
  stop = true;
  trainer.join();
  CHECK(torn == 0);
  CHECK(variables.at("w").data<float>()[0] < 0.0f);
}

TEST_CASE("a child forked beside training can use the variables") {
  Trained t;
  const Program training = t.training(0.0);
  const Program inference = compile(test::small_net(4, false), t.variables);
  const Results images = {{"x", t.inputs.at("x")}};
  (void)inference.run(images);
  std::atomic<bool> stop{false};
  std::atomic<int> steps{0};
  std::thread trainer([&] {
    for (; !stop; ++steps) training.run(t.inputs);
  });
  wait_until([&] { return steps > 2; });
  for (int fork = 0; fork < 5; ++fork) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(20);  // a child that waits for nobody dies
      (void)inference.run(images);
      ::_exit(0);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  stop = true;
  trainer.join();
}

}  // namespace pycnn
