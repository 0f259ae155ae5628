#pragma once
#include <cstddef>
#include <string>

#include "pycnn/export.h"

namespace pycnn {

// Bytes that this process can still be given: free and reclaimable memory and swap of the machine,
// what its cgroups (v1 or v2) and resource limits leave. The largest number when nothing is known.
// `root` as in core/cgroup.h; resource limits are those of the process and count only without one.
PYCNN_API std::size_t available_memory(const std::string& root = "");

// Throws MemoryLimitError saying "WHO WANTED bytes, AVAILABLE are available" when the machine has
// less. Amounts below kCheckedBytes are not looked at: the question costs some 50 microseconds, and
// an allocation that fails tells as well.
PYCNN_API void expect_memory(const std::string& who, std::size_t wanted_bytes);
constexpr std::size_t kCheckedBytes = std::size_t{64} << 20;

}  // namespace pycnn
