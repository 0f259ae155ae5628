#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <set>

#include "ops/checks.h"
#include "ops/roles.h"
#include "pycnn/error.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

TEST_CASE("every op has an example, a name of its own and named inputs") {
  std::set<std::size_t> seen;
  std::map<std::string, std::size_t> names;
  for (const OpExample& example : op_examples()) {
    seen.insert(example.op.index());
    const auto [entry, fresh] = names.emplace(op_name(example.op), example.op.index());
    CHECK(entry->second == example.op.index());
    CHECK(!infer(example.op, example.inputs).empty());
    const bool open_ended = std::holds_alternative<ops::Concat>(example.op) ||
                            std::holds_alternative<ops::ClipFactor>(example.op);
    for (std::size_t i = 0; i < example.inputs.size() && !open_ended; ++i) {
      INFO(op_name(example.op), " input ", i);
      CHECK(ops::input_role(example.op, i, example.inputs.size()).name.find("input ") ==
            std::string::npos);
    }
  }
  CHECK(seen.size() == std::variant_size_v<AnyOp>);
}

TEST_CASE("every op refuses too few, too many and absurd inputs with an error of its own") {
  for (const OpExample& example : op_examples()) {
    INFO(op_name(example.op));
    const auto refused = [&](std::vector<TensorSpec> inputs) {
      CHECK_THROWS_AS(infer(example.op, inputs), Error);
    };
    std::vector<TensorSpec> none;
    if (!example.inputs.empty()) refused(none);
    std::vector<TensorSpec> many(9, f32({2, 3}));
    many[3] = i64({5});
    refused(many);
    for (std::size_t i = 0; i < example.inputs.size(); ++i) {
      auto inputs = example.inputs;
      inputs[i].shape = {2, -1};
      refused(inputs);
      inputs[i].shape = Shape(9, 1);
      refused(inputs);
      inputs[i].shape = {std::int64_t{1} << 40, std::int64_t{1} << 40};
      refused(inputs);
    }
  }
}

TEST_CASE("every op either accepts or refuses any type and shape of any input") {
  const std::vector<TensorSpec> odd = {
      f32({}),  f64({2, 3}),       u8({2, 9, 8, 6}),  i64({1}),
      f32({0}), f32({0, 0, 0, 0}), f32({1, 1, 1, 1}), {{3}, DType::kBFloat16}};
  for (const OpExample& example : op_examples()) {
    for (std::size_t i = 0; i < example.inputs.size(); ++i) {
      for (const TensorSpec& spec : odd) {
        auto inputs = example.inputs;
        inputs[i] = spec;
        try {
          for (const TensorSpec& output : infer(example.op, inputs)) {
            CHECK(element_count(output.shape) >= 0);
          }
        } catch (const Error&) {
        }
      }
    }
  }
}

TEST_CASE("an empty batch passes through every op that does not average over it") {
  int passed = 0;
  for (const OpExample& example : op_examples()) {
    auto inputs = example.inputs;
    for (TensorSpec& spec : inputs) {
      if (spec.shape.size() == 4 && spec.shape[0] == 2) spec.shape[0] = 0;
      if (spec.shape.size() == 2 && spec.shape[0] == 5) spec.shape[0] = 0;
      if (spec.shape.size() == 3 && spec.shape[0] == 5) spec.shape[0] = 0;
    }
    const bool averages = std::holds_alternative<ops::BatchNormTrain>(example.op) ||
                          std::holds_alternative<ops::BatchNormStatistics>(example.op) ||
                          std::holds_alternative<ops::SoftmaxCrossEntropy>(example.op) ||
                          std::holds_alternative<ops::SoftmaxCrossEntropyGrad>(example.op) ||
                          std::holds_alternative<ops::MeanSquaredError>(example.op) ||
                          std::holds_alternative<ops::MeanSquaredErrorGrad>(example.op) ||
                          std::holds_alternative<ops::TopKCorrect>(example.op) ||
                          std::holds_alternative<ops::GlobalAvgPool2dGrad>(example.op) ||
                          std::holds_alternative<ops::GlobalMaxPool2dGrad>(example.op);
    if (averages || inputs == example.inputs) continue;
    INFO(op_name(example.op));
    CHECK_NOTHROW(infer(example.op, inputs));
    ++passed;
  }
  CHECK(passed > 20);
}

