#include <algorithm>
#include <cstring>

#include "backends/cpu/select.h"
#include "backends/cpu/slice_runs.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Nothing is computed: a row of a window is a run of the image's row, as it is or pixel by pixel
// from its end, between two runs of `fill`; the box is written last.
namespace pycnn::cpu {
namespace {

// One row of places.
struct WindowPlace {
  std::int64_t image, top, left, mirrored, first_row, end_row, first_column, end_column;
};
static_assert(sizeof(WindowPlace) == 8 * sizeof(std::int64_t));

template <class T>
struct WindowImages {
  const T* data;
  std::int64_t count, height, width, channels;
};

template <class T>
struct Window {
  T* data;
  std::int64_t height, width;
};

template <class T>
void take_window(const WindowImages<T>& images, const WindowPlace& place, T fill,
                 const std::vector<double>& box_fill, const Window<T>& window) noexcept {
  const std::int64_t channels = images.channels, row_items = window.width * channels;
  const bool exists = place.image >= 0 && place.image < images.count;
  // Columns [first, last) of the row as it is in the image lie inside of that. Nothing is added to
  // a place before it is known to be near: it may be any number.
  const std::int64_t left = std::clamp(place.left, -window.width, images.width);
  const std::int64_t first = std::max<std::int64_t>(-left, 0);
  const std::int64_t last = std::clamp(images.width - left, first, window.width);
  const std::int64_t top = std::clamp(place.top, -window.height, images.height);
  for (std::int64_t y = 0; y < window.height; ++y) {
    T* const row = window.data + y * row_items;
    const std::int64_t from = top + y;
    if (!exists || from < 0 || from >= images.height || first >= last) {
      std::fill_n(row, row_items, fill);
      continue;
    }
    const T* const source =
        images.data +
        ((place.image * images.height + from) * images.width + left + first) * channels;
    const std::int64_t run = last - first;
    // What comes first, and its part before the run.
    const std::int64_t before = place.mirrored != 0 ? window.width - last : first;
    std::fill_n(row, before * channels, fill);
    T* const target = row + before * channels;
    if (place.mirrored == 0) {
      std::memcpy(target, source, static_cast<std::size_t>(run * channels) * sizeof(T));
    } else if (channels == 3) {
      for (std::int64_t x = 0; x < run; ++x)
        for (int c = 0; c < 3; ++c) target[3 * x + c] = source[3 * (run - 1 - x) + c];
    } else {
      for (std::int64_t x = 0; x < run; ++x)
        std::copy_n(source + (run - 1 - x) * channels, channels, target + x * channels);
    }
    std::fill_n(target + run * channels, (window.width - before - run) * channels, fill);
  }
  const std::int64_t end_row = std::min(place.end_row, window.height);
  const std::int64_t end_column = std::min(place.end_column, window.width);
  for (std::int64_t y = std::max<std::int64_t>(place.first_row, 0); y < end_row; ++y)
    for (std::int64_t x = std::max<std::int64_t>(place.first_column, 0); x < end_column; ++x)
      for (std::int64_t c = 0; c < channels; ++c)
        window.data[y * row_items + x * channels + c] = static_cast<T>(
            box_fill.empty() ? 0.0
                             : box_fill[box_fill.size() == 1 ? 0 : static_cast<std::size_t>(c)]);
}

template <class T>
void take_windows(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::TakeWindows>(args);
  const TensorView& input = args.inputs[0];
  const TensorView& output = args.outputs[0];
  const WindowImages<T> images{input.as<const T>(), input.dim(0), input.dim(1), input.dim(2),
                               input.dim(3)};
  const auto* const places = args.inputs[1].as<const WindowPlace>();
  const std::int64_t items = op.size[0] * op.size[1] * images.channels;
  if (items == 0) return;
  parallel_ranges(args.threads, output.dim(0),
                  run_grain(2 * items * static_cast<std::int64_t>(sizeof(T))),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t n = begin; n < end; ++n)
                      take_window(images, places[n], static_cast<T>(op.fill), op.box_fill,
                                  Window<T>{output.as<T>() + n * items, op.size[0], op.size[1]});
                  });
}

void take_windows_of(const KernelArgs& args) noexcept {
  switch (args.inputs[0].spec->dtype) {
    case DType::kUInt8:
      return take_windows<std::uint8_t>(args);
    case DType::kFloat64:
      return take_windows<double>(args);
    default:
      return take_windows<float>(args);
  }
}

}  // namespace

PYCNN_DEFINE_SINGLE_VARIANT(ops::TakeWindows, "take_windows.copy", plain_kernel<take_windows_of>)

}  // namespace pycnn::cpu
