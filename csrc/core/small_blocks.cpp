#include "core/small_blocks.h"

#if defined(__linux__)
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "core/fork.h"
#endif

namespace pycnn {

#if defined(__linux__)
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

// A stretch of huge pages. What lies beyond `fresh` nobody has had yet: those pages are zero, or
// not there at all.
class Region {
 public:
  // Null when the system has none.
  static std::unique_ptr<Region> make() {
    auto region = std::make_unique<Region>();
    constexpr std::size_t kReserved = kSmallBlockRegion + kHugePage;
    void* const base =
        ::mmap(nullptr, kReserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(base)) % kHugePage;
    region->base_ = static_cast<char*>(base) + before;
    if (before > 0) ::munmap(base, before);
    if (before < kHugePage) ::munmap(region->base_ + kSmallBlockRegion, kHugePage - before);
    // Advice only: without huge pages it is merely slower.
    (void)::madvise(region->base_, kSmallBlockRegion, MADV_HUGEPAGE);
    return region;
  }
  Region() = default;
  ~Region() {
    if (base_ != nullptr) ::munmap(base_, kSmallBlockRegion);
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  bool holds(const void* data) const noexcept {
    const auto at = reinterpret_cast<std::uintptr_t>(data);
    const auto begin = reinterpret_cast<std::uintptr_t>(base_);
    return at >= begin && at < begin + kSmallBlockRegion;
  }
  bool empty() const noexcept { return live_ == 0; }

  void* take(std::size_t bytes, bool& is_zero) {
    for (auto hole = holes_.begin(); hole != holes_.end(); ++hole) {
      const auto [at, size] = *hole;
      if (size < bytes) continue;
      if (size > bytes) holes_.emplace_hint(std::next(hole), at + bytes, size - bytes);
      holes_.erase(hole);
      live_ += bytes;
      is_zero = false;
      return base_ + at;
    }
    if (kSmallBlockRegion - fresh_ < bytes) return nullptr;
    char* const data = base_ + fresh_;
    fresh_ += bytes, live_ += bytes;
    is_zero = true;
    return data;
  }

  void give_back(void* data, std::size_t bytes) {
    live_ -= bytes;
    const auto at = static_cast<std::size_t>(static_cast<char*>(data) - base_);
    const auto hole = holes_.emplace(at, bytes).first;
    if (const auto after = std::next(hole);
        after != holes_.end() && hole->first + hole->second == after->first) {
      hole->second += after->second;
      holes_.erase(after);
    }
    if (hole == holes_.begin()) return;
    if (const auto before = std::prev(hole); before->first + before->second == hole->first) {
      before->second += hole->second;
      holes_.erase(hole);
    }
  }

 private:
  char* base_ = nullptr;
  std::size_t fresh_ = 0, live_ = 0;
  std::map<std::size_t, std::size_t> holes_;  // size by offset; no two touch
};

class SmallBlocks {
 public:
  // Never destroyed: tensors in static variables may outlive any other static.
  static SmallBlocks& instance() {
    static SmallBlocks* const blocks = new SmallBlocks;
    return *blocks;
  }

  void* take(std::size_t bytes) {
    bool is_zero = false;
    void* data = nullptr;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& region : regions_)
        if ((data = region->take(bytes, is_zero)) != nullptr) break;
      if (data == nullptr) {
        auto region = Region::make();
        if (region == nullptr) return nullptr;
        regions_.push_back(std::move(region));
        data = regions_.back()->take(bytes, is_zero);
      }
    }
    if (!is_zero) std::memset(data, 0, bytes);
    return data;
  }

  bool give_back(void* data, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    for (auto region = regions_.begin(); region != regions_.end(); ++region) {
      if (!(*region)->holds(data)) continue;
      (*region)->give_back(data, bytes);
      // One empty region stays for whoever comes next.
      if ((*region)->empty() && std::count_if(regions_.begin(), regions_.end(),
                                              [](const auto& other) { return other->empty(); }) > 1)
        regions_.erase(region);
      return true;
    }
    return false;
  }

 private:
  std::mutex mutex_;  // taken around a fork, so that all is whole in the child
  std::vector<std::unique_ptr<Region>> regions_;
  ForkHooks hooks_{&mutex_,
                   {[](void* mutex) noexcept { static_cast<std::mutex*>(mutex)->lock(); },
                    [](void* mutex) noexcept { static_cast<std::mutex*>(mutex)->unlock(); },
                    [](void* mutex) noexcept { static_cast<std::mutex*>(mutex)->unlock(); }}};
};

std::size_t whole_lines(std::size_t bytes) noexcept {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void* take_small_block(std::size_t bytes) noexcept {
  try {
    return SmallBlocks::instance().take(whole_lines(bytes));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

bool give_back_small_block(void* data, std::size_t bytes) noexcept {
  try {
    return SmallBlocks::instance().give_back(data, whole_lines(bytes));
  } catch (const std::bad_alloc&) {
    return true;  // no memory for writing down that it is free: it stays where it is
  }
}

#else

void* take_small_block(std::size_t) noexcept { return nullptr; }
bool give_back_small_block(void*, std::size_t) noexcept { return false; }

#endif

}  // namespace pycnn
