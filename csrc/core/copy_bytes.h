#pragma once
#include <cstddef>
#include <cstring>

#include "core/parallel.h"

namespace pycnn {

// Between memories that do not overlap. What is large is shared out, since one thread moves less
// than the memory and a device behind it would take.
inline void copy_bytes(int threads, void* to, const void* from, std::size_t bytes) noexcept {
  constexpr std::size_t kShared = std::size_t{1} << 20;
  constexpr std::int64_t kGrain = std::int64_t{1} << 18;
  if (bytes < kShared) {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return;
  }
  parallel_ranges(threads, static_cast<std::int64_t>(bytes), kGrain,
                  [=](std::int64_t begin, std::int64_t end) {
                    std::memcpy(static_cast<std::byte*>(to) + begin,
                                static_cast<const std::byte*>(from) + begin,
                                static_cast<std::size_t>(end - begin));
                  });
}

}  // namespace pycnn
