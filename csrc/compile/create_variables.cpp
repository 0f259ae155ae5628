#include "pycnn/error.h"
#include "pycnn/program.h"

namespace pycnn {
namespace {

template <class Integer>
void fill_integer(Tensor& tensor, double value) {
  Integer* data = tensor.mutable_data<Integer>();
  for (std::int64_t i = 0; i < tensor.size(); ++i) data[i] = static_cast<Integer>(value);
}

// Steps, seeds and tables: whole numbers have a constant start only.
void fill_whole(Tensor& tensor, const std::string& name, const Initializer& init) {
  if (init.kind != Initializer::Kind::kConstant)
    throw ArgumentError("variable '" + name + "': " + to_string(tensor.spec()) +
                        " can only start from a constant");
  switch (tensor.dtype()) {
    case DType::kUInt8:
      return fill_integer<std::uint8_t>(tensor, init.a);
    case DType::kInt32:
      return fill_integer<std::int32_t>(tensor, init.a);
    default:
      return fill_integer<std::int64_t>(tensor, init.a);
  }
}

void check_existing(const std::string& name, const TensorSpec& given, const TensorSpec& wanted) {
  if (given.dtype != wanted.dtype)
    throw DTypeError("variable '" + name + "': the tensor is " + long_name(given.dtype) +
                     ", the graph has " + long_name(wanted.dtype));
  if (given.shape != wanted.shape)
    throw ShapeError("variable '" + name + "': the tensor is " + to_string(given.shape) +
                     ", the graph has " + to_string(wanted.shape));
}

}  // namespace

void create_variables(const Graph& graph, Variables& variables, std::uint64_t seed) {
  Variables created;
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::kParameter && node.kind != NodeKind::kBuffer) continue;
    const auto existing = variables.find(node.name);
    if (existing != variables.end() && existing->second.defined()) {
      check_existing(node.name, existing->second.spec(), node.outputs[0]);
      continue;
    }
    Tensor tensor(node.outputs[0]);
    if (is_floating(tensor.dtype()))
      fill(tensor, node.initializer, seed, stream_of(node.name));
    else
      fill_whole(tensor, node.name, node.initializer);
    created.insert_or_assign(node.name, tensor);
  }
  // Nothing is added unless all could be made.
  for (auto& [name, tensor] : created) variables.insert_or_assign(name, tensor);
}

}  // namespace pycnn
