#pragma once
#include <type_traits>

#include "backends/cuda/launch.h"
#include "backends/cuda/tensor_core.h"

// Products of matrices that need not lie in memory as such: a block has a tile of the results and
// goes through the depth (the terms of a sum) 64 bytes at a time. Copies to shared memory run ahead
// of what is multiplied by kStages - 1 such steps; at the end the sums go through shared memory, so
// that results are written in whole lines. The order of a sum is that of its terms.
//
// A Source says what the matrices are and where results go:
//   Element, Tile                  of what is in shared memory; the shape of a tile
//   kDepthInner                    whether 16 bytes of an operand are neighbours in depth or of one
//   Work work(block)               what a block has: the same for its threads; `steps` of depth
//   Place                          what a thread keeps of where it loads from
//   begin(work, thread, place)
//   load(block, work, thread, place, a, b)      one step of depth of both operands, then moves on
//   Kept                           what a thread keeps of what it stored
//   store(work, thread, sums, kept)             row r's sums are at sums + r * kSumPitch<Tile>
//   measures()                     whether anything is kept; if so:
//   gather(thread, kept, shared)   puts it where the sums were
//   leave(work, thread, shared)    takes it from there
//   leave_nothing(work, thread)    of a tile without rows
//   is_aside(block), aside(block)  if there: blocks that do something else
namespace pycnn::cuda {

template <int Rows, int Columns, int WarpRows, int WarpColumns>
struct TileShape {
  static constexpr int kRows = Rows, kColumns = Columns;
  static constexpr int kWarpRows = WarpRows, kWarpColumns = WarpColumns;
  static constexpr int kThreads = 32 * WarpRows * WarpColumns;
};
using LargeTile = TileShape<128, 128, 2, 4>;
using MediumTile = TileShape<128, 64, 4, 2>;
using SmallTile = TileShape<64, 64, 2, 2>;

constexpr int kStages = 4, kDepthBytes = 64, kChunkBytes = 16;

template <class Element>
constexpr int kDepthOf = kDepthBytes / static_cast<int>(sizeof(Element));

// Keeps what a warp writes at once in different banks.
template <class Tile>
constexpr int kSumPitch = Tile::kColumns + 8;

// One operand of a tile in shared memory: lines of 16-byte chunks, which are permuted within each
// line so that neither the rows of a fragment nor the columns of one share a bank.
template <class Element, bool kDepthInner, int kWidth>
struct OperandTile {
  static constexpr int kItem = static_cast<int>(sizeof(Element));
  static constexpr int kLines = kDepthInner ? kWidth : kDepthOf<Element>;
  static constexpr int kLineBytes = kDepthInner ? kDepthBytes : kWidth * kItem;
  static constexpr int kChunks = kLineBytes / kChunkBytes;
  static constexpr int kBytes = kLines * kLineBytes;

  PYCNN_BOTH static int permuted(int line, int chunk) {
    if constexpr (kDepthInner) return chunk ^ (line >> 1 & 3);
    return kItem == 2 ? chunk ^ (line & 7) : chunk ^ (line & 3) << 1;
  }
  PYCNN_BOTH static int place(int line, int chunk) {
    return line * kLineBytes + permuted(line, chunk) * kChunkBytes;
  }
};

// Element: BFloat16, Float16, or float that is rounded to TF32. Each warp has an equal part of the
// tile.
template <class Element, class Tile, bool kDepthInner>
struct TensorCores {
  static constexpr int kOwnRows = Tile::kRows / Tile::kWarpRows / 16;
  static constexpr int kOwnColumns = Tile::kColumns / Tile::kWarpColumns / 8;
  using A = OperandTile<Element, kDepthInner, Tile::kRows>;
  using B = OperandTile<Element, kDepthInner, Tile::kColumns>;

  struct Registers {
    std::uint32_t a[kOwnRows][4], b[kOwnColumns][2];
    float sum[kOwnRows][kOwnColumns][4];
  };

