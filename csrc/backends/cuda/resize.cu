#include "backends/cuda/divider.h"
#include "backends/cuda/map.h"
#include "backends/cuda/resize.h"

namespace pycnn::cuda {
namespace {

// A thread has a vector of channels of one pixel, or one channel.
template <class T, int Width>
struct Resize {
  static constexpr int kWidth = 1;
  ResizeParams p;
  WideDivider vectors, columns, rows;

  // Of an output that is not empty.
  explicit Resize(const ResizeParams& params)
      : p(params),
        vectors(params.channels / Width),
        columns(params.out_width),
        rows(params.out_height) {}

  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    std::int64_t vector = at;
    std::int64_t column = vectors.split(vector);
    std::int64_t row = columns.split(column);
    const std::int64_t n = rows.split(row);
    const T* const image =
        static_cast<const T*>(p.input) + n * p.height * p.width * p.channels + vector * Width;
    float sum[Width] = {};
    for (std::int64_t r = p.rows.first[row]; r < p.rows.first[row + 1]; ++r) {
      const ResizeTap vertical = p.rows.taps[r];
      for (std::int64_t k = p.columns.first[column]; k < p.columns.first[column + 1]; ++k) {
        const ResizeTap horizontal = p.columns.taps[k];
        const auto weight = static_cast<float>(vertical.weight * horizontal.weight);
        float x[Width];
        load(image + (vertical.source * p.width + horizontal.source) * p.channels, Width, x);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) sum[i] += weight * x[i];
      }
    }
    store(static_cast<T*>(p.output) + at * Width, Width, sum);
  }
};

}  // namespace

void resize(DeviceQueue& queue, Image image, const ResizeParams& params) {
  const std::int64_t count = params.images * params.out_height * params.out_width * params.channels;
  if (count == 0) return;
  with_vectors(image, params.channels, [&](auto type, auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue, Resize<decltype(type), kWidth>(params), count / kWidth);
  });
}

}  // namespace pycnn::cuda
