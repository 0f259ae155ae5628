#include "core/threads.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/cgroup.h"
#include "core/cpu_features.h"
#include "pycnn/error.h"

#if defined(PYCNN_WITH_OPENMP)
#include <omp.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace pycnn {
namespace {

constexpr int kMaxThreads = 1024;

// The processors that this thread may run on, empty where that cannot be asked.
std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(PYCNN_WITH_OPENMP)
  // Under OMP_PROC_BIND the first thread is tied to one place; the team gets all of them.
  for (int place = 0; place < omp_get_num_places(); ++place) {
    const auto first = cpus.size();
    cpus.resize(first + static_cast<std::size_t>(omp_get_place_num_procs(place)));
    omp_get_place_proc_ids(place, cpus.data() + first);
  }
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
  if (!cpus.empty()) return cpus;
#endif
#if defined(__linux__)
  // Machines with more processors than cpu_set_t holds refuse the small set.
  for (int capacity = CPU_SETSIZE; capacity <= 64 * CPU_SETSIZE; capacity *= 4) {
    cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(capacity));
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(capacity));
    CPU_ZERO_S(bytes, set);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; known && cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (known) break;
  }
#endif
  return cpus;
}

int online_cpus() noexcept {
#if defined(__linux__)
  return static_cast<int>(std::clamp<long>(::sysconf(_SC_NPROCESSORS_ONLN), 0, kMaxThreads));
#else
  return static_cast<int>(std::min<unsigned>(std::thread::hardware_concurrency(), kMaxThreads));
#endif
}

// The count that a text names, at most kMaxThreads; 0 for what is none.
int read_count(std::string_view text) noexcept {
  if (const auto value = read_int(text))
    return static_cast<int>(std::clamp<std::int64_t>(*value, 0, kMaxThreads));
  // Too long for an integer is still a number.
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  const bool digits = text.find_first_not_of("0123456789") == std::string_view::npos;
  return digits && text.size() > 18 ? kMaxThreads : 0;
}

int whole_cpus(std::int64_t quota, std::int64_t period) noexcept {
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::clamp<std::int64_t>(quota / period, 1, kMaxThreads));
}

void take_smaller(int& smallest, int value) noexcept {
  if (value > 0 && (smallest == 0 || value < smallest)) smallest = value;
}

int quota_v2(const std::string& directory) {
  const auto line = read_line(directory + "/cpu.max");
  if (!line) return 0;
  std::istringstream words(*line);
  std::string quota, period;
  words >> quota >> period;
  return whole_cpus(read_int(quota).value_or(0),
                    read_int(period).value_or(0));  // "max" reads as no number
}

int quota_v1(const std::string& directory) {
  return whole_cpus(read_int_file(directory + "/cpu.cfs_quota_us").value_or(0),
                    read_int_file(directory + "/cpu.cfs_period_us").value_or(0));
}

// 0 where the variable says nothing or nonsense, the latter with a warning.
int environment_count(const char* name, std::vector<std::string>& warnings) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return 0;
  std::string_view first = text;
  // OpenMP: one count for each level of nesting.
  if (std::string_view(name) == "OMP_NUM_THREADS") first = first.substr(0, first.find(','));
  const auto value = read_count(first);
  if (value >= 1) return value;
  warnings.push_back(std::string(name) + " is '" + std::string(text).substr(0, 64) +
                     "', expected a whole number from 1; it is ignored");
  return 0;
}

}  // namespace

int cgroup_cpus(const std::string& root) {
  int smallest = 0;
  for_each_cgroup(root, "cpu", [&](const std::string& directory, bool v1) {
    take_smaller(smallest, v1 ? quota_v1(directory) : quota_v2(directory));
  });
  return smallest;
}

int physical_cores(const std::string& root) {
  std::set<std::pair<std::int64_t, std::int64_t>> cores;
  for (const int cpu : allowed_cpus()) {
    const std::string topology =
        root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const auto package = read_int_file(topology + "physical_package_id");
    const auto core = read_int_file(topology + "core_id");
    if (!package || !core) return 0;
    cores.emplace(*package, *core);
  }
  return static_cast<int>(std::min<std::size_t>(cores.size(), kMaxThreads));
}

ThreadChoice thread_choice() {
  ThreadChoice choice;
  choice.pycnn_num_threads = environment_count("PYCNN_NUM_THREADS", choice.warnings);
  choice.omp_num_threads = environment_count("OMP_NUM_THREADS", choice.warnings);
  choice.affinity = static_cast<int>(std::min<std::size_t>(allowed_cpus().size(), kMaxThreads));
  choice.cgroup_quota = cgroup_cpus("");
  choice.physical_cores = physical_cores("");

  // Equal counts: what somebody set on purpose explains more than what the machine has.
  const int online = online_cpus();
  int smallest = 0;
  const auto consider = [&](int count, const char* reason) {
    if (count == 0 || (smallest != 0 && count >= smallest)) return;
    smallest = count;
    choice.reason = reason;
  };
  consider(choice.pycnn_num_threads, "PYCNN_NUM_THREADS");
  consider(choice.omp_num_threads, "OMP_NUM_THREADS");
  consider(choice.cgroup_quota, "cgroup quota");
  if (choice.affinity < online) consider(choice.affinity, "CPU affinity");
  consider(choice.physical_cores, "physical cores");
  consider(online, "processors");
  choice.chosen = std::max(smallest, 1);
  if (smallest == 0) choice.reason = "nothing known";
  return choice;
}

int resolve_threads(std::int64_t requested, std::vector<std::string>* warnings) {
  if (requested < 0) {
    throw ArgumentError("threads is " + std::to_string(requested) +
                        ", expected a count from 1, or 0 to choose");
  }
  const ThreadChoice choice = thread_choice();
  if (warnings != nullptr) *warnings = choice.warnings;
  if (requested == 0) return choice.chosen;
  int allowed = kMaxThreads;
  const char* reason = "the most that there may be";
  // Tests compare thread counts beyond what the machine has.
  const char* oversubscribe = std::getenv("PYCNN_OVERSUBSCRIBE");
  if (oversubscribe == nullptr || std::string_view(oversubscribe) != "1") {
    const auto limit = [&](int count, const char* why) {
      if (count == 0 || count >= allowed) return;
      allowed = count;
      reason = why;
    };
    limit(choice.cgroup_quota, "cgroup quota");
    limit(choice.affinity, "processors that may be used");
  }
  if (requested <= allowed) return static_cast<int>(requested);
  if (warnings != nullptr)
    warnings->push_back("threads=" + std::to_string(requested) + " is more than there are; " +
                        std::to_string(allowed) + " will be used (" + reason + ")");
  return allowed;
}

}  // namespace pycnn
