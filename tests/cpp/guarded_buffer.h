#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

namespace pycnn::testing {

// Where the page lies that must not be touched.
enum class Guard {
  kAfter,   // the buffer's last byte is followed by it: finds reading and writing too far
  kBefore,  // the buffer starts right after it (and is page-aligned): finds starting too early
};

// Pixels of `bytes` bytes each, `pitch` bytes apart: a part of a larger tensor. Nothing lies behind
// the last one.
struct PixelLayout {
  std::size_t count = 0, bytes = 0, pitch = 0;

  std::size_t span() const { return count == 0 ? 0 : (count - 1) * pitch + bytes; }
  void spread(const std::byte* from, std::byte* to) const {
    if (bytes == 0) return;  // the pointers may be null
    for (std::size_t i = 0; i < count; ++i) std::memcpy(to + i * pitch, from + i * bytes, bytes);
  }
  void gather(const std::byte* from, std::byte* to) const {
    if (bytes == 0) return;
    for (std::size_t i = 0; i < count; ++i) std::memcpy(to + i * bytes, from + i * pitch, bytes);
  }
  // Whether all bytes between the pixels are those of GuardedBuffer::fill_nan.
  bool gaps_are_intact(const std::byte* data) const {
    for (std::size_t i = 0; i + 1 < count; ++i)
      for (std::size_t b = bytes; b < pitch; ++b)
        if (data[i * pitch + b] != std::byte{0xFF}) return false;
    return true;
  }
};

// Memory that ends at, or starts after, a page without access rights: a stray access is a fault at
// once, also through masked vector loads, which AddressSanitizer does not see. A buffer that ends
// at the page is only as aligned as its size makes it: round the size up where a kernel is promised
// alignment (scratch). The other end is checked by `border_is_intact`.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(std::size_t bytes, Guard guard = Guard::kAfter)
      : bytes_(bytes), guard_(guard), page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    inner_ = (bytes_ + page_) / page_ * page_;  // leaves room for at least one byte of border
    void* mapped =
        mmap(nullptr, inner_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    map_ = static_cast<std::byte*>(mapped);
    std::byte* const forbidden = guard_ == Guard::kAfter ? map_ + inner_ : map_;
    if (mprotect(forbidden, page_, PROT_NONE) != 0) {
      munmap(map_, inner_ + page_);
      throw std::bad_alloc();
    }
    std::memset(accessible(), kBorder, inner_);
    fill_nan();
  }
  GuardedBuffer(GuardedBuffer&& other) noexcept
      : bytes_(other.bytes_),
        guard_(other.guard_),
        page_(other.page_),
        inner_(other.inner_),
        map_(std::exchange(other.map_, nullptr)) {}
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(GuardedBuffer&&) = delete;
  ~GuardedBuffer() {
    if (map_ != nullptr) munmap(map_, inner_ + page_);
  }

  std::byte* data() const noexcept {
    return guard_ == Guard::kAfter ? map_ + (inner_ - bytes_) : map_ + page_;
  }
  template <class T>
  T* as() const noexcept {
    return reinterpret_cast<T*>(data());
  }
  std::size_t bytes() const noexcept { return bytes_; }

  // All bits set: a NaN for float and double, -1 for signed integers.
  void fill_nan() noexcept {
    if (bytes_ > 0) std::memset(data(), 0xFF, bytes_);
  }
  void copy_from(const void* source) noexcept {
    if (bytes_ > 0) std::memcpy(data(), source, bytes_);
  }
  // From now on a write is a fault: for inputs, which nobody may change.
  void make_read_only() noexcept { mprotect(accessible(), inner_, PROT_READ); }

  // Whether the bytes between the buffer and the other end of its pages are as they were.
  bool border_is_intact() const noexcept {
    const std::byte *const begin = accessible(), *const buffer = data();
    const auto intact = [](std::byte b) { return b == std::byte{kBorder}; };
    return std::all_of(begin, buffer, intact) &&
           std::all_of(buffer + bytes_, begin + inner_, intact);
  }

 private:
  static constexpr unsigned char kBorder = 0xA5;
  std::byte* accessible() const noexcept { return guard_ == Guard::kAfter ? map_ : map_ + page_; }

  std::size_t bytes_;
  Guard guard_;
  std::size_t page_;
  std::size_t inner_ = 0;
  std::byte* map_ = nullptr;
};

}  // namespace pycnn::testing
