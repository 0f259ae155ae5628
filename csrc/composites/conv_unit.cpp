#include "composites/conv_unit.h"

#include <cmath>

#include "pycnn/error.h"

namespace pycnn::composites {
namespace {

// Larger values are typing errors, and products of a few stay far from the limits of 64 bits.
constexpr std::int64_t kMaxField = std::int64_t{1} << 20;

Initializer constant(double value) { return {Initializer::Kind::kConstant, value, 0.0}; }

}  // namespace

void expect_least(const char* block, const char* field, std::int64_t value, std::int64_t least) {
  if (value >= least && value <= kMaxField) return;
  throw ArgumentError(std::string(block) + ": " + field + " is " + std::to_string(value) +
                      ", expected a value from " + std::to_string(least) + " to " +
                      std::to_string(kMaxField));
}

void append_tensors(const ConvUnit& unit, std::vector<BlockTensor>& tensors) {
  const std::int64_t in = unit.in_channels / unit.groups;
  const std::int64_t area = unit.kernel * unit.kernel;
  const auto fan =
      static_cast<double>(area * (unit.init == ConvInit::kHeFanOut ? unit.out_channels : in));
  const Initializer he{Initializer::Kind::kNormal, 0.0, std::sqrt(2.0 / fan)};
  const BlockTensor weight{unit.conv + ".weight",
                           {{unit.out_channels, unit.kernel, unit.kernel, in}, DType::kFloat32},
                           he,
                           ParameterLayout::kConvWeight,
                           true};
  const std::int64_t features = unit.norm_first ? unit.in_channels : unit.out_channels;
  const auto vector = [&](const std::string& name, double value, bool trainable) {
    tensors.push_back(
        {name, {{features}, DType::kFloat32}, constant(value), ParameterLayout::kPlain, trainable});
  };
  if (!unit.norm_first) tensors.push_back(weight);
  if (unit.norm.empty()) {
    if (unit.bias) vector(unit.conv + ".bias", 0.0, true);
    return;
  }
  vector(unit.norm + ".weight", unit.norm_scale, true);
  vector(unit.norm + ".bias", 0.0, true);
  vector(unit.norm + ".running_mean", 0.0, false);
  vector(unit.norm + ".running_var", 1.0, false);
  if (unit.norm_first) tensors.push_back(weight);
}

UnitBuilder::UnitBuilder(const char* block, Graph& graph, const std::vector<BlockTensor>& expected,
                         std::span<const Symbol> tensors, const std::string& prefix,
                         const std::string& origin)
    : graph_(graph), tensors_(tensors), prefix_(prefix), origin_(origin) {
  const std::string who = std::string(block) + (prefix.empty() ? "" : " '" + prefix + "'") + ": ";
  const std::string where = origin.empty() ? "" : "\n  at " + origin;
  if (tensors.size() != expected.size()) {
    throw ArgumentError(who + "got " + std::to_string(tensors.size()) + " tensors, expected " +
                        std::to_string(expected.size()) + ", from " + expected.front().name +
                        " to " + expected.back().name + where);
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const TensorSpec& spec = graph.spec(tensors[i]);
    if (spec.shape == expected[i].spec.shape) continue;
    throw ShapeError(who + expected[i].name + " is " + to_string(spec.shape) + ", expected " +
                     to_string(expected[i].spec.shape) + where);
  }
}

Symbol UnitBuilder::add(Op op, std::vector<Symbol> inputs, const std::string& name) {
  return graph_.add(std::move(op), std::move(inputs), prefix_ + name, origin_);
}

Symbol UnitBuilder::add(const ConvUnit& unit, Symbol input) {
  if (unit.norm_first) return add_conv(unit, add_norm(unit, input));
  return add_norm(unit, add_conv(unit, input));
}

Symbol UnitBuilder::add_conv(const ConvUnit& unit, Symbol input) {
  const std::int64_t pad = unit.kernel / 2;
  ops::Conv2d conv;
  conv.stride = {unit.stride, unit.stride};
  conv.padding = {pad, pad, pad, pad};
  conv.groups = unit.groups;
  std::vector<Symbol> inputs = {input, next()};
  if (unit.norm.empty() && unit.bias) inputs.push_back(next());
  return add(conv, std::move(inputs), unit.conv);
}

Symbol UnitBuilder::add_norm(const ConvUnit& unit, Symbol input) {
  Symbol x = input;
  if (!unit.norm.empty()) {
    std::vector<Symbol> inputs = {x};
    for (int i = 0; i < 4; ++i) inputs.push_back(next());
    x = add(ops::BatchNorm{unit.eps, unit.momentum, false}, std::move(inputs), unit.norm);
  }
  if (!unit.relu.empty()) x = add(ops::Activation{}, {x}, unit.relu);
  return x;
}

}  // namespace pycnn::composites
