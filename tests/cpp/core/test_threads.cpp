#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/cpu_features.h"
#include "core/threads.h"
#include "pycnn/error.h"
#include "support/temporary_directory.h"

using namespace pycnn;

namespace {

// Sets or, with null, removes a variable for the time of its life.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) {
      old_ = old;
      had_ = true;
    }
    apply(value);
  }
  ~Environment() { apply(had_ ? old_.c_str() : nullptr); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  void apply(const char* value) const {
    if (value != nullptr) {
      ::setenv(name_, value, 1);
    } else {
      ::unsetenv(name_);
    }
  }
  const char* name_;
  std::string old_;
  bool had_ = false;
};

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

}  // namespace

TEST_CASE("a variable that holds no count is ignored with a warning that says so") {
  const Environment none("OMP_NUM_THREADS", nullptr);
  const int usual = [] {
    const Environment own("PYCNN_NUM_THREADS", nullptr);
    CHECK(thread_choice().warnings.empty());
    return thread_choice().chosen;
  }();
  for (const char* bad : {"abc", "0", "-1", "2.5", "1e9", "4,2", " ", "-99999999999999999999"}) {
    CAPTURE(bad);
    const Environment own("PYCNN_NUM_THREADS", bad);
    const ThreadChoice choice = thread_choice();
    CHECK(choice.chosen == usual);
    CHECK(choice.pycnn_num_threads == 0);
    REQUIRE(choice.warnings.size() == 1);
    const std::string expected = "PYCNN_NUM_THREADS is '" + std::string(bad) +
                                 "', expected a whole number from 1; it is ignored";
    CHECK(choice.warnings[0] == expected);
    std::vector<std::string> warnings;
    CHECK(resolve_threads(0, &warnings) == usual);
    CHECK(warnings == choice.warnings);
    CHECK_NOTHROW(resolve_threads(0));
  }
  const Environment own("PYCNN_NUM_THREADS", " 1 ");
  CHECK(thread_choice().chosen == 1);
  CHECK(thread_choice().reason == "PYCNN_NUM_THREADS");
}

TEST_CASE("a huge PYCNN_NUM_THREADS is clamped to what the machine grants") {
  const Environment omp("OMP_NUM_THREADS", nullptr);
  const int usual = [] {
    const Environment own("PYCNN_NUM_THREADS", nullptr);
    return thread_choice().chosen;
  }();
  for (const char* huge : {"1000000000", "99999999999999999999"}) {
    const Environment own("PYCNN_NUM_THREADS", huge);
    CHECK(thread_choice().chosen == usual);
    CHECK(thread_choice().warnings.empty());
  }
  const Environment own("PYCNN_NUM_THREADS", nullptr);
  const Environment huge("OMP_NUM_THREADS", "1000000000,2");
  CHECK(thread_choice().chosen == usual);
}

TEST_CASE("OMP_NUM_THREADS counts where it is well formed") {
  const Environment own("PYCNN_NUM_THREADS", nullptr);
  for (const char* bad : {"abc", "0", "-1", "", ",2"}) {
    CAPTURE(bad);
    const Environment omp("OMP_NUM_THREADS", bad);
    CHECK(thread_choice().omp_num_threads == 0);
    CHECK(thread_choice().warnings.size() == (*bad == '\0' ? 0 : 1));
  }
  const Environment omp("OMP_NUM_THREADS", "1,7");
  CHECK(thread_choice().omp_num_threads == 1);
  CHECK(thread_choice().chosen == 1);
  CHECK(thread_choice().reason == "OMP_NUM_THREADS");
}

TEST_CASE("the smallest source decides") {
  const Environment own("PYCNN_NUM_THREADS", "1");
  const Environment omp("OMP_NUM_THREADS", "1");
  CHECK(thread_choice().reason == "PYCNN_NUM_THREADS");
}

