#include <algorithm>
#include <limits>
#include <map>

#include "compile/passes.h"
#include "compile/training_buffers.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

// Where a schedule sets nothing: a common start of each method.
constexpr double kSgdRate = 0.01;
constexpr double kAdamRate = 0.001;
constexpr double kMuonRate = 0.02;
// About float16's largest number; halved until gradients fit.
constexpr double kStartLossScale = 65536.0;

TensorSpec scale_spec() { return {{}, DType::kFloat32}; }

Symbol loss_scale(Graph& graph) {
  return training_buffer(graph, kLossScaleName, scale_spec(),
                         {Initializer::Kind::kConstant, kStartLossScale});
}

double start_rate(Optimizer::Kind kind) {
  switch (kind) {
    case Optimizer::Kind::kSgd:
      return kSgdRate;
    case Optimizer::Kind::kAdam:
    case Optimizer::Kind::kAdamW:
      return kAdamRate;
    case Optimizer::Kind::kMuon:
      return kMuonRate;
  }
  return kSgdRate;
}

// The first group that names each parameter.
std::map<std::string, const ParameterGroup*> groups_by_name(const Graph& graph,
                                                            const Optimizer& optimizer) {
  std::map<std::string, const ParameterGroup*> groups;
  for (const ParameterGroup& group : optimizer.groups) {
    for (const std::string& name : group.names) {
      if (!graph.contains(name) || graph.node(graph.find(name)).kind != NodeKind::kParameter)
        throw ArgumentError("optimizer: a parameter group names '" + name +
                            "', which is no parameter of the graph");
      groups.emplace(name, &group);
    }
  }
  return groups;
}

std::vector<bool> ancestors(const Graph& graph, Symbol loss) {
  std::vector<bool> needed(graph.nodes().size(), false);
  needed[static_cast<std::size_t>(loss.node)] = true;
  for (int i = loss.node; i >= 0; --i) {
    if (!needed[static_cast<std::size_t>(i)]) continue;
    for (const Symbol input : graph.nodes()[static_cast<std::size_t>(i)].inputs)
      needed[static_cast<std::size_t>(input.node)] = true;
  }
  return needed;
}

class Updater {
 public:
  Updater(Graph& graph, const Optimizer& optimizer)
      : graph_(graph),
        optimizer_(optimizer),
        groups_(groups_by_name(graph, optimizer)),
        step_(training_buffer(graph, kStepName, counter_spec())) {
    rate_ = training_buffer(graph, kLearningRateName, {{1}, DType::kFloat32},
                            {Initializer::Kind::kConstant, start_rate(optimizer.kind)});
  }

  void clip(std::span<const Symbol> gradients) {
    if (!optimizer_.clip_norm) return;
    factor_ = graph_.add(ops::ClipFactor{*optimizer_.clip_norm},
                         {gradients.begin(), gradients.end()}, "clip_factor");
    show_norm();
  }

  // Of gradients that are multiplied by the scale of the loss. The step commits what the graph
  // assigns already, too: a forward pass that overflows spoils running statistics.
  void unscale(std::span<const Symbol> gradients) {
    ops::LossScale op;
    if (optimizer_.clip_norm) op.max_norm = *optimizer_.clip_norm;
    const Symbol measured = graph_.add(ops::ClipFactor{std::numeric_limits<double>::infinity()},
                                       {gradients.begin(), gradients.end()}, "grad_norm");
    const Symbol scale = loss_scale(graph_);
    const Symbol good_steps = training_buffer(graph_, kGoodStepsName, counter_spec());
    const std::vector<Assignment> before = graph_.assignments();
    factor_ = graph_.add(op, {{measured.node, 1, graph_.id()}, scale, good_steps}, "loss_scale");
    commits_ = true;
    graph_.clear_assignments();
    for (const Assignment& each : before) assign(each.variable, each.value);
    graph_.assign(scale, {factor_->node, 2, graph_.id()});
    graph_.assign(good_steps, {factor_->node, 3, graph_.id()});
    if (optimizer_.clip_norm) show_norm();
  }

  void update(Symbol parameter, Symbol gradient) {
    const std::string name = graph_.node(parameter).name;
    const auto group = groups_.find(name);
    const bool decays =
        optimizer_.kind != Optimizer::Kind::kMuon || graph_.spec(parameter).shape.size() >= 2;
    const double weight_decay = decays ? optimizer_.weight_decay : 0.0;
    const Symbol updated = group == groups_.end()
                               ? apply(name, parameter, gradient, weight_decay, 1.0)
                               : apply(name, parameter, gradient, group->second->weight_decay,
                                       group->second->rate_scale);
    graph_.assign(parameter, updated);
    if (!optimizer_.ema_decay) return;
    const Symbol average = training_buffer(graph_, kAveragePrefix + name, graph_.spec(parameter));
    assign(average, graph_.add(ops::EmaUpdate{*optimizer_.ema_decay}, {average, updated, step_},
                               "ema_update." + name));
  }

  void count_step() { assign(step_, graph_.add(ops::Increment{}, {step_}, "increment.step")); }

