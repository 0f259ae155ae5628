#include "pycnn/graph.h"

#include <atomic>

#include "graph/names.h"
#include "ops/checks.h"
#include "ops/error_text.h"

namespace pycnn {
namespace {

std::uint32_t next_id() {
  static std::atomic<std::uint32_t> last{0};
  return ++last;
}

template <class... Parts>
[[noreturn]] void graph_error(const Parts&... parts) {
  ops::fail<GraphError>(parts...);
}

void expect_name(std::string_view name, const char* what) {
  if (const char* const fault = name_fault(name)) {
    graph_error(what, " name '", printable(name), "' ", fault);
  }
}

const char* kind_name(NodeKind kind) {
  switch (kind) {
    case NodeKind::kInput:
      return "input";
    case NodeKind::kParameter:
      return "parameter";
    case NodeKind::kBuffer:
      return "buffer";
    case NodeKind::kOp:
      break;
  }
  return "op";
}

// Both or neither, also when memory runs out between the two.
template <class Item, class Note>
void append(std::vector<Item>& items, Item item, const Note& note) {
  items.push_back(std::move(item));
  try {
    note(items.back());
  } catch (...) {
    items.pop_back();
    throw;
  }
}

}  // namespace

Graph::Graph() : id_(next_id()) {}

// ---- Recording

Symbol Graph::leaf(NodeKind kind, std::string name, TensorSpec spec, Initializer init,
                   ParameterLayout layout) {
  expect_name(name, kind_name(kind));
  if (contains(name)) graph_error(kind_name(kind), " '", name, "': the name is taken");
  const std::string who = ops::cat(kind_name(kind), " '", name, "'");
  ops::expect_valid(spec, who.c_str());
  if (layout == ParameterLayout::kConvWeight && spec.shape.size() != 4) {
    throw ShapeError(who + " " + to_string(spec.shape) +
                     " is marked as a convolution weight, which has 4 axes: (OC, KH, KW, IC / "
                     "groups)");
  }
  Node node;
  node.name = std::move(name);
  node.kind = kind;
  node.op = ops::Fill{};
  node.outputs.push_back(std::move(spec));
  node.initializer = init;
  node.layout = layout;
  const int index = static_cast<int>(nodes_.size());
  append(nodes_, std::move(node), [&](const Node& added) { index_.emplace(added.name, index); });
  return {index, 0, id_};
}

Symbol Graph::input(std::string name, TensorSpec spec) {
  return leaf(NodeKind::kInput, std::move(name), std::move(spec), {}, ParameterLayout::kPlain);
}

Symbol Graph::parameter(std::string name, TensorSpec spec, Initializer init,
                        ParameterLayout layout) {
  return leaf(NodeKind::kParameter, std::move(name), std::move(spec), init, layout);
}

Symbol Graph::buffer(std::string name, TensorSpec spec, Initializer init) {
  return leaf(NodeKind::kBuffer, std::move(name), std::move(spec), init, ParameterLayout::kPlain);
}

// Doubles the suffix until a free one is met, then halves the gap: many nodes of one name cost few
// look-ups each. With suffixes given in order it finds the next one.
std::string Graph::unique_name(std::string wanted) {
  if (!contains(wanted)) return wanted;
  const auto suffixed = [&](std::int64_t k) { return wanted + "_" + std::to_string(k); };
  std::int64_t taken = 0, free = 1;
  while (contains(suffixed(free))) taken = free, free *= 2;
  while (free - taken > 1) {
    const std::int64_t middle = taken + (free - taken) / 2;
    (contains(suffixed(middle)) ? taken : free) = middle;
  }
  return suffixed(free);
}

Symbol Graph::add(Op op, std::vector<Symbol> inputs, std::string name, std::string origin) {
  const std::string who =
      name.empty() ? std::string(op_name(op)) : ops::cat(op_name(op), " '", printable(name), "'");
  Node node;
  ops::with_error_text(
      [&] {
        if (!name.empty()) expect_name(name, "node");
        std::vector<TensorSpec> specs;
        specs.reserve(inputs.size());
        for (const Symbol symbol : inputs) specs.push_back(spec(symbol));
        node.outputs = infer(op, specs);
      },
      [&](const std::string& text) {
        return ops::cat(who, ": ", text, origin.empty() ? "" : "\n  at " + origin);
      });
  node.name = unique_name(name.empty() ? op_name(op) : std::move(name));
  node.op = std::move(op);
  node.inputs = std::move(inputs);
  node.origin = std::move(origin);
  const int index = static_cast<int>(nodes_.size());
  append(nodes_, std::move(node), [&](const Node& added) { index_.emplace(added.name, index); });
  return {index, 0, id_};
}

// ---- Results

void Graph::set_output(std::string name, Symbol value) {
  expect_name(name, "output");
  (void)spec(value);
  if (output_names_.contains(name)) {
    graph_error("output '", name, "': there is one of this name already");
  }
  append(outputs_, {std::move(name), value},
         [&](const auto& output) { output_names_.insert(output.first); });
}

void Graph::clear_outputs() {
  outputs_.clear();
  output_names_.clear();
}

void Graph::clear_assignments() {
  assignments_.clear();
  assigned_.clear();
}

void Graph::assign(Symbol variable, Symbol value) {
  const Node& target = node(variable);
  if (target.kind != NodeKind::kParameter && target.kind != NodeKind::kBuffer) {
    graph_error("assign to '", target.name, "': it is an ", kind_name(target.kind),
                ", expected a parameter or buffer");
  }
  if (spec(value) != target.outputs[0]) {
    const std::string text = ops::cat("assign to '", target.name, "': the value is ", spec(value),
                                      ", the variable ", target.outputs[0]);
    if (spec(value).dtype != target.outputs[0].dtype) throw DTypeError(text);
    throw ShapeError(text);
  }
  if (assigned_.contains(variable.node)) {
    graph_error("assign to '", target.name, "': it is assigned already");
  }
  append(assignments_, {variable, value},
         [&](const Assignment& added) { assigned_.insert(added.variable.node); });
}

// ---- Looking up

const Node& Graph::node(Symbol symbol) const {
  if (symbol.node == -1) graph_error("the symbol is empty; it was never given a value");
  if (symbol.graph != id_) {
    graph_error("the symbol belongs to another graph; symbols are valid only where they were made");
  }
  if (symbol.node < 0 || static_cast<std::size_t>(symbol.node) >= nodes_.size()) {
    graph_error("the symbol names node ", symbol.node, ", the graph has ", nodes_.size());
  }
  return nodes_[static_cast<std::size_t>(symbol.node)];
}

const TensorSpec& Graph::spec(Symbol symbol) const {
  const Node& maker = node(symbol);
  if (symbol.output < 0 || static_cast<std::size_t>(symbol.output) >= maker.outputs.size()) {
    graph_error("the symbol names output ", symbol.output, " of '", maker.name, "', which has ",
                maker.outputs.size());
  }
  return maker.outputs[static_cast<std::size_t>(symbol.output)];
}

bool Graph::contains(std::string_view name) const { return index_.find(name) != index_.end(); }

Symbol Graph::find(std::string_view name) const {
  const auto found = index_.find(name);
  if (found != index_.end()) return {found->second, 0, id_};
  std::vector<std::string_view> names;
  names.reserve(nodes_.size());
  for (const Node& node : nodes_) names.push_back(node.name);
  const std::string closest = closest_names(name, names);
  graph_error("no node is called '", printable(name), "'",
              closest.empty() ? "" : "\n  hint: the closest are " + closest);
}

// ---- Other sizes

Graph Graph::with_inputs(const std::map<std::string, TensorSpec>& inputs) const {
  for (const auto& given : inputs) {
    const Node& target = node(find(given.first));
    if (target.kind != NodeKind::kInput) {
      graph_error("'", target.name, "' is not an input but a ", kind_name(target.kind));
    }
  }
  Graph result;
  // Names are unique already, so every node keeps its place and its name.
  const auto here = [&](Symbol symbol) { return Symbol{symbol.node, symbol.output, result.id_}; };
  for (const Node& old : nodes_) {
    if (old.kind == NodeKind::kOp) {
      std::vector<Symbol> sources;
      sources.reserve(old.inputs.size());
      for (const Symbol input : old.inputs) sources.push_back(here(input));
      result.add(old.op, std::move(sources), old.name, old.origin);
      continue;
    }
    const auto given = inputs.find(old.name);
    const bool other = old.kind == NodeKind::kInput && given != inputs.end();
    result.leaf(old.kind, old.name, other ? given->second : old.outputs[0], old.initializer,
                old.layout);
    result.nodes_.back().origin = old.origin;
  }
  for (const auto& [name, symbol] : outputs_) result.set_output(name, here(symbol));
  for (const Assignment& old : assignments_) result.assign(here(old.variable), here(old.value));
  return result;
}

}  // namespace pycnn
