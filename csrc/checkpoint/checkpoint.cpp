#include "pycnn/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

#include "checkpoint/atomic_file.h"
#include "checkpoint/fold64.h"
#include "checkpoint/safetensors.h"
#include "core/function_ref.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr const char* kChecksum = "pycnn.checksum";
constexpr std::string_view kOwnPrefix = "pycnn.";
constexpr std::size_t kMaxRead = std::size_t{1} << 30;

// Copies `bytes` bytes from `offset` on.
using ReadAt = FunctionRef<void(std::uint64_t offset, void* data, std::size_t bytes)>;

std::uint64_t fold_text(std::string_view text, std::uint64_t state) noexcept {
  return fold64(text.data(), text.size(), state);
}

// "fold64:<bytes of all tensors>:<16 hexadecimal digits>". Taken in order of the names, so another
// program may write the same content in another order. Metadata of others may change without harm.
std::string checksum(const Checkpoint& checkpoint) {
  std::uint64_t state = 0;
  for (const auto& [key, text] : checkpoint.metadata) {
    if (key == kChecksum || std::string_view(key).substr(0, kOwnPrefix.size()) != kOwnPrefix)
      continue;
    state = fold_text(text, fold_text(key, state));
  }
  std::uint64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    state = fold_text(to_string(tensor.spec()), fold_text(name, state));
    state = fold64(tensor.raw(), tensor.bytes(), state);
    bytes += tensor.bytes();
  }
  char text[64];
  std::snprintf(text, sizeof(text), "fold64:%llu:%016llx", static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(state));
  return text;
}

struct HeaderAndStart {
  safetensors::Header header;
  std::uint64_t data_start;
};

HeaderAndStart read_header(std::uint64_t file_bytes, ReadAt read, const std::string& where) {
  char start[safetensors::kLengthBytes + 1] = {};
  const auto known = static_cast<std::size_t>(std::min<std::uint64_t>(file_bytes, sizeof(start)));
  read(0, start, known);
  const std::uint64_t length = safetensors::header_length({start, known}, file_bytes, where);
  std::string json(static_cast<std::size_t>(length), '\0');
  read(safetensors::kLengthBytes, json.data(), json.size());
  const std::uint64_t data_start = safetensors::kLengthBytes + length;
  return {safetensors::parse_header(json, file_bytes - data_start, where), data_start};
}

Checkpoint read_all(std::uint64_t file_bytes, ReadAt read, const std::string& where) {
  HeaderAndStart file = read_header(file_bytes, read, where);
  Checkpoint checkpoint;
  checkpoint.metadata = std::move(file.header.metadata);
  for (const auto& [name, entry] : file.header.tensors) {
    Tensor tensor(entry.spec);
    read(file.data_start + entry.begin, tensor.mutable_raw(), entry.bytes);
    checkpoint.tensors.emplace_hint(checkpoint.tensors.end(), name, std::move(tensor));
  }
  if (const auto stored = checkpoint.metadata.find(kChecksum);
      stored != checkpoint.metadata.end()) {
    const std::string actual = checksum(checkpoint);
    if (stored->second != actual) {
      throw FormatError(where + ": the content has changed since it was saved: " + kChecksum +
                        " is '" + stored->second.substr(0, 64) + "', the content gives '" + actual +
                        "'\n  hint: a program that changes the file should drop this entry");
    }
    checkpoint.metadata.erase(stored);
  }
  return checkpoint;
}

std::string loading(const std::string& name) { return "load '" + name + "'"; }

