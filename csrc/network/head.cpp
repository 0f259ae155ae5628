// The layer that gives the scores of the classes, and a fresh one in its place.
#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>

#include "graph/edit.h"
#include "pycnn/error.h"
#include "pycnn/network.h"

namespace pycnn {
namespace {

// What may stand between the scores and the network's result: none of it mixes classes.
constexpr std::string_view kBehind[] = {
    "activation",        "adaptive_avg_pool2d", "affine",      "avg_pool2d", "dropout",
    "global_avg_pool2d", "global_max_pool2d",   "log_softmax", "reshape",    "softmax",
    "transpose"};

// The results that give scores: the network's own, then those of auxiliary heads.
std::vector<Symbol> results_of(const Model& model) {
  if (model.graph.outputs().empty()) throw GraphError("head: the network has no outputs");
  std::vector<Symbol> results = {model.graph.outputs().front().second};
  for (const AuxiliaryHead& head : auxiliary_heads(model))
    results.push_back(model.graph.find(head.node));
  return results;
}

const Node& head_of(const Graph& graph, Symbol result) {
  const Node* node = &graph.node(result);
  while (node->kind == NodeKind::kOp &&
         std::find(std::begin(kBehind), std::end(kBehind), op_name(node->op)) != std::end(kBehind))
    node = &graph.node(node->inputs[0]);
  const std::string_view name = node->kind == NodeKind::kOp ? op_name(node->op) : "";
  if (name != "dense" && name != "conv2d")
    throw GraphError("head: no dense layer or convolution gives the scores, but '" +
                     graph.node(result).name + "'; there is no head to replace");
  return *node;
}

std::vector<std::string> parameters_of(const Graph& graph, const Node& head) {
  std::vector<std::string> names;
  for (std::size_t i = 1; i < head.inputs.size(); ++i) {
    const Node& node = graph.node(head.inputs[i]);
    if (node.kind != NodeKind::kParameter)
      throw GraphError("head: '" + head.name + "' computes its weights; it cannot be replaced");
    names.push_back(node.name);
  }
  return names;
}

struct Fresh {
  TensorSpec spec;
  Initializer initializer;
};
using FreshParameters = std::map<std::string, Fresh>;

FreshParameters fresh_parameters(const Model& model, std::int64_t num_classes) {
  FreshParameters fresh;
  for (const Symbol result : results_of(model)) {
    const std::vector<std::string> names = parameters_of(model.graph, head_of(model.graph, result));
    // A bias is drawn with the fan-in of its weight.
    const TensorSpec& weight = model.graph.spec(model.graph.find(names.front()));
    const double fan_in = static_cast<double>(element_count(weight.shape)) /
                          static_cast<double>(std::max<std::int64_t>(weight.shape[0], 1));
    const double bound = 1.0 / std::sqrt(std::max(fan_in, 1.0));
    for (const std::string& name : names) {
      TensorSpec spec = model.graph.spec(model.graph.find(name));
      if (spec.shape[0] == num_classes) continue;
      spec.shape[0] = num_classes;
      fresh[name] = {std::move(spec), {Initializer::Kind::kUniform, -bound, bound}};
    }
  }
  return fresh;
}

Graph resized(const Graph& graph, const FreshParameters& fresh) {
  GraphEditor editor(graph);
  for (int i = 0; i < editor.size(); ++i) {
    const auto found = fresh.find(editor.source_node(i).name);
    if (found != fresh.end()) {
      editor.keep(i, found->second.spec);
      continue;
    }
    try {
      editor.keep(i);
    } catch (const ShapeError& error) {
      throw UnsupportedError(
          std::string(
              "replace_head: what follows the head has the old number of classes built in") +
          "\n  " + error.what());
    }
  }
  return editor.finish();
}

void verify_scores(const Model& model, std::int64_t num_classes) {
  for (const Symbol result : results_of(model)) {
    const Shape& shape = model.graph.spec(result).shape;
    if (shape.empty() || shape.back() != num_classes)
      // A flattened map, for example: each of its places would count as a class.
      throw UnsupportedError("replace_head: with " + std::to_string(num_classes) +
                             " classes in its last layer, '" + model.graph.node(result).name +
                             "' gives " + to_string(shape) + "; there is no head to replace");
  }
}

}  // namespace

std::vector<std::string> head_names(const Model& model) {
  std::vector<std::string> names;
  for (const Symbol result : results_of(model))
    for (std::string& name : parameters_of(model.graph, head_of(model.graph, result)))
      if (std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(std::move(name));
  return names;
}

Model replace_head(const Model& model, std::int64_t num_classes, std::uint64_t seed) {
  if (num_classes < 1)
    throw ArgumentError("replace_head: num_classes is " + std::to_string(num_classes) +
                        ", expected at least 1");
  const FreshParameters fresh = fresh_parameters(model, num_classes);
  Model result = without_training_state(model);
  result.graph = resized(model.graph, fresh);
  verify_scores(result, num_classes);
  for (const auto& [name, parameter] : fresh) {
    Tensor values(parameter.spec);
    fill(values, parameter.initializer, seed, stream_of(name));
    result.variables[name] = std::move(values);
  }
  if (!fresh.empty()) result.metadata.erase("class_names");
  return result;
}

}  // namespace pycnn
