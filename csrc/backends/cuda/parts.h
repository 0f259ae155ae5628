#pragma once
#include "backends/cuda/block.h"

// Several tensors in one launch, which is told of them in its parameters: the blocks of each follow
// those of the one before.
namespace pycnn::cuda {

// The last of `count` parts, at most 128, whose first block is this one or one before it.
template <class FirstBlock>
PYCNN_BOTH int part_of(std::int64_t block, int count, const FirstBlock& first_block) {
  int part = 0;
  for (int half = 64; half > 0; half /= 2)
    if (part + half < count && first_block(part + half) <= block) part += half;
  return part;
}

}  // namespace pycnn::cuda
