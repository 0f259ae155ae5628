#pragma once
// What the module means by a queue: a stream of a GPU or, in the build for tests, a list of things
// done at once. Apart from device_module.h, whose headers take nvcc seconds to read.
#if !defined(PYCNN_CUDA_EMULATED)
#include <cuda_runtime_api.h>

namespace pycnn {

struct DeviceQueue {
  int device = 0;
  cudaStream_t stream = nullptr;
  cudaError_t failure = cudaSuccess;  // the first since the last `wait`
  // What a library said of a failure, in words that live as long as the process; null: nothing.
  const char* library_failure = nullptr;
  // While recording: the failures from before.
  cudaError_t earlier = cudaSuccess;
  const char* earlier_library_failure = nullptr;

  bool failed() const { return failure != cudaSuccess || library_failure != nullptr; }
  void forget_failures() {
    failure = cudaSuccess;
    library_failure = nullptr;
  }
};

struct DeviceRecording {
  cudaGraphExec_t graph = nullptr;
};

namespace cuda {
inline void note(DeviceQueue& queue, cudaError_t error) {
  if (error != cudaSuccess && queue.failure == cudaSuccess) queue.failure = error;
}
inline void note_library(DeviceQueue& queue, const char* failure) {
  if (queue.library_failure == nullptr) queue.library_failure = failure;
}
}  // namespace cuda

}  // namespace pycnn
#else
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace pycnn {

struct DeviceRecording {
  std::vector<std::function<void()> > work;
};

struct DeviceQueue {
  bool backwards = false;  // threads and blocks, to find what depends on their order
  bool failed = false;     // since the last `wait`
  std::unique_ptr<DeviceRecording> recording;
};

namespace cuda {
template <class Work>
void submit(DeviceQueue& queue, Work work) {
  if (queue.recording != nullptr)
    queue.recording->work.emplace_back(std::move(work));
  else
    work();
}
}  // namespace cuda

}  // namespace pycnn
#endif
