// Steps side by side on lanes: the same bits, joined as CUDA wants it, kept only where quicker. The
// emulated device goes through lanes in two opposite orders, and its time counts every piece of
// work as a microsecond.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "backends/cuda/training.h"

namespace pycnn {
namespace {

using testing::Failing;
using testing::options_for;
using testing::Training;

struct Lanes {
  explicit Lanes(const char* count) { setenv("PYCNN_CUDA_LANES", count, 1); }
  ~Lanes() { unsetenv("PYCNN_CUDA_LANES"); }
  Lanes(const Lanes&) = delete;
  Lanes& operator=(const Lanes&) = delete;
};

// Two blocks of four branches, joined by concatenation; weight gradients beside input gradients.
constexpr int kBatch = 2;

Graph branches_net() {
  Graph graph;
  test::Layers layers{graph};
  Symbol x = graph.input("x", {{kBatch, 6, 6, 2}});
  x = layers.relu(layers.norm(layers.conv(x, "stem", 8, 3), "stem_norm"));
  for (const std::string block : {"a.", "b."}) {
    const Symbol one = layers.relu(layers.conv(x, block + "one", 8, 1, true, 0));
    Symbol three = layers.relu(layers.conv(x, block + "reduce3", 6, 1, true, 0));
    three = layers.relu(layers.norm(layers.conv(three, block + "three", 8, 3), block + "norm3"));
    Symbol five = layers.relu(layers.conv(x, block + "reduce5", 4, 1, true, 0));
    five = layers.relu(layers.conv(five, block + "five", 8, 5, true, 2));
    const Symbol pool = layers.relu(layers.conv(x, block + "pool", 8, 1, true, 0));
    x = graph.add(ops::Concat{}, {one, three, five, pool}, block + "join");
  }
  const Symbol flat = graph.add(ops::Reshape{{kBatch, -1}}, {x});
  const Symbol scores = layers.dense(flat, "fc", 4);
  const Symbol y = graph.input("y", {{kBatch}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {scores, y}, "loss"));
  return graph;
}

struct LanesTraining : Training {
  std::string recording;
  std::size_t scratch = 0;  // of lanes
};

LanesTraining train(const std::string& device, int steps, DType dtype = DType::kFloat32,
                    bool fills_memory = false) {
  const Graph graph = branches_net();
  LanesTraining training;
  create_variables(graph, training.variables, 1);
  CompileOptions options = options_for(device);
  options.dtype = dtype;
  const Program program = compile(graph, training.variables, options);
  training.variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
  const testing::Results inputs = {{"x", test::random_tensor({kBatch, 6, 6, 2}, 9)},
                                   {"y", test::labels(kBatch, 4)}};
  for (int step = 0; step < steps; ++step) {
    if (fills_memory && step > 0) setenv("PYCNN_EMULATED_MEMORY", "0", 1);
    training.losses.push_back(*program.run(inputs).at("loss").data<float>());
  }
  unsetenv("PYCNN_EMULATED_MEMORY");
  training.recording = program.recording();
  training.scratch = program.memory().lane_scratch_bytes;
  return training;
}

TEST_CASE("cuda lanes: steps side by side have the bits of steps one by one") {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    CAPTURE(long_name(dtype));
    Training expected;
    {
      const Lanes one("1");
      expected = train("cuda", 4, dtype);
    }
    CHECK(expected.losses.back() < expected.losses.front());
    for (const char* const count : {"2", "3"}) {
      const Lanes several(count);
      for (const std::string& device : {Device::cuda(0), Device::cuda(testing::other_device())}) {
        CAPTURE(count);
        CAPTURE(device);
        const Training actual = train(device, 4, dtype);
        CHECK(actual.losses == expected.losses);
        CHECK(test::same_bits(actual.variables, expected.variables));
      }
    }
  }
}

TEST_CASE("cuda lanes: branches and gradients of weights are laid beside others") {
  if (!testing::is_emulated()) return;
  const auto follows = [](const char* count) {
    const Lanes lanes(count);
    const testing::Calls calls;
    train("cuda", 2);
    return calls.count("follow");
  };
  CHECK(follows("1") == 0);
  CHECK(follows("2") > 6);
  CHECK(follows("3") > 6);
}

TEST_CASE("cuda lanes: both ways are tried and give the same bits, whichever is kept") {
  LanesTraining expected;
  {
    const Lanes one("1");
    expected = train("cuda", 17);
  }
  CHECK(expected.recording == "recorded on one lane");
  CHECK(test::same_bits(train("cuda", 17).variables, expected.variables));
  if (!testing::is_emulated()) return;
  const LanesTraining both = train("cuda", 9), chosen = train("cuda", 17);
  CHECK(both.recording == "recorded on one lane and on 3 lanes, which take turns");
  CHECK(both.scratch > 0);
  CHECK(chosen.recording == "recorded on 3 lanes");
  CHECK(chosen.scratch == both.scratch);
  for (const char* const what : {"slow_lanes", "elapsed", "recording"}) {
    CAPTURE(what);
    const Failing failing(what);
    const LanesTraining actual = train("cuda", 17);
    CHECK(test::same_bits(actual.variables, expected.variables));
    if (what != std::string("recording")) CHECK(actual.recording == "recorded on one lane");
    CHECK(actual.scratch == 0);
  }
}

TEST_CASE("cuda lanes: the way that is not kept is forgotten once no run under way takes it") {
  if (!testing::is_emulated()) return;
  const Graph graph = branches_net();
  const testing::Results inputs = {{"x", test::random_tensor({kBatch, 6, 6, 2}, 9)},
                                   {"y", test::labels(kBatch, 4)}};
  const void* const arrays[] = {inputs.at("x").raw(), inputs.at("y").raw()};
  for (const char* const what : {"", "slow_lanes"}) {
    CAPTURE(what);
    const Failing failing(what);
    Variables variables;
    create_variables(graph, variables, 1);
    const Program program = compile(graph, variables, options_for("cuda"));
    variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
    const auto scratch = [&] { return program.memory().lane_scratch_bytes; };
    std::size_t most = 0, at_choice = 0;
    // Three runs are under way at a time, and the last but one of three ends the choice.
    program.run(inputs);
    for (int round = 0; round < 7; ++round) {
      std::vector<Tensor> losses;
      std::vector<PendingRun> begun;
      for (int run = 0; run < 3; ++run) {
        std::vector<void*> outputs;
        for (const auto& [name, spec] : program.outputs())
          outputs.push_back(losses.emplace_back(spec).mutable_raw());
        begun.push_back(program.begin(arrays, outputs));
      }
      for (PendingRun& run : begun) {
        run.wait();
        most = std::max(most, scratch());
        if (at_choice == 0 && program.recording().find("turns") == std::string::npos)
          at_choice = scratch();
      }
    }
    CHECK(most > 0);
    CHECK(at_choice == most);
    CHECK(scratch() == (*what == '\0' ? most : 0));
    const LanesTraining expected = train("cuda", 22);
    CHECK(test::same_bits(variables, expected.variables));
  }
}

TEST_CASE("cuda lanes: without memory for the scratch of several it is one, and that is told") {
  if (!testing::is_emulated()) return;
  for (const char* const count : {"", "3"}) {
    const Lanes lanes(count);
    const std::string told = train("cuda", 2, DType::kFloat32, true).recording;
    CHECK(
        told.starts_with("recorded on one lane; not on several lanes: compile: device 'cuda:0' "));
    CHECK(told.find("not enough memory") != std::string::npos);
  }
}

TEST_CASE("cuda lanes: a number of lanes that there is not is refused") {
  for (const char* const count : {"0", "4", "two", "22"}) {
    const Lanes lanes(count);
    CHECK_THROWS_WITH_AS(train("cuda", 1), doctest::Contains("expected a number from 1 to 3"),
                         ArgumentError);
  }
}

}  // namespace
}  // namespace pycnn
