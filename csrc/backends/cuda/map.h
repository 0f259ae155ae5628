#pragma once
#include "backends/cuda/launch.h"

// function(begin, n) for every run of Function::kWidth of `count` elements, the last one shorter.
namespace pycnn::cuda {

template <class Function>
struct Map {
  static constexpr int kThreads = 256;
  static constexpr std::int64_t kTile = std::int64_t{kThreads} * Function::kWidth;
  struct Shared {};
  struct Registers {};
  Function function;
  std::int64_t count;

  PYCNN_BOTH void operator()(Block<Map>& block) const {
    const std::int64_t tile = block.index() * kTile;
    block.last([&](int thread, Registers&) {
      const std::int64_t begin = tile + std::int64_t{thread} * Function::kWidth;
      const std::int64_t left = count - begin;
      if (left > 0)
        function(begin, left < Function::kWidth ? static_cast<int>(left) : Function::kWidth);
    });
  }
};

template <class Function>
void launch_map(DeviceQueue& queue, const Function& function, std::int64_t count) {
  launch(queue, Map<Function>{function, count},
         (count + Map<Function>::kTile - 1) / Map<Function>::kTile);
}

}  // namespace pycnn::cuda
