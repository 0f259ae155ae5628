#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

bool always(const Op&, const Problem&) { return true; }
bool never(const Op&, const Problem&) { return false; }
bool forward_alone(const Op& op, const Problem&) {
  return std::holds_alternative<ops::BatchNormMaxPool>(op);
}

PoolRule rule(bool (*pools)(const Op&, const Problem&),
              std::map<std::string, std::string> pins = {}) {
  static std::map<void*, Backend> backends;
  Backend& backend = backends[reinterpret_cast<void*>(pools)];
  backend = cpu_backend();
  backend.pools = pools;
  return {&backend, std::move(pins)};
}

const std::string kHead = R"(pycnn.graph 1
input "x" = f32(2, 4, 4, 3)
input "g" = f32(2, 2, 2, 3)
input "r" = f32(2, 4, 4, 3)
parameter "s" = f32(3)
"st" = batch_norm_statistics("x", "s", "s", "s", "s") {eps=0.5, momentum=0.1} -> f32(3), f32(3), f32(3), f32(3), f32(3), f32(3)
)";
const std::string kWindows =
    "{kernel_size=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0), dilation=(1, 1), ceil_mode=false";

std::string norm(const std::string& activation, const std::string& residual = "") {
  return R"("bn" = batch_norm_apply("x", "st", "st":4, "st":5)" +
         std::string(residual.empty() ? "" : ", \"" + residual + "\"") + ") {epilogue=(" +
         (residual.empty() ? "false" : "true") + ", " + activation +
         ", 0.01)} -> f32(2, 4, 4, 3)\n";
}
const std::string kPool = "\"p\" = max_pool2d(\"bn\") " + kWindows + "} -> f32(2, 2, 2, 3)\n";
const std::string kPoolGrad =
    "\"pg\" = max_pool2d_grad(\"bn\", \"g\") " + kWindows + "} -> f32(2, 4, 4, 3)\n";
const std::string kGrad =
    R"("d" = batch_norm_apply_grad("x", "s", "st", "st":1, "st":4, "st":5, "pg") {activation=relu, slope=0.01} -> f32(2, 4, 4, 3), f32(3), f32(3)
)";
const std::string kOpenGrad =
    R"("d" = batch_norm_train_grad("x", "s", "st", "st":1, "pg") -> f32(2, 4, 4, 3), f32(3), f32(3)
)";
const std::string kOutputs = "output \"y\" = \"p\"\noutput \"dx\" = \"d\"\n";

std::string fused_pool(const std::string& activation) {
  return R"("p" = batch_norm_max_pool("x", "st", "st":4, "st":5) )" + kWindows +
         ", activation=" + activation + ", slope=0.01} -> f32(2, 2, 2, 3)\n";
}
std::string fused_grad(const std::string& activation) {
  return R"("d" = batch_norm_max_pool_grad("x", "s", "st", "st":1, "st":4, "st":5, "g") )" +
         kWindows + ", activation=" + activation +
         ", slope=0.01} -> f32(2, 4, 4, 3), f32(3), f32(3)\n";
}

std::string passed(const std::string& body, const PoolRule& with = rule(always)) {
  const std::string text = fuse_max_pool(Graph::parse(kHead + body), with).text();
  CHECK(Graph::parse(text).text() == text);
  return text.substr(kHead.size());
}

TEST_CASE("a max pool and its gradient take the batch norm before them") {
  CHECK(passed(norm("relu") + kPool + kPoolGrad + kGrad + kOutputs) ==
        fused_pool("relu") + fused_grad("relu") + kOutputs);
  CHECK(passed(norm("identity") + kPool + kPoolGrad + kOpenGrad + kOutputs) ==
        fused_pool("identity") + fused_grad("identity") + kOutputs);
  // Of a layer that is not trained.
  CHECK(passed(norm("relu6") + kPool + "output \"y\" = \"p\"\n") ==
        fused_pool("relu6") + "output \"y\" = \"p\"\n");
}

