#pragma once
#include <string>

#include "pycnn/export.h"

// Where the thread count comes from. `root` is put before every path that is read ("" for the real
// system), so that tests can describe a machine with a few files. 0 means "says nothing".
namespace pycnn {

// Whole processors that the cgroup (v1 or v2) of this process and all groups above it grant, at
// least 1.
PYCNN_API int cgroup_cpus(const std::string& root);

// Cores, not hardware threads, among the processors that this thread may run on.
PYCNN_API int physical_cores(const std::string& root);

}  // namespace pycnn
