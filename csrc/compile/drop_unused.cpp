#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {

Graph drop_unused(const Graph& graph) {
  const std::vector<bool> live = live_nodes(graph);
  GraphEditor editor(graph);
  for (int i = 0; i < editor.size(); ++i)
    if (live[static_cast<std::size_t>(i)]) editor.keep(i);
  return editor.finish();
}

}  // namespace pycnn
