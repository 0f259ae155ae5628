// Updates that write the weights of the next step in 16 bits.
#include <algorithm>
#include <string>

#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"
#include "pycnn/checkpoint.h"

namespace pycnn {
namespace {

using testing::bytes_of;
using testing::options_for;
using testing::Results;

constexpr std::int64_t kBatch = 4;

// A convolution of few channels, whose weights are padded, one whose weights are not, and dense
// layers, of which one is large.
Graph mixed_net(std::int64_t units) {
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.input("x", {{kBatch, 6, 6, 3}});
  h = net.relu(net.norm(net.conv(h, "stem", 16, 3, false), "bn"));
  h = net.relu(net.conv(h, "conv", 24, 3));
  h = graph.add(ops::Reshape{{kBatch, -1}}, {h}, "flatten");
  h = net.relu(net.dense(h, "fc1", units));
  const Symbol y = graph.input("y", {{kBatch}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc2", 5), y}));
  return graph;
}

Results data(std::uint64_t seed) {
  return {{"x", test::random_tensor({kBatch, 6, 6, 3}, seed)}, {"y", test::labels(kBatch, 5)}};
}

std::vector<StepProfile> steps_of(const Program& program, const std::string& op,
                                  const std::string& phase) {
  std::vector<StepProfile> found;
  for (const StepProfile& step : program.steps())
    if (step.op == op && step.phase == phase) found.push_back(step);
  return found;
}

// By pinned updates, which round nothing.
CompileOptions apart(CompileOptions options) {
  for (const char* op : {"sgd_update", "adam_update"}) options.variants[op] = "reference";
  return options;
}

TEST_CASE("cuda kept roundings: the bits of weights that are rounded in each step") {
  for (const std::int64_t units : {32, 1248}) {  // 864 inputs: more than 2^20 weights
    const Graph graph = mixed_net(units);
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16})
      for (const Optimizer::Kind kind :
           {Optimizer::Kind::kSgd, Optimizer::Kind::kAdamW, Optimizer::Kind::kMuon}) {
        if (units > 32 && kind == Optimizer::Kind::kMuon) continue;  // takes long
        CompileOptions options = options_for("cuda");
        options.dtype = dtype;
        options.optimizer->kind = kind;
        const testing::EachWay kept(graph, options);
        const test::Compiled each(graph, apart(options));
        kept.expect_bits_of(each, 4, data);
        if (kind == Optimizer::Kind::kMuon) continue;
        // conv, fc1 and fc2 forwards; the rest is turned or padded.
        CHECK(steps_of(kept.program(), "pack", "prepare").size() == 3);
        CHECK(steps_of(each.program, "pack", "prepare").empty());
        // Weights are read no more for this alone; joined updates read rate and step once, too.
        const std::int64_t weights = 24 * 3 * 3 * 16 + 864 * units + units * 5;
        const std::int64_t fewer = bytes_of(each.program) - bytes_of(kept.program());
        CHECK(fewer >= 4 * weights);
        CHECK(fewer < 4 * weights + 256);
        const std::string text = kept.program().explain();
        CHECK(text.find("prepare, when a variable has changed") != std::string::npos);
      }
  }
}

TEST_CASE("cuda kept roundings: SGD without a state, nesterov, and steps one by one") {
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  SUBCASE("without a state") { options.optimizer->momentum = 0.0; }
  SUBCASE("nor a limit") {
    options.optimizer->momentum = 0.0;
    options.optimizer->clip_norm.reset();
    options.optimizer->ema_decay.reset();
  }
  SUBCASE("nesterov") { options.optimizer->nesterov = true; }
  const test::Compiled kept(graph, options), each(graph, apart(options));
  CHECK(steps_of(kept.program, "pack", "prepare").size() == 3);
  for (std::uint64_t step = 0; step < 3; ++step) {
    kept.program.run(data(step));
    each.program.run(data(step));
  }
  CHECK(test::same_bits(kept.variables, each.variables));
  // Without fusion each step packs.
  options.fuse = false;
  CHECK(steps_of(test::Compiled(graph, options).program, "pack", "prepare").empty());
}

TEST_CASE("cuda kept roundings: whoever writes a weight in between is seen") {
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  test::Compiled kept(graph, options), each(graph, apart(options));
  // Another program of the same variables.
  const Program other = compile(graph, kept.variables, options),
                other_each = compile(graph, each.variables, apart(options));
  const auto both = [&](const Program& a, const Program& b, std::uint64_t seed) {
    CHECK(test::same_bits(a.run(data(seed)), b.run(data(seed))));
  };
  both(kept.program, each.program, 1);
  both(other, other_each, 2);
  both(kept.program, each.program, 3);
  both(kept.program, each.program, 4);
  for (test::Compiled* one : {&kept, &each})
    fill(one->variables.at("fc1.weight"), {Initializer::Kind::kUniform, -0.1, 0.1}, 5, 6);
  both(kept.program, each.program, 5);
  both(other, other_each, 6);
  CHECK(test::same_bits(kept.variables, each.variables));
}

TEST_CASE("cuda kept roundings: a steady step prepares nothing") {
  if (!testing::is_emulated()) return;
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  const test::Compiled kept(graph, options);
  std::vector<int> launches;
  for (std::uint64_t step = 0; step < 3; ++step) {
    const testing::Calls calls;
    kept.program.run(data(step));
    launches.push_back(calls.count("launch"));
  }
  // One for each weight that is kept, and one for the number with which gradients begin.
  CHECK(launches[0] == launches[1] + 4);
  CHECK(launches[1] == launches[2]);
  kept.program.start_profile();
  kept.program.run(data(4));
  kept.program.run(data(5));
  for (const StepProfile& step : kept.program.profile()) {
    CAPTURE(step.name);
    CHECK(step.runs == (step.phase == "run" ? 2 : 0));
  }
}

// Weights that steps of `prepare` packed since the profile began, by layer.
std::map<std::string, std::int64_t> prepared_of(const Program& program) {
  std::map<std::string, std::int64_t> runs;
  for (const StepProfile& step : program.profile())
    if (step.phase == "prepare" && step.op == "pack" && step.runs > 0) runs[step.name] += step.runs;
  return runs;
}

using Prepared = std::map<std::string, std::int64_t>;

TEST_CASE("cuda kept roundings: of one weight that somebody wrote only that is rounded anew") {
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  test::Compiled kept(graph, options), each(graph, apart(options));
  std::uint64_t step = 0;
  const auto prepared_by_a_step = [&] {
    ++step;
    kept.program.start_profile();
    CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
    return prepared_of(kept.program);
  };
  const Prepared all = prepared_by_a_step();
  if (testing::is_emulated()) CHECK(all == Prepared{{"conv", 1}, {"fc1", 1}, {"fc2", 1}});
  CHECK(all.size() > 1);
  for (const std::string layer : {"fc1", "stem", "conv", "bn", "fc2"}) {
    CAPTURE(layer);
    for (test::Compiled* one : {&kept, &each})
      one->variables.at(layer + ".weight").mutable_data<float>()[3] += 0.25f;
    CHECK(prepared_by_a_step() == (all.contains(layer) ? Prepared{{layer, 1}} : Prepared{}));
    CHECK(prepared_by_a_step().empty());
  }
  for (test::Compiled* one : {&kept, &each})
    for (const char* name : {"conv.weight", "fc2.weight"})
      one->variables.at(name).mutable_data<float>()[1] = 0.5f;
  CHECK(prepared_by_a_step().size() == all.count("conv") + all.count("fc2"));
  CHECK(test::same_bits(kept.variables, each.variables));
}

TEST_CASE("cuda kept roundings: a step of float16 that overflows leaves weights and roundings") {
  const Graph graph = mixed_net(32);
  for (const Optimizer::Kind kind : {Optimizer::Kind::kSgd, Optimizer::Kind::kAdamW})
    for (const bool reuse : {true, false}) {
      CompileOptions options = options_for("cuda");
      options.dtype = DType::kFloat16;
      options.optimizer->kind = kind;
      options.reuse_memory = reuse;
      test::Compiled kept(graph, options), each(graph, apart(options));
      const auto both = [&](std::uint64_t seed) {
        CHECK(test::same_bits(kept.program.run(data(seed)), each.program.run(data(seed))));
      };
      const auto scale_by = [&](float scale) {
        for (test::Compiled* one : {&kept, &each})
          one->variables.at("train.loss_scale").mutable_data<float>()[0] = scale;
      };
      scale_by(1024.0f);
      both(1);
      both(2);
      scale_by(0x1p24f);
      const Variables before = test::clone(kept.variables);
      both(3);
      CHECK(*kept.variables.at("train.loss_scale").data<float>() == 0x1p23f);
      for (const auto& [name, tensor] : kept.variables) {
        CAPTURE(name);
        if (name != "train.loss_scale" && name != "train.good_steps")
          CHECK(test::same_bits(tensor, before.at(name)));
      }
      scale_by(1024.0f);
      kept.program.start_profile();
      both(4);
      both(5);
      CHECK(prepared_of(kept.program).empty());
      CHECK_FALSE(test::same_bits(kept.variables.at("fc1.weight"), before.at("fc1.weight")));
      CHECK(test::same_bits(kept.variables, each.variables));
    }
}

TEST_CASE("cuda kept roundings: an evaluation between steps sees the weights and writes none") {
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  test::Compiled kept(graph, options), each(graph, apart(options));
  CompileOptions inference;
  inference.device = options.device;
  inference.dtype = options.dtype;
  const Program sees = compile(graph, kept.variables, inference),
                sees_each = compile(graph, each.variables, inference);
  for (std::uint64_t step = 1; step < 4; ++step) {
    if (step > 1) kept.program.start_profile();
    CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
    if (step > 1) CHECK(prepared_of(kept.program).empty());
    const Results seen = sees.run(data(9));
    CHECK(test::same_bits(seen, sees_each.run(data(9))));
    if (testing::is_emulated())
      CHECK(test::same_bits(seen, compile(graph, kept.variables, inference).run(data(9))));
  }
  CHECK(test::same_bits(kept.variables, each.variables));
}

TEST_CASE("cuda kept roundings: a checkpoint that is loaded between steps is trained on") {
  const TemporaryDirectory directory;
  const std::string path = (directory / "step.safetensors").string();
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  test::Compiled kept(graph, options);
  kept.program.run(data(1));
  write_checkpoint(path, {kept.variables, {}});
  const Results second = kept.program.run(data(2)), third = kept.program.run(data(3));
  const Checkpoint saved = read_checkpoint(path);
  REQUIRE(saved.tensors.size() == kept.variables.size());
  for (const auto& [name, tensor] : saved.tensors)
    std::memcpy(kept.variables.at(name).overwrite(), tensor.raw(), tensor.bytes());
  CHECK(test::same_bits(kept.program.run(data(2)), second));
  CHECK(test::same_bits(kept.program.run(data(3)), third));
}

TEST_CASE("cuda kept roundings: a weight of two layers is rounded once for both") {
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.add(ops::Reshape{{kBatch, -1}}, {graph.input("x", {{kBatch, 6, 6, 3}})});
  h = net.relu(net.dense(h, "fc", 24));
  const Symbol weight = graph.parameter("shared.weight", {{24, 24}}, test::uniform(0.2));
  for (const char* const name : {"first", "second"})
    h = net.relu(graph.add(ops::Dense{}, {h, weight}, name));
  const Symbol y = graph.input("y", {{kBatch}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "out", 5), y}));
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    CompileOptions options = options_for("cuda");
    options.dtype = dtype;
    test::Compiled kept(graph, options), each(graph, apart(options));
    // Rows of 108 numbers are padded.
    if (testing::is_emulated()) CHECK(steps_of(kept.program, "pack", "prepare").size() == 2);
    for (std::uint64_t step = 0; step < 4; ++step) {
      if (step == 2)
        for (test::Compiled* one : {&kept, &each})
          one->variables.at("shared.weight").mutable_data<float>()[7] = -0.5f;
      CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
    }
    CHECK(test::same_bits(kept.variables, each.variables));
  }
}

