#pragma once
#include "backends/cuda/launch.h"

// Sums over the rows of matrices (groups, rows, channels), one for each group and channel, in an
// order that depends on the shape alone: a block adds a chunk of rows, each lane every eighth of
// them, and leaves its sum in `partials` (group, chunk, sum, channel); then one thread a channel
// adds the chunks, in float64. Of a single chunk the first kernel's sums are all.
namespace pycnn::cuda {

constexpr std::int64_t kChunkRows = 512;

struct ColumnShape {
  std::int64_t groups, rows, channels;
  PYCNN_BOTH std::int64_t chunks() const { return (rows + kChunkRows - 1) / kChunkRows; }
};

inline std::int64_t column_scratch_bytes(const ColumnShape& shape, int sums) {
  return shape.groups * shape.chunks() * sums * shape.channels *
         static_cast<std::int64_t>(sizeof(float));
}

// Term: static constexpr int kSums; operator()(row of all groups, channel, values) makes kSums
// values.
// Finish: operator()(group, channel, sums) with kSums sums.
template <class Term, class Finish>
struct ColumnPartials {
  static constexpr int kChannels = 32, kLanes = 8, kThreads = kChannels * kLanes;
  static constexpr int kSums = Term::kSums;
  struct Shared {
    float sum[kSums][kLanes][kChannels];
  };
  struct Registers {};
  Term term;
  Finish finish;  // of the only chunk
  ColumnShape shape;
  float* partials;

  PYCNN_BOTH std::int64_t tiles() const { return (shape.channels + kChannels - 1) / kChannels; }
  PYCNN_BOTH std::int64_t blocks() const { return shape.groups * shape.chunks() * tiles(); }

  PYCNN_BOTH void operator()(Block<ColumnPartials>& block) const {
    const std::int64_t first_channel = block.index() % tiles() * kChannels;
    const std::int64_t piece = block.index() / tiles();  // of (groups, chunks)
    const std::int64_t group = piece / shape.chunks();
    const std::int64_t begin = piece % shape.chunks() * kChunkRows;
    const std::int64_t end = begin + kChunkRows < shape.rows ? begin + kChunkRows : shape.rows;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const int column = thread % kChannels, lane = thread / kChannels;
      const std::int64_t channel = first_channel + column;
      float sums[kSums] = {};
      if (channel < shape.channels) {
        for (std::int64_t row = begin + lane; row < end; row += kLanes) {
          float values[kSums];
          term(group * shape.rows + row, channel, values);
          for (int s = 0; s < kSums; ++s) sums[s] += values[s];
        }
      }
      for (int s = 0; s < kSums; ++s) shared.sum[s][lane][column] = sums[s];
    });
    block.last([&](int thread, Registers&) {
      const std::int64_t channel = first_channel + thread;
      if (thread >= kChannels || channel >= shape.channels) return;
      double totals[kSums];
      for (int s = 0; s < kSums; ++s) {
        float sum = 0.0f;
        for (int lane = 0; lane < kLanes; ++lane) sum += shared.sum[s][lane][thread];
        if (shape.chunks() > 1) partials[(piece * kSums + s) * shape.channels + channel] = sum;
        totals[s] = static_cast<double>(sum);
      }
      if (shape.chunks() == 1) finish(group, channel, totals);
    });
  }
};

template <class Finish, int kSums>
struct ColumnTotals {
  static constexpr int kThreads = 128;
  struct Shared {};
  struct Registers {};
  Finish finish;
  ColumnShape shape;
  const float* partials;

  PYCNN_BOTH void operator()(Block<ColumnTotals>& block) const {
    block.last([&](int thread, Registers&) {
      const std::int64_t at = block.index() * kThreads + thread;
      if (at >= shape.groups * shape.channels) return;
      const std::int64_t group = at / shape.channels, channel = at % shape.channels;
      double sums[kSums] = {};
      for (std::int64_t chunk = 0; chunk < shape.chunks(); ++chunk)
        for (int s = 0; s < kSums; ++s)
          sums[s] += static_cast<double>(
              partials[((group * shape.chunks() + chunk) * kSums + s) * shape.channels + channel]);
      finish(group, channel, sums);
    });
  }
};

// `partials`: column_scratch_bytes(shape, Term::kSums).
template <class Term, class Finish>
void launch_column_sums(DeviceQueue& queue, const Term& term, const Finish& finish,
                        const ColumnShape& shape, float* partials) {
  using Totals = ColumnTotals<Finish, Term::kSums>;
  const ColumnPartials<Term, Finish> kernel{term, finish, shape, partials};
  launch(queue, kernel, kernel.blocks());
  if (shape.chunks() == 1) return;
  launch(queue, Totals{finish, shape, partials},
         (shape.groups * shape.channels + Totals::kThreads - 1) / Totals::kThreads);
}

}  // namespace pycnn::cuda
