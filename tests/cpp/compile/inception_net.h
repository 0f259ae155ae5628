#pragma once
#include <string>
#include <vector>

#include "compile/nets.h"
#include "pycnn/composites.h"

// Inception blocks for tests.
namespace pycnn::test {

// `block` of the channels that `x` has, with variables whose names begin with `prefix`.
inline Symbol inception(Graph& graph, Symbol x, composites::Inception block,
                        const std::string& prefix) {
  block.in_channels = graph.spec(x).shape[3];
  std::vector<Symbol> tensors;
  for (const composites::BlockTensor& tensor : composites::parameters(block))
    tensors.push_back(
        tensor.trainable
            ? graph.parameter(prefix + tensor.name, tensor.spec, tensor.initializer, tensor.layout)
            : graph.buffer(prefix + tensor.name, tensor.spec, tensor.initializer));
  return composites::build(block, graph, x, tensors, prefix, "net.py:1");
}

// Of few channels, none of them a multiple of a vector's but one.
inline composites::Inception odd_inception(bool batch_norm) {
  return {.branch1 = 17,
          .reduce3 = 16,
          .branch3 = 19,
          .reduce5 = 3,
          .branch5 = 5,
          .pool = 7,
          .branch5_kernel = 5,
          .batch_norm = batch_norm};
}

// Logits and loss of labels "y", of `classes`, behind the mean of an image.
inline void classify(Graph& graph, Symbol x, std::int64_t classes) {
  Layers net{graph};
  x = net.dense(graph.add(ops::GlobalAvgPool2d{}, {x}), "fc", classes);
  const Symbol y = graph.input("y", {{graph.spec(x).shape[0]}, DType::kInt64});
  graph.set_output("logits", x);
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {x, y}, "loss"));
}

}  // namespace pycnn::test
