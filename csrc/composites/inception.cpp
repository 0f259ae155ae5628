#include "composites/conv_unit.h"
#include "pycnn/error.h"

namespace pycnn::composites {
namespace {

constexpr const char* kInception = "inception";

void check(const Inception& block) {
  expect_least(kInception, "in_channels", block.in_channels, 1);
  expect_least(kInception, "branch1", block.branch1, 1);
  expect_least(kInception, "reduce3", block.reduce3, 1);
  expect_least(kInception, "branch3", block.branch3, 1);
  expect_least(kInception, "reduce5", block.reduce5, 1);
  expect_least(kInception, "branch5", block.branch5, 1);
  expect_least(kInception, "pool", block.pool, 1);
  expect_least(kInception, "branch5_kernel", block.branch5_kernel, 1);
  if (block.branch5_kernel % 2 == 0) {
    throw ArgumentError("inception: branch5_kernel is " + std::to_string(block.branch5_kernel) +
                        ", expected an odd value, which can keep the size");
  }
}

// The convolutions of each branch; the fourth has a max-pool in front.
std::vector<std::vector<ConvUnit>> plan(const Inception& block) {
  check(block);
  const auto conv = [&](const std::string& name, std::int64_t in, std::int64_t out,
                        std::int64_t kernel) {
    ConvUnit unit;
    unit.conv = name + ".conv";
    if (block.batch_norm) unit.norm = name + ".bn";
    unit.relu = name + ".relu";
    unit.in_channels = in;
    unit.out_channels = out;
    unit.kernel = kernel;
    unit.eps = 1e-3;
    unit.init = ConvInit::kHeFanIn;
    return unit;
  };
  const std::int64_t in = block.in_channels;
  return {
      {conv("branch1", in, block.branch1, 1)},
      {conv("branch2.0", in, block.reduce3, 1), conv("branch2.1", block.reduce3, block.branch3, 3)},
      {conv("branch3.0", in, block.reduce5, 1),
       conv("branch3.1", block.reduce5, block.branch5, block.branch5_kernel)},
      {conv("branch4.1", in, block.pool, 1)}};
}

}  // namespace

std::vector<BlockTensor> parameters(const Inception& block) {
  std::vector<BlockTensor> tensors;
  for (const auto& branch : plan(block)) {
    for (const ConvUnit& unit : branch) append_tensors(unit, tensors);
  }
  return tensors;
}

Symbol build(const Inception& block, Graph& graph, Symbol input, std::span<const Symbol> tensors,
             const std::string& prefix, const std::string& origin) {
  const auto branches = plan(block);
  UnitBuilder builder(kInception, graph, parameters(block), tensors, prefix, origin);
  std::vector<Symbol> results;
  for (std::size_t i = 0; i < branches.size(); ++i) {
    Symbol x = input;
    if (i == 3) {
      const ops::MaxPool2d pool{{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, false};
      x = builder.add(pool, {x}, "branch4.0");
    }
    for (const ConvUnit& unit : branches[i]) x = builder.add(unit, x);
    results.push_back(x);
  }
  return builder.add(ops::Concat{}, std::move(results), "concat");
}

}  // namespace pycnn::composites
