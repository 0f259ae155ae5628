// GoogLeNet, with batch norms and without, on the emulated device: how many copies its concats and
// their gradients are, and that those which are spared change no bit.
#include <string>
#include <vector>

#include "backends/cuda/training.h"
#include "compile/inception_net.h"

namespace pycnn {
namespace {

using testing::options_for;
using testing::Results;

// Filters of an inception module: 1x1, 3x3 and what it is reduced to first, likewise 5x5, and of
// what is pooled.
struct Filters {
  const char* name;
  std::int64_t one, reduce3, three, reduce5, five, pool;
  bool pool_before = false;
};
constexpr Filters kModules[] = {
    {"3a", 64, 96, 128, 16, 32, 32, true},  {"3b", 128, 128, 192, 32, 96, 64},
    {"4a", 192, 96, 208, 16, 48, 64, true}, {"4b", 160, 112, 224, 24, 64, 64},
    {"4c", 128, 128, 256, 24, 64, 64},      {"4d", 112, 144, 288, 32, 64, 64},
    {"4e", 256, 160, 320, 32, 128, 128},    {"5a", 256, 160, 320, 32, 128, 128, true},
    {"5b", 384, 192, 384, 48, 128, 128},
};

// Filters are divided by `part`.
class GoogLeNet {
 public:
  GoogLeNet(std::int64_t batch, std::int64_t size, std::int64_t part, bool batch_norm)
      : part_(part), batch_norm_(batch_norm) {
    Symbol x = graph.input("x", {{batch, size, size, 3}, DType::kFloat32});
    x = pool(convolution(x, "conv1", 64, 7, 2));
    x = convolution(convolution(x, "conv2", 64, 1, 1), "conv3", 192, 3, 1);
    for (const Filters& filters : kModules) x = inception(x, filters);
    x = graph.add(ops::Dropout{0.2}, {graph.add(ops::GlobalAvgPool2d{}, {x})}, "dropout");
    x = net_.dense(x, "fc", 8);
    const Symbol y = graph.input("y", {{batch}, DType::kInt64});
    graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {x, y}, "loss"));
  }

  Graph graph;

 private:
  Symbol pool(Symbol x) { return graph.add(ops::MaxPool2d{{3, 3}, {2, 2}, {1, 1, 1, 1}}, {x}); }

  Symbol convolution(Symbol x, const std::string& name, std::int64_t channels, std::int64_t kernel,
                     std::int64_t stride) {
    const std::int64_t in = graph.spec(x).shape[3], pad = kernel / 2;
    ops::Conv2d op;
    op.stride = {stride, stride};
    op.padding = {pad, pad, pad, pad};
    x = graph.add(op,
                  {x, graph.parameter(name + ".weight", {{channels / part_, kernel, kernel, in}},
                                      test::uniform(0.1), ParameterLayout::kConvWeight)},
                  name);
    return net_.relu(batch_norm_ ? net_.norm(x, name + ".norm") : x);
  }

  Symbol inception(Symbol x, const Filters& f) {
    if (f.pool_before) x = pool(x);
    return test::inception(graph, x,
                           {.branch1 = f.one / part_,
                            .reduce3 = f.reduce3 / part_,
                            .branch3 = f.three / part_,
                            .reduce5 = f.reduce5 / part_,
                            .branch5 = f.five / part_,
                            .pool = f.pool / part_,
                            .branch5_kernel = 5,
                            .batch_norm = batch_norm_},
                           std::string(f.name) + ".");
  }

  std::int64_t part_;
  bool batch_norm_;
  test::Layers net_{graph};
};

// Of images; filters and vectors are joined and cut, too.
std::vector<std::string> copies_in(const Program& program) {
  std::vector<std::string> copies;
  for (const StepProfile& step : program.steps())
    if ((step.op == "concat" || step.op == "slice") &&
        step.name.find("merged") == std::string::npos)
      copies.push_back(step.op + " " + step.name);
  return copies;
}

CompileOptions training(DType dtype, bool joins) {
  CompileOptions options = options_for("cuda");
  options.dtype = dtype;
  options.reuse_memory = joins;
  return options;
}

TEST_CASE("cuda googlenet: copies of concats and slices") {
  for (const bool batch_norm : {false, true})
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
      CAPTURE(batch_norm);
      CAPTURE(static_cast<int>(dtype));
      // Enough images that copying weights for merged siblings is less than what that spares.
      const Graph graph = GoogLeNet(32, 128, 1, batch_norm).graph;
      const test::Compiled joined(graph, training(dtype, true));
      const std::vector<std::string> copies = copies_in(joined.program);
      // With batch norms none is left. Without, the first branches are a part of a larger result of
      // convolutions, forward, and their gradients one of a larger gradient.
      CHECK(copies.size() == (batch_norm ? 0 : 2 * std::size(kModules)));
      CompileOptions options;
      options.device = "cuda";
      options.dtype = dtype;
      CHECK(copies_in(test::Compiled(graph, options).program).empty());
    }
}

TEST_CASE("cuda googlenet: spared copies change no bit") {
  const Results inputs = {{"x", test::random_tensor({2, 32, 32, 3}, 9)}, {"y", test::labels(2, 8)}};
  // The types of 16 bits have the same kernels but for their conversions: one of them each time.
  for (const bool batch_norm : {false, true})
    for (const DType dtype : {DType::kFloat32, batch_norm ? DType::kFloat16 : DType::kBFloat16}) {
      CAPTURE(batch_norm);
      CAPTURE(static_cast<int>(dtype));
      const Graph graph = GoogLeNet(2, 32, 8, batch_norm).graph;
      const test::Compiled copying(graph, training(dtype, false));
      const test::Compiled joined(graph, training(dtype, true));
      for (int step = 0; step < 2; ++step)
        CHECK(test::same_bits(joined.program.run(inputs), copying.program.run(inputs)));
      CHECK(test::same_bits(joined.variables, copying.variables));
    }
}

}  // namespace
}  // namespace pycnn
