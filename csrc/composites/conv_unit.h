#pragma once
#include <string>
#include <vector>

#include "pycnn/composites.h"

// A convolution with the norm and activation around it, of which all blocks are made.
namespace pycnn::composites {

enum class ConvInit {
  kHeFanOut,  // normal of variance 2 / (OC * KH * KW), as torchvision's residual networks
  kHeFanIn,   // normal of variance 2 / (KH * KW * IC / groups)
};

struct ConvUnit {
  std::string conv;  // names within the block
  std::string norm;  // empty: no batch norm, but a bias unless `bias` is false
  std::string relu;  // empty: no activation
  std::int64_t in_channels = 1;
  std::int64_t out_channels = 1;
  std::int64_t kernel = 1;  // odd; padded to keep the size
  std::int64_t stride = 1;
  std::int64_t groups = 1;
  double eps = 1e-5;
  double momentum = 0.1;
  ConvInit init = ConvInit::kHeFanOut;
  double norm_scale = 1.0;  // first value of the batch norm's scale
  bool bias = true;
  bool norm_first = false;  // norm, relu, conv (pre-activation) instead of conv, norm, relu
};

// conv.weight, then norm.weight, .bias, .running_mean, .running_var or conv.bias; with norm_first
// those of the norm come first.
void append_tensors(const ConvUnit& unit, std::vector<BlockTensor>& tensors);

// Adds the nodes of units, taking the tensors in the order in which `append_tensors` lists them.
class UnitBuilder {
 public:
  // ArgumentError or ShapeError when `tensors` are not those that `expected` describes.
  UnitBuilder(const char* block, Graph& graph, const std::vector<BlockTensor>& expected,
              std::span<const Symbol> tensors, const std::string& prefix,
              const std::string& origin);
  Symbol add(const ConvUnit& unit, Symbol input);
  // The two halves of `add`, for a block that needs what is between them; norm includes the relu.
  Symbol add_conv(const ConvUnit& unit, Symbol input);
  Symbol add_norm(const ConvUnit& unit, Symbol input);
  Symbol add(Op op, std::vector<Symbol> inputs, const std::string& name);

 private:
  Symbol next() { return tensors_[used_++]; }
  Graph& graph_;
  std::span<const Symbol> tensors_;
  std::size_t used_ = 0;
  const std::string& prefix_;
  const std::string& origin_;
};

// ArgumentError "residual: stride is 0, expected at least 1".
void expect_least(const char* block, const char* field, std::int64_t value, std::int64_t least);

}  // namespace pycnn::composites
