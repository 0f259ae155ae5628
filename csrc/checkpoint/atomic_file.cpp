#include "checkpoint/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>

#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr std::size_t kMaxFileName = 255;
constexpr std::size_t kSuffixRoom = 48;  // ".tmp.", two numbers and the dot between them
constexpr std::size_t kMaxWrite = std::size_t{1} << 30;
constexpr int kMaxTries = 1000;

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// What the names of all temporary files of a path begin with. Long names are cut so that the whole
// fits.
std::string temporary_prefix(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  return name.substr(0, kMaxFileName - kSuffixRoom) + ".tmp.";
}

// The pid in "<pid>.<n>"; nothing for any other text.
std::optional<pid_t> writer_of(std::string_view suffix) noexcept {
  const auto dot = suffix.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  pid_t pid = 0;
  unsigned long number = 0;
  const std::string_view digits = suffix.substr(dot + 1);
  const auto first = std::from_chars(suffix.data(), suffix.data() + dot, pid);
  const auto second = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  const bool whole = first.ec == std::errc() && first.ptr == suffix.data() + dot &&
                     second.ec == std::errc() && second.ptr == digits.data() + digits.size();
  if (!whole || pid <= 0) return std::nullopt;
  return pid;
}

// A pid alone does not tell whether the writer lives: in containers numbers repeat, and another
// container's processes are not visible. So the lock decides; the pid only saves the attempt.
void remove_stale(const std::string& directory, const std::string& prefix) noexcept {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(directory.c_str()), ::closedir);
  if (!entries) return;
  while (const dirent* const entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name.substr(0, prefix.size()) != prefix) continue;
    const auto pid = writer_of(name.substr(prefix.size()));
    if (!pid || (*pid != ::getpid() && (::kill(*pid, 0) == 0 || errno != ESRCH))) continue;
    const int fd = ::openat(::dirfd(entries.get()), entry->d_name,
                            O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    struct stat status {};
    if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
        ::flock(fd, LOCK_EX | LOCK_NB) == 0) {
      ::unlinkat(::dirfd(entries.get()), entry->d_name, 0);
    }
    ::close(fd);
  }
}

}  // namespace

FileOps& file_ops() noexcept {
  static FileOps ops = {
      [](const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); },
      [](int fd, const void* data, std::size_t bytes) { return ::write(fd, data, bytes); },
      [](int fd, void* data, std::size_t bytes, off_t offset) {
        return ::pread(fd, data, bytes, offset);
      },
      [](int fd) { return ::fsync(fd); },
      [](int fd) { return ::close(fd); },
      [](const char* from, const char* to) { return ::rename(from, to); },
  };
  return ops;
}

void throw_file_error(const char* action, const std::string& path, int code) {
  throw FileError(std::string(action) + " '" + path + "': " + std::generic_category().message(code),
                  path, code);
}

void AtomicFile::fail(int code) const { throw_file_error("save", given_, code); }

AtomicFile::AtomicFile(const std::string& path) : given_(path), path_(path) {
  if (path.empty()) fail(ENOENT);
  if (path.find('\0') != std::string::npos) fail(EINVAL);
  struct stat status {};
  mode_t mode = 0;
  if (::stat(path.c_str(), &status) == 0) {
    // Renaming over a device or pipe would replace it by a file.
    if (S_ISDIR(status.st_mode)) fail(EISDIR);
    if (!S_ISREG(status.st_mode)) fail(EINVAL);
    mode = status.st_mode & 07777;
    const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr),
                                                          std::free);
    if (!resolved) fail(errno);
    path_ = resolved.get();
  } else if (errno != ENOENT) {
    fail(errno);
  }
  if (path_.back() == '/') fail(EISDIR);
  directory_ = directory_of(path_);
  remove_stale(directory_, temporary_prefix(path_));
  create();
  if (mode != 0)
    (void)::fchmod(fd_, mode);  // a replaced file keeps its permissions where that is allowed
}

void AtomicFile::create() {
  static std::atomic<unsigned long> count{0};
  const std::string stem = (directory_ == "/" ? "" : directory_) + "/" + temporary_prefix(path_);
  for (int attempt = 0; attempt < kMaxTries; ++attempt) {
    std::string name = stem + std::to_string(::getpid()) + "." + std::to_string(count.fetch_add(1));
    const int fd = file_ops().open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
      if (errno == EEXIST || errno == EINTR) continue;
      fail(errno);
    }
    fd_ = fd;
    temporary_ = std::move(name);
    // remove_stale may have found the file before it was locked. Then it has removed it, or holds
    // the lock and is about to.
    struct stat status {};
    const bool taken = ::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!taken && ::fstat(fd_, &status) == 0 && status.st_nlink > 0) {
      lock_ = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
      return;
    }
    (void)::unlink(temporary_.c_str());
    (void)::close(fd_);
    fd_ = -1;
    temporary_.clear();
  }
  fail(EEXIST);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) (void)::unlink(temporary_.c_str());
  if (fd_ >= 0) (void)::close(fd_);
  if (lock_ >= 0) (void)::close(lock_);
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const auto* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = file_ops().write(fd_, next, std::min(bytes, kMaxWrite));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(written < 0 ? errno : EIO);
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  const auto flush = [](int fd) {
    int result = 0;
    do {
      result = file_ops().fsync(fd);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
  };
  if (const int code = flush(fd_)) fail(code);
  // Network file systems report some failed writes only here. The descriptor is gone whatever the
  // result.
  const int closed = file_ops().close(fd_);
  const int code = errno;
  fd_ = -1;
  if (closed != 0 && code != EINTR) fail(code);
  if (file_ops().rename(temporary_.c_str(), path_.c_str()) != 0) fail(errno);
  temporary_.clear();

  // The new name is safe only when the directory is on the disk. Some file systems cannot be asked
  // for that.
  int directory = -1;
  do {
    directory = file_ops().open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  } while (directory < 0 && errno == EINTR);
  if (directory < 0) {
    if (errno == EACCES) return;  // a directory may be writable but not readable
    fail(errno);
  }
  const int flushed = flush(directory);
  (void)file_ops().close(directory);
  if (flushed != 0 && flushed != EINVAL && flushed != ENOTSUP) fail(flushed);
}

}  // namespace pycnn