// Folded weights lie where others were meanwhile, so that their steps belong together.
TEST_CASE("cuda prepared weights: those of a folded net follow each weight that somebody writes") {
  if (!testing::is_emulated()) return;  // a GPU's may be other kernels each time
  const Graph graph = test::small_net(2, false);
  CompileOptions options;
  testing::cuda_module();
  options.device = "cuda";
  const Results input = {{"x", test::random_tensor({2, 8, 8, 2}, 1)}};
  for (const bool reuse : {true, false}) {
    options.reuse_memory = reuse;
    test::Compiled net(graph, options);
    net.program.run(input);
    for (const auto& [name, tensor] : Variables(net.variables)) {
      CAPTURE(name);
      Tensor written = tensor;
      written.mutable_data<float>()[0] += 0.25f;
      CHECK(test::same_bits(net.program.run(input),
                            compile(graph, net.variables, options).run(input)));
    }
  }
}

TEST_CASE("cuda kept roundings: after a step that failed the weights are rounded anew") {
  if (!testing::is_emulated()) return;
  const Graph graph = mixed_net(32);
  CompileOptions options = options_for("cuda");
  options.dtype = DType::kBFloat16;
  const test::Compiled kept(graph, options), each(graph, apart(options));
  for (const test::Compiled* one : {&kept, &each}) {
    one->program.run(data(1));
    // Where the host has all values, the step can be repeated; its roundings are a step further.
    for (const auto& [name, tensor] : one->variables) (void)tensor.raw();
    {
      const testing::Failing failing("wait");
      CHECK_THROWS_AS(one->program.run(data(2)), DeviceError);
    }
    one->program.run(data(3));
    one->program.run(data(4));
  }
  CHECK(test::same_bits(kept.variables, each.variables));
}

}  // namespace
}  // namespace pycnn
