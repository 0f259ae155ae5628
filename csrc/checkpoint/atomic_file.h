#pragma once
#include <sys/types.h>

#include <cstddef>
#include <string>

#include "pycnn/export.h"

namespace pycnn {

// The system calls that saving and loading make, so that tests can let any one of them fail.
struct FileOps {
  int (*open)(const char* path, int flags, mode_t mode);
  ssize_t (*write)(int fd, const void* data, std::size_t bytes);
  ssize_t (*pread)(int fd, void* data, std::size_t bytes, off_t offset);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*rename)(const char* from, const char* to);
};
PYCNN_API FileOps& file_ops() noexcept;

// Throws FileError "<action> '<path>': <system's text>".
[[noreturn]] PYCNN_API void throw_file_error(const char* action, const std::string& path, int code);

// Replaces a file as a whole. What is written goes to `<path>.tmp.<pid>.<n>` in the same directory;
// `commit` flushes it to the disk and renames it. Without commit, or when that fails, the
// destructor removes it and the old file stays.
//
// The temporary file is locked (flock) while it is being written. Those of this path whose writer
// is gone are removed by the constructor.
class PYCNN_API AtomicFile {
 public:
  // Throws FileError, as do all functions here.
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void commit();

 private:
  void create();
  [[noreturn]] void fail(int code) const;

  std::string given_;  // for messages
  std::string path_;   // links resolved
  std::string directory_;
  std::string temporary_;  // empty when there is none
  int fd_ = -1;
  int lock_ =
      -1;  // second descriptor of the temporary file: keeps the lock between close and rename
};

}  // namespace pycnn
