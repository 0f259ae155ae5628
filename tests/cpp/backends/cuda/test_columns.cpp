// Sums over rows: how much a thread reads at a time, and that neither that nor the order of threads
// changes a bit.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <vector>

#include "backends/cuda/column_kernels.h"
#include "backends/cuda/run_blocks.h"

namespace pycnn::cuda {
namespace {

// Numbers of no order, and their squares.
float number(std::int64_t row, std::int64_t c) {
  return static_cast<float>((row * 7919 + c * 104729) % 1013 - 506) * 0.01f;
}

// How often rows are read.
int reads;

template <int Width>
struct CountedTerm {
  static constexpr int kSums = 2, kWidth = Width;
  using Channels = NoChannels;
  std::int64_t channels;
  void operator()(const Channels&, std::int64_t row, std::int64_t c, int n,
                  float (&values)[2][kWidth]) const {
    ++reads;
    CHECK(c + n <= channels);
    for (int i = 0; i < kWidth; ++i) {
      values[0][i] = i < n ? number(row, c + i) : NAN;
      values[1][i] = values[0][i] * values[0][i];
    }
  }
};

// The same, read before it is added up. `held` vectors are read and not yet added.
int held, most_held, waits;

template <CurveKind kKind, bool kIsWhole>
struct HeldTerm {
  static constexpr int kSums = 2, kWidth = 8;
  using Channels = NoChannels;
  struct Row {
    std::int64_t row, c;
    int n;
  };
  std::int64_t channels;
  static Curve curve() { return {kKind, 0.0f}; }
  static bool is_whole() { return kIsWhole; }
  template <bool kWhole>
  Row read(std::int64_t row, std::int64_t c, int n) const {
    CHECK(c + n <= channels);
    CHECK((!kWhole || (kIsWhole && n == kWidth)));
    most_held = std::max(most_held, ++held);
    ++reads;
    return {row, c, n};
  }
  void operator()(const Channels&, const Curve& curve, const Row& row,
                  float (&values)[2][kWidth]) const {
    CHECK(curve.kind == kKind);
    if (held > 0) ++waits;
    held = 0;
    for (int i = 0; i < kWidth; ++i) {
      values[0][i] = i < row.n ? number(row.row, row.c + i) : NAN;
      values[1][i] = values[0][i] * values[0][i];
    }
  }
};

struct Keep {
  std::vector<double>* sums;  // (group, channel, 2)
  std::vector<int>* finished;
  std::int64_t channels;
  void operator()(std::int64_t group, std::int64_t c, const double (&values)[2]) const {
    const auto at = static_cast<std::size_t>(group * channels + c);
    ++(*finished)[at];
    std::copy_n(values, 2, sums->begin() + static_cast<std::ptrdiff_t>(2 * at));
  }
};

template <class Term>
std::vector<double> sums_by(const ColumnShape& shape, bool backwards) {
  const auto count = static_cast<std::size_t>(shape.groups * shape.channels);
  std::vector<double> sums(2 * count, NAN);
  std::vector<int> finished(count);
  std::vector<float> partials(count * 2 * static_cast<std::size_t>(shape.chunks()), NAN);
  const Keep finish{&sums, &finished, shape.channels};
  reads = held = most_held = waits = 0;
  run_blocks(ColumnPartials<Term, Keep>::of(Term{shape.channels}, finish, shape, partials.data()),
             backwards);
  if (shape.chunks() != 1)
    run_blocks(ColumnTotals<Keep, 2>{finish, shape, partials.data()}, backwards);
  CHECK(std::all_of(finished.begin(), finished.end(), [](int times) { return times == 1; }));
  return sums;
}

template <int Width>
std::vector<double> sums_of(const ColumnShape& shape, bool backwards) {
  return sums_by<CountedTerm<Width>>(shape, backwards);
}

TEST_CASE("cuda columns: four rows are on their way before one is added, with the same bits") {
  constexpr CurveKind kIdentity = CurveKind::kIdentity, kRelu = CurveKind::kRelu,
                      kTanh = CurveKind::kTanh;
  for (const ColumnShape& shape : {ColumnShape{1, 1, 8}, ColumnShape{3, 40, 8},
                                   ColumnShape{2, 1100, 24}, ColumnShape{1, 2047, 17}}) {
    CAPTURE(shape.rows);
    const std::vector<double> sums = sums_of<8>(shape, false);
    const int all = reads;
    for (const bool backwards : {false, true}) {
      CHECK(sums_by<HeldTerm<kIdentity, true>>(shape, backwards) == sums);
      CHECK(reads == all);
      CHECK(most_held == (shape.rows >= 32 ? 4 : 1));
      CHECK(sums_by<HeldTerm<kRelu, true>>(shape, backwards) == sums);
      CHECK(most_held == (shape.rows >= 32 ? 4 : 1));
      // Long code and single elements do so row by row.
      CHECK(sums_by<HeldTerm<kTanh, true>>(shape, backwards) == sums);
      CHECK(most_held == 1);
      CHECK(sums_by<HeldTerm<kIdentity, false>>(shape, backwards) == sums);
      CHECK(most_held == 1);
    }
  }
  // 512 rows are 16 times four for each of 8 lanes.
  sums_by<HeldTerm<kIdentity, true>>({1, 512, 8}, false);
  CHECK(waits == 128);
}

TEST_CASE("cuda columns: sums are those of float64, whatever the vectors and the threads") {
  for (const ColumnShape& shape :
       {ColumnShape{1, 1, 1}, ColumnShape{1, 513, 5}, ColumnShape{3, 40, 8},
        ColumnShape{2, 1100, 17}, ColumnShape{5, 512, 64}, ColumnShape{1, 35000, 9},
        ColumnShape{1, 700, 300}}) {
    CAPTURE(shape.rows);
    CAPTURE(shape.channels);
    const std::vector<double> sums = sums_of<8>(shape, false);
    CHECK(sums == sums_of<8>(shape, true));
    CHECK(sums == sums_of<4>(shape, false));
    CHECK(sums == sums_of<1>(shape, true));
    for (std::int64_t group = 0; group < shape.groups; ++group)
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        double wanted[2] = {};
        for (std::int64_t row = 0; row < shape.rows; ++row) {
          const double value = number(group * shape.rows + row, c);
          wanted[0] += value;
          wanted[1] += value * value;
        }
        const auto at = static_cast<std::size_t>(2 * (group * shape.channels + c));
        const double size = std::sqrt(wanted[1] * static_cast<double>(shape.rows));
        CHECK(std::abs(sums[at] - wanted[0]) <= 1e-5 * size);
        CHECK(std::abs(sums[at + 1] - wanted[1]) <= 1e-5 * wanted[1]);
      }
  }
}

TEST_CASE("cuda columns: a thread reads a vector of channels at a time") {
  sums_of<8>({1, 2000, 64}, false);
  CHECK(reads == 2000 * 8);
  sums_of<8>({2, 700, 17}, false);
  CHECK(reads == 1400 * 3);
  sums_of<4>({1, 700, 64}, false);
  CHECK(reads == 700 * 16);
}

TEST_CASE("cuda columns: blocks of few channels have chunks enough for their threads") {
  const auto blocks = [](const ColumnShape& shape) {
    using Term = CountedTerm<8>;
    return ColumnPartials<Term, Keep>::of(Term{shape.channels}, {}, shape, nullptr).blocks();
  };
  CHECK(blocks({1, 512 * 100, 64}) == 25);
  CHECK(blocks({1, 512 * 100, 8}) == 4);
  CHECK(blocks({1, 512 * 100, 256}) == 100);
  CHECK(blocks({1, 512 * 100, 257}) == 200);
  CHECK(blocks({7, 49, 2048}) == 56);
  // And the chunks are added by many.
  using Totals = ColumnTotals<Keep, 2>;
  CHECK(Totals{{}, {1, 512 * 100, 64}, nullptr}.blocks() == 8);
  CHECK(Totals::kLanes == 64);
}

}  // namespace
}  // namespace pycnn::cuda
