#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "core/memory.h"
#include "pycnn/error.h"
#include "support/temporary_directory.h"

using namespace pycnn;

namespace {

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

}  // namespace

TEST_CASE("available memory: free, reclaimable and swap of the machine") {
  const TemporaryDirectory root;
  CHECK(available_memory(root.path()) == std::numeric_limits<std::size_t>::max());
  write(root / "proc/meminfo",
        "MemTotal:  8000 kB\nMemFree:  1 kB\nMemAvailable:  3000 kB\nSwapFree:  500 kB\n");
  CHECK(available_memory(root.path()) == 3500 * 1024);
}

TEST_CASE("available memory: the tightest cgroup v2, whose files are reclaimable") {
  const TemporaryDirectory root;
  write(root / "proc/meminfo", "MemAvailable:  3000 kB\nSwapFree:  100 kB\n");
  write(root / "proc/self/cgroup", "0::/a/b\n");
  write(root / "sys/fs/cgroup/a/b/memory.max", "max\n");
  write(root / "sys/fs/cgroup/a/b/memory.current", "1000\n");
  CHECK(available_memory(root.path()) == 3100 * 1024);
  write(root / "sys/fs/cgroup/a/memory.max", "1048576\n");
  write(root / "sys/fs/cgroup/a/memory.current", "1000000\n");
  write(root / "sys/fs/cgroup/a/memory.stat", "anon 5\ninactive_file 300000\nactive_file 100000\n");
  CHECK(available_memory(root.path()) == 1048576 - 600000 + 100 * 1024);
  write(root / "sys/fs/cgroup/a/memory.swap.max", "0\n");
  write(root / "sys/fs/cgroup/a/memory.swap.current", "0\n");
  CHECK(available_memory(root.path()) == 1048576 - 600000);
  write(root / "sys/fs/cgroup/a/memory.current", "9000000\n");
  CHECK(available_memory(root.path()) == 0);
  write(root / "sys/fs/cgroup/a/memory.max", "rubbish\n");
  CHECK(available_memory(root.path()) == 3100 * 1024);
}

TEST_CASE("available memory: cgroup v1") {
  const TemporaryDirectory root;
  write(root / "proc/meminfo", "MemAvailable:  3000 kB\n");
  write(root / "proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/x\n");
  write(root / "sys/fs/cgroup/memory/m/memory.limit_in_bytes", "2000000\n");
  write(root / "sys/fs/cgroup/memory/m/memory.usage_in_bytes", "1500000\n");
  write(root / "sys/fs/cgroup/memory/m/memory.stat",
        "total_inactive_file 100000\ntotal_active_file 7\n");
  CHECK(available_memory(root.path()) == 2000000 - 1500000 + 100007);
  // Without a limit the group says a number beyond any machine.
  write(root / "sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(available_memory(root.path()) == 3000 * 1024);
}

TEST_CASE("this machine has memory, and wanting more than it has is refused with both numbers") {
  const std::size_t available = available_memory();
  CHECK(available > (1u << 20));
  CHECK_NOTHROW(expect_memory("x wants", 1 << 20));
  try {
    expect_memory("x wants", std::size_t{1} << 55);
    FAIL("no error");
  } catch (const MemoryLimitError& error) {
    CHECK(error.wanted_bytes() == std::size_t{1} << 55);
    CHECK(error.available_bytes() < error.wanted_bytes());
    CHECK(std::string(error.what()) == "x wants 36028797018963968 bytes, " +
                                           std::to_string(error.available_bytes()) +
                                           " are available");
  }
}
