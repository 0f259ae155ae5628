#include "runtime/device_session.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "pycnn/error.h"

namespace pycnn {

DeviceSession::DeviceSession(const DeviceChoice& device)
    : module(device.module),
      name(std::string(device.backend->name) + ":" + std::to_string(device.index)),
      process_(::getpid()) {
  std::string problem;
  queue = module->open(device.index, problem);
  if (queue == nullptr) throw DeviceError("device '" + name + "' cannot be used: " + problem);
}

DeviceSession::~DeviceSession() {
  if (is_of_this_process()) module->close(queue);
}

bool DeviceSession::is_of_this_process() const noexcept { return process_ == ::getpid(); }

void DeviceSession::check_process() const {
  if (is_of_this_process()) return;
  throw DeviceError("device '" + name +
                    "' was opened before this process was forked and cannot be used in it\n  hint: "
                    "start processes with multiprocessing's 'spawn', or fork before anything is "
                    "compiled for a GPU or GPUs are asked for (machine()[\"devices\"], 'pycnn "
                    "doctor')");
}

void DeviceSession::throw_failure() const {
  throw DeviceError("program: device '" + name + "' failed: " + problem_);
}

void DeviceSession::fail(const std::string& problem) {
  ++failures_;
  for (DeviceVariable* const variable : variables_)
    if (!variable->is_here() || variable->written_run_ > verified_) variable->spoil();
  verified_ = given_;
  problem_ = problem;
}

void DeviceSession::wait() {
  std::string problem;
  if (module->wait(queue, problem)) {
    verified_ = given_;
    return;
  }
  fail(problem);
  throw_failure();
}

void DeviceSession::wait_for(DeviceEvent* event, std::uint64_t run) {
  std::string problem;
  if (module->wait_for(queue, event, problem)) {
    verified_ = std::max(verified_, run);
    return;
  }
  fail(problem);
  throw_failure();
}

void DeviceSession::check_given() {
  if (module->has_failed(queue)) wait();
}

void DeviceSession::drain() noexcept {
  try {
    wait();
  } catch (const Error&) {
    // Remembered: whoever has a run under way is told.
  }
}

void DeviceSession::check_failures(std::uint64_t before) const {
  if (failures_ != before) throw_failure();
}

std::shared_ptr<DeviceSession> device_session(const DeviceChoice& device) {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<DeviceSession>> sessions;
  const std::lock_guard lock(mutex);
  std::weak_ptr<DeviceSession>& known = sessions[device.index];
  std::shared_ptr<DeviceSession> session = known.lock();
  if (session == nullptr) {
    session = std::make_shared<DeviceSession>(device);
    known = session;
  }
  return session;
}

DeviceMemory::DeviceMemory(std::shared_ptr<DeviceSession> session, std::size_t bytes)
    : session_(std::move(session)),
      data_(static_cast<std::byte*>(session_->module->allocate(session_->queue, bytes))) {
  if (data_ != nullptr) return;
  const std::size_t left = session_->module->free_bytes(session_->queue);
  throw MemoryLimitError("compile: device '" + session_->name + "' has not enough memory: " +
                             std::to_string(bytes) + " bytes are wanted at once, " +
                             std::to_string(left) + " are left\n  hint: a smaller batch needs less",
                         bytes, left);
}

DeviceMemory::~DeviceMemory() {
  if (session_->is_of_this_process()) session_->module->release(session_->queue, data_);
}

StagingMemory::StagingMemory(std::shared_ptr<DeviceSession> session, std::size_t bytes)
    : session_(std::move(session)),
      data_(static_cast<std::byte*>(session_->module->allocate_host(session_->queue, bytes))) {
  if (data_ != nullptr) return;
  plain_ = Tensor({{static_cast<std::int64_t>(bytes)}, DType::kUInt8});
  data_ = static_cast<std::byte*>(plain_.mutable_raw());
}

StagingMemory::~StagingMemory() {
  if (!plain_.defined() && session_->is_of_this_process())
    session_->module->release_host(session_->queue, data_);
}

EventHolder::EventHolder(std::shared_ptr<DeviceSession> session, bool timed)
    : session_(std::move(session)) {
  std::string problem;
  event_ = session_->module->make_event(session_->queue, timed, problem);
  if (event_ == nullptr)
    throw DeviceError("program: device '" + session_->name + "' failed: " + problem);
}

EventHolder::~EventHolder() {
  if (session_->is_of_this_process()) session_->module->forget_event(event_);
}

DeviceVariable::DeviceVariable(std::shared_ptr<DeviceSession> session, Tensor variable)
    : memory(session, variable.bytes()),
      session_(std::move(session)),
      variable_(std::move(variable)) {
  session_->variables_.insert(this);
}

DeviceVariable::~DeviceVariable() {
  TensorResidence::leave(variable_, *this);
  if (!session_->is_of_this_process()) return;  // somebody else's thread may have held the mutex
  const std::lock_guard lock(session_->mutex);
  session_->variables_.erase(this);
}

void DeviceVariable::bring_home() {
  session_->check_process();
  const std::lock_guard lock(session_->mutex);
  if (is_here()) copy_home();
}

void DeviceVariable::check(const std::string& what) const {
  if (lost_)
    throw DeviceError("the values of " + what + " were lost when device '" + session_->name +
                      "' failed in a step that wrote them: " + session_->problem_ +
                      "\n  hint: load a checkpoint, or write new values");
}

void DeviceVariable::copy_home() {
  const std::string what = "a tensor " + to_string(variable_.spec());
  check(what);
  session_->module->copy_out(session_->queue, TensorResidence::memory(variable_), memory.data(),
                             variable_.bytes());
  try {
    session_->wait();
  } catch (const DeviceError&) {
    check(what);  // a step that wrote it failed; else the copy did, and may be tried again
    throw;
  }
  TensorResidence::come_home(variable_);
}

bool DeviceVariable::is_elsewhere() const noexcept {
  const Residence* const at = TensorResidence::of(variable_);
  return at != nullptr && at != this;
}

bool DeviceVariable::is_old(const std::string& name) const {
  if (!is_here()) return version_ != variable_.version();
  check("'" + name + "'");
  return false;
}

void DeviceVariable::upload(const void* from) noexcept {
  session_->module->copy_in(session_->queue, memory.data(), from, variable_.bytes());
  version_ = variable_.version();
  lost_ = false;
}

void DeviceVariable::written_by(std::uint64_t run) noexcept {
  version_ = TensorResidence::move_to(variable_, *this);
  written_run_ = run;
}

void DeviceVariable::spoil() noexcept {
  lost_ = is_here();
  if (!lost_) version_ = 0;
}

void DeviceVariable::refresh_views() {
  if (is_here() && TensorResidence::is_viewed(variable_)) copy_home();
}

std::shared_ptr<DeviceVariable> device_variable(const std::shared_ptr<DeviceSession>& session,
                                                const Tensor& variable) {
  // By the host's address, which no other variable has as long as a copy holds the tensor.
  static std::mutex mutex;
  static std::map<std::pair<const DeviceSession*, const void*>, std::weak_ptr<DeviceVariable>>
      variables;
  const std::lock_guard lock(mutex);
  std::erase_if(variables, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<DeviceVariable>& known =
      variables[{session.get(), TensorResidence::memory(variable)}];
  std::shared_ptr<DeviceVariable> copy = known.lock();
  if (copy == nullptr) {
    copy = std::make_shared<DeviceVariable>(session, variable);
    known = copy;
  }
  return copy;
}

}  // namespace pycnn
