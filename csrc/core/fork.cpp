#include "core/fork.h"

#include <memory>
#include <mutex>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace pycnn {

// Never destroyed: hooks may belong to static variables that outlive any other static.
struct AllForkHooks {
  std::mutex mutex;
  ForkHooks* first = nullptr;

  static AllForkHooks& instance() {
    static AllForkHooks* const all = [] {
      auto made = std::make_unique<AllForkHooks>();
#if defined(__unix__) || defined(__APPLE__)
      if (::pthread_atfork(before, in_parent, in_child) != 0) throw std::bad_alloc();
#endif
      return made.release();
    }();
    return *all;
  }

  void call(ForkHooks::Function ForkHooks::Functions::*which) const noexcept {
    for (ForkHooks* hooks = first; hooks != nullptr; hooks = hooks->next_)
      (hooks->functions_.*which)(hooks->object_);
  }

  static void before() noexcept {
    instance().mutex.lock();
    instance().call(&ForkHooks::Functions::before);
  }
  static void in_parent() noexcept {
    instance().call(&ForkHooks::Functions::in_parent);
    instance().mutex.unlock();
  }
  static void in_child() noexcept {
    instance().call(&ForkHooks::Functions::in_child);
    instance().mutex.unlock();
  }
};

ForkHooks::ForkHooks(void* object, Functions functions) : object_(object), functions_(functions) {
  AllForkHooks& all = AllForkHooks::instance();
  const std::lock_guard lock(all.mutex);
  next_ = all.first;
  if (next_ != nullptr) next_->previous_ = this;
  all.first = this;
}

ForkHooks::~ForkHooks() {
  AllForkHooks& all = AllForkHooks::instance();
  const std::lock_guard lock(all.mutex);
  (previous_ == nullptr ? all.first : previous_->next_) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

}  // namespace pycnn
