#include "core/cache_sizes.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/cgroup.h"

#if defined(__linux__)
#include <unistd.h>
#endif

namespace pycnn {
namespace {

// "512K", "32768K", "2M", "65536".
std::size_t size_in_bytes(std::string_view text) {
  std::int64_t unit = 1;
  if (!text.empty() && text.back() == 'K') unit = std::int64_t{1} << 10;
  if (!text.empty() && text.back() == 'M') unit = std::int64_t{1} << 20;
  if (unit != 1) text.remove_suffix(1);
  const std::int64_t count = read_int(text).value_or(0);
  constexpr std::int64_t kMost = std::int64_t{1} << 40;
  return count > 0 && count <= kMost / unit ? static_cast<std::size_t>(count * unit) : 0;
}

// How many processors a list as "0-3,8,10-11" names.
int count_in_list(std::string_view list) {
  std::int64_t count = 0;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    const std::string_view part = list.substr(0, comma);
    const std::size_t dash = part.find('-');
    const auto first = read_int(part.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : read_int(part.substr(dash + 1));
    if (first && last && *first >= 0 && *last >= *first && *last < (1 << 20))
      count += *last - *first + 1;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return static_cast<int>(std::clamp<std::int64_t>(count, 1, 1 << 20));
}

CacheLevel* level_of(CacheSizes& sizes, std::int64_t number) {
  switch (number) {
    case 1:
      return &sizes.l1;
    case 2:
      return &sizes.l2;
    case 3:
      return &sizes.l3;
    default:
      return nullptr;
  }
}

void take_sizes_of_system(CacheSizes& sizes) {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  const auto take = [](CacheLevel& level, int name) {
    const long bytes = ::sysconf(name);
    if (level.bytes == 0 && bytes > 0) level.bytes = static_cast<std::size_t>(bytes);
  };
  take(sizes.l1, _SC_LEVEL1_DCACHE_SIZE);
  take(sizes.l2, _SC_LEVEL2_CACHE_SIZE);
  take(sizes.l3, _SC_LEVEL3_CACHE_SIZE);
#else
  (void)sizes;
#endif
}

}  // namespace

CacheSizes cache_sizes(const std::string& root) {
  CacheSizes sizes;
  int hardware_threads = 1;  // of a core
  for (int index = 0; index < 16; ++index) {
    const std::string folder =
        root + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    const auto number = read_int_file(folder + "level");
    if (!number) break;
    const std::string type = read_line(folder + "type").value_or("");
    CacheLevel* const level = level_of(sizes, *number);
    if (level == nullptr || (type != "Data" && type != "Unified")) continue;
    level->bytes = size_in_bytes(read_line(folder + "size").value_or(""));
    level->cores = count_in_list(read_line(folder + "shared_cpu_list").value_or("0"));
    if (*number == 1) hardware_threads = level->cores;
  }
  for (CacheLevel* level : {&sizes.l1, &sizes.l2, &sizes.l3})
    level->cores = std::max(1, level->cores / hardware_threads);
  if (root.empty()) take_sizes_of_system(sizes);
  return sizes;
}

}  // namespace pycnn
