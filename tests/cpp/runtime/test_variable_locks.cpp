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

// The locks of a program that writes some variables and reads others.
struct Use {
  std::vector<Tensor> variables;
  std::vector<std::string> names;
  VariableLocks locks;

  Use(const std::vector<Tensor>& written, const std::vector<Tensor>& read)
      : variables(joined(written, read)),
        names(named(variables.size())),
        locks(variables, names, first(written.size())) {}

  static std::vector<Tensor> joined(std::vector<Tensor> a, const std::vector<Tensor>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }
  static std::vector<std::string> named(std::size_t count) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.push_back("v" + std::to_string(i));
    return names;
  }
  static std::vector<int> first(std::size_t count) {
    std::vector<int> numbers;
    for (std::size_t i = 0; i < count; ++i) numbers.push_back(static_cast<int>(i));
    return numbers;
  }
};

void wait_until(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();
}

}  // namespace

TEST_CASE("a writer excludes other writers of the same variable, also through a third program") {
  const Tensor a = number(), b = number();
  const Use first({a}, {}), second({b}, {}), joint({b, a}, {}), apart({number()}, {});
  std::optional<Hold> writer(std::in_place, first.locks);
  CHECK_THROWS_AS(Hold(joint.locks), TrainingError);
  CHECK_THROWS_WITH(Hold(joint.locks),
                    doctest::Contains("is writing 'v1', too, in another thread"));
  CHECK_NOTHROW(Hold(second.locks));  // a refused writer has let go of what it had
  CHECK_NOTHROW(Hold(apart.locks));
  writer.reset();
  CHECK_NOTHROW(Hold(joint.locks));
  const Use none({}, {});
  const Hold one(none.locks), two(none.locks);
}

TEST_CASE("writers of different variables share what they only read, whatever was locked before") {
  const Tensor encoder = number(), a = number(), b = number();
  // Inference with all of them came first, which must not tie their roles together.
  const Use inference({}, {encoder, a, b});
  const Use first({a}, {encoder}), second({b}, {encoder}), whole({encoder, a}, {});
  const Hold one(first.locks);
  const Hold two(second.locks);
  CHECK_THROWS_WITH_AS(Hold(whole.locks), doctest::Contains("'v1'"), TrainingError);
  const Use only_encoder({}, {encoder});
  const Hold reader(only_encoder.locks);
}

TEST_CASE("one tensor under two names is written if one of them is") {
  const Tensor a = number();
  const Use twice({a}, {a}), once({a}, {});
  const Hold writer(twice.locks);
  CHECK_THROWS_AS(Hold(once.locks), TrainingError);
}

