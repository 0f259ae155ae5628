#include "ops/roles.h"

#include <algorithm>
#include <string_view>

#include "ops/checks.h"

namespace pycnn::ops {
namespace {

constexpr std::size_t kMaxDescribed = 12;

constexpr const char* kImage = "input (N, H, W, C)";
constexpr const char* kConvWeight = "weight (OC, KH, KW, IC / groups)";
constexpr const char* kConvGrad = "grad_output (N, OH, OW, OC)";
constexpr const char* kPoolGrad = "grad_output (N, OH, OW, C)";
constexpr const char* kRows = "input (..., C)";

// Roles of an op's inputs in order, each a name and maybe axes.
struct Entry {
  const char* op;
  const char* inputs[9];
};

constexpr Entry kEntries[] = {
    {Conv2d::kName, {kImage, kConvWeight, "bias (OC)"}},
    {Conv2dGradInput::kName,
     {kConvGrad, kConvWeight, "residual (N, H, W, IC)", "relu_output (N, H, W, IC)",
      "signs (N, H, W, IC/8)", "input (N, H, W, IC)", "batch_mean (IC)", "factor (IC)",
      "offset (IC)"}},
    {Conv2dGradWeight::kName, {kImage, kConvGrad}},
    {Dense::kName, {"input (..., IN)", "weight (OUT, IN)", "bias (OUT)"}},
    {DenseGradInput::kName, {"grad_output (..., OUT)", "weight (OUT, IN)"}},
    {DenseGradWeight::kName, {"input (..., IN)", "grad_output (..., OUT)"}},
    {MaxPool2d::kName, {kImage}},
    {MaxPool2dGrad::kName, {kImage, kPoolGrad}},
    {AvgPool2d::kName, {kImage}},
    {AvgPool2dGrad::kName, {kPoolGrad}},
    {AdaptiveAvgPool2d::kName, {kImage}},
    {AdaptiveAvgPool2dGrad::kName, {kPoolGrad}},
    {Resize2d::kName, {kImage}},
    {Resize2dGrad::kName, {kPoolGrad}},
    {GlobalAvgPool2d::kName, {kImage}},
    {GlobalAvgPool2dGrad::kName, {"grad_output (N, C)"}},
    {GlobalMaxPool2d::kName, {kImage}},
    {GlobalMaxPool2dGrad::kName, {kImage, "grad_output (N, C)"}},
    {BatchNorm::kName, {kRows, "scale (C)", "shift (C)", "running_mean (C)", "running_var (C)"}},
    {BatchNormTrain::kName,
     {kRows, "scale (C)", "shift (C)", "running_mean (C)", "running_var (C)"}},
    {BatchNormTrainGrad::kName,
     {kRows, "scale (C)", "batch_mean (C)", "batch_inv_std (C)", "grad_output (..., C)",
      "sums (2, C)"}},
    {BatchNormStatistics::kName,
     {kRows, "scale (C)", "shift (C)", "running_mean (C)", "running_var (C)", "moments (3, C)"}},
    {BatchNormApply::kName,
     {kRows, "batch_mean (C)", "factor (C)", "offset (C)", "residual (..., C)", "residual_mean (C)",
      "residual_factor (C)", "residual_offset (C)"}},
    {BatchNormApplyGrad::kName,
     {kRows, "scale (C)", "batch_mean (C)", "batch_inv_std (C)", "factor (C)", "offset (C)",
      "grad_output (..., C)", "sums (2, C)"}},
    {BatchNormMaxPool::kName, {kImage, "batch_mean (C)", "factor (C)", "offset (C)"}},
    {BatchNormMaxPoolGrad::kName,
     {kImage, "scale (C)", "batch_mean (C)", "batch_inv_std (C)", "factor (C)", "offset (C)",
      kPoolGrad}},
    {BatchNormInference::kName,
     {kRows, "scale (C)", "shift (C)", "running_mean (C)", "running_var (C)"}},
    {BatchNormInferenceGrad::kName,
     {kRows, "scale (C)", "running_mean (C)", "running_var (C)", "grad_output (..., C)"}},
    {FoldBatchNorm::kName,
     {"weight (OC, ...)", "scale (OC)", "shift (OC)", "running_mean (OC)", "running_var (OC)",
      "bias (OC)"}},
    {LocalResponseNorm::kName, {kRows}},
    {LocalResponseNormGrad::kName, {kRows, "grad_output (..., C)"}},
    {Activation::kName, {"input"}},
    {ActivationGrad::kName, {"output", "grad_output"}},
    {Add::kName, {"a", "b"}},
    {Subtract::kName, {"a", "b"}},
    {Multiply::kName, {"a", "b"}},
    {Unary::kName, {"input"}},
    {UnaryGrad::kName, {"input", "grad_output"}},
    {Binary::kName, {"a", "b"}},
    {Affine::kName, {"input"}},
    {Cast::kName, {"input"}},
    {Fill::kName, {}},
    {Dropout::kName, {"input"}},
    {DropoutTrain::kName, {"input", "seed (1)", "step (1)"}},
    {NormalizeImage::kName, {kRows}},
    {Softmax::kName, {kRows}},
    {SoftmaxGrad::kName, {"output (..., C)", "grad_output (..., C)"}},
    {LogSoftmax::kName, {kRows}},
    {LogSoftmaxGrad::kName, {"output (..., C)", "grad_output (..., C)"}},
    {SoftmaxCrossEntropy::kName, {"logits (N, C)", "labels (N)"}},
    {SoftmaxCrossEntropyGrad::kName, {"logits (N, C)", "labels (N)", "grad_loss ()"}},
    {MeanSquaredError::kName, {"input", "target"}},
    {MeanSquaredErrorGrad::kName, {"input", "target", "grad_loss ()"}},
    {TopKCorrect::kName, {"scores (N, C)", "labels (N)"}},
    {Reduce::kName, {"input"}},
    {ArgMax::kName, {"input"}},
    {Broadcast::kName, {"input"}},
    {Concat::kName, {}},
    {Slice::kName, {"input"}},
    {Pad::kName, {"input"}},
    {Reshape::kName, {"input"}},
    {Transpose::kName, {"input"}},
    {Take::kName, {"input (rows, ...)"}},
    {TakeGrad::kName, {"grad_output (rows, ...)"}},
    {TakeWindows::kName, {"images (M, H, W, C)", "places (N, 8)"}},
    {Increment::kName, {"counter (1)"}},
    {ClipFactor::kName, {}},
    {SgdUpdate::kName, {"parameter", "gradient", "learning_rate (1)", "velocity"}},
    {AdamUpdate::kName,
     {"parameter", "gradient", "learning_rate (1)", "step (1)", "mean", "variance", "factor ()"}},
    {MuonUpdate::kName, {"parameter", "gradient", "learning_rate (1)", "velocity", "factor ()"}},
    {EmaUpdate::kName, {"average", "value", "step (1)"}},
    {DenseSgdUpdate::kName,
     {"parameter (OUT, IN)", "input (..., IN)", "grad_output (..., OUT)", "learning_rate (1)",
      "velocity"}},
    {DenseAdamUpdate::kName,
     {"parameter (OUT, IN)", "input (..., IN)", "grad_output (..., OUT)", "learning_rate (1)",
      "step (1)", "mean", "variance"}},
    {LossScale::kName, {"norm ()", "scale ()", "good_steps (1)"}},
    {Commit::kName, {"value", "previous", "factor ()"}},
};
static_assert(std::size(kEntries) == std::variant_size_v<AnyOp>, "one entry per op");

bool has_residual(const Op& op) {
  if (const auto* conv = std::get_if<Conv2d>(&op)) return conv->epilogue.residual;
  if (const auto* dense = std::get_if<Dense>(&op)) return dense->epilogue.residual;
  return false;
}

bool last_is_factor(const Op& op, std::size_t i) {
  const auto* sgd = std::get_if<SgdUpdate>(&op);
  return sgd != nullptr && sgd->clipped && i >= 3;
}

}  // namespace

Role input_role(const Op& op, std::size_t i, std::size_t count) {
  if (i + 1 == count && i >= 2 && has_residual(op)) return {"residual", ""};
  if (i + 1 == count && last_is_factor(op, i)) return {"factor", "()"};
  if (const auto* grad = std::get_if<Conv2dGradInput>(&op)) {
    if (i >= 2 && !grad->finish.residual) ++i;
    if (i >= 3 && !grad->finish.relu) ++i;
    if (i >= 4 && !grad->finish.signs) ++i;
  }
  const std::string_view name = op_name(op);
  const auto* entry = std::find_if(std::begin(kEntries), std::end(kEntries),
                                   [&](const Entry& e) { return name == e.op; });
  if (i >= std::size(entry->inputs) || entry->inputs[i] == nullptr) {
    return {cat("input ", i), ""};
  }
  const std::string_view role = entry->inputs[i];
  const std::size_t space = role.find(' ');
  if (space == std::string_view::npos) return {std::string(role), ""};
  return {std::string(role.substr(0, space)), std::string(role.substr(space + 1))};
}

std::string describe_inputs(const Op& op, Specs inputs) {
  const std::size_t shown = std::min(inputs.size(), kMaxDescribed);
  std::vector<Role> roles;
  std::size_t name_width = 0, spec_width = 0;
  for (std::size_t i = 0; i < shown; ++i) {
    roles.push_back(input_role(op, i, inputs.size()));
    name_width = std::max(name_width, roles[i].name.size());
    spec_width = std::max(spec_width, to_string(inputs[i]).size());
  }
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) {
    std::string name = roles[i].name, spec = to_string(inputs[i]);
    name.resize(name_width, ' ');
    if (!roles[i].axes.empty()) spec.resize(spec_width, ' ');
    text += cat("\n  ", name, " ", spec);
    if (!roles[i].axes.empty()) text += cat(" read as ", roles[i].axes);
  }
  if (shown < inputs.size()) text += cat("\n  and ", inputs.size() - shown, " more");
  return text;
}

}  // namespace pycnn::ops
