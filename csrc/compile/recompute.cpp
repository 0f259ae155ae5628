// Results of the forward pass that the backward pass reads are the bulk of a training step's
// memory. Two ways to keep fewer, which give the same bits because the same ops run on the same
// values once more:
//
// kCheap takes what one pass over values gives that are kept anyway: a batch norm applied to the
// convolution's result that its own gradient needs, sums of those, their concatenation. A part of
// the bytes stays for speed: those results that most is read for.
//
// kSqrt (Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost") cuts the
// forward pass into segments and keeps what crosses a cut. When the backward pass comes to a
// segment, it runs again, but for the last. With n equal layers and about sqrt(n) segments, as many
// results are kept as a segment has. Here layers differ, so cuts are searched for: for some limits
// of the bytes of a segment, those cuts that least crosses, and of the limits the best.
//
// Whatever is computed again stands right before the first node of the backward pass that reads it.
// Statistics of a batch are never measured twice: they are small, and running ones must move once.
#include <algorithm>
#include <limits>
#include <string_view>

#include "compile/passes.h"
#include "graph/edit.h"
#include "runtime/label_checks.h"

namespace pycnn {
namespace {

// What fits in a page is kept.
constexpr double kSmall = 4096.0;
// On a device what is copied in the time that a launch takes: two microseconds.
constexpr double kSmallOnDevice = 4.0 * (1 << 20);
// Of what kCheap could drop on CPUs, this much stays: where memory is what a step waits for, each
// pass that is spared counts. With it training steps in float32 take 0.56 (ResNet-50)
// and 0.51 (ResNeXt-50) of PyTorch's memory.
constexpr double kKeptShare = 0.3;
// Sums of sums that hang on one kept value. It bounds what is computed at once.
constexpr int kMostInChain = 16;
// Places where the forward pass may be cut.
constexpr std::size_t kMostCuts = 800;

class Recomputer {
 public:
  // Which results of a node are for later: those that node ends[node] and the ones behind it read.
  // Empty: for all nodes before the first gradient, that is where the backward pass begins.
  Recomputer(const Graph& graph, std::map<std::string, std::string>& pins,
             std::vector<int> ends = {})
      : editor_(graph),
        pins_(pins),
        uses_(graph),
        again_(graph.nodes().size(), false),
        last_use_(graph.nodes().size(), -1),
        ends_(std::move(ends)) {
    for (int i = 0; i < editor_.size(); ++i)
      for (const Symbol input : editor_.source_node(i).inputs)
        last_use_[static_cast<std::size_t>(input.node)] = i;
    while (backward_ < editor_.size() && !is_gradient(editor_.source_node(backward_))) ++backward_;
    while (first_read_ < backward_ && !(may_drop(first_read_) && read_from(first_read_, backward_)))
      ++first_read_;
    ends_.resize(graph.nodes().size(), -1);
    for (int i = 0; i < backward_; ++i)
      if (end_of(i) < 0) ends_[static_cast<std::size_t>(i)] = backward_;
  }

  bool has_gradients() const { return backward_ < editor_.size(); }

  void choose_cheap(double least_bytes, double kept_share);
  void choose_segments();

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) {
      for (const Symbol input : editor_.source_node(i).inputs)
        if (i >= end_of(input.node)) compute_again(input.node);
      editor_.keep(i);
    }
    return editor_.finish();
  }

  // For the nodes of `result` that were added, where their turn ended.
  std::vector<int> take_ends() { return std::move(added_ends_); }

 private:
  static bool is_gradient(const Node& node) {
    return node.kind == NodeKind::kOp &&
           std::string_view(op_name(node.op)).find("_grad") != std::string_view::npos;
  }

  double bytes(int node) const {
    double sum = 0;
    for (const TensorSpec& spec : editor_.source_node(node).outputs)
      sum += static_cast<double>(byte_size(spec));
    return sum;
  }
  bool is_op(int node) const { return editor_.source_node(node).kind == NodeKind::kOp; }
  int end_of(int node) const { return ends_[static_cast<std::size_t>(node)]; }
  bool read_from(int node, int end) const {
    return last_use_[static_cast<std::size_t>(node)] >= end;
  }
  // Filters of siblings, concatenated: there is one of them however large the batch is.
  bool is_of_variables(int node) const {
    const std::vector<Symbol>& inputs = editor_.source_node(node).inputs;
    return !inputs.empty() && std::all_of(inputs.begin(), inputs.end(), [&](Symbol input) {
      const NodeKind kind = editor_.source_node(input.node).kind;
      return kind == NodeKind::kParameter || kind == NodeKind::kBuffer;
    });
  }

  bool may_drop(int node) const {
    return is_op(node) && !uses_.is_result(node) && bytes(node) >= kSmall && !is_of_variables(node);
  }

