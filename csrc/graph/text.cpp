#include "graph/text.h"

#include "ops/checks.h"
#include "pycnn/graph.h"

namespace pycnn {
namespace {

template <class T>
std::string list_text(const std::vector<T>& values) {
  std::string text = "(";
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (i > 0) text += ", ";
    text += ops::cat(values[i]);
  }
  return text + ")";
}

std::string value_text(std::int64_t value) { return ops::cat(value); }
std::string value_text(double value) { return ops::cat(value); }
std::string value_text(bool value) { return ops::cat(value); }
std::string value_text(DType value) { return short_name(value); }
std::string value_text(ActivationKind value) { return activation_name(value); }
std::string value_text(Reduction value) { return reduction_name(value); }
std::string value_text(UnaryKind value) { return unary_name(value); }
std::string value_text(BinaryKind value) { return binary_name(value); }
std::string value_text(ResizeMode value) { return resize_mode_name(value); }
std::string value_text(ResizeGrid value) { return resize_grid_name(value); }
std::string value_text(const Pair& value) { return ops::cat(value); }
std::string value_text(const Padding& value) { return ops::cat(value); }
std::string value_text(const std::vector<std::int64_t>& value) { return list_text(value); }
std::string value_text(const std::vector<double>& value) { return list_text(value); }
std::string value_text(const Epilogue& value) {
  return ops::cat("(", value.residual, ", ", activation_name(value.activation), ", ", value.slope,
                  value.moments ? ", moments" : "", value.signs ? ", signs)" : ")");
}
std::string value_text(const NormSums& value) {
  return ops::cat("(", activation_name(value.activation), ", ", value.slope, ")");
}
std::string value_text(const GradientEpilogue& value) {
  return ops::cat("(", value.residual, ", ", value.relu, value.signs ? ", signs)" : ")");
}

// Called with every field of an op.
struct FieldPrinter {
  std::string& text;
  bool first = true;

  template <class T>
  void operator()(const char* key, const T& value) {
    if constexpr (std::is_same_v<T, NormSums>)
      if (!value.wanted) return;
    if constexpr (std::is_same_v<T, GradientEpilogue>)
      if (value == T{}) return;
    text += first ? " {" : ", ";
    text += key;
    text += '=';
    text += value_text(value);
    first = false;
  }
};

struct Printer {
  const Graph& graph;
  std::string text;

  void name(const std::string& value) {
    text += '"';
    text += value;
    text += '"';
  }

  void symbol(Symbol value) {
    name(graph.node(value).name);
    if (value.output != 0) text += ops::cat(":", value.output);
  }

  void leaf(const Node& node, const char* kind) {
    text += kind;
    name(node.name);
    text += " = " + to_string(node.outputs[0]);
    if (node.layout == ParameterLayout::kConvWeight) text += " layout=conv";
  }

  void operation(const Node& node) {
    name(node.name);
    text += " = ";
    text += op_name(node.op);
    text += '(';
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (i > 0) text += ", ";
      symbol(node.inputs[i]);
    }
    text += ')';
    FieldPrinter fields{text};
    std::visit([&](const auto& op) { op.fields(op, fields); }, node.op);
    if (!fields.first) text += '}';
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      text += (i == 0 ? " -> " : ", ") + to_string(node.outputs[i]);
    }
  }

  void line(const Node& node) {
    switch (node.kind) {
      case NodeKind::kInput:
        leaf(node, "input ");
        break;
      case NodeKind::kParameter:
        leaf(node, "parameter ");
        break;
      case NodeKind::kBuffer:
        leaf(node, "buffer ");
        break;
      case NodeKind::kOp:
        operation(node);
        break;
    }
    text += '\n';
  }
};

}  // namespace

std::string Graph::text() const {
  Printer printer{*this, ops::cat("pycnn.graph ", kTextVersion, "\n")};
  for (const Node& node : nodes_) printer.line(node);
  for (const auto& [name, value] : outputs_) {
    printer.text += "output ";
    printer.name(name);
    printer.text += " = ";
    printer.symbol(value);
    printer.text += '\n';
  }
  for (const Assignment& assignment : assignments_) {
    printer.text += "assign ";
    printer.symbol(assignment.variable);
    printer.text += " = ";
    printer.symbol(assignment.value);
    printer.text += '\n';
  }
  return std::move(printer.text);
}

}  // namespace pycnn
