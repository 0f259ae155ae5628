#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backends/cpu/pool_window.h"
#include "core/ceil_div.h"

// The gradient of max pooling of bfloat16, an image at a time.
#if PYCNN_HAVE_AVX512
namespace pycnn::cpu {

// Rows that are kept at a time, as many as the windows of a row reach over: row i is in place
// i % rows. Rows of the image leave the largest taps of each window, rows of windows the winners.
struct WinnerRows {
  std::int64_t block;  // channels that are cut out at a time
  std::int64_t pitch;  // of a pixel
  std::int64_t image_rows, window_rows;
  std::int64_t keys, size;  // numbers of a row
  std::size_t numbers;      // of all

  std::size_t bytes() const noexcept { return (numbers * sizeof(std::int16_t) + 63) / 64 * 64; }
};

inline WinnerRows winner_rows(const PoolGeometry& g) noexcept {
  WinnerRows w;
  w.block = g.images >= 8 || g.channels < 128 ? std::max<std::int64_t>(g.channels, 1) : 64;
  w.pitch = ceil_div(w.block, std::int64_t{32}) * 32;
  const std::int64_t reach = (g.rows.kernel - 1) * g.rows.dilation;
  w.image_rows = std::min(reach + 1, std::max<std::int64_t>(g.rows.input, 1));
  w.window_rows = std::min(reach / g.rows.stride + 1, std::max<std::int64_t>(g.rows.output, 1));
  w.keys = g.columns.input * w.pitch, w.size = g.columns.output * w.pitch;
  w.numbers = static_cast<std::size_t>(w.keys + (2 * w.image_rows + w.window_rows) * w.size);
  return w;
}

// Where images begin; whether the gradient goes past the caches.
struct WinnerTensors {
  const BFloat16* input;
  const BFloat16* grad_output;
  BFloat16* grad_input;
  bool streamed;
};

// The gradient of one image, or of a block of its channels. `scratch` has rows.bytes().
class WinnersOfImage {
 public:
  WinnersOfImage(const WinnerTensors& tensors, const PoolGeometry& g, const WinnerRows& rows,
                 std::byte* scratch) noexcept
      : tensors_(tensors), g_(g), columns_(pool_columns(g)), rows_(rows) {
    keys_ = reinterpret_cast<std::int16_t*>(scratch);
    best_ = keys_ + rows.keys;
    taps_ = best_ + rows.image_rows * rows.size;
    winners_ = taps_ + rows.image_rows * rows.size;
  }

  void run(std::int64_t n, std::int64_t channel) noexcept {
    image_ = n, channel_ = channel, count_ = std::min(rows_.block, g_.channels - channel);
    const PoolAxis& v = g_.rows;
    std::int64_t compared = 0, done = 0;
    for (std::int64_t oh = 0; oh < v.output; ++oh) {
      const Taps t = v.taps(oh);
      if (t.first >= t.end) continue;
      // The rows that no later window holds.
      for (; done < std::min(t.start, v.input); ++done) give_row(done);
      // All from here on: of dilated windows the next may begin above this one's first tap inside.
      compared = std::max({compared, t.start, std::int64_t{0}});
      for (; compared <= t.start + (t.end - 1) * v.dilation; ++compared) compare_taps(compared);
      find_winners(oh, t);
    }
    for (; done < v.input; ++done) give_row(done);
  }

 private:
  std::int64_t pixel(std::int64_t ih) const noexcept {
    return image_ * g_.input_image() + ih * g_.input_row() + channel_;
  }
  std::int64_t at(std::int64_t ih) const noexcept { return ih % rows_.image_rows * rows_.size; }
  std::int16_t* winners(std::int64_t oh) const noexcept {
    return winners_ + oh % rows_.window_rows * rows_.size;
  }

  void compare_taps(std::int64_t ih) noexcept {
    MaxPoolTaps row{};
    row.input = tensors_.input + pixel(ih);
    row.channel_count = count_, row.pitch = rows_.pitch;
    row.keys = keys_, row.best = best_ + at(ih), row.taps = taps_ + at(ih);
    row.columns = &columns_;
    avx512::max_pool_taps(row);
  }

  void find_winners(std::int64_t oh, const Taps& t) noexcept {
    const std::int16_t *best[kMostWindowTaps], *taps[kMostWindowTaps];
    for (std::int64_t k = t.first; k < t.end; ++k) {
      const std::int64_t ih = t.start + k * g_.rows.dilation;
      best[k - t.first] = best_ + at(ih), taps[k - t.first] = taps_ + at(ih);
    }
    MaxPoolWinners row{};
    row.best = best, row.taps = taps, row.rows = t.end - t.first;
    row.row_taps = g_.columns.kernel, row.first_tap = t.first * row.row_taps;
    row.size = rows_.size, row.winners = winners(oh);
    avx512::max_pool_winners(row);
  }

  void give_row(std::int64_t ih) noexcept {
    const PoolAxis& v = g_.rows;
    const auto* const grad_output = tensors_.grad_output + channel_;
    const std::int64_t last = ih + v.before, below = last - (v.kernel - 1) * v.dilation;
    MaxPoolWindows windows[kMostWindowTaps];
    std::int64_t count = 0;
    for (std::int64_t oh = below <= 0 ? 0 : ceil_div(below, v.stride);
         oh <= last / v.stride && oh < v.output; ++oh) {
      const std::int64_t reach = last - oh * v.stride;
      if (reach % v.dilation != 0) continue;
      windows[count++] = {winners(oh), grad_output + (image_ * v.output + oh) * g_.output_row(),
                          reach / v.dilation * g_.columns.kernel};
    }
    MaxPoolGradOfRow row{};
    row.windows = windows, row.window_rows = count, row.pitch = rows_.pitch;
    row.grad_input = tensors_.grad_input + pixel(ih);
    row.channel_count = count_, row.columns = &columns_;
    const std::int64_t next = ih + rows_.image_rows;
    row.fetch = next < v.input ? tensors_.input + pixel(next) : nullptr;
    row.streamed = tensors_.streamed;
    row.disjoint = v.disjoint() && g_.columns.disjoint();
    avx512::max_pool_grad_of_row(row);
  }

  const WinnerTensors tensors_;
  const PoolGeometry g_;
  const PoolColumns columns_;
  const WinnerRows rows_;
  std::int16_t *keys_, *best_, *taps_, *winners_;
  std::int64_t image_ = 0, channel_ = 0, count_ = 0;
};

}  // namespace pycnn::cpu
#endif
