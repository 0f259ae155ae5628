#include "backends/cuda/map.h"
#include "backends/cuda/move.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

PYCNN_BOTH std::int64_t offset_of(std::int64_t at, int axes, const std::int64_t* shape,
                                  const std::int64_t* step) {
  std::int64_t offset = 0;
  for (int axis = axes - 1; axis >= 0; --axis) {
    offset += at % shape[axis] * step[axis];
    at /= shape[axis];
  }
  return offset;
}

template <class Word>
struct CopyBox {
  static constexpr int kWidth = 1;
  BoxParams p;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    static_cast<Word*>(p.output)[offset_of(at, p.axes, p.shape, p.output_step)] =
        static_cast<const Word*>(p.input)[offset_of(at, p.axes, p.shape, p.input_step)];
  }
};

template <class Word>
struct Fill {
  static constexpr int kWidth = kVector<Word>;
  Word* output;
  Word value;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    for (int i = 0; i < n; ++i) output[begin + i] = value;
  }
};

// f with a value of an unsigned type of that size.
template <class F>
void with_word(int item_bytes, const F& f) {
  switch (item_bytes) {
    case 1:
      return f(std::uint8_t{});
    case 2:
      return f(std::uint16_t{});
    case 4:
      return f(std::uint32_t{});
    default:
      return f(std::uint64_t{});
  }
}

// A block has one result.
struct Reduce {
  static constexpr int kThreads = 128;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  ReduceParams p;

  PYCNN_BOTH void operator()(Block<Reduce>& block) const {
    const float* const input =
        p.input + offset_of(block.index(), p.kept, p.kept_shape, p.kept_step);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      double sum = 0.0;
      for (std::int64_t i = thread; i < p.terms; i += kThreads)
        sum += static_cast<double>(input[offset_of(i, p.reduced, p.reduced_shape, p.reduced_step)]);
      shared.sum[thread] = sum;
    });
    combine_threads<kThreads>(block, shared.sum, Plus{});
    block.last([&](int thread, Registers&) {
      if (thread != 0) return;
      const double sum = shared.sum[0];
      p.output[block.index()] =
          static_cast<float>(p.mean ? sum / static_cast<double>(p.terms) : sum);
    });
  }
};

}  // namespace

void copy_box(DeviceQueue& queue, int item_bytes, const BoxParams& params) {
  with_word(item_bytes,
            [&](auto word) { launch_map(queue, CopyBox<decltype(word)>{params}, params.count); });
}

void fill(DeviceQueue& queue, void* output, int item_bytes, std::uint64_t value,
          std::int64_t count) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    launch_map(queue, Fill<Word>{static_cast<Word*>(output), static_cast<Word>(value)}, count);
  });
}

void reduce(DeviceQueue& queue, const ReduceParams& params) {
  launch(queue, Reduce{params}, params.outputs);
}

}  // namespace pycnn::cuda
