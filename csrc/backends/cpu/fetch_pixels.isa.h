#pragma once
#include "backends/cpu/pair_products.h"

namespace pycnn::cpu {
namespace {

// Fetches the lines of pixels in the order of their addresses, so that the processor's own
// prefetching helps.
class PixelLines {
 public:
  PixelLines(const BFloat16* const* pixels, Index count, Index first_channel, Index channels)
      : pixels_(pixels), end_(pixels + count), first_(first_channel), channels_(channels) {}

  __attribute__((always_inline)) void fetch(int count) {
    for (int i = 0; i < count && pixels_ != end_; ++i) {
      if (*pixels_) __builtin_prefetch(*pixels_ + first_ + at_, 0, 2);
      at_ += kLine;
      if (at_ >= channels_) at_ = 0, ++pixels_;
    }
  }

 private:
  static constexpr Index kLine = 64 / sizeof(BFloat16);

  const BFloat16* const* pixels_;
  const BFloat16* const* end_;
  Index first_, channels_, at_ = 0;
};

// Fetches upcoming pixels to the second-level cache, the same number of lines at each call.
class Fetcher {
 public:
  // At most `most` lines at each call: those that are left are read without it.
  Fetcher(const PairSums& job, Index calls, Index most) : upcoming_(job.upcoming) {
    Index lines = 0;
    for (const UpcomingPixels& u : job.upcoming) lines += u.count * lines_of(u);
    share_ = (lines + calls - 1) / calls;
    if (share_ > most) share_ = most;
  }

  void fetch() {
    for (Index left = share_; left > 0 && side_ < 2;) {
      const UpcomingPixels& u = upcoming_[side_];
      if (pixel_ == u.count) {
        ++side_, pixel_ = 0;
        continue;
      }
      const Index lines = lines_of(u) - line_, some = lines < left ? lines : left;
      if (const BFloat16* from = u.pixels[pixel_])
        for (Index i = line_; i < line_ + some; ++i)
          __builtin_prefetch(from + u.first_channel + i * kLine, 0, 2);
      left -= some, line_ += some;
      if (some == lines) ++pixel_, line_ = 0;
    }
  }

 private:
  static constexpr Index kLine = 64 / sizeof(BFloat16);
  static Index lines_of(const UpcomingPixels& u) { return (u.channels + kLine - 1) / kLine; }

  const UpcomingPixels* upcoming_;
  Index share_ = 0, pixel_ = 0, line_ = 0;
  int side_ = 0;
};

}  // namespace
}  // namespace pycnn::cpu
