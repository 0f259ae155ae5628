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

template <int Width>
std::vector<double> sums_of(const ColumnShape& shape, bool backwards) {
  const auto count = static_cast<std::size_t>(shape.groups * shape.channels);
  std::vector<double> sums(2 * count, NAN);
  std::vector<int> finished(count);
  std::vector<float> partials(count * 2 * static_cast<std::size_t>(shape.chunks()), NAN);
  const Keep finish{&sums, &finished, shape.channels};
  using Term = CountedTerm<Width>;
  reads = 0;
  run_blocks(ColumnPartials<Term, Keep>::of(Term{shape.channels}, finish, shape, partials.data()),
             backwards);
  if (shape.chunks() != 1)
    run_blocks(ColumnTotals<Keep, 2>{finish, shape, partials.data()}, backwards);
  CHECK(std::all_of(finished.begin(), finished.end(), [](int times) { return times == 1; }));
  return sums;
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
