#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <vector>

#include "pycnn/tensor.h"

// Who may use shared variables when. Programs that have a variable in common find one another here
// and share a lock.
namespace pycnn {

class VariableLock {
 public:
  // False when a writer is there already. Else waits for the readers to leave.
  bool try_lock_to_write() noexcept;
  void unlock_written() noexcept;
  void lock_to_read() noexcept;
  void unlock_read() noexcept;

 private:
  std::atomic<bool> writing_{false};
  // Held by a writer that waits, so that readers who keep coming do not starve it.
  std::mutex turnstile_;
  std::shared_mutex use_;
};

// The locks of a program's variables: one, unless variables came together that had been used apart.
class VariableLocks {
 public:
  explicit VariableLocks(std::span<const Tensor> variables);
  ~VariableLocks();
  VariableLocks(const VariableLocks&) = delete;
  VariableLocks& operator=(const VariableLocks&) = delete;

  // For the time of a run. A writer throws TrainingError when another is there.
  class Hold {
   public:
    Hold(const VariableLocks& locks, bool to_write);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    const VariableLocks& locks_;
    const bool to_write_;
  };

 private:
  std::vector<const void*> variables_;
  std::vector<std::shared_ptr<VariableLock>> locks_;  // by address
};

}  // namespace pycnn
