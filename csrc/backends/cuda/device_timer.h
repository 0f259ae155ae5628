#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "backends/cuda/current_device.h"
#include "backends/cuda/queue.h"

// Times work on a GPU while a program is compiled, on a queue and in memory of its own. While it
// lives, the GPU is the thread's device.
namespace pycnn::cuda {

// What became of a recording of work.
enum class Replay : std::uint8_t {
  kDone,
  kNothingRecorded,  // the device can record nothing at all
  kFailed
};

class DeviceTimer {
 public:
  explicit DeviceTimer(int device);
  ~DeviceTimer();
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;

  bool works() const noexcept { return works_; }
  DeviceQueue& queue() noexcept { return queue_; }
  // Filled with small numbers of all image types; null: there is no memory left.
  void* allocate(std::size_t bytes);
  std::size_t allocated_bytes() const noexcept { return allocated_; }
  // Of the cache that all of the device's memory is read through.
  std::size_t cache_bytes();

  // Microseconds of one call of `work`, which gives work to the queue: of `repeats` calls recorded
  // as one, the median of `rounds` replays. These follow one that is not timed, so that the device
  // does not wait for the host between them. Negative: it failed.
  double time_us(const std::function<void()>& work, int repeats, int rounds);
  // Whether one call does its work.
  bool runs(const std::function<void()>& work);
  // Of one call, recorded as programs do it, and then replayed, behind what `before` gives to the
  // queue.
  Replay replay(const std::function<void()>& work, const std::function<void()>& before = {});
  // Whether any work failed for want of memory, which may be there another time.
  bool lacked_memory() const noexcept { return lacked_memory_; }
  // Of one call by single launches, with their latency. Negative: it failed.
  double once_us(const std::function<void()>& work);

 private:
  bool succeeded(cudaError_t error);
  bool failed();
  // Null: it cannot be recorded. After cudaStreamBeginCapture.
  cudaGraphExec_t recorded(const std::function<void()>& work, int repeats);
  bool has_events(int count);
  double elapsed_us(int event);  // from the one before; negative: it failed

  const CurrentDevice current_;
  DeviceQueue queue_;
  bool works_ = false, lacked_memory_ = false;
  std::vector<cudaEvent_t> events_;
  std::vector<void*> memory_;
  std::size_t allocated_ = 0;
};

// What the choice of a kernel depends on: GPU and driver. Empty: the device cannot be asked.
const char* device_identity(int device);

}  // namespace pycnn::cuda
