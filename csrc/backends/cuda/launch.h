#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

#include "backends/cuda/block.h"
#include "backends/cuda/queue.h"

// Gives a kernel (block.h) to a queue. By nvcc it runs on the GPU; in the build for tests, without
// CUDA, it runs here.
#if !defined(PYCNN_CUDA_EMULATED)
namespace pycnn::cuda {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) run_kernel(const Kernel kernel) {
  __shared__ typename Kernel::Shared shared;
  typename Kernel::Registers registers;
  Block<Kernel> block(static_cast<std::int64_t>(blockIdx.x), shared, &registers, false);
  kernel(block);
}

// A kernel that says how many of its blocks shall fit one multiprocessor (kResidentBlocks) gets its
// shared memory at the launch: it may be more than a GPU gives unasked.
constexpr std::size_t kUnaskedShared = std::size_t{48} << 10;

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kResidentBlocks)
    run_resident_kernel(const Kernel kernel) {
  extern __shared__ __align__(128) unsigned char shared_bytes[];
  typename Kernel::Registers registers;
  Block<Kernel> block(static_cast<std::int64_t>(blockIdx.x),
                      *reinterpret_cast<typename Kernel::Shared*>(shared_bytes), &registers, false);
  kernel(block);
}

template <class Kernel>
void launch(DeviceQueue& queue, const Kernel& kernel, std::int64_t blocks) {
  if (blocks <= 0) return;
  if (blocks > std::numeric_limits<std::int32_t>::max())
    return note(queue, cudaErrorInvalidConfiguration);
  const auto grid = static_cast<unsigned>(blocks);
  if constexpr (requires { Kernel::kResidentBlocks; }) {
    constexpr std::size_t kBytes = sizeof(typename Kernel::Shared);
    // No work of the stream, so allowed while it is recorded.
    if constexpr (kBytes > kUnaskedShared)
      note(queue, cudaFuncSetAttribute(reinterpret_cast<const void*>(&run_resident_kernel<Kernel>),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(kBytes)));
    run_resident_kernel<Kernel><<<grid, Kernel::kThreads, kBytes, queue.stream>>>(kernel);
  } else {
    run_kernel<Kernel><<<grid, Kernel::kThreads, 0, queue.stream>>>(kernel);
  }
  note(queue, cudaGetLastError());
}

}  // namespace pycnn::cuda
#else
#include <typeinfo>
#include <vector>

namespace pycnn::cuda {

template <class Kernel>
void run_on_host(const Kernel& kernel, std::int64_t blocks, bool backwards) {
  std::vector<typename Kernel::Registers> registers(Kernel::kThreads);
  // Not on the stack: a tile may be larger than a thread's.
  std::vector<typename Kernel::Shared> shared(1);
  for (std::int64_t i = 0; i < blocks; ++i) {
    Block<Kernel> block(backwards ? blocks - 1 - i : i, shared[0], registers.data(), backwards);
    kernel(block);
  }
}

template <class Kernel>
void launch(DeviceQueue& queue, const Kernel& kernel, std::int64_t blocks) {
  if (queue.entered == 0) queue.failed = true;  // it might be for another device
  submit(queue, [kernel, blocks, backwards = queue.backwards] {
    if (blocks > 0) note_launch(typeid(Kernel).name());
    run_on_host(kernel, blocks, backwards);
  });
}

}  // namespace pycnn::cuda
#endif