TEST_CASE("readers wait for a writer and a writer for readers") {
  const Tensor a = number();
  const Use writes({a}, {}), reads({}, {a});
  std::atomic<int> stage{0};
  std::optional<Hold> writer(std::in_place, writes.locks);
  std::thread reader([&] {
    stage = 1;
    const Hold hold(reads.locks);
    stage = 2;
    wait_until([&] { return stage == 3; });
  });
  wait_until([&] { return stage == 1; });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(stage == 1);
  writer.reset();
  wait_until([&] { return stage == 2; });
  { const Hold beside(reads.locks); }  // readers do not mind one another
  std::atomic<bool> wrote{false};
  std::thread later([&] {
    const Hold hold(writes.locks);
    wrote = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(!wrote);
  stage = 3;
  reader.join();
  later.join();
  CHECK(wrote);
}

TEST_CASE("a writer that waits for readers refuses another one, too") {
  const Tensor a = number();
  const Use one({a}, {}), other({a}, {}), reads({}, {a});
  std::atomic<int> refused{0}, wrote{0};
  std::optional<Hold> reader(std::in_place, reads.locks);
  std::vector<std::thread> writers;
  for (const Use* use : {&one, &other}) {
    writers.emplace_back([&, use] {
      try {
        const Hold hold(use->locks);
        ++wrote;
      } catch (const TrainingError&) {
        ++refused;
      }
    });
  }
  wait_until([&] { return refused == 1; });
  CHECK(wrote == 0);
  reader.reset();
  for (std::thread& writer : writers) writer.join();
  CHECK(refused == 1);
  CHECK(wrote == 1);
}

TEST_CASE("neither readers nor writers who keep coming keep the other out") {
  const Tensor a = number(), b = number();
  const Use writes_a({a}, {b}), writes_b({b}, {a}), reads({}, {a, b});
  std::atomic<bool> stop{false};
  std::vector<std::thread> busy;
  for (const Use* use : {&reads, &reads, &reads, &writes_b}) {
    busy.emplace_back([&stop, use] {
      while (!stop) const Hold hold(use->locks);
    });
  }
  // Two programs that each read what the other writes must not wait in a circle.
  for (int i = 0; i < 50; ++i) const Hold hold(writes_a.locks);
  for (int i = 0; i < 50; ++i) const Hold hold(reads.locks);
  stop = true;
  for (std::thread& thread : busy) thread.join();
}

TEST_CASE("writers that take turns do not overtake a reader of what both write") {
  const Tensor a = number(), b = number();
  const Use writes_a({a}, {}), writes_b({b}, {}), reads({}, {a, b});
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0};
  std::vector<std::thread> writers;
  for (const Use* use : {&writes_a, &writes_b}) {
    writers.emplace_back([&, use] {
      for (; !stop; ++rounds) {
        const Hold hold(use->locks);
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
    });
  }
  // Nearly always one of the two is held.
  wait_until([&] { return rounds > 4; });
  // Others may stop this thread before it asks or after it is done, but not often.
  int overtaken = 0;
  for (int i = 0; i < 20; ++i) {
    const int before = rounds;
    { const Hold hold(reads.locks); }
    overtaken += rounds - before >= 20;
  }
  CHECK(overtaken < 10);
  stop = true;
  for (std::thread& writer : writers) writer.join();
}

TEST_CASE("locks follow tensors, not addresses of tensors that are gone") {
  const Use first({number()}, {});
  for (int i = 0; i < 100; ++i) {
    const Hold writer(first.locks);
    const Use fresh({number()}, {});
    CHECK_NOTHROW(Hold(fresh.locks));
  }
}

namespace {

struct Trained {
  Graph graph = test::small_net(4, true, 0.0);
  Variables variables;
  Results inputs = {{"x", test::random_tensor({4, 8, 8, 2}, 9)}, {"y", test::labels(4, 4)}};

  Trained() { create_variables(graph, variables, 2); }
  Program training(double rate) {
    Program program = compile(graph, variables, test::training_options());
    variables["train.learning_rate"].mutable_data<float>()[0] = static_cast<float>(rate);
    return program;
  }
};

}  // namespace

TEST_CASE("two training programs on the same variables at once: one is refused, none is harmed") {
  Trained t;
  const Program first = t.training(0.0), second = t.training(0.0);
  std::atomic<int> refused{0}, done{0}, ready{0};
  const auto work = [&](const Program& program) {
    ++ready;
    wait_until([&] { return ready == 2; });
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (refused == 0 && std::chrono::steady_clock::now() < end) {
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

namespace {

// A frozen convolution and normalisation, and a head of its own for each trainer.
struct TwoHeads {
  Variables encoder;
  Results inputs = {{"x", test::random_tensor({4, 8, 8, 2}, 9)}, {"y", test::labels(4, 4)}};

  static Graph graph(const std::string& head, bool with_loss) {
    Graph graph;
    test::Layers net{graph};
    const Symbol x = graph.input("x", {{4, 8, 8, 2}, DType::kFloat32});
    Symbol h = net.relu(net.conv(x, "encoder", 5, 3));
    h = graph.add(ops::Reshape{{4, -1}}, {h});
    h = net.dense(h, head, 4);
    graph.set_output("logits", h);
    if (!with_loss) return graph;
    const Symbol y = graph.input("y", {{4}, DType::kInt64});
    graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}));
    return graph;
  }

  TwoHeads() {
    Variables all;
    create_variables(graph("head", false), all, 2);
    for (const char* name : {"encoder.weight", "encoder.bias"}) encoder[name] = all.at(name);
  }

  // Variables of one trainer; those of the encoder are the same tensors in all.
  Variables variables(const std::string& head) const {
    Variables mine = encoder;
    create_variables(graph(head, true), mine, 3);
    return mine;
  }
  static Program training(const std::string& head, Variables& variables) {
    CompileOptions options = test::training_options();
    ParameterGroup frozen;
    frozen.names = {"encoder.weight", "encoder.bias"};
    frozen.frozen = true;
    options.optimizer->groups = {frozen};
    Program program = compile(graph(head, true), variables, options);
    variables["train.learning_rate"].mutable_data<float>()[0] = 0.05f;
    return program;
  }
};

}  // namespace

TEST_CASE("two trainers with heads of their own run at once over one frozen encoder") {
  constexpr int kSteps = 300;
  const TwoHeads shared;
  // Inference over encoder and head, as somebody who looks at the net before training does.
  Variables first = shared.variables("first"), second = shared.variables("second");
  const Program look = compile(TwoHeads::graph("first", false), first);
  (void)look.run(Results{{"x", shared.inputs.at("x")}});

  const auto alone = [&](const std::string& head) {
    Variables variables = shared.variables(head);
    const Program program = TwoHeads::training(head, variables);
    for (int step = 0; step < kSteps; ++step) program.run(shared.inputs);
    return variables;
  };
  const Variables expected_first = alone("first"), expected_second = alone("second");

  const Program one = TwoHeads::training("first", first);
  const Program two = TwoHeads::training("second", second);
  std::atomic<int> refused{0}, ready{0};
  const auto work = [&](const Program& program) {
    ++ready;
    wait_until([&] { return ready == 2; });
    try {
      for (int step = 0; step < kSteps; ++step) program.run(shared.inputs);
    } catch (const TrainingError&) {
      ++refused;
    }
  };
  std::thread other([&] { work(two); });
  work(one);
  other.join();
  CHECK(refused == 0);
  CHECK(test::same_bits(first, expected_first));
  CHECK(test::same_bits(second, expected_second));
  // A trainer of the whole net writes the encoder and is no longer refused by a run that ended.
  const Program whole = compile(TwoHeads::graph("first", true), first, test::training_options());
  CHECK_NOTHROW(whole.run(shared.inputs));
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
  const Program training = compile(graph, variables, test::training_options());
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

namespace {

// Forks while `busy` runs in another thread; each child has to end well within its time.
void check_children(int forks, const std::function<void()>& busy,
                    const std::function<bool()>& in_child) {
  std::atomic<bool> stop{false};
  std::atomic<int> runs{0};
  std::thread other([&] {
    for (; !stop; ++runs) busy();
  });
  wait_until([&] { return runs > 2; });
  int failed = 0;
  for (int fork = 0; fork < forks; ++fork) {
    const int before = runs;
    wait_until([&] { return runs != before; });
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(120);  // a child that waits for nobody dies
      ::_exit(in_child() ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    failed += status != 0;
  }
  stop = true;
  other.join();
  CHECK(failed == 0);
}

}  // namespace

TEST_CASE("a child forked beside training can use the variables") {
  Trained t;
  const Program training = t.training(0.0);
  const Program inference = compile(test::small_net(4, false), t.variables);
  const Results images = {{"x", t.inputs.at("x")}};
  (void)inference.run(images);
  check_children(
      5, [&] { training.run(t.inputs); },
      [&] {
        (void)inference.run(images);
        return true;
      });
}

TEST_CASE("a child forked in the middle of a training step can train with the same program") {
  Trained t;
  const Program training = t.training(0.01);
  check_children(
      20, [&] { training.run(t.inputs); },
      [&] {
        const std::int64_t before = *t.variables.at("train.step").data<std::int64_t>();
        for (int step = 0; step < 3; ++step) training.run(t.inputs);
        return *t.variables.at("train.step").data<std::int64_t>() >= before + 3;
      });
}

TEST_CASE("a child forked while weights are prepared prepares them itself") {
  Trained t;
  const Program inference = compile(test::small_net(4, false), t.variables);
  const Results images = {{"x", t.inputs.at("x")}};
  const Tensor expected = inference.run(images).at("logits");
  inference.start_profile();
  check_children(
      20,
      [&] {
        (void)t.variables["conv1.weight"].mutable_data<float>();  // changed, it says
        (void)inference.run(images);
      },
      [&] {
        const bool same = test::same_bits(inference.run(images).at("logits"), expected);
        (void)inference.profile();
        return same;
      });
}

}  // namespace pycnn