  PYCNN_BOTH static int first_row(int thread) {
    return thread / 32 / Tile::kWarpColumns * kOwnRows * 16;
  }
  PYCNN_BOTH static int first_column(int thread) {
    return thread / 32 % Tile::kWarpColumns * kOwnColumns * 8;
  }

  PYCNN_BOTH static void clear(Registers& own) {
    PYCNN_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j) {
        PYCNN_UNROLL
        for (int e = 0; e < 4; ++e) own.sum[i][j][e] = 0.0f;
      }
    }
  }

  // The fragments of 32 bytes of depth, the first or the second ones of a step.
  PYCNN_BOTH static void load(Registers& own, int thread, const std::byte* a, const std::byte* b,
                              int half) {
    const int lane = thread % 32, row = first_row(thread), column = first_column(thread);
    if constexpr (kDepthInner) {
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows; ++i)
        load_matrices<false>(
            lane,
            [&](int of) {
              return a + A::place(row + of % 16, 2 * half + of / 16) + i * 16 * A::kLineBytes;
            },
            own.a[i]);
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; j += 2) {
        std::uint32_t two[4];
        load_matrices<false>(
            lane,
            [&](int of) {
              return b + B::place(column + of / 16 * 8 + of % 8, 2 * half + of / 8 % 2) +
                     j * 8 * B::kLineBytes;
            },
            two);
        set_columns(own, j, two);
      }
    } else if constexpr (sizeof(Element) == 2) {
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows; ++i)
        load_matrices<true>(
            lane,
            [&](int of) {
              return a + A::place(of / 16 * 8 + of % 8, row / 8 + 2 * i + of / 8 % 2) +
                     half * 16 * A::kLineBytes;
            },
            own.a[i]);
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; j += 2) {
        std::uint32_t two[4];
        load_matrices<true>(
            lane,
            [&](int of) {
              return b + B::place(of % 16, column / 8 + j + of / 16) + half * 16 * B::kLineBytes;
            },
            two);
        set_columns(own, j, two);
      }
    } else {
      const int g = lane / 4, t = lane % 4;
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows; ++i) {
        PYCNN_UNROLL
        for (int e = 0; e < 4; ++e)
          own.a[i][e] = word<A>(a, 8 * half + e / 2 * 4 + t, row + 16 * i + e % 2 * 8 + g);
      }
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j) {
        PYCNN_UNROLL
        for (int e = 0; e < 2; ++e)
          own.b[j][e] = word<B>(b, 8 * half + e * 4 + t, column + 8 * j + g);
      }
    }
    if constexpr (sizeof(Element) == 4) {
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows; ++i) {
        PYCNN_UNROLL
        for (int e = 0; e < 4; ++e) own.a[i][e] = rounded_tf32(own.a[i][e]);
      }
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j) {
        PYCNN_UNROLL
        for (int e = 0; e < 2; ++e) own.b[j][e] = rounded_tf32(own.b[j][e]);
      }
    }
  }

  template <class BlockType>
  PYCNN_BOTH static void accumulate(BlockType& block, const std::byte* a, const std::byte* b) {
    converge_warp();  // loading the next stage may have parted them
    PYCNN_UNROLL
    for (int half = 0; half < 2; ++half) {
      block.alone([&](int thread, auto& own) { load(own.math, thread, a, b, half); });
      block.alone([&](int thread, auto& own) {
        const auto lanes = [&](int lane) -> Registers& {
          return block.lane_registers(thread, lane).math;
        };
        PYCNN_UNROLL
        for (int i = 0; i < kOwnRows; ++i) {
          PYCNN_UNROLL
          for (int j = 0; j < kOwnColumns; ++j)
            multiply_add<Element>(
                thread % 32, lanes,
                [&](Registers& of) -> const std::uint32_t(&)[4] { return of.a[i]; },
                [&](Registers& of) -> const std::uint32_t(&)[2] { return of.b[j]; },
                own.math.sum[i][j]);
        }
      });
    }
  }

  // Gives every sum with its place in the tile.
  PYCNN_BOTH static void put(const Registers& own, int thread, float* sums) {
    const int lane = thread % 32;
    const int row = first_row(thread) + lane / 4, column = first_column(thread) + lane % 4 * 2;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j) {
        PYCNN_UNROLL
        for (int e = 0; e < 4; e += 2) {
          const Pack<float, 2> two{{own.sum[i][j][e], own.sum[i][j][e + 1]}};
          *reinterpret_cast<Pack<float, 2>*>(sums + (row + 16 * i + e / 2 * 8) * kSumPitch<Tile> +
                                             column + 8 * j) = two;
        }
      }
    }
  }

 private:
  PYCNN_BOTH static void set_columns(Registers& own, int j, const std::uint32_t (&two)[4]) {
    own.b[j][0] = two[0];
    own.b[j][1] = two[1];
    own.b[j + 1][0] = two[2];
    own.b[j + 1][1] = two[3];
  }
  template <class Operand>
  PYCNN_BOTH static std::uint32_t word(const std::byte* tile, int depth, int at) {
    return *reinterpret_cast<const std::uint32_t*>(tile + Operand::place(depth, at / 4) +
                                                   at % 4 * 4);
  }
};

