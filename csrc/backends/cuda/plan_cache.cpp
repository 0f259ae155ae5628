#include "backends/cuda/plan_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <utility>

namespace pycnn::cuda {
namespace {

constexpr const char* kHeader = "pycnn cuda plans 1";

// FNV-1a (Fowler, Noll, Vo).
std::string checksum_of(const std::string& text) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

// Tabs and line ends, which separate the parts, within them.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == '\\')
      result += "\\\\";
    else if (c == '\n')
      result += "\\n";
    else if (c == '\t')
      result += "\\t";
    else
      result += c;
  }
  return result;
}

std::string unescaped(const std::string& text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    const char c = text[++i];
    result += c == 'n' ? '\n' : c == 't' ? '\t' : c;
  }
  return result;
}

std::string line_of(const std::string& key, const std::string& value) {
  const std::string line = escaped(key) + '\t' + escaped(value);
  return checksum_of(line) + '\t' + line + '\n';
}

void make_folders(const std::string& file) {
  for (std::size_t slash = file.find('/', 1); slash != std::string::npos;
       slash = file.find('/', slash + 1))
    (void)mkdir(file.substr(0, slash).c_str(), 0777);
}

const char* named(const char* variable) {
  const char* const value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

}  // namespace

PlanCache::PlanCache(std::string file) : file_(std::move(file)) {}

std::optional<PlanCache::Entries> PlanCache::read() {
  std::ifstream stream(file_);
  Entries entries;
  is_whole_ = false;
  if (!stream) return entries;
  std::string line;
  if (!std::getline(stream, line) || line != kHeader) return std::nullopt;
  while (std::getline(stream, line)) {
    if (stream.eof()) return entries;  // the last line is cut off, or just being written
    const std::size_t first = line.find('\t');
    const std::size_t second = first == std::string::npos ? first : line.find('\t', first + 1);
    if (second == std::string::npos) return std::nullopt;
    if (line.substr(0, first) != checksum_of(line.substr(first + 1))) return std::nullopt;
    entries[unescaped(line.substr(first + 1, second - first - 1))] =
        unescaped(line.substr(second + 1));
  }
  is_whole_ = true;
  return entries;
}

// With one call, so that lines of several processes lie one behind another.
bool PlanCache::append(const std::string& key, const std::string& value) const {
  const int file = ::open(file_.c_str(), O_RDWR | O_APPEND | O_CLOEXEC);
  if (file < 0) return false;
  const std::string line = line_of(key, value);
  // Nobody emptied it, and nobody who was killed left a line without an end.
  const off_t end = ::lseek(file, 0, SEEK_END);
  char last = 0;
  const bool written = end > 0 && ::pread(file, &last, 1, end - 1) == 1 && last == '\n' &&
                       ::write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  return ::close(file) == 0 && written;
}

void PlanCache::write(const Entries& entries) {
  make_folders(file_);
  const std::string beside = file_ + "." + std::to_string(getpid()) + ".part";
  {
    std::ofstream stream(beside, std::ios::trunc);
    stream << kHeader << '\n';
    for (const auto& [key, value] : entries) stream << line_of(key, value);
    stream.close();
    if (!stream) {
      (void)std::remove(beside.c_str());
      return;
    }
  }
  is_whole_ = std::rename(beside.c_str(), file_.c_str()) == 0;
  if (!is_whole_) (void)std::remove(beside.c_str());
}

std::optional<std::string> PlanCache::find(const std::string& key) {
  const std::lock_guard lock(mutex_);
  if (!loaded_ && !file_.empty()) {
    std::optional<Entries> found = read();
    if (!found)
      std::fprintf(stderr, "pycnn: '%s' is damaged and is ignored: GPU kernels are timed anew\n",
                   file_.c_str());
    if (found) entries_.merge(*found);  // what was put meanwhile stays
  }
  loaded_ = true;
  for (const Entries* const entries : {&entries_, &for_now_})
    if (const auto entry = entries->find(key); entry != entries->end()) return entry->second;
  return std::nullopt;
}

void PlanCache::put_for_now(const std::string& key, const std::string& value) {
  const std::lock_guard lock(mutex_);
  for_now_[key] = value;
}

void PlanCache::put(const std::string& key, const std::string& value) {
  const std::lock_guard lock(mutex_);
  entries_[key] = value;
  for_now_.erase(key);
  if (file_.empty() || (is_whole_ && append(key, value))) return;
  Entries all = read().value_or(Entries{});
  for (const auto& [own_key, own_value] : entries_) all[own_key] = own_value;
  write(all);
}

std::string plan_cache_file() {
  constexpr const char* kName = "/cuda_plans.txt";
  if (const char* const file = named("PYCNN_CUDA_PLANS"))
    return std::string(file) == "off" ? "" : file;
  if (const char* const folder = named("PYCNN_CACHE")) return std::string(folder) + kName;
  if (const char* const folder = named("XDG_CACHE_HOME"))
    return std::string(folder) + "/pycnn" + kName;
  if (const char* const home = named("HOME")) return std::string(home) + "/.cache/pycnn" + kName;
  return {};
}

PlanCache& plan_cache() {
  static PlanCache cache(plan_cache_file());
  return cache;
}

}  // namespace pycnn::cuda
