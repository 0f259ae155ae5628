#include "backends/devices.h"

#include <charconv>
#include <string_view>

#include "backends/cuda_environment.h"
#include "backends/cuda_loader.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr std::string_view kCuda = "cuda";

// -1: no name of a GPU.
int cuda_index(std::string_view name) {
  if (name == kCuda) return 0;
  if (!name.starts_with("cuda:")) return -1;
  name.remove_prefix(kCuda.size() + 1);
  int index = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
  return error == std::errc() && end == name.data() + name.size() ? index : -1;
}

}  // namespace

DeviceChoice find_device(const std::string& who, const std::string& name) {
  if (name == cpu_backend().name) return {&cpu_backend(), nullptr, 0};
  const int index = cuda_index(name);
  if (index < 0)
    throw DeviceError(who + ": device '" + name +
                      "' is unknown; there are 'cpu' and, with an NVIDIA GPU, 'cuda', 'cuda:0', "
                      "'cuda:1' and so on");
  if (index >= kMostCudaDevices)
    throw DeviceError(who + ": device '" + name + "' cannot be used: pycnn counts GPUs to " +
                      std::to_string(kMostCudaDevices - 1));
  check_cuda_environment(who);
  std::string problem;
  DeviceFacts facts;
  const DeviceModule* const module = load_cuda_module(problem);
  if (module == nullptr || !module->probe(index, facts, problem))
    throw DeviceError(who + ": device '" + name + "' cannot be used: " + problem);
  return {&cuda_backend(index), module, index};
}

std::vector<std::string> usable_devices() {
  std::vector<std::string> names = {cpu_backend().name};
  std::string problem;
  if (!has_cuda_module()) return names;
  const DeviceModule* const module = load_cuda_module(problem);
  DeviceFacts facts;
  for (int index = 0;
       module != nullptr && index < kMostCudaDevices && module->probe(index, facts, problem);
       ++index)
    names.push_back(std::string(kCuda) + ":" + std::to_string(index));
  return names;
}

}  // namespace pycnn
