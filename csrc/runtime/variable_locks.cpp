#include "runtime/variable_locks.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <unordered_map>

#include "core/fork.h"
#include "core/residence.h"
#include "pycnn/error.h"

namespace pycnn {

struct VariableLocks::Registry {
  struct Registered {
    std::shared_ptr<VariableUse> use;
    int programs = 0;
  };

  // Never destroyed: programs in static variables may outlive any other static.
  static Registry& instance() {
    static Registry* const registry = new Registry;
    return *registry;
  }

  // Lets everybody go who may, in the order of arrival; whether somebody did.
  bool grant() noexcept {
    ++looks;
    bool granted = false;
    for (Hold** at = &waiting; *at != nullptr;) {
      Hold& hold = **at;
      if (hold.locks_.may_go(looks)) {
        hold.locks_.take();
        hold.granted_ = true;
        *at = hold.next_;
        granted = true;
      } else {
        hold.locks_.want(looks);
        at = &hold.next_;
      }
    }
    return granted;
  }

  void append(Hold& hold) noexcept {
    Hold** at = &waiting;
    while (*at != nullptr) at = &(*at)->next_;
    *at = &hold;
  }

  std::mutex mutex;
  std::condition_variable granted;
  // By address of a tensor's memory. Programs keep their tensors alive, so an address means one
  // tensor for as long as it is registered.
  std::unordered_map<const void*, Registered> variables;
  Hold* waiting = nullptr;
  std::uint64_t looks = 0;

 private:
  // Whoever used or awaited a variable is gone in a forked child.
  void renew() noexcept {
    for (auto& [memory, registered] : variables) *registered.use = VariableUse{};
    waiting = nullptr;
    new (&granted) std::condition_variable;
    mutex.unlock();
  }

  ForkHooks hooks_{this,
                   {[](void* self) noexcept { static_cast<Registry*>(self)->mutex.lock(); },
                    [](void* self) noexcept { static_cast<Registry*>(self)->mutex.unlock(); },
                    [](void* self) noexcept { static_cast<Registry*>(self)->renew(); }}};
};

VariableLocks::VariableLocks(std::span<const Tensor> variables, std::span<const std::string> names,
                             std::span<const int> assigned) {
  for (std::size_t i = 0; i < variables.size(); ++i)
    variables_.push_back({TensorResidence::memory(variables[i]), nullptr, false, &names[i]});
  for (const int i : assigned) variables_[static_cast<std::size_t>(i)].written = true;
  // One entry for a tensor of several names; it is written if one of them is.
  std::sort(variables_.begin(), variables_.end(), [](const Variable& a, const Variable& b) {
    return a.memory != b.memory ? a.memory < b.memory : a.written > b.written;
  });
  const auto same = [](const Variable& a, const Variable& b) { return a.memory == b.memory; };
  variables_.erase(std::unique(variables_.begin(), variables_.end(), same), variables_.end());
  if (variables_.empty()) return;

  // Side by side, since they will be looked at one after another.
  const std::shared_ptr<VariableUse[]> fresh(new VariableUse[variables_.size()]);
  Registry& registry = Registry::instance();
  const std::lock_guard lock(registry.mutex);
  std::vector<Registry::Registered*> mine;
  mine.reserve(variables_.size());
  try {
    for (const Variable& variable : variables_)
      mine.push_back(&registry.variables[variable.memory]);
  } catch (...) {
    std::erase_if(registry.variables, [](const auto& entry) { return entry.second.programs == 0; });
    throw;
  }
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (!mine[i]->use) mine[i]->use = std::shared_ptr<VariableUse>(fresh, &fresh[i]);
    ++mine[i]->programs;
    variables_[i].use = mine[i]->use;
  }
}

VariableLocks::~VariableLocks() {
  if (variables_.empty()) return;
  Registry& registry = Registry::instance();
  const std::lock_guard lock(registry.mutex);
  for (const Variable& variable : variables_) {
    const auto found = registry.variables.find(variable.memory);
    if (--found->second.programs == 0) registry.variables.erase(found);
  }
}

// As a writer of what it is to write. Before it throws nothing is changed.
void VariableLocks::announce() const {
  for (const auto& [memory, use, written, name] : variables_) {
    if (written && use->writer != nullptr && use->writer != this)
      throw TrainingError("program: another program is writing '" + *name +
                          "', too, in another thread\n"
                          "  hint: train a network from one thread at a time, or give each trainer "
                          "variables of its own");
  }
  for (const auto& [memory, use, written, name] : variables_) {
    if (!written) continue;
    use->writer = this;
    ++use->writers;
  }
}

bool VariableLocks::may_go(std::uint64_t look) const noexcept {
  for (const auto& [memory, use, written, name] : variables_) {
    if (use->writing || use->wanted_to_write == look) return false;
    if (written && (use->readers > 0 || use->wanted == look)) return false;
  }
  return true;
}

void VariableLocks::want(std::uint64_t look) const noexcept {
  for (const auto& [memory, use, written, name] : variables_)
    (written ? use->wanted_to_write : use->wanted) = look;
}

void VariableLocks::take() const noexcept {
  for (const auto& [memory, use, written, name] : variables_) {
    if (written)
      use->writing = true;
    else
      ++use->readers;
  }
}

void VariableLocks::give_back() const noexcept {
  for (const auto& [memory, use, written, name] : variables_) {
    if (!written) {
      --use->readers;
      continue;
    }
    use->writing = false;
    if (--use->writers == 0) use->writer = nullptr;
  }
}

VariableLocks::Hold::Hold(const VariableLocks& locks) : locks_(locks) {
  if (locks.variables_.empty()) return;
  Registry& registry = Registry::instance();
  std::unique_lock lock(registry.mutex);
  locks.announce();
  registry.append(*this);
  registry.grant();
  while (!granted_) registry.granted.wait(lock);
}

VariableLocks::Hold::~Hold() {
  if (locks_.variables_.empty()) return;
  Registry& registry = Registry::instance();
  const std::lock_guard lock(registry.mutex);
  locks_.give_back();
  if (registry.waiting != nullptr && registry.grant()) registry.granted.notify_all();
}

}  // namespace pycnn
