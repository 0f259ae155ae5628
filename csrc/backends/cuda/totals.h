#pragma once
#include "backends/cuda/launch.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/total_scratch.h"

// One sum over many elements, in float64: blocks leave the sums of equal pieces, and a last block
// adds these. The order depends on the count alone.
namespace pycnn::cuda {

// shared[0] becomes the sum of shared[0 .. Threads), Threads being a power of two.
template <int Threads, class BlockType, class Value, class Combine>
PYCNN_BOTH void combine_threads(BlockType& block, Value* shared, const Combine& combine) {
  for (int half = Threads / 2; half > 0; half /= 2)
    block.each([&](int thread, typename BlockType::Registers&) {
      if (thread < half) shared[thread] = combine(shared[thread], shared[thread + half]);
    });
}

struct Plus {
  template <class Value>
  PYCNN_BOTH Value operator()(Value a, Value b) const {
    return a + b;
  }
};

// The sum of term(i) for a thread's share of begin <= i < end; or of what a term adds up by
// vectors, several of which are on their way at once. Such a term has kWidth; Loaded, what it reads
// of a vector; load(i, n), which reads the first n <= kWidth elements from i on, the missing ones
// being zeros; and add(loaded, sum), to which zeros add nothing.
template <class Term>
PYCNN_BOTH double total_of_thread(const Term& term, int thread, std::int64_t begin,
                                  std::int64_t end) {
  double sum = 0.0;
  if constexpr (requires { Term::kWidth; }) {
    constexpr int kWidth = Term::kWidth, kAtOnce = 2;
    constexpr std::int64_t kStep = std::int64_t{kWidth} * kTotalThreads;
    std::int64_t i = begin + std::int64_t{kWidth} * thread;
    for (; i + (kAtOnce - 1) * kStep + kWidth <= end; i += kAtOnce * kStep) {
      typename Term::Loaded loaded[kAtOnce];
      PYCNN_UNROLL
      for (int k = 0; k < kAtOnce; ++k) loaded[k] = term.load(i + k * kStep, kWidth);
      PYCNN_UNROLL
      for (int k = 0; k < kAtOnce; ++k) term.add(loaded[k], sum);
    }
    for (; i < end; i += kStep)
      term.add(term.load(i, end - i < kWidth ? static_cast<int>(end - i) : kWidth), sum);
  } else {
    for (std::int64_t i = begin + thread; i < end; i += kTotalThreads) sum += term(i);
  }
  return sum;
}

// finish(block, the sum of all threads' shares). The kernel has kTotalThreads and as many numbers
// in shared memory.
template <class BlockType, class Term, class Finish>
PYCNN_BOTH void total_of_block(BlockType& block, const Term& term, const Finish& finish,
                               std::int64_t begin, std::int64_t end) {
  using Registers = typename BlockType::Registers;
  double* const sums = block.shared().sum;
  block.each(
      [&](int thread, Registers&) { sums[thread] = total_of_thread(term, thread, begin, end); });
  combine_threads<kTotalThreads>(block, sums, Plus{});
  block.last([&](int thread, Registers&) {
    if (thread == 0) finish(block.index(), sums[0]);
  });
}

// Term: as of total_of_thread. Finish: operator()(sum), once.
template <class Term, class Finish>
struct Total {
  static constexpr int kThreads = kTotalThreads;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  Term term;
  Finish finish;
  std::int64_t count, piece;

  PYCNN_BOTH void operator()(Block<Total>& block) const {
    const std::int64_t begin = block.index() * piece;
    total_of_block(block, term, finish, begin, begin + piece < count ? begin + piece : count);
  }
};

// Elements by the same number for all types, so that a tensor of 16 bits has the bits of the same
// one widened.
constexpr int kTotalWidth = 8;

template <class T>
struct SquareTerm {
  static constexpr int kWidth = kTotalWidth;
  using Loaded = Run<T, kWidth>;
  const T* values;
  PYCNN_BOTH Loaded load(std::int64_t i, int n) const { return load_run<kWidth>(values + i, n); }
  PYCNN_BOTH void add(const Loaded& loaded, double& sum) const {
    float x[kWidth];
    widen(loaded, x);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      const auto value = static_cast<double>(x[i]);
      sum += value * value;
    }
  }
};

struct KeepPiece {
  double* pieces;
  PYCNN_BOTH void operator()(std::int64_t piece, double sum) const { pieces[piece] = sum; }
};
struct PieceTerm {
  const double* pieces;
  PYCNN_BOTH double operator()(std::int64_t piece) const { return pieces[piece]; }
};

// `pieces`: total_pieces(count) of them. finish(0, sum) is called once, for an empty sum too.
template <class Term, class Finish>
void launch_total(DeviceQueue& queue, const Term& term, const Finish& finish, std::int64_t count,
                  double* pieces) {
  const std::int64_t parts = total_pieces(count);
  if (parts <= 1)  // the same bits: a sum of one
    return launch(queue, Total<Term, Finish>{term, finish, count, kTotalPiece}, 1);
  launch(queue, Total<Term, KeepPiece>{term, {pieces}, count, kTotalPiece}, parts);
  launch(queue, Total<PieceTerm, Finish>{{pieces}, finish, parts, parts}, 1);
}

}  // namespace pycnn::cuda
