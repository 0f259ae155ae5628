#pragma once
#include "backends/cuda/block.h"

// What chunks of pixels add to a weight's gradient, and to the bias', becomes one sum.
namespace pycnn::cuda {

// Chunks of sums, each of `count`, are added in float64: many of them by several threads, whose own
// sums are added in order.
struct ChunkSums {
  const float* sums;  // (chunk, count)
  float* output;
  std::int64_t chunks, count;

  PYCNN_BOTH int lanes() const { return chunks >= 64 ? 16 : chunks >= 16 ? 4 : 1; }
  PYCNN_BOTH std::int64_t blocks_of(int threads) const {
    if (chunks <= 1) return 0;  // the sums were all
    const std::int64_t columns = threads / lanes();
    return (count + columns - 1) / columns;
  }
};

// Of the weight's gradient and of the bias'.
struct AddChunks {
  static constexpr int kThreads = 256, kAtOnce = 4;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  ChunkSums weight, bias;

  PYCNN_BOTH std::int64_t blocks() const {
    return weight.blocks_of(kThreads) + bias.blocks_of(kThreads);
  }
  PYCNN_BOTH void operator()(Block<AddChunks>& block) const {
    const std::int64_t before = weight.blocks_of(kThreads);
    const bool is_weight = block.index() < before;
    const ChunkSums& of = is_weight ? weight : bias;
    const int lanes = of.lanes(), columns = kThreads / lanes;
    const std::int64_t first = (block.index() - (is_weight ? 0 : before)) * columns;
    double* const shared = block.shared().sum;
    block.each([&](int thread, Registers&) {
      const std::int64_t at = first + thread % columns;
      double sum = 0.0;
      if (at < of.count) {
        const std::int64_t step = std::int64_t{lanes} * of.count;
        const float* from = of.sums + thread / columns * of.count + at;
        std::int64_t left = (of.chunks - thread / columns + lanes - 1) / lanes;
        for (; left >= kAtOnce; left -= kAtOnce) {
          float values[kAtOnce];
          PYCNN_UNROLL
          for (int i = 0; i < kAtOnce; ++i) values[i] = from[i * step];
          PYCNN_UNROLL
          for (int i = 0; i < kAtOnce; ++i) sum += static_cast<double>(values[i]);
          from += kAtOnce * step;
        }
        for (; left > 0; --left, from += step) sum += static_cast<double>(*from);
      }
      shared[thread] = sum;
    });
    block.last([&](int thread, Registers&) {
      const std::int64_t at = first + thread;
      if (thread >= columns || at >= of.count) return;
      double sum = 0.0;
      for (int lane = 0; lane < lanes; ++lane) sum += shared[lane * columns + thread];
      of.output[at] = static_cast<float>(sum);
    });
  }
};

}  // namespace pycnn::cuda
