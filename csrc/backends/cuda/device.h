#pragma once
#include "backends/device_module.h"

// The functions of DeviceModule that are about a device and not about kernels.
namespace pycnn::cuda {

bool probe(int index, DeviceFacts& facts, std::string& problem) noexcept;

DeviceQueue* open(int index, std::string& problem) noexcept;
void close(DeviceQueue* queue) noexcept;
void* allocate(DeviceQueue* queue, std::size_t bytes) noexcept;
void release(DeviceQueue* queue, void* memory) noexcept;
std::size_t free_bytes(DeviceQueue* queue) noexcept;
void copy_in(DeviceQueue* queue, void* device, const void* host, std::size_t bytes) noexcept;
void copy_within(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) noexcept;
void copy_out(DeviceQueue* queue, void* host, const void* device, std::size_t bytes) noexcept;
bool wait(DeviceQueue* queue, std::string& problem) noexcept;

void begin_recording(DeviceQueue* queue) noexcept;
DeviceRecording* end_recording(DeviceQueue* queue, std::string& problem) noexcept;
void replay(DeviceQueue* queue, DeviceRecording* recording) noexcept;
void forget(DeviceRecording* recording) noexcept;

}  // namespace pycnn::cuda
