// The signs of a ReLU's result: whether kernels write them, and write the right ones; whether those
// that may read them do; and whether a training that keeps them has the bits of one that does not.
#include <algorithm>
#include <string>

#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

namespace pycnn {
namespace {

using testing::HostTensor;
using testing::OnDevice;
using testing::random_tensor;
using testing::same_bits;
using testing::Tensors;

// Of a tensor as it is stored.
HostTensor signs_of(const HostTensor& values) {
  Shape shape = values.spec.shape;
  shape.back() /= 8;
  HostTensor signs(TensorSpec{shape, DType::kUInt8});
  for (std::size_t i = 0; i < signs.size(); ++i) {
    int bits = 0;
    for (std::size_t bit = 0; bit < 8; ++bit) bits |= (values[8 * i + bit] <= 0.0 ? 0 : 1) << bit;
    signs.set(i, bits);
  }
  return signs;
}

Tensors run(const Op& op, const Tensors& inputs, const OnDevice& how = {}) {
  Kernel kernel;
  return testing::run_on_device(op, inputs, infer(op, testing::specs_of(inputs)), how, kernel);
}

TEST_CASE("cuda signs: a batch norm writes those of what it stores, and stores the same") {
  for (const DType dtype : testing::kImages)
    for (const Shape& shape : {Shape{2, 3, 3, 8}, Shape{300, 24}, Shape{37, 72}}) {
      const std::int64_t c = shape.back();
      HostTensor x = random_tensor(shape, 1, -2, 2, dtype);
      // Half of them are closed, some are NaN, some so small that a type of 16 bits has zero.
      x.set(3, testing::kNaN);
      const HostTensor residual = random_tensor(shape, 2, -2, 2, dtype);
      const auto vector = [&](std::uint64_t seed) { return random_tensor({c}, seed, -2, 2); };
      HostTensor factor = vector(4), offset = vector(5);
      factor.set(1, 0.0);
      offset.set(1, 1e-9);
      for (const std::size_t more : {0, 1, 4}) {
        ops::BatchNormApply op;
        op.epilogue = {more > 0, ActivationKind::kRelu, 0.01};
        Tensors inputs = {x, vector(3), factor, offset};
        const Tensors others = {residual, vector(6), vector(7), vector(8)};
        inputs.insert(inputs.end(), others.begin(), others.begin() + static_cast<int>(more));
        const Tensors plain = run(op, inputs);
        op.epilogue.signs = true;
        const std::vector<TensorSpec> outputs = op.infer(testing::specs_of(inputs));
        const Tensors expected = {plain[0], signs_of(plain[0])};
        Kernel kernel;
        const auto check = [&](const OnDevice& how) {
          CHECK(same_bits(testing::run_on_device(op, inputs, outputs, how, kernel), expected));
        };
        check({});
        check({testing::other_device()});
        REQUIRE(kernel.in_place.size() == 1);
        for (const int input : {0, 4})
          if ((kernel.in_place[0] >> input & 1u) != 0) check({0, 0, input});
        // Parts of larger images, of whole vectors and of none; the signs follow one another.
        CHECK(kernel.strided_outputs == 1);
        for (const int gap : {8, 3}) {
          OnDevice how;
          how.gap = gap;
          how.apart_inputs = kernel.strided_inputs;
          how.apart_outputs = kernel.strided_outputs;
          check(how);
        }
        OnDevice shifted;
        shifted.shift = 1;
        check(shifted);
      }
    }
}

TEST_CASE("cuda signs: without them, nothing else is written, and odd channels have none") {
  const HostTensor x = random_tensor({5, 8}, 1), c = random_tensor({8}, 2);
  ops::BatchNormApply op;
  op.epilogue.activation = ActivationKind::kRelu;
  CHECK(op.infer(testing::specs_of({x, c, c, c})).size() == 1);
  op.epilogue.signs = true;
  const HostTensor odd = random_tensor({5, 12}, 1), d = random_tensor({12}, 2);
  CHECK_THROWS_AS(op.infer(testing::specs_of({odd, d, d, d})), ShapeError);
}

// Inputs of a gradient that is finished: the ReLU's result, the signs where they are wanted.
struct Gradient {
  ops::Conv2dGradInput op;
  Tensors before, behind;
  HostTensor gate;