TEST_CASE("a result that somebody else reads is stored") {
  const std::string all = norm("relu") + kPool + kPoolGrad + kGrad + kOutputs;
  const std::string second = "\"q\" = max_pool2d(\"bn\") " + kWindows + "} -> f32(2, 2, 2, 3)\n";
  const std::string sum = "\"a\" = add(\"bn\", \"r\") -> f32(2, 4, 4, 3)\n";
  const std::string slope =
      "\"e\" = batch_norm_train_grad(\"x\", \"s\", \"st\", \"st\":1, \"pg\") -> f32(2, 4, 4, 3), "
      "f32(3), f32(3)\n";
  for (const std::string& body :
       {all + "output \"more\" = \"bn\"\n", all + "output \"more\" = \"pg\"\n",
        norm("relu") + kPool + second + kPoolGrad + kGrad + kOutputs + "output \"z\" = \"q\"\n",
        norm("relu") + kPool + sum + kPoolGrad + kGrad + kOutputs + "output \"z\" = \"a\"\n",
        norm("relu") + kPool + kPoolGrad + kGrad + slope + kOutputs + "output \"z\" = \"e\"\n",
        // The pool of a sum; a gradient without the activation, and that of another one.
        norm("relu", "r") + kPool + kPoolGrad + kGrad + kOutputs,
        norm("relu") + kPool + kPoolGrad + kOpenGrad + kOutputs,
        norm("relu6") + kPool + kPoolGrad + kGrad + kOutputs}) {
    CAPTURE(body);
    CHECK(passed(body) == body);
  }
}

TEST_CASE("what is pinned or another backend makes stays by itself") {
  const std::string all = norm("relu") + kPool + kPoolGrad + kGrad + kOutputs;
  CHECK(passed(all, rule(never)) == all);
  CHECK(passed(all, rule(forward_alone)) == all);
  for (const char* pinned : {"bn", "batch_norm_apply", "p", "max_pool2d", "pg", "max_pool2d_grad",
                             "d", "batch_norm_apply_grad", "*"})
    CHECK(passed(all, rule(always, {{pinned, "reference"}})) == all);
}

TEST_CASE("the CPU pools what it has kernels for") {
  const TensorSpec vector{{64}, DType::kFloat32};
  const auto pools = [&](DType dtype, Isa isa) {
    const std::vector<TensorSpec> in = {{{2, 8, 8, 64}, dtype}, vector, vector, vector};
    const TensorSpec out{{2, 4, 4, 64}, dtype};
    return cpu_backend().pools(ops::BatchNormMaxPool{}, {in, {&out, 1}, isa, 1, {}});
  };
  CHECK(pools(DType::kFloat32, Isa::kBaseline));
  CHECK_FALSE(pools(DType::kFloat64, best_isa()));
  // Widened, bfloat16 would not be rounded in between.
  CHECK_FALSE(pools(DType::kBFloat16, Isa::kBaseline));
  CHECK(pools(DType::kBFloat16, best_isa()) == (best_isa() >= Isa::kAvx512));
}

