#pragma once
#include <cstdint>

// How the kernels of this folder are written: for a block of threads at a time, in steps that end
// in a barrier. The same text runs on a GPU and, block by block and thread by thread, on the host,
// where tests hold its arithmetic (tiles, borders, order of sums) against the CPU's kernels.
//
// A kernel is a plain struct, copied to the device:
//
//   struct Scale {
//     static constexpr int kThreads = 256;
//     struct Shared {};     // of one block, undefined at first
//     struct Registers {};  // of one thread, kept from step to step, undefined at first
//     const float* input; float* output; std::int64_t count;
//     PYCNN_BOTH void operator()(Block<Scale>& block) const {
//       block.last([&](int thread, Registers&) { ... block.index() ... });
//     }
//   };
//
// Within a step the threads may run in any order, so none may read what another one writes.
// Control flow around steps is that of the block, the same for all of its threads.
#if defined(__CUDACC__)
#define PYCNN_BOTH __host__ __device__ __forceinline__
#else
#define PYCNN_BOTH inline
#endif

namespace pycnn::cuda {

template <class Kernel>
class Block {
 public:
  using Shared = typename Kernel::Shared;
  using Registers = typename Kernel::Registers;

  // On a GPU `registers` are of the calling thread, on the host of all of them.
  PYCNN_BOTH Block(std::int64_t index, Shared& shared, Registers* registers, bool backwards)
      : index_(index), shared_(shared), registers_(registers), backwards_(backwards) {}

  PYCNN_BOTH std::int64_t index() const { return index_; }
  PYCNN_BOTH Shared& shared() { return shared_; }

  // A step: body(thread, registers) for every thread, then a barrier.
  template <class Body>
  PYCNN_BOTH void each(const Body& body) {
    last(body);
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }

  // A step that no other follows.
  template <class Body>
  PYCNN_BOTH void last(const Body& body) {
#if defined(__CUDA_ARCH__)
    body(static_cast<int>(threadIdx.x), *registers_);
#else
    // Both orders of the threads must give the same: tests try them.
    for (int i = 0; i < Kernel::kThreads; ++i) {
      const int thread = backwards_ ? Kernel::kThreads - 1 - i : i;
      body(thread, registers_[thread]);
    }
#endif
  }

 private:
  std::int64_t index_;
  Shared& shared_;
  Registers* registers_;
  [[maybe_unused]] bool backwards_;
};

}  // namespace pycnn::cuda