 private:
  void show_norm() {
    const auto& outputs = graph_.outputs();
    const bool taken = std::any_of(outputs.begin(), outputs.end(),
                                   [](const auto& output) { return output.first == "grad_norm"; });
    if (!taken) graph_.set_output("grad_norm", {factor_->node, 1, graph_.id()});
  }

  // Of a value that knows nothing of steps that change nothing.
  void assign(Symbol variable, Symbol value) {
    if (commits_)
      value = graph_.add(ops::Commit{}, {value, variable, *factor_},
                         "commit." + graph_.node(variable).name);
    graph_.assign(variable, value);
  }

  Symbol apply(const std::string& name, Symbol parameter, Symbol gradient, double weight_decay,
               double rate_scale) {
    const std::string node_name = "update." + name;
    const TensorSpec spec = graph_.spec(parameter);
    const auto state = [&](const char* prefix) {
      return training_buffer(graph_, prefix + name, spec);
    };
    std::vector<Symbol> inputs = {parameter, gradient, rate_};
    std::vector<Symbol> states;
    Op op;
    const bool matrix = spec.shape.size() >= 2;
    if (optimizer_.kind == Optimizer::Kind::kMuon && matrix) {
      ops::MuonUpdate muon;
      muon.momentum = optimizer_.momentum;
      muon.nesterov = optimizer_.nesterov;
      muon.weight_decay = weight_decay;
      muon.rate_scale = rate_scale;
      muon.clipped = factor_.has_value();
      op = muon;
      states = {state(kMomentumPrefix)};
    } else if (optimizer_.kind == Optimizer::Kind::kSgd ||
               optimizer_.kind == Optimizer::Kind::kMuon) {
      op = ops::SgdUpdate{optimizer_.momentum, optimizer_.nesterov, weight_decay, rate_scale,
                          factor_.has_value()};
      if (optimizer_.momentum != 0.0) states = {state(kMomentumPrefix)};
    } else {
      op = ops::AdamUpdate{optimizer_.beta1,
                           optimizer_.beta2,
                           optimizer_.eps,
                           weight_decay,
                           optimizer_.kind == Optimizer::Kind::kAdamW,
                           rate_scale,
                           factor_.has_value()};
      inputs.push_back(step_);
      states = {state(kMeanPrefix), state(kVariancePrefix)};
    }
    inputs.insert(inputs.end(), states.begin(), states.end());
    if (factor_) inputs.push_back(*factor_);
    const Symbol updated = graph_.add(op, inputs, node_name);
    for (int i = 0; i < static_cast<int>(states.size()); ++i)
      graph_.assign(states[static_cast<std::size_t>(i)], {updated.node, i + 1, graph_.id()});
    return updated;
  }

  Graph& graph_;
  const Optimizer& optimizer_;
  std::map<std::string, const ParameterGroup*> groups_;
  Symbol step_;
  Symbol rate_;
  std::optional<Symbol> factor_;
  bool commits_ = false;  // whether a step may change nothing
};

}  // namespace

Symbol training_buffer(Graph& graph, const std::string& name, const TensorSpec& spec,
                       Initializer init) {
  if (!graph.contains(name)) return graph.buffer(name, spec, init);
  const Symbol symbol = graph.find(name);
  const Node& node = graph.node(symbol);
  if (node.kind != NodeKind::kBuffer || !(node.outputs[0] == spec))
    throw GraphError("compile: the name '" + name + "' is needed for a buffer " + to_string(spec) +
                     " of training, but the graph uses it for something else");
  return symbol;
}

std::vector<Symbol> trained_parameters(const Graph& graph, Symbol loss,
                                       const Optimizer& optimizer) {
  const auto groups = groups_by_name(graph, optimizer);
  const std::vector<bool> needed = ancestors(graph, loss);
  std::vector<Symbol> parameters;
  int frozen = 0, unrelated = 0;
  for (int i = 0; i < static_cast<int>(graph.nodes().size()); ++i) {
    const Node& node = graph.nodes()[static_cast<std::size_t>(i)];
    if (node.kind != NodeKind::kParameter) continue;
    const auto group = groups.find(node.name);
    if (group != groups.end() && group->second->frozen)
      ++frozen;
    else if (!needed[static_cast<std::size_t>(i)])
      ++unrelated;
    else
      parameters.push_back({i, 0, graph.id()});
  }
  if (parameters.empty())
    throw GraphError("optimizer: nothing to train; of the graph's parameters " +
                     std::to_string(frozen) + " are frozen and " + std::to_string(unrelated) +
                     " do not influence the loss");
  return parameters;
}

Symbol scaled_loss(Graph& graph, Symbol loss) {
  const Symbol scale = loss_scale(graph);
  return graph.add(ops::Multiply{}, {loss, scale}, "scaled_loss");
}

void append_update(Graph& graph, const Optimizer& optimizer, std::span<const Symbol> parameters,
                   std::span<const Symbol> gradients, bool scaled) {
  Updater updater(graph, optimizer);
  if (scaled)
    updater.unscale(gradients);
  else
    updater.clip(gradients);
  for (std::size_t i = 0; i < parameters.size(); ++i) updater.update(parameters[i], gradients[i]);
  updater.count_step();
}

}  // namespace pycnn
