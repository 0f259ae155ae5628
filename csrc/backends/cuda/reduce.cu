#include <cmath>

#include "backends/cuda/divider.h"
#include "backends/cuda/move.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

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
  bool is_row() const { return axes == 1 && step[0] == 1; }
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

// How many numbers a thread reads at once where they are neighbours: terms of one result, or a term
// each of several results. By the numbers alone, as the order of sums is.
constexpr int kNeighbours = 4;
struct ReduceWidths {
  int terms = 1, results = 1;

  explicit ReduceWidths(const ReduceParams& p) {
    const Places kept(p.kept, p.kept_shape, p.kept_step);
    const Places reduced(p.reduced, p.reduced_shape, p.reduced_step);
    // Of a single row the end may be shorter.
    if (are_vectors(reduced) || (reduced.is_row() && kept.axes == 0))
      terms = kNeighbours;
    else if (are_vectors(kept))
      results = kNeighbours;
  }

 private:
  // The tensor is in one piece: where the last of its axes are whole vectors, all others go by
  // those.
  static bool are_vectors(const Places& places) {
    return places.are_neighbours() && places.shape[places.axes - 1].divisor % kNeighbours == 0;
  }
};

// Results of few terms, or whose terms lie apart, are made side by side: `across` columns of them,
// a power of two, by a block, whose threads share their terms. Others have a block each. Where that
// makes few blocks, terms are cut into pieces, and a block more for each result adds these.
constexpr int kReduceThreads = 256;
struct ReducePlan {
  ReduceWidths widths;
  int across = 1;
  std::int64_t pieces = 1, piece = 0;

  explicit ReducePlan(const ReduceParams& p) : widths(p) {
    constexpr std::int64_t kFew = 32, kWantedBlocks = 528, kLeastNumbers = 16;  // of a thread
    const Places kept(p.kept, p.kept_shape, p.kept_step);
    const Places reduced(p.reduced, p.reduced_shape, p.reduced_step);
    const std::int64_t columns = parts_of(p.outputs, widths.results);
    const std::int64_t lines = parts_of(p.terms, widths.terms);
    if (p.terms < kFew || (kept.are_neighbours() && !reduced.are_neighbours()))
      while (across < kReduceThreads && across < columns &&
             (across < kFew || kReduceThreads / across > lines))
        across *= 2;
    const std::int64_t blocks = parts_of(columns, across);
    const std::int64_t least = kReduceThreads / across * kLeastNumbers / widths.results;
    const std::int64_t most = parts_of(p.terms, least);
    const std::int64_t wanted = blocks > 0 ? parts_of(kWantedBlocks, blocks) : 1;
    pieces = most < wanted ? most : wanted;
    if (pieces < 1) pieces = 1;
    piece = parts_of(parts_of(p.terms, pieces), widths.terms) * widths.terms;
  }

 private:
  static std::int64_t parts_of(std::int64_t whole, std::int64_t part) {
    return (whole + part - 1) / part;
  }
};

// A thread reads Terms neighbours of one result, or one term of each of Results neighbours.
template <class Combine, class From, int Terms, int Results>
struct Reduce {
  static_assert(Terms == 1 || Results == 1);
  static constexpr int kThreads = kReduceThreads, kAtOnce = 4, kWidth = Terms * Results;
  struct Shared {
    double result[Results][kThreads];
  };
  struct Registers {};
  const From* input;
  float* output;     // of one piece
  double* partials;  // (result, piece)
  Places kept, reduced;
  std::int64_t outputs, terms, pieces, piece;
  int across;
  double divisor, neutral;

  PYCNN_BOTH std::int64_t tiles() const {
    return (outputs + across * Results - 1) / (across * Results);
  }
  PYCNN_BOTH std::int64_t blocks() const { return tiles() * pieces; }

  PYCNN_BOTH static void combine(const Run<From, kWidth>& run, int n, double (&result)[Results]) {
    PYCNN_UNROLL
    for (int w = 0; w < kWidth; ++w) {
      double& to = result[Results == 1 ? 0 : w];
      const From value =
          run.part[w / Run<From, kWidth>::kPart].element[w % Run<From, kWidth>::kPart];
      if (w < n) to = Combine{}(to, static_cast<double>(value));
    }
  }

  PYCNN_BOTH void operator()(Block<Reduce>& block) const {
    const std::int64_t first = block.index() % tiles() * across * Results;
    const std::int64_t part = block.index() / tiles();
    const std::int64_t begin = part * piece, rest = terms - begin;
    const std::int64_t end = begin + (rest < piece ? rest : piece);
    const std::int64_t step = std::int64_t{Terms} * (kThreads / across);
    auto& shared = block.shared().result;
    block.each([&](int thread, Registers&) {
      const std::int64_t at = first + thread % across * Results;
      double result[Results];
      PYCNN_UNROLL
      for (int r = 0; r < Results; ++r) result[r] = neutral;
      if (at < outputs) {
        const From* const from = input + kept(at);
        std::int64_t i = begin + std::int64_t{Terms} * (thread / across);
        for (; i + (kAtOnce - 1) * step + Terms <= end; i += kAtOnce * step) {
          Run<From, kWidth> runs[kAtOnce];
          PYCNN_UNROLL
          for (int k = 0; k < kAtOnce; ++k)
            runs[k] = load_run<kWidth>(from + reduced(i + k * step), kWidth);
          PYCNN_UNROLL
          for (int k = 0; k < kAtOnce; ++k) combine(runs[k], kWidth, result);
        }
        for (; i < end; i += step) {
          const int n = Terms > 1 && end - i < Terms ? static_cast<int>(end - i) : kWidth;
          combine(load_run<kWidth>(from + reduced(i), n), n, result);
        }
      }
      PYCNN_UNROLL
      for (int r = 0; r < Results; ++r) shared[r][thread] = result[r];
    });
    for (int half = kThreads / 2; half >= across; half /= 2)
      block.each([&](int thread, Registers&) {
        if (thread >= half) return;
        PYCNN_UNROLL
        for (int r = 0; r < Results; ++r)
          shared[r][thread] = Combine{}(shared[r][thread], shared[r][thread + half]);
      });
    block.last([&](int thread, Registers&) {
      const std::int64_t at = first + thread * Results;
      if (thread >= across || at >= outputs) return;
      if (pieces > 1) {
        for (int r = 0; r < Results; ++r) partials[(at + r) * pieces + part] = shared[r][thread];
        return;
      }
      float results[Results];
      PYCNN_UNROLL
      for (int r = 0; r < Results; ++r)
        results[r] = static_cast<float>(shared[r][thread] / divisor);
      store_run(output + at, results);
    });
  }
};

template <class Combine, int Terms, int Results>
void launch_reduce(DeviceQueue& queue, const ReduceParams& p, const ReducePlan& plan,
                   double neutral, void* scratch) {
  auto* const partials = static_cast<double*>(scratch);
  const Reduce<Combine, float, Terms, Results> kernel{
      p.input,
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
  const Reduce<Combine, double, 1, 1> rest{partials,
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

template <class Combine>
void launch_reduce(DeviceQueue& queue, const ReduceParams& p, double neutral, void* scratch) {
  const ReducePlan plan(p);
  if (plan.widths.terms > 1)
    launch_reduce<Combine, kNeighbours, 1>(queue, p, plan, neutral, scratch);
  else if (plan.widths.results > 1)
    launch_reduce<Combine, 1, kNeighbours>(queue, p, plan, neutral, scratch);
  else
    launch_reduce<Combine, 1, 1>(queue, p, plan, neutral, scratch);
}

}  // namespace

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

}  // namespace pycnn::cuda
