#include <doctest/doctest.h>

#include <cstdlib>
#include <set>
#include <string>

#include "backends/backend.h"
#include "backends/cpu/peak_loops.h"
#include "compile/nets.h"
#include "compile/passes.h"
#include "core/bfloat16_units.h"

// Else the other tests of this executable would say nothing of AMX.
namespace pycnn {
namespace {

// The software that takes AMX's place multiplies with AVX-512; the loops around it are compiled for
// AVX512_BF16.
bool is_skipped() {
  if (best_isa() == Isa::kAvx512 && has_avx512_bf16()) return false;
  MESSAGE("skipped: this machine has no AVX512_BF16, so nothing of AMX was looked at");
  return true;
}

// All cores may be fewer than the threads that results must not depend on.
class ManyThreads {
 public:
  ManyThreads() : had_(std::getenv(kName) != nullptr) { ::setenv(kName, "1", 0); }
  ~ManyThreads() {
    if (!had_) ::unsetenv(kName);
  }
  ManyThreads(const ManyThreads&) = delete;
  ManyThreads& operator=(const ManyThreads&) = delete;

 private:
  static constexpr const char* kName = "PYCNN_OVERSUBSCRIBE";
  bool had_;
};

const Backend& merging() {
  static const Backend backend{"merging", nullptr, nullptr, [](const Siblings&) { return true; }};
  return backend;
}

Symbol conv(Graph& graph, Symbol x, const std::string& name, std::int64_t channels,
            std::int64_t kernel, Pair stride = {1, 1}, std::int64_t groups = 1, bool bias = true) {
  const std::int64_t in = graph.spec(x).shape[3] / groups;
  ops::Conv2d op;
  op.stride = stride, op.groups = groups;
  op.padding = {kernel / 2, kernel / 2, kernel / 2, kernel / 2};
  std::vector<Symbol> inputs = {
      x, graph.parameter(name + ".weight", {{channels, kernel, kernel, in}},
                         test::uniform(1.5 / std::sqrt(static_cast<double>(in * kernel * kernel))),
                         ParameterLayout::kConvWeight)};
  if (bias) inputs.push_back(graph.parameter(name + ".bias", {{channels}}, test::uniform(0.1)));
  return graph.add(op, inputs, name);
}

constexpr std::int64_t kImages = 3, kClasses = 10;

// Convolutions with strides, of groups and of 1x1 and 3x3 windows, siblings among them, which write
// parts of a concat, one with a residual, a dense layer; odd numbers of channels and pixels.
Graph branching_net() {
  Graph graph;
  test::Layers net{graph};
  Symbol x = graph.input("x", {{kImages, 11, 9, 6}, DType::kFloat32});
  x = net.relu(net.norm(conv(graph, x, "stem", 40, 3, {2, 2}, 1, false), "stem.norm"));
  const Symbol a = net.relu(conv(graph, x, "a", 33, 1)), b = net.relu(conv(graph, x, "b", 48, 1));
  const Symbol c = net.relu(conv(graph, x, "c", 17, 3));
  const Symbol grouped = net.relu(conv(graph, b, "grouped", 48, 3, {1, 1}, 3));
  Symbol all = graph.add(ops::Concat{3}, {a, grouped, c});
  all = net.relu(graph.add(ops::Add{}, {conv(graph, all, "join", 40, 1), x}));
  all = graph.add(ops::MaxPool2d{}, {all});
  all = graph.add(ops::Reshape{{kImages, -1}}, {all});
  all = net.dense(net.relu(net.dense(all, "hidden", 70)), "fc", kClasses);
  const Symbol y = graph.input("y", {{kImages}, DType::kInt64});
  graph.set_output("logits", all);
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {all, y}, "loss"));
  return graph;
}

CompileOptions options_for(bool training) {
  CompileOptions options = training ? test::training_options() : CompileOptions{};
  if (training) options.optimizer->momentum = 0.9;
  options.dtype = DType::kBFloat16;
  options.winograd = false;  // rounds otherwise, and AMX does without
  return options;
}

// Everything that multiplies matrices or convolves.
bool multiplies(const StepProfile& step) {
  return step.op.starts_with("conv2d") || step.op.starts_with("dense");
}

// The steps that AMX does, each once.
std::set<std::string> check_amx(const Program& program) {
  std::set<std::string> found;
  for (const StepProfile& step : program.steps()) {
    if (!multiplies(step) || step.phase != "run") continue;
    CAPTURE(step.name);
    CAPTURE(step.variant);
    CHECK(step.variant.ends_with(".bfloat16.amx"));
    found.insert(step.op);
  }
  return found;
}