class InputFile {
 public:
  explicit InputFile(const std::string& path) : path_(path) {
    if (path.find('\0') != std::string::npos) fail(EINVAL);
    // Non-blocking: a pipe without a writer would otherwise wait for one for ever.
    do {
      fd_ = file_ops().open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
    } while (fd_ < 0 && errno == EINTR);
    if (fd_ < 0) fail(errno);
    struct stat status {};
    const int code = ::fstat(fd_, &status) != 0 ? errno
                     : S_ISDIR(status.st_mode)  ? EISDIR
                     : !S_ISREG(status.st_mode) ? EINVAL
                                                : 0;
    if (code != 0) {
      (void)::close(fd_);
      fail(code);
    }
    bytes_ = static_cast<std::uint64_t>(status.st_size);
  }
  ~InputFile() { (void)::close(fd_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::uint64_t bytes() const noexcept { return bytes_; }

  void read(std::uint64_t offset, void* data, std::size_t bytes) const {
    auto* next = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t got =
          file_ops().pread(fd_, next, std::min(bytes, kMaxRead), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(errno);
      if (got == 0) {
        throw FormatError(loading(path_) + ": the file became shorter while it was read, at byte " +
                          std::to_string(offset));
      }
      next += got;
      offset += static_cast<std::uint64_t>(got);
      bytes -= static_cast<std::size_t>(got);
    }
  }

 private:
  [[noreturn]] void fail(int code) const { throw_file_error("load", path_, code); }

  std::string path_;
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
};

safetensors::Prologue prologue_of(const Checkpoint& checkpoint, const std::string& where) {
  std::map<std::string, TensorSpec> specs;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    if (!tensor.defined()) throw ArgumentError(where + ": tensor '" + name + "' is undefined");
    specs.emplace_hint(specs.end(), name, tensor.spec());
  }
  std::map<std::string, std::string> metadata = checkpoint.metadata;
  metadata[kChecksum] = checksum(checkpoint);
  return safetensors::make_prologue(specs, metadata, where);
}

}  // namespace

Checkpoint read_checkpoint(const std::string& path) {
  const InputFile file(path);
  return read_all(
      file.bytes(),
      [&](std::uint64_t offset, void* data, std::size_t bytes) { file.read(offset, data, bytes); },
      loading(path));
}

Checkpoint parse_checkpoint(std::span<const std::byte> bytes, const std::string& name) {
  const auto copy = [&](std::uint64_t offset, void* data, std::size_t count) {
    if (count > 0) std::memcpy(data, bytes.data() + offset, count);
  };
  return read_all(bytes.size(), copy, loading(name));
}

CheckpointInfo inspect_checkpoint(const std::string& path) {
  const InputFile file(path);
  HeaderAndStart read = read_header(
      file.bytes(),
      [&](std::uint64_t offset, void* data, std::size_t bytes) { file.read(offset, data, bytes); },
      loading(path));
  CheckpointInfo info;
  info.metadata = std::move(read.header.metadata);
  info.metadata.erase(kChecksum);
  for (auto& [name, entry] : read.header.tensors) info.tensors.emplace(name, std::move(entry.spec));
  return info;
}

std::vector<std::byte> serialize_checkpoint(const Checkpoint& checkpoint) {
  const safetensors::Prologue prologue = prologue_of(checkpoint, "serialize");
  std::size_t total = prologue.bytes.size();
  for (const auto& [name, tensor] : checkpoint.tensors) total += tensor.bytes();
  std::vector<std::byte> bytes(total);
  std::memcpy(bytes.data(), prologue.bytes.data(), prologue.bytes.size());
  std::byte* next = bytes.data() + prologue.bytes.size();
  for (const std::string& name : prologue.order) {
    const Tensor& tensor = checkpoint.tensors.at(name);
    if (tensor.bytes() > 0) std::memcpy(next, tensor.raw(), tensor.bytes());
    next += tensor.bytes();
  }
  return bytes;
}

void write_checkpoint(const std::string& path, const Checkpoint& checkpoint) {
  const safetensors::Prologue prologue = prologue_of(checkpoint, "save '" + path + "'");
  AtomicFile file(path);
  file.write(prologue.bytes.data(), prologue.bytes.size());
  for (const std::string& name : prologue.order) {
    const Tensor& tensor = checkpoint.tensors.at(name);
    file.write(tensor.raw(), tensor.bytes());
  }
  file.commit();
}

}  // namespace pycnn
