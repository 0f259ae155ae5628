#include "backends/cuda/compare.h"
#include "backends/cuda/launch.h"

namespace pycnn::cuda {

void compare(DeviceQueue& queue, Image image, const Comparison& comparison) {
  with_vectors(image, comparison.channels, [&](auto type, auto width) {
    launch(queue, CompareRows<decltype(type), decltype(width)::value>{comparison},
           comparison.pieces());
  });
}

}  // namespace pycnn::cuda
