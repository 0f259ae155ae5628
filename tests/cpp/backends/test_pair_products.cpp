#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "backends/cpu/pair_products.h"
#include "core/bfloat16_units.h"
#include "core/cpu_features.h"
#include "core/half.h"

using namespace pycnn;
using namespace pycnn::cpu;

namespace {

struct NamedUnit {
  std::string name;
  const PairUnit* loops;
};

std::vector<NamedUnit> units() {
  std::vector<NamedUnit> list = {{"portable", &portable::kPairUnit}};
#if PYCNN_HAVE_AVX512
  if (best_isa() == Isa::kAvx512 && has_avx512_bf16()) {
    list.push_back({"avx512_bf16", &avx512_bf16::kPairUnit});
    if (has_amx_bf16()) list.push_back({"amx", &amx::kPairUnit});
  }
#endif
  return list;
}

float widened(BFloat16 x) { return float_from_bfloat16(x.bits); }
BFloat16 narrowed(float x) { return {bfloat16_from_float(x)}; }

// Whole numbers: sums are exact in any order.
std::vector<BFloat16> whole(std::size_t count, std::mt19937& random) {
  std::uniform_int_distribution<int> draw(-4, 4);
  std::vector<BFloat16> values(count);
  for (BFloat16& x : values) x = narrowed(static_cast<float>(draw(random)));
  return values;
}

const BFloat16& at(const std::vector<BFloat16>& values, Index i) {
  return values[static_cast<std::size_t>(i)];
}

struct TileCase {
  Index steps, pairs, channels, tiles;
  bool blocks_first, own_steps;
  bool residual;
  bool odd;
  int activation;  // 0: none, 1: relu, 2: relu6 by a function
};

void check_tiles(const TileCase& c, std::mt19937& random) {
  CAPTURE(c.steps);
  CAPTURE(c.pairs);
  CAPTURE(c.channels);
  CAPTURE(c.tiles);
  const Index blocks = (c.channels + 31) / 32, row = 2 * c.pairs + 5, halves = 2 * c.tiles;
  std::vector<Index> steps, starts, rows;
  for (Index i = 0; i < c.steps * (c.own_steps ? blocks : 1); ++i) steps.push_back(i * 7 % 40);
  for (Index h = 0; h < halves; ++h) starts.push_back((halves - 1 - h) * 16 * row);
  // Every fifth row is nobody's.
  for (Index r = 0; r < 32 * c.tiles; ++r) rows.push_back(r % 5 == 3 ? -1 : r * c.channels);
  const auto size = [](Index n) { return static_cast<std::size_t>(n); };
  const auto input = whole(size(halves * 16 * row + 128), random);
  const auto weights = whole(size(blocks * c.steps * 2 * c.pairs * 32), random);
  const auto residual = whole(size(32 * c.tiles * c.channels), random);
  std::vector<float> bias(size(blocks * 32));
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i % 7) - 3;

  std::vector<BFloat16> expected(residual.size(), narrowed(77));
  for (Index r = 0; r < 32 * c.tiles; ++r) {
    if (rows[size(r)] < 0) continue;
    for (Index k = 0; k < c.channels; ++k) {
      double sum = bias[size(k)];
      for (Index s = 0; s < c.steps; ++s)
        for (Index e = 0; e < 2 * c.pairs; ++e) {
          const Index step = steps[size(s + (c.own_steps ? k / 32 * c.steps : 0))];
          const Index back = c.odd && e / 2 == c.pairs - 1 ? 1 : 0;
          const Index from = starts[size(r / 16)] + step + r % 16 * row + e - back;
          const Index block = k / 32 * c.steps + s, half = k / 16 % 2;
          const Index to = ((block * 2 + half) * c.pairs + e / 2) * 32 + k % 16 * 2 + e % 2;
          sum += widened(at(input, from)) * widened(at(weights, to));
        }
      const Index out = r * c.channels + k;
      if (c.residual) sum += widened(at(residual, out));
      if (c.activation > 0) sum = std::max(sum, 0.0);
      if (c.activation > 1) sum = std::min(sum, 6.0);
      expected[size(out)] = narrowed(static_cast<float>(sum));
    }
  }
  for (const NamedUnit& unit : units()) {
    CAPTURE(unit.name);
    if (unit.name == "amx" && (c.odd || c.pairs > 16)) continue;  // not for its tiles
    std::vector<BFloat16> output(residual.size(), narrowed(77));
    PairTiles job;
    job.input = input.data(), job.input_row = row;
    job.halves = starts.data(), job.rows = rows.data(), job.tiles = c.tiles;
    job.steps = steps.data(), job.step_count = c.steps, job.pairs = c.pairs;
    job.odd = c.odd;
    job.step_pitch = c.own_steps ? c.steps : 0;
    job.weights = weights.data();
    job.block_end = blocks, job.channels = c.channels, job.blocks_first = c.blocks_first;
    job.bias = bias.data(), job.output = output.data();
    job.residual = c.residual ? residual.data() : nullptr;
    job.relu = c.activation == 1;
    job.activation = c.activation == 2 ? unit.loops->activation->relu6 : nullptr;
    unit.loops->tiles(job);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < output.size(); ++i)
      wrong += widened(output[i]) != widened(expected[i]);
    CHECK(wrong == 0);
  }
}