TEST_CASE("inputs stand between the first line of an error and its hint") {
  const std::vector<TensorSpec> inputs = {f32({32, 3, 224, 224}), f32({64, 3, 3, 3})};
  const std::string text = error_text<ShapeError>([&] { infer(ops::Conv2d{}, inputs); });
  CHECK(text ==
        "input has 224 channels, weight expects 3\n"
        "  input  f32(32, 3, 224, 224) read as (N, H, W, C)\n"
        "  weight f32(64, 3, 3, 3)     read as (OC, KH, KW, IC / groups)\n"
        "  hint: axis 1 looks like the channels; pycnn is channels-last, try x.transpose(0, 2, 3, "
        "1)");
}

TEST_CASE("activation and reduction names read back") {
  for (int i = 0; i <= static_cast<int>(ActivationKind::kScaledTanh); ++i) {
    const auto kind = static_cast<ActivationKind>(i);
    CHECK(parse_activation(activation_name(kind)) == kind);
  }
  for (const Reduction kind : {Reduction::kSum, Reduction::kMean, Reduction::kMax})
    CHECK(parse_reduction(reduction_name(kind)) == kind);
  check_error<ArgumentError>([] { parse_activation("relU"); }, {"'relU'", "relu", "scaled_tanh"});
  check_error<ArgumentError>([] { parse_reduction(""); }, {"''", "sum, mean"});
}

TEST_CASE("names of functions and ways of resizing read back") {
  for (int i = 0; i <= static_cast<int>(UnaryKind::kThreshold); ++i) {
    const auto kind = static_cast<UnaryKind>(i);
    CHECK(parse_unary(unary_name(kind)) == kind);
  }
  for (int i = 0; i <= static_cast<int>(BinaryKind::kStep); ++i) {
    const auto kind = static_cast<BinaryKind>(i);
    CHECK(parse_binary(binary_name(kind)) == kind);
  }
  for (int i = 0; i <= static_cast<int>(ResizeMode::kNearestRoundUp); ++i) {
    const auto mode = static_cast<ResizeMode>(i);
    CHECK(parse_resize_mode(resize_mode_name(mode)) == mode);
  }
  for (int i = 0; i <= static_cast<int>(ResizeGrid::kAlignCorners); ++i) {
    const auto grid = static_cast<ResizeGrid>(i);
    CHECK(parse_resize_grid(resize_grid_name(grid)) == grid);
  }
  check_error<ArgumentError>([] { parse_unary("cosh"); }, {"'cosh'", "abs", "threshold"});
  check_error<ArgumentError>([] { parse_binary("modulo"); }, {"'modulo'", "divide", "step"});
  check_error<ArgumentError>([] { parse_resize_mode("cubic"); }, {"'cubic'", "bilinear"});
  check_error<ArgumentError>([] { parse_resize_grid("tf"); }, {"'tf'", "align_corners"});
}

