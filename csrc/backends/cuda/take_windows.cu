#include <type_traits>

#include "backends/cuda/map.h"
#include "backends/cuda/take_windows.h"

namespace pycnn::cuda {
namespace {

PYCNN_BOTH std::int64_t clamped(std::int64_t value, std::int64_t low, std::int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// Bytes from anywhere, by the words that hold them: up to 3 before and 3 behind them are read, too.
constexpr int kWordBytes = 4;
template <int Count>
PYCNN_BOTH void load_bytes(const std::uint8_t* from, float (&to)[Count]) {
  static_assert(Count % kWordBytes == 0);
  const auto before = static_cast<int>(reinterpret_cast<std::uintptr_t>(from) % kWordBytes);
  const auto* const words = reinterpret_cast<const std::uint32_t*>(from - before);
  std::uint32_t word[Count / kWordBytes + 1];
  PYCNN_UNROLL
  for (int w = 0; w < Count / kWordBytes; ++w) word[w] = words[w];
  word[Count / kWordBytes] = before != 0 ? words[Count / kWordBytes] : 0u;
  PYCNN_UNROLL
  for (int w = 0; w < Count / kWordBytes; ++w) {
    const std::uint64_t both = std::uint64_t{word[w + 1]} << 32 | word[w];
    const auto bytes = static_cast<std::uint32_t>(both >> (8 * before));
    PYCNN_UNROLL
    for (int i = 0; i < kWordBytes; ++i)
      to[w * kWordBytes + i] = static_cast<float>(bytes >> (8 * i) & 0xFFu);
  }
}

// A thread makes 16 bytes of the windows. Those of one row that are all from an image are read at
// once, unless it is mirrored. Others may reach over ends of rows and windows: it looks for the
// pixel again where one begins.
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

  // Pixels from x to last_x of a row: where the first is from, and elements from one to the next.
  struct Stretch {
    const From* pixel;  // null: not all are from an image
    std::int64_t step;
  };
  PYCNN_BOTH Stretch find_all(std::int64_t window, int y, int x, int last_x) const {
    constexpr Stretch kNotAll{nullptr, 0};
    const std::int64_t* const place = p.places + 8 * window;
    if (y >= place[4] && y < place[5] && last_x >= place[6] && x < place[7]) return kNotAll;
    const std::int64_t image = place[0];
    const std::int64_t row = clamped(place[1], -p.window_height, p.height) + y;
    const std::int64_t left = clamped(place[2], -p.window_width, p.width);
    const bool is_mirrored = place[3] != 0;
    const std::int64_t first = left + (is_mirrored ? p.window_width - 1 - last_x : x);
    const std::int64_t last = first + (last_x - x);
    if (image < 0 || image >= p.images_count || row < 0 || row >= p.height || first < 0 ||
        last >= p.width)
      return kNotAll;
    return {static_cast<const From*>(p.images) +
                ((image * p.height + row) * p.width + (is_mirrored ? last : first)) * p.channels,
            is_mirrored ? -p.channels : p.channels};
  }

  PYCNN_BOTH void load_neighbours(const From* from, float (&to)[kWidth]) const {
    if constexpr (std::is_same_v<From, std::uint8_t>) {
      const auto* const images = static_cast<const From*>(p.images);
      const std::int64_t first = from - images;
      const std::int64_t end = p.images_count * p.height * p.width * p.channels;
      if (first >= kWordBytes - 1 && first + kWidth + kWordBytes - 1 <= end)
        return load_bytes(from, to);
    }
    load_run(from, to);
  }

  PYCNN_BOTH To value_of(const Source& source, int c) const {
    float value = p.fill;
    if (source.pixel != nullptr)
      value = widened(source.pixel[c]);
    else if (source.is_hidden)
      value = p.box_table != nullptr ? p.box_table[c] : p.box_fill[c < p.box_fills ? c : 0];
    return finished(value, c);
  }

  PYCNN_BOTH To finished(float value, int c) const {
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
    To* const to = static_cast<To*>(p.output) + begin;
    Pack<To, kWidth> pack;
    const int last_x = x + static_cast<int>(p.pixel_items.quotient(item + kWidth - 1));
    if (n == kWidth && last_x < p.window_width) {
      const Stretch all = find_all(window, y, x, last_x);
      if (all.pixel != nullptr) {
        float values[kWidth];
        if (all.step > 0) {
          load_neighbours(all.pixel + c, values);
        } else {
          const From* pixel = all.pixel;
          int channel = c;
          PYCNN_UNROLL
          for (int i = 0; i < kWidth; ++i) {
            values[i] = widened(pixel[channel]);
            if (++channel < p.channels || i + 1 == kWidth) continue;
            channel = 0;
            pixel += all.step;
          }
        }
        PYCNN_UNROLL
        for (int i = 0; i < kWidth; ++i) {
          pack.element[i] = finished(values[i], c);
          c = c + 1 == p.channels ? 0 : c + 1;
        }
        return store_pack(to, kWidth, pack);
      }
    }
    Source source = find(window, y, x);
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
    store_pack(to, n, pack);
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