template <class Run>
std::vector<BFloat16> check_same(std::size_t count, Run&& run) {
  const auto wanted = run(portable::kPairUnit, std::vector<BFloat16>(count, narrowed(5)));
  for (const NamedUnit& unit : units()) {
    CAPTURE(unit.name);
    const auto found = run(*unit.loops, std::vector<BFloat16>(count, narrowed(5)));
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i) wrong += found[i].bits != wanted[i].bits;
    CHECK(wrong == 0);
  }
  return wanted;
}

}  // namespace

TEST_CASE("pair products: tiles are the sums of their formula, however many steps there are") {
  std::mt19937 random(1);
  int n = 0;
  for (const Index steps : {1, 2, 3, 4, 7, 8, 16, 21, 32, 33, 70}) {
    const bool odd = n % 2 == 1;
    check_tiles(
        {steps, odd ? 16 : 5, odd ? 70 : 33, 1 + n % 3, odd, false, n % 3 == 0, false, n % 3},
        random);
    ++n;
  }
  check_tiles({2, 16, 64, 1, true, true, true, false, 2}, random);
  check_tiles({9, 16, 40, 2, false, true, false, false, 1}, random);
  check_tiles({1, 1, 1, 1, false, false, true, false, 0}, random);
}

TEST_CASE("pair products: tiles of steps of any length, even and odd") {
  std::mt19937 random(4);
  for (const Index pairs : {2, 3, 11, 16, 17, 40})
    for (const bool odd : {false, true})
      check_tiles({3, pairs, 45, 2, odd, false, odd, odd, static_cast<int>(pairs % 3)}, random);
}

// Weights that do not stay near are taken in pieces: whole ones and a rest, for one tile or
// several, with blocks of columns left over.
TEST_CASE("pair products: tiles of long sums") {
  std::mt19937 random(5);
  int n = 0;
  for (const Index tiles : {1, 2, 3, 4, 5, 7})
    for (const Index steps : {64, 70}) {
      check_tiles(
          {steps, 16, steps == 64 ? 33 : 300, tiles, true, n % 4 == 1, n % 2 == 0, false, n % 3},
          random);
      ++n;
    }
  check_tiles({70, 17, 100, 2, true, false, true, true, 1}, random);
}

TEST_CASE("pair products: a last block of columns, by halves or whole") {
  std::mt19937 random(7);
  for (const Index channels : {15, 16, 17, 31, 32, 48, 49})
    for (const bool blocks_first : {false, true})
      check_tiles({3, 9, channels, 2, blocks_first, false, channels % 2 == 0, blocks_first,
                   static_cast<int>(channels % 3)},
                  random);
}

TEST_CASE("pair products: tiles of at most sixteen channels") {
  std::mt19937 random(8);
  int n = 0;
  for (const Index channels : {1, 3, 6, 11, 16})
    for (const Index tiles : {1, 2, 3, 4, 7}) {
      check_tiles({n % 2 == 0 ? 5 : 18, 1 + n % 16, channels, tiles, n % 4 == 1, false, n % 3 == 1,
                   false, n % 3},
                  random);
      check_tiles({2, 16, channels, tiles, true, false, n % 3 != 1, false, 2 - n % 3}, random);
      ++n;
    }
}

