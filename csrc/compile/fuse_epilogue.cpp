// Walks over additions and activations and asks whether a layer's or batch norm's result ends
// there. The fused layer takes the place of the last op that joins it, where all its inputs are
// there.
#include <optional>

#include "compile/passes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

// The epilogue of an op that has one.
const Epilogue* epilogue_of(const Node& node) {
  if (node.kind != NodeKind::kOp) return nullptr;
  if (const auto* conv = std::get_if<ops::Conv2d>(&node.op)) return &conv->epilogue;
  if (const auto* dense = std::get_if<ops::Dense>(&node.op)) return &dense->epilogue;
  if (const auto* norm = std::get_if<ops::BatchNormApply>(&node.op)) return &norm->epilogue;
  return nullptr;
}

Op with_epilogue(Op op, const Epilogue& epilogue) {
  if (auto* conv = std::get_if<ops::Conv2d>(&op)) conv->epilogue = epilogue;
  if (auto* dense = std::get_if<ops::Dense>(&op)) dense->epilogue = epilogue;
  if (auto* norm = std::get_if<ops::BatchNormApply>(&op)) norm->epilogue = epilogue;
  return op;
}

// A layer and what has joined it so far.
struct Fused {
  int layer = -1;
  Epilogue epilogue;
  Symbol residual;
};

class Fuser {
 public:
  explicit Fuser(const Graph& graph)
      : editor_(graph),
        uses_(graph),
        ends_(graph.nodes().size()),
        moved_(graph.nodes().size(), false) {}

  Graph result() {
    const std::vector<Node>& nodes = editor_.source().nodes();
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (const Epilogue* own = epilogue_of(nodes[i]))
        ends_[i] = Fused{static_cast<int>(i), *own, {}};
      else if (nodes[i].kind == NodeKind::kOp)
        join(i, nodes[i]);
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (moved_[i]) continue;
      if (ends_[i] && ends_[i]->layer != static_cast<int>(i))
        emit(static_cast<int>(i), *ends_[i]);
      else
        editor_.keep(static_cast<int>(i));
    }
    return editor_.finish();
  }

 private:
  // The layer that a symbol is the whole result of, if nobody else reads it.
  const Fused* layer_before(Symbol symbol) const {
    const std::optional<Fused>& fused = ends_[static_cast<std::size_t>(symbol.node)];
    if (!fused || uses_.count(symbol.node) != 1) return nullptr;
    return fused->epilogue.activation == ActivationKind::kIdentity ? &*fused : nullptr;
  }

  // Of a batch norm the gradient must see from its input where the activation was open.
  bool takes(int layer, ActivationKind kind) const {
    return !std::holds_alternative<ops::BatchNormApply>(editor_.source_node(layer).op) ||
           kind == ActivationKind::kIdentity || kind == ActivationKind::kRelu ||
           kind == ActivationKind::kRelu6 || kind == ActivationKind::kLeakyRelu;
  }

  void join(std::size_t index, const Node& node) {
    if (const auto* activation = std::get_if<ops::Activation>(&node.op)) {
      const Fused* before = layer_before(node.inputs[0]);
      if (before == nullptr || !takes(before->layer, activation->kind)) return;
      Fused fused = *before;
      fused.epilogue.activation = activation->kind;
      fused.epilogue.slope = activation->slope;
      take(index, node.inputs[0], fused);
    } else if (std::holds_alternative<ops::Add>(node.op)) {
      join_residual(index, node);
    }
  }

  // Of two layers the later one takes the other's result as its residual.
  void join_residual(std::size_t index, const Node& node) {
    const Graph& graph = editor_.source();
    if (graph.spec(node.inputs[0]) != graph.spec(node.inputs[1])) return;
    const int later = node.inputs[1].node > node.inputs[0].node ? 1 : 0;
    for (const int side : {later, 1 - later}) {
      const Symbol sum = node.inputs[static_cast<std::size_t>(side)];
      const Fused* before = layer_before(sum);
      if (before == nullptr || before->epilogue.residual) continue;
      Fused fused = *before;
      fused.epilogue.residual = true;
      fused.residual = node.inputs[static_cast<std::size_t>(1 - side)];
      take(index, sum, fused);
      return;
    }
  }

  void take(std::size_t index, Symbol from, const Fused& fused) {
    moved_[static_cast<std::size_t>(from.node)] = true;
    ends_[index] = fused;
  }

  void emit(int index, const Fused& fused) {
    const Node& layer = editor_.source().nodes()[static_cast<std::size_t>(fused.layer)];
    std::vector<Symbol> inputs = editor_.mapped(layer.inputs);
    const bool joined = fused.epilogue.residual && !epilogue_of(layer)->residual;
    if (joined) inputs.push_back(editor_.mapped(fused.residual));
    editor_.replace(index, fused.layer, with_epilogue(layer.op, fused.epilogue), inputs);
  }

  GraphEditor editor_;
  GraphUses uses_;
  std::vector<std::optional<Fused>> ends_;  // by node whose output the fused layer makes
  std::vector<bool> moved_;
};

}  // namespace

Graph fuse_epilogue(const Graph& graph) { return Fuser(graph).result(); }

}  // namespace pycnn
