#include "backends/cuda_loader.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "pycnn/error.h"
#include "pycnn/version.h"

namespace pycnn {
namespace {

constexpr const char* kModuleFile = "pycnn_cuda.so";
constexpr const char* kHowToBuild =
    "\n  hint: pip install . -C cmake.define.PYCNN_WITH_CUDA=ON builds it (needs nvcc 13); the CPU "
    "keeps working";

// "a/b" of "a/b/c"; "." of "c".
std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::vector<std::string> candidates() {
  const char* const named = std::getenv("PYCNN_CUDA_MODULE");
  if (named != nullptr && *named != '\0') return {named};
  // Where the code of this function is: the library, or the program that it is part of.
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&candidates), &info) == 0 || info.dli_fname == nullptr)
    return {};
  const std::string folder = folder_of(info.dli_fname);
  return {folder + "/" + kModuleFile, folder + "/../../pycnn_cuda/" + kModuleFile};
}

bool is_file(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

// Empty: there is none.
std::string find_module() {
  for (const std::string& path : candidates())
    if (is_file(path)) return path;
  return {};
}

std::string missing_module() {
  std::string places;
  for (const std::string& path : candidates())
    places += (places.empty() ? "'" : ", '") + path + "'";
  return "pycnn's CUDA module is not installed (looked for " + places + ")" + kHowToBuild;
}

// dlopen names the library that it lacks, at the beginning.
std::string unloadable(const std::string& path, const std::string& reason) {
  std::string text = "pycnn's CUDA module '" + path + "' cannot be loaded: " + reason;
  for (const char* const library : {"libcudnn", "libcublas", "libnvrtc", "libcudart"})
    if (reason.find(library) != std::string::npos)
      return text +
             "\n  hint: that library is in NVIDIA's wheels: pip install nvidia-cudnn-cu13 "
             "nvidia-cublas";
  return text;
}

const DeviceModule* open_module(std::string& problem) {
  const std::string path = find_module();
  if (path.empty()) {
    problem = missing_module();
    return nullptr;
  }
  // Never closed: its threads and what the driver registered at exit would outlive the code.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    problem = unloadable(path, reason != nullptr ? reason : "no reason given");
    return nullptr;
  }
  const auto entry = reinterpret_cast<DeviceModuleEntry>(dlsym(library, kDeviceModuleEntry));
  const DeviceModule* const module = entry != nullptr ? entry() : nullptr;
  if (module == nullptr) {
    problem = "'" + path + "' is no module of pycnn: it has no function " + kDeviceModuleEntry;
    return nullptr;
  }
  const DeviceModuleHead ours = device_module_head(version());
  if (!module->head.matches(ours) || std::string(ours.version) != module->head.version) {
    problem = "pycnn's CUDA module '" + path + "' is of another build (" + module->head.version +
              ", this is " + ours.version + ")" + kHowToBuild;
    return nullptr;
  }
  return module;
}

const DeviceModule* loaded = nullptr;

// A backend is a table of plain functions, so each device has its own.
template <int kIndex>
Selection select_kernel(const Op& op, const Problem& problem) {
  Selection selection;
  std::string refusal;
  if (!loaded->select(kIndex, op, problem, selection, refusal)) throw UnsupportedError(refusal);
  return selection;
}

std::vector<std::string> list_variants(const Op& op) { return loaded->variants(op); }
bool merges(const Siblings& siblings) { return loaded->merges(siblings); }
bool measures(const Op& op, const Problem& problem) {
  return loaded->measures(op, problem.inputs, problem.outputs);
}
// All kernels do, or a pass behind them does; of images of one type.
bool finishes(const ops::Conv2dGradInput&, const Problem& problem) {
  return std::all_of(problem.inputs.begin() + 2, problem.inputs.end(),
                     [&](const TensorSpec& spec) { return spec == problem.outputs[0]; });
}
// Whatever there is a kernel for, but each window normalises its pixels itself.
template <int kIndex>
bool pools(const Op& op, const Problem& problem) {
  constexpr double kMostWindows = 4;  // that a pixel is in
  const auto* forward = std::get_if<ops::BatchNormMaxPool>(&op);
  const ops::MaxPool2d& pool =
      forward != nullptr ? forward->pool : std::get<ops::BatchNormMaxPoolGrad>(op).forward.pool;
  const auto area = [](const Pair& sides) {
    return static_cast<double>(sides[0]) * static_cast<double>(sides[1]);
  };
  if (area(pool.kernel_size) > kMostWindows * area(pool.stride)) return false;
  Selection selection;
  std::string refusal;
  return loaded->select(kIndex, op, problem, selection, refusal);
}

template <int... kIndices>
const Backend& backend_of(int index, std::integer_sequence<int, kIndices...>) {
  static const Backend backends[] = {{"cuda", select_kernel<kIndices>, list_variants, merges,
                                      measures, finishes, pools<kIndices>}...};
  return backends[index];
}

}  // namespace

const DeviceModule* load_cuda_module(std::string& problem) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (loaded == nullptr) loaded = open_module(problem);
  return loaded;
}

bool has_cuda_module() { return !find_module().empty(); }

const Backend& cuda_backend(int index) {
  return backend_of(index, std::make_integer_sequence<int, kMostCudaDevices>());
}

}  // namespace pycnn
