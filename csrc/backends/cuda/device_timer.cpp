#include "backends/cuda/device_timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "backends/cuda/driver_build.h"
#include "backends/cuda/elementwise.h"

namespace pycnn::cuda {
DeviceTimer::DeviceTimer(int device) : current_(device) {
  queue_.device = device;
  works_ = succeeded(current_.status()) &&
           succeeded(cudaStreamCreateWithFlags(&queue_.stream, cudaStreamNonBlocking));
}

DeviceTimer::~DeviceTimer() {
  if (queue_.stream != nullptr) (void)cudaStreamSynchronize(queue_.stream);
  for (void* const block : memory_) (void)cudaFree(block);
  for (cudaEvent_t event : events_) (void)cudaEventDestroy(event);
  if (queue_.stream != nullptr) (void)cudaStreamDestroy(queue_.stream);
  (void)cudaGetLastError();
}

// The runtime's last error is cleared, or the next launch of anybody would find it.
bool DeviceTimer::succeeded(cudaError_t error) {
  if (error != cudaSuccess) (void)cudaGetLastError();
  return error == cudaSuccess;
}

void* DeviceTimer::allocate(std::size_t bytes) {
  void* memory = nullptr;
  if (!succeeded(cudaMalloc(&memory, bytes > 0 ? bytes : 1))) return nullptr;
  memory_.push_back(memory);
  // Multiplying equal numbers takes less power, so clocks would be higher than they are; and sums
  // of products of equal tensors are squares, of which float16 has none that large.
  fill_timed(queue_, memory, static_cast<std::int64_t>(bytes), memory_.size());
  if (failed()) return nullptr;
  allocated_ += bytes;
  return memory;
}

std::size_t DeviceTimer::cache_bytes() {
  int bytes = 0;
  const bool known =
      succeeded(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, queue_.device));
  return known && bytes > 0 ? static_cast<std::size_t>(bytes) : 0;
}

bool DeviceTimer::failed() {
  const bool any = queue_.failed();
  // Libraries have a status for it, told as CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
  // and such, or in words.
  const char* const library = queue_.library_failure;
  if (queue_.failure == cudaErrorMemoryAllocation ||
      (library != nullptr &&
       (std::strstr(library, "ALLOC") != nullptr || std::strstr(library, "alloc") != nullptr)))
    lacked_memory_ = true;
  queue_.forget_failures();
  return any;
}

bool DeviceTimer::has_events(int count) {
  while (events_.size() < static_cast<std::size_t>(count)) {
    cudaEvent_t event = nullptr;
    if (!succeeded(cudaEventCreate(&event))) return false;
    events_.push_back(event);
  }
  return true;
}

double DeviceTimer::elapsed_us(int event) {
  const auto index = static_cast<std::size_t>(event);
  float milliseconds = 0.0f;
  const cudaError_t error = cudaEventElapsedTime(&milliseconds, events_[index - 1], events_[index]);
  return succeeded(error) ? 1000.0 * static_cast<double>(milliseconds) : -1.0;
}

bool DeviceTimer::runs(const std::function<void()>& work) {
  queue_.forget_failures();
  work();  // loads what is loaded late
  const bool good = succeeded(cudaStreamSynchronize(queue_.stream));
  return !failed() && good;
}

cudaGraphExec_t DeviceTimer::recorded(const std::function<void()>& work, int repeats) {
  for (int i = 0; i < repeats; ++i) work();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  const bool good = succeeded(cudaStreamEndCapture(queue_.stream, &graph));
  if (!failed() && good && !succeeded(cudaGraphInstantiate(&executable, graph, 0)))
    executable = nullptr;
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  return executable;
}

Replay DeviceTimer::replay(const std::function<void()>& work, const std::function<void()>& before) {
  queue_.forget_failures();
  if (!succeeded(cudaStreamBeginCapture(queue_.stream, cudaStreamCaptureModeThreadLocal)))
    return Replay::kNothingRecorded;
  const cudaGraphExec_t executable = recorded(work, 1);
  if (executable == nullptr) return Replay::kFailed;
  if (before) before();
  bool good = succeeded(cudaGraphLaunch(executable, queue_.stream));
  good = succeeded(cudaStreamSynchronize(queue_.stream)) && good;
  (void)cudaGraphExecDestroy(executable);
  return good ? Replay::kDone : Replay::kFailed;
}

double DeviceTimer::once_us(const std::function<void()>& work) {
  if (!has_events(2) || !runs(work)) return -1.0;
  bool good = succeeded(cudaEventRecord(events_[0], queue_.stream));
  work();
  good = good && succeeded(cudaEventRecord(events_[1], queue_.stream));
  good = succeeded(cudaStreamSynchronize(queue_.stream)) && !failed() && good;
  return good ? elapsed_us(1) : -1.0;
}

double DeviceTimer::time_us(const std::function<void()>& work, int repeats, int rounds) {
  if (!has_events(rounds + 1) || !runs(work)) return -1.0;
  if (!succeeded(cudaStreamBeginCapture(queue_.stream, cudaStreamCaptureModeThreadLocal)))
    return -1.0;
  const cudaGraphExec_t executable = recorded(work, repeats);
  bool good = executable != nullptr;
  for (int round = 0; good && round <= rounds; ++round)
    good = succeeded(cudaGraphLaunch(executable, queue_.stream)) &&
           succeeded(cudaEventRecord(events_[static_cast<std::size_t>(round)], queue_.stream));
  good = succeeded(cudaStreamSynchronize(queue_.stream)) && good;
  if (executable != nullptr) (void)cudaGraphExecDestroy(executable);
  std::vector<double> times;
  for (int round = 1; good && round <= rounds; ++round) {
    times.push_back(elapsed_us(round) / repeats);
    good = times.back() >= 0.0;
  }
  if (!good || times.empty()) return -1.0;
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

const char* device_identity(int device) {
  static std::mutex mutex;
  static std::map<int, std::string> known;
  const std::lock_guard lock(mutex);
  std::string& text = known[device];
  if (!text.empty()) return text.c_str();
  cudaDeviceProp properties{};
  int driver = 0;
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess ||
      cudaDriverGetVersion(&driver) != cudaSuccess) {
    (void)cudaGetLastError();
    return "";
  }
  text = std::string(properties.name) + ", " + std::to_string(properties.multiProcessorCount) +
         " multiprocessors, driver " + std::to_string(driver);
  if (const std::string build = driver_build(); !build.empty()) text += " " + build;
  return text.c_str();
}

}  // namespace pycnn::cuda
