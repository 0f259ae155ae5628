// Batch norms of training look twice at what a convolution next to them has just written: for the
// moments of its result, and in the backward pass for two sums of a gradient. Where the backend
// says so, the convolution gives these beside its result, so that nobody reads it for them:
//
//   conv2d -> batch_norm_statistics                      the moments come from the convolution,
//                                                        whoever else reads its result
//   conv2d -> slice of channels -> batch_norm_statistics the same slice of its moments
//   conv2d_grad_input -> batch_norm_apply_grad,          the sums come from the convolution, the
//                        batch_norm_train_grad           batch norm reads the gradient once
#include <algorithm>
#include <optional>

#include "backends/backend.h"
#include "compile/passes.h"
#include "compile/pinned.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

class Measurer {
 public:
  Measurer(const Graph& graph, const MeasureRule& rule)
      : editor_(graph),
        uses_(graph),
        rule_(rule),
        gives_moments_(graph.nodes().size(), false),
        gives_sums_for_(graph.nodes().size(), -1) {
    for (int i = 0; i < editor_.size(); ++i) {
      find_moments(i);
      find_sums(i);
    }
  }

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (gives_moments_[at])
        give_moments(i);
      else if (gives_sums_for_[at] >= 0)
        give_sums(i);
      else
        take_or_keep(i);
    }
    return editor_.finish();
  }

 private:
  const Node& node(int i) const { return editor_.source_node(i); }

  bool is_pinned(int i) const { return pycnn::is_pinned(rule_.pins, node(i)); }

  bool measures(int i) const {
    std::vector<TensorSpec> inputs;
    for (const Symbol input : node(i).inputs) inputs.push_back(editor_.source().spec(input));
    const Problem problem{inputs, node(i).outputs, rule_.isa, 1, {}, rule_.winograd};
    return !is_pinned(i) && rule_.backend->measures(node(i).op, problem);
  }

  // What a batch norm takes the statistics of: the first result of a convolution, or some channels
  // of that by a slice.
  struct Source {
    int conv = -1;
    int slice = -1;
  };
  Source source_of(int statistics) const {
    if (editor_.op_at<ops::BatchNormStatistics>(statistics) == nullptr ||
        node(statistics).inputs.size() != 5)
      return {};
    Symbol read = node(statistics).inputs[0];
    Source source;
    if (const auto* slice = editor_.op_at<ops::Slice>(read.node)) {
      source.slice = read.node;
      read = node(read.node).inputs[0];
      const Shape& whole = editor_.source().spec(read).shape;
      if (!std::equal(whole.begin(), whole.end() - 1, slice->size.begin())) return {};
    }
    if (editor_.op_at<ops::Conv2d>(read.node) != nullptr && read.output == 0)
      source.conv = read.node;
    return source;
  }

  void find_moments(int i) {
    const int conv = source_of(i).conv;
    if (conv >= 0 && measures(conv)) gives_moments_[static_cast<std::size_t>(conv)] = true;
  }

  // What a gradient of a batch norm reads: its input, batch_mean and, with an activation, factor
  // and offset.
  struct Norm {
    NormSums sums;
    Symbol grad_output;
    std::vector<Symbol> read;
  };
  std::optional<Norm> norm_of(int i) const {
    const std::vector<Symbol>& in = node(i).inputs;
    const auto* apply = editor_.op_at<ops::BatchNormApplyGrad>(i);
    if (apply != nullptr && in.size() == 7)
      return Norm{{true, apply->activation, apply->slope}, in[6], {in[0], in[2], in[4], in[5]}};
    // Without an activation factor and offset are not looked at; these have their shape.
    if (editor_.op_at<ops::BatchNormTrainGrad>(i) != nullptr && in.size() == 5)
      return Norm{{true, ActivationKind::kIdentity, 0.01}, in[4], {in[0], in[2], in[1], in[1]}};
    return std::nullopt;
  }

  void find_sums(int i) {
    const std::optional<Norm> norm = norm_of(i);
    if (!norm) return;
    const int source = norm->grad_output.node;
    const auto* conv = editor_.op_at<ops::Conv2dGradInput>(source);
    if (conv == nullptr || gives_sums_for_[static_cast<std::size_t>(source)] >= 0) return;
    // What others add something to is no batch norm's gradient yet; but for one that is finished,
    // which goes on past the batch norm as it is.
    const bool is_finished = conv->finish != GradientEpilogue{};
    if ((!is_finished && uses_.sole_consumer(source) != i) || !measures(source)) return;
    for (const Symbol read : norm->read)
      if (read.node > source) return;
    gives_sums_for_[static_cast<std::size_t>(source)] = i;
  }

  void give_moments(int i) {
    auto op = *editor_.op_at<ops::Conv2d>(i);
    op.epilogue.moments = true;
    editor_.replace(i, op, editor_.mapped(node(i).inputs));
  }

  void give_sums(int i) {
    const Norm norm = *norm_of(gives_sums_for_[static_cast<std::size_t>(i)]);
    auto op = *editor_.op_at<ops::Conv2dGradInput>(i);
    op.sums = norm.sums;
    std::vector<Symbol> inputs = editor_.mapped(node(i).inputs);
    for (const Symbol read : norm.read) inputs.push_back(editor_.mapped(read));
    editor_.replace(i, op, std::move(inputs));
  }

  // The second output of what stands for an output now.
  Symbol beside(Symbol source) const {
    const Symbol now = editor_.mapped(source);
    return {now.node, 1, now.graph};
  }

  Symbol moments_of(const Source& source, const Node& statistics) {
    const Symbol moments = beside(editor_.source_symbol(source.conv));
    if (source.slice < 0) return moments;
    const auto& channels = *editor_.op_at<ops::Slice>(source.slice);
    return editor_.emit(ops::Slice{{0, channels.begin.back()},
                                   {editor_.graph().spec(moments).shape[0], channels.size.back()}},
                        {moments}, statistics.name + ".moments", statistics.origin);
  }

  void take_or_keep(int i) {
    if (const Source source = source_of(i);
        source.conv >= 0 && gives_moments_[static_cast<std::size_t>(source.conv)]) {
      std::vector<Symbol> inputs = editor_.mapped(node(i).inputs);
      inputs.push_back(moments_of(source, node(i)));
      editor_.replace(i, node(i).op, std::move(inputs));
      return;
    }
    const std::optional<Norm> norm = norm_of(i);
    if (norm && gives_sums_for_[static_cast<std::size_t>(norm->grad_output.node)] == i) {
      std::vector<Symbol> inputs = editor_.mapped(node(i).inputs);
      inputs.push_back(beside(norm->grad_output));
      editor_.replace(i, node(i).op, std::move(inputs));
      return;
    }
    editor_.keep(i);
  }

  GraphEditor editor_;
  GraphUses uses_;
  const MeasureRule& rule_;
  std::vector<bool> gives_moments_;  // by node
  std::vector<int> gives_sums_for_;  // by node: the gradient that takes them, or -1
};

}  // namespace

Graph measure_outputs(const Graph& graph, const MeasureRule& rule) {
  return Measurer(graph, rule).result();
}

}  // namespace pycnn
