#pragma once
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pycnn/ops.h"

/// \file
/// Recording a network: nodes in the order in which they were added, which is a valid order of
/// execution. A graph knows nothing of devices, of training against inference, of fusion or of
/// memory.
namespace pycnn {
/// What a node is.
enum class NodeKind : std::uint8_t {
  kInput,      ///< given anew at every run
  kParameter,  ///< lives between runs and is trained
  kBuffer,  ///< lives between runs and is not trained: running statistics, fixed tables, optimizer
            ///< state
  kOp,
};

/// How a parameter stands in files. In memory a convolution weight is (OC, KH, KW, IC / groups); on
/// disk and in `state_dict` it is (OC, IC / groups, KH, KW), as other frameworks have it.
enum class ParameterLayout : std::uint8_t { kPlain, kConvWeight };
/// One step of a recorded network, or one of its leaves.
struct Node {
  std::string name;                 ///< unique within the graph
  NodeKind kind = NodeKind::kOp;    ///< decides which fields count
  Op op;                            ///< kOp only
  std::vector<Symbol> inputs;       ///< kOp only
  std::vector<TensorSpec> outputs;  ///< one for the other kinds
  std::string origin;               ///< "file:line" of the user's code, may be empty
  ParameterLayout layout = ParameterLayout::kPlain;  ///< kParameter only
  Initializer initializer;  ///< kParameter, kBuffer; not part of the text form
};

/// A variable that takes a new value when a run has ended: running statistics, parameters under
/// training.
struct Assignment {
  Symbol variable;  ///< a parameter or buffer
  Symbol value;     ///< what it becomes, of the same spec
};
/// A recorded network. Copies are independent; symbols belong to the graph that made them.
class PYCNN_API Graph {
 public:
  Graph();

  /// Throws GraphError for an empty or taken name or one that holds a control character, quote or
  /// backslash.
  Symbol input(std::string name, TensorSpec spec);
  Symbol parameter(std::string name, TensorSpec spec, Initializer init = {},
                   ParameterLayout layout = ParameterLayout::kPlain);       ///< As `input`.
  Symbol buffer(std::string name, TensorSpec spec, Initializer init = {});  ///< As `input`.

  /// Adds an op and returns its first output. The node is called `name` ("conv1"), or after the op
  /// when empty; a taken name gets a suffix ("conv1_1"). Throws what the op's `infer` throws,
  /// prefixed with op and node name and followed by the input specs and the origin; GraphError for
  /// a symbol of another graph.
  Symbol add(Op op, std::vector<Symbol> inputs, std::string name = "", std::string origin = "");

  /// Makes a symbol a result of the graph. Names are unique among outputs.
  void set_output(std::string name, Symbol value);
  void clear_outputs();  ///< What only they needed stays recorded, but is not computed.
  /// Specs must agree. A variable is assigned at most once.
  void assign(Symbol variable, Symbol value);
  void clear_assignments();  ///< No variable is assigned any more.

  const TensorSpec& spec(Symbol symbol) const;  ///< Throws GraphError for a foreign symbol.
  const Node& node(Symbol symbol) const;        ///< The node it is a result of; likewise.
  const std::vector<Node>& nodes() const { return nodes_; }  ///< By Symbol::node.
  const std::vector<std::pair<std::string, Symbol>>& outputs() const { return outputs_; }
  const std::vector<Assignment>& assignments() const { return assignments_; }  ///< In order.
  std::uint32_t id() const { return id_; }  ///< Symbol::graph of its symbols.
  /// The input, parameter, buffer or op node of this name. Throws GraphError naming the closest
  /// ones when there is none.
  Symbol find(std::string_view name) const;
  bool contains(std::string_view name) const;  ///< Whether `find` finds it.

  /// The same graph for other input sizes; every spec is inferred again. Names not given keep their
  /// shape.
  Graph with_inputs(const std::map<std::string, TensorSpec>& inputs) const;

  /// Readable, complete (but for initializers) and parseable text; csrc/graph/text.h tells the
  /// grammar.
  std::string text() const;
  /// Throws FormatError with line and column for anything that `text` would not print.
  static Graph parse(std::string_view text);

 private:
  friend class GraphEditor;  // graph/edit.h: what passes use to rewrite
  Symbol leaf(NodeKind kind, std::string name, TensorSpec spec, Initializer init,
              ParameterLayout layout);
  std::string unique_name(std::string wanted);
  std::vector<Node> nodes_;
  std::vector<std::pair<std::string, Symbol>> outputs_;
  std::vector<Assignment> assignments_;
  std::map<std::string, int, std::less<>> index_;
  std::set<std::string> output_names_;
  std::set<int> assigned_;  // nodes
  std::uint32_t id_;
};
/// What a program is for.
enum class Mode : std::uint8_t { kInference, kTraining };

/// Replaces the ops that mean different things in training and inference (batch norm, dropout) by
/// the one that `mode` asks for; in training adds the buffers `train.seed` and `train.step` where
/// needed and assigns running statistics. A graph already specialised comes back unchanged.
/// (compile/specialize_mode.cpp)
PYCNN_API Graph specialize(const Graph& graph, Mode mode);

/// Stores activations as bf16 or f16 (`dtype`; DTypeError for another): images on their way through
/// convolutions, dense layers and what lies between them. Inputs, outputs, parameters, running
/// statistics, softmax and losses stay as they are; casts stand where the two meet, and where an
/// activation meets a parameter in an element-wise op, which is computed in f32. A later
/// `differentiate` stores the gradients of activations in that type and those of parameters as f32.
/// Gradients that the graph has already, and ops of other types than f32, stay. Comes back
/// unchanged when done twice. (compile/lower_precision.cpp)
PYCNN_API Graph lower_precision(const Graph& graph, DType dtype = DType::kBFloat16);

/// How `differentiate` works; the default gives gradients.
struct GradientOptions {
  ReluRule relu_rule = ReluRule::kExact;  ///< other rules are for pictures, not for training
};

/// Extends the graph by the gradients of a scalar with respect to each of `wrt` (inputs, parameters
/// or results of ops) and returns them in order. Throws GraphError when `loss` is not a scalar, an
/// op on the way has no gradient (name and origin are given), or a symbol does not influence the
/// loss. (autodiff/differentiate.cpp)
PYCNN_API std::vector<Symbol> differentiate(Graph& graph, Symbol loss, std::span<const Symbol> wrt,
                                            const GradientOptions& options = {});

}  // namespace pycnn

/// \fn pycnn::Graph::outputs() const
/// Results and their names, in the order in which `set_output` was called.
