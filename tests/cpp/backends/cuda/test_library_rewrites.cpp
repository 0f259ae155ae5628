// How plans for what a convolution can be rewritten to race those for itself, and what of them
// runs.
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

TEST_CASE("library kernel: rewrites are timed with what moves images and weights") {
  const Choices choices;
  Found found = choices.find(stem(next_images()));
  CHECK(found.rewrite == kBlocksName);
  CHECK(found.plan == "blocks");
  CHECK(moves.gathers > 0);
  CHECK(moves.finishes + moves.scatters + moves.unpacks == 0);
  moves.gather_us = 90.5;  // and 10 are more than 100
  found = choices.find(stem(next_images()));
  CHECK(found.rewrite.empty());
  CHECK(found.plan == "plain");
  moves.gather_us = 89.5;
  CHECK(choices.find(stem(next_images())).plan == "blocks");
  // Weights are packed once, and their gradients unpacked each time.
  moves = {};
  moves.pack_us = 1000.0;
  ConvTask task = stem(next_images());
  for (const Direction direction : {Direction::kForward, Direction::kGradInput}) {
    task.direction = direction;
    CHECK(choices.find(task).plan == "blocks");
  }
  CHECK(moves.packs == 2);  // to see that they are right
  task.direction = Direction::kGradWeight;
  moves.pack_us = 88.5;  // 10 + 1 + 88.5 are less than 100
  CHECK(choices.find(task).plan == "blocks");
  moves.pack_us = 89.5;
  task.shape.images = next_images();
  CHECK(choices.find(task).plan == "plain");
  own_us = 5.0;
  found = choices.find(stem(next_images()));
  CHECK(found.plan.empty());
  CHECK(found.why == kOwnWasFaster);
}

TEST_CASE("library kernel: each direction moves what it has to") {
  const Choices choices;
  ConvTask task = stem(next_images());
  task.shape.out_channels = 6;  // padded to 8
  task.bias = true;
  Fake::scripts = {{kBlocks, {{"blocks", 10.0}}}};
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.gathers > 0);
  CHECK(moves.finishes == moves.gathers);
  CHECK(moves.packs == 1);
  CHECK(moves.scatters + moves.unpacks == 0);
  moves = {};
  task.bias = false;
  task.direction = Direction::kGradInput;
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.scatters > 0);
  CHECK(moves.gathers == moves.scatters);  // the gradient of the result
  CHECK(moves.packs == 1);
  CHECK(moves.finishes + moves.unpacks == 0);
  moves = {};
  task.direction = Direction::kGradWeight;
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.unpacks > 0);
  CHECK(moves.gathers == 2 * moves.unpacks);
  CHECK(moves.packs + moves.scatters + moves.finishes == 0);
}

TEST_CASE("library kernel: who makes a gradient in 16 bits and widens it behind says so") {
  const Choices choices;
  ops::Conv2dGradWeight op;
  op.kernel_size = {3, 3};
  op.padding = {1, 1, 1, 1};
  const auto choose = [&](std::int64_t channels, std::string_view pinned = {}) {
    const std::int64_t images = next_images();
    const std::vector<TensorSpec> inputs = {{{images, 12, 12, channels}, DType::kBFloat16},
                                            {{images, 12, 12, 8}, DType::kBFloat16}};
    const std::vector<TensorSpec> outputs = {{{8, 3, 3, channels}, DType::kFloat32}};
    Problem problem;
    problem.inputs = inputs;
    problem.outputs = outputs;
    problem.pinned = pinned;
    const Choice choice = choose_library<Fake>(0, op, problem);
    const bool taken = choice.run != nullptr;
    REQUIRE(taken);
    return choice.widened_from;
  };
  Fake::scripts = {{16, {{"narrow", 10.0}}}, {kPadded, {{"narrow too", 10.0}}}};
  CHECK(choose(16) == DType::kBFloat16);
  CHECK_FALSE(choose(16, "conv2d_grad_weight.cudnn").has_value());
  // Also where it is mapped back behind.
  CHECK(choose(kPlain) == DType::kBFloat16);
  CHECK_FALSE(choose(kPlain, "conv2d_grad_weight.cudnn").has_value());
  Fake::scripts = {{16, {{"wide", 10.0}}}};
  CHECK_FALSE(choose(16).has_value());
}

