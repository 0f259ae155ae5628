#pragma once
#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <fstream>
#include <string>

// Which build of NVIDIA's driver there is. CUDA's version, which cudaDriverGetVersion tells, is
// that of many.
namespace pycnn::cuda {

// "580.65.06" of the file that libcuda.so.1 is, "libcuda.so.580.65.06", or else of the first line
// of /proc/driver/nvidia/version. Empty: neither tells.
inline std::string driver_build(const std::string& library, const std::string& line) {
  const std::string begin = "libcuda.so.";
  if (const std::size_t at = library.rfind(begin); at != std::string::npos) {
    const std::string build = library.substr(at + begin.size());
    if (build.find('.') != std::string::npos) return build;
  }
  std::string word;
  for (const char c : line + " ") {
    if (c != ' ') {
      word += c;
      continue;
    }
    const bool is_version =
        word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == word.npos;
    if (is_version) return word;
    word.clear();
  }
  return {};
}

// Of this process, which has loaded the driver's library if it has a GPU.
inline std::string driver_build() {
  std::string library, line;
  if (void* const handle = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD)) {
    link_map* map = nullptr;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0)
      if (char* const file = realpath(map->l_name, nullptr)) {
        library = file;
        std::free(file);
      }
    (void)dlclose(handle);
  }
  std::ifstream module("/proc/driver/nvidia/version");
  (void)std::getline(module, line);
  return driver_build(library, line);
}

}  // namespace pycnn::cuda
