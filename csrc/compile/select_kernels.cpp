#include <algorithm>

#include "backends/backend.h"
#include "compile/passes.h"
#include "compile/view_ops.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

class Selector {
 public:
  Selector(const Graph& graph, const std::vector<bool>& prepared, const KernelChoice& choice)
      : graph_(graph), prepared_(prepared), choice_(choice) {
    schedule_.threads = choice.threads;
    find_concats();
  }

  Schedule result() {
    const std::vector<Node>& nodes = graph_.nodes();
    values_.reserve(nodes.size());
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      values_.emplace_back();
      if (nodes[i].kind == NodeKind::kOp)
        add_op(i, nodes[i]);
      else
        add_leaf(i, nodes[i]);
    }
    for (const auto& [name, symbol] : graph_.outputs())
      schedule_.outputs.emplace_back(name, value_of(symbol));
    for (const Assignment& assignment : graph_.assignments())
      schedule_.assignments.emplace_back(schedule_.value(value_of(assignment.variable)).index,
                                         value_of(assignment.value));
    return std::move(schedule_);
  }

 private:
  // Of what a concat of channels reads: how many it has.
  void find_concats() {
    output_pitches_.resize(graph_.nodes().size());
    for (const Node& node : graph_.nodes()) {
      if (node.kind != NodeKind::kOp || !std::holds_alternative<ops::Concat>(node.op)) continue;
      const std::int64_t axis = std::get<ops::Concat>(node.op).axis;
      const Shape& shape = node.outputs[0].shape;
      if (axis != -1 && axis + 1 != static_cast<std::int64_t>(shape.size())) continue;
      for (const Symbol input : node.inputs) {
        std::int64_t& pitch = output_pitches_[static_cast<std::size_t>(input.node)];
        if (input.output == 0 && pitch == 0) pitch = shape.back();
      }
    }
  }

  int value_of(Symbol symbol) const {
    return values_[static_cast<std::size_t>(symbol.node)][static_cast<std::size_t>(symbol.output)];
  }

  // Aliases name the value that holds the memory, so that a long chain of them is one hop.
  int root_of(int value) const {
    const int source = schedule_.value(value).alias_of;
    return source >= 0 ? source : value;
  }

  void add_leaf(std::size_t index, const Node& node) {
    ScheduleValue value;
    value.spec = node.outputs[0];
    if (node.kind == NodeKind::kInput) {
      value.kind = ScheduleValue::Kind::kInput;
      value.index = static_cast<int>(schedule_.inputs.size());
      schedule_.inputs.emplace_back(node.name, node.outputs[0]);
    } else {
      value.kind = ScheduleValue::Kind::kVariable;
      value.index = static_cast<int>(schedule_.variables.size());
      schedule_.variables.push_back(node.name);
    }
    values_[index] = {schedule_.add_value(std::move(value))};
  }

  void add_op(std::size_t index, const Node& node) {
    std::vector<int> inputs;
    std::vector<TensorSpec> specs;
    for (const Symbol symbol : node.inputs) {
      inputs.push_back(value_of(symbol));
      specs.push_back(graph_.spec(symbol));
    }
    const bool renames = inputs.size() == 1 && node.outputs.size() == 1 &&
                         only_renames(node.op, specs[0], node.outputs[0]);
    for (const TensorSpec& spec : node.outputs) {
      ScheduleValue value;
      value.spec = spec;
      value.alias_of = renames ? root_of(inputs[0]) : -1;
      value.prepared = prepared_[index];
      values_[index].push_back(schedule_.add_value(std::move(value)));
    }
    if (renames) return;
    Selection selection = select(node, specs, output_pitches_[index]);
    for (std::string& line : selection.missing) warn(std::move(line));
    ScheduleStep step{node.name,
                      op_name(node.op),
                      node.op,
                      std::move(selection.kernel),
                      std::move(selection.refused),
                      std::move(inputs),
                      values_[index],
                      std::move(specs)};
    (prepared_[index] ? schedule_.prepare : schedule_.run).push_back(std::move(step));
  }

  void warn(std::string line) {
    std::vector<std::string>& lines = schedule_.warnings;
    if (std::find(lines.begin(), lines.end(), line) == lines.end())
      lines.push_back(std::move(line));
  }

  std::string_view pin_of(const Node& node) const {
    for (const std::string_view key :
         {std::string_view(node.name), std::string_view(op_name(node.op)), std::string_view("*")}) {
      const auto pin = choice_.pins.find(std::string(key));
      if (pin != choice_.pins.end()) return pin->second;
    }
    return {};
  }

  Selection select(const Node& node, const std::vector<TensorSpec>& specs,
                   std::int64_t output_pitch) const {
    const Problem problem{specs,           node.outputs, choice_.isa,
                          choice_.threads, pin_of(node), choice_.winograd,
                          began_,          output_pitch, choice_.tf32};
    const auto where = [&](const std::string& message) {
      std::string text = "compile '" + node.name + "': " + message;
      for (const TensorSpec& spec : specs) text += "\n  input  " + to_string(spec);
      if (!node.origin.empty()) text += "\n  at " + node.origin;
      return text;
    };
    try {
      return choice_.backend->select(node.op, problem);
    } catch (const UnsupportedError& error) {
      const bool is_device = choice_.backend != &cpu_backend();
      throw UnsupportedError(where(error.what()) +
                             (is_device ? "\n  hint: device 'cpu' computes it" : ""));
    } catch (const ArgumentError& error) {
      throw ArgumentError(where(error.what()));
    }
  }

  const Graph& graph_;
  const std::vector<bool>& prepared_;
  const KernelChoice& choice_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  Schedule schedule_;
  std::vector<std::vector<int>> values_;      // by node and output
  std::vector<std::int64_t> output_pitches_;  // by node: Problem::output_pitch
};

}  // namespace

Schedule select_kernels(const Graph& graph, const std::vector<bool>& prepared,
                        const KernelChoice& choice) {
  return Selector(graph, prepared, choice).result();
}

}  // namespace pycnn