// Plain float32: each thread has rows and columns of its own, in fours where depth is outer.
template <class Tile, bool kDepthInner>
struct PlainFloats {
  static constexpr int kColumnThreads = 16, kRowThreads = Tile::kThreads / kColumnThreads;
  static constexpr int kOwnRows = Tile::kRows / kRowThreads;
  static constexpr int kOwnColumns = Tile::kColumns / kColumnThreads;
  using A = OperandTile<float, kDepthInner, Tile::kRows>;
  using B = OperandTile<float, kDepthInner, Tile::kColumns>;
  using Four = Pack<float, 4>;

  struct Registers {
    float sum[kOwnRows][kOwnColumns];
  };

  PYCNN_BOTH static void clear(Registers& own) {
    PYCNN_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j) own.sum[i][j] = 0.0f;
    }
  }

  template <class BlockType>
  PYCNN_BOTH static void accumulate(BlockType& block, const std::byte* a, const std::byte* b) {
    block.alone([&](int thread, auto& own) {
      const int row = thread / kColumnThreads, column = thread % kColumnThreads;
      if constexpr (kDepthInner)
        by_depth(own.math, a, b, row, column);
      else
        by_width(own.math, a, b, row, column);
    });
  }

  PYCNN_BOTH static void put(const Registers& own, int thread, float* sums) {
    const int row = thread / kColumnThreads, column = thread % kColumnThreads;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j)
        sums[place(row, i, kRowThreads) * kSumPitch<Tile> + place(column, j, kColumnThreads)] =
            own.sum[i][j];
    }
  }

 private:
  PYCNN_BOTH static int place(int thread, int i, int threads) {
    return kDepthInner ? thread + i * threads : (thread + i / 4 * threads) * 4 + i % 4;
  }
  PYCNN_BOTH static Four four(const std::byte* at) { return *reinterpret_cast<const Four*>(at); }

  PYCNN_BOTH static void by_depth(Registers& own, const std::byte* a, const std::byte* b, int row,
                                  int column) {
    PYCNN_UNROLL
    for (int chunk = 0; chunk < A::kChunks; ++chunk) {
      Four of_b[kOwnColumns];
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns; ++j)
        of_b[j] = four(b + B::place(column, chunk) + j * kColumnThreads * B::kLineBytes);
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows; ++i) {
        const Four of_a = four(a + A::place(row, chunk) + i * kRowThreads * A::kLineBytes);
        PYCNN_UNROLL
        for (int e = 0; e < 4; ++e) {
          PYCNN_UNROLL
          for (int j = 0; j < kOwnColumns; ++j)
            own.sum[i][j] += of_a.element[e] * of_b[j].element[e];
        }
      }
    }
  }
  PYCNN_BOTH static void by_width(Registers& own, const std::byte* a, const std::byte* b, int row,
                                  int column) {
    PYCNN_UNROLL
    for (int depth = 0; depth < A::kLines; ++depth) {
      Four of_a[kOwnRows / 4], of_b[kOwnColumns / 4];
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows / 4; ++i)
        of_a[i] = four(a + A::place(depth, row + i * kRowThreads));
      PYCNN_UNROLL
      for (int j = 0; j < kOwnColumns / 4; ++j)
        of_b[j] = four(b + B::place(depth, column + j * kColumnThreads));
      PYCNN_UNROLL
      for (int i = 0; i < kOwnRows; ++i) {
        PYCNN_UNROLL
        for (int j = 0; j < kOwnColumns; ++j)
          own.sum[i][j] += of_a[i / 4].element[i % 4] * of_b[j / 4].element[j % 4];
      }
    }
  }
};