  static bool is_cheap(const Op& op) {
    return std::holds_alternative<ops::BatchNormApply>(op) ||
           std::holds_alternative<ops::BatchNormInference>(op) ||
           std::holds_alternative<ops::Activation>(op) || std::holds_alternative<ops::Unary>(op) ||
           std::holds_alternative<ops::Add>(op) || std::holds_alternative<ops::Concat>(op) ||
           std::holds_alternative<ops::Slice>(op) || std::holds_alternative<ops::Cast>(op) ||
           std::holds_alternative<ops::NormalizeImage>(op);
  }

  // Below the first result that the backward pass reads are layers that are not trained: these
  // would run again for that one.
  bool is_untrained(int node) const {
    const std::vector<Symbol>& inputs = editor_.source_node(node).inputs;
    return node < first_read_ ||
           (node == first_read_ && std::any_of(inputs.begin(), inputs.end(),
                                               [&](Symbol input) { return is_op(input.node); }));
  }

  bool may_repeat(int node) const {
    if (is_untrained(node)) return false;
    const Op& op = editor_.source_node(node).op;
    return may_drop(node) && !reads_labels(op) &&
           !std::holds_alternative<ops::BatchNormTrain>(op) &&
           !std::holds_alternative<ops::BatchNormStatistics>(op);
  }

  // One pass over one kept value, which choose_cheap repeats within the segment's own turn.
  bool follows_at_once(int node) const {
    const std::vector<Symbol>& inputs = editor_.source_node(node).inputs;
    return is_cheap(editor_.source_node(node).op) &&
           std::count_if(inputs.begin(), inputs.end(), [&](Symbol input) {
             return is_op(input.node) && bytes(input.node) >= kSmall;
           }) <= 1;
  }

  // Bytes of what is made up to each node and read by later ones of the forward pass.
  std::vector<double> crossing() const {
    std::vector<double> change(static_cast<std::size_t>(backward_) + 1, 0.0);
    for (int i = 0; i < backward_; ++i) {
      if (!may_drop(i)) continue;
      int last = i;
      for (const int consumer : uses_.consumers(i))
        if (consumer < backward_) last = std::max(last, consumer);
      change[static_cast<std::size_t>(i)] += bytes(i);
      change[static_cast<std::size_t>(last)] -= bytes(i);
    }
    for (std::size_t i = 1; i < change.size(); ++i) change[i] += change[i - 1];
    return change;
  }

  // For each node of the forward pass the bytes up to it that the backward pass would keep at once.
  std::vector<double> droppable() const {
    std::vector<double> sums;
    double sum = 0;
    for (int i = 0; i < backward_; ++i) {
      if (may_repeat(i) && !follows_at_once(i)) sum += bytes(i);
      sums.push_back(sum);
    }
    return sums;
  }

  struct Cuts {
    std::vector<int> after;  // nodes
    double kept = std::numeric_limits<double>::infinity();
    double largest = 0;  // segment
  };

  // The cuts that least crosses such that no segment has more than `limit` bytes.
  static Cuts best_cuts(const std::vector<int>& places, const std::vector<double>& sums,
                        const std::vector<double>& crosses, double limit) {
    const std::size_t count = places.size();
    const auto at = [&](const std::vector<double>& values, std::size_t place) {
      return values[static_cast<std::size_t>(places[place])];
    };
    // Of the cuts up to a place that has one itself; `count` stands for the beginning.
    std::vector<double> kept(count, std::numeric_limits<double>::infinity());
    std::vector<std::size_t> before(count, count);
    Cuts best;
    std::size_t end = count;
    for (std::size_t p = 0; p < count; ++p) {
      if (at(sums, p) <= limit) kept[p] = at(crosses, p);
      for (std::size_t q = p; q-- > 0 && at(sums, p) - at(sums, q) <= limit;) {
        if (kept[q] + at(crosses, p) >= kept[p]) continue;
        kept[p] = kept[q] + at(crosses, p);
        before[p] = q;
      }
      if (sums.back() - at(sums, p) <= limit && kept[p] < best.kept) {
        best.kept = kept[p];
        end = p;
      }
    }
    if (end == count) return best;
    double last = sums.back();
    for (std::size_t p = end; p < count; p = before[p]) {
      best.after.push_back(places[p]);
      best.largest = std::max(best.largest, last - at(sums, p));
      last = at(sums, p);
    }
    best.largest = std::max(best.largest, last);
    std::reverse(best.after.begin(), best.after.end());
    return best;
  }

  // Keeps so much of what would be computed again, first of all what more is read for.
  void keep_dearest(double share);