TEST_CASE("an explicit count is clamped to what is granted, with a warning") {
  const Environment own("PYCNN_NUM_THREADS", nullptr);
  const Environment omp("OMP_NUM_THREADS", nullptr);
  CHECK_THROWS_WITH_AS(resolve_threads(-1), doctest::Contains("threads is -1"), ArgumentError);
  CHECK(resolve_threads(0) == thread_choice().chosen);
  std::vector<std::string> warnings = {"old"};
  CHECK(resolve_threads(1, &warnings) == 1);
  CHECK(warnings.empty());
  const ThreadChoice choice = thread_choice();
  for (const std::int64_t huge : {std::int64_t{1025}, std::int64_t{1000000000}, INT64_MAX}) {
    CAPTURE(huge);
    const int granted = resolve_threads(huge, &warnings);
    CHECK(granted >= 1);
    CHECK(granted <= 1024);
    if (choice.affinity > 0) CHECK(granted <= choice.affinity);
    if (choice.cgroup_quota > 0) CHECK(granted <= choice.cgroup_quota);
    REQUIRE(warnings.size() == 1);
    const std::string number = "threads=" + std::to_string(huge);
    CHECK(warnings[0].find(number + " is more than there are; " + std::to_string(granted) +
                           " will be used") == 0);
  }
  const Environment free("PYCNN_OVERSUBSCRIBE", "1");
  CHECK(resolve_threads(1000, &warnings) == 1000);
  CHECK(warnings.empty());
  CHECK(resolve_threads(1000000000, &warnings) == 1024);
  CHECK(warnings.size() == 1);
}

TEST_CASE("an explicit count may exceed the default of the environment") {
  const Environment own("PYCNN_NUM_THREADS", "1");
  if (thread_choice().affinity >= 2 && thread_choice().cgroup_quota != 1)
    CHECK(resolve_threads(2) == 2);
}

TEST_CASE("cgroup v2 quota: the tightest group on the way up, rounded down, at least one") {
  const TemporaryDirectory root;
  CHECK(cgroup_cpus(root.path()) == 0);
  write(root / "proc/self/cgroup", "0::/a/b\n");
  CHECK(cgroup_cpus(root.path()) == 0);
  write(root / "sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(cgroup_cpus(root.path()) == 0);
  write(root / "sys/fs/cgroup/a/cpu.max", "350000 100000\n");
  CHECK(cgroup_cpus(root.path()) == 3);
  write(root / "sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
  CHECK(cgroup_cpus(root.path()) == 1);
  write(root / "sys/fs/cgroup/a/b/cpu.max", "rubbish\n");
  CHECK(cgroup_cpus(root.path()) == 3);
}

TEST_CASE("cgroup v2 quota of a container that sees the path of the host") {
  const TemporaryDirectory root;
  write(root / "proc/self/cgroup", "0::/docker/0123\n");
  write(root / "sys/fs/cgroup/cpu.max", "200000 100000\n");
  CHECK(cgroup_cpus(root.path()) == 2);
}

TEST_CASE("cgroup v1 quota") {
  const TemporaryDirectory root;
  write(root / "proc/self/cgroup", "5:memory:/m\n4:cpu,cpuacct:/x\n1:name=systemd:/\n");
  write(root / "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
  write(root / "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
  CHECK(cgroup_cpus(root.path()) == 0);
  write(root / "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "400000\n");
  CHECK(cgroup_cpus(root.path()) == 4);
}

TEST_CASE("physical cores are not counted twice") {
  const TemporaryDirectory root;
  CHECK(physical_cores(root.path()) == 0);
  const int cpus = thread_choice().affinity;
  for (int cpu = 0; cpu < 1024; ++cpu) {
    const std::string topology = "sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    write(root / (topology + "physical_package_id"), "0\n");
    write(root / (topology + "core_id"), "7\n");
  }
  if (cpus > 0) CHECK(physical_cores(root.path()) == 1);
}

TEST_CASE("instruction sets") {
  const Environment cap("PYCNN_MAX_ISA", nullptr);
  CHECK(parse_isa("auto") == best_isa());
  CHECK(parse_isa("baseline") == Isa::kBaseline);
  CHECK_THROWS_AS(parse_isa("sse9"), ArgumentError);
  CHECK_THROWS_AS(parse_isa(""), ArgumentError);
  CHECK_FALSE(cpu_model_name().empty());
  {
    const Environment lower("PYCNN_MAX_ISA", "baseline");
    CHECK(best_isa() == Isa::kBaseline);
    CHECK_THROWS_AS(parse_isa("avx2"), DeviceError);
  }
  const Environment unknown("PYCNN_MAX_ISA", "AVX-2");
  CHECK_THROWS_AS(best_isa(), ArgumentError);
  CHECK_THROWS_WITH(best_isa(), "PYCNN_MAX_ISA is 'AVX-2', accepted are baseline, avx2, avx512");
}
