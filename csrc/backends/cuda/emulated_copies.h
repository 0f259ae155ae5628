#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

// Copies to shared memory that do not wait, for tests on the host: as late as a GPU may be. Until a
// thread waits for a copy its target holds NaN, so that what is read too early, or overwritten
// while it is still wanted, shows. An address that a GPU would not take ends the process.
namespace pycnn::cuda {

class EmulatedCopies {
 public:
  // Zeros where it is not `wanted`; the address must be aligned all the same.
  void copy(int thread, void* shared, const void* global, bool wanted) {
    check(shared);
    check(global);
    std::memset(shared, 0xFF, kBytes);
    Thread& of = state(thread);
    of.copies.push_back({shared, wanted ? global : nullptr, of.groups});
  }
  void commit(int thread) { ++state(thread).groups; }
  void wait(int thread, int open) {
    Thread& of = state(thread);
    std::size_t done = 0;
    for (; done < of.copies.size() && of.copies[done].group < of.groups - open; ++done) {
      const Copy& copy = of.copies[done];
      if (copy.global == nullptr)
        std::memset(copy.shared, 0, kBytes);
      else
        std::memcpy(copy.shared, copy.global, kBytes);
    }
    of.copies.erase(of.copies.begin(), of.copies.begin() + static_cast<std::ptrdiff_t>(done));
  }

 private:
  static constexpr std::size_t kBytes = 16;
  static void check(const void* address) {
    if (reinterpret_cast<std::uintptr_t>(address) % kBytes == 0) return;
    (void)std::fprintf(stderr, "a copy to shared memory of %p, which is not aligned\n", address);
    __builtin_trap();  // as the kernel would end on a GPU
  }
  struct Copy {
    void* shared;
    const void* global;
    int group;
  };
  struct Thread {
    std::vector<Copy> copies;
    int groups = 0;  // committed
  };
  Thread& state(int thread) {
    const auto index = static_cast<std::size_t>(thread);
    if (index >= threads_.size()) threads_.resize(index + 1);
    return threads_[index];
  }
  std::vector<Thread> threads_;
};

}  // namespace pycnn::cuda
