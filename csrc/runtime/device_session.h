#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "backends/devices.h"
#include "core/residence.h"
#include "pycnn/tensor.h"

// What the programs on one device share: its queue, and copies of the variables.
namespace pycnn {

class DeviceVariable;

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
  std::mutex mutex;  // held while work is given: runs on one device take turns

  // ---- With the mutex held. What failed is told once by the module, to whoever waits, and may be
  // anybody's work: so a failure is remembered here and every run that was under way has failed.

  // A number for a run of which all was given.
  std::uint64_t next_run() noexcept { return ++given_; }
  // All work is done. Throws DeviceError when some of it failed.
  void wait();
  // The event, which was marked in that run, is reached. Throws likewise.
  void wait_for(DeviceEvent* event, std::uint64_t run);
  // Throws when something failed already. Waits for nothing.
  void check_given();
  // As `wait`, for what is in a state to be given up anyway.
  void drain() noexcept;
  // Throws when a run that began after so many failures has failed since.
  void check_failures(std::uint64_t before) const;
  std::uint64_t failures() const noexcept { return failures_; }

 private:
  friend class DeviceVariable;

  void fail(const std::string& problem);
  [[noreturn]] void throw_failure() const;

  const std::int64_t process_;
  std::uint64_t given_ = 0;
  std::uint64_t verified_ = 0;  // the last run of which it is known that all went well until there
  std::uint64_t failures_ = 0;
  std::string problem_;  // of the last failure
  std::set<DeviceVariable*> variables_;
};

// While it lives, the session's mutex is held and this thread may give kernels to the queue.
class DeviceTurn {
 public:
  explicit DeviceTurn(DeviceSession& session)
      : session_(session), lock_(session.mutex), before_(session.module->enter(session.queue)) {}
  ~DeviceTurn() { session_.module->leave(session_.queue, before_); }
  DeviceTurn(const DeviceTurn&) = delete;
  DeviceTurn& operator=(const DeviceTurn&) = delete;

 private:
  DeviceSession& session_;
  const std::lock_guard<std::mutex> lock_;
  const int before_;
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

// Memory of the host for copies to and from the device: such as these are quick with or, where
// there is none left, any. Nobody may use it any more when it ends.
class StagingMemory {
 public:
  // Throws MemoryLimitError.
  StagingMemory(std::shared_ptr<DeviceSession> session, std::size_t bytes);
  ~StagingMemory();
  StagingMemory(const StagingMemory&) = delete;
  StagingMemory& operator=(const StagingMemory&) = delete;
  std::byte* data() const noexcept { return data_; }

 private:
  std::shared_ptr<DeviceSession> session_;
  Tensor plain_;
  std::byte* data_ = nullptr;
};

class EventHolder {
 public:
  // Throws DeviceError.
  explicit EventHolder(std::shared_ptr<DeviceSession> session, bool timed = false);
  ~EventHolder();
  EventHolder(const EventHolder&) = delete;
  EventHolder& operator=(const EventHolder&) = delete;
  DeviceEvent* get() const noexcept { return event_; }

 private:
  std::shared_ptr<DeviceSession> session_;
  DeviceEvent* event_ = nullptr;
};

// The device's copy of a variable, shared by all programs there that name it. After a run that
// wrote it, this has the newest values and the tensor is told so.
//
// It ends when the last of these programs does, and not with the session's mutex held.
class DeviceVariable final : public Residence {
 public:
  DeviceVariable(std::shared_ptr<DeviceSession> session, Tensor variable);
  ~DeviceVariable();
  DeviceVariable(const DeviceVariable&) = delete;
  DeviceVariable& operator=(const DeviceVariable&) = delete;

  // Takes the session's mutex.
  void bring_home() override;

  // ---- With the session's mutex held.

  bool is_here() const noexcept { return TensorResidence::of(variable_) == this; }
  // Whether the tensor's newest values are neither here nor at home.
  bool is_elsewhere() const noexcept;
  // Whether the host changed it since this copy was made. Throws DeviceError, with the name, where
  // the values were lost here.
  bool is_old(const std::string& name) const;
  std::size_t bytes() const noexcept { return variable_.bytes(); }
  const void* host() const noexcept { return TensorResidence::memory(variable_); }
  // Copies from there what `host` holds.
  void upload(const void* from) noexcept;
  // That run writes it.
  void written_by(std::uint64_t run) noexcept;
  // A run that was writing it failed: the copy is worth nothing.
  void spoil() noexcept;
  // Where somebody keeps a pointer to the host's memory: copies home. Throws DeviceError.
  void refresh_views();

  const Tensor& tensor() const noexcept { return variable_; }
  const DeviceMemory memory;

 private:
  friend class DeviceSession;
  void copy_home();
  void check(const std::string& what) const;

  const std::shared_ptr<DeviceSession> session_;
  const Tensor variable_;
  std::uint64_t version_ = 0;      // of the values here; 0: none
  std::uint64_t written_run_ = 0;  // the last that wrote it
  bool lost_ = false;              // while the tensor is said to be here
};

// Call it with the session's mutex held.
std::shared_ptr<DeviceVariable> device_variable(const std::shared_ptr<DeviceSession>& session,
                                                const Tensor& variable);

}  // namespace pycnn