TEST_CASE("attributes that are not numbers or out of range are refused with their value") {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const std::vector<TensorSpec> image = {f32({2, 9, 8, 6})};
  const std::vector<TensorSpec> norm = {f32({4, 6}), f32({6}), f32({6}), f32({6}), f32({6})};
  const std::vector<TensorSpec> rows = {f32({5, 3}), i64({5})};
  const std::vector<TensorSpec> update = {f32({2}), f32({2}), f32({1})};
  const std::vector<TensorSpec> muon = {f32({2, 3}), f32({2, 3}), f32({1}), f32({2, 3})};
  const std::vector<TensorSpec> adam = {f32({2}), f32({2}), f32({1}), i64({1}), f32({2}), f32({2})};
  const std::vector<TensorSpec> ema = {f32({2}), f32({2}), i64({1})};
  const auto refused = [](const Op& op, const std::vector<TensorSpec>& inputs,
                          std::initializer_list<const char*> parts) {
    INFO(op_name(op));
    check_error<ArgumentError>([&] { infer(op, inputs); }, parts);
  };
  for (const double eps : {0.0, -1e-5, kNan, kInf}) {
    refused(ops::BatchNorm{eps}, norm, {"eps is", ops::cat(eps).c_str()});
    refused(ops::BatchNormTrain{eps}, norm, {"eps is"});
    refused(ops::BatchNormInference{eps}, norm, {"eps is"});
    refused(ops::LocalResponseNorm{5, 1e-4, 0.75, eps}, image, {"k is"});
  }
  for (const double momentum : {-0.1, 1.5, kNan}) {
    refused(ops::BatchNorm{1e-5, momentum}, norm, {"momentum is", ops::cat(momentum).c_str()});
    refused(ops::BatchNormTrain{1e-5, momentum}, norm, {"momentum is", "0 to 1"});
    refused(ops::SgdUpdate{momentum}, update, {"momentum is"});
    refused(ops::EmaUpdate{momentum}, ema, {"decay is"});
    refused(ops::AdamUpdate{momentum}, adam, {"beta1 is"});
    refused(ops::SoftmaxCrossEntropy{momentum}, rows, {"label_smoothing is"});
  }
  for (const double p : {-0.1, 1.0, kNan}) {
    refused(ops::Dropout{p}, image, {"p is", ops::cat(p).c_str()});
    refused(ops::DropoutTrain{p}, {image[0], i64({1}), i64({1})}, {"p is"});
  }
  for (const double slope : {-0.1, kNan, kInf}) {
    refused(ops::Activation{ActivationKind::kLeakyRelu, slope}, image, {"slope is"});
    refused(ops::Affine{slope == -0.1 ? kNan : slope}, image, {"scale is"});
  }
  refused(ops::Activation{static_cast<ActivationKind>(77)}, image, {"77"});
  refused(ops::Affine{1.0, kInf}, image, {"offset is inf"});
  refused(ops::Unary{static_cast<UnaryKind>(77)}, image, {"77"});
  refused(ops::Unary{UnaryKind::kClip, kNan}, image, {"a is nan"});
  refused(ops::Unary{UnaryKind::kThreshold, 0.0, kNan}, image, {"b is nan"});
  refused(ops::Unary{UnaryKind::kSoftplus, 0.0}, image, {"a is 0"});
  refused(ops::Unary{UnaryKind::kCelu, -1.0}, image, {"a is -1"});
  refused(ops::Unary{UnaryKind::kElu, kInf}, image, {"a is inf"});
  refused(ops::Unary{UnaryKind::kPower, kInf}, image, {"a is inf"});
  refused(ops::Unary{UnaryKind::kHardSigmoid, 0.2, kInf}, image, {"b is inf"});
  refused(ops::Resize2d{{0, 3}}, image, {"output_size"});
  refused(ops::Resize2d{{3, 3}, static_cast<ResizeMode>(9)}, image, {"9"});
  refused(ops::Resize2d{{3, 3}, ResizeMode::kBilinear, static_cast<ResizeGrid>(9)}, image, {"9"});
  refused(ops::Resize2d{{3, 3}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {1.0}}, image,
          {"scales has 1"});
  refused(ops::Resize2d{{3, 3}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {1.0, 0.0}}, image,
          {"scales is 0"});
  refused(ops::LocalResponseNorm{0}, image, {"size is 0"});
  refused(ops::LocalResponseNorm{5, kNan}, image, {"alpha is nan"});
  refused(ops::LocalResponseNorm{5, -1.0}, image, {"alpha is -1"});
  refused(ops::LocalResponseNorm{5, 1e-4, kInf}, image, {"beta is inf"});
  refused(ops::SgdUpdate{0.0, true}, update, {"nesterov", "0"});
  refused(ops::SgdUpdate{0.0, false, -1.0}, update, {"weight_decay is -1"});
  refused(ops::SgdUpdate{0.0, false, 0.0, kNan}, update, {"rate_scale is nan"});
  refused(ops::AdamUpdate{0.9, 1.0}, adam, {"beta2 is 1"});
  refused(ops::AdamUpdate{0.9, 0.999, 0.0}, adam, {"eps is 0"});
  refused(ops::MuonUpdate{1.0}, muon, {"momentum is 1"});
  refused(ops::MuonUpdate{0.0}, muon, {"nesterov", "0"});
  refused(ops::MuonUpdate{0.9, true, -1.0}, muon, {"weight_decay is -1"});
  refused(ops::MuonUpdate{0.9, true, 0.0, 0}, muon, {"iterations is 0"});
  refused(ops::MuonUpdate{0.9, true, 0.0, 5, kNan}, muon, {"rate_scale is nan"});
  refused(ops::ClipFactor{0.0}, image, {"max_norm is 0"});
  refused(ops::ClipFactor{kNan}, image, {"max_norm is nan"});
  refused(ops::TopKCorrect{4}, rows, {"k is 4", "3 classes"});
  refused(ops::TopKCorrect{0}, rows, {"k is 0"});
  refused(ops::Fill{{2}, DType::kUInt8, 256.0}, {}, {"256", "u8"});
  refused(ops::Fill{{2}, DType::kInt32, 0.5}, {}, {"0.5", "i32"});
  refused(ops::Fill{{2}, DType::kInt64, 0x1p63}, {}, {"i64"});
  refused(ops::Fill{{2}, DType::kFloat32, kNan}, {}, {"nan"});
  refused(ops::NormalizeImage{kNan, {}, {}}, image, {"scale is nan"});
  refused(ops::NormalizeImage{1.0, {1, 2}, {}}, image, {"mean has 2 values", "6 channels"});
  refused(ops::NormalizeImage{1.0, {}, {0.0}}, image, {"std is 0"});
}

