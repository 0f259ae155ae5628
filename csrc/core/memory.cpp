#include "core/memory.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "core/cgroup.h"
#include "pycnn/error.h"

#if defined(__unix__)
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace pycnn {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

// The number behind `key` in a file of lines "key number" or "key: number kB".
std::int64_t field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; next_line(file, line);) {
    std::istringstream words(line);
    words.exceptions(std::ios_base::badbit);  // a lack of memory
    std::string name, unit;
    std::int64_t value = 0;
    if (!(words >> name >> value)) continue;
    if (!name.empty() && name.back() == ':') name.pop_back();
    if (name != key) continue;
    words >> unit;
    if (value < 0 || value > kUnlimited / 1024) return 0;
    return unit == "kB" ? value * 1024 : value;
  }
  return 0;
}

std::int64_t sum(std::int64_t a, std::int64_t b) { return a > kUnlimited - b ? kUnlimited : a + b; }

// What a group leaves. Pages of files are given back before anything fails.
std::int64_t left_in_group(const std::string& directory, bool v1, std::int64_t swap) {
  const auto limit = read_int_file(directory + (v1 ? "/memory.limit_in_bytes" : "/memory.max"));
  const auto used = read_int_file(directory + (v1 ? "/memory.usage_in_bytes" : "/memory.current"));
  if (!limit || *limit < 0 || !used) return kUnlimited;  // "max" reads as no number
  const std::string stat = directory + "/memory.stat";
  const std::string prefix = v1 ? "total_" : "";
  const std::int64_t files =
      sum(field(stat, prefix + "inactive_file"), field(stat, prefix + "active_file"));
  if (!v1) {
    const auto most = read_int_file(directory + "/memory.swap.max");
    const auto swapped = read_int_file(directory + "/memory.swap.current");
    if (most && swapped) swap = std::clamp<std::int64_t>(*most - *swapped, 0, swap);
  }
  const std::int64_t unreclaimable = std::max<std::int64_t>(*used - files, 0);
  return sum(std::max<std::int64_t>(*limit - unreclaimable, 0), swap);
}

#if defined(__unix__)
std::int64_t left_of_limit(int resource, std::int64_t used) {
  rlimit limit{};
  if (::getrlimit(static_cast<decltype(RLIMIT_AS)>(resource), &limit) != 0 ||
      limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > static_cast<rlim_t>(kUnlimited))
    return kUnlimited;
  return std::max<std::int64_t>(static_cast<std::int64_t>(limit.rlim_cur) - used, 0);
}

std::int64_t left_of_limits() {
  std::int64_t size = 0, resident = 0, shared = 0, text = 0, library = 0, data = 0;
  std::ifstream("/proc/self/statm") >> size >> resident >> shared >> text >> library >> data;
  const std::int64_t page = ::sysconf(_SC_PAGESIZE);
  return std::min(left_of_limit(RLIMIT_AS, size * page), left_of_limit(RLIMIT_DATA, data * page));
}
#endif

}  // namespace

std::size_t available_memory(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  const std::int64_t swap = field(meminfo, "SwapFree");
  std::int64_t least = kUnlimited;
  if (const std::int64_t free = field(meminfo, "MemAvailable"); free > 0) least = sum(free, swap);
  for_each_cgroup(root, "memory", [&](const std::string& directory, bool v1) {
    least = std::min(least, left_in_group(directory, v1, swap));
  });
#if defined(__unix__)
  if (root.empty()) least = std::min(least, left_of_limits());
#endif
  return least == kUnlimited ? std::numeric_limits<std::size_t>::max()
                             : static_cast<std::size_t>(least);
}

void expect_memory(const std::string& who, std::size_t wanted_bytes) {
  if (wanted_bytes < kCheckedBytes) return;
  const std::size_t available = available_memory();
  if (wanted_bytes <= available) return;
  throw MemoryLimitError(who + " " + std::to_string(wanted_bytes) + " bytes, " +
                             std::to_string(available) + " are available",
                         wanted_bytes, available);
}

}  // namespace pycnn
