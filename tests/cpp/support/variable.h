#pragma once
#include <cstdlib>

namespace pycnn::testing {

// A variable of the environment while it lives.
struct Variable {
  const char* name;
  Variable(const char* variable, const char* value) : name(variable) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
};

}  // namespace pycnn::testing
