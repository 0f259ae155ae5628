#include "support/allocations.h"

#include <cstdlib>
#include <new>

namespace {

thread_local std::int64_t count = 0;
thread_local std::int64_t failing = 0;  // the number of the allocation that fails; 0 is none

}  // namespace

#if PYCNN_COUNTS_ALLOCATIONS
void* operator new(std::size_t bytes) {
  if (++count == failing) throw std::bad_alloc();
  if (void* data = std::malloc(bytes == 0 ? 1 : bytes)) return data;
  throw std::bad_alloc();
}
// Who asks so has another way (std::stable_sort): the next one fails instead.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  if (++count == failing) ++failing;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, std::size_t) noexcept { std::free(data); }
void operator delete(void* data, const std::nothrow_t&) noexcept { std::free(data); }
// Arrays in terms of those: a sanitizer's own would not be seen here.
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t& tag) noexcept {
  return operator new(bytes, tag);
}
void operator delete[](void* data) noexcept { operator delete(data); }
void operator delete[](void* data, std::size_t) noexcept { operator delete(data); }
void operator delete[](void* data, const std::nothrow_t&) noexcept { operator delete(data); }
#endif

namespace pycnn::testing {

std::int64_t allocations() noexcept { return count; }

FailingAllocation::FailingAllocation(std::int64_t n) noexcept { failing = count + n; }
FailingAllocation::~FailingAllocation() { failing = 0; }
bool FailingAllocation::happened() const noexcept { return count >= failing; }

}  // namespace pycnn::testing
