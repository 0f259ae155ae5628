#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/atomic_file.h"
#include "pycnn/checkpoint.h"
#include "pycnn/error.h"
#include "support/temporary_directory.h"

using namespace pycnn;

namespace {

Checkpoint checkpoint_of(std::uint8_t value, std::int64_t size = 100000) {
  Checkpoint checkpoint;
  for (const char* name : {"a", "b", "c"}) {
    Tensor tensor({{size}, DType::kUInt8});
    std::memset(tensor.mutable_raw(), value, tensor.bytes());
    checkpoint.tensors[name] = tensor;
  }
  return checkpoint;
}

// The value that fills a whole checkpoint, -1 when the file is not one of checkpoint_of.
int value_in(const std::string& path) {
  const Checkpoint checkpoint = read_checkpoint(path);
  const int value = checkpoint.tensors.at("a").data<std::uint8_t>()[0];
  for (const auto& [name, tensor] : checkpoint.tensors) {
    for (std::int64_t i = 0; i < tensor.size(); ++i) {
      if (tensor.data<std::uint8_t>()[i] != value) return -1;
    }
  }
  return value;
}

std::size_t entries(const TemporaryDirectory& directory) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(directory.path()), {}));
}

// Lets the n-th system call of a save fail in a given way. One at a time.
enum class Fault { kError, kShort, kInterrupt, kKill };
struct Injection {
  FileOps real = file_ops();
  int countdown = 0;
  int calls = 0;
  int code = 0;
  Fault fault = Fault::kError;

  bool due() {
    ++calls;
    return countdown > 0 && --countdown == 0;
  }
};
Injection injection;

// What a call returns instead of doing its work; true when the fault was placed.
bool strike() {
  if (!injection.due()) return false;
  if (injection.fault == Fault::kKill) ::raise(SIGKILL);
  errno = injection.fault == Fault::kInterrupt ? EINTR : injection.code;
  return true;
}

class Injected {
 public:
  Injected(int nth, Fault fault, int code) {
    injection.countdown = nth;
    injection.calls = 0;
    injection.fault = fault;
    injection.code = code;
    FileOps& ops = file_ops();
    ops.open = [](const char* path, int flags, mode_t mode) {
      return strike() ? -1 : injection.real.open(path, flags, mode);
    };
    ops.write = [](int fd, const void* data, std::size_t bytes) -> ssize_t {
      if (injection.due()) {
        if (injection.fault == Fault::kKill) {
          // In the middle of the data.
          (void)!injection.real.write(fd, data, bytes / 2);
          ::raise(SIGKILL);
        }
        if (injection.fault == Fault::kShort)
          return injection.real.write(fd, data, std::min<std::size_t>(bytes, 7));
        errno = injection.fault == Fault::kInterrupt ? EINTR : injection.code;
        return -1;
      }
      return injection.real.write(fd, data, bytes);
    };
    ops.pread = [](int fd, void* data, std::size_t bytes, off_t offset) -> ssize_t {
      if (injection.due()) {
        if (injection.fault == Fault::kShort) {
          return injection.real.pread(fd, data, std::min<std::size_t>(bytes, 3), offset);
        }
        errno = injection.fault == Fault::kInterrupt ? EINTR : injection.code;
        return -1;
      }
      return injection.real.pread(fd, data, bytes, offset);
    };
    ops.fsync = [](int fd) { return strike() ? -1 : injection.real.fsync(fd); };
    ops.close = [](int fd) {
      // As the system does it: the descriptor is closed even when an error is told.
      const int result = injection.real.close(fd);
      return strike() ? -1 : result;
    };
    ops.rename = [](const char* from, const char* to) {
      const bool interrupt =
          injection.fault == Fault::kInterrupt || injection.fault == Fault::kShort;
      if (interrupt) return injection.real.rename(from, to);  // rename knows neither
      return strike() ? -1 : injection.real.rename(from, to);
    };
  }
  ~Injected() { file_ops() = injection.real; }
  Injected(const Injected&) = delete;
  Injected& operator=(const Injected&) = delete;
};

}  // namespace

TEST_CASE("whichever file operation fails, a save leaves the old or the new checkpoint") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  for (const int code : {ENOSPC, EIO, EDQUOT}) {
    for (int nth = 1;; ++nth) {
      REQUIRE(nth < 100);
      CAPTURE(code);
      CAPTURE(nth);
      write_checkpoint(path, checkpoint_of(1));
      bool failed = false;
      bool placed = true;
      {
        const Injected injected(nth, Fault::kError, code);
        try {
          write_checkpoint(path, checkpoint_of(2));
        } catch (const FileError& error) {
          failed = true;
          CHECK(error.code() == code);
          CHECK(error.path() == path);
        }
        placed = injection.calls >= nth;
      }
      const int value = value_in(path);
      if (failed) {
        CHECK((value == 1 || value == 2));
      } else {
        CHECK(value == 2);
      }
      CHECK(entries(directory) == 1);
      if (!placed) {
        CHECK_FALSE(failed);
        break;
      }
    }
  }
}

