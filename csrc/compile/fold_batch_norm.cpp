#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

// Convolution or dense layer without anything fused yet.
bool takes_batch_norm(const Node& node) {
  if (node.kind != NodeKind::kOp) return false;
  if (const auto* conv = std::get_if<ops::Conv2d>(&node.op)) return conv->epilogue == Epilogue{};
  if (const auto* dense = std::get_if<ops::Dense>(&node.op)) return dense->epilogue == Epilogue{};
  return false;
}

class Folder {
 public:
  explicit Folder(const Graph& graph)
      : editor_(graph), uses_(graph), constant_(split_prepare(graph)) {
    for (const Node& node : graph.nodes()) {
      const bool leaf = node.kind == NodeKind::kParameter || node.kind == NodeKind::kBuffer;
      if (leaf) constant_[static_cast<std::size_t>(&node - graph.nodes().data())] = true;
    }
    for (const Assignment& assignment : graph.assignments())
      constant_[static_cast<std::size_t>(assignment.variable.node)] = false;
  }

  Graph result() {
    const std::vector<Node>& nodes = editor_.source().nodes();
    std::vector<bool> folds(nodes.size(), false);     // batch norms
    std::vector<bool> absorbed(nodes.size(), false);  // layers
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (!can_fold(nodes[i])) continue;
      folds[i] = true;
      absorbed[static_cast<std::size_t>(nodes[i].inputs[0].node)] = true;
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (folds[i])
        fold(static_cast<int>(i), nodes[i]);
      else if (!absorbed[i])
        editor_.keep(static_cast<int>(i));
    }
    return editor_.finish();
  }

 private:
  bool is_constant(Symbol symbol) const { return constant_[static_cast<std::size_t>(symbol.node)]; }

  bool can_fold(const Node& node) const {
    if (node.kind != NodeKind::kOp || !std::holds_alternative<ops::BatchNormInference>(node.op))
      return false;
    const Node& layer = editor_.source().node(node.inputs[0]);
    if (!takes_batch_norm(layer) || uses_.count(node.inputs[0].node) != 1) return false;
    for (std::size_t i = 1; i < layer.inputs.size(); ++i)
      if (!is_constant(layer.inputs[i])) return false;
    for (std::size_t i = 1; i < node.inputs.size(); ++i)
      if (!is_constant(node.inputs[i])) return false;
    return true;
  }

  // The layer moves to the place of its batch norm, where the variables of both are there.
  void fold(int index, const Node& norm) {
    const Node& layer = editor_.source().node(norm.inputs[0]);
    std::vector<Symbol> fold_inputs = {editor_.mapped(layer.inputs[1])};
    for (std::size_t i = 1; i < norm.inputs.size(); ++i)
      fold_inputs.push_back(editor_.mapped(norm.inputs[i]));
    if (layer.inputs.size() > 2) fold_inputs.push_back(editor_.mapped(layer.inputs[2]));
    const double eps = std::get<ops::BatchNormInference>(norm.op).eps;
    const Symbol folded =
        editor_.emit(ops::FoldBatchNorm{eps}, fold_inputs, norm.name + ".fold", norm.origin);
    editor_.replace(index, norm.inputs[0].node, layer.op,
                    {editor_.mapped(layer.inputs[0]), folded, {folded.node, 1, folded.graph}});
  }

  GraphEditor editor_;
  GraphUses uses_;
  std::vector<bool> constant_;
};

}  // namespace

Graph fold_batch_norm(const Graph& graph) { return Folder(graph).result(); }

}  // namespace pycnn
