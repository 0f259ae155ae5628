#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pycnn/graph.h"

/// \file
/// Blocks made of several ops, with one owner of names and topology: `parameters` lists what a
/// block learns and `build` adds its nodes. Python's layers call these too.
namespace pycnn::composites {

/// One tensor of a block, named as torchvision names it ("conv1.weight", "bn1.running_mean",
/// "downsample.0.weight").
struct BlockTensor {
  std::string name;                                  ///< within the block
  TensorSpec spec;                                   ///< in memory layout
  Initializer initializer;                           ///< of fresh values
  ParameterLayout layout = ParameterLayout::kPlain;  ///< in files
  bool trainable = true;                             ///< false: a buffer (running statistics)
};

/// Residual block (He et al. 2015), torchvision's topology: the stride of a bottleneck sits in its
/// 3x3 convolution.
///   basic:       conv3x3(stride) bn relu conv3x3 bn (+ shortcut) relu
///   bottleneck:  conv1x1 bn relu conv3x3(stride, groups) bn relu conv1x1 bn (+ shortcut) relu;
///   output 4 * channels
/// The shortcut is the identity where the shape stays. Where it changes it is conv1x1(stride) bn
/// ("downsample"), or, without weights, every stride-th pixel with zeros for the new channels
/// (options B and A of the paper).
/// A grouped bottleneck (ResNeXt) has inner width channels * base_width / 64 * groups.
/// Pre-activated (He et al. 2016, "Identity mappings"), each convolution comes behind its batch
/// norm and relu, and nothing follows the sum; a convolution on the shortcut reads what the first
/// of these relus gives and has no batch norm.
struct Residual {
  enum class Kind : std::uint8_t { kBasic, kBottleneck };
  enum class Shortcut : std::uint8_t { kProjection, kZeroPad };
  Kind kind = Kind::kBasic;         ///< what the block consists of
  std::int64_t in_channels = 64;    ///< of the input
  std::int64_t channels = 64;       ///< of the inner convolutions, before `base_width`
  std::int64_t stride = 1;          ///< of a 3x3 convolution and of the shortcut
  std::int64_t groups = 1;          ///< kBottleneck only
  std::int64_t base_width = 64;     ///< kBottleneck only
  double eps = 1e-5;                ///< of the batch norms
  double momentum = 0.1;            ///< of the batch norms, as ops::BatchNorm has it
  bool zero_init_residual = false;  ///< last batch norm's scale starts at 0 (Goyal et al. 2017)
  Shortcut shortcut = Shortcut::kProjection;  ///< where the shape changes
  bool pre_activation = false;                ///< batch norm and relu before each convolution
  std::int64_t out_channels() const { return kind == Kind::kBasic ? channels : 4 * channels; }
};

/// Inception block of GoogLeNet (Szegedy et al. 2014): four branches, concatenated over channels.
///   1x1 | 1x1 then 3x3 | 1x1 then 5x5 (or 3x3, as torchvision's weights have it) | 3x3 max-pool
///   then 1x1
/// With batch_norm each convolution is conv (no bias), bn (eps 1e-3), relu under torchvision's
/// names ("branch1.conv.weight", "branch2.0.bn.weight", ...); without, conv with bias, relu
/// ("branch1.conv.weight", "branch1.conv.bias").
struct Inception {
  std::int64_t in_channels = 192;            ///< of the input
  std::int64_t branch1 = 64;                 ///< channels of the first branch
  std::int64_t reduce3 = 96, branch3 = 128;  ///< channels behind the 3x3 convolution
  std::int64_t reduce5 = 16, branch5 = 32;   ///< channels behind the 5x5 convolution
  std::int64_t pool = 32;                    ///< channels behind the pooling
  std::int64_t branch5_kernel = 5;           ///< side of that branch's window: 5, or 3
  bool batch_norm = false;                   ///< behind each convolution
  std::int64_t out_channels() const { return branch1 + branch3 + branch5 + pool; }  ///< In all.
};

/// Throws ArgumentError naming the field and its value.
PYCNN_API std::vector<BlockTensor> parameters(const Residual& block);
PYCNN_API std::vector<BlockTensor> parameters(const Inception& block);  ///< Likewise.

/// `tensors` are the symbols of `parameters(block)`, in that order. Nodes are named `prefix` +
/// "conv1" and so on.
PYCNN_API Symbol build(const Residual& block, Graph& graph, Symbol input,
                       std::span<const Symbol> tensors, const std::string& prefix = "",
                       const std::string& origin = "");
PYCNN_API Symbol build(const Inception& block, Graph& graph, Symbol input,
                       std::span<const Symbol> tensors, const std::string& prefix = "",
                       const std::string& origin = "");  ///< Likewise.

}  // namespace pycnn::composites

/// \enum pycnn::composites::Residual::Kind
/// Two 3x3 convolutions, or a 3x3 convolution between two of 1x1.
///
/// \enum pycnn::composites::Residual::Shortcut
/// Options B and A of the paper.
///
/// \fn std::int64_t pycnn::composites::Residual::out_channels() const
/// Channels of the block's result.
///
/// \var pycnn::composites::Inception::reduce3
/// Channels before the 3x3 convolution.
///
/// \var pycnn::composites::Inception::reduce5
/// Channels before the 5x5 convolution.
