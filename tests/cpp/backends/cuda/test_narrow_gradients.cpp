// Gradients that are made in 16 bits, as by cuDNN, and that updates read so.
#include <string>

#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"
#include "support/variable.h"

namespace pycnn {
namespace {

using testing::bytes_of;
using testing::options_for;
using testing::Results;

constexpr std::int64_t kBatch = 2;

// Convolutions with and without a bias, of which `channels` make one large (2^20 weights and more),
// a batch norm and a dense layer.
Graph conv_net(std::int64_t channels) {
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.input("x", {{kBatch, 5, 4, 3}});
  h = net.relu(net.norm(net.conv(h, "stem", 9, 3, false), "bn"));
  h = net.relu(net.conv(h, "wide", channels, 3));
  h = net.relu(net.conv(h, "last", 7, 3));
  h = graph.add(ops::Reshape{{kBatch, -1}}, {h}, "flatten");
  const Symbol y = graph.input("y", {{kBatch}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {net.dense(h, "fc", 5), y}));
  return graph;
}
// Of all convolutions.
std::int64_t weights_of(std::int64_t channels) {
  return 9 * 9 * 3 + channels * 9 * 9 + 7 * 9 * channels;
}

Results data(std::uint64_t seed) {
  return {{"x", test::random_tensor({kBatch, 5, 4, 3}, seed)}, {"y", test::labels(kBatch, 5)}};
}

CompileOptions options_of(DType dtype, Optimizer::Kind kind = Optimizer::Kind::kSgd) {
  CompileOptions options = options_for("cuda");
  options.dtype = dtype;
  options.optimizer->kind = kind;
  options.optimizer->clip_norm.reset();
  return options;
}

// By pinned gradients, which are widened where they are made.
CompileOptions widened(CompileOptions options) {
  options.variants["conv2d_grad_weight"] = "conv2d_grad_weight.cudnn";
  return options;
}

int launches_of(const Program& program) {
  program.run(data(1));
  const testing::Calls calls;
  program.run(data(2));
  return calls.count("launch");
}

// A pass for each convolution, and of its numbers 2 bytes each that are written and read, by the
// update and that many more.
void expect_spared(const Program& kept, const Program& each, std::int64_t weights,
                   std::int64_t readers = 1) {
  CHECK(launches_of(kept) == launches_of(each) - 3);
  CHECK(bytes_of(kept) == bytes_of(each) - 2 * (1 + readers) * weights);
}

TEST_CASE("cuda narrow gradients: the bits of gradients that are widened before the update") {
  if (!testing::is_emulated()) return;  // a GPU's libraries choose
  const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
  const Graph graph = conv_net(24);
  for (const Optimizer::Kind kind :
       {Optimizer::Kind::kSgd, Optimizer::Kind::kAdam, Optimizer::Kind::kAdamW}) {
    const CompileOptions options = options_of(DType::kBFloat16, kind);
    const testing::EachWay kept(graph, options);
    const test::Compiled each(graph, widened(options));
    kept.expect_bits_of(each, 3, data);
    expect_spared(kept.program(), each.program, weights_of(24));
    CHECK(kept.program().explain().find("conv2d_grad_weight.cudnn") != std::string::npos);
  }
}

TEST_CASE("cuda narrow gradients: of as many weights as have an update of their own") {
  if (!testing::is_emulated()) return;
  const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
  constexpr std::int64_t kChannels = 12960;  // 12960 * 81 > 2^20
  const Graph graph = conv_net(kChannels);
  const CompileOptions options = options_of(DType::kBFloat16);
  const test::Compiled kept(graph, options), each(graph, widened(options));
  CHECK(test::same_bits(kept.program.run(data(0)), each.program.run(data(0))));
  CHECK(test::same_bits(kept.variables, each.variables));
  CHECK(bytes_of(kept.program) == bytes_of(each.program) - 4 * weights_of(kChannels));
}

TEST_CASE("cuda narrow gradients: without a state, with nesterov and decay") {
  if (!testing::is_emulated()) return;
  const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
  CompileOptions options = options_of(DType::kBFloat16);
  SUBCASE("without a state") { options.optimizer->momentum = 0.0; }
  SUBCASE("nesterov") {
    options.optimizer->nesterov = true;
    options.optimizer->weight_decay = 0.1;
  }
  const Graph graph = conv_net(24);
  const test::Compiled kept(graph, options), each(graph, widened(options));
  for (std::uint64_t step = 0; step < 3; ++step)
    CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
  CHECK(test::same_bits(kept.variables, each.variables));
  expect_spared(kept.program, each.program, weights_of(24));
}

TEST_CASE("cuda narrow gradients: the norm of all gradients is that of 16 bits, too") {
  if (!testing::is_emulated()) return;
  const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
  CompileOptions options = options_of(DType::kBFloat16);
  SUBCASE("clipped") { options.optimizer->clip_norm = 0.01; }
  SUBCASE("clipped, by Adam") {
    options.optimizer->clip_norm = 0.01;
    options.optimizer->kind = Optimizer::Kind::kAdam;
  }
  // A step that overflows changes nothing: the norm tells.
  SUBCASE("float16") { options.dtype = DType::kFloat16; }
  SUBCASE("float16, clipped") {
    options.dtype = DType::kFloat16;
    options.optimizer->clip_norm = 0.01;
  }
  const Graph graph = conv_net(24);
  const test::Compiled kept(graph, options), each(graph, widened(options));
  for (std::uint64_t step = 0; step < 3; ++step)
    CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
  CHECK(test::same_bits(kept.variables, each.variables));
  expect_spared(kept.program, each.program, weights_of(24), 2);
}

// By our own kernels in a library's place, whose results are rounded as cuDNN's are.
TEST_CASE("cuda narrow gradients: those of rewritten convolutions are mapped back in 16 bits") {
  if (!testing::is_emulated()) return;
  const testing::Variable rewritten("PYCNN_EMULATED_REWRITE", "0");
  const Graph graph = conv_net(24);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16})
    for (const bool clipped : {false, true}) {
      const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
      CompileOptions options = options_of(dtype);
      if (clipped) options.optimizer->clip_norm = 0.01;
      const test::Compiled kept(graph, options), each(graph, widened(options));
      CHECK(kept.program.explain().find("conv2d_grad_weight.cudnn+") != std::string::npos);
      for (std::uint64_t step = 0; step < 3; ++step)
        CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
      CHECK(test::same_bits(kept.variables, each.variables));
      // What maps them back widens them, where that is wanted.
      CHECK(launches_of(kept.program) == launches_of(each.program));
      const bool has_norm = clipped || dtype == DType::kFloat16;
      CHECK(bytes_of(kept.program) == bytes_of(each.program) - (has_norm ? 6 : 4) * weights_of(24));
    }
}

