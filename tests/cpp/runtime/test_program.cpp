#include <doctest/doctest.h>
#include <unistd.h>

#include <barrier>
#include <fstream>
#include <thread>

#include "compile/nets.h"
#include "pycnn/error.h"
#include "support/allocations.h"

namespace pycnn {
namespace {

using Results = std::map<std::string, Tensor>;

CompileOptions all_options() {
  CompileOptions options = test::training_options();
  options.optimizer->momentum = 0.9;
  options.optimizer->clip_norm = 5.0;
  options.optimizer->ema_decay = 0.95;
  return options;
}

struct Training {
  std::vector<double> losses;
  Variables variables;
};

Training train(const CompileOptions& options, int steps = 20, double dropout = 0.25) {
  const Graph graph = test::small_net(16, true, dropout);
  Training training;
  create_variables(graph, training.variables, 1);
  const Program program = compile(graph, training.variables, options);
  training.variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
  const Results inputs = {{"x", test::random_tensor({16, 8, 8, 2}, 9)}, {"y", test::labels(16, 4)}};
  for (int step = 0; step < steps; ++step)
    training.losses.push_back(*program.run(inputs).at("loss").data<float>());
  return training;
}

TEST_CASE("training brings the loss down and moves every part of the state") {
  const Training training = train(all_options());
  CHECK(training.losses.front() > 1.0);
  CHECK(training.losses.back() < 0.6 * training.losses.front());
  Variables fresh;
  create_variables(test::small_net(16, true), fresh, 1);
  for (const auto& [key, tensor] : fresh) {
    const std::string& name = key;
    CAPTURE(name);
    const Tensor trained = training.variables.at(name);
    CHECK(!test::same_bits(tensor, trained));
    for (std::int64_t i = 0; i < trained.size(); ++i)
      CHECK(std::isfinite(trained.data<float>()[i]));
  }
  CHECK(*training.variables.at("train.step").data<std::int64_t>() == 20);
  CHECK(
      !test::same_bits(training.variables.at("ema.fc.weight"), training.variables.at("fc.weight")));
}

TEST_CASE("memory sharing and thread count do not change a bit of training") {
  const Training expected = train(all_options());
  CompileOptions separate = all_options();
  separate.reuse_memory = false;
  CHECK(test::same_bits(train(separate).variables, expected.variables));
  for (const int threads : {1, 2, 3}) {
    CAPTURE(threads);
    CompileOptions options = all_options();
    options.threads = threads;
    CHECK(test::same_bits(train(options).variables, expected.variables));
  }
}

TEST_CASE("fused and plain kernels train alike, within rounding") {
  const Training expected = train(all_options(), 3, 0.0);
  CompileOptions plain = all_options();
  plain.fuse = false;
  CompileOptions reference = all_options();
  reference.variants = {{"*", "reference"}};
  for (const CompileOptions& options : {plain, reference}) {
    const Training other = train(options, 3, 0.0);
    for (std::size_t i = 0; i < expected.losses.size(); ++i)
      CHECK(other.losses[i] == doctest::Approx(expected.losses[i]).epsilon(1e-4));
    for (const auto& [key, tensor] : expected.variables) {
      const std::string& name = key;
      CAPTURE(name);
      if (is_floating(tensor.dtype()))
        CHECK(test::difference(other.variables.at(name), tensor) < 1e-3);
    }
  }
}

TEST_CASE("inference with trained variables follows the training program without copies") {
  const Graph graph = test::small_net(4, true);
  Variables variables;
  create_variables(graph, variables, 2);
  const Program trainer = compile(graph, variables, all_options());
  const Program inference = compile(test::small_net(4, false), variables);
  const Results inputs = {{"x", test::random_tensor({4, 8, 8, 2}, 9)}, {"y", test::labels(4, 4)}};
  const Results images = {{"x", inputs.at("x")}};
  const Tensor before = inference.run(images).at("logits");
  trainer.run(inputs);
  const Tensor after = inference.run(images).at("logits");
  CHECK(!test::same_bits(before, after));
  CHECK(test::same_bits(after,
                        compile(test::small_net(4, false), variables).run(images).at("logits")));
}

TEST_CASE("folded and packed weights are made again when a variable changes, and only then") {
  const Graph graph = test::small_net(2, false);
  Variables variables;
  create_variables(graph, variables, 2);
  const Program program = compile(graph, variables);
  const Results inputs = {{"x", test::random_tensor({2, 8, 8, 2}, 9)}};
  const auto prepared = [&] {
    program.start_profile();
    const Tensor logits = program.run(inputs).at("logits");
    std::int64_t runs = 0;
    for (const StepProfile& step : program.profile())
      if (step.phase == "prepare") runs = step.runs;
    return std::pair(runs, logits);
  };
  CHECK(prepared().first == 1);
  const auto [again, before] = prepared();
  CHECK(again == 0);
  fill(variables["bn1.running_mean"], test::constant(0.5), 0, 0);
  const auto [changed, after] = prepared();
  CHECK(changed == 1);
  CHECK(!test::same_bits(before, after));
  variables["fc.bias"].mutable_data<float>()[0] += 1.0f;  // is read as it is
  const auto [unrelated, shifted] = prepared();
  CHECK(unrelated == 0);
  CHECK(shifted.data<float>()[0] == doctest::Approx(after.data<float>()[0] + 1.0f));
}

TEST_CASE("runs of one program in several threads give the bits of a run alone") {
  const Graph graph = test::small_net(3, false);
  Variables variables;
  create_variables(graph, variables, 2);
  const Program program = compile(graph, variables);
  constexpr int kThreads = 4, kRuns = 30;
  std::vector<Tensor> images, expected;
  for (int i = 0; i < kThreads; ++i) {
    images.push_back(test::random_tensor({3, 8, 8, 2}, static_cast<std::uint64_t>(i)));
    expected.push_back(compile(graph, variables).run(Results{{"x", images.back()}}).at("logits"));
  }
  std::vector<int> wrong(kThreads, 0);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int run = 0; run < kRuns; ++run)
        wrong[i] +=
            !test::same_bits(program.run(Results{{"x", images[i]}}).at("logits"), expected[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(kThreads, 0));
}

// Bytes of this process that are in memory.
std::int64_t resident_bytes() {
  std::int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST_CASE("ten thousand runs in each of eight threads: the same bits, and memory stays flat") {
  constexpr int kThreads = 8, kWarmUp = 100, kRuns = PYCNN_PLAIN_HEAP ? 10000 : 300;
  const Graph graph = test::small_net(1, false);
  Variables variables;
  create_variables(graph, variables, 2);
  CompileOptions options;
  options.threads = 1;
  const Program program = compile(graph, variables, options);
  std::vector<Results> inputs, expected;
  for (int i = 0; i < kThreads; ++i) {
    inputs.push_back({{"x", test::random_tensor({1, 8, 8, 2}, static_cast<std::uint64_t>(i))}});
    expected.push_back(compile(graph, variables).run(inputs.back()));
  }
  std::vector<int> wrong(kThreads, 0);
  const auto grown = [&] {
    std::vector<std::int64_t> resident;  // after the first runs and after the last
    std::barrier together(kThreads, [&]() noexcept { resident.push_back(resident_bytes()); });
    resident.reserve(2);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        const Tensor& logits = expected[i].at("logits");
        std::vector<std::byte> given(logits.bytes());
        const void* from[] = {inputs[i].at("x").raw()};
        void* to[] = {given.data()};
        for (int run = 0; run < kRuns; ++run) {
          if (run == kWarmUp) together.arrive_and_wait();
          // By turns into memory of the caller and into tensors of its own.
          if (run % 2 == 0) {
            std::fill(given.begin(), given.end(), std::byte{0xff});
            program.run(from, to);
            wrong[i] += std::memcmp(given.data(), logits.raw(), given.size()) != 0;
          } else {
            wrong[i] += !test::same_bits(program.run(inputs[i]), expected[i]);
          }
        }
        together.arrive_and_wait();
      });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(resident.size() == 2);
    return resident[1] - resident[0];
  };
  // The system may make a huge page of some small ones, once.
  bool flat = false;
  for (int attempt = 0; attempt < 3 && !flat; ++attempt)
    flat = grown() < (1 << 20) || !PYCNN_PLAIN_HEAP;
  CHECK(flat);
  CHECK(wrong == std::vector<int>(kThreads, 0));
}

TEST_CASE("training from two threads takes turns") {
  const Graph graph = test::small_net(4, true, 0.0);
  const Results inputs = {{"x", test::random_tensor({4, 8, 8, 2}, 9)}, {"y", test::labels(4, 4)}};
  constexpr int kRuns = 200;
  const auto trained = [&](bool by_two) {
    Variables variables;
    create_variables(graph, variables, 2);
    const Program program = compile(graph, variables, all_options());
    const auto work = [&](int runs) {
      for (int run = 0; run < runs; ++run) program.run(inputs);
    };
    std::thread other(work, by_two ? kRuns / 2 : 0);
    work(by_two ? kRuns / 2 : kRuns);
    other.join();
    return variables;
  };
  CHECK(test::same_bits(trained(true), trained(false)));
}

TEST_CASE("a wrong call is refused with names and numbers") {
  const Graph graph = test::small_net(2, true);
  Variables variables;
  create_variables(graph, variables, 2);
  const Program program = compile(graph, variables);
  const Tensor x({{2, 8, 8, 2}, DType::kFloat32}), y = test::labels(2, 4);
  CHECK_THROWS_WITH_AS(program.run(Results{{"x", x}}), doctest::Contains("'y' i64(2) is missing"),
                       ArgumentError);
  CHECK_THROWS_WITH_AS(program.run(Results{{"x", x}, {"y", y}, {"z", y}}),
                       doctest::Contains("no input 'z'; it has 'x', 'y'"), ArgumentError);
  CHECK_THROWS_WITH_AS(program.run(Results{{"x", x}, {"y", test::labels(3, 4)}}),
                       doctest::Contains("'y' has shape (3), it was compiled for (2)"), ShapeError);
  CHECK_THROWS_WITH_AS(program.run(Results{{"x", x}, {"y", Tensor({{2}, DType::kFloat32})}}),
                       doctest::Contains("float32, it expects int64"), DTypeError);
  CHECK_THROWS_AS(program.run(Results{{"x", x}, {"y", Tensor()}}), ArgumentError);
  const void* one[] = {x.raw()};
  const void* two[] = {x.raw(), nullptr};
  float numbers[8];
  void* none[] = {nullptr, nullptr, nullptr};
  void* outputs[] = {numbers, numbers, numbers};
  CHECK_THROWS_WITH_AS(program.run(one, outputs), doctest::Contains("1 inputs given, it has 2"),
                       ArgumentError);
  CHECK_THROWS_WITH_AS(program.run(two, outputs), doctest::Contains("input 'y' is null"),
                       ArgumentError);
  two[1] = y.raw();
  CHECK_THROWS_WITH_AS(program.run(two, none), doctest::Contains("output 'logits' is null"),
                       ArgumentError);
}

TEST_CASE("empty batches run") {
  const Graph graph = test::small_net(0, false);
  Variables variables;
  create_variables(graph, variables, 2);
  const Results results =
      compile(graph, variables).run(Results{{"x", Tensor({{0, 8, 8, 2}, DType::kFloat32})}});
  CHECK(results.at("logits").shape() == Shape{0, 4});
}

TEST_CASE("copies of a program outlive the first and share its memory") {
  const Graph graph = test::small_net(2, false);
  Variables variables;
  create_variables(graph, variables, 2);
  const Results inputs = {{"x", test::random_tensor({2, 8, 8, 2}, 9)}};
  auto first = std::make_unique<Program>(compile(graph, variables));
  const Program second = *first;
  const Tensor expected = first->run(inputs).at("logits");
  first.reset();
  variables.clear();
  CHECK(test::same_bits(second.run(inputs).at("logits"), expected));
}

TEST_CASE("a program whose last owner lets go while other threads run it ends its runs") {
  const Graph graph = test::small_net(2, true);
  const Results inputs = {{"x", test::random_tensor({2, 8, 8, 2}, 9)}, {"y", test::labels(2, 4)}};
  constexpr int kThreads = 3;
  for (const bool training : {false, true}) {
    CAPTURE(training);
    Variables variables;
    create_variables(graph, variables, 2);
    auto program = std::make_shared<const Program>(
        compile(graph, variables, training ? all_options() : CompileOptions{}));
    const Tensor expected = program->run(inputs).at("logits");
    const std::weak_ptr<const Program> watched = program;
    std::atomic<int> running{0}, wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, mine = *program]() mutable {
        ++running;
        Results results;
        for (int run = 0; run < 50; ++run) results = mine.run(inputs);
        if (!training) wrong += !test::same_bits(results.at("logits"), expected);
        mine = Program(nullptr);  // the last one to do so destroys the program
      });
    }
    while (running < kThreads) std::this_thread::yield();
    program.reset();
    variables.clear();
    CHECK(watched.expired());
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
  }
}

TEST_CASE("float64 programs run") {
  const Graph graph = test::small_net(4, true, 0.0, DType::kFloat64);
  const Graph single = test::small_net(4, true, 0.0);
  Variables doubles, floats;
  create_variables(graph, doubles, 2);
  create_variables(single, floats, 2);
  const auto loss = [](const Graph& net, Variables& variables, DType dtype) {
    const Program program = compile(net, variables, all_options());
    return program
        .run(Results{{"x", test::random_tensor({4, 8, 8, 2}, 9, 1.0, dtype)},
                     {"y", test::labels(4, 4)}})
        .at("loss");
  };
  const double exact = *loss(graph, doubles, DType::kFloat64).data<double>();
  CHECK(*loss(single, floats, DType::kFloat32).data<float>() ==
        doctest::Approx(exact).epsilon(1e-5));
}

}  // namespace
}  // namespace pycnn