TEST_CASE("pair products: pixels spread to an even number of channels") {
  std::mt19937 random(9);
  for (const Index channels : {1, 3, 5, 7, 11, 15, 17, 31, 33, 67})
    for (const Index pixels : {1, 2, 7, 16, 45}) {
      CAPTURE(channels);
      CAPTURE(pixels);
      constexpr Index kRows = 3;
      const Index from_row = pixels * channels + 5, to_row = pixels * (channels + 1) + 3;
      const auto from =
          whole(static_cast<std::size_t>((kRows - 1) * from_row + pixels * channels), random);
      const auto spread = check_same(static_cast<std::size_t>(kRows * to_row),
                                     [&](const PairUnit& unit, std::vector<BFloat16> to) {
                                       PixelSpread job;
                                       job.from = from.data(), job.from_row = from_row,
                                       job.rows = kRows;
                                       job.pixels = pixels, job.channels = channels;
                                       job.to = to.data(), job.to_row = to_row;
                                       unit.spread(job);
                                       return to;
                                     });
      const Index last = 2 * to_row + (pixels - 1) * (channels + 1);
      CHECK(at(spread, last + channels - 1).bits == from.back().bits);
      CHECK(at(spread, last + channels).bits == 0);
      CHECK(at(spread, last + channels + 1).bits == narrowed(5).bits);  // nobody's
    }
}

TEST_CASE("pair products: sums over pixels, new ones and added ones") {
  std::mt19937 random(2);
  constexpr Index kRows = 2, kColumns = 3, kSteps = 3;
  const std::vector<Index> taps = {0, 32 * 5};
  const Index a_half = kSteps * kPairHalf, b_half = (kSteps + 1) * kPairHalf;
  // As pixels of kRows * 32 channels; each unit brings them into its own form.
  const auto pixels = whole(kSteps * kPairStep * kRows * kPairBlock, random);
  std::vector<const BFloat16*> pointers;
  for (Index k = 0; k < kSteps * kPairStep; ++k) pointers.push_back(&at(pixels, k * kRows * 32));
  const auto b = whole(static_cast<std::size_t>(2 * kColumns * b_half), random);
  for (const NamedUnit& unit : units()) {
    CAPTURE(unit.name);
    std::vector<BFloat16> a(static_cast<std::size_t>(2 * kRows * a_half));
    PixelPairs rows;
    rows.pixels = pointers.data(), rows.pairs = kSteps * kPairStep / 2;
    rows.channels = kRows * kPairBlock;
    rows.to = a.data(), rows.group_pitch = a_half;
    unit.loops->rows(rows);
    std::vector<float> sums(kRows * (kColumns * 2 * 1024 + 8), 3.0f);
    PairSums job;
    job.a = a.data(), job.a_half = a_half, job.b = b.data(), job.b_half = b_half;
    job.row_blocks = kRows, job.column_blocks = kColumns;
    job.taps = taps.data(), job.tap_count = 2, job.steps = kSteps;
    job.sums = sums.data(), job.sums_row = kColumns * 2 * 1024 + 8;
    unit.loops->sums(job);
    job.accumulate = true;
    unit.loops->sums(job);
    std::size_t wrong = 0;
    for (Index r = 0; r < kRows * 32; ++r)
      for (Index c = 0; c < kColumns * 32; ++c)
        for (Index t = 0; t < 2; ++t) {
          double sum = 0;
          for (Index k = 0; k < kSteps * 32; ++k)
            sum += widened(at(pixels, k * kRows * 32 + r)) *
                   widened(at(b, c / 16 * b_half + taps[static_cast<std::size_t>(t)] + k / 2 * 32 +
                                     c % 16 * 2 + k % 2));
          const Index tile = r / 32 * job.sums_row + (c / 32 * 2 + t) * 1024;
          wrong += sums[static_cast<std::size_t>(tile + r % 32 * 32 + c % 32)] != 2 * sum;
        }
    CHECK(wrong == 0);
    CHECK(sums.back() == 3.0f);
  }
}

