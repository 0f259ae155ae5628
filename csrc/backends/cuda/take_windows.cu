#include <type_traits>

#include "backends/cuda/map.h"
#include "backends/cuda/take_windows.h"

namespace pycnn::cuda {
namespace {

PYCNN_BOTH std::int64_t clamped(std::int64_t value, std::int64_t low, std::int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// A thread makes 16 bytes of the windows, which may reach over ends of rows and windows; it looks
// for the pixel again where one begins.
template <class From, class To>
struct Windows {
  static constexpr int kWidth = kVector<To>;
  TakeWindowsParams p;

  // Where a pixel of a window is from.
  struct Source {
    const From* pixel;  // null: from nowhere
    bool is_hidden;     // by the box
  };

  PYCNN_BOTH Source find(std::int64_t window, int y, int x) const {
    const std::int64_t* const place = p.places + 8 * window;
    if (y >= place[4] && y < place[5] && x >= place[6] && x < place[7]) return {nullptr, true};
    const std::int64_t image = place[0];
    const std::int64_t row = clamped(place[1], -p.window_height, p.height) + y;
    const std::int64_t column =
        clamped(place[2], -p.window_width, p.width) + (place[3] != 0 ? p.window_width - 1 - x : x);
    if (image < 0 || image >= p.images_count || row < 0 || row >= p.height || column < 0 ||
        column >= p.width)
      return {nullptr, false};
    return {static_cast<const From*>(p.images) +
                ((image * p.height + row) * p.width + column) * p.channels,
            false};
  }

  PYCNN_BOTH To value_of(const Source& source, int c) const {
    float value = p.fill;
    if (source.pixel != nullptr)
      value = widened(source.pixel[c]);
    else if (source.is_hidden)
      value = p.box_table != nullptr ? p.box_table[c] : p.box_fill[c < p.box_fills ? c : 0];
    if constexpr (std::is_same_v<To, std::uint8_t>) {
      return static_cast<std::uint8_t>(value);
    } else {
      To result{};
      narrow(p.normalizes ? p.factors.normalized(value, c < p.factors.channels ? c : 0) : value,
             result);
      return result;
    }
  }

  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    std::int64_t rest = begin;
    std::int64_t window = p.window_items.split(rest);
    auto item = static_cast<std::uint32_t>(rest);
    int y = static_cast<int>(p.row_items.split(item));
    int x = static_cast<int>(p.pixel_items.split(item));
    int c = static_cast<int>(item);
    Source source = find(window, y, x);
    Pack<To, kWidth> pack;
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      if (i >= n) continue;
      pack.element[i] = value_of(source, c);
      if (++c < p.channels || i + 1 >= n) continue;
      c = 0;
      if (++x == p.window_width) {
        x = 0;
        if (++y == p.window_height) {
          y = 0;
          ++window;
        }
      }
      source = find(window, y, x);
    }
    To* const to = static_cast<To*>(p.output) + begin;
    if (n == kWidth && is_one_access<To, kWidth>(to)) {
      *reinterpret_cast<Pack<To, kWidth>*>(to) = pack;
    } else {
      PYCNN_UNROLL
      for (int i = 0; i < kWidth; ++i)
        if (i < n) to[i] = pack.element[i];
    }
  }
};

}  // namespace

void take_windows(DeviceQueue& queue, const TakeWindowsParams& params) {
  if (params.bytes)
    launch_map(queue, Windows<std::uint8_t, std::uint8_t>{params}, params.count);
  else
    launch_map(queue, Windows<float, float>{params}, params.count);
}

void take_windows(DeviceQueue& queue, Image output, const TakeWindowsParams& params) {
  with_image(output, [&](auto type) {
    using To = decltype(type);
    if (params.bytes)
      launch_map(queue, Windows<std::uint8_t, To>{params}, params.count);
    else
      launch_map(queue, Windows<float, To>{params}, params.count);
  });
}

}  // namespace pycnn::cuda