TEST_CASE("the CPU leaves windows that overlap far, and images of few pixels, to the two ops") {
  const auto pools = [](const Shape& image, const ops::MaxPool2d& pool) {
    const TensorSpec vector{{image[3]}, DType::kFloat32};
    const std::vector<TensorSpec> in = {{image, DType::kFloat32}, vector, vector, vector};
    const ops::BatchNormMaxPool op{pool};
    const std::vector<TensorSpec> out = op.infer(in);
    const bool forward = cpu_backend().pools(op, {in, out, Isa::kBaseline, 1, {}});
    const std::vector<TensorSpec> of = {in[0], vector, vector, vector, vector, vector, out[0]};
    const ops::BatchNormMaxPoolGrad grad{op};
    const std::vector<TensorSpec> results = grad.infer(of);
    CHECK(cpu_backend().pools(grad, {of, results, Isa::kBaseline, 1, {}}) == forward);
    return forward;
  };
  const ops::MaxPool2d stem{{3, 3}, {2, 2}, {1, 1, 1, 1}};
  CHECK(pools({16, 112, 112, 64}, stem));
  CHECK(pools({16, 56, 56, 192}, ops::MaxPool2d{{3, 3}, {2, 2}, {}, {1, 1}, true}));
  CHECK(pools({8, 224, 224, 64}, ops::MaxPool2d{}));
  CHECK(pools({8, 14, 14, 512}, ops::MaxPool2d{}));
  CHECK(pools({1, 8, 8, 3}, ops::MaxPool2d{{3, 3}, {1, 1}, {1, 1, 1, 1}}));
  CHECK_FALSE(pools({16, 512, 512, 64}, stem));
  CHECK_FALSE(pools({1, 512, 512, 64}, ops::MaxPool2d{{3, 3}, {1, 1}, {1, 1, 1, 1}}));
  CHECK_FALSE(pools({1, 76, 76, 512}, ops::MaxPool2d{{13, 13}, {1, 1}, {6, 6, 6, 6}}));
  CHECK_FALSE(pools({128, 2, 2, 512}, ops::MaxPool2d{}));
  CHECK(pools({0, 8, 8, 3}, ops::MaxPool2d{}));
}

// conv bn relu pool conv bn relu pool dense
Graph pooled_net(const ops::MaxPool2d& pool,
                 const ops::Activation& activation = {ActivationKind::kRelu}, bool frozen = false) {
  Graph graph;
  test::Layers net{graph};
  Symbol h = graph.input("x", {{3, 14, 13, 3}, DType::kFloat32});
  const Symbol y = graph.input("y", {{3}, DType::kInt64});
  for (const std::string name : {"a", "b"}) {
    h = net.norm(net.conv(h, name + ".conv", 9, 3, false), name + ".bn", frozen);
    if (activation.kind != ActivationKind::kIdentity) h = graph.add(activation, {h}, name + ".act");
    h = graph.add(pool, {h}, name + ".pool");
  }
  const Symbol logits = net.dense(graph.add(ops::GlobalAvgPool2d{}, {h}), "fc", 4);
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {logits, y}, "loss"));
  return graph;
}

TEST_CASE("a training step that pools so gives what one gives that stores more") {
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({3, 14, 13, 3}, 1)},
                                                {"y", test::labels(3, 4)}};
  for (const ops::MaxPool2d& pool : {ops::MaxPool2d{{3, 3}, {2, 2}, {1, 1, 1, 1}},
                                     ops::MaxPool2d{{2, 2}, {2, 2}, {}, {1, 1}, true}})
    for (const Recompute which : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt}) {
      const Graph graph = pooled_net(pool);
      CompileOptions options = test::training_options();
      options.recompute = which;
      options.threads = 1;
      test::Compiled fused(graph, options);
      options.threads = 3;
      test::Compiled threaded(graph, options);
      options.variants = {{"max_pool2d", "max_pool2d.direct.baseline"}};
      test::Compiled stored(graph, options);
      const std::string text = fused.program.graph_text();
      CHECK(text.find("batch_norm_max_pool_grad(") != std::string::npos);
      CHECK(text.find("max_pool2d(") == std::string::npos);
      CHECK(text.find("batch_norm_apply") == std::string::npos);
      CHECK(stored.program.graph_text().find("batch_norm_max_pool") == std::string::npos);
      for (int step = 0; step < 3; ++step) {
        const Tensor loss = fused.program.run(inputs).at("loss");
        CHECK(test::same_bits(loss, threaded.program.run(inputs).at("loss")));
        const Tensor wanted = stored.program.run(inputs).at("loss");
        if (step == 0)
          CHECK(test::same_bits(loss, wanted));
        else
          CHECK(test::difference(loss, wanted) < 1e-5);
      }
      CHECK(test::same_bits(fused.variables, threaded.variables));
      for (const auto& [name, tensor] : stored.variables)
        if (tensor.dtype() == DType::kFloat32)
          CHECK(test::difference(fused.variables.at(name), tensor) < 1e-5);
      if (which == Recompute::kNone)
        CHECK(fused.program.memory().arena_bytes < stored.program.memory().arena_bytes);
    }
}

