#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

// The part of the CUDA runtime that device.cpp and device_timer.cpp of backends/cuda call, on the
// host: memory is the host's and work is done at once, though a clock tells when the host gave it
// and when a device would have done it. The graph captured last does its work again when launched.
// Calls named in `fake_cuda().failing` fail. Like the real one it keeps the last error until it is
// asked for, and refuses what may not be captured.
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorMemoryAllocation = 2,
                      cudaErrorInitializationError = 3, cudaErrorNoDevice = 100,
                      cudaErrorStreamCaptureUnsupported = 900, cudaErrorUnknown = 999;
constexpr int CUDART_VERSION = 13000;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToDevice, cudaMemcpyDeviceToHost };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
constexpr unsigned cudaStreamNonBlocking = 1, cudaHostAllocDefault = 0, cudaEventDefault = 0,
                   cudaEventDisableTiming = 2;
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  std::size_t totalGlobalMem;
};
using cudaStream_t = int*;
using cudaGraph_t = int*;
using cudaGraphExec_t = int*;
using cudaEvent_t = double*;

struct FakeCuda {
  std::set<std::string> failing;
  int driver = 13000, devices = 1;
  cudaError_t count_error = cudaErrorUnknown;  // of devices, where that fails
  cudaDeviceProp properties{"fake", 9, 0, 132, 1000};
  cudaError_t last = cudaSuccess;
  bool capturing = false;
  int current = 7;  // the caller's
  std::set<int> in_use = {7};
  int streams = 0, allocations = 0, host_allocations = 0, graphs = 0, executables = 0, launched = 0,
      events = 0;
  // Microseconds: how far host and device are, and what the graph captured last takes.
  double host = 0.0, device = 0.0, captured = 0.0;
  bool uploaded = false;                       // that graph
  std::vector<std::function<void()>> effects;  // what it does to memory, in its order
  int streams_left = 1000;
  std::size_t largest_block = ~std::size_t{0};  // of memory
  int blocks_left = 1000000, cache_bytes = 0;
  std::set<cudaStream_t> synchronized;

  // Work that takes the device that long, given by a call that takes the host 5.
  void work(double us) {
    if (capturing) {
      captured += us;
      return;
    }
    host += 5.0;
    run(us);
  }
  void run(double us) { device = std::max(device, host) + us; }
  // Done at once, or where it is captured whenever that graph is launched.
  void effect(std::function<void()> what) {
    if (capturing)
      effects.push_back(std::move(what));
    else
      what();
  }

