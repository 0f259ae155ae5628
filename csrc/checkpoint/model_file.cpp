// Models in checkpoint files: the graph's text travels in the metadata, its variables as tensors.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core/training_state.h"
#include "pycnn/checkpoint.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr const char* kGraph = "pycnn.graph";
constexpr const char* kFormat = "pycnn.format";
constexpr int kFormatVersion = 1;
constexpr std::size_t kListed = 10;

struct StoredVariable {
  TensorSpec spec;  // in memory
  bool conv_weight = false;
};
using StoredVariables = std::map<std::string, StoredVariable, std::less<>>;

StoredVariables variables_of(const Graph& graph) {
  StoredVariables variables;
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::kParameter && node.kind != NodeKind::kBuffer) continue;
    const TensorSpec& spec = node.outputs.front();
    variables[node.name] = {spec,
                            node.layout == ParameterLayout::kConvWeight && spec.shape.size() == 4};
  }
  return variables;
}

// (OC, KH, KW, IC) to (OC, IC, KH, KW).
Shape disk_shape(const Shape& shape) { return {shape[0], shape[3], shape[1], shape[2]}; }

// The variable that a tensor's layout follows: itself, or the one whose name ends the name of
// training state. Of several the longest is meant: "optim.momentum.block.conv.weight" belongs to
// "block.conv.weight", not to "conv.weight".
const StoredVariable* layout_owner(const StoredVariables& variables, std::string_view name) {
  if (const auto found = variables.find(name); found != variables.end()) return &found->second;
  if (!name.starts_with("optim.") && !name.starts_with("ema.")) return nullptr;
  for (auto dot = name.find('.'); dot != std::string_view::npos; dot = name.find('.', dot + 1)) {
    if (const auto found = variables.find(name.substr(dot + 1)); found != variables.end())
      return &found->second;
  }
  return nullptr;
}

// Swaps the two inner axes of (outer, rows, columns).
template <class T>
void transpose(const T* from, T* to, std::int64_t outer, std::int64_t rows,
               std::int64_t columns) noexcept {
  for (std::int64_t o = 0; o < outer; ++o, from += rows * columns, to += rows * columns) {
    for (std::int64_t c = 0; c < columns; ++c) {
      for (std::int64_t r = 0; r < rows; ++r) to[c * rows + r] = from[r * columns + c];
    }
  }
}

Tensor transposed(const Tensor& tensor, Shape shape, std::int64_t rows, std::int64_t columns) {
  Tensor result({std::move(shape), tensor.dtype()});
  if (tensor.size() == 0) return result;
  const std::int64_t outer = tensor.shape()[0];
  void* const to = result.mutable_raw();
  switch (item_bytes(tensor.dtype())) {
    case 1:
      transpose(tensor.data<std::uint8_t>(), static_cast<std::uint8_t*>(to), outer, rows, columns);
      break;
    case 2:
      transpose(tensor.data<std::uint16_t>(), static_cast<std::uint16_t*>(to), outer, rows,
                columns);
      break;
    case 4:
      transpose(tensor.data<std::uint32_t>(), static_cast<std::uint32_t*>(to), outer, rows,
                columns);
      break;
    default:
      transpose(tensor.data<std::uint64_t>(), static_cast<std::uint64_t*>(to), outer, rows,
                columns);
      break;
  }
  return result;
}

Tensor to_disk(const Tensor& tensor) {
  const Shape& s = tensor.shape();  // OC, KH, KW, IC
  return transposed(tensor, disk_shape(s), s[1] * s[2], s[3]);
}

Tensor to_memory(const Tensor& tensor) {
  const Shape& s = tensor.shape();  // OC, IC, KH, KW
  return transposed(tensor, {s[0], s[2], s[3], s[1]}, s[1], s[2] * s[3]);
}

// Names of one kind of complaint: the first few, and how many there are.
struct Complaint {
  const char* title;
  std::vector<std::string> lines;

  void append_to(std::string& text) const {
    if (lines.empty()) return;
    text += "\n  " + std::string(title) + " (" + std::to_string(lines.size()) + "):";
    for (std::size_t i = 0; i < std::min(lines.size(), kListed); ++i) text += "\n    " + lines[i];
    if (lines.size() > kListed)
      text += "\n    ... and " + std::to_string(lines.size() - kListed) + " more";
  }
};

