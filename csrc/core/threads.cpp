#include "core/threads.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

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

std::optional<std::int64_t> read_int(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\n'))
    text.remove_suffix(1);
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || result.ec != std::errc() || result.ptr != text.data() + text.size())
    return std::nullopt;
  return value;
}

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return std::nullopt;
  return line;
}

std::optional<std::int64_t> read_int_file(const std::string& path) {
  const auto line = read_line(path);
  return line ? read_int(*line) : std::nullopt;
}

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

// A group may use no more than the groups above it, so each level up to the mount point is asked.
// Inside a container the path may name a directory of the host that is not there; the mount point
// then is the container's own group.
int smallest_on_the_way_up(const std::string& mount, std::string path,
                           int (*quota)(const std::string&)) {
  int smallest = 0;
  while (true) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    take_smaller(smallest, quota(mount + path));
    if (path.empty()) return smallest;
    const auto slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash);
  }
}

int environment_count(const char* name, bool strict) {
  const char* const text = std::getenv(name);
  if (text == nullptr || *text == '\0') return 0;
  std::string_view first = text;
  if (!strict) first = first.substr(0, first.find(','));  // OpenMP: one count per nesting level
  const auto value = read_int(first);
  if (value && *value >= 1) return static_cast<int>(std::min<std::int64_t>(*value, kMaxThreads));
  if (!strict) return 0;
  throw ArgumentError(std::string(name) + " is '" + std::string(text).substr(0, 64) +
                      "', expected a whole number from 1");
}

}  // namespace

int cgroup_cpus(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  int smallest = 0;
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.find("..") != std::string::npos) continue;
    const std::string mounts = root + "/sys/fs/cgroup";
    if (controllers.empty()) {
      take_smaller(smallest, smallest_on_the_way_up(mounts, path, quota_v2));
      take_smaller(smallest, smallest_on_the_way_up(mounts + "/unified", path, quota_v2));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      take_smaller(smallest, smallest_on_the_way_up(mounts + "/" + controllers, path, quota_v1));
      take_smaller(smallest, smallest_on_the_way_up(mounts + "/cpu", path, quota_v1));
    }
  }
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
  choice.pycnn_num_threads = environment_count("PYCNN_NUM_THREADS", true);
  choice.omp_num_threads = environment_count("OMP_NUM_THREADS", false);
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

int resolve_threads(int requested) {
  if (requested < 0 || requested > kMaxThreads) {
    throw ArgumentError("threads is " + std::to_string(requested) + ", expected 0 (automatic) to " +
                        std::to_string(kMaxThreads));
  }
  const ThreadChoice choice = thread_choice();
  if (requested == 0) return choice.chosen;
  // Tests compare thread counts beyond what the machine has.
  const char* oversubscribe = std::getenv("PYCNN_OVERSUBSCRIBE");
  if (oversubscribe != nullptr && std::string_view(oversubscribe) == "1") return requested;
  int allowed = requested;
  take_smaller(allowed, choice.affinity);
  take_smaller(allowed, choice.cgroup_quota);
  return allowed;
}

}  // namespace pycnn
