// Convolutions that read the same image by the same window become one with the filters of all, and
// what each gave is a slice of the channels: the image is read once, and its gradient is one sum
// instead of a sum of images. Activations that follow all of them alike, and are all that does,
// join in. Batch norms stay by themselves: they read their channels of the result where these are
// and write where they are wanted (join_parts.cpp), which as one they could not. Variables stay
// what they are: filters and biases are concatenated in the program, once where nothing trains
// them, and so are those that a batch norm of inference was folded into.
//
// The gradients follow by differentiation: those of the filters are slices, that of the slices is a
// concatenation (concat_pads.cpp).
#include <algorithm>
#include <map>

#include "compile/passes.h"
#include "compile/same_attributes.h"
#include "graph/edit.h"

namespace pycnn {
namespace {

bool is_leaf(const Node& node) {
  return node.kind == NodeKind::kParameter || node.kind == NodeKind::kBuffer;
}

// A convolution and what follows it and nothing else does.
struct Chain {
  std::vector<int> nodes;  // convolution, activation if there is one
  std::int64_t channels = 0;
};

class Merger {
 public:
  Merger(const Graph& graph, const SiblingRule& rule)
      : editor_(graph), rule_(rule), group_of_(graph.nodes().size(), -1) {
    count_readers();
    find_groups();
  }

  Graph result() {
    std::vector<bool> emitted(groups_.size(), false);
    for (int i = 0; i < editor_.size(); ++i) {
      const int group = group_of_[static_cast<std::size_t>(i)];
      if (group < 0) {
        if (!editor_.has(editor_.source_symbol(i))) editor_.keep(i);
      } else if (!emitted[static_cast<std::size_t>(group)]) {
        emitted[static_cast<std::size_t>(group)] = true;
        emit(groups_[static_cast<std::size_t>(group)]);
      }
    }
    return editor_.finish();
  }

 private:
  const Node& node(int i) const { return editor_.source_node(i); }

  // By what reads the first output of each node.
  void count_readers() {
    const Graph& graph = editor_.source();
    readers_.resize(graph.nodes().size());
    for (std::size_t i = 0; i < graph.nodes().size(); ++i)
      for (const Symbol input : graph.nodes()[i].inputs)
        if (input.output == 0)
          readers_[static_cast<std::size_t>(input.node)].push_back(static_cast<int>(i));
    const auto fix = [&](Symbol symbol) {
      if (symbol.output == 0) readers_[static_cast<std::size_t>(symbol.node)].push_back(-1);
    };
    for (const auto& [name, symbol] : graph.outputs()) fix(symbol);
    for (const Assignment& assignment : graph.assignments()) fix(assignment.value);
  }

  // A variable, or in inference what an op makes of variables alone.
  bool is_parameter(Symbol symbol) const {
    const Graph& graph = editor_.source();
    const Node& maker = graph.node(symbol);
    return is_leaf(maker) ||
           (!rule_.training && maker.kind == NodeKind::kOp &&
            std::all_of(maker.inputs.begin(), maker.inputs.end(),
                        [&](Symbol input) { return is_leaf(graph.node(input)); }));
  }

  // Whether all inputs but the image are parameters, and no kernel of its own was asked for.
  bool may_join(const Node& node) const {
    return !rule_.pins.contains(node.name) &&
           std::all_of(node.inputs.begin() + 1, node.inputs.end(),
                       [&](Symbol input) { return is_parameter(input); });
  }

  Chain chain_from(int first) const {
    Chain chain{{first}, editor_.source_node(first).outputs[0].shape.back()};
    const std::vector<int>& readers = readers_[static_cast<std::size_t>(first)];
    if (readers.size() != 1 || readers[0] < 0) return chain;
    const Node& next = node(readers[0]);
    if (next.kind == NodeKind::kOp && std::holds_alternative<ops::Activation>(next.op) &&
        may_join(next))
      chain.nodes.push_back(readers[0]);
    return chain;
  }

  bool is_convolution(const Node& node) const {
    if (node.kind != NodeKind::kOp) return false;
    const auto* conv = std::get_if<ops::Conv2d>(&node.op);
    return conv != nullptr && conv->groups == 1 && conv->epilogue == Epilogue{} && may_join(node);
  }

