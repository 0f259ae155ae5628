#include "backends/cuda/divider.h"
#include "backends/cuda/map.h"
#include "backends/cuda/move.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

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

// A thread has Width neighbours of the output: they are written at once, and read so where they are
// neighbours of the input, too; or it has one element, wherever that is.
template <class Word, int Width>
struct CopyBox {
  static constexpr int kWidth = Width;
  BoxParams p;
  WideDivider size[kMaxBoxAxes];

  // Of a box that is not empty.
  explicit CopyBox(const BoxParams& params) : p(params) {
    for (int axis = 0; axis < p.axes; ++axis) size[axis] = WideDivider(p.shape[axis]);
  }

  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    std::int64_t rest = begin, input_place = 0, output_place = 0;
    for (int axis = p.axes - 1; axis >= 0; --axis) {
      std::int64_t i = rest;
      if (axis > 0) rest = size[axis].split(i);
      input_place += i * p.input_step[axis];
      output_place += i * p.output_step[axis];
    }
    const Word* const from = static_cast<const Word*>(p.input) + input_place;
    const std::int64_t step = p.axes > 0 ? p.input_step[p.axes - 1] : 1;
    Pack<Word, Width> pack;
    if (step == 1) {
      pack = load_run<Width>(from, n).part[0];
    } else {
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) pack.element[i] = i < n ? from[i * step] : Word{};
    }
    store_pack(static_cast<Word*>(p.output) + output_place, n, pack);
  }
};

// Whether every `Width` elements of a row, the last axis, are neighbours of the output and can be
// written at once; else neighbours are better written by neighbouring threads. Of a single row the
// end may be shorter.
template <class Word, int Width>
bool goes_by_vectors(const BoxParams& p) {
  if (p.axes == 0 || p.output_step[p.axes - 1] != 1) return false;
  if (reinterpret_cast<std::uintptr_t>(p.output) % (Width * sizeof(Word)) != 0) return false;
  for (int axis = 0; axis < p.axes - 1; ++axis)
    if (p.output_step[axis] % Width != 0) return false;
  return p.axes == 1 || p.shape[p.axes - 1] % Width == 0;
}

template <class Word>
struct Fill {
  static constexpr int kWidth = kVector<Word>;
  Word* output;
  Word value;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    Pack<Word, kWidth> pack;
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) pack.element[i] = value;
    store_pack(output + begin, n, pack);
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
  if (params.count == 0) return;
  BoxParams p = params;
  join_axes(p);
  if (transpose_box(queue, item_bytes, p)) return;
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    constexpr int kWidth = kVector<Word>;
    if (goes_by_vectors<Word, kWidth>(p))
      launch_map(queue, CopyBox<Word, kWidth>(p), p.count);
    else if (goes_by_vectors<Word, kWidth / 2>(p))
      launch_map(queue, CopyBox<Word, kWidth / 2>(p), p.count);
    else
      launch_map(queue, CopyBox<Word, 1>(p), p.count);
  });
}

void fill(DeviceQueue& queue, void* output, int item_bytes, std::uint64_t value,
          std::int64_t count) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    launch_map(queue, Fill<Word>{static_cast<Word*>(output), static_cast<Word>(value)}, count);
  });
}

void arg_max(DeviceQueue& queue, const ArgMaxParams& params) {
  if (params.inner == 1)
    launch(queue, ArgMaxRow{params}, params.outputs);
  else
    launch_map(queue, ArgMaxScan{params}, params.outputs);
}

}  // namespace pycnn::cuda
