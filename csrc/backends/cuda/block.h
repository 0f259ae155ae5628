#pragma once
#include <cstddef>
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
// Before a loop that must be unrolled, since it indexes registers.
#define PYCNN_UNROLL _Pragma("unroll")
#else
#define PYCNN_BOTH inline
#define PYCNN_UNROLL
#endif

#if defined(PYCNN_CUDA_EMULATED)
#include "backends/cuda/emulated_copies.h"
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
    alone(body);
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }

  // A step that no other follows.
  template <class Body>
  PYCNN_BOTH void last(const Body& body) {
    alone(body);
  }

  // A step without a barrier: what it does to shared memory may be seen by other threads only after
  // the barrier of a later step.
  template <class Body>
  PYCNN_BOTH void alone(const Body& body) {
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

  // Of a lane of the warp that `thread` is in. On a GPU those of the calling thread: the others'
  // are reached by instructions of the whole warp alone (tensor_core.h).
  PYCNN_BOTH Registers& lane_registers([[maybe_unused]] int thread, [[maybe_unused]] int lane) {
#if defined(__CUDA_ARCH__)
    return *registers_;
#else
    return registers_[thread / 32 * 32 + lane];
#endif
  }

  // 16 bytes from global to shared memory, both aligned to that, or zeros where they are not
  // `wanted`. The copies of a thread since its last `commit_copies` are a group. A thread may read
  // what it copied after a `wait_copies` that leaves that group no longer open, another thread
  // after a barrier behind that.
  PYCNN_BOTH void copy_async([[maybe_unused]] int thread, [[maybe_unused]] void* shared,
                             [[maybe_unused]] const void* global, [[maybe_unused]] bool wanted) {
#if defined(__CUDA_ARCH__)
    const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
                 "r"(wanted ? 16 : 0)
                 : "memory");
#elif defined(PYCNN_CUDA_EMULATED)
    copies_.copy(thread, shared, global, wanted);
#endif
  }
  PYCNN_BOTH void commit_copies([[maybe_unused]] int thread) {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#elif defined(PYCNN_CUDA_EMULATED)
    copies_.commit(thread);
#endif
  }
  // Until at most kOpen of the thread's groups, the latest ones, are open.
  template <int kOpen>
  PYCNN_BOTH void wait_copies([[maybe_unused]] int thread) {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
#elif defined(PYCNN_CUDA_EMULATED)
    copies_.wait(thread, kOpen);
#endif
  }

 private:
  std::int64_t index_;
  Shared& shared_;
  Registers* registers_;
  [[maybe_unused]] bool backwards_;
#if defined(PYCNN_CUDA_EMULATED)
  EmulatedCopies copies_;
#endif
};

}  // namespace pycnn::cuda
