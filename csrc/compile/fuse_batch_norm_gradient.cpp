#include <vector>

#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

class GradientFuser {
 public:
  explicit GradientFuser(const Graph& graph)
      : editor_(graph), uses_(graph), gone_(graph.nodes().size(), false) {}

  Graph result() {
    std::vector<const Node*> slopes(gone_.size(), nullptr);
    for (int i = 0; i < editor_.size(); ++i) {
      const Node* slope = slope_before(i);
      if (slope == nullptr) continue;
      slopes[static_cast<std::size_t>(i)] = slope;
      gone_[static_cast<std::size_t>(editor_.source_node(i).inputs[4].node)] = true;
    }
    for (int i = 0; i < editor_.size(); ++i) {
      if (gone_[static_cast<std::size_t>(i)]) continue;
      if (const Node* slope = slopes[static_cast<std::size_t>(i)])
        fuse(i, *slope);
      else
        editor_.keep(i);
    }
    return editor_.finish();
  }

 private:
  const Node& node_of(Symbol symbol) const { return editor_.source_node(symbol.node); }

  // The gradient of the activation that joined the batch norm whose gradient node i is, if nobody
  // else reads it; else null.
  const Node* slope_before(int i) const {
    const Node& node = editor_.source_node(i);
    if (node.kind != NodeKind::kOp || !std::holds_alternative<ops::BatchNormTrainGrad>(node.op))
      return nullptr;
    const Node& slope = node_of(node.inputs[4]);
    if (slope.kind != NodeKind::kOp || uses_.sole_consumer(node.inputs[4].node) != i)
      return nullptr;
    const auto* activation = std::get_if<ops::ActivationGrad>(&slope.op);
    if (activation == nullptr) return nullptr;
    const Node& norm = node_of(slope.inputs[0]);
    if (norm.kind != NodeKind::kOp) return nullptr;
    const auto* apply = std::get_if<ops::BatchNormApply>(&norm.op);
    if (apply == nullptr || apply->epilogue.residual ||
        apply->epilogue.activation != activation->kind ||
        apply->epilogue.slope != activation->slope)
      return nullptr;
    return norm.inputs[0] == node.inputs[0] && norm.inputs[1] == node.inputs[2] ? &slope : nullptr;
  }

  void fuse(int i, const Node& slope) {
    const Node& node = editor_.source_node(i);
    const Node& norm = node_of(slope.inputs[0]);
    const auto& activation = std::get<ops::ActivationGrad>(slope.op);
    std::vector<Symbol> inputs = editor_.mapped(std::span(node.inputs).first(4));
    for (const Symbol symbol : {norm.inputs[2], norm.inputs[3], slope.inputs[1]})
      inputs.push_back(editor_.mapped(symbol));
    editor_.replace(i, ops::BatchNormApplyGrad{activation.kind, activation.slope},
                    std::move(inputs));
  }

  GraphEditor editor_;
  GraphUses uses_;
  std::vector<bool> gone_;
};

}  // namespace

Graph fuse_batch_norm_gradient(const Graph& graph) { return GradientFuser(graph).result(); }

}  // namespace pycnn
