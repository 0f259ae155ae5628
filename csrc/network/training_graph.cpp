#include "network/training_graph.h"

#include <algorithm>
#include <utility>

#include "graph/edit.h"
#include "graph/names.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

// `*` stands for any text. Goes back to the last star only, so the time is at most quadratic.
bool fits(std::string_view pattern, std::string_view name) noexcept {
  std::size_t p = 0, n = 0, star = std::string_view::npos, after = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++after;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool fits_any(const std::vector<std::string>& patterns, std::string_view name) noexcept {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return fits(pattern, name); });
}

bool is_variable(const Node& node) {
  return node.kind == NodeKind::kParameter || node.kind == NodeKind::kBuffer;
}

void check_patterns(const Graph& graph, const char* field,
                    const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) {
    std::vector<std::string_view> names;
    bool found = false;
    for (const Node& node : graph.nodes()) {
      if (!is_variable(node)) continue;
      names.push_back(node.name);
      found = found || fits(pattern, node.name);
    }
    if (found) continue;
    const std::string close = closest_names(pattern, names);
    throw ArgumentError(std::string("trainer: ") + field + " has '" + printable(pattern) +
                        "', which fits no parameter or buffer of the network" +
                        (close.empty() ? "" : "; the closest are " + close));
  }
}

// Batch norms whose statistics are not to be trained use them in training, too.
Graph freeze_statistics(const Graph& graph, const TrainedNames& trained) {
  GraphEditor editor(graph);
  for (int i = 0; i < editor.size(); ++i) {
    const Node& node = editor.source_node(i);
    const auto* norm = node.kind == NodeKind::kOp ? std::get_if<ops::BatchNorm>(&node.op) : nullptr;
    if (norm == nullptr || trained.contains(graph.node(node.inputs[3]).name)) {
      editor.keep(i);
      continue;
    }
    ops::BatchNorm frozen = *norm;
    frozen.frozen = true;
    editor.replace(i, frozen, editor.mapped(node.inputs));
  }
  return editor.finish();
}

void check_scores(const Graph& graph, Symbol scores) {
  const TensorSpec& spec = graph.spec(scores);
  if (spec.shape.size() != 2)
    throw ShapeError("trainer: '" + graph.node(scores).name + "' gives " + to_string(spec.shape) +
                     ", class labels need scores (N, classes)");
  if (spec.dtype != DType::kFloat32)
    throw DTypeError("trainer: '" + graph.node(scores).name + "' gives " + long_name(spec.dtype) +
                     " scores, expected float32");
}

}  // namespace

TrainedNames::TrainedNames(const Graph& graph, const std::vector<std::string>& trained,
                           const std::vector<std::string>& frozen)
    : trained_(trained), frozen_(frozen) {
  check_patterns(graph, "trained", trained);
  check_patterns(graph, "frozen", frozen);
}

bool TrainedNames::contains(const std::string& name) const {
  return fits_any(trained_, name) && !fits_any(frozen_, name);
}

ParameterGroup TrainedNames::frozen_parameters(const Graph& graph) const {
  ParameterGroup group;
  group.frozen = true;
  for (const Node& node : graph.nodes())
    if (node.kind == NodeKind::kParameter && !contains(node.name)) group.names.push_back(node.name);
  return group;
}

Graph training_graph(const Model& model, const TrainerOptions& options, const TrainedNames& trained,
                     std::int64_t batch) {
  Graph graph = freeze_statistics(with_batch(model.graph, batch, options.images), trained);
  if (graph.outputs().size() != 1)
    throw ArgumentError("trainer: the network has " + std::to_string(graph.outputs().size()) +
                        " outputs, the loss needs one");
  const Symbol scores = graph.outputs().front().second;
  std::string name = "label";
  while (graph.contains(name)) name += "_";
  const Symbol label = graph.input(name, {{batch}, DType::kInt64});
  const auto loss_of = [&](Symbol result) {
    check_scores(graph, result);
    return graph.add(ops::SoftmaxCrossEntropy{options.label_smoothing}, {result, label}, "loss");
  };
  Symbol loss = loss_of(scores);
  for (const AuxiliaryHead& head : auxiliary_heads(model)) {
    const Symbol weighted = graph.add(ops::Affine{head.weight, 0.0},
                                      {loss_of(graph.find(head.node))}, "auxiliary_loss");
    loss = graph.add(ops::Add{}, {loss, weighted}, "total_loss");
  }
  const Symbol correct = graph.add(ops::TopKCorrect{}, {scores, label}, "correct");
  graph.clear_outputs();
  graph.set_output("loss", loss);
  graph.set_output("correct", correct);
  return graph;
}

}  // namespace pycnn
