#pragma once
#include <string>
#include <vector>

#include "backends/cuda/runtime_library.h"

// What a user is told, for Program::warnings, where a library of NVIDIA's would be used and is not
// there: everything works without any of them, so nothing else would show it.
namespace pycnn::cuda {

struct NvidiaLibrary {
  const char* name;
  const char* variable;  // of the environment: which file it is
  const char* without;   // what is done without it
  const char* wheel;     // that has it
};

inline constexpr NvidiaLibrary kCudnnLibrary = {
    "cuDNN", "PYCNN_CUDNN", "pycnn's own kernels compute convolutions, likely slower",
    "nvidia-cudnn-cu13"};
inline constexpr NvidiaLibrary kCublasLtLibrary = {
    "cuBLASLt", "PYCNN_CUBLASLT", "pycnn's own kernels compute dense layers, likely slower",
    "nvidia-cublas"};
inline constexpr NvidiaLibrary kNvrtcLibrary = {
    "NVRTC", "PYCNN_NVRTC", "cuDNN has fewer kernels for convolutions, likely slower ones",
    "nvidia-cuda-nvrtc"};

// Which file was wanted, where the user chose; else what brings the library.
inline std::string where_from(const NvidiaLibrary& library) {
  const char* const named = named_file(library.variable);
  if (named != nullptr) return std::string(library.variable) + " names " + named;
  return std::string("pip install 'pycnn[cuda]' brings it (") + library.wheel + ")";
}

// Nothing where the variable is "off": so it was asked for. `is_loaded`: it is there, and cannot be
// used all the same, which no other file would change.
inline std::vector<std::string> missing_line(const NvidiaLibrary& library,
                                             const std::string& reason, bool is_loaded = false) {
  if (is_off(library.variable)) return {};
  return {std::string(library.name) + " cannot be used (" + reason + "): " + library.without +
          (is_loaded ? "" : "; " + where_from(library))};
}

}  // namespace pycnn::cuda
