#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "backends/devices.h"
#include "pycnn/tensor.h"

// What the programs on one device share: its queue, and copies of the variables.
namespace pycnn {

class DeviceSession {
 public:
  // Throws DeviceError when the device cannot be had.
  explicit DeviceSession(const DeviceChoice& device);
  ~DeviceSession();
  DeviceSession(const DeviceSession&) = delete;
  DeviceSession& operator=(const DeviceSession&) = delete;

  // Whether this is the process that opened the device. In a forked child no call to it works, not
  // even one that gives something back.
  bool is_of_this_process() const noexcept;
  // Throws DeviceError in any other process.
  void check_process() const;

  const DeviceModule* const module;
  const std::string name;  // "cuda:0"
  DeviceQueue* queue = nullptr;
  std::mutex mutex;  // held by a run: runs on one device take turns

 private:
  const std::int64_t process_;
};

// One for each device as long as somebody holds it.
std::shared_ptr<DeviceSession> device_session(const DeviceChoice& device);

class DeviceMemory {
 public:
  // Throws MemoryLimitError.
  DeviceMemory(std::shared_ptr<DeviceSession> session, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  std::byte* data() const noexcept { return data_; }

 private:
  std::shared_ptr<DeviceSession> session_;
  std::byte* data_ = nullptr;
};

// The device's copy of a variable, shared by all programs there that name it.
class DeviceVariable {
 public:
  DeviceVariable(std::shared_ptr<DeviceSession> session, Tensor variable);

  // Copies what the host changed since this copy was made, or nothing.
  void upload();
  // Copies to the host; once the queue was waited for, `settle` says that both are the same.
  void download();
  void settle();
  // This copy is worth nothing.
  void forget() noexcept { version_ = 0; }

  const DeviceMemory memory;

 private:
  std::shared_ptr<DeviceSession> session_;
  Tensor variable_;
  std::uint64_t version_ = 0;  // of the host's values that are there; 0: none
};

// Call it with the session's mutex held.
std::shared_ptr<DeviceVariable> device_variable(const std::shared_ptr<DeviceSession>& session,
                                                const Tensor& variable);

}  // namespace pycnn
