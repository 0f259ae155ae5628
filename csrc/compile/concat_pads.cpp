// What was cut into slices has as its gradient a sum of tensors that are zero but for one slice
// each. Where the slices cover all of it and none meets another, that sum is their concatenation.
#include <algorithm>
#include <optional>

#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

// A tensor padded with zeros along one axis.
struct Part {
  std::size_t axis = 0;
  std::int64_t begin = 0, end = 0;
  Symbol source;
};

class PadJoiner {
 public:
  explicit PadJoiner(const Graph& graph) : editor_(graph), uses_(graph) {}

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) {
      const std::vector<Part> parts = parts_of(i);
      if (parts.size() < 2) {
        editor_.keep(i);
        continue;
      }
      std::vector<Symbol> sources;
      for (const Part& part : parts) sources.push_back(editor_.mapped(part.source));
      editor_.replace(i, ops::Concat{static_cast<std::int64_t>(parts[0].axis)}, std::move(sources));
    }
    return editor_.finish();
  }

 private:
  const Node& node(int i) const { return editor_.source_node(i); }
  bool is_add(int i) const {
    return node(i).kind == NodeKind::kOp && std::holds_alternative<ops::Add>(node(i).op);
  }

  std::optional<Part> part_of(Symbol symbol) const {
    const Node& maker = node(symbol.node);
    const auto* pad = maker.kind == NodeKind::kOp ? std::get_if<ops::Pad>(&maker.op) : nullptr;
    if (pad == nullptr || pad->value != 0.0) return std::nullopt;
    std::optional<Part> part;
    for (std::size_t axis = 0; axis < pad->before.size(); ++axis) {
      if (pad->before[axis] == 0 && pad->after[axis] == 0) continue;
      if (part) return std::nullopt;
      const std::int64_t size = maker.outputs[0].shape[axis];
      part = Part{axis, pad->before[axis], size - pad->after[axis], maker.inputs[0]};
    }
    return part;
  }

  // In their order what the sum that ends with node i concatenates; empty if it is none.
  std::vector<Part> parts_of(int i) const {
    std::vector<Part> parts;
    if (!is_add(i)) return parts;
    // The node is a part of a larger sum of this kind only if all of that is one.
    std::vector<Symbol> open = node(i).inputs;
    while (!open.empty()) {
      const Symbol symbol = open.back();
      open.pop_back();
      if (editor_.source().spec(symbol) != node(i).outputs[0]) return {};
      if (const std::optional<Part> part = part_of(symbol)) {
        parts.push_back(*part);
      } else if (is_add(symbol.node) && uses_.count(symbol.node) == 1) {
        for (const Symbol input : node(symbol.node).inputs) open.push_back(input);
      } else {
        return {};
      }
    }
    std::sort(parts.begin(), parts.end(),
              [](const Part& a, const Part& b) { return a.begin < b.begin; });
    std::int64_t covered = 0;
    for (const Part& part : parts) {
      if (part.axis != parts[0].axis || part.begin != covered) return {};
      covered = part.end;
    }
    return covered == node(i).outputs[0].shape[parts[0].axis] ? parts : std::vector<Part>{};
  }

  GraphEditor editor_;
  GraphUses uses_;
};

}  // namespace

Graph concat_pads(const Graph& graph) { return PadJoiner(graph).result(); }

}  // namespace pycnn
