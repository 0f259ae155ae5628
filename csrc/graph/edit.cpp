#include "graph/edit.h"

#include <algorithm>

#include "pycnn/error.h"

namespace pycnn {
namespace {

[[noreturn]] void our_fault(const std::string& what) {
  throw InternalError("graph editor: " + what + "; please report this");
}

}  // namespace

GraphEditor::GraphEditor(const Graph& source) : source_(source), result_id_(result_.id()) {
  first_slot_.reserve(source.nodes().size());
  std::size_t slots = 0;
  for (const Node& node : source.nodes()) {
    first_slot_.push_back(slots);
    slots += node.outputs.size();
  }
  targets_.resize(slots);
}

std::size_t GraphEditor::slot(Symbol old) const {
  (void)source_.spec(old);  // refuses foreign symbols
  return first_slot_[static_cast<std::size_t>(old.node)] + static_cast<std::size_t>(old.output);
}

bool GraphEditor::has(Symbol old) const { return targets_[slot(old)].node >= 0; }

Symbol GraphEditor::mapped(Symbol old) const {
  const Target& target = targets_[slot(old)];
  if (target.node < 0) our_fault("nothing stands for '" + source_.node(old).name + "'");
  return {target.node, target.output, result_id_};
}

std::vector<Symbol> GraphEditor::mapped(std::span<const Symbol> olds) const {
  std::vector<Symbol> news;
  news.reserve(olds.size());
  for (const Symbol old : olds) news.push_back(mapped(old));
  return news;
}

void GraphEditor::map_outputs(int node, Symbol first) {
  const std::size_t shared =
      std::min(source_node(node).outputs.size(), result_.node(first).outputs.size());
  for (std::size_t i = 0; i < shared; ++i) {
    targets_[first_slot_[static_cast<std::size_t>(node)] + i] = {first.node, static_cast<int>(i)};
  }
}

Symbol GraphEditor::keep(int node) {
  const Node& old = source_node(node);
  if (old.kind == NodeKind::kOp) return replace(node, old.op, mapped(old.inputs));
  return keep(node, old.outputs[0]);
}

Symbol GraphEditor::keep(int node, TensorSpec spec) {
  const Node& old = source_node(node);
  if (old.kind == NodeKind::kOp) our_fault("the spec of op '" + old.name + "' is inferred");
  const Symbol copy =
      result_.leaf(old.kind, old.name, std::move(spec), old.initializer, old.layout);
  result_.nodes_.back().origin = old.origin;
  map_outputs(node, copy);
  return copy;
}

Symbol GraphEditor::replace(int node, Op op, std::vector<Symbol> inputs) {
  return replace(node, node, std::move(op), std::move(inputs));
}

Symbol GraphEditor::replace(int node, int named_after, Op op, std::vector<Symbol> inputs) {
  const Node& old = source_node(named_after);
  if (result_.contains(old.name)) our_fault("'" + old.name + "' is already there");
  const Symbol added = result_.add(std::move(op), std::move(inputs), old.name, old.origin);
  map_outputs(node, added);
  return added;
}

Symbol GraphEditor::emit(Op op, std::vector<Symbol> inputs, const std::string& name,
                         const std::string& origin) {
  const std::string wanted = name.empty() ? op_name(op) : name;
  std::string free = wanted;
  for (int suffix = 1; source_.contains(free) || result_.contains(free); ++suffix) {
    free = wanted + "_" + std::to_string(suffix);
  }
  return result_.add(std::move(op), std::move(inputs), std::move(free), origin);
}

void GraphEditor::substitute(Symbol old, Symbol now) {
  if (source_.spec(old) != result_.spec(now)) {
    our_fault("'" + source_.node(old).name + "' is " + to_string(source_.spec(old)) +
              ", its substitute " + to_string(result_.spec(now)));
  }
  targets_[slot(old)] = {now.node, now.output};
}

Graph GraphEditor::finish() {
  for (const auto& [name, symbol] : source_.outputs()) result_.set_output(name, mapped(symbol));
  for (const Assignment& assignment : source_.assignments()) {
    result_.assign(mapped(assignment.variable), mapped(assignment.value));
  }
  return std::move(result_);
}

GraphUses::GraphUses(const Graph& graph)
    : consumers_(graph.nodes().size()),
      counts_(graph.nodes().size()),
      other_output_used_(graph.nodes().size()),
      results_(graph.nodes().size()) {
  const auto use = [&](Symbol symbol) {
    const auto node = static_cast<std::size_t>(symbol.node);
    ++counts_[node];
    if (symbol.output != 0) other_output_used_[node] = true;
    return node;
  };
  for (std::size_t i = 0; i < graph.nodes().size(); ++i) {
    for (const Symbol input : graph.nodes()[i].inputs) {
      std::vector<int>& consumers = consumers_[use(input)];
      if (consumers.empty() || consumers.back() != static_cast<int>(i)) {
        consumers.push_back(static_cast<int>(i));
      }
    }
  }
  for (const auto& output : graph.outputs()) results_[use(output.second)] = true;
  for (const Assignment& assignment : graph.assignments()) {
    results_[use(assignment.value)] = true;
    results_[static_cast<std::size_t>(assignment.variable.node)] = true;
  }
}

int GraphUses::sole_consumer(int node) const {
  const auto i = static_cast<std::size_t>(node);
  return counts_[i] == 1 && consumers_[i].size() == 1 && !other_output_used_[i] ? consumers_[i][0]
                                                                                : -1;
}

std::vector<bool> live_nodes(const Graph& graph) {
  std::vector<bool> live(graph.nodes().size());
  const auto mark = [&](Symbol symbol) { live[static_cast<std::size_t>(symbol.node)] = true; };
  for (const auto& output : graph.outputs()) mark(output.second);
  for (const Assignment& assignment : graph.assignments()) {
    mark(assignment.variable);
    mark(assignment.value);
  }
  for (std::size_t i = graph.nodes().size(); i-- > 0;) {
    if (!live[i]) continue;
    for (const Symbol input : graph.nodes()[i].inputs) mark(input);
  }
  return live;
}

}  // namespace pycnn
