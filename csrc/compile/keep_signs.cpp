// The gradient of what a residual block gives goes back through the ReLU at its end: where the
// block behind it is a convolution of that, within the gradient of this convolution's input
// (finish_gradients). Of the block's whole result, that wants a bit a value. The batch norm that
// stores the result writes the bits beside it, a sixteenth of 16-bit images, and the gradient reads
// these.
#include "compile/passes.h"
#include "compile/pinned.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

class SignKeeper {
 public:
  SignKeeper(const Graph& graph, const Pins& pins)
      : editor_(graph), pins_(pins), gives_(graph.nodes().size(), false) {}

  Graph result() {
    std::vector<bool> takes(gives_.size(), false);
    for (int i = 0; i < editor_.size(); ++i) {
      if (!goes_back(i) || !can_give(gate_of(i))) continue;
      takes[at(i)] = gives_[at(gate_of(i).node)] = true;
    }
    for (int i = 0; i < editor_.size(); ++i) {
      if (gives_[at(i)])
        give(i);
      else if (takes[at(i)])
        take(i);
      else
        editor_.keep(i);
    }
    return editor_.finish();
  }

 private:
  static std::size_t at(int node) { return static_cast<std::size_t>(node); }
  const Node& node(int i) const { return editor_.source_node(i); }

  // Whether a convolution's gradient goes back through a ReLU.
  bool goes_back(int i) const {
    const auto* const grad = editor_.op_at<ops::Conv2dGradInput>(i);
    return grad != nullptr && grad->finish.relu && !grad->finish.signs &&
           !is_pinned(pins_, node(i));
  }
  std::size_t gate_place(int i) const {
    return editor_.op_at<ops::Conv2dGradInput>(i)->finish.residual ? 3 : 2;
  }
  Symbol gate_of(int i) const { return node(i).inputs[gate_place(i)]; }

  bool can_give(Symbol result) const {
    constexpr std::int64_t kBits = 8;
    const auto* const norm = editor_.op_at<ops::BatchNormApply>(result.node);
    return norm != nullptr && result.output == 0 &&
           norm->epilogue.activation == ActivationKind::kRelu &&
           !is_pinned(pins_, node(result.node)) &&
           editor_.source().spec(result).shape.back() % kBits == 0;
  }

  void give(int i) {
    auto op = *editor_.op_at<ops::BatchNormApply>(i);
    op.epilogue.signs = true;
    editor_.replace(i, op, editor_.mapped(node(i).inputs));
  }

  void take(int i) {
    auto op = *editor_.op_at<ops::Conv2dGradInput>(i);
    op.finish.signs = true;
    std::vector<Symbol> inputs = editor_.mapped(node(i).inputs);
    const auto gate = inputs.begin() + static_cast<std::ptrdiff_t>(gate_place(i));
    const Symbol signs{gate->node, 1, gate->graph};
    inputs.insert(gate + 1, signs);
    editor_.replace(i, op, std::move(inputs));
  }

  GraphEditor editor_;
  const Pins& pins_;
  std::vector<bool> gives_;  // by node
};

}  // namespace

Graph keep_signs(const Graph& graph, const std::map<std::string, std::string>& pins) {
  return SignKeeper(graph, pins).result();
}

}  // namespace pycnn
