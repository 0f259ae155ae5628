#include "composites/conv_unit.h"
#include "pycnn/error.h"

namespace pycnn::composites {
namespace {

constexpr const char* kBlock = "residual";

[[noreturn]] void refuse(const std::string& text) {
  throw ArgumentError(std::string(kBlock) + ": " + text);
}

void check(const Residual& block) {
  expect_least(kBlock, "in_channels", block.in_channels, 1);
  expect_least(kBlock, "channels", block.channels, 1);
  expect_least(kBlock, "stride", block.stride, 1);
  expect_least(kBlock, "groups", block.groups, 1);
  expect_least(kBlock, "base_width", block.base_width, 1);
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
}

// The convolutions of the block in order, and of the shortcut, if it has any.
struct Plan {
  std::vector<ConvUnit> main;
  std::vector<ConvUnit> shortcut;
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
  // The last activation comes after the sum.
  result.main.back().relu.clear();
  if (block.zero_init_residual) result.main.back().norm_scale = 0.0;
  if (block.stride != 1 || block.in_channels != out) {
    ConvUnit shortcut = conv(0, block.in_channels, out, 1, true);
    shortcut.conv = "downsample.0";
    shortcut.norm = "downsample.1";
    shortcut.relu.clear();
    result.shortcut = {shortcut};
  }
  return result;
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
  UnitBuilder builder(kBlock, graph, parameters(block), tensors, prefix, origin);
  Symbol x = input;
  for (const ConvUnit& unit : made.main) x = builder.add(unit, x);
  Symbol shortcut = input;
  for (const ConvUnit& unit : made.shortcut) shortcut = builder.add(unit, shortcut);
  return builder.add(ops::Activation{}, {builder.add(ops::Add{}, {x, shortcut}, "add")}, "relu");
}

}  // namespace pycnn::composites
