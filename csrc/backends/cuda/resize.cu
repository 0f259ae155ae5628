#include "backends/cuda/map.h"
#include "backends/cuda/resize.h"

namespace pycnn::cuda {
namespace {

template <class T>
struct Resize {
  static constexpr int kWidth = 1;
  ResizeParams p;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t c = at % p.channels, pixel = at / p.channels;
    const std::int64_t column = pixel % p.out_width, row = pixel / p.out_width % p.out_height;
    const std::int64_t n = pixel / p.out_width / p.out_height;
    const T* const image = static_cast<const T*>(p.input) + n * p.height * p.width * p.channels + c;
    float sum = 0.0f;
    for (std::int64_t r = p.rows.first[row]; r < p.rows.first[row + 1]; ++r) {
      const ResizeTap vertical = p.rows.taps[r];
      for (std::int64_t k = p.columns.first[column]; k < p.columns.first[column + 1]; ++k) {
        const ResizeTap horizontal = p.columns.taps[k];
        const auto weight = static_cast<float>(vertical.weight * horizontal.weight);
        sum +=
            weight * widened(image[(vertical.source * p.width + horizontal.source) * p.channels]);
      }
    }
    narrow(sum, static_cast<T*>(p.output)[at]);
  }
};

}  // namespace

void resize(DeviceQueue& queue, Image image, const ResizeParams& params) {
  with_image(image, [&](auto type) {
    launch_map(queue, Resize<decltype(type)>{params},
               params.images * params.out_height * params.out_width * params.channels);
  });
}

}  // namespace pycnn::cuda
