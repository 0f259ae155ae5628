#include "composites/conv_unit.h"
#include "pycnn/error.h"

namespace pycnn::composites {
namespace {

constexpr const char* kResidual = "residual";

[[noreturn]] void refuse(const std::string& text) {
  throw ArgumentError(std::string(kResidual) + ": " + text);
}

void check(const Residual& block) {
  expect_least(kResidual, "in_channels", block.in_channels, 1);
  expect_least(kResidual, "channels", block.channels, 1);
  expect_least(kResidual, "stride", block.stride, 1);
  expect_least(kResidual, "groups", block.groups, 1);
  expect_least(kResidual, "base_width", block.base_width, 1);
  if (!(block.eps > 0.0)) refuse("eps is " + std::to_string(block.eps) + ", expected above 0");
  if (!(block.momentum >= 0.0 && block.momentum <= 1.0)) {
    refuse("momentum is " + std::to_string(block.momentum) + ", expected from 0 to 1");
  }
  if (block.kind == Residual::Kind::kBasic && (block.groups != 1 || block.base_width != 64)) {
    refuse("groups is " + std::to_string(block.groups) + " and base_width " +
           std::to_string(block.base_width) + "; a basic block has 1 and 64");
  }
  if (block.channels * block.base_width < 64) {
    refuse("base_width " + std::to_string(block.base_width) + " leaves no channel of " +
           std::to_string(block.channels) + " (channels * base_width / 64 must be at least 1)");
  }
  if (block.shortcut == Residual::Shortcut::kZeroPad && block.out_channels() < block.in_channels) {
    refuse("in_channels is " + std::to_string(block.in_channels) + ", the output has " +
           std::to_string(block.out_channels()) + "; a shortcut of zero padding cannot drop any");
  }
  if (block.pre_activation && block.zero_init_residual) {
    refuse(
        "zero_init_residual needs a batch norm behind the last convolution; with pre_activation "
        "there is none");
  }
}

// The convolutions of the block in order, and of the shortcut, if it has any.
struct Plan {
  std::vector<ConvUnit> main;
  std::vector<ConvUnit> shortcut;
  bool zero_padded = false;  // the shortcut drops pixels and adds channels of zeros
};

Plan plan(const Residual& block) {
  check(block);
  ConvUnit unit;
  unit.eps = block.eps;
  unit.momentum = block.momentum;
  const auto conv = [&](int number, std::int64_t in, std::int64_t out, std::int64_t kernel,
                        bool strided) {
    ConvUnit made = unit;
    const std::string suffix = std::to_string(number);
    made.conv = "conv" + suffix;
    made.norm = "bn" + suffix;
    made.relu = "relu" + suffix;
    made.in_channels = in;
    made.out_channels = out;
    made.kernel = kernel;
    if (strided) made.stride = block.stride;
    return made;
  };
  Plan result;
  const std::int64_t out = block.out_channels();
  if (block.kind == Residual::Kind::kBasic) {
    result.main = {conv(1, block.in_channels, out, 3, true), conv(2, out, out, 3, false)};
  } else {
    const std::int64_t width = block.channels * block.base_width / 64 * block.groups;
    result.main = {conv(1, block.in_channels, width, 1, false), conv(2, width, width, 3, true),
                   conv(3, width, out, 1, false)};
    result.main[1].groups = block.groups;
  }
  if (block.pre_activation) {
    for (ConvUnit& made : result.main) made.norm_first = true;
  } else {
    // The last activation comes after the sum.
    result.main.back().relu.clear();
  }
  if (block.zero_init_residual) result.main.back().norm_scale = 0.0;
  const bool changes = block.stride != 1 || block.in_channels != out;
  result.zero_padded = changes && block.shortcut == Residual::Shortcut::kZeroPad;
  if (changes && !result.zero_padded) {
    ConvUnit shortcut = conv(0, block.in_channels, out, 1, true);
    shortcut.conv = "downsample.0";
    shortcut.norm = block.pre_activation ? "" : "downsample.1";
    shortcut.bias = false;
    shortcut.relu.clear();
    result.shortcut = {shortcut};
  }
  return result;
}

// Every stride-th pixel, and zeros for the channels that the input lacks.
Symbol add_zero_padding(const Residual& block, UnitBuilder& builder, Symbol x) {
  if (block.stride != 1) {
    ops::MaxPool2d every;
    every.kernel_size = {1, 1};
    every.stride = {block.stride, block.stride};
    x = builder.add(every, {x}, "downsample.0");
  }
  const std::int64_t added = block.out_channels() - block.in_channels;
  if (added == 0) return x;
  return builder.add(ops::Pad{{0, 0, 0, 0}, {0, 0, 0, added}, 0.0}, {x}, "downsample.1");
}

}  // namespace

std::vector<BlockTensor> parameters(const Residual& block) {
  const Plan made = plan(block);
  std::vector<BlockTensor> tensors;
  for (const ConvUnit& unit : made.main) append_tensors(unit, tensors);
  for (const ConvUnit& unit : made.shortcut) append_tensors(unit, tensors);
  return tensors;
}

Symbol build(const Residual& block, Graph& graph, Symbol input, std::span<const Symbol> tensors,
             const std::string& prefix, const std::string& origin) {
  const Plan made = plan(block);
  UnitBuilder builder(kResidual, graph, parameters(block), tensors, prefix, origin);
  Symbol x = input;
  Symbol shortcut = input;
  for (std::size_t i = 0; i < made.main.size(); ++i) {
    if (i > 0 || !block.pre_activation) {
      x = builder.add(made.main[i], x);
      continue;
    }
    x = builder.add_norm(made.main[i], x);
    if (!made.shortcut.empty()) shortcut = x;
    x = builder.add_conv(made.main[i], x);
  }
  for (const ConvUnit& unit : made.shortcut) shortcut = builder.add(unit, shortcut);
  if (made.zero_padded) shortcut = add_zero_padding(block, builder, shortcut);
  const Symbol sum = builder.add(ops::Add{}, {x, shortcut}, "add");
  return block.pre_activation ? sum : builder.add(ops::Activation{}, {sum}, "relu");
}

}  // namespace pycnn::composites
