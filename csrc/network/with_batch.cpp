#include <utility>

#include "graph/edit.h"
#include "pycnn/error.h"
#include "pycnn/network.h"

namespace pycnn {
namespace {

Graph with_byte_images(const Graph& graph) {
  GraphEditor editor(graph);
  bool found = false;
  for (int i = 0; i < editor.size(); ++i) {
    const Node& node = editor.source_node(i);
    if (node.kind != NodeKind::kInput || node.outputs[0].dtype != DType::kFloat32) {
      editor.keep(i);
      continue;
    }
    const Symbol bytes = editor.keep(i, {node.outputs[0].shape, DType::kUInt8});
    ops::NormalizeImage scaled;
    scaled.scale = 1.0 / 255.0;
    const Symbol image = editor.emit(scaled, {bytes}, node.name + ".scaled");
    editor.substitute(editor.source_symbol(i), image);
    found = true;
  }
  if (!found)
    throw DTypeError("with_batch: the network has no float32 input that could take uint8 images");
  return editor.finish();
}

}  // namespace

std::pair<std::string, TensorSpec> image_input(const Graph& graph) {
  const Node* found = nullptr;
  std::string names;
  int count = 0;
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::kInput) continue;
    found = &node;
    names += (count++ == 0 ? "'" : ", '") + node.name + "'";
  }
  if (count != 1)
    throw ArgumentError("image_input: the network has " + std::to_string(count) + " inputs" +
                        (count == 0 ? "" : " (" + names + ")") + ", expected one");
  return {found->name, found->outputs[0]};
}

Graph with_batch(const Graph& graph, std::int64_t batch, DType images) {
  if (batch < 0)
    throw ArgumentError("with_batch: batch is " + std::to_string(batch) +
                        ", a number of images of at least 0 is expected");
  if (images != DType::kFloat32 && images != DType::kUInt8)
    throw DTypeError(std::string("with_batch: images is ") + long_name(images) +
                     ", expected float32 or uint8");
  std::map<std::string, TensorSpec> inputs;
  for (const Node& node : graph.nodes()) {
    if (node.kind != NodeKind::kInput) continue;
    TensorSpec spec = node.outputs[0];
    if (spec.shape.empty())
      throw ShapeError("with_batch: input '" + node.name + "' is a scalar, it has no batch");
    spec.shape[0] = batch;
    inputs.emplace(node.name, std::move(spec));
  }
  const Graph batched = graph.with_inputs(inputs);
  return images == DType::kUInt8 ? with_byte_images(batched) : batched;
}

}  // namespace pycnn