  // Puts the node, and what it needs of others that were dropped, here.
  void compute_again(int node) {
    if (!again_[static_cast<std::size_t>(node)]) return;
    std::vector<int> wanted, open = {node};
    while (!open.empty()) {
      const int next = open.back();
      open.pop_back();
      if (!again_[static_cast<std::size_t>(next)]) continue;
      again_[static_cast<std::size_t>(next)] = false;
      wanted.push_back(next);
      for (const Symbol input : editor_.source_node(next).inputs) open.push_back(input.node);
    }
    std::sort(wanted.begin(), wanted.end());
    for (const int i : wanted) {
      const Node& source = editor_.source_node(i);
      const Symbol again = editor_.emit(source.op, editor_.mapped(source.inputs),
                                        source.name + ".again", source.origin);
      const auto pin = pins_.find(source.name);
      if (pin != pins_.end()) pins_.emplace(editor_.graph().node(again).name, pin->second);
      for (int k = 0; k < static_cast<int>(source.outputs.size()); ++k)
        editor_.substitute(editor_.source_symbol(i, k), {again.node, k, again.graph});
    }
    const std::size_t count = editor_.graph().nodes().size();
    added_ends_.resize(count - wanted.size(), -1);
    added_ends_.resize(count, static_cast<int>(count));
  }

  GraphEditor editor_;
  std::map<std::string, std::string>& pins_;
  GraphUses uses_;
  int backward_ = 0;  // first node of the backward pass
  int first_read_ =
      0;  // first node of the forward pass of which the backward pass reads more than a page
  std::vector<bool> again_;  // nodes to be computed again and not yet there
  std::vector<int> last_use_;
  std::vector<int> ends_;
  std::vector<int> added_ends_;
};

void Recomputer::choose_cheap(double least_bytes, double kept_share) {
  std::vector<int> chain(again_.size(), 0);
  for (int i = 0; i < editor_.size(); ++i) {
    if (end_of(i) < 0 || !may_drop(i) || bytes(i) < least_bytes ||
        !is_cheap(editor_.source_node(i).op))
      continue;
    bool from_kept = true;
    int longest = 0;
    for (const Symbol input : editor_.source_node(i).inputs) {
      const auto source = static_cast<std::size_t>(input.node);
      longest = std::max(longest, chain[source]);
      // Else it would be kept for this alone.
      from_kept = from_kept && (!is_op(input.node) || again_[source] ||
                                bytes(input.node) < kSmall || read_from(input.node, end_of(i)));
    }
    if (!from_kept || longest >= kMostInChain) continue;
    again_[static_cast<std::size_t>(i)] = true;
    chain[static_cast<std::size_t>(i)] = longest + 1;
  }
  keep_dearest(kept_share);
}

void Recomputer::keep_dearest(double share) {
  struct Candidate {
    int node;
    double passes;  // over arrays of its size
  };
  std::vector<Candidate> candidates;
  double left = 0;
  for (int i = 0; i < editor_.size(); ++i) {
    if (!again_[static_cast<std::size_t>(i)] || !read_from(i, end_of(i))) continue;
    double moved = bytes(i);
    for (const Symbol input : editor_.source_node(i).inputs)
      if (is_op(input.node)) moved += bytes(input.node);
    candidates.push_back({i, moved / bytes(i)});
    left += share * bytes(i);
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.passes > b.passes; });
  for (const Candidate& candidate : candidates) {
    if (bytes(candidate.node) > left) continue;
    left -= bytes(candidate.node);
    again_[static_cast<std::size_t>(candidate.node)] = false;
  }
}

void Recomputer::choose_segments() {
  const std::vector<double> sums = droppable(), crosses = crossing();
  std::vector<int> places;
  const auto nodes = static_cast<std::size_t>(backward_);
  const std::size_t step = nodes / kMostCuts + 1;
  for (std::size_t i = 0; i < nodes; i += step) places.push_back(static_cast<int>(i));
  Cuts best;
  double least = sums.empty() ? 0 : sums.back();
  for (double limit = least / 1.25, end = least / 256; limit > end; limit /= 1.25) {
    Cuts cuts = best_cuts(places, sums, crosses, limit);
    if (cuts.kept + cuts.largest >= least) continue;
    least = cuts.kept + cuts.largest;
    best = std::move(cuts);
  }
  if (best.after.empty()) return;
  std::size_t segment = 0;
  // What stands behind the last cut is wanted at once.
  for (int i = 0; i <= best.after.back(); ++i) {
    if (i > best.after[segment]) ++segment;
    if (!may_repeat(i)) continue;
    const std::vector<int>& consumers = uses_.consumers(i);
    again_[static_cast<std::size_t>(i)] = std::none_of(
        consumers.begin(), consumers.end(),
        [&](int consumer) { return consumer < backward_ && consumer > best.after[segment]; });
  }
}

}  // namespace

Graph recompute(const Graph& graph, Recompute which, std::map<std::string, std::string>& pins,
                bool on_device) {
  Recomputer first(graph, pins);
  if (which == Recompute::kNone || !first.has_gradients()) return graph;
  if (which == Recompute::kCheap) {
    first.choose_cheap(on_device ? kSmallOnDevice : kSmall, on_device ? 0 : kKeptShare);
    return first.result();
  }
  first.choose_segments();
  const Graph segments = first.result();
  // What runs again keeps as little until it is needed as the first pass would.
  Recomputer second(segments, pins, first.take_ends());
  second.choose_cheap(kSmall, 0);
  return second.result();
}

}  // namespace pycnn