  bool are_alike(const Chain& a, const Chain& b) const {
    const Graph& graph = editor_.source();
    const Node &first = node(a.nodes[0]), &other = node(b.nodes[0]);
    if (a.nodes.size() != b.nodes.size() || first.inputs[0] != other.inputs[0]) return false;
    for (std::size_t i = 0; i < a.nodes.size(); ++i) {
      const Node &left = node(a.nodes[i]), &right = node(b.nodes[i]);
      if (!same_attributes(left.op, right.op) || left.inputs.size() != right.inputs.size())
        return false;
    }
    const TensorSpec &left = graph.spec(first.inputs[1]), &right = graph.spec(other.inputs[1]);
    return left.dtype == right.dtype && std::equal(left.shape.begin() + 1, left.shape.end(),
                                                   right.shape.begin() + 1, right.shape.end());
  }

  void find_groups() {
    std::map<std::pair<int, int>, std::vector<std::vector<Chain>>> of_image;  // by its symbol
    for (int i = 0; i < editor_.size(); ++i) {
      if (!is_convolution(node(i))) continue;
      const Symbol image = node(i).inputs[0];
      Chain chain = chain_from(i);
      std::vector<std::vector<Chain>>& groups = of_image[{image.node, image.output}];
      const auto alike = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
        return are_alike(group[0], chain);
      });
      if (alike == groups.end())
        groups.push_back({std::move(chain)});
      else
        alike->push_back(std::move(chain));
    }
    for (auto& [image, groups] : of_image)
      for (std::vector<Chain>& group : groups)
        if (group.size() > 1 && pays(group)) take(std::move(group));
  }

  bool pays(const std::vector<Chain>& group) const {
    const Node& first = node(group[0].nodes[0]);
    Siblings siblings;
    siblings.op = &std::get<ops::Conv2d>(first.op);
    siblings.input = editor_.source().spec(first.inputs[0]);
    siblings.weight = editor_.source().spec(first.inputs[1]).shape;
    siblings.training = rule_.training;
    for (const Chain& chain : group) siblings.results.push_back(result_of(chain));
    return rule_.backend->merges(siblings);
  }

  Siblings::Result result_of(const Chain& chain) const {
    Siblings::Result result{chain.channels};
    for (const int reader : readers_[static_cast<std::size_t>(chain.nodes.back())])
      if (reader < 0)
        result.is_kept = true;
      else
        result.readers.push_back(&node(reader).op);
    return result;
  }

  void take(std::vector<Chain> group) {
    for (const Chain& chain : group)
      for (const int i : chain.nodes)
        group_of_[static_cast<std::size_t>(i)] = static_cast<int>(groups_.size());
    groups_.push_back(std::move(group));
  }

  // It may be recorded behind the first of the siblings.
  Symbol parameter(Symbol old) {
    if (!editor_.has(old)) {
      for (const Symbol input : node(old.node).inputs) (void)parameter(input);
      (void)editor_.keep(old.node);
    }
    return editor_.mapped(old);
  }

  // A slice of the last axis.
  Symbol slice(Symbol from, std::int64_t begin, std::int64_t channels, const Node& named_after) {
    ops::Slice op{{}, editor_.graph().spec(from).shape};
    op.begin.resize(op.size.size(), 0);
    op.begin.back() = begin, op.size.back() = channels;
    return editor_.emit(op, {from}, named_after.name + ".part", named_after.origin);
  }

  void emit(const std::vector<Chain>& group) {
    Symbol image = editor_.mapped(node(group[0].nodes[0]).inputs[0]);
    for (std::size_t link = 0; link < group[0].nodes.size(); ++link) {
      const Node& first = node(group[0].nodes[link]);
      std::vector<Symbol> inputs = {image};
      for (std::size_t k = 1; k < first.inputs.size(); ++k) {
        std::vector<Symbol> parts;
        for (const Chain& chain : group)
          parts.push_back(parameter(node(chain.nodes[link]).inputs[k]));
        inputs.push_back(editor_.emit(ops::Concat{0}, std::move(parts),
                                      first.name + ".merged." + std::to_string(k), first.origin));
      }
      image = editor_.emit(first.op, std::move(inputs), first.name + ".merged", first.origin);
    }
    std::int64_t begin = 0;
    for (const Chain& chain : group) {
      const int old = chain.nodes.back();
      editor_.substitute(editor_.source_symbol(old),
                         slice(image, begin, chain.channels, node(old)));
      begin += chain.channels;
    }
  }

  GraphEditor editor_;
  const SiblingRule& rule_;
  std::vector<std::vector<int>> readers_;  // by node; -1: the graph itself
  std::vector<std::vector<Chain>> groups_;
  std::vector<int> group_of_;  // by node
};

}  // namespace

Graph merge_siblings(const Graph& graph, const SiblingRule& rule) {
  return Merger(graph, rule).result();
}

}  // namespace pycnn