TEST_CASE("library kernel: a rewrite that is refused or fails leaves the choice to the others") {
  const Choices choices;
  Fake::scripts[kBlocks].clear();
  Found found = choices.find(stem(next_images()));
  CHECK(found.rewrite == "paddedc8k8");
  CHECK(found.plan == "padded");
  Fake::scripts[kBlocks] = {{"blocks", 10.0, true}};
  CHECK(choices.find(stem(next_images())).plan == "padded");
  Fake::scripts[kPadded] = {{"padded", 1.0, true}};
  found = choices.find(stem(next_images()));
  CHECK(found.rewrite.empty());
  CHECK(found.plan == "plain");
  Fake::scripts.clear();
  found = choices.find(stem(next_images()));
  CHECK(found.plan.empty());
  CHECK(found.why == Fake::kNoPlan);
}

TEST_CASE("library kernel: a rewritten convolution's kernel packs weights once and moves images") {
  const Choices choices;
  const std::vector<TensorSpec> inputs = {{{next_images(), 12, 12, 3}, DType::kBFloat16},
                                          {{8, 7, 7, 3}, DType::kFloat32}};
  ops::Conv2d conv;
  conv.stride = {2, 2};
  conv.padding = {3, 3, 3, 3};
  Fake::scripts[kBlocks] = {{"blocks", 10.0, false, 1000}};
  const std::vector<TensorSpec> outputs = {{{inputs[0].shape[0], 6, 6, 8}, DType::kBFloat16}};
  Problem problem;
  problem.inputs = inputs;
  problem.outputs = outputs;
  const Choice choice = choose_library<Fake>(0, conv, problem);
  const bool taken = choice.run != nullptr;
  REQUIRE(taken);
  CHECK(std::string(choice.variant) == "conv2d.cudnn+blocks2x2c16k8");
  CHECK(std::string(choice.left_out).empty());
  Fake::missing = "no compiler";
  CHECK(std::string(choose_library<Fake>(0, conv, problem).left_out) == "no compiler");
  Fake::scripts.clear();
  const std::vector<TensorSpec> others = {{{next_images(), 12, 12, 3}, DType::kBFloat16},
                                          inputs[1]};
  problem.inputs = others;
  CHECK(std::string(choose_library<Fake>(0, conv, problem).refusal) ==
        std::string(Fake::kNoPlan) + "; no compiler");
  Fake::missing.clear();
  CHECK(choice.strided_inputs + choice.strided_outputs == 0);
  CHECK(choice.alignment == 16);
  CHECK(choice.packed.input == 1);
  CHECK(choice.packed.bytes == 8 * 4 * 4 * 16 * 2);
  CHECK(std::string(choice.packed.format) == "weights1+blocks2x2c16k8");
  const auto images = static_cast<std::size_t>(inputs[0].shape[0]);
  // Weights are packed elsewhere.
  CHECK(choice.scratch_bytes == (images * 9 * 9 * 16 * 2 + 255) / 256 * 256 + 1000);
  moves = {};
  Fake::runs = 0;
  DeviceQueue queue;
  Op op = conv;
  std::vector<std::byte> scratch(choice.scratch_bytes), data(1);
  std::vector<std::uint16_t> result(images * 6 * 6 * 8);
  const std::vector<TensorView> in = {{data.data(), &inputs[0], 0}, {data.data(), &inputs[1], 0}};
  const TensorView out{result.data(), outputs.data(), 0};
  DeviceKernelArgs args;
  args.op = &op;
  args.inputs = std::span(in).subspan(1);
  args.outputs = {&out, 1};
  args.queue = &queue;
  args.state = choice.packed.state.get();
  choice.packed.pack(args);
  CHECK(moves.packs == 1);
  args.state = choice.state.get();
  args.inputs = in;
  args.scratch = scratch.data();
  choice.run(args);
  CHECK(Fake::runs == 1);
  CHECK(moves.gathers == 1);
  CHECK(moves.packs == 1);
  CHECK(!queue.failed());
}

}  // namespace
}  // namespace pycnn::cuda
