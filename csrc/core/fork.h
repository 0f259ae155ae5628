#pragma once

// What a fork would leave unusable in the child: there, threads that held locks are gone, and what
// they were about stays half done.
namespace pycnn {

// Calls functions of an object around every fork of the process, for as long as the hooks exist.
// `before` takes the locks whose sections are short, so that what they guard is whole in the child;
// `in_parent` gives them back; `in_child` gives them back, too, and makes anew what others held.
class ForkHooks {
 public:
  using Function = void (*)(void* object) noexcept;
  struct Functions {
    Function before;
    Function in_parent;
    Function in_child;
  };

  ForkHooks(void* object, Functions functions);
  ~ForkHooks();
  ForkHooks(const ForkHooks&) = delete;
  ForkHooks& operator=(const ForkHooks&) = delete;

 private:
  friend struct AllForkHooks;

  void* const object_;
  const Functions functions_;
  ForkHooks* previous_ = nullptr;
  ForkHooks* next_ = nullptr;
};

}  // namespace pycnn
