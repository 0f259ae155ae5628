// Reverse-mode differentiation as a graph transformation.
//
// Two questions prune the work. Which symbols depend on one of `wrt`: only those need a gradient.
// And, on the way back from the loss, which symbols the loss depends on: only those have one. Nodes
// are visited in reverse order of recording, so all uses of a symbol have added their part before
// its maker is asked; the parts are summed in that order, which the graph alone determines.
//
// All nodes are added to a copy: when anything is refused, the caller's graph is as before.
#include <optional>

#include "ops/checks.h"
#include "ops/error_text.h"
#include "ops/gradient_context.h"
#include "pycnn/graph.h"

namespace pycnn {
namespace {

bool is_differentiable(DType dtype) { return is_floating(dtype); }

// One entry for each output of each node.
template <class Value>
class BySymbol {
 public:
  explicit BySymbol(const std::vector<Node>& nodes) {
    values_.reserve(nodes.size());
    for (const Node& node : nodes) values_.emplace_back(node.outputs.size());
  }
  Value& operator[](Symbol symbol) {
    return values_[static_cast<std::size_t>(symbol.node)][static_cast<std::size_t>(symbol.output)];
  }
  const Value& operator[](Symbol symbol) const {
    return values_[static_cast<std::size_t>(symbol.node)][static_cast<std::size_t>(symbol.output)];
  }

 private:
  std::vector<std::vector<Value>> values_;
};

class Differentiation {
 public:
  Differentiation(Graph& graph, std::span<const Symbol> wrt, const GradientOptions& options)
      : graph_(graph), options_(options), needed_(graph.nodes()), gradients_(graph.nodes()) {
    for (const Symbol symbol : wrt) needed_[symbol] = 1;
    for (int i = 0; i < static_cast<int>(graph.nodes().size()); ++i) spread_need(i);
  }

  bool needs(Symbol symbol) const { return needed_[symbol] != 0; }

  void seed(Symbol loss) {
    const TensorSpec& spec = graph_.spec(loss);
    const ops::Fill ones{spec.shape, spec.dtype, 1.0};
    gradients_[loss] = graph_.add(ones, {}, "grad." + graph_.node(loss).name);
  }

  // Adds a part to the gradient of a symbol.
  void accumulate(Symbol symbol, Symbol part, const Node& user) {
    std::optional<Symbol>& sum = gradients_[symbol];
    sum =
        sum ? graph_.add(ops::Add{}, {*sum, part}, "grad." + graph_.node(symbol).name, user.origin)
            : part;
  }

  const std::optional<Symbol>& gradient(Symbol symbol) const { return gradients_[symbol]; }
  Graph& graph() { return graph_; }
  const GradientOptions& options() const { return options_; }

  // Asks the rule of one node, if it lies on the way from the loss to something needed.
  void visit(int index);

 private:
  // A result is needed when an input is; types without gradient end the way.
  void spread_need(int index) {
    const Node& node = graph_.nodes()[static_cast<std::size_t>(index)];
    bool any = false;
    for (const Symbol input : node.inputs) any |= needs(input);
    for (int k = 0; any && k < static_cast<int>(node.outputs.size()); ++k) {
      if (is_differentiable(node.outputs[static_cast<std::size_t>(k)].dtype)) {
        needed_[Symbol{index, k, graph_.id()}] = 1;
      }
    }
  }

  Graph& graph_;
  GradientOptions options_;
  BySymbol<char> needed_;
  BySymbol<std::optional<Symbol>> gradients_;
};

// What a rule sees. Holds a copy of the node: rules add nodes, which moves the graph's own.
class Context final : public GradientContext {
 public:
  Context(Differentiation& work, int index)
      : work_(work), index_(index), node_(work.graph().nodes()[static_cast<std::size_t>(index)]) {
    for (const Symbol input : node_.inputs) input_specs_.push_back(work.graph().spec(input));
  }

  const Node& node() const { return node_; }

  Symbol input(int i) const override { return node_.inputs[static_cast<std::size_t>(i)]; }
  int input_count() const override { return static_cast<int>(node_.inputs.size()); }
  const TensorSpec& input_spec(int i) const override {
    return input_specs_[static_cast<std::size_t>(i)];
  }
  Symbol output(int i) const override { return {index_, i, work_.graph().id()}; }
  const TensorSpec& output_spec(int i) const override {
    return node_.outputs[static_cast<std::size_t>(i)];
  }
  bool needs_grad(int i) const override { return work_.needs(input(i)); }
  bool has_grad_output(int i) const override { return work_.gradient(output(i)).has_value(); }

