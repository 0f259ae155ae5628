#pragma once
#include <string>

#include "pycnn/graph.h"

namespace pycnn {

// Names of the variables that training adds; state of a parameter is the prefix and its name.
inline constexpr const char* kSeedName = "train.seed";
inline constexpr const char* kStepName = "train.step";
inline constexpr const char* kLearningRateName = "train.learning_rate";
inline constexpr const char* kLossScaleName = "train.loss_scale";
inline constexpr const char* kGoodStepsName = "train.good_steps";
inline constexpr const char* kMomentumPrefix = "optim.momentum.";
inline constexpr const char* kMeanPrefix = "optim.mean.";
inline constexpr const char* kVariancePrefix = "optim.variance.";
inline constexpr const char* kAveragePrefix = "ema.";

// The buffer of this name, added where the graph has none. Throws GraphError when the name belongs
// to something else.
Symbol training_buffer(Graph& graph, const std::string& name, const TensorSpec& spec,
                       Initializer init = {});
// Seed and step: one whole number.
inline TensorSpec counter_spec() { return {{1}, DType::kInt64}; }

}  // namespace pycnn
