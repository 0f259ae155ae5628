// Between a batch norm's pass and the max pool behind it lies the largest activation of many nets,
// which the pool makes a quarter of. Where nobody else reads it, it is never stored:
//
//   batch_norm_apply -> max_pool2d                 batch_norm_max_pool
//   max_pool2d_grad -> batch_norm_apply_grad,      batch_norm_max_pool_grad
//                      batch_norm_train_grad
//
// Both or none: the gradient of the pool by itself would want to read what is gone. What they read
// in its place, the input of the batch norm, is kept for the gradient of that anyway.
#include <optional>

#include "backends/backend.h"
#include "compile/passes.h"
#include "compile/pinned.h"
#include "compile/same_attributes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

class PoolFuser {
 public:
  PoolFuser(const Graph& graph, const PoolRule& rule)
      : editor_(graph),
        uses_(graph),
        rule_(rule),
        gone_(graph.nodes().size(), false),
        fused_(graph.nodes().size()) {
    for (int i = 0; i < editor_.size(); ++i) look_at(i);
  }

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (gone_[at]) continue;
      if (const std::optional<Fused>& fused = fused_[at])
        editor_.replace(i, fused->op, editor_.mapped(fused->inputs));
      else
        editor_.keep(i);
    }
    return editor_.finish();
  }

 private:
  struct Fused {
    Op op;
    std::vector<Symbol> inputs;
  };

  const Node& node(int i) const { return editor_.source_node(i); }
  bool is_pinned(int i) const { return pycnn::is_pinned(rule_.pins, node(i)); }
  bool pools(const Fused& fused, const Node& instead) const {
    std::vector<TensorSpec> inputs;
    for (const Symbol input : fused.inputs) inputs.push_back(editor_.source().spec(input));
    return rule_.backend->pools(fused.op, {inputs, instead.outputs, rule_.isa, 1, {}});
  }

  // The pool's gradient and that of the batch norm, which reads it, as one; `norm` is the first of
  // the node `apply`.
  std::optional<Fused> gradient(int apply, int pool_grad, const ops::BatchNormMaxPool& forward,
                                int norm_grad) const {
    const std::vector<Symbol>&of = node(apply).inputs, &in = node(norm_grad).inputs;
    const auto* open = editor_.op_at<ops::BatchNormTrainGrad>(norm_grad);
    const auto* gated = editor_.op_at<ops::BatchNormApplyGrad>(norm_grad);
    const std::size_t grad_output = gated != nullptr ? 6 : 4;
    if ((open == nullptr && gated == nullptr) || in.size() != grad_output + 1 ||
        in[grad_output].node != pool_grad || in[0] != of[0] || in[2] != of[1])
      return std::nullopt;
    if (gated != nullptr ? gated->activation != forward.activation ||
                               gated->slope != forward.slope || in[4] != of[2] || in[5] != of[3]
                         : forward.activation != ActivationKind::kIdentity)
      return std::nullopt;
    return Fused{ops::BatchNormMaxPoolGrad{forward},
                 {in[0], in[1], in[2], in[3], of[2], of[3], node(pool_grad).inputs[1]}};
  }

  void look_at(int apply) {
    const auto* norm = editor_.op_at<ops::BatchNormApply>(apply);
    if (norm == nullptr || norm->epilogue.residual || uses_.is_result(apply) || is_pinned(apply))
      return;
    const Symbol between = editor_.source_symbol(apply);
    int pool = -1, pool_grad = -1;
    for (const int reader : uses_.consumers(apply)) {
      const bool is_grad = editor_.op_at<ops::MaxPool2dGrad>(reader) != nullptr;
      int& place = is_grad ? pool_grad : pool;
      if ((!is_grad && editor_.op_at<ops::MaxPool2d>(reader) == nullptr) || place >= 0 ||
          is_pinned(reader) || (is_grad && node(reader).inputs[1] == between))
        return;
      place = reader;
    }
    if (pool < 0) return;
    const auto& windows = *editor_.op_at<ops::MaxPool2d>(pool);
    const ops::BatchNormMaxPool op{windows, norm->epilogue.activation, norm->epilogue.slope};
    Fused forward{op, node(apply).inputs};
    if (!pools(forward, node(pool))) return;
    if (pool_grad >= 0) {
      const int norm_grad = uses_.sole_consumer(pool_grad);
      if (norm_grad < 0 || is_pinned(norm_grad) ||
          !same_attributes(editor_.op_at<ops::MaxPool2dGrad>(pool_grad)->pool, windows))
        return;
      std::optional<Fused> backward = gradient(apply, pool_grad, op, norm_grad);
      if (!backward || !pools(*backward, node(norm_grad))) return;
      gone_[static_cast<std::size_t>(pool_grad)] = true;
      fused_[static_cast<std::size_t>(norm_grad)] = std::move(backward);
    }
    gone_[static_cast<std::size_t>(apply)] = true;
    fused_[static_cast<std::size_t>(pool)] = std::move(forward);
  }

  GraphEditor editor_;
  GraphUses uses_;
  const PoolRule& rule_;
  std::vector<bool> gone_;
  std::vector<std::optional<Fused>> fused_;  // by node in whose place it stands
};

}  // namespace

Graph fuse_max_pool(const Graph& graph, const PoolRule& rule) {
  return PoolFuser(graph, rule).result();
}

}  // namespace pycnn
