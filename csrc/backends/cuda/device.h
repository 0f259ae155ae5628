#pragma once
#include "backends/device_module.h"

// The functions of DeviceModule that are about a device and not about kernels.
namespace pycnn::cuda {

bool probe(int index, DeviceFacts& facts, std::string& problem) noexcept;

DeviceQueue* open(int index, std::string& problem) noexcept;
void close(DeviceQueue* queue) noexcept;
int enter(DeviceQueue* queue) noexcept;
void leave(DeviceQueue* queue, int before) noexcept;
void* allocate(DeviceQueue* queue, std::size_t bytes) noexcept;
void release(DeviceQueue* queue, void* memory) noexcept;
std::size_t free_bytes(DeviceQueue* queue) noexcept;
void copy_in(DeviceQueue* queue, void* device, const void* host, std::size_t bytes) noexcept;
void copy_within(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) noexcept;
void copy_out(DeviceQueue* queue, void* host, const void* device, std::size_t bytes) noexcept;
void* allocate_host(DeviceQueue* queue, std::size_t bytes) noexcept;
void release_host(DeviceQueue* queue, void* memory) noexcept;
bool wait(DeviceQueue* queue, std::string& problem) noexcept;
bool has_failed(DeviceQueue* queue) noexcept;

void use_lane(DeviceQueue* queue, int lane) noexcept;
DeviceEvent* make_event(DeviceQueue* queue, bool timed, std::string& problem) noexcept;
void forget_event(DeviceEvent* event) noexcept;
void mark(DeviceQueue* queue, DeviceEvent* event) noexcept;
void follow(DeviceQueue* queue, DeviceEvent* event) noexcept;
bool wait_for(DeviceQueue* queue, DeviceEvent* event, std::string& problem) noexcept;
double elapsed_us(DeviceQueue* queue, DeviceEvent* from, DeviceEvent* to) noexcept;

void begin_recording(DeviceQueue* queue) noexcept;
DeviceRecording* end_recording(DeviceQueue* queue, std::string& problem) noexcept;
void replay(DeviceQueue* queue, DeviceRecording* recording) noexcept;
void forget(DeviceRecording* recording) noexcept;

}  // namespace pycnn::cuda
