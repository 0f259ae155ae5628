#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "pycnn/checkpoint.h"
#include "pycnn/graph.h"

/// \file
/// What applications do with a recorded network before they compile it: look at its images, take
/// another batch or bytes, put a fresh head on it.
namespace pycnn {

/// The name and spec of the network's images: its only input, (N, H, W, C) as recorded, usually
/// float32 with N = 1. Throws ArgumentError naming the inputs when there are none or several.
PYCNN_API std::pair<std::string, TensorSpec> image_input(const Graph& graph);

/// The same network for `batch` images at once: the first axis of every input becomes `batch`, the
/// others stay (Graph::with_inputs changes those, too).
///
/// With `images` = DType::kUInt8 inputs that were recorded as float32 take bytes, which become
/// value / 255, as Python reads uint8 images. DType::kFloat32 keeps every input's type.
///
/// Throws ArgumentError for a negative batch, DTypeError for another type or when no input is
/// float32, ShapeError when an op of the network does not go with the batch.
PYCNN_API Graph with_batch(const Graph& graph, std::int64_t batch, DType images = DType::kFloat32);

/// The classes' names as the file's metadata has them, in the order of the scores; empty when it
/// has none. Throws FormatError when the entry is damaged.
PYCNN_API std::vector<std::string> class_names(const Model& model);

/// Network and weights alone: without the arrays of a training (named "optim.", "train." or "ema.")
/// and Python's record of it. Tensors are shared, not copied.
PYCNN_API Model without_training_state(Model model);

/// A further result of a network that only training looks at (GoogLeNet's auxiliary heads): the
/// node that gives its scores, and the weight of its loss.
struct AuxiliaryHead {
  std::string node;     ///< name of the op node, whose first output has the scores (N, classes)
  double weight = 0.0;  ///< of its loss, beside the main one's 1
};

/// The auxiliary heads that the file names; empty for most networks. Throws FormatError when the
/// entry is damaged or names a node that the graph lacks.
PYCNN_API std::vector<AuxiliaryHead> auxiliary_heads(const Model& model);

/// Names of the parameters of the layer that gives the scores: of the last dense layer or
/// convolution before the graph's first output, weight first, then of the one before each
/// auxiliary head. Throws GraphError when no such layer gives the scores, FormatError as
/// `auxiliary_heads`.
PYCNN_API std::vector<std::string> head_names(const Model& model);

/// The network for another number of classes: weight and bias of the layers that `head_names`
/// finds start anew, uniform within 1 / sqrt(fan-in) on either side of 0 as Python's, drawn from
/// `seed` and their names. Heads of that many classes already keep their values. All other
/// variables are the given model's own tensors, not copies: training the result changes `model`,
/// too. Training state and the classes' names are left out.
///
/// Throws ArgumentError for `num_classes` below 1, UnsupportedError when what follows the head has
/// the old number built in, ShapeError for far too many, and what `head_names` throws.
PYCNN_API Model replace_head(const Model& model, std::int64_t num_classes, std::uint64_t seed = 0);

}  // namespace pycnn
