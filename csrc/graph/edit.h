#pragma once
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "pycnn/graph.h"

// What passes use to turn one graph into another.
//
// A pass walks the nodes of the source in order and says for each what stands in its place:
//
//   GraphEditor editor(graph);
//   for (int i = 0; i < editor.size(); ++i) {
//     const Node& node = editor.source_node(i);
//     if (std::holds_alternative<ops::Dropout>(node.op)) {
//       editor.substitute(editor.source_symbol(i), editor.mapped(node.inputs[0]));  // drop it
//     } else {
//       editor.keep(i);
//     }
//   }
//   return editor.finish();
//
// A node that nothing is said about does not appear; a later use of it is our fault
// (InternalError). Nodes keep their name, origin, layout and initializer; nodes that a pass adds
// get names that no node of the source has. `finish` carries outputs and assignments over.
namespace pycnn {

class GraphEditor {
 public:
  // `source` must outlive the editor.
  explicit GraphEditor(const Graph& source);

  const Graph& source() const { return source_; }
  int size() const { return static_cast<int>(source_.nodes().size()); }
  const Node& source_node(int node) const {
    return source_.nodes()[static_cast<std::size_t>(node)];
  }
  // Null: it is of another kind, or no op.
  template <class OpType>
  const OpType* op_at(int node) const {
    const Node& source = source_node(node);
    return source.kind == NodeKind::kOp ? std::get_if<OpType>(&source.op) : nullptr;
  }
  Symbol source_symbol(int node, int output = 0) const { return {node, output, source_.id()}; }

  // The new graph so far: for specs, and to add inputs, parameters or buffers of other names.
  Graph& graph() { return result_; }

  // What stands in the new graph for a symbol of the source. InternalError when nothing does (yet).
  Symbol mapped(Symbol old) const;
  std::vector<Symbol> mapped(std::span<const Symbol> olds) const;
  bool has(Symbol old) const;

  // Copies a node with its inputs mapped; its symbols map to the copy. Returns the first output.
  Symbol keep(int node);
  // The same for an input, parameter or buffer that takes another spec.
  Symbol keep(int node, TensorSpec spec);
  // Adds `op` on `inputs` (symbols of the new graph) in place of an op node, under its name and
  // origin. Output i of the old one maps to output i of the new one, as far as both exist.
  Symbol replace(int node, Op op, std::vector<Symbol> inputs);
  // As `replace`, under the name of `named_after`: for what is made of several nodes, of which
  // another gives the name (a convolution that swallowed the activation after it). `named_after`
  // itself must not be kept.
  Symbol replace(int node, int named_after, Op op, std::vector<Symbol> inputs);
  // Adds an op that the source lacks. `name` gets a suffix where any node has it.
  Symbol emit(Op op, std::vector<Symbol> inputs, const std::string& name,
              const std::string& origin = "");
  // Uses of `old` become uses of `now`, a symbol of the new graph. The specs must agree.
  void substitute(Symbol old, Symbol now);

  // The new graph with the source's outputs and assignments. Afterwards only `mapped` and `has`
  // may be called.
  Graph finish();

 private:
  struct Target {
    int node = -1;
    int output = 0;
  };
  std::size_t slot(Symbol old) const;
  void map_outputs(int node, Symbol first);

  const Graph& source_;
  Graph result_;
  std::uint32_t result_id_;
  std::vector<std::size_t> first_slot_;  // of each source node, one slot per output
  std::vector<Target> targets_;
};

// Who uses what in a graph: one count per use as an input, output or assigned value.
class GraphUses {
 public:
  explicit GraphUses(const Graph& graph);
  // Nodes that take any output of `node`, ascending, each once.
  const std::vector<int>& consumers(int node) const {
    return consumers_[static_cast<std::size_t>(node)];
  }
  // Uses of any of the node's outputs, by ops as well as by results of the graph.
  int count(int node) const { return counts_[static_cast<std::size_t>(node)]; }
  // Whether it is an output of the graph, an assigned value or an assigned variable.
  bool is_result(int node) const { return results_[static_cast<std::size_t>(node)]; }
  // The only node that uses it, once and through its first output, or -1.
  int sole_consumer(int node) const;

 private:
  std::vector<std::vector<int>> consumers_;
  std::vector<int> counts_;
  std::vector<bool> other_output_used_;
  std::vector<bool> results_;
};

// Whether each node is an ancestor of (or is) an output, an assigned value or an assigned variable.
std::vector<bool> live_nodes(const Graph& graph);

}  // namespace pycnn
