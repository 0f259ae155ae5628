#include "backends/cuda/cudnn_library.h"

#include "backends/cuda/runtime_library.h"

namespace pycnn::cuda {
namespace {

constexpr std::size_t kLeastVersion = 90800;  // 9.8.0, the first with descriptors of devices

bool find_all(void* library, cudnn::Functions& f, std::string& problem) {
#define PYCNN_FIND(name) find_function(library, #name, f.name, problem)
  return PYCNN_FIND(cudnnGetVersion) && PYCNN_FIND(cudnnGetCudartVersion) &&
         PYCNN_FIND(cudnnGetErrorString) && PYCNN_FIND(cudnnCreate) && PYCNN_FIND(cudnnDestroy) &&
         PYCNN_FIND(cudnnSetStream) && PYCNN_FIND(cudnnBackendCreateDescriptor) &&
         PYCNN_FIND(cudnnBackendDestroyDescriptor) && PYCNN_FIND(cudnnBackendFinalize) &&
         PYCNN_FIND(cudnnBackendSetAttribute) && PYCNN_FIND(cudnnBackendGetAttribute) &&
         PYCNN_FIND(cudnnBackendExecute);
#undef PYCNN_FIND
}

const cudnn::Functions* open(std::string& problem) {
  void* const library = open_library("PYCNN_CUDNN", "libcudnn.so.9", problem);
  static cudnn::Functions functions;
  if (library == nullptr || !find_all(library, functions, problem)) return nullptr;
  const std::size_t version = functions.cudnnGetVersion();
  if (version >= kLeastVersion && version < 100000) return &functions;
  problem = "cuDNN is " + std::to_string(version / 10000) + "." +
            std::to_string(version % 10000 / 100) + ", 9.8 or a later 9 is needed";
  return nullptr;
}

}  // namespace

const cudnn::Functions* load_cudnn(std::string& problem) { return load_once(open, problem); }

const std::string& missing_compiler(const cudnn::Functions& functions) {
  static const auto* const problem = [&functions] {
    auto* const text = new std::string;
    const std::string file =
        "libnvrtc.so." + std::to_string(functions.cudnnGetCudartVersion() / 1000);
    (void)open_library("PYCNN_NVRTC", file.c_str(), *text);
    return text;
  }();
  return *problem;
}

}  // namespace pycnn::cuda
