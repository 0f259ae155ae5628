#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "pycnn/network.h"
#include "pycnn/trainer.h"

namespace pycnn {

// Which variables of a network a training changes: TrainerOptions::trained without `frozen`.
// Throws ArgumentError for a pattern that fits none.
class TrainedNames {
 public:
  TrainedNames(const Graph& graph, const std::vector<std::string>& trained,
               const std::vector<std::string>& frozen);
  bool contains(const std::string& name) const;
  // Parameters that are not trained, as a group for an Optimizer.
  ParameterGroup frozen_parameters(const Graph& graph) const;

 private:
  std::vector<std::string> trained_;
  std::vector<std::string> frozen_;
};

// The network on a batch of images with its loss on class labels: inputs are the images and the
// labels (N) i64, outputs "loss" (), auxiliary heads included, and "correct" (). Throws
// ArgumentError, ShapeError and DTypeError as the constructor of Trainer.
Graph training_graph(const Model& model, const TrainerOptions& options, const TrainedNames& trained,
                     std::int64_t batch);

}  // namespace pycnn