TEST_CASE("a step counter is i64 and a learning rate f32, one number each") {
  const auto refused = [](auto error, const Op& op, std::vector<TensorSpec> inputs,
                          std::initializer_list<const char*> parts) {
    check_error<decltype(error)>([&] { infer(op, inputs); }, parts);
  };
  refused(DTypeError(""), ops::Increment{}, {f32({1})}, {"counter is f32", "i64"});
  refused(ShapeError(""), ops::Increment{}, {i64({2})}, {"counter is (2)", "(1)"});
  refused(DTypeError(""), ops::SgdUpdate{}, {f32({2}), f32({2}), f64({1})},
          {"learning_rate is f64"});
  refused(ShapeError(""), ops::SgdUpdate{}, {f32({2}), f32({3}), f32({1})}, {"gradient is (3)"});
  refused(DTypeError(""), ops::SgdUpdate{}, {f32({2}), f64({2}), f32({1})}, {"gradient is f64"});
  refused(ArgumentError(""), ops::SgdUpdate{0.9}, {f32({2}), f32({2}), f32({1})}, {"4", "got 3"});
  refused(ShapeError(""), ops::MuonUpdate{}, {f32({6}), f32({6}), f32({1}), f32({6})},
          {"parameter is (6)", "two axes"});
  refused(ShapeError(""), ops::MuonUpdate{}, {f32({2, 3}), f32({2, 3}), f32({1}), f32({3, 2})},
          {"velocity is (3, 2)"});
  refused(ShapeError(""), ops::DropoutTrain{}, {f32({2}), i64({}), i64({1})}, {"seed is ()"});
  CHECK(infer(ops::SgdUpdate{}, std::vector{f64({2}), f64({2}), f32({1})})[0] == f64({2}));
}
