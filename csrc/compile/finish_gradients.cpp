// Where a tensor has two readers, as the end of a residual block has, its gradient is a sum, and
// where a ReLU made it, that sum goes back through the ReLU:
//
//   conv2d_grad_input -> add -> activation_grad     one op; either of the two others may be missing
//
// Walks over both and asks whether the gradient of a convolution's input ends there, and whether
// the backend's kernel for it can do that to what it stores. What is fused takes the place of the
// convolution where the inputs that joined are there by then: behind the gradient of the weight and
// its update, its packed weight would live beside them. Else it takes that of the last op.
#include <algorithm>
#include <optional>

#include "backends/backend.h"
#include "compile/passes.h"
#include "compile/pinned.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

// A gradient and what has joined it so far.
struct Finished {
  int source = -1;
  GradientEpilogue finish;
  std::vector<Symbol> inputs;  // those that it asks for
};

class Finisher {
 public:
  Finisher(const Graph& graph, const FinishRule& rule)
      : editor_(graph),
        uses_(graph),
        rule_(rule),
        ends_(graph.nodes().size()),
        moved_(graph.nodes().size(), false) {}

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) look_at(i);
    std::vector<int> end_of(ends_.size(), -1);  // by source
    for (int i = 0; i < editor_.size(); ++i)
      if (is_fused(i)) end_of[static_cast<std::size_t>(source_of(i))] = i;
    for (int i = 0; i < editor_.size(); ++i) {
      const int end = end_of[static_cast<std::size_t>(i)];
      if (end >= 0 && has_inputs(end)) emit(end);
      if (moved_[static_cast<std::size_t>(i)]) continue;
      if (!is_fused(i))
        editor_.keep(i);
      else if (!editor_.has(editor_.source_symbol(i)))
        emit(i);
    }
    return editor_.finish();
  }

 private:
  void look_at(int i) {
    const Node& node = editor_.source_node(i);
    if (node.kind != NodeKind::kOp || is_pinned(rule_.pins, node)) return;
    if (const auto* grad = std::get_if<ops::Conv2dGradInput>(&node.op)) {
      if (!grad->sums.wanted && grad->finish == GradientEpilogue{})
        ends_[static_cast<std::size_t>(i)] = Finished{i, {}, {}};
    } else if (const auto* slope = std::get_if<ops::ActivationGrad>(&node.op)) {
      if (slope->kind == ActivationKind::kRelu) join_relu(i, node);
    } else if (std::holds_alternative<ops::Add>(node.op)) {
      join_sum(i, node);
    }
  }

  // The gradient that a symbol is, if nobody else reads it and the ReLU has not joined yet.
  const Finished* gradient_before(Symbol symbol) const {
    const std::optional<Finished>& end = ends_[static_cast<std::size_t>(symbol.node)];
    if (!end || end->finish.relu || uses_.count(symbol.node) != 1) return nullptr;
    return &*end;
  }

  void join_relu(int i, const Node& node) {
    const Finished* before = gradient_before(node.inputs[1]);
    if (before == nullptr) return;
    Finished finished = *before;
    finished.finish.relu = true;
    finished.inputs.push_back(node.inputs[0]);
    take(i, node.inputs[1], std::move(finished));
  }

  // Of two gradients the later one takes the other, if it can.
  void join_sum(int i, const Node& node) {
    const Graph& graph = editor_.source();
    if (graph.spec(node.inputs[0]) != graph.spec(node.inputs[1])) return;
    const int later = node.inputs[1].node > node.inputs[0].node ? 1 : 0;
    for (const int side : {later, 1 - later}) {
      const Symbol sum = node.inputs[static_cast<std::size_t>(side)];
      const Finished* before = gradient_before(sum);
      if (before == nullptr || before->finish.residual) continue;
      Finished finished = *before;
      finished.finish.residual = true;
      finished.inputs.push_back(node.inputs[static_cast<std::size_t>(1 - side)]);
      if (take(i, sum, std::move(finished))) return;
    }
  }

  bool take(int i, Symbol from, Finished finished) {
    const Node& source = editor_.source_node(finished.source);
    std::vector<TensorSpec> inputs;
    for (const std::vector<Symbol>& symbols : {source.inputs, finished.inputs})
      for (const Symbol symbol : symbols) inputs.push_back(editor_.source().spec(symbol));
    Problem problem{inputs, source.outputs, rule_.isa, 1, {}, rule_.winograd};
    if (!rule_.backend->finishes(op_of(finished), problem)) return false;
    moved_[static_cast<std::size_t>(from.node)] = true;
    ends_[static_cast<std::size_t>(i)] = std::move(finished);
    return true;
  }

  ops::Conv2dGradInput op_of(const Finished& finished) const {
    auto op = std::get<ops::Conv2dGradInput>(editor_.source_node(finished.source).op);
    op.finish = finished.finish;
    return op;
  }

  int source_of(int i) const { return ends_[static_cast<std::size_t>(i)]->source; }
  // Whether a finished gradient ends here.
  bool is_fused(int i) const {
    const auto at = static_cast<std::size_t>(i);
    return !moved_[at] && ends_[at] && ends_[at]->source != i;
  }

  std::vector<Symbol> inputs_of(int i) const {
    std::vector<Symbol> inputs = editor_.source_node(source_of(i)).inputs;
    for (const Symbol input : ends_[static_cast<std::size_t>(i)]->inputs) inputs.push_back(input);
    return inputs;
  }
  bool has_inputs(int i) const {
    const std::vector<Symbol> inputs = inputs_of(i);
    return std::all_of(inputs.begin(), inputs.end(),
                       [&](Symbol input) { return editor_.has(input); });
  }

  void emit(int i) {
    editor_.replace(i, source_of(i), op_of(*ends_[static_cast<std::size_t>(i)]),
                    editor_.mapped(inputs_of(i)));
  }

  GraphEditor editor_;
  GraphUses uses_;
  const FinishRule& rule_;
  std::vector<std::optional<Finished>> ends_;  // by node whose output the finished gradient is
  std::vector<bool> moved_;
};

}  // namespace

Graph finish_gradients(const Graph& graph, const FinishRule& rule) {
  return Finisher(graph, rule).result();
}

}  // namespace pycnn
