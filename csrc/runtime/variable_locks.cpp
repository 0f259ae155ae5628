#include "runtime/variable_locks.h"

#include <algorithm>
#include <new>
#include <unordered_map>

#include "pycnn/error.h"

#if defined(__unix__)
#include <pthread.h>
#endif

namespace pycnn {
namespace {

// By address of a tensor's memory. Programs keep their tensors alive, so an address means one
// tensor for as long as it is registered.
struct Registered {
  std::shared_ptr<VariableLock> lock;
  int programs = 0;
};

struct Registry {
  std::mutex mutex;
  std::unordered_map<const void*, Registered> variables;
};

Registry& registry();

#if defined(__unix__)
// Whoever held a lock is gone in a forked child: there, all are made anew.
void hold_registry() { registry().mutex.lock(); }
void release_registry() { registry().mutex.unlock(); }
void renew_locks() {
  for (auto& [variable, registered] : registry().variables)
    if (registered.lock) new (registered.lock.get()) VariableLock;
  release_registry();
}
#endif

// Never destroyed: programs in static variables may outlive any other static.
Registry& registry() {
  static Registry* const instance = [] {
#if defined(__unix__)
    ::pthread_atfork(hold_registry, release_registry, renew_locks);
#endif
    return new Registry;
  }();
  return *instance;
}

}  // namespace

bool VariableLock::try_lock_to_write() noexcept {
  if (writing_.exchange(true, std::memory_order_acq_rel)) return false;
  const std::lock_guard turn(turnstile_);
  use_.lock();
  return true;
}

void VariableLock::unlock_written() noexcept {
  use_.unlock();
  writing_.store(false, std::memory_order_release);
}

void VariableLock::lock_to_read() noexcept {
  const std::lock_guard turn(turnstile_);
  use_.lock_shared();
}

void VariableLock::unlock_read() noexcept { use_.unlock_shared(); }

VariableLocks::VariableLocks(std::span<const Tensor> variables) {
  for (const Tensor& variable : variables) variables_.push_back(variable.raw());
  std::sort(variables_.begin(), variables_.end());
  variables_.erase(std::unique(variables_.begin(), variables_.end()), variables_.end());
  if (variables_.empty()) return;

  Registry& known = registry();
  const std::lock_guard lock(known.mutex);
  std::vector<Registered*> mine;
  mine.reserve(variables_.size());
  locks_.reserve(variables_.size() + 1);
  try {
    for (const void* variable : variables_) mine.push_back(&known.variables[variable]);
    for (const Registered* variable : mine)
      if (variable->lock) locks_.push_back(variable->lock);
    if (locks_.empty()) locks_.push_back(std::make_shared<VariableLock>());
  } catch (...) {
    std::erase_if(known.variables, [](const auto& entry) { return entry.second.programs == 0; });
    throw;
  }
  for (Registered* variable : mine) {
    if (!variable->lock) variable->lock = locks_.front();
    ++variable->programs;
  }
  // All programs take their locks in this order, so none waits for another in a circle.
  std::sort(locks_.begin(), locks_.end());
  locks_.erase(std::unique(locks_.begin(), locks_.end()), locks_.end());
}

VariableLocks::~VariableLocks() {
  Registry& known = registry();
  const std::lock_guard lock(known.mutex);
  for (const void* variable : variables_) {
    const auto found = known.variables.find(variable);
    if (found != known.variables.end() && --found->second.programs <= 0)
      known.variables.erase(found);
  }
}

VariableLocks::Hold::Hold(const VariableLocks& locks, bool to_write)
    : locks_(locks), to_write_(to_write) {
  for (std::size_t i = 0; i < locks_.locks_.size(); ++i) {
    VariableLock& lock = *locks_.locks_[i];
    if (!to_write_) {
      lock.lock_to_read();
    } else if (!lock.try_lock_to_write()) {
      while (i-- > 0) locks_.locks_[i]->unlock_written();
      throw TrainingError(
          "program: another program is writing the same variables, in another thread\n"
          "  hint: train a network from one thread at a time, or give each trainer variables of "
          "its "
          "own");
    }
  }
}

VariableLocks::Hold::~Hold() {
  for (const auto& lock : locks_.locks_) {
    if (to_write_)
      lock->unlock_written();
    else
      lock->unlock_read();
  }
}

}  // namespace pycnn
