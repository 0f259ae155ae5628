#include "core/cgroup.h"

#include <charconv>
#include <fstream>

namespace pycnn {
namespace {

// Inside a container the path may name a directory of the host that is not there; the mount point
// then is the container's own group.
void climb(const std::string& mount, std::string path, bool v1,
           const std::function<void(const std::string&, bool)>& visit) {
  while (true) {
    while (!path.empty() && path.back() == '/') path.pop_back();
    visit(mount + path, v1);
    if (path.empty()) return;
    const auto slash = path.rfind('/');
    path.resize(slash == std::string::npos ? 0 : slash);
  }
}

}  // namespace

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

bool next_line(std::ifstream& file, std::string& line) {
  try {
    file.exceptions(std::ios_base::badbit);
    return static_cast<bool>(std::getline(file, line));
  } catch (const std::ios_base::failure&) {
    return false;
  }
}

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!next_line(file, line)) return std::nullopt;
  return line;
}

std::optional<std::int64_t> read_int_file(const std::string& path) {
  const auto line = read_line(path);
  return line ? read_int(*line) : std::nullopt;
}

void for_each_cgroup(const std::string& root, std::string_view controller,
                     const std::function<void(const std::string& directory, bool v1)>& visit) {
  const std::string wanted = "," + std::string(controller) + ",";
  const std::string mounts = root + "/sys/fs/cgroup";
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; next_line(groups, line);) {
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.find("..") != std::string::npos) continue;
    if (controllers.empty()) {
      climb(mounts, path, false, visit);
      climb(mounts + "/unified", path, false, visit);
    } else if (("," + controllers + ",").find(wanted) != std::string::npos) {
      climb(mounts + "/" + controllers, path, true, visit);
      climb(mounts + "/" + std::string(controller), path, true, visit);
    }
  }
}

}  // namespace pycnn