TEST_CASE("interrupted and short file operations are continued") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  for (const Fault fault : {Fault::kInterrupt, Fault::kShort}) {
    for (int nth = 1; nth < 12; ++nth) {
      CAPTURE(nth);
      const std::uint8_t value = static_cast<std::uint8_t>(nth);
      {
        const Injected injected(nth, fault, EINTR);
        // A short result has a meaning for reads and writes only: the others report it as an
        // interruption.
        write_checkpoint(path, checkpoint_of(value));
      }
      CHECK(value_in(path) == value);
      const Injected injected(nth, fault, EINTR);
      CHECK(value_in(path) == value);
    }
  }
}

TEST_CASE("errors while reading carry the path") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  write_checkpoint(path, checkpoint_of(1));
  for (int nth = 1; nth <= 3; ++nth) {
    const Injected injected(nth, Fault::kError, EIO);
    try {
      read_checkpoint(path);
      FAIL("read although an operation failed");
    } catch (const FileError& error) {
      CHECK(error.code() == EIO);
      CHECK(error.path() == path);
    }
  }
}

TEST_CASE(
    "killed at any operation, a save leaves the old or the new checkpoint, and the next one cleans "
    "up") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  bool left_one = false;
  for (int nth = 1; nth < 100; ++nth) {
    CAPTURE(nth);
    write_checkpoint(path, checkpoint_of(1));
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const Injected injected(nth, Fault::kKill, 0);
      write_checkpoint(path, checkpoint_of(2));
      ::_exit(0);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    const int value = value_in(path);
    CHECK((value == 1 || value == 2));
    left_one = left_one || entries(directory) > 1;
    if (WIFEXITED(status)) {
      CHECK(value == 2);
      break;
    }
    write_checkpoint(path, checkpoint_of(3));
    CHECK(entries(directory) == 1);
  }
  CHECK(left_one);
}

TEST_CASE("killed at any time, a save leaves a whole checkpoint") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  write_checkpoint(path, checkpoint_of(0));
  for (int round = 0; round < 12; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int i = 0;; ++i)
        write_checkpoint(path, checkpoint_of(static_cast<std::uint8_t>(i % 250)));
    }
    ::usleep(static_cast<useconds_t>(3000 + 1700 * round));
    ::kill(child, SIGKILL);
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(value_in(path) >= 0);
  }
  write_checkpoint(path, checkpoint_of(9));
  CHECK(value_in(path) == 9);
  CHECK(entries(directory) == 1);
}

TEST_CASE("only temporary files of dead writers of the same path are removed") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  const auto touch = [&](const std::string& name) { std::ofstream(directory / name) << "x"; };
  const std::string me = std::to_string(::getpid());
  touch("model.tmp." + me + ".999999");  // an earlier process of our number
  touch("model.tmp.2147483000.0");       // nobody
  touch("model.tmp.1.0");                // lives
  touch("model.tmp.notes");
  touch("model.tmp.12");
  touch("model.tmp.12.5.bak");
  touch("model2.tmp.2147483000.0");
  std::filesystem::create_directory(directory / "model.tmp.2147483000.1");
  std::filesystem::create_symlink("/dev/null", directory / "model.tmp.2147483000.2");
  write_checkpoint(path, checkpoint_of(1, 10));
  CHECK_FALSE(std::filesystem::exists(directory / ("model.tmp." + me + ".999999")));
  CHECK_FALSE(std::filesystem::exists(directory / "model.tmp.2147483000.0"));
  CHECK(entries(directory) == 8);
}

TEST_CASE("a writer's temporary file is safe from other writers") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  AtomicFile slow(path);
  slow.write("old", 3);
  {
    AtomicFile fast(path);
    fast.write("new", 3);
    fast.commit();
  }
  CHECK(entries(directory) == 2);
  slow.commit();
  CHECK(entries(directory) == 1);
  std::string text;
  std::ifstream(path) >> text;
  CHECK(text == "old");  // the last to finish wins, whole
}

// The descriptor of one who found a temporary file before its writer had locked it.
int finder = -1;
std::string found;

