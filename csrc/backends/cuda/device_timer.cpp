#include "backends/cuda/device_timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

namespace pycnn::cuda {
namespace {
// 0x3C3C is 0.0115 in bfloat16, 0x3C3C3C3C the like in float32.
constexpr int kFilling = 0x3C;
}  // namespace

DeviceTimer::DeviceTimer(int device) {
  queue_.device = device;
  works_ = succeeded(cudaSetDevice(device)) &&
           succeeded(cudaStreamCreateWithFlags(&queue_.stream, cudaStreamNonBlocking)) &&
           succeeded(cudaEventCreate(&begin_)) && succeeded(cudaEventCreate(&end_));
}

DeviceTimer::~DeviceTimer() {
  if (queue_.stream != nullptr) (void)cudaStreamSynchronize(queue_.stream);
  for (void* const block : memory_) (void)cudaFree(block);
  if (begin_ != nullptr) (void)cudaEventDestroy(begin_);
  if (end_ != nullptr) (void)cudaEventDestroy(end_);
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
  return succeeded(cudaMemsetAsync(memory, kFilling, bytes, queue_.stream)) ? memory : nullptr;
}

double DeviceTimer::time_us(const std::function<void()>& work, int repeats, int rounds) {
  queue_.forget_failures();
  const auto failed = [&] {
    const bool any = queue_.failed();
    queue_.forget_failures();
    return any;
  };
  work();  // loads what is loaded late
  if (!succeeded(cudaStreamSynchronize(queue_.stream)) || failed()) return -1.0;
  if (!succeeded(cudaStreamBeginCapture(queue_.stream, cudaStreamCaptureModeThreadLocal)))
    return -1.0;
  for (int i = 0; i < repeats; ++i) work();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  bool good = succeeded(cudaStreamEndCapture(queue_.stream, &graph));
  good = !failed() && good && succeeded(cudaGraphInstantiate(&executable, graph, 0));
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  std::vector<double> times;
  for (int round = 0; good && round < rounds; ++round) {
    float milliseconds = 0.0f;
    good = succeeded(cudaEventRecord(begin_, queue_.stream)) &&
           succeeded(cudaGraphLaunch(executable, queue_.stream)) &&
           succeeded(cudaEventRecord(end_, queue_.stream)) &&
           succeeded(cudaEventSynchronize(end_)) &&
           succeeded(cudaEventElapsedTime(&milliseconds, begin_, end_));
    times.push_back(1000.0 * static_cast<double>(milliseconds) / repeats);
  }
  if (executable != nullptr) (void)cudaGraphExecDestroy(executable);
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
  return text.c_str();
}

}  // namespace pycnn::cuda
