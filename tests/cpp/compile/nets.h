#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/rng.h"
#include "pycnn/graph.h"
#include "pycnn/program.h"

// Small networks and data for the tests of compile and runtime.
namespace pycnn::test {

inline Tensor random_tensor(const Shape& shape, std::uint64_t seed, double scale = 1.0,
                            DType dtype = DType::kFloat32) {
  Tensor tensor({shape, dtype});
  fill(tensor, {Initializer::Kind::kUniform, -scale, scale}, seed, 7);
  return tensor;
}

inline Tensor labels(std::int64_t count, std::int64_t classes, std::uint64_t seed = 3) {
  Tensor tensor({{count}, DType::kInt64});
  const Philox philox(seed);
  for (std::int64_t i = 0; i < count; ++i)
    tensor.mutable_data<std::int64_t>()[i] =
        philox(static_cast<std::uint64_t>(i), 0)[0] % static_cast<std::uint32_t>(classes);
  return tensor;
}

inline Initializer uniform(double bound) { return {Initializer::Kind::kUniform, -bound, bound}; }
inline Initializer constant(double value) { return {Initializer::Kind::kConstant, value}; }

struct Layers {
  Graph& graph;
  DType dtype = DType::kFloat32;

  Symbol conv(Symbol x, const std::string& name, std::int64_t channels, std::int64_t kernel,
              bool bias = true, std::int64_t pad = 1) {
    const std::int64_t in = graph.spec(x).shape[3];
    std::vector<Symbol> inputs = {
        x, graph.parameter(name + ".weight", {{channels, kernel, kernel, in}, dtype},
                           uniform(1.0 / std::sqrt(static_cast<double>(in * kernel * kernel))),
                           ParameterLayout::kConvWeight)};
    if (bias) inputs.push_back(graph.parameter(name + ".bias", {{channels}, dtype}, uniform(0.1)));
    ops::Conv2d op;
    op.padding = {pad, pad, pad, pad};
    return graph.add(op, inputs, name, "net.py:1");
  }
  Symbol norm(Symbol x, const std::string& name, bool frozen = false) {
    const std::int64_t channels = graph.spec(x).shape.back();
    const TensorSpec spec{{channels}, dtype};
    ops::BatchNorm op;
    op.frozen = frozen;
    return graph.add(
        op,
        {x, graph.parameter(name + ".weight", spec, {Initializer::Kind::kUniform, 0.5, 1.5}),
         graph.parameter(name + ".bias", spec, uniform(0.2)),
         graph.buffer(name + ".running_mean", spec),
         graph.buffer(name + ".running_var", spec, constant(1.0))},
        name, "net.py:2");
  }
  Symbol relu(Symbol x, const std::string& name = "") {
    return graph.add(ops::Activation{ActivationKind::kRelu}, {x}, name);
  }
  Symbol dense(Symbol x, const std::string& name, std::int64_t units) {
    const std::int64_t in = graph.spec(x).shape.back();
    return graph.add(ops::Dense{},
                     {x,
                      graph.parameter(name + ".weight", {{units, in}, dtype},
                                      uniform(1.0 / std::sqrt(static_cast<double>(in)))),
                      graph.parameter(name + ".bias", {{units}, dtype})},
                     name);
  }
};

// conv bn relu conv bn (+ identity) relu pool flatten dropout dense; with labels, outputs "loss"
// and "correct", too.
inline Graph small_net(std::int64_t batch, bool with_loss, double dropout = 0.25,
                       DType dtype = DType::kFloat32) {
  Graph graph;
  Layers net{graph, dtype};
  const Symbol x = graph.input("x", {{batch, 8, 8, 2}, dtype});
  Symbol h = net.relu(net.norm(net.conv(x, "conv1", 5, 3), "bn1"), "relu1");
  const Symbol branch = net.norm(net.conv(h, "conv2", 5, 3, false), "bn2");
  h = net.relu(graph.add(ops::Add{}, {branch, h}, "add"), "relu2");
  h = graph.add(ops::MaxPool2d{}, {h}, "pool");
  h = graph.add(ops::Reshape{{batch, -1}}, {h}, "flatten");
  h = graph.add(ops::Dropout{dropout}, {h}, "dropout");
  h = net.dense(h, "fc", 4);
  graph.set_output("logits", h);
  if (with_loss) {
    const Symbol y = graph.input("y", {{batch}, DType::kInt64});
    graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}, "loss"));
    graph.set_output("correct", graph.add(ops::TopKCorrect{1}, {h, y}, "correct"));
  }
  return graph;
}

// Largest difference, relative to the largest magnitude (at least 1).
inline double difference(const Tensor& a, const Tensor& b) {
  if (a.spec() != b.spec()) return INFINITY;
  double largest = 1.0, worst = 0.0;
  const auto at = [](const Tensor& t, std::int64_t i) {
    return t.dtype() == DType::kFloat64 ? t.data<double>()[i]
                                        : static_cast<double>(t.data<float>()[i]);
  };
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(at(a, i) - at(b, i));
    if (!(d <= worst)) worst = d;
    largest = std::max(largest, std::abs(at(a, i)));
  }
  return worst / largest;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.spec() == b.spec() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

inline bool same_bits(const std::map<std::string, Tensor>& a,
                      const std::map<std::string, Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a)
    if (!b.contains(name) || !same_bits(tensor, b.at(name))) return false;
  return true;
}

inline CompileOptions training_options() {
  CompileOptions options;
  options.mode = Mode::kTraining;
  options.optimizer = Optimizer{};
  return options;
}

// A program of a graph, with fresh variables of its own.
struct Compiled {
  Variables variables;
  Program program;

  Compiled(const Graph& graph, const CompileOptions& options)
      : variables(fresh(graph)), program(compile(graph, variables, options)) {}

 private:
  static Variables fresh(const Graph& graph) {
    Variables variables;
    create_variables(graph, variables, 2);
    return variables;
  }
};

inline Variables clone(const Variables& variables) {
  Variables copy;
  for (const auto& [name, tensor] : variables) copy[name] = tensor.clone();
  return copy;
}

}  // namespace pycnn::test