TEST_CASE("a temporary file that another writer is about to remove is given up") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  const FileOps real = file_ops();
  file_ops().open = [](const char* name, int flags, mode_t mode) {
    const int fd = ::open(name, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0 && finder < 0) {
      finder = ::open(name, O_RDONLY | O_CLOEXEC);
      CHECK(::flock(finder, LOCK_EX | LOCK_NB) == 0);
      found = name;
    }
    return fd;
  };
  {
    AtomicFile file(path);
    file_ops() = real;
    REQUIRE(finder >= 0);
    ::unlink(found.c_str());
    ::close(finder);
    file.write("whole", 5);
    CHECK_NOTHROW(file.commit());
  }
  CHECK(std::filesystem::file_size(path) == 5);
  CHECK(entries(directory) == 1);
}

TEST_CASE("several threads and processes may save to one path") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  write_checkpoint(path, checkpoint_of(0));
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    try {
      for (int i = 0; i < 20; ++i) write_checkpoint(path, checkpoint_of(100));
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  for (int t = 1; t <= 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        try {
          write_checkpoint(path, checkpoint_of(static_cast<std::uint8_t>(t)));
          if (value_in(path) < 0) bad.fetch_add(1);
        } catch (const Error&) {
          bad.fetch_add(1);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(bad.load() == 0);
  CHECK(entries(directory) == 1);
}

TEST_CASE("a full disk is reported and leaves the old file") {
  const TemporaryDirectory directory;
  const std::string path = directory / "model";
  write_checkpoint(path, checkpoint_of(1));
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limits{100000, 100000};
    ::setrlimit(RLIMIT_FSIZE, &limits);
    try {
      write_checkpoint(path, checkpoint_of(2));
    } catch (const FileError& error) {
      ::_exit(error.code() == EFBIG && error.path() == path ? 0 : 2);
    }
    ::_exit(1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(value_in(path) == 1);
  CHECK(entries(directory) == 1);
}

TEST_CASE("places that cannot be written say why") {
  const TemporaryDirectory directory;
  const auto code_of = [](const std::string& path) {
    try {
      write_checkpoint(path, checkpoint_of(1, 10));
    } catch (const FileError& error) {
      CHECK(error.path() == path);
      CHECK(std::string(error.what()).find("save '" + path + "': ") == 0);
      return error.code();
    }
    return 0;
  };
  CHECK(code_of(directory.path()) == EISDIR);
  CHECK(code_of(directory.path() + "/") == EISDIR);
  CHECK(code_of(directory / "none/model") == ENOENT);
  CHECK(code_of(directory.path() + "/none/") != 0);
  CHECK(code_of("") == ENOENT);
  CHECK(code_of(directory / std::string(300, 'x')) == ENAMETOOLONG);
  CHECK(code_of("/dev/null") == EINVAL);
  CHECK(code_of("/proc/model") != 0);
  CHECK(entries(directory) == 0);
  // A name as long as the system allows leaves no room for a suffix, and works.
  const std::string longest = directory / std::string(255, 'x');
  CHECK(code_of(longest) == 0);
  CHECK(value_in(longest) == 1);
}

TEST_CASE("a read-only directory is reported") {
  if (::geteuid() == 0) return;  // root may write everywhere
  const TemporaryDirectory directory;
  REQUIRE(::chmod(directory.path().c_str(), 0500) == 0);
  CHECK_THROWS_AS(write_checkpoint(directory / "model", checkpoint_of(1, 10)), FileError);
  REQUIRE(::chmod(directory.path().c_str(), 0700) == 0);
}

TEST_CASE("links stay links and permissions stay") {
  const TemporaryDirectory directory;
  const std::string target = directory / "target";
  const std::string link = directory / "link";
  write_checkpoint(target, checkpoint_of(1, 10));
  REQUIRE(::chmod(target.c_str(), 0640) == 0);
  std::filesystem::create_symlink("target", link);
  write_checkpoint(link, checkpoint_of(2, 10));
  CHECK(std::filesystem::is_symlink(link));
  CHECK(value_in(target) == 2);
  struct stat status {};
  REQUIRE(::stat(target.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
}

TEST_CASE("a relative path is written where it points") {
  const TemporaryDirectory directory;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  write_checkpoint("model", checkpoint_of(3, 10));
  CHECK(value_in("model") == 3);
  CHECK(entries(directory) == 1);
  std::filesystem::current_path(before);
}

TEST_CASE("no descriptor is left open") {
  const TemporaryDirectory directory;
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const std::string path = directory / "model";
  write_checkpoint(path, checkpoint_of(1, 10));
  const auto before = open_files();
  for (int i = 0; i < 5; ++i) {
    write_checkpoint(path, checkpoint_of(1, 10));
    read_checkpoint(path);
    CHECK_THROWS_AS(read_checkpoint(directory.path()), FileError);
    const Injected injected(1 + i, Fault::kError, EIO);
    CHECK_THROWS_AS(write_checkpoint(path, checkpoint_of(1, 10)), FileError);
  }
  CHECK(open_files() == before);
}
