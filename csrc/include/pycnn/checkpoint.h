#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "pycnn/graph.h"
#include "pycnn/tensor.h"

/// \file
/// Tensors and text in one safetensors file, and whole models in such a file.
///
/// Files are untrusted: a malformed one is refused with FormatError, which names file, tensor,
/// field and byte, before memory is taken for its data. A save is atomic: whatever happens at
/// whatever time (a full disk, a crash, power loss), the path holds either what it held before or
/// all of the new file.
namespace pycnn {

/// Named tensors, and texts beside them. Both are UTF-8; names are not empty and hold no control
/// characters.
struct Checkpoint {
  std::map<std::string, Tensor> tensors;        ///< by name
  std::map<std::string, std::string> metadata;  ///< texts by key
};

/// What a file holds, without the values.
struct CheckpointInfo {
  std::map<std::string, TensorSpec> tensors;    ///< by name, shapes as in the file
  std::map<std::string, std::string> metadata;  ///< texts by key
};

/// Throws FileError when the file cannot be read and FormatError when it is not a valid safetensors
/// file, holds an element type other than F64 F32 BF16 F16 U8 I32 I64, or does not match the
/// checksum that `write_checkpoint` put in.
PYCNN_API Checkpoint read_checkpoint(const std::string& path);
/// The same from memory of any alignment; `name` stands for the path in messages.
PYCNN_API Checkpoint parse_checkpoint(std::span<const std::byte> bytes, const std::string& name);
/// Reads and validates the header only; no checksum is verified.
PYCNN_API CheckpointInfo inspect_checkpoint(const std::string& path);

/// The file's bytes, a function of the content alone. Tensors lie in order of falling element size,
/// then of name, so that each is aligned to its elements. Adds the metadata entry `pycnn.checksum`
/// (replacing any), which reading verifies and removes again; it covers the tensors and the
/// metadata under `pycnn.`. Throws ArgumentError for a name, key or text that cannot be stored and
/// for an undefined tensor.
PYCNN_API std::vector<std::byte> serialize_checkpoint(const Checkpoint& checkpoint);
/// Writes beside the path, flushes to the disk and renames. Throws FileError with path and errno;
/// the temporary file is removed then. A path that is a symbolic link keeps being one: the file it
/// points to is replaced. Temporary files that a killed process left for this path are removed.
PYCNN_API void write_checkpoint(const std::string& path, const Checkpoint& checkpoint);

/// A network and its weights as one file holds them. `variables` has the parameters and buffers of
/// the graph under their names and in memory layout, and may have more under `optim.`, `train.` and
/// `ema.`: training state.
struct Model {
  Graph graph;                                  ///< as recorded, for training and inference
  std::map<std::string, Tensor> variables;      ///< copies of a Model share these
  std::map<std::string, std::string> metadata;  ///< further texts: names of classes and so on
};

/// Convolution weights, and training state of the same shape kept for them (`optim.SLOT.NAME`,
/// `ema.NAME`), are stored as (OC, IC / groups, KH, KW). Throws ArgumentError listing the
/// variables that are missing, unexpected or of another shape or type, and what `write_checkpoint`
/// throws. The entries `pycnn.graph`, `pycnn.format` and `pycnn.checksum` of the metadata belong to
/// the file: given ones are ignored.
PYCNN_API void save_model(const std::string& path, const Model& model);
/// The reverse. Throws FormatError when the file holds no network, was written by a newer version,
/// or its tensors do not fit the graph (with the names), and what `read_checkpoint` throws.
PYCNN_API Model load_model(const std::string& path);
/// The same of a model file's bytes, of any alignment, which may be freed afterwards; `name` stands
/// for the path in messages.
PYCNN_API Model parse_model(std::span<const std::byte> bytes, const std::string& name);
/// The bytes that `save_model` writes, and throws as it does.
PYCNN_API std::vector<std::byte> serialize_model(const Model& model);

}  // namespace pycnn
