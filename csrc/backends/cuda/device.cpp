// Memory, streams and graphs of a GPU, by the CUDA runtime, which is linked statically.
#include "backends/cuda/device.h"

#include <cuda_runtime_api.h>

#include "backends/cuda/current_device.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/stream_users.h"

namespace pycnn::cuda {
namespace {

constexpr int kLeastCapability = 80;  // 10 times the major version; kernels are built from here on

std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string text_of(cudaError_t error) {
  return std::string(cudaGetErrorString(error)) + " (" + cudaGetErrorName(error) + ")";
}

bool has_driver(std::string& problem) {
  int driver = 0;
  const cudaError_t error = cudaDriverGetVersion(&driver);
  if (error != cudaSuccess || driver == 0) {
    problem = "no usable GPU: there is no NVIDIA driver (libcuda.so.1) on this machine";
    return false;
  }
  if (driver / 1000 < CUDART_VERSION / 1000) {
    problem = "no usable GPU: the NVIDIA driver is too old, it serves CUDA " +
              cuda_version(driver) + " and pycnn needs " +
              cuda_version(CUDART_VERSION / 1000 * 1000);
    return false;
  }
  return true;
}

bool has_device(int index, std::string& problem) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    problem = "no usable GPU: the NVIDIA driver sees none (CUDA_VISIBLE_DEVICES may hide them)";
    return false;
  }
  if (error != cudaSuccess) {
    problem = "no usable GPU: " + text_of(error);
    // So the driver refuses a process whose parent had it, if only to count GPUs.
    if (error == cudaErrorInitializationError)
      problem +=
          "\n  hint: if this process was forked from one that compiled for a GPU, or only asked "
          "for machine()[\"devices\"] or 'pycnn doctor', start it with multiprocessing's 'spawn'";
    return false;
  }
  if (index >= count) {
    problem = "there is no GPU " + std::to_string(index) + ", the driver sees " +
              std::to_string(count) + " (counted from 0)";
    return false;
  }
  return true;
}

// Of what failed since the queue was last asked, which is forgotten. Empty: nothing did.
std::string told_failure(DeviceQueue& queue) {
  std::string text;
  if (queue.failure != cudaSuccess) text = text_of(queue.failure);
  if (queue.library_failure != nullptr)
    text += (text.empty() ? "" : ", ") + std::string(queue.library_failure);
  queue.forget_failures();
  return text;
}

// A queue's calls may come from any thread, and each has a current device.
class Entered : public CurrentDevice {
 public:
  explicit Entered(const DeviceQueue* queue) : CurrentDevice(queue->device) {}
  bool works() const { return status() == cudaSuccess; }
};

// The runtime keeps the last error of a thread until it is asked: once told, it shall not be found
// again after the next launch.
void forget_error() { (void)cudaGetLastError(); }

}  // namespace

namespace {
bool is_usable(int index, DeviceFacts& facts, std::string& problem) {
  if (!has_driver(problem) || !has_device(index, problem)) return false;
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error != cudaSuccess) {
    problem = "GPU " + std::to_string(index) + " cannot be used: " + text_of(error);
    return false;
  }
  facts.name = properties.name;
  facts.capability = std::to_string(properties.major) + "." + std::to_string(properties.minor);
  facts.memory_bytes = properties.totalGlobalMem;
  if (properties.major * 10 + properties.minor < kLeastCapability) {
    problem = "GPU " + std::to_string(index) + " (" + facts.name + ") is too old: it has compute " +
              "capability " + facts.capability + ", pycnn needs 8.0 (Ampere) or newer";
    return false;
  }
  return true;
}
}  // namespace

bool probe(int index, DeviceFacts& facts, std::string& problem) noexcept {
  const bool usable = is_usable(index, facts, problem);
  if (!usable) forget_error();  // or the next launch on another device would find it
  return usable;
}

static_assert(DeviceQueue::kLanes == kDeviceLanes);

namespace {
void destroy_lanes(DeviceQueue& queue) {
  for (const cudaStream_t lane : queue.lanes) {
    if (lane == nullptr) continue;
    (void)cudaStreamSynchronize(lane);
    (void)cudaStreamDestroy(lane);
  }
}
}  // namespace

DeviceQueue* open(int index, std::string& problem) noexcept {
  auto* queue = new DeviceQueue;
  queue->device = index;
  const Entered entered(queue);
  cudaError_t error = entered.status();
  for (cudaStream_t& lane : queue->lanes)
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&lane, cudaStreamNonBlocking);
  queue->stream = queue->lanes[kMainLane];
  if (error == cudaSuccess) return queue;
  destroy_lanes(*queue);
  forget_error();
  problem = "GPU " + std::to_string(index) + " cannot be used: " + text_of(error);
  delete queue;
  return nullptr;
}

void close(DeviceQueue* queue) noexcept {
  const Entered entered(queue);
  before_streams_end(queue->device);
  destroy_lanes(*queue);
  forget_error();
  delete queue;
}

int enter(DeviceQueue* queue) noexcept {
  int before = kNothingToRestore;
  note(*queue, change_device(queue->device, before));
  return before;
}
void leave(DeviceQueue*, int before) noexcept { restore_device(before); }

void* allocate(DeviceQueue* queue, std::size_t bytes) noexcept {
  const Entered entered(queue);
  void* memory = nullptr;
  if (entered.works() && cudaMalloc(&memory, bytes > 0 ? bytes : 1) == cudaSuccess) return memory;
  forget_error();
  return nullptr;
}

void release(DeviceQueue* queue, void* memory) noexcept {
  const Entered entered(queue);
  if (!entered.works() || cudaFree(memory) != cudaSuccess) forget_error();
}