int count_of(const std::string& op, const Program& program) {
  const std::string text = program.graph_text();
  int count = 0;
  for (std::size_t at = text.find(" = " + op + "("); at != std::string::npos;
       at = text.find(" = " + op + "(", at + 1))
    ++count;
  return count;
}

// Three steps of both, of which the first has the same loss.
void check_steps(const Graph& graph, const CompileOptions& options, double error) {
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({3, 14, 13, 3}, 1)},
                                                {"y", test::labels(3, 4)}};
  CompileOptions apart = options;
  apart.variants = {{"max_pool2d_grad", "reference"}};
  const test::Compiled fused(graph, options), stored(graph, apart);
  CHECK(count_of("batch_norm_max_pool", fused.program) == 2);
  CHECK(count_of("batch_norm_max_pool_grad", fused.program) == 2);
  CHECK(count_of("batch_norm_max_pool", stored.program) == 0);
  CHECK(count_of("max_pool2d_grad", stored.program) == 2);
  for (int step = 0; step < 3; ++step) {
    const Tensor loss = fused.program.run(inputs).at("loss");
    const Tensor wanted = stored.program.run(inputs).at("loss");
    if (step == 0) CHECK(test::same_bits(loss, wanted));
    CHECK(test::difference(loss, wanted) < error);
  }
  for (const auto& [name, tensor] : stored.variables) {
    CAPTURE(name);
    if (tensor.dtype() == DType::kFloat32)
      CHECK(test::difference(fused.variables.at(name), tensor) < error);
  }
}

TEST_CASE("steps that pool so have each activation, none and images of 16 bits") {
  const ops::MaxPool2d stem{{3, 3}, {2, 2}, {1, 1, 1, 1}};
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const bool narrow = dtype == DType::kBFloat16;
    if (narrow && best_isa() < Isa::kAvx512) continue;
    for (const ops::Activation& activation :
         {ops::Activation{ActivationKind::kRelu}, ops::Activation{ActivationKind::kRelu6},
          ops::Activation{ActivationKind::kLeakyRelu, 0.2},
          ops::Activation{ActivationKind::kIdentity}}) {
      CAPTURE(activation_name(activation.kind));
      CompileOptions options = test::training_options();
      options.dtype = dtype;
      check_steps(pooled_net(stem, activation), options, narrow ? 2e-3 : 1e-5);
    }
  }
}

TEST_CASE("batch norms that are frozen or of inference stay apart from the max pool") {
  const ops::Activation relu{ActivationKind::kRelu};
  for (const bool training : {true, false}) {
    const test::Compiled net(pooled_net({}, relu, training),
                             training ? test::training_options() : CompileOptions{});
    CHECK(count_of("batch_norm_max_pool", net.program) == 0);
    CHECK(count_of("batch_norm_max_pool_grad", net.program) == 0);
    CHECK(count_of("max_pool2d", net.program) == 2);
  }
}

// `variants` may name layers: the batch norm, the pool behind it, or both ops of one kind.
TEST_CASE("a layer whose kernel was asked for by name is not made one with its neighbour") {
  for (const std::string layer : {"a.bn", "a.pool", "b.bn", "b.pool"}) {
    CAPTURE(layer);
    CompileOptions options = test::training_options();
    options.variants = {{layer, "reference"}};
    const test::Compiled net(pooled_net({}), options);
    CHECK(count_of("batch_norm_max_pool", net.program) == 1);
    CHECK(count_of("batch_norm_max_pool_grad", net.program) == 1);
    CHECK(count_of("max_pool2d", net.program) == 1);
    bool is_reference = false;
    for (const StepProfile& step : net.program.steps())
      is_reference = is_reference || (step.name == layer && step.variant.ends_with(".reference"));
    CHECK(is_reference);
  }
}

}  // namespace
}  // namespace pycnn
