// Where a block adds what two batch norms give (the last of a residual block and the one of its
// projection; He et al. 2016, section 3.3), one pass applies both:
//
//   batch_norm_apply (no activation) -> batch_norm_apply (residual)
//
// What lies between the two is never stored. The input of the first is read instead, which its
// gradient keeps anyway.
#include "compile/passes.h"
#include "compile/pinned.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

const ops::BatchNormApply* apply_at(const Node& node) {
  return node.kind == NodeKind::kOp ? std::get_if<ops::BatchNormApply>(&node.op) : nullptr;
}

}  // namespace

Graph fuse_residual_norm(const Graph& graph, const std::map<std::string, std::string>& pins) {
  GraphEditor editor(graph);
  const GraphUses uses(graph);
  // The node whose result is `symbol`, if it is a batch norm and nothing else, for one reader.
  const auto norm_before = [&](Symbol symbol) -> const Node* {
    const Node& node = editor.source_node(symbol.node);
    const ops::BatchNormApply* const apply = apply_at(node);
    if (apply == nullptr || apply->epilogue != Epilogue{} || uses.count(symbol.node) != 1 ||
        is_pinned(pins, node))
      return nullptr;
    return &node;
  };
  std::vector<const Node*> residual_norms(graph.nodes().size(), nullptr);
  std::vector<bool> gone(graph.nodes().size(), false);
  for (int i = 0; i < editor.size(); ++i) {
    const Node& node = editor.source_node(i);
    const ops::BatchNormApply* const apply = apply_at(node);
    if (apply == nullptr || node.inputs.size() != 5 || is_pinned(pins, node)) continue;
    const Node* const before = norm_before(node.inputs[4]);
    if (before == nullptr) continue;
    residual_norms[static_cast<std::size_t>(i)] = before;
    gone[static_cast<std::size_t>(node.inputs[4].node)] = true;
  }
  for (int i = 0; i < editor.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (gone[at]) continue;
    const Node* const before = residual_norms[at];
    if (before == nullptr) {
      editor.keep(i);
      continue;
    }
    const Node& node = editor.source_node(i);
    std::vector<Symbol> inputs = editor.mapped(std::span(node.inputs).first(4));
    for (const Symbol input : before->inputs) inputs.push_back(editor.mapped(input));
    editor.replace(i, node.op, std::move(inputs));
  }
  return editor.finish();
}

}  // namespace pycnn
