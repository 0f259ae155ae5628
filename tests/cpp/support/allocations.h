#pragma once
#include <cstdint>

// The test program's own `operator new`, which counts what a thread takes from the heap and can
// fail, above the address sanitizer's malloc, too. The thread sanitizer brings operators of its
// own; there is nothing to count then.
#if defined(__SANITIZE_THREAD__)
#define PYCNN_COUNTS_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PYCNN_COUNTS_ALLOCATIONS 0
#endif
#endif
#ifndef PYCNN_COUNTS_ALLOCATIONS
#define PYCNN_COUNTS_ALLOCATIONS 1
#endif

// Whether the heap is the system's: sanitizers keep what was freed, and take long.
#if defined(__SANITIZE_ADDRESS__) || !PYCNN_COUNTS_ALLOCATIONS
#define PYCNN_PLAIN_HEAP 0
#else
#define PYCNN_PLAIN_HEAP 1
#endif

namespace pycnn::testing {

// Allocations of this thread so far.
std::int64_t allocations() noexcept;

// While it lives, the n-th allocation of this thread from now on (n = 1 is the next), and it alone,
// throws std::bad_alloc.
class FailingAllocation {
 public:
  explicit FailingAllocation(std::int64_t n) noexcept;
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
  bool happened() const noexcept;
};

}  // namespace pycnn::testing
