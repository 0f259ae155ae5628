#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {

Graph split_batch_norm(const Graph& graph, const std::map<std::string, std::string>& pins) {
  GraphEditor editor(graph);
  for (int i = 0; i < editor.size(); ++i) {
    const Node& node = editor.source_node(i);
    const auto* norm =
        node.kind == NodeKind::kOp ? std::get_if<ops::BatchNormTrain>(&node.op) : nullptr;
    // A kernel of the whole was asked for.
    const bool pinned = pins.contains(node.name) || pins.contains(ops::BatchNormTrain::kName);
    if (norm == nullptr || pinned) {
      editor.keep(i);
      continue;
    }
    const std::vector<Symbol> inputs = editor.mapped(node.inputs);
    const auto statistics = editor.emit(ops::BatchNormStatistics{norm->eps, norm->momentum}, inputs,
                                        node.name + ".statistics", node.origin);
    const auto measured = [&](int k) { return Symbol{statistics.node, k, statistics.graph}; };
    editor.replace(i, ops::BatchNormApply{}, {inputs[0], measured(0), measured(4), measured(5)});
    for (int k = 0; k < 4; ++k) editor.substitute(editor.source_symbol(i, k + 1), measured(k));
  }
  return editor.finish();
}

}  // namespace pycnn
