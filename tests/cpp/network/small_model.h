#pragma once
#include <string>

#include "compile/nets.h"
#include "pycnn/network.h"

// A classifier of 6x6 images with one channel: convolution, batch norm, relu, flattening, dense.
namespace pycnn::test {

inline Model small_model(std::int64_t classes = 3, bool auxiliary = false) {
  Model model;
  Graph& g = model.graph;
  Layers layers{g};
  const Symbol x = g.input("x", {{1, 6, 6, 1}});
  Symbol y = layers.conv(x, "conv1", 4, 3, false);
  const auto per_channel = [&](const char* name, double value) {
    return g.parameter(name, {{4}}, constant(value));
  };
  const Symbol scale = per_channel("bn1.weight", 1.0), shift = per_channel("bn1.bias", 0.0);
  const Symbol mean = g.buffer("bn1.running_mean", {{4}});
  const Symbol variance = g.buffer("bn1.running_var", {{4}}, constant(1.0));
  y = g.add(ops::BatchNorm{}, {y, scale, shift, mean, variance}, "bn1");
  y = g.add(ops::Activation{ActivationKind::kRelu}, {y}, "relu1");
  const auto dense = [&](Symbol input, const std::string& name) {
    const std::int64_t in = g.spec(input).shape[1];
    const Symbol weight = g.parameter(name + ".weight", {{classes, in}}, uniform(0.2));
    const Symbol bias = g.parameter(name + ".bias", {{classes}}, uniform(0.1));
    return g.add(ops::Dense{}, {input, weight, bias}, name);
  };
  if (auxiliary) {
    dense(g.add(ops::GlobalAvgPool2d{}, {y}, "aux.pool"), "aux");
    model.metadata["pycnn.auxiliary"] = R"([{"node": "aux", "weight": 0.25}])";
  }
  const Symbol flat = g.add(ops::Reshape{{0, -1}}, {y}, "flatten");
  g.set_output("output", dense(flat, "fc"));
  create_variables(g, model.variables, 5);
  return model;
}

inline std::map<std::string, Tensor> copies(const std::map<std::string, Tensor>& tensors) {
  std::map<std::string, Tensor> result;
  for (const auto& [name, tensor] : tensors) result[name] = tensor.clone();
  return result;
}

}  // namespace pycnn::test
