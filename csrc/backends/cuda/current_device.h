#pragma once
#include <cuda_runtime_api.h>

// Which device a thread uses is the caller's affair, too (PyTorch's, say): what it was it is again.
namespace pycnn::cuda {

constexpr int kNothingToRestore = -1;

// Whether somebody uses the device already. To make one current that nobody does would take
// hundreds of megabytes of its memory.
inline bool is_in_use(int device) {
  using GetState = int (*)(int device, unsigned* flags, int* active);
  static const GetState get_state = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t error = cudaGetDriverEntryPointByVersion(
        "cuDevicePrimaryCtxGetState", &function, 12000, cudaEnableDefault, &found);
    if (error != cudaSuccess) (void)cudaGetLastError();
    return found == cudaDriverEntryPointSuccess ? reinterpret_cast<GetState>(function) : nullptr;
  }();
  unsigned flags = 0;
  int active = 1;
  return get_state == nullptr || get_state(device, &flags, &active) != 0 || active != 0;
}

// Makes `device` that of the calling thread; `before` is for restore_device.
inline cudaError_t change_device(int device, int& before) {
  before = kNothingToRestore;
  int current = kNothingToRestore;
  if (cudaGetDevice(&current) != cudaSuccess) (void)cudaGetLastError();
  if (current == device) return cudaSuccess;
  const bool restores = current >= 0 && is_in_use(current);
  const cudaError_t error = cudaSetDevice(device);
  if (error == cudaSuccess && restores) before = current;
  return error;
}

inline void restore_device(int before) {
  if (before != kNothingToRestore && cudaSetDevice(before) != cudaSuccess) (void)cudaGetLastError();
}

// While it lives, `device` is that of the calling thread.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) : status_(change_device(device, before_)) {}
  ~CurrentDevice() { restore_device(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  cudaError_t status() const { return status_; }

 private:
  int before_ = kNothingToRestore;
  const cudaError_t status_;
};

}  // namespace pycnn::cuda
