#include "runtime/device_session.h"

#include <unistd.h>

#include <map>
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
                    "compiled for a GPU");
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

DeviceVariable::DeviceVariable(std::shared_ptr<DeviceSession> session, Tensor variable)
    : memory(session, variable.bytes()),
      session_(std::move(session)),
      variable_(std::move(variable)) {}

void DeviceVariable::upload() {
  if (version_ == variable_.version()) return;
  session_->module->copy_in(session_->queue, memory.data(), variable_.raw(), variable_.bytes());
  version_ = variable_.version();
}

void DeviceVariable::download() {
  // Not mutable_raw: the run's caller says once that it was written.
  session_->module->copy_out(session_->queue, const_cast<void*>(variable_.raw()), memory.data(),
                             variable_.bytes());
}

void DeviceVariable::settle() {
  variable_.mark_written();
  version_ = variable_.version();
}

std::shared_ptr<DeviceVariable> device_variable(const std::shared_ptr<DeviceSession>& session,
                                                const Tensor& variable) {
  // By the host's address, which no other variable has as long as a copy holds the tensor.
  static std::mutex mutex;
  static std::map<std::pair<const DeviceSession*, const void*>, std::weak_ptr<DeviceVariable>>
      variables;
  const std::lock_guard lock(mutex);
  std::erase_if(variables, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<DeviceVariable>& known = variables[{session.get(), variable.raw()}];
  std::shared_ptr<DeviceVariable> copy = known.lock();
  if (copy == nullptr) {
    copy = std::make_shared<DeviceVariable>(session, variable);
    known = copy;
  }
  return copy;
}

}  // namespace pycnn
