// The device's side of the CUDA module for tests: memory is the host's, work is done at once.
// Device 0 runs blocks and threads in their order, device 1 backwards, so that what depends on the
// order differs. $PYCNN_EMULATED_FAILURE names what fails: "copy_in", "wait" or "recording". Ranges
// are written to the file that $PYCNN_EMULATED_RANGES names.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "backends/cuda/device.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/ranges.h"
#include "backends/cuda/select.h"

namespace pycnn::cuda {
namespace {
constexpr int kDevices = 2;
constexpr std::size_t kAlignment = 256, kMemoryBytes = std::size_t{1} << 30;

bool fails(const char* what) {
  const char* const named = std::getenv("PYCNN_EMULATED_FAILURE");
  return named != nullptr && std::strcmp(named, what) == 0;
}
}  // namespace

bool probe(int index, DeviceFacts& facts, std::string& problem) noexcept {
  if (index >= kDevices) {
    problem = "there is no GPU " + std::to_string(index);
    return false;
  }
  facts = {"emulated", "8.0", kMemoryBytes};
  return true;
}

DeviceQueue* open(int index, std::string&) noexcept {
  auto* queue = new DeviceQueue;
  queue->backwards = index == 1;
  return queue;
}
void close(DeviceQueue* queue) noexcept { delete queue; }

// Filled with NaN (of float32 and bfloat16): what is read before it was written shows.
void* allocate(DeviceQueue*, std::size_t bytes) noexcept {
  if (bytes > kMemoryBytes) return nullptr;
  void* memory = ::operator new (bytes + 1, std::align_val_t{kAlignment}, std::nothrow);
  if (memory != nullptr) std::memset(memory, 0xFF, bytes);
  return memory;
}
void release(DeviceQueue*, void* memory) noexcept {
  ::operator delete (memory, std::align_val_t{kAlignment});
}
std::size_t free_bytes(DeviceQueue*) noexcept { return kMemoryBytes; }

namespace {
void copy(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) {
  if (bytes > 0) submit(*queue, [=] { std::memmove(target, source, bytes); });
}
}  // namespace

void copy_in(DeviceQueue* queue, void* device, const void* host, std::size_t bytes) noexcept {
  if (fails("copy_in"))
    queue->failed = true;
  else
    copy(queue, device, host, bytes);
}
void copy_within(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) noexcept {
  copy(queue, target, source, bytes);
}
void copy_out(DeviceQueue* queue, void* host, const void* device, std::size_t bytes) noexcept {
  copy(queue, host, device, bytes);
}
bool wait(DeviceQueue* queue, std::string& problem) noexcept {
  const bool failed = queue->failed || fails("wait");
  queue->failed = false;
  if (failed) problem = "told to fail";
  return !failed;
}

// The libraries need a GPU.
namespace {
constexpr const char* kNoLibrary = "the device is emulated";
}  // namespace
Choice select_library(int, const ops::Conv2d&, const Problem&) { return refuse(kNoLibrary); }
Choice select_library(int, const ops::Conv2dGradInput&, const Problem&) {
  return refuse(kNoLibrary);
}
Choice select_library(int, const ops::Conv2dGradWeight&, const Problem&) {
  return refuse(kNoLibrary);
}
Choice select_library(int, const ops::Dense&, const Problem&) { return refuse(kNoLibrary); }
Choice select_library(int, const ops::DenseGradInput&, const Problem&) {
  return refuse(kNoLibrary);
}
Choice select_library(int, const ops::DenseGradWeight&, const Problem&) {
  return refuse(kNoLibrary);
}

void begin_recording(DeviceQueue* queue) noexcept {
  queue->recording = std::make_unique<DeviceRecording>();
}
DeviceRecording* end_recording(DeviceQueue* queue, std::string& problem) noexcept {
  const std::unique_ptr<DeviceRecording> recording = std::move(queue->recording);
  if (!fails("recording")) return new DeviceRecording(std::move(*recording));
  problem = "told to fail";
  return nullptr;
}
void replay(DeviceQueue*, DeviceRecording* recording) noexcept {
  for (const std::function<void()>& work : recording->work) work();
}
void forget(DeviceRecording* recording) noexcept { delete recording; }

namespace {
void write_range(const char* text) {
  const char* const path = std::getenv("PYCNN_EMULATED_RANGES");
  if (path == nullptr) return;
  std::FILE* const file = std::fopen(path, "a");
  if (file == nullptr) return;
  (void)std::fprintf(file, "%s\n", text);
  (void)std::fclose(file);
}
}  // namespace
void begin_range(const char* name) noexcept { write_range(name); }
void end_range() noexcept { write_range("end"); }

}  // namespace pycnn::cuda
