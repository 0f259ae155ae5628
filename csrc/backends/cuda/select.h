#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/device_module.h"

// Which ops there are kernels for. `select` says for a problem which function gives the work to the
// queue, or why there is none.
namespace pycnn::cuda {

struct Choice {
  KernelFunction run = nullptr;
  std::size_t scratch_bytes = 0;
  std::vector<std::uint32_t> in_place = {};  // as Kernel::in_place
  std::vector<std::byte> plan = {};          // as Kernel::plan
  const char* refusal = "";                  // when there is no `run`; lives as long as the process
  std::shared_ptr<const void> state = {};    // as Kernel::state
  PackedInput packed = {};                   // as Kernel::packed
  // Empty: the library's or our own one. Lives as long as the process.
  const char* variant = "";
  // Of the library's kernels those that were not looked at, and why; empty: none. Lives likewise.
  const char* left_out = "";
  std::uint32_t strided_inputs = 0, strided_outputs = 0;  // as Kernel's
  std::size_t alignment = 1;                              // as Kernel::alignment
  JoinFunction join = nullptr;                            // as Kernel::join
  decltype(Kernel::absorb) absorb = nullptr;              // as Kernel::absorb
  std::int64_t output_pitch = 0;                          // as Kernel::output_pitch
  const char* apart_variant = nullptr;                    // as Kernel::apart_variant
  decltype(Kernel::rounds) rounds = nullptr;              // as Kernel::rounds
  PackedInput packed_bias = {};                           // as Kernel::packed_bias
  std::optional<DType> widened_from = {};                 // as Kernel::widened_from
  bool takes_narrow_gradient = false;                     // as Kernel::takes_narrow_gradient
  std::vector<std::string> missing = {};                  // as Selection::missing
};

inline Choice refuse(const char* reason) { return {nullptr, 0, {}, {}, reason, {}, {}, "", ""}; }

// A kernel that takes and makes tensors whose pixels lie apart.
inline Choice strided(Choice choice, std::uint32_t inputs, std::uint32_t outputs) {
  choice.strided_inputs = inputs;
  choice.strided_outputs = outputs;
  return choice;
}

using AbsorbFunction = decltype(Kernel::absorb);

// The kernel absorbs neighbours unless it was asked for by name.
inline Choice absorbing(Choice choice, const Problem& problem, AbsorbFunction absorb) {
  if (problem.pinned.empty()) choice.absorb = absorb;
  return choice;
}

bool merges_siblings(const Siblings&) noexcept;  // DeviceModule::merges: conv2d.cpp
bool measures_outputs(const Op&, Specs inputs, Specs outputs) noexcept;  // conv2d.cpp

// What `select` gives for an op without a kernel of any kind.
struct NoKernel : Choice {
  NoKernel() : Choice(refuse("there is no kernel for this op")) {}
};
template <class OpType>
NoKernel select(const OpType&, const Problem&) {
  return {};
}

// What there is of an op in NVIDIA's libraries, for one device. The name of that variant is
// kLibrary<OpType>; null: there is none.
template <class OpType>
constexpr const char* kLibrary = nullptr;
// Another one's kernels, among which is chosen, too: the name of that variant. Null: there is none.
template <class OpType>
constexpr const char* kProductLibrary = nullptr;
template <class OpType>
NoKernel select_library(int, const OpType&, const Problem&) {
  return {};
}

// conv2d_cudnn.cpp
template <>
inline constexpr const char* kLibrary<ops::Conv2d> = "conv2d.cudnn";
template <>
inline constexpr const char* kLibrary<ops::Conv2dGradInput> = "conv2d_grad_input.cudnn";
template <>
inline constexpr const char* kLibrary<ops::Conv2dGradWeight> = "conv2d_grad_weight.cudnn";
// dense_cublaslt.cpp
template <>
inline constexpr const char* kProductLibrary<ops::Conv2d> = "conv2d.cublaslt";
template <>
inline constexpr const char* kProductLibrary<ops::Conv2dGradInput> = "conv2d_grad_input.cublaslt";
template <>
inline constexpr const char* kProductLibrary<ops::Conv2dGradWeight> = "conv2d_grad_weight.cublaslt";
template <>
inline constexpr const char* kLibrary<ops::Dense> = "dense.cublaslt";
template <>
inline constexpr const char* kLibrary<ops::DenseGradInput> = "dense_grad_input.cublaslt";
template <>
inline constexpr const char* kLibrary<ops::DenseGradWeight> = "dense_grad_weight.cublaslt";
Choice select_library(int device, const ops::Conv2d&, const Problem&);
Choice select_library(int device, const ops::Conv2dGradInput&, const Problem&);
Choice select_library(int device, const ops::Conv2dGradWeight&, const Problem&);
Choice select_library(int device, const ops::Dense&, const Problem&);
Choice select_library(int device, const ops::DenseGradInput&, const Problem&);
Choice select_library(int device, const ops::DenseGradWeight&, const Problem&);

// conv2d.cpp
Choice select(const ops::Conv2d&, const Problem&);
Choice select(const ops::Conv2dGradInput&, const Problem&);
Choice select(const ops::Conv2dGradWeight&, const Problem&);
Choice select(const ops::Dense&, const Problem&);
Choice select(const ops::DenseGradInput&, const Problem&);
Choice select(const ops::DenseGradWeight&, const Problem&);

// pool.cpp
Choice select(const ops::MaxPool2d&, const Problem&);
Choice select(const ops::MaxPool2dGrad&, const Problem&);
Choice select(const ops::AvgPool2d&, const Problem&);
Choice select(const ops::AvgPool2dGrad&, const Problem&);
Choice select(const ops::AdaptiveAvgPool2d&, const Problem&);
Choice select(const ops::AdaptiveAvgPool2dGrad&, const Problem&);
Choice select(const ops::GlobalAvgPool2d&, const Problem&);
Choice select(const ops::GlobalAvgPool2dGrad&, const Problem&);
Choice select(const ops::GlobalMaxPool2d&, const Problem&);
Choice select(const ops::GlobalMaxPool2dGrad&, const Problem&);
Choice select(const ops::BatchNormMaxPool&, const Problem&);
Choice select(const ops::BatchNormMaxPoolGrad&, const Problem&);

// local_response_norm.cpp
Choice select(const ops::LocalResponseNorm&, const Problem&);
Choice select(const ops::LocalResponseNormGrad&, const Problem&);

// batch_norm.cpp
Choice select(const ops::BatchNormTrain&, const Problem&);
Choice select(const ops::BatchNormTrainGrad&, const Problem&);
Choice select(const ops::BatchNormStatistics&, const Problem&);
Choice select(const ops::BatchNormApply&, const Problem&);
Choice select(const ops::BatchNormApplyGrad&, const Problem&);
Choice select(const ops::BatchNormInference&, const Problem&);
Choice select(const ops::BatchNormInferenceGrad&, const Problem&);
Choice select(const ops::FoldBatchNorm&, const Problem&);

// elementwise.cpp
Choice select(const ops::Activation&, const Problem&);
Choice select(const ops::ActivationGrad&, const Problem&);
Choice select(const ops::Add&, const Problem&);
Choice select(const ops::Subtract&, const Problem&);
Choice select(const ops::Multiply&, const Problem&);
Choice select(const ops::Binary&, const Problem&);
Choice select(const ops::Affine&, const Problem&);
Choice select(const ops::Cast&, const Problem&);
Choice select(const ops::Fill&, const Problem&);
Choice select(const ops::DropoutTrain&, const Problem&);
Choice select(const ops::NormalizeImage&, const Problem&);
Choice select(const ops::Increment&, const Problem&);

// softmax.cpp
Choice select(const ops::Softmax&, const Problem&);
Choice select(const ops::SoftmaxGrad&, const Problem&);
Choice select(const ops::LogSoftmax&, const Problem&);
Choice select(const ops::LogSoftmaxGrad&, const Problem&);
Choice select(const ops::SoftmaxCrossEntropy&, const Problem&);
Choice select(const ops::SoftmaxCrossEntropyGrad&, const Problem&);
Choice select(const ops::MeanSquaredError&, const Problem&);
Choice select(const ops::MeanSquaredErrorGrad&, const Problem&);
Choice select(const ops::TopKCorrect&, const Problem&);

// move.cpp
Choice select(const ops::Reduce&, const Problem&);
Choice select(const ops::ArgMax&, const Problem&);
Choice select(const ops::Broadcast&, const Problem&);
Choice select(const ops::Concat&, const Problem&);
Choice select(const ops::Slice&, const Problem&);
Choice select(const ops::Pad&, const Problem&);
Choice select(const ops::Reshape&, const Problem&);
Choice select(const ops::Transpose&, const Problem&);

// unary.cpp
Choice select(const ops::Unary&, const Problem&);
Choice select(const ops::UnaryGrad&, const Problem&);

// take.cpp
Choice select(const ops::Take&, const Problem&);
Choice select(const ops::TakeGrad&, const Problem&);

// take_windows.cpp
Choice select(const ops::TakeWindows&, const Problem&);

// resize.cpp
Choice select(const ops::Resize2d&, const Problem&);
Choice select(const ops::Resize2dGrad&, const Problem&);

// optimizer.cpp, muon.cpp
Choice select(const ops::SgdUpdate&, const Problem&);
Choice select(const ops::AdamUpdate&, const Problem&);
Choice select(const ops::MuonUpdate&, const Problem&);
Choice select(const ops::EmaUpdate&, const Problem&);
Choice select(const ops::ClipFactor&, const Problem&);
Choice select(const ops::LossScale&, const Problem&);
Choice select(const ops::Commit&, const Problem&);

}  // namespace pycnn::cuda