TEST_CASE("cuda narrow gradients: on their way back they are widened as they were rounded") {
  if (!testing::is_emulated()) return;
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16})
    for (int rewrite = 0; rewrite < 2; ++rewrite)
      for (const std::int64_t groups : {1, 4}) {
        CAPTURE(rewrite);
        CAPTURE(groups);
        const testing::Variable number("PYCNN_EMULATED_REWRITE", std::to_string(rewrite).c_str());
        ops::Conv2d conv = testing::conv({2, 2}, {1, 1, 1, 1}, {1, 1}, groups);
        const std::int64_t in = groups == 1 ? 3 : 16, out = groups == 1 ? 10 : 16;
        auto op = testing::gradient_of<ops::Conv2dGradWeight>(conv);
        op.kernel_size = {3, 3};
        op.bias = true;
        const testing::Tensors inputs = {testing::random_tensor({2, 9, 8, in}, 1, -2, 2, dtype),
                                         testing::random_tensor({2, 5, 4, out}, 2, -2, 2, dtype)};
        testing::OnDevice how;
        how.pinned = "";
        Kernel kernel;
        const std::vector<TensorSpec> outputs = op.infer(testing::specs_of(inputs));
        testing::Tensors expected = testing::run_on_device(op, inputs, outputs, how, kernel);
        const bool is_rewritten = std::string(kernel.variant).find('+') != std::string::npos;
        if (!is_rewritten) continue;
        testing::HostTensor rounded(TensorSpec{outputs[0].shape, dtype});
        for (std::size_t i = 0; i < rounded.size(); ++i) {
          rounded.set(i, expected[0][i]);
          expected[0].set(i, rounded[i]);
        }
        CHECK(!kernel.widened_from);
        const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
        CHECK(
            testing::same_bits(testing::run_on_device(op, inputs, outputs, how, kernel), expected));
        CHECK(kernel.widened_from == dtype);
      }
}

TEST_CASE("cuda narrow gradients: they are widened where another step reads them") {
  if (!testing::is_emulated()) return;
  const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
  CompileOptions options = options_of(DType::kBFloat16);
  SUBCASE("a norm that is pinned") {
    options.optimizer->clip_norm = 5.0;
    options.variants["clip_factor"] = "reference";
  }
  SUBCASE("Muon") { options.optimizer->kind = Optimizer::Kind::kMuon; }
  SUBCASE("float32") { options.dtype = DType::kFloat32; }
  SUBCASE("pinned updates") { options.variants["sgd_update"] = "reference"; }
  SUBCASE("not fused") { options.fuse = false; }
  const Graph graph = conv_net(24);
  const test::Compiled kept(graph, options);
  if (options.dtype != DType::kFloat32) options = widened(options);
  const test::Compiled each(graph, options);
  CHECK(bytes_of(kept.program) == bytes_of(each.program));
  for (std::uint64_t step = 0; step < 3; ++step)
    CHECK(test::same_bits(kept.program.run(data(step)), each.program.run(data(step))));
  CHECK(test::same_bits(kept.variables, each.variables));
}

TEST_CASE("cuda narrow gradients: a step of float16 that overflows changes nothing") {
  if (!testing::is_emulated()) return;
  const testing::Variable narrow("PYCNN_EMULATED_NARROW", "1");
  const CompileOptions options = options_of(DType::kFloat16);
  const Graph graph = conv_net(24);
  test::Compiled net(graph, options);
  net.program.run(data(1));
  net.variables.at("train.loss_scale").mutable_data<float>()[0] = 0x1p24f;
  const Variables before = test::clone(net.variables);
  net.program.run(data(2));
  CHECK(*net.variables.at("train.loss_scale").data<float>() == 0x1p23f);
  for (const auto& [name, tensor] : net.variables) {
    CAPTURE(name);
    if (name != "train.loss_scale" && name != "train.good_steps")
      CHECK(test::same_bits(tensor, before.at(name)));
  }
}

}  // namespace
}  // namespace pycnn
