#pragma once
#include <cstddef>

#include "pycnn/export.h"

// Memory of tensors that are too small for huge pages of their own. A training step touches some
// hundred of them once each; on pages of 4 KiB, looking up where those lie takes longer than
// reading them. Here they share huge pages. Safe for threads, and around forks.
namespace pycnn {

constexpr std::size_t kSmallestBlock = std::size_t{4} << 10;
constexpr std::size_t kSmallBlockRegion = std::size_t{16} << 20;  // of address space

// Zero-filled and aligned to 64 bytes; null when there is none. At least kSmallestBlock, at most an
// eighth of a region.
PYCNN_API void* take_small_block(std::size_t bytes) noexcept;

// False for memory that is from elsewhere. `bytes` as it was taken.
PYCNN_API bool give_back_small_block(void* data, std::size_t bytes) noexcept;

}  // namespace pycnn