  cudaError_t result(const char* call, bool capturable = false,
                     cudaError_t error = cudaErrorUnknown) {
    if (failing.count(call) > 0) return last = error;
    if (capturing && !capturable) return last = cudaErrorStreamCaptureUnsupported;
    return cudaSuccess;
  }
};
inline FakeCuda& fake_cuda() {
  static FakeCuda fake;
  return fake;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == 2 ? "out of memory" : "trouble";
}
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == 2 ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}
inline cudaError_t cudaGetLastError() {
  const cudaError_t last = fake_cuda().last;
  fake_cuda().last = cudaSuccess;
  return last;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = fake_cuda().driver;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = fake_cuda().devices;
  return *count > 0 ? fake_cuda().result("cudaGetDeviceCount", false, fake_cuda().count_error)
                    : fake_cuda().last = cudaErrorNoDevice;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = fake_cuda().properties;
  return fake_cuda().result("cudaGetDeviceProperties");
}
enum cudaDeviceAttr { cudaDevAttrL2CacheSize };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = fake_cuda().cache_bytes;
  return fake_cuda().result("cudaDeviceGetAttribute");
}
inline cudaError_t cudaSetDevice(int device) {
  const cudaError_t error = fake_cuda().result("cudaSetDevice", true);
  if (error == cudaSuccess) fake_cuda().current = device;
  return error;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = fake_cuda().current;
  return fake_cuda().result("cudaGetDevice", true);
}
enum cudaDriverEntryPointQueryResult {
  cudaDriverEntryPointSuccess,
  cudaDriverEntryPointSymbolNotFound
};
constexpr unsigned long long cudaEnableDefault = 0;
inline int fake_context_state(int device, unsigned*, int* active) {
  *active = fake_cuda().in_use.count(device) > 0 ? 1 : 0;
  return 0;
}
inline cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** function, unsigned,
                                                    unsigned long long,
                                                    cudaDriverEntryPointQueryResult* found) {
  *function = reinterpret_cast<void*>(&fake_context_state);
  *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const cudaError_t error = fake_cuda().result("cudaStreamCreateWithFlags");
  if (error != cudaSuccess) return error;
  if (fake_cuda().streams_left-- == 0) return fake_cuda().last = cudaErrorUnknown;
  ++fake_cuda().streams;
  *stream = new int(0);
  return error;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  --fake_cuda().streams;
  delete stream;
  return fake_cuda().result("cudaStreamDestroy");
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  fake_cuda().synchronized.insert(stream);
  fake_cuda().host = std::max(fake_cuda().host, fake_cuda().device);
  return fake_cuda().result("cudaStreamSynchronize");
}
inline cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const cudaError_t error = fake_cuda().result("cudaMalloc", false, cudaErrorMemoryAllocation);
  if (error != cudaSuccess) return error;
  if (bytes > fake_cuda().largest_block || fake_cuda().blocks_left == 0)
    return fake_cuda().last = cudaErrorMemoryAllocation;
  --fake_cuda().blocks_left;
  ++fake_cuda().allocations;
  *memory = std::malloc(bytes);
  return error;
}
inline cudaError_t cudaFree(void* memory) {
  --fake_cuda().allocations;
  std::free(memory);
  return fake_cuda().result("cudaFree");
}
inline cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const cudaError_t error = fake_cuda().result("cudaHostAlloc", false, cudaErrorMemoryAllocation);
  if (error != cudaSuccess) return error;
  ++fake_cuda().host_allocations;
  *memory = std::malloc(bytes);
  return error;
}
inline cudaError_t cudaFreeHost(void* memory) {
  --fake_cuda().host_allocations;
  std::free(memory);
  return fake_cuda().result("cudaFreeHost");
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = 1000;
  return fake_cuda().result("cudaMemGetInfo");
}
inline cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                                   cudaMemcpyKind, cudaStream_t) {
  const cudaError_t error = fake_cuda().result("cudaMemcpyAsync", true);
  if (error == cudaSuccess) fake_cuda().effect([=] { std::memmove(target, source, bytes); });
  return error;
}
inline cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t) {
  const cudaError_t error = fake_cuda().result("cudaMemsetAsync", true);
  if (error == cudaSuccess) fake_cuda().effect([=] { std::memset(target, value, bytes); });
  return error;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  const cudaError_t error = fake_cuda().result("cudaStreamBeginCapture");
  fake_cuda().capturing = error == cudaSuccess;
  fake_cuda().captured = 0.0;
  fake_cuda().effects.clear();
  return error;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  const cudaError_t error = fake_cuda().result("cudaStreamEndCapture", true);
  fake_cuda().capturing = false;
  if (error == cudaSuccess) *graph = &++fake_cuda().graphs;
  return error;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t,
                                        unsigned long long) {
  const cudaError_t error = fake_cuda().result("cudaGraphInstantiate");
  if (error == cudaSuccess) *executable = &++fake_cuda().executables;
  fake_cuda().uploaded = false;
  return error;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t) {
  --fake_cuda().graphs;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) {
  --fake_cuda().executables;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) {
  ++fake_cuda().launched;
  fake_cuda().host += fake_cuda().uploaded ? 8.0 : 60.0;
  fake_cuda().uploaded = true;
  fake_cuda().run(fake_cuda().captured);
  const cudaError_t error = fake_cuda().result("cudaGraphLaunch");
  if (error == cudaSuccess)
    for (const auto& effect : fake_cuda().effects) effect();
  return error;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
  const cudaError_t error = fake_cuda().result("cudaEventCreate", true);
  if (error != cudaSuccess) return error;
  ++fake_cuda().events;
  *event = new double(0.0);
  return error;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const cudaError_t error = fake_cuda().result("cudaEventCreateWithFlags", true);
  if (error != cudaSuccess) return error;
  ++fake_cuda().events;
  *event = new double(0.0);
  return error;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return fake_cuda().result("cudaStreamWaitEvent", true);
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  fake_cuda().host = std::max(fake_cuda().host, *event);
  return fake_cuda().result("cudaEventSynchronize");
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  --fake_cuda().events;
  delete event;
  return fake_cuda().result("cudaEventDestroy");
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  const cudaError_t error = fake_cuda().result("cudaEventRecord", true);
  fake_cuda().host += 1.0;
  fake_cuda().run(0.0);
  *event = fake_cuda().device;
  return error;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = static_cast<float>((*end - *begin) / 1000.0);
  return fake_cuda().result("cudaEventElapsedTime");
}
