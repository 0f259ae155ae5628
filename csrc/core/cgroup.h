#pragma once
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

// The control groups of this process, which may grant it less than the machine has. `root` is put
// before every path that is read ("" for the real system), so that tests can describe a machine
// with a few files.
namespace pycnn {

// A whole number and nothing else but blanks around it.
std::optional<std::int64_t> read_int(std::string_view text) noexcept;
// The next line; false at the end and where reading fails. Left to itself, getline takes a lack of
// memory for the end, and a limit would go unseen.
bool next_line(std::ifstream& file, std::string& line);
std::optional<std::string> read_line(const std::string& path);
std::optional<std::int64_t> read_int_file(const std::string& path);

// Calls `visit` with the directory of each group that limits this process in `controller` ("cpu",
// "memory"), and whether it speaks the first version of the interface. A group may use no more than
// the groups above it, so each level up to the mount point is visited.
void for_each_cgroup(const std::string& root, std::string_view controller,
                     const std::function<void(const std::string& directory, bool v1)>& visit);

}  // namespace pycnn