template <class Source, class Math>
struct TileProduct {
  using Tile = typename Source::Tile;
  using Element = typename Source::Element;
  using A = OperandTile<Element, Source::kDepthInner, Tile::kRows>;
  using B = OperandTile<Element, Source::kDepthInner, Tile::kColumns>;
  static constexpr int kThreads = Tile::kThreads;
  static constexpr int kResidentBlocks = 512 / kThreads;  // 128 registers for each thread
  static constexpr int kStageBytes = A::kBytes + B::kBytes;
  static constexpr int kSumBytes = Tile::kRows * kSumPitch<Tile> * static_cast<int>(sizeof(float));

  struct Shared {
    alignas(
        128) std::byte bytes[kStages * kStageBytes > kSumBytes ? kStages* kStageBytes : kSumBytes];
  };
  struct Registers {
    typename Source::Place place;
    typename Math::Registers math;
    typename Source::Kept kept;
  };
  Source source;

  PYCNN_BOTH void operator()(Block<TileProduct>& block) const {
    if constexpr (requires { &Source::is_aside; })
      if (source.is_aside(block.index())) return source.aside(block);
    const typename Source::Work work = source.work(block.index());
    if (work.is_empty)
      return block.last([&](int thread, Registers&) { source.leave_nothing(work, thread); });
    std::byte* const shared = block.shared().bytes;
    block.alone([&](int thread, Registers& own) {
      Math::clear(own.math);
      source.begin(work, thread, own.place);
      for (int step = 0; step < kStages - 1; ++step) {
        if (step < work.steps) load(block, work, thread, own.place, shared + step * kStageBytes);
        block.commit_copies(thread);
      }
    });
    for (int step = 0; step < work.steps; ++step) {
      block.each([&](int thread, Registers&) { block.template wait_copies<kStages - 2>(thread); });
      // Into the stage that was multiplied last: behind the barrier nobody reads it any more.
      block.alone([&](int thread, Registers& own) {
        const int next = step + kStages - 1;
        if (next < work.steps)
          load(block, work, thread, own.place, shared + next % kStages * kStageBytes);
        block.commit_copies(thread);
      });
      const std::byte* const stage = shared + step % kStages * kStageBytes;
      Math::accumulate(block, stage, stage + A::kBytes);
    }
    // Where stages were, sums come.
    block.each([&](int thread, Registers&) { block.template wait_copies<0>(thread); });
    auto* const sums = reinterpret_cast<float*>(shared);
    block.each([&](int thread, Registers& own) { Math::put(own.math, thread, sums); });
    const auto store = [&](int thread, Registers& own) {
      source.store(work, thread, sums, own.kept);
    };
    if (!source.measures()) return block.last(store);
    block.each(store);
    block.each([&](int thread, Registers& own) { source.gather(thread, own.kept, sums); });
    block.last([&](int thread, Registers&) { source.leave(work, thread, sums); });
  }

 private:
  PYCNN_BOTH void load(Block<TileProduct>& block, const typename Source::Work& work, int thread,
                       typename Source::Place& place, std::byte* stage) const {
    source.load(block, work, thread, place, stage, stage + A::kBytes);
  }
};

}  // namespace pycnn::cuda
