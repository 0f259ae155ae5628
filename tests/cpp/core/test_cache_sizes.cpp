#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/cache_sizes.h"
#include "support/temporary_directory.h"

using namespace pycnn;

namespace {

struct Cache {
  const char* level;
  const char* type;
  const char* size;
  const char* shared;
};

CacheSizes sizes_of(const std::vector<Cache>& caches) {
  const TemporaryDirectory root;
  int index = 0;
  for (const Cache& cache : caches) {
    const std::filesystem::path folder =
        root / "sys/devices/system/cpu/cpu0/cache" / ("index" + std::to_string(index++));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "level") << cache.level << "\n";
    std::ofstream(folder / "type") << cache.type << "\n";
    std::ofstream(folder / "size") << cache.size << "\n";
    std::ofstream(folder / "shared_cpu_list") << cache.shared << "\n";
  }
  return cache_sizes(root.path());
}

}  // namespace

TEST_CASE("sizes of caches, and how many cores share them, two hardware threads counting as one") {
  const CacheSizes sizes = sizes_of({{"1", "Data", "48K", "0,56"},
                                     {"1", "Instruction", "32K", "0,56"},
                                     {"2", "Unified", "2M", "0,56"},
                                     {"3", "Unified", "107520K", "0-55,56-111"}});
  CHECK(sizes.l1.bytes == 48 * 1024);
  CHECK(sizes.l1.cores == 1);
  CHECK(sizes.l2.bytes == 2 * 1024 * 1024);
  CHECK(sizes.l2.cores == 1);
  CHECK(sizes.l3.bytes == 107520 * 1024);
  CHECK(sizes.l3.cores == 56);
}

TEST_CASE("what cannot be read is unknown, and never a wrong number") {
  CHECK(sizes_of({}).l1.bytes == 0);
  const CacheSizes sizes = sizes_of({{"1", "Data", "abc", ""},
                                     {"2", "Unified", "99999999999999999999K", "3-1,x"},
                                     {"7", "Unified", "1M", "0"},
                                     {"3", "Unified", "-5K", "0-99999999999"}});
  for (const CacheLevel& level : {sizes.l1, sizes.l2, sizes.l3}) {
    CHECK(level.bytes == 0);
    CHECK(level.cores == 1);
  }
}

TEST_CASE("a size without a unit is in bytes") {
  CHECK(sizes_of({{"1", "Data", "65536", "0"}}).l1.bytes == 65536);
}
