#pragma once
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

// Libraries of NVIDIA, loaded when they are first wanted and never closed, as the module itself.
namespace pycnn::cuda {

// Whether a library is not to be used, by the user's wish.
inline bool is_off(const char* variable) {
  const char* const named = std::getenv(variable);
  return named != nullptr && std::strcmp(named, "off") == 0;
}

// The file that a variable names; null: none.
inline const char* named_file(const char* variable) {
  const char* const named = std::getenv(variable);
  return named != nullptr && *named != '\0' ? named : nullptr;
}

// The file that `variable` names, else `file` as the dynamic linker finds it: loaded already (by
// PyTorch, say), in NVIDIA's wheel beside this package, or of the system. Null, with the reason,
// when there is none or the variable is "off".
inline void* open_library(const char* variable, const char* file, std::string& problem) {
  if (is_off(variable)) {
    problem = std::string(variable) + " is off";
    return nullptr;
  }
  const char* const named = named_file(variable);
  const char* const path = named != nullptr ? named : file;
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  const char* const reason = dlerror();
  problem = reason != nullptr ? reason : std::string("cannot load ") + path;
  return nullptr;
}

template <class Function>
bool find_function(void* library, const char* name, Function& function, std::string& problem) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) problem = std::string("it has no function ") + name;
  return function != nullptr;
}

// What `open` gives when it is first called, with the reason when that is null.
template <class Functions>
const Functions* load_once(const Functions* (*open)(std::string&), std::string& problem) {
  static std::mutex mutex;
  static bool tried = false;
  static const Functions* functions = nullptr;
  static std::string reason;
  const std::lock_guard lock(mutex);
  if (!tried) functions = open(reason);
  tried = true;
  problem = reason;
  return functions;
}

}  // namespace pycnn::cuda
