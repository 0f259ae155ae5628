#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "backends/cuda/block.h"

namespace pycnn::cuda {

// All blocks of a kernel, each from shared memory that holds NaN.
template <class Kernel>
void run_blocks(const Kernel& kernel, bool backwards) {
  std::vector<typename Kernel::Registers> registers(Kernel::kThreads);
  const auto shared = std::make_unique<typename Kernel::Shared>();
  for (std::int64_t i = 0; i < kernel.blocks(); ++i) {
    std::fill_n(reinterpret_cast<float*>(shared.get()), sizeof(*shared) / sizeof(float), NAN);
    Block<Kernel> block(backwards ? kernel.blocks() - 1 - i : i, *shared, registers.data(),
                        backwards);
    kernel(block);
  }
}

}  // namespace pycnn::cuda