std::size_t free_bytes(DeviceQueue* queue) noexcept {
  const Entered entered(queue);
  std::size_t free = 0, total = 0;
  if (entered.works() && cudaMemGetInfo(&free, &total) == cudaSuccess) return free;
  forget_error();
  return 0;
}

void* allocate_host(DeviceQueue* queue, std::size_t bytes) noexcept {
  const Entered entered(queue);
  void* memory = nullptr;
  if (entered.works() &&
      cudaHostAlloc(&memory, bytes > 0 ? bytes : 1, cudaHostAllocDefault) == cudaSuccess)
    return memory;
  forget_error();
  return nullptr;
}

void release_host(DeviceQueue* queue, void* memory) noexcept {
  const Entered entered(queue);
  if (!entered.works() || cudaFreeHost(memory) != cudaSuccess) forget_error();
}

namespace {
void copy(DeviceQueue* queue, void* target, const void* source, std::size_t bytes,
          cudaMemcpyKind kind) {
  if (bytes == 0) return;
  const Entered entered(queue);
  note(*queue, entered.status());
  note(*queue, cudaMemcpyAsync(target, source, bytes, kind, queue->stream));
}
}  // namespace

void copy_in(DeviceQueue* queue, void* device, const void* host, std::size_t bytes) noexcept {
  copy(queue, device, host, bytes, cudaMemcpyHostToDevice);
}
void copy_within(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) noexcept {
  copy(queue, target, source, bytes, cudaMemcpyDeviceToDevice);
}
void copy_out(DeviceQueue* queue, void* host, const void* device, std::size_t bytes) noexcept {
  copy(queue, host, device, bytes, cudaMemcpyDeviceToHost);
}

namespace {
// After the host waited: whether all went well, otherwise what did not.
bool told(DeviceQueue& queue, std::string& problem) {
  if (!queue.failed()) return true;
  forget_error();
  problem = told_failure(queue);
  return false;
}
}  // namespace

bool wait(DeviceQueue* queue, std::string& problem) noexcept {
  const Entered entered(queue);
  note(*queue, entered.status());
  for (const cudaStream_t lane : queue->lanes) note(*queue, cudaStreamSynchronize(lane));
  return told(*queue, problem);
}

bool has_failed(DeviceQueue* queue) noexcept { return queue->failed(); }

void use_lane(DeviceQueue* queue, int lane) noexcept { queue->stream = queue->lanes[lane]; }

DeviceEvent* make_event(DeviceQueue* queue, bool timed, std::string& problem) noexcept {
  const Entered entered(queue);
  cudaEvent_t event = nullptr;
  cudaError_t error = entered.status();
  if (error == cudaSuccess)
    error = cudaEventCreateWithFlags(&event, timed ? cudaEventDefault : cudaEventDisableTiming);
  if (error == cudaSuccess) return new DeviceEvent{event};
  forget_error();
  problem = text_of(error);
  return nullptr;
}

void forget_event(DeviceEvent* event) noexcept {
  if (cudaEventDestroy(event->event) != cudaSuccess) forget_error();
  delete event;
}

void mark(DeviceQueue* queue, DeviceEvent* event) noexcept {
  const Entered entered(queue);
  note(*queue, entered.status());
  note(*queue, cudaEventRecord(event->event, queue->stream));
}

void follow(DeviceQueue* queue, DeviceEvent* event) noexcept {
  const Entered entered(queue);
  note(*queue, entered.status());
  note(*queue, cudaStreamWaitEvent(queue->stream, event->event, 0));
}

bool wait_for(DeviceQueue* queue, DeviceEvent* event, std::string& problem) noexcept {
  const Entered entered(queue);
  note(*queue, entered.status());
  note(*queue, cudaEventSynchronize(event->event));
  return told(*queue, problem);
}

double elapsed_us(DeviceQueue* queue, DeviceEvent* from, DeviceEvent* to) noexcept {
  const Entered entered(queue);
  float milliseconds = 0.0f;
  if (entered.works() && cudaEventElapsedTime(&milliseconds, from->event, to->event) == cudaSuccess)
    return 1000.0 * static_cast<double>(milliseconds);
  forget_error();
  return -1.0;
}

void begin_recording(DeviceQueue* queue) noexcept {
  queue->earlier = queue->failure;
  queue->earlier_library_failure = queue->library_failure;
  queue->forget_failures();
  const Entered entered(queue);
  note(*queue, entered.status());
  note(*queue, cudaStreamBeginCapture(queue->stream, cudaStreamCaptureModeThreadLocal));
}

DeviceRecording* end_recording(DeviceQueue* queue, std::string& problem) noexcept {
  const Entered entered(queue);
  note(*queue, entered.status());
  cudaGraph_t graph = nullptr;
  note(*queue, cudaStreamEndCapture(queue->stream, &graph));
  cudaGraphExec_t executable = nullptr;
  if (!queue->failed()) note(*queue, cudaGraphInstantiate(&executable, graph, 0));
  if (graph != nullptr) (void)cudaGraphDestroy(graph);
  // What failed before is not about the recording: `wait` shall still tell it.
  problem = told_failure(*queue);
  queue->failure = queue->earlier;
  queue->library_failure = queue->earlier_library_failure;
  if (problem.empty()) return new DeviceRecording{executable};
  forget_error();
  return nullptr;
}

void replay(DeviceQueue* queue, DeviceRecording* recording) noexcept {
  const Entered entered(queue);
  note(*queue, entered.status());
  note(*queue, cudaGraphLaunch(recording->graph, queue->stream));
}

void forget(DeviceRecording* recording) noexcept {
  (void)cudaGraphExecDestroy(recording->graph);
  delete recording;
}

}  // namespace pycnn::cuda
