#include "compile/passes.h"
#include "runtime/label_checks.h"

namespace pycnn {

std::vector<bool> split_prepare(const Graph& graph) {
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<bool> varies(nodes.size(), false);
  for (const Assignment& assignment : graph.assignments())
    varies[static_cast<std::size_t>(assignment.variable.node)] = true;
  std::vector<bool> prepared(nodes.size(), false);
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].kind == NodeKind::kInput) varies[i] = true;
    if (nodes[i].kind != NodeKind::kOp) continue;
    // Labels are looked at in every run.
    if (reads_labels(nodes[i].op)) varies[i] = true;
    for (const Symbol input : nodes[i].inputs)
      if (varies[static_cast<std::size_t>(input.node)]) varies[i] = true;
    prepared[i] = !varies[i];
  }
  return prepared;
}

}  // namespace pycnn
