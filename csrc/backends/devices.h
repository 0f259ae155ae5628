#pragma once
#include <string>
#include <vector>

#include "backends/device_module.h"

// Devices by the names that users give them.
namespace pycnn {

struct DeviceChoice {
  const Backend* backend = nullptr;
  const DeviceModule* module = nullptr;  // null: the CPU
  int index = 0;
};

// "cpu", "cuda", "cuda:1". Throws DeviceError, beginning with `who`, for any other name and for a
// device that cannot be used, with what is missing: pycnn's module, a library, the driver, a GPU.
DeviceChoice find_device(const std::string& who, const std::string& name);

// The CPU, and the GPUs that can be used.
std::vector<std::string> usable_devices();

}  // namespace pycnn