  ReluRule relu_rule() const override { return work_.options().relu_rule; }

  Symbol grad_output(int i) override {
    if (has_grad_output(i)) return *work_.gradient(output(i));
    return emit(ops::Fill{output_spec(i).shape, output_spec(i).dtype, 0.0}, {});
  }

  Symbol emit(Op op, std::vector<Symbol> inputs) override {
    return work_.graph().add(std::move(op), std::move(inputs), "grad." + node_.name, node_.origin);
  }

  void set_grad_input(int i, Symbol value) override {
    if (!needs_grad(i)) return;
    if (work_.graph().spec(value) != input_spec(i)) {
      throw InternalError(ops::cat(op_name(node_.op), " '", node_.name, "': gradient ",
                                   work_.graph().spec(value), " for input ", i, ", which is ",
                                   input_spec(i), "; please report this"));
    }
    work_.accumulate(input(i), value, node_);
  }

 private:
  Differentiation& work_;
  int index_;
  Node node_;
  std::vector<TensorSpec> input_specs_;
};

void Differentiation::visit(int index) {
  const Node& node = graph_.nodes()[static_cast<std::size_t>(index)];
  if (node.kind != NodeKind::kOp) return;
  bool reached = false, wanted = false;
  for (int k = 0; k < static_cast<int>(node.outputs.size()); ++k) {
    reached |= gradients_[Symbol{index, k, graph_.id()}].has_value();
  }
  for (const Symbol input : node.inputs) wanted |= needs(input);
  if (!reached || !wanted) return;
  Context context(*this, index);
  std::visit([&](const auto& op) { op.gradient(context); }, context.node().op);
}

// As in the text form: "conv1", "bn1":2.
std::string symbol_text(const Graph& graph, Symbol symbol) {
  const std::string name = ops::cat("'", graph.node(symbol).name, "'");
  return symbol.output == 0 ? name : ops::cat(name, " (output ", symbol.output, ")");
}

std::string origin_text(const Node& node) {
  return node.origin.empty() ? "" : "\n  at " + node.origin;
}

void check(const Graph& graph, Symbol loss, std::span<const Symbol> wrt) {
  const TensorSpec& spec = graph.spec(loss);
  if (!spec.shape.empty()) {
    ops::fail<GraphError>("differentiate ", symbol_text(graph, loss), ": the loss is ", spec,
                          ", expected a scalar\n  hint: reduce it by its mean or sum",
                          origin_text(graph.node(loss)));
  }
  if (spec.dtype != DType::kFloat32 && spec.dtype != DType::kFloat64) {
    ops::fail<GraphError>("differentiate ", symbol_text(graph, loss), ": the loss is ", spec,
                          ", expected f32 or f64", origin_text(graph.node(loss)));
  }
  for (const Symbol symbol : wrt) {
    if (is_differentiable(graph.spec(symbol).dtype)) continue;
    ops::fail<GraphError>("differentiate ", symbol_text(graph, loss), ": ",
                          symbol_text(graph, symbol), " is ", graph.spec(symbol),
                          ", only floating-point numbers have gradients");
  }
}

}  // namespace

std::vector<Symbol> differentiate(Graph& graph, Symbol loss, std::span<const Symbol> wrt,
                                  const GradientOptions& options) {
  check(graph, loss, wrt);
  Graph extended = graph;
  Differentiation work(extended, wrt, options);
  work.seed(loss);
  for (int i = loss.node; i >= 0; --i) {
    ops::with_error_text([&] { work.visit(i); },
                         [&](const std::string& text) {
                           const Node& node = graph.nodes()[static_cast<std::size_t>(i)];
                           return ops::cat(op_name(node.op), " '", node.name, "': ", text,
                                           origin_text(node));
                         });
  }
  std::vector<Symbol> gradients;
  gradients.reserve(wrt.size());
  for (const Symbol symbol : wrt) {
    const std::optional<Symbol>& gradient = work.gradient(symbol);
    if (!gradient) {
      ops::fail<GraphError>("differentiate ", symbol_text(graph, loss), ": ",
                            symbol_text(graph, symbol), " does not influence it",
                            origin_text(graph.node(symbol)));
    }
    gradients.push_back(*gradient);
  }
  graph = std::move(extended);
  return gradients;
}

}  // namespace pycnn
