#include <cmath>

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

// Axes that both sides go through as one are one.
void join_axes(BoxParams& p) {
  int axes = 0;  // the last one kept is axes - 1
  for (int axis = 0; axis < p.axes; ++axis) {
    if (p.shape[axis] == 1) continue;
    const bool joins = axes > 0 && p.input_step[axes - 1] == p.shape[axis] * p.input_step[axis] &&
                       p.output_step[axes - 1] == p.shape[axis] * p.output_step[axis];
    const std::int64_t before = joins ? p.shape[--axes] : 1;
    p.shape[axes] = before * p.shape[axis];
    p.input_step[axes] = p.input_step[axis];
    p.output_step[axes++] = p.output_step[axis];
  }
  p.axes = axes;
}

// Counts in words of so many elements, whose neighbours are neighbours on both sides and which lie
// at multiples of their size; false: they do not all.
bool widen(BoxParams& p, int elements, int word_bytes) {
  const int last = p.axes - 1;
  if (p.axes == 0 || p.input_step[last] != 1 || p.output_step[last] != 1) return false;
  const auto is_at_word = [&](const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % static_cast<std::uintptr_t>(word_bytes) == 0;
  };
  if (!is_at_word(p.input) || !is_at_word(p.output) || p.shape[last] % elements != 0) return false;
  for (int axis = 0; axis < last; ++axis)
    if (p.input_step[axis] % elements != 0 || p.output_step[axis] % elements != 0) return false;
  for (int axis = 0; axis < last; ++axis) {
    p.input_step[axis] /= elements;
    p.output_step[axis] /= elements;
  }
  p.shape[last] /= elements;
  p.count /= elements;
  return true;
}

template <class Word>
struct Fill {
  static constexpr int kWidth = kVector<Word>;
  Word* output;
  Word value;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    for (int i = 0; i < n; ++i) output[begin + i] = value;
  }
};

struct Largest {
  PYCNN_BOTH double operator()(double a, double b) const { return b > a || b != b ? b : a; }
};

// A block has one result.
template <class Combine>
struct Reduce {
  static constexpr int kThreads = 128;
  struct Shared {
    double result[kThreads];
  };
  struct Registers {};
  ReduceParams p;
  double neutral;

  PYCNN_BOTH void operator()(Block<Reduce>& block) const {
    const float* const input =
        p.input + offset_of(block.index(), p.kept, p.kept_shape, p.kept_step);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      double result = neutral;
      for (std::int64_t i = thread; i < p.terms; i += kThreads)
        result = Combine{}(
            result,
            static_cast<double>(input[offset_of(i, p.reduced, p.reduced_shape, p.reduced_step)]));
      shared.result[thread] = result;
    });
    combine_threads<kThreads>(block, shared.result, Combine{});
    block.last([&](int thread, Registers&) {
      if (thread == 0) p.output[block.index()] = static_cast<float>(shared.result[0] / p.divisor);
    });
  }
};

// The larger value wins, NaN over all; of equal ones the one that comes first, or last.
struct Place {
  float value;
  std::int64_t index;
};
PYCNN_BOTH bool wins(const Place& a, const Place& b, bool last) {
  if (is_nan(a.value) != is_nan(b.value)) return is_nan(a.value);
  if (a.value > b.value) return true;
  if (a.value < b.value) return false;
  return last ? a.index > b.index : a.index < b.index;
}

// A thread has one result.
struct ArgMaxScan {
  static constexpr int kWidth = 1;
  ArgMaxParams p;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const float* const x = p.input + at / p.inner * p.size * p.inner + at % p.inner;
    Place best{x[0], 0};
    for (std::int64_t i = 1; i < p.size; ++i) {
      const Place place{x[i * p.inner], i};
      if (wins(place, best, p.last)) best = place;
    }
    p.output[at] = best.index;
  }
};

// A block has one result, of a row of neighbours.
struct ArgMaxRow {
  static constexpr int kThreads = 128;
  struct Shared {
    Place best[kThreads];
  };
  struct Registers {};
  ArgMaxParams p;

  PYCNN_BOTH void operator()(Block<ArgMaxRow>& block) const {
    const float* const x = p.input + block.index() * p.size;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      // Threads beyond the row repeat its first place, which changes nothing.
      Place best{x[thread < p.size ? thread : 0], thread < p.size ? thread : 0};
      for (std::int64_t i = thread + kThreads; i < p.size; i += kThreads) {
        const Place place{x[i], i};
        if (wins(place, best, p.last)) best = place;
      }
      shared.best[thread] = best;
    });
    combine_threads<kThreads>(block, shared.best, [this](const Place& a, const Place& b) {
      return wins(b, a, p.last) ? b : a;
    });
    block.last([&](int thread, Registers&) {
      if (thread == 0) p.output[block.index()] = shared.best[0].index;
    });
  }
};

}  // namespace

void copy_box(DeviceQueue& queue, int item_bytes, const BoxParams& params) {
  BoxParams p = params;
  join_axes(p);
  if (widen(p, kVectorBytes / item_bytes, kVectorBytes))
    return launch_map(queue, CopyBox<Pack<std::uint32_t, 4>>{p}, p.count);
  with_word(item_bytes, [&](auto word) { launch_map(queue, CopyBox<decltype(word)>{p}, p.count); });
}

void fill(DeviceQueue& queue, void* output, int item_bytes, std::uint64_t value,
          std::int64_t count) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    launch_map(queue, Fill<Word>{static_cast<Word*>(output), static_cast<Word>(value)}, count);
  });
}

void reduce(DeviceQueue& queue, const ReduceParams& params) {
  if (params.maximum)
    launch(queue, Reduce<Largest>{params, -INFINITY}, params.outputs);
  else
    launch(queue, Reduce<Plus>{params, 0.0}, params.outputs);
}

void arg_max(DeviceQueue& queue, const ArgMaxParams& params) {
  if (params.inner == 1)
    launch(queue, ArgMaxRow{params}, params.outputs);
  else
    launch_map(queue, ArgMaxScan{params}, params.outputs);
}

}  // namespace pycnn::cuda
