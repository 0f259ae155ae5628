#include <limits>
#include <map>

#include "compile/training_buffers.h"
#include "graph/edit.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

class Specializer {
 public:
  Specializer(const Graph& graph, Mode mode) : editor_(graph), mode_(mode) {}

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) {
      const Node& node = editor_.source_node(i);
      const bool is_op = node.kind == NodeKind::kOp;
      if (const auto* norm = is_op ? std::get_if<ops::BatchNorm>(&node.op) : nullptr)
        batch_norm(i, node, *norm);
      else if (const auto* dropout = is_op ? std::get_if<ops::Dropout>(&node.op) : nullptr)
        drop_out(i, node, *dropout);
      else if (!editor_.has(editor_.source_symbol(i)))
        editor_.keep(i);
    }
    Graph graph = editor_.finish();
    for (const auto& [variable, value] : running_) graph.assign({variable, 0, graph.id()}, value);
    return graph;
  }

 private:
  void batch_norm(int index, const Node& node, const ops::BatchNorm& norm) {
    std::vector<Symbol> inputs = editor_.mapped(node.inputs);
    if (mode_ == Mode::kInference || norm.frozen) {
      editor_.replace(index, ops::BatchNormInference{norm.eps}, std::move(inputs));
      return;
    }
    // A layer that is used twice updates its statistics twice, one after the other.
    const int variables[2] = {inputs[3].node, inputs[4].node};
    for (std::size_t i = 0; i < 2; ++i) {
      check_variable(node, inputs[3 + i]);
      const auto earlier = running_.find(variables[i]);
      if (earlier != running_.end()) inputs[3 + i] = earlier->second;
    }
    const Symbol output =
        editor_.replace(index, ops::BatchNormTrain{norm.eps, norm.momentum}, std::move(inputs));
    for (int i = 0; i < 2; ++i) running_[variables[i]] = {output.node, 3 + i, output.graph};
  }

  void check_variable(const Node& node, Symbol running) {
    const NodeKind kind = editor_.graph().node(running).kind;
    if (kind != NodeKind::kBuffer && kind != NodeKind::kParameter)
      throw GraphError(
          "batch_norm '" + node.name +
          "': training updates the running statistics, so they must be buffers, but '" +
          editor_.graph().node(running).name + "' is not" +
          (node.origin.empty() ? "" : "\n  at " + node.origin));
  }

  void drop_out(int index, const Node& node, const ops::Dropout& dropout) {
    const Symbol input = editor_.mapped(node.inputs[0]);
    if (mode_ == Mode::kInference || dropout.p == 0.0) {
      editor_.substitute(editor_.source_symbol(index), input);
      return;
    }
    constexpr auto kMask = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    const auto stream = static_cast<std::int64_t>(stream_of(node.name) & kMask);
    editor_.replace(index, ops::DropoutTrain{dropout.p, stream},
                    {input, counter(kSeedName), counter(kStepName)});
  }

  Symbol counter(const char* name) {
    const Graph& source = editor_.source();
    if (source.contains(name) && !editor_.has(source.find(name)))
      editor_.keep(source.find(name).node);
    return training_buffer(editor_.graph(), name, counter_spec());
  }

  GraphEditor editor_;
  Mode mode_;
  std::map<int, Symbol> running_;  // variable's node, value at the end
};

}  // namespace

Graph specialize(const Graph& graph, Mode mode) { return Specializer(graph, mode).result(); }

}  // namespace pycnn
