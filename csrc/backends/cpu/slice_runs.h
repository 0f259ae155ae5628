#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

// What slice, pad and transpose share: walking the outer axes of a tensor, run by run.
namespace pycnn::cpu {

// Axes left after neighbours that move together were joined.
constexpr int kMaxRunAxes = 8;

// Bytes of output that make a chunk: a function of nothing.
constexpr std::int64_t kRunChunkBytes = 32 * 1024;

// Counts through the outer axes like an odometer, last axis fastest. A position before `begin` or
// behind `begin + inside` of its axis is outside the input (slice has none such).
struct RunAxes {
  int rank = 0;
  std::int64_t size[kMaxRunAxes] = {};    // of the output
  std::int64_t begin[kMaxRunAxes] = {};   // first position that the input has
  std::int64_t inside[kMaxRunAxes] = {};  // positions that the input has
  std::int64_t input_step[kMaxRunAxes] = {};
  std::int64_t output_step[kMaxRunAxes] = {};

  std::int64_t count() const noexcept {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= size[i];
    return n;
  }
};

class RunCursor {
 public:
  RunCursor(const RunAxes& axes, std::int64_t index) noexcept : axes_(axes) {
    for (int i = axes_.rank - 1; i >= 0; --i) {
      position_[i] = index % axes_.size[i];
      index /= axes_.size[i];
    }
  }
  void next() noexcept {
    for (int i = axes_.rank - 1; i >= 0; --i) {
      if (++position_[i] < axes_.size[i]) return;
      position_[i] = 0;
    }
  }
  bool inside() const noexcept {
    for (int i = 0; i < axes_.rank; ++i)
      if (position_[i] < axes_.begin[i] || position_[i] >= axes_.begin[i] + axes_.inside[i])
        return false;
    return true;
  }
  std::int64_t input_offset() const noexcept {
    std::int64_t offset = 0;
    for (int i = 0; i < axes_.rank; ++i)
      offset += (position_[i] - axes_.begin[i]) * axes_.input_step[i];
    return offset;
  }
  std::int64_t output_offset() const noexcept {
    std::int64_t offset = 0;
    for (int i = 0; i < axes_.rank; ++i) offset += position_[i] * axes_.output_step[i];
    return offset;
  }

 private:
  const RunAxes& axes_;
  std::int64_t position_[kMaxRunAxes] = {};
};

// A plain struct as Kernel::plan.
template <class Plan>
std::vector<std::byte> plan_bytes(const Plan& plan) {
  std::vector<std::byte> bytes(sizeof plan);
  std::memcpy(bytes.data(), &plan, sizeof plan);
  return bytes;
}

inline std::int64_t run_grain(std::int64_t run_bytes) noexcept {
  return std::max<std::int64_t>(1, kRunChunkBytes / std::max<std::int64_t>(run_bytes, 1));
}

}  // namespace pycnn::cpu