// What is wrong with a set of tensors for these variables; empty when nothing is. On disk,
// convolution weights are expected in the layout of files.
std::string disagreement(const StoredVariables& variables,
                         const std::map<std::string, Tensor>& tensors, bool on_disk) {
  Complaint missing{"missing", {}}, unexpected{"unexpected", {}}, mismatched{"mismatched", {}};
  for (const auto& [name, variable] : variables) {
    const auto found = tensors.find(name);
    TensorSpec wanted = variable.spec;
    if (on_disk && variable.conv_weight) wanted.shape = disk_shape(wanted.shape);
    if (found == tensors.end()) {
      missing.lines.push_back("'" + name + "' " + to_string(wanted));
    } else if (!found->second.defined()) {
      mismatched.lines.push_back("'" + name + "' is undefined, the network has " +
                                 to_string(wanted));
    } else if (found->second.spec() != wanted) {
      mismatched.lines.push_back("'" + name + "' is " + to_string(found->second.spec()) +
                                 ", the network has " + to_string(wanted));
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (variables.contains(name) || is_training_state(name)) continue;
    unexpected.lines.push_back("'" + name + "' " + to_string(tensor.spec()));
  }
  std::string text;
  for (const Complaint* complaint : {&missing, &unexpected, &mismatched})
    complaint->append_to(text);
  return text;
}

std::optional<std::int64_t> whole_number(std::string_view text) noexcept {
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string take(std::map<std::string, std::string>& metadata, const char* key,
                 const std::string& where) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) {
    throw FormatError(
        where + ": metadata '" + key +
        "' is missing\n  hint: a file of weights without a network is read with read_checkpoint");
  }
  std::string text = std::move(found->second);
  metadata.erase(found);
  return text;
}

Graph parse_graph(const std::string& text, const std::string& where) {
  try {
    return Graph::parse(text);
  } catch (const MemoryLimitError&) {
    throw;
  } catch (const InternalError&) {
    throw;
  } catch (const Error& error) {
    throw FormatError(where + ": metadata '" + kGraph + "': " + error.what());
  }
}

void check_version(std::map<std::string, std::string>& metadata, const std::string& where) {
  const std::string format = take(metadata, kFormat, where);
  const auto version = whole_number(format);
  if (!version || *version < 1) {
    throw FormatError(where + ": metadata '" + kFormat + "' is '" + format.substr(0, 64) +
                      "', not a version number");
  }
  if (*version > kFormatVersion) {
    throw FormatError(where + ": written by a newer pycnn: format " + format +
                      ", this version reads up to " + std::to_string(kFormatVersion));
  }
}

Checkpoint to_checkpoint(const Model& model, const std::string& where) {
  const StoredVariables variables = variables_of(model.graph);
  const std::string problem = disagreement(variables, model.variables, false);
  if (!problem.empty()) {
    throw ArgumentError(where + ": the variables do not fit the network" + problem);
  }
  Checkpoint checkpoint;
  checkpoint.metadata = model.metadata;
  checkpoint.metadata[kGraph] = model.graph.text();
  checkpoint.metadata[kFormat] = std::to_string(kFormatVersion);
  for (const auto& [name, tensor] : model.variables) {
    const StoredVariable* const owner = layout_owner(variables, name);
    const bool convert =
        owner != nullptr && owner->conv_weight && tensor.shape() == owner->spec.shape;
    checkpoint.tensors.emplace_hint(checkpoint.tensors.end(), name,
                                    convert ? to_disk(tensor) : tensor);
  }
  return checkpoint;
}

// The version is checked already.
Model to_model(Checkpoint checkpoint, const std::string& where) {
  Model model;
  model.graph = parse_graph(take(checkpoint.metadata, kGraph, where), where);
  model.metadata = std::move(checkpoint.metadata);
  const StoredVariables variables = variables_of(model.graph);
  const std::string problem = disagreement(variables, checkpoint.tensors, true);
  if (!problem.empty()) throw FormatError(where + ": the tensors do not fit the network" + problem);
  for (auto& [name, tensor] : checkpoint.tensors) {
    const StoredVariable* const owner = layout_owner(variables, name);
    const bool convert =
        owner != nullptr && owner->conv_weight && tensor.shape() == disk_shape(owner->spec.shape);
    model.variables.emplace_hint(model.variables.end(), name,
                                 convert ? to_memory(tensor) : std::move(tensor));
  }
  return model;
}

}  // namespace

void save_model(const std::string& path, const Model& model) {
  write_checkpoint(path, to_checkpoint(model, "save '" + path + "'"));
}

std::vector<std::byte> serialize_model(const Model& model) {
  return serialize_checkpoint(to_checkpoint(model, "serialize_model"));
}

Model load_model(const std::string& path) {
  const std::string where = "load '" + path + "'";
  // The header alone tells most of what can be wrong, before the weights are read.
  CheckpointInfo info = inspect_checkpoint(path);
  check_version(info.metadata, where);
  Checkpoint checkpoint = read_checkpoint(path);
  checkpoint.metadata.erase(kFormat);
  return to_model(std::move(checkpoint), where);
}

Model parse_model(std::span<const std::byte> bytes, const std::string& name) {
  const std::string where = "load '" + name + "'";
  Checkpoint checkpoint = parse_checkpoint(bytes, name);
  check_version(checkpoint.metadata, where);
  return to_model(std::move(checkpoint), where);
}

}  // namespace pycnn
