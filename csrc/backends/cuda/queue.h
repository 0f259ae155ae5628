#pragma once
// What the module means by a queue: streams of a GPU or, in the build for tests, lists of things to
// do. Apart from device_module.h, whose headers take nvcc seconds to read.
#if !defined(PYCNN_CUDA_EMULATED)
#include <cuda_runtime_api.h>

namespace pycnn {

struct DeviceQueue {
  static constexpr int kLanes = 4;
  int device = 0;
  cudaStream_t stream = nullptr;      // of the lane in use
  cudaStream_t lanes[kLanes] = {};    // all null: there is just the one above
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

struct DeviceEvent {
  cudaEvent_t event = nullptr;
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
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace pycnn {

struct DeviceEvent {
  struct Count {
    std::uint64_t marked = 0, reached = 0;  // how often
    double time = 0.0;                      // when last
  };
  std::shared_ptr<Count> count = std::make_shared<Count>();
};

// Work of lanes, each in its order, that has not run yet.
struct LaneWork {
  struct Item {
    std::function<void()> work;                   // empty: one of these two
    std::shared_ptr<DeviceEvent::Count> marks;    // reaches it for the `number`th time
    std::shared_ptr<DeviceEvent::Count> follows;  // waits until it was reached that often
    std::uint64_t number = 0;
  };
  std::map<int, std::deque<Item> > lanes;
  std::map<int, double> clocks;  // how far each lane is, in microseconds
};

struct DeviceRecording {
  std::shared_ptr<LaneWork> work = std::make_shared<LaneWork>();
};

struct DeviceQueue {
  bool backwards = false;  // threads and blocks, to find what depends on their order
  bool failed = false;     // since the last `wait`
  bool earlier = false;    // while recording: that from before
  int entered = 0;
  int lane = 0;
  LaneWork work;
  std::unique_ptr<DeviceRecording> recording;
};

namespace cuda {
void note_launch(const char* kernel);  // its type, before it runs: emulated_device.cpp
template <class Work>
void submit(DeviceQueue& queue, Work work) {
  LaneWork& taker = queue.recording != nullptr ? *queue.recording->work : queue.work;
  taker.lanes[queue.lane].push_back({std::move(work), nullptr, nullptr, 0});
}
}  // namespace cuda

}  // namespace pycnn
#endif
