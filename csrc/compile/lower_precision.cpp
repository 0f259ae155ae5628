// Walks the graph in order. Convolutions and dense layers take their image in the low precision
// (bf16 or f16) whatever it was;
// ops that move images about or change them one by one follow what they are given; all others are
// given f32. A cast is made where it is first needed and serves all that want it.
#include <map>
#include <optional>
#include <tuple>

#include "graph/edit.h"
#include "pycnn/error.h"
#include "pycnn/graph.h"

namespace pycnn {
namespace {

template <class... Ops>
bool is_one_of(const Op& op) {
  return (std::holds_alternative<Ops>(op) || ...);
}

// Ops that multiply an image by a weight: these alone begin to compute in low precision.
bool begins(const Op& op) { return is_one_of<ops::Conv2d, ops::Dense>(op); }

bool is_elementwise_pair(const Op& op) {
  return is_one_of<ops::Add, ops::Subtract, ops::Multiply, ops::Binary>(op);
}

bool follows(const Op& op) {
  return is_elementwise_pair(op) ||
         is_one_of<ops::MaxPool2d, ops::AvgPool2d, ops::AdaptiveAvgPool2d, ops::GlobalAvgPool2d,
                   ops::GlobalMaxPool2d, ops::Resize2d, ops::BatchNorm, ops::BatchNormTrain,
                   ops::BatchNormInference, ops::LocalResponseNorm, ops::Activation, ops::Unary,
                   ops::Affine, ops::Dropout, ops::DropoutTrain, ops::Broadcast, ops::Concat,
                   ops::Slice, ops::Pad, ops::Reshape, ops::Transpose>(op);
}

// Whether input i is an image, and not a parameter or a counter.
bool is_image(const Op& op, std::size_t i, std::size_t count) {
  if (i == 0 || is_elementwise_pair(op) || std::holds_alternative<ops::Concat>(op)) return true;
  const Epilogue* epilogue = nullptr;
  if (const auto* conv = std::get_if<ops::Conv2d>(&op)) epilogue = &conv->epilogue;
  if (const auto* dense = std::get_if<ops::Dense>(&op)) epilogue = &dense->epilogue;
  return epilogue != nullptr && epilogue->residual && i + 1 == count;
}

class Lowerer {
 public:
  Lowerer(const Graph& graph, DType dtype)
      : editor_(graph), dtype_(dtype), varies_(graph.nodes().size(), false) {}

  Graph result() {
    for (int i = 0; i < editor_.size(); ++i) {
      const Node& node = editor_.source_node(i);
      const bool is_op = node.kind == NodeKind::kOp;
      bool varies = node.kind == NodeKind::kInput;
      for (const Symbol input : node.inputs) varies = varies || varies_[at(input)];
      varies_[static_cast<std::size_t>(i)] = varies;
      if (is_op)
        visit(i, node);
      else
        editor_.keep(i);
    }
    const Graph& source = editor_.source();
    for (const auto& [name, symbol] : source.outputs()) give_back(symbol);
    for (const Assignment& assignment : source.assignments()) give_back(assignment.value);
    return editor_.finish();
  }

 private:
  static std::size_t at(Symbol symbol) { return static_cast<std::size_t>(symbol.node); }
  DType source_type(Symbol symbol) const { return editor_.source().spec(symbol).dtype; }
  DType type_now(Symbol symbol) { return editor_.graph().spec(editor_.mapped(symbol)).dtype; }

  bool lowers(const Node& node) {
    if (!begins(node.op) && !follows(node.op)) return false;
    bool any = begins(node.op);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (!is_image(node.op, i, node.inputs.size())) continue;
      const Symbol input = node.inputs[i];
      if (source_type(input) != DType::kFloat32) return false;
      // The gradient of a parameter is a sum over many pixels, which 16 bits would not hold.
      if (is_elementwise_pair(node.op) && !varies_[at(input)]) return false;
      any = any || type_now(input) == dtype_;
    }
    return any;
  }

  void visit(int index, const Node& node) {
    const bool lower = lowers(node);
    std::vector<Symbol> inputs;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const bool image = lower && is_image(node.op, i, node.inputs.size());
      inputs.push_back(as_type(node.inputs[i], image ? dtype_ : source_type(node.inputs[i])));
    }
    editor_.replace(index, node.op, std::move(inputs));
  }

  Symbol as_type(Symbol symbol, DType wanted) {
    const Symbol now = editor_.mapped(symbol);
    if (type_now(symbol) == wanted) return now;
    std::optional<Symbol>& cast = casts_[{now.node, now.output, wanted}];
    if (!cast) {
      const Node& node = editor_.source().node(symbol);
      cast = editor_.emit(ops::Cast{wanted}, {now}, node.name + ".cast", node.origin);
    }
    return *cast;
  }

  // Results have the type that was recorded.
  void give_back(Symbol symbol) {
    const DType recorded = source_type(symbol);
    if (type_now(symbol) != recorded) editor_.substitute(symbol, as_type(symbol, recorded));
  }

  GraphEditor editor_;
  DType dtype_;
  std::vector<bool> varies_;  // with the inputs, by node
  std::map<std::tuple<int, int, DType>, std::optional<Symbol>> casts_;
};

}  // namespace

Graph lower_precision(const Graph& graph, DType dtype) {
  if (!is_low_precision(dtype))
    throw DTypeError(std::string("lower_precision: dtype is ") + long_name(dtype) +
                     ", expected bfloat16 or float16");
  return Lowerer(graph, dtype).result();
}

}  // namespace pycnn
