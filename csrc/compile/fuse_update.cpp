// The gradient of a large dense layer's weight is often the largest tensor of a training step, and
// read once. The joined op stands where the gradient was, so the variables come first in the graph.
#include <vector>

#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

// Smaller gradients stay in a cache anyway.
constexpr std::int64_t kLeastWeights = std::int64_t{1} << 20;

class UpdateFuser {
 public:
  UpdateFuser(const Graph& graph, const std::map<std::string, std::string>& pins)
      : editor_(graph),
        uses_(graph),
        pins_(pins),
        update_of_(graph.nodes().size(), -1),
        gone_(graph.nodes().size(), false) {}

  Graph result() {
    bool any = false;
    for (int i = 0; i < editor_.size(); ++i) {
      const int update = update_after(i);
      if (update < 0) continue;
      update_of_[static_cast<std::size_t>(i)] = update;
      gone_[static_cast<std::size_t>(update)] = true;
      any = true;
    }
    if (!any) return editor_.source();
    for (int i = 0; i < editor_.size(); ++i)
      if (editor_.source_node(i).kind != NodeKind::kOp) editor_.keep(i);
    for (int i = 0; i < editor_.size(); ++i) {
      if (editor_.source_node(i).kind != NodeKind::kOp || gone_[static_cast<std::size_t>(i)])
        continue;
      if (update_of_[static_cast<std::size_t>(i)] >= 0)
        fuse(i, update_of_[static_cast<std::size_t>(i)]);
      else
        editor_.keep(i);
    }
    return editor_.finish();
  }

 private:
  bool is_pinned(const Node& node) const {
    return pins_.contains(node.name) || pins_.contains(op_name(node.op));
  }

  // The update that alone takes the weight's gradient which node i makes, or -1.
  int update_after(int i) const {
    const Node& node = editor_.source_node(i);
    if (node.kind != NodeKind::kOp || !std::holds_alternative<ops::DenseGradWeight>(node.op) ||
        element_count(node.outputs[0].shape) < kLeastWeights || uses_.is_result(i) ||
        is_pinned(node))
      return -1;
    int update = -1;
    for (const int consumer : uses_.consumers(i)) {
      for (const Symbol input : editor_.source_node(consumer).inputs) {
        if (input != editor_.source_symbol(i)) continue;
        if (update >= 0) return -1;
        update = consumer;
      }
    }
    return update >= 0 && takes_gradient(editor_.source_node(update), editor_.source_symbol(i))
               ? update
               : -1;
  }

  bool takes_gradient(const Node& update, Symbol gradient) const {
    const auto* sgd = std::get_if<ops::SgdUpdate>(&update.op);
    const auto* adam = std::get_if<ops::AdamUpdate>(&update.op);
    const bool can = (sgd != nullptr && !sgd->clipped) || (adam != nullptr && !adam->clipped);
    if (!can || is_pinned(update) || update.inputs[1] != gradient) return false;
    // All others must be there where the gradient was made.
    for (std::size_t k = 0; k < update.inputs.size(); ++k)
      if (k != 1 && editor_.source_node(update.inputs[k].node).kind == NodeKind::kOp) return false;
    return true;
  }

  void fuse(int i, int update_node) {
    const Node& node = editor_.source_node(i);
    const Node& update = editor_.source_node(update_node);
    std::vector<Symbol> inputs = {update.inputs[0], node.inputs[0], node.inputs[1]};
    inputs.insert(inputs.end(), update.inputs.begin() + 2, update.inputs.end());
    const bool bias = std::get<ops::DenseGradWeight>(node.op).bias;
    const auto* sgd = std::get_if<ops::SgdUpdate>(&update.op);
    const Op op = sgd != nullptr
                      ? Op(ops::DenseSgdUpdate{bias, *sgd})
                      : Op(ops::DenseAdamUpdate{bias, std::get<ops::AdamUpdate>(update.op)});
    const Symbol joined = editor_.emit(op, editor_.mapped(inputs), node.name, node.origin);
    const int results = static_cast<int>(update.outputs.size());
    for (int k = 0; k < results; ++k)
      editor_.substitute(editor_.source_symbol(update_node, k), {joined.node, k, joined.graph});
    if (bias) editor_.substitute(editor_.source_symbol(i, 1), {joined.node, results, joined.graph});
  }

  GraphEditor editor_;
  GraphUses uses_;
  const std::map<std::string, std::string>& pins_;
  std::vector<int> update_of_;  // by node that makes the gradient
  std::vector<bool> gone_;
};

}  // namespace

Graph fuse_update(const Graph& graph, const std::map<std::string, std::string>& pins) {
  return UpdateFuser(graph, pins).result();
}

}  // namespace pycnn