TEST_CASE("pair products: sums as a rectangle of a matrix, from a part of a step") {
  std::mt19937 random(5);
  constexpr Index kColumns = 3, kPairs = 5, kPitch = kColumns * kPairBlock + 7, kNoTap = 0;
  const auto pixels = whole(2 * kPairs * kPairBlock, random);
  std::vector<const BFloat16*> pointers(kPairStep, nullptr);
  for (Index k = 0; k < 2 * kPairs; ++k)
    pointers[static_cast<std::size_t>(k)] = &at(pixels, k * kPairBlock);
  const auto b = whole(static_cast<std::size_t>(2 * kColumns * kPairHalf), random);
  for (const NamedUnit& unit : units()) {
    CAPTURE(unit.name);
    // What lies behind the part must not matter.
    std::vector<BFloat16> a(static_cast<std::size_t>(2 * kPairHalf), narrowed(99));
    PixelPairs rows;
    rows.pixels = pointers.data(), rows.pairs = kPairs, rows.channels = kPairBlock;
    rows.to = a.data(), rows.group_pitch = kPairHalf;
    unit.loops->rows(rows);
    std::vector<float> sums(static_cast<std::size_t>(kPairBlock * kPitch), 3.0f);
    PairSums job;
    job.a = a.data(), job.a_half = kPairHalf, job.b = b.data(), job.b_half = kPairHalf;
    job.row_blocks = 1, job.column_blocks = kColumns;
    job.taps = &kNoTap, job.tap_count = 1, job.steps = 1, job.pairs = kPairs;
    job.sums = sums.data(), job.sums_block = kPairBlock, job.sums_pitch = kPitch;
    unit.loops->sums(job);
    job.accumulate = true;
    unit.loops->sums(job);
    std::size_t wrong = 0;
    for (Index r = 0; r < kPairBlock; ++r)
      for (Index c = 0; c < kPitch; ++c) {
        double sum = 0;
        for (Index k = 0; k < 2 * kPairs && c < kColumns * kPairBlock; ++k)
          sum += widened(at(pixels, k * kPairBlock + r)) *
                 widened(at(b, c / 16 * kPairHalf + k / 2 * 32 + c % 16 * 2 + k % 2));
        const float wanted = c < kColumns * kPairBlock ? static_cast<float>(2 * sum) : 3.0f;
        wrong += sums[static_cast<std::size_t>(r * kPitch + c)] != wanted;
      }
    CHECK(wrong == 0);
  }
}

TEST_CASE("pair products: every unit prepares operands with the same bits") {
  std::mt19937 random(3);
  const auto pixels = whole(40 * 50, random);
  std::vector<const BFloat16*> pointers(64, nullptr);
  for (std::size_t i = 0; i < 40; ++i)
    if (i % 7 != 3) pointers[i] = pixels.data() + i * 50;
  for (const Index channels : {1, 16, 17, 32, 47}) {
    CAPTURE(channels);
    PixelPairs job;
    job.pixels = pointers.data(), job.pairs = 32, job.first_channel = 3, job.channels = channels;
    job.group_pitch = 1024 + 32;
    const auto wanted = check_same(3 * 1056, [&](const PairUnit& unit, std::vector<BFloat16> to) {
      job.to = to.data();
      unit.columns(job);
      return to;
    });
    for (const NamedUnit& unit : units()) {
      CAPTURE(unit.name);
      std::vector<BFloat16> rows(3 * 1056, narrowed(5));
      job.to = rows.data();
      unit.loops->rows(job);
      // Element e of channel c in step s of a half.
      auto row_at = [&](Index s, Index c, Index e) {
        return unit.name == "amx" ? s * kPairHalf + c * 32 + e
                                  : s * kPairHalf + e / 2 * 32 + c * 2 + e % 2;
      };
      std::size_t wrong = 0;
      for (Index half = 0; half < (channels + 15) / 16; ++half)
        for (Index s = 0; s < 2; ++s)
          for (Index c = 0; c < 16; ++c)
            for (Index e = 0; e < 32; ++e)
              wrong += at(rows, half * 1056 + row_at(s, c, e)).bits !=
                       at(wanted, half * 1056 + (s * 16 + e / 2) * 32 + c * 2 + e % 2).bits;
      CHECK(wrong == 0);
    }
  }
  std::vector<float> weights(50 * 50);
  std::normal_distribution<float> draw;
  for (float& x : weights) x = draw(random);
  for (const Index columns : {0, 1, 9, 16})
    for (const Index elements : {1, 2, 15, 16, 21, 32})
      for (const bool rows : {false, true}) {
        CAPTURE(columns);
        CAPTURE(elements);
        PairWeights job;
        job.from = weights.data(), job.pairs = elements < 16 ? 8 : 16;
        job.columns = columns, job.column_pitch = rows ? 50 : 1;
        job.elements = elements, job.element_pitch = rows ? 1 : 50;
        const float* const none = nullptr;
        const float* const some = weights.data();
        for (const float* const upcoming : {none, some}) {
          job.upcoming = upcoming;
          check_same(544, [&](const PairUnit& unit, std::vector<BFloat16> to) {
            job.to = to.data();
            unit.pack(job);
            return to;
          });
        }
      }
}
