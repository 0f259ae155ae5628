#include <cmath>

#include "backends/cuda/divider.h"
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

// Places of some axes by their number. Axes that follow one another are one.
struct Places {
  int axes = 0;
  std::int64_t step[kMaxBoxAxes] = {};
  WideDivider shape[kMaxBoxAxes];

  Places(int count, const std::int64_t* sizes, const std::int64_t* steps) {
    std::int64_t joined[kMaxBoxAxes] = {};
    for (int axis = 0; axis < count; ++axis) {
      if (sizes[axis] <= 1) continue;
      const bool joins = axes > 0 && step[axes - 1] == sizes[axis] * steps[axis];
      const std::int64_t before = joins ? joined[--axes] : 1;
      joined[axes] = before * sizes[axis];
      step[axes++] = steps[axis];
    }
    for (int axis = 0; axis < axes; ++axis) shape[axis] = WideDivider(joined[axis]);
  }
  bool are_neighbours() const { return axes > 0 && step[axes - 1] == 1; }
  PYCNN_BOTH std::int64_t operator()(std::int64_t at) const {
    std::int64_t offset = 0;
    for (int axis = axes - 1; axis > 0; --axis) {
      const std::int64_t rest = shape[axis].split(at);
      offset += at * step[axis];
      at = rest;
    }
    return axes > 0 ? offset + at * step[0] : 0;
  }
};

// Results of few terms, or whose terms lie apart, are made side by side: `across` of them, a power
// of two, by a block, whose threads share their terms. Others have a block each. Where that makes
// few blocks, terms are cut into pieces, and a block more for each result adds these.
constexpr int kReduceThreads = 256;
struct ReducePlan {
  int across = 1;
  std::int64_t pieces = 1, piece = 0;

  explicit ReducePlan(const ReduceParams& p) {
    constexpr std::int64_t kFew = 32, kWantedBlocks = 528, kLeastTerms = 16;  // of a thread
    const Places kept(p.kept, p.kept_shape, p.kept_step);
    const Places reduced(p.reduced, p.reduced_shape, p.reduced_step);
    if (p.terms < kFew || (kept.are_neighbours() && !reduced.are_neighbours()))
      while (across < kReduceThreads && across < p.outputs &&
             (across < kFew || kReduceThreads / across > p.terms))
        across *= 2;
    const std::int64_t blocks = (p.outputs + across - 1) / across;
    const std::int64_t least = kReduceThreads / across * kLeastTerms;
    const std::int64_t most = (p.terms + least - 1) / least;
    const std::int64_t wanted = blocks > 0 ? (kWantedBlocks + blocks - 1) / blocks : 1;
    pieces = most < wanted ? most : wanted;
    if (pieces < 1) pieces = 1;
    piece = (p.terms + pieces - 1) / pieces;
  }
};

template <class Combine, class From>
struct Reduce {
  static constexpr int kThreads = kReduceThreads, kAtOnce = 4;
  struct Shared {
    double result[kThreads];
  };
  struct Registers {};
  const From* input;
  float* output;     // of one piece
  double* partials;  // (result, piece)
  Places kept, reduced;
  std::int64_t outputs, terms, pieces, piece;
  int across;
  double divisor, neutral;

  PYCNN_BOTH std::int64_t tiles() const { return (outputs + across - 1) / across; }
  PYCNN_BOTH std::int64_t blocks() const { return tiles() * pieces; }
  PYCNN_BOTH void operator()(Block<Reduce>& block) const {
    const std::int64_t first = block.index() % tiles() * across, part = block.index() / tiles();
    const std::int64_t begin = part * piece, rest = terms - begin;
    const std::int64_t end = begin + (rest < piece ? rest : piece);
    const int down = kThreads / across;
    double* const shared = block.shared().result;
    block.each([&](int thread, Registers&) {
      const std::int64_t at = first + thread % across;
      double result = neutral;
      if (at < outputs) {
        const From* const from = input + kept(at);
        std::int64_t i = begin + thread / across;
        for (; i + (kAtOnce - 1) * down < end; i += kAtOnce * down) {
          From values[kAtOnce];
          PYCNN_UNROLL
          for (int k = 0; k < kAtOnce; ++k) values[k] = from[reduced(i + k * down)];
          PYCNN_UNROLL
          for (int k = 0; k < kAtOnce; ++k)
            result = Combine{}(result, static_cast<double>(values[k]));
        }
        for (; i < end; i += down)
          result = Combine{}(result, static_cast<double>(from[reduced(i)]));
      }
      shared[thread] = result;
    });
    for (int half = kThreads / 2; half >= across; half /= 2)
      block.each([&](int thread, Registers&) {
        if (thread < half) shared[thread] = Combine{}(shared[thread], shared[thread + half]);
      });
    block.last([&](int thread, Registers&) {
      const std::int64_t at = first + thread;
      if (thread >= across || at >= outputs) return;
      if (pieces > 1)
        partials[at * pieces + part] = shared[thread];
      else
        output[at] = static_cast<float>(shared[thread] / divisor);
    });
  }
};

template <class Combine>
void launch_reduce(DeviceQueue& queue, const ReduceParams& p, double neutral, void* scratch) {
  const ReducePlan plan(p);
  auto* const partials = static_cast<double*>(scratch);
  const Reduce<Combine, float> kernel{p.input,
                                      p.output,
                                      partials,
                                      Places(p.kept, p.kept_shape, p.kept_step),
                                      Places(p.reduced, p.reduced_shape, p.reduced_step),
                                      p.outputs,
                                      p.terms,
                                      plan.pieces,
                                      plan.piece,
                                      plan.across,
                                      p.divisor,
                                      neutral};
  launch(queue, kernel, kernel.blocks());
  if (plan.pieces == 1) return;
  const std::int64_t one = 1;
  const Reduce<Combine, double> rest{partials,
                                     p.output,
                                     nullptr,
                                     Places(1, &p.outputs, &plan.pieces),
                                     Places(1, &plan.pieces, &one),
                                     p.outputs,
                                     plan.pieces,
                                     1,
                                     plan.pieces,
                                     1,
                                     p.divisor,
                                     neutral};
  launch(queue, rest, rest.blocks());
}

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

std::int64_t reduce_scratch_bytes(const ReduceParams& params) {
  const std::int64_t pieces = ReducePlan(params).pieces;
  return pieces > 1 ? params.outputs * pieces * static_cast<std::int64_t>(sizeof(double)) : 0;
}

void reduce(DeviceQueue& queue, const ReduceParams& params, void* scratch) {
  if (params.maximum)
    launch_reduce<Largest>(queue, params, -INFINITY, scratch);
  else
    launch_reduce<Plus>(queue, params, 0.0, scratch);
}

void arg_max(DeviceQueue& queue, const ArgMaxParams& params) {
  if (params.inner == 1)
    launch(queue, ArgMaxRow{params}, params.outputs);
  else
    launch_map(queue, ArgMaxScan{params}, params.outputs);
}

}  // namespace pycnn::cuda
