#include "compile/passes.h"
#include "compile/pinned.h"
#include "graph/edit.h"

namespace pycnn {

Graph drop_idle_pools(const Graph& graph, const std::map<std::string, std::string>& pins) {
  GraphEditor editor(graph);
  for (int i = 0; i < editor.size(); ++i) {
    const Node& node = editor.source_node(i);
    const bool is_idle = node.kind == NodeKind::kOp &&
                         std::holds_alternative<ops::AdaptiveAvgPool2d>(node.op) &&
                         graph.spec(node.inputs[0]) == node.outputs[0];
    if (is_idle && !is_pinned(pins, node))
      editor.substitute(editor.source_symbol(i), editor.mapped(node.inputs[0]));
    else
      editor.keep(i);
  }
  return editor.finish();
}

}  // namespace pycnn