struct Results {
  std::map<std::string, Tensor> outputs;
  Variables variables;
};

Results results_of(const test::Compiled& compiled, int steps) {
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({kImages, 11, 9, 6}, 4)},
                                                {"y", test::labels(kImages, kClasses)}};
  Results results;
  for (int step = 0; step < steps; ++step) results.outputs = compiled.program.run(inputs);
  results.variables = test::clone(compiled.variables);
  return results;
}

// Of the largest number of a tensor. A sum that falls on the other side of a rounding moves a
// number by up to 2^-8 of itself; most fall on the same.
constexpr double kTolerance = 0x1p-7;

void check_near(const std::string& name, const Tensor& found, const Tensor& expected) {
  CAPTURE(name);
  double largest = 0.0;
  for (std::int64_t i = 0; i < expected.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(expected.data<float>()[i])));
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(static_cast<double>(found.data<float>()[i]) -
                                  static_cast<double>(expected.data<float>()[i]));
    wrong += !(error <= kTolerance * largest);
  }
  CHECK(wrong == 0);
}

TEST_CASE("software tiles: bfloat16 is multiplied by AMX where there is AVX512_BF16 beside it") {
  if (is_skipped()) return;
  REQUIRE(has_amx_bf16());
  const std::vector<TensorSpec> specs = {{{2, 9, 8, 40}, DType::kBFloat16}, {{24, 3, 3, 40}}};
  const Op op = ops::Conv2d{};
  const std::vector<TensorSpec> results = infer(op, specs);
  const Problem problem{specs, results, best_isa(), 1, ""};
  CHECK(std::string(cpu_backend().select(op, problem).kernel.variant) == "conv2d.bfloat16.amx");
}

TEST_CASE("software tiles: a program of AMX has the bits of one thread on three, and its numbers") {
  if (is_skipped()) return;
  const ManyThreads many;
  const Graph plain = branching_net();
  for (const bool training : {false, true}) {
    CAPTURE(training);
    const Mode mode = training ? Mode::kTraining : Mode::kInference;
    const Graph graph = merge_siblings(specialize(plain, mode), {&merging(), training});
    CompileOptions options = options_for(training);
    // The same roundings, by kernels for float32.
    options.isa = "avx2", options.emulate_bfloat16 = true;
    const test::Compiled emulated(plain, options);
    const Results expected = results_of(emulated, 1);
    options.isa = "auto", options.emulate_bfloat16 = false;
    Results first;
    for (const int threads : {1, 2, 3}) {
      CAPTURE(threads);
      options.threads = threads;
      const test::Compiled compiled(graph, options);
      CHECK(compiled.program.threads() == threads);
      CHECK(compiled.program.graph_text().find("a.merged\" = conv2d(") != std::string::npos);
      const std::set<std::string> amx = check_amx(compiled.program);
      CHECK(amx.contains("conv2d"));
      for (const char* op : {"conv2d_grad_input", "conv2d_grad_weight", "dense_grad_input"})
        CHECK(amx.contains(op) == training);
      const Results results = results_of(compiled, 1);
      if (threads == 1) {
        for (const auto& [name, tensor] : results.outputs)
          check_near(name, tensor, expected.outputs.at(name));
        for (const auto& [name, tensor] : results.variables)
          if (tensor.dtype() == DType::kFloat32)
            check_near(name, tensor, expected.variables.at(name));
      }
      const Results later = training ? results_of(compiled, 2) : results;
      if (threads == 1) first = later;
      CHECK(test::same_bits(later.outputs, first.outputs));
      CHECK(test::same_bits(later.variables, first.variables));
    }
  }
}

TEST_CASE("software tiles: the loop that measures AMX's peak multiplies what it counts") {
  if (is_skipped()) return;
  const cpu::ComputeLoop loop = cpu::amx_bf16_loop();
  REQUIRE((loop.multiply_add != nullptr));
  CHECK(std::string(loop.unit) == "amx_bf16");
  // One of 16 x 16 sums of each of 4 tiles, to which a round adds 32 ones.
  for (const std::int64_t rounds : {0, 1, 3, 17})
    CHECK(loop.multiply_add(rounds) == static_cast<float>(4 * 32 * rounds));
  CHECK(loop.flops_per_round == 2 * 16 * 16 * 4 * 32);
}

}  // namespace
}  // namespace pycnn
