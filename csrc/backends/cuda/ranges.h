#pragma once

// The functions of DeviceModule that name work for Nsight and other tools.
namespace pycnn::cuda {

void begin_range(const char* name) noexcept;
void end_range() noexcept;

}  // namespace pycnn::cuda