  Gradient(const ops::Conv2d& conv, const Shape& input, const Shape& weight, DType dtype,
           bool residual, bool sums)
      : op(testing::gradient_of<ops::Conv2dGradInput>(conv)),
        gate(random_tensor(input, 1, -2, 2, dtype)) {
    const auto image = [&](const Shape& shape, std::uint64_t seed) {
      return random_tensor(shape, seed, -2, 2, dtype);
    };
    gate.set(7, testing::kNaN);
    for (std::size_t i = 0; i < gate.size(); i += 5) gate.set(i, 0.0);
    const HostTensor w = testing::coarse(weight, 2);
    const Shape output = conv.infer(testing::specs_of({gate, w}))[0].shape;
    op.input_size = {input[1], input[2]};
    op.finish = {residual, true};
    before = {image(output, 3), w};
    if (residual) before.push_back(image(input, 4));
    if (!sums) return;
    op.sums = {true, ActivationKind::kRelu, 0.0};
    behind = {image(input, 5)};
    for (std::uint64_t seed = 6; seed < 9; ++seed)
      behind.push_back(random_tensor({input[3]}, seed));
  }
  Tensors inputs(const Tensors& gates) const {
    Tensors all = before;
    all.insert(all.end(), gates.begin(), gates.end());
    all.insert(all.end(), behind.begin(), behind.end());
    return all;
  }
  Tensors by_gate(const OnDevice& how = {}) const { return run(op, inputs({gate}), how); }
  // The gate itself, where it is looked at, is open everywhere.
  Tensors by_signs(const OnDevice& how = {}) const {
    ops::Conv2dGradInput asked = op;
    asked.finish.signs = true;
    HostTensor open = gate;
    for (std::size_t i = 0; i < open.size(); ++i) open.set(i, 1.0);
    return run(asked, inputs({open, signs_of(gate)}), how);
  }
};

TEST_CASE("cuda signs: a finished gradient reads them and has the bits of the ReLU's result") {
  struct Case {
    ops::Conv2d conv;
    Shape input, weight;
  };
  const Case cases[] = {
      {testing::conv({1, 1}, {1, 1, 1, 1}), {2, 7, 5, 16}, {10, 3, 3, 16}},
      {testing::conv({1, 1}, {0, 0, 0, 0}), {1, 31, 19, 8}, {6, 1, 1, 8}},
      {testing::conv({2, 2}, {1, 1, 1, 1}), {2, 9, 8, 72}, {5, 3, 3, 72}},
      // Channels of a group that begin and end within a byte.
      {testing::conv({1, 1}, {1, 1, 1, 1}, {1, 1}, 8), {1, 6, 7, 24}, {16, 3, 3, 3}},
      {testing::conv({2, 1}, {1, 1, 1, 1}, {1, 1}, 2), {1, 6, 7, 24}, {16, 3, 3, 12}},
  };
  for (const DType dtype : testing::kImages)
    for (const Case& c : cases)
      for (const bool residual : {false, true})
        for (const bool sums : {false, true}) {
          CAPTURE(static_cast<int>(dtype));
          CAPTURE(c.input[3]);
          CAPTURE(residual);
          CAPTURE(sums);
          const Gradient gradient(c.conv, c.input, c.weight, dtype, residual, sums);
          const Tensors expected = gradient.by_gate();
          CHECK(same_bits(gradient.by_signs(), expected));
          CHECK(same_bits(gradient.by_signs({testing::other_device()}), expected));
        }
}

// As behind a library's kernels, whose place our own take.
TEST_CASE("cuda signs: a pass that finishes a gradient reads them, too") {
  if (!testing::is_emulated()) return;
  for (const DType dtype : testing::kImages)
    for (const bool residual : {false, true})
      for (const bool sums : {false, true}) {
        const Gradient gradient(testing::conv({1, 1}, {1, 1, 1, 1}), {1, 31, 19, 8}, {10, 3, 3, 8},
                                dtype, residual, sums);
        const testing::Variable number("PYCNN_EMULATED_REWRITE", "0");
        OnDevice how;
        how.pinned = "";
        Kernel kernel;
        const Tensors inputs = gradient.inputs({gradient.gate});
        const Tensors expected = testing::run_on_device(
            gradient.op, inputs, gradient.op.infer(testing::specs_of(inputs)), how, kernel);
        CHECK(std::string(kernel.variant).find('+') != std::string::npos);
        CHECK(same_bits(gradient.by_signs(how), expected));
      }
}

// ---- Programs

constexpr std::int64_t kBatch = 2;

// Residual blocks of that many channels.
Graph residual_net(std::int64_t channels, bool training = true) {
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.input("x", {{kBatch, 6, 6, 3}});
  h = net.relu(net.norm(net.conv(h, "stem", channels, 3, false), "stem.bn"));
  for (const std::string name : {"one", "two", "three"}) {
    Symbol branch = net.relu(net.norm(net.conv(h, name + ".a", 8, 3, false), name + ".a.bn"));
    branch = net.norm(net.conv(branch, name + ".b", channels, 3, false), name + ".b.bn");
    h = net.relu(graph.add(ops::Add{}, {branch, h}, name + ".add"), name + ".relu");
  }
  h = net.dense(graph.add(ops::GlobalAvgPool2d{}, {h}, "pool"), "fc", 5);
  if (!training) {
    graph.set_output("y", h);
    return graph;
  }
  const Symbol y = graph.input("y", {{kBatch}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}));
  return graph;
}

testing::Results data(std::uint64_t seed) {
  return {{"x", test::random_tensor({kBatch, 6, 6, 3}, seed)}, {"y", test::labels(kBatch, 5)}};
}

int count_of(const std::string& text, const std::string& what) {
  int found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
    ++found;
  return found;
}

// Which ends the text of an epilogue.
constexpr const char* kSigns = ", signs)";

TEST_CASE("cuda signs: a training that keeps them has the bits of one that does not") {
  const Graph graph = residual_net(16);
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16})
    for (const Recompute recompute : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt}) {
      CAPTURE(static_cast<int>(dtype));
      CAPTURE(static_cast<int>(recompute));
      CompileOptions options = testing::options_for("cuda");
      options.dtype = dtype;
      options.recompute = recompute;
      CompileOptions whole = options;
      whole.variants = {{"batch_norm_apply", "reference"}};  // which writes no signs
      const testing::EachWay kept(graph, options);
      const test::Compiled read(graph, whole);
      // Of two blocks, whose results the next ones begin with.
      CHECK(count_of(kept.program().graph_text(), kSigns) == 4);
      CHECK(count_of(read.program.graph_text(), kSigns) == 0);
      kept.expect_bits_of(read, 3, data);
    }
}

TEST_CASE("cuda signs: none of odd channels, without gradients or fusion, or where one is pinned") {
  const auto signs = [](const Graph& graph, const CompileOptions& options) {
    return count_of(test::Compiled(graph, options).program.graph_text(), kSigns);
  };
  const CompileOptions training = testing::options_for("cuda");
  CHECK(signs(residual_net(12), training) == 0);
  CompileOptions inference;
  inference.device = "cuda";
  CHECK(signs(residual_net(16, false), inference) == 0);
  CompileOptions plain = training;
  plain.fuse = false;
  CHECK(signs(residual_net(16), plain) == 0);
  CompileOptions pinned = training;
  pinned.variants = {{"conv2d_grad_input", "reference"}};
  CHECK(signs(residual_net(16), pinned) == 0);
  CHECK(signs(residual_net(16), testing::options_for("cpu")) == 0);
}

}  // namespace
}  // namespace pycnn
