#pragma once
#include "backends/cuda/curve.h"

// The kernels of columns.h.
namespace pycnn::cuda {

constexpr std::int64_t kChunkRows = 512;

struct ColumnShape {
  std::int64_t groups, rows, channels;
  PYCNN_BOTH std::int64_t chunks() const { return (rows + kChunkRows - 1) / kChunkRows; }
};

template <class Term>
constexpr bool kReadsAhead = requires {
  typename Term::Row;
};
// Registers enough for rows that are on their way.
template <bool kIsWanted>
struct TwoResident {};
template <>
struct TwoResident<true> {
  static constexpr int kResidentBlocks = 2;
};

// A Term says of each row what is added up:
//   kSums, kWidth          sums of a channel; channels of a vector, which a thread has
//   Channels(term, c, n)   what it knows of the n <= kWidth channels from c on, read once
//   operator()(channels, row of all groups, c, n, values)    makes kSums values of each
// or, so that several rows may be on their way before one is added up:
//   Row                    vectors of a row as they lie
//   is_whole()             whether all vectors of kWidth channels are one access each
//   read<kWhole>(row of all groups, c, n)    of n == kWidth where kWhole
//   curve()                that values go through, mostly none (NoCurve)
//   operator()(channels, curve, row, values)
// Finish: operator()(group, channel, sums) with kSums sums.
//
// A block has a row of `across` vectors from some chunks, as many as it has threads for. Whether a
// vector is read by one access, or how many chunks a block has, changes no order.
template <class Term, class Finish>
struct ColumnPartials : TwoResident<kReadsAhead<Term>> {
  static constexpr int kVectors = 32, kLanes = 8, kThreads = kVectors * kLanes;
  static constexpr int kSums = Term::kSums, kWidth = Term::kWidth;
  struct Shared {
    float sum[kSums][kLanes][kVectors * kWidth];
  };
  struct Registers {};
  Term term;
  Finish finish;  // of the only chunk
  ColumnShape shape;
  float* partials;
  int across;  // vectors, a power of two

  static ColumnPartials of(const Term& term, const Finish& finish, const ColumnShape& shape,
                           float* partials) {
    ColumnPartials kernel{{}, term, finish, shape, partials, 1};
    while (kernel.across < kVectors && kernel.wide() < shape.channels) kernel.across *= 2;
    return kernel;
  }
  PYCNN_BOTH int wide() const { return across * kWidth; }
  PYCNN_BOTH int down() const { return kVectors / across; }  // chunks of a block
  PYCNN_BOTH std::int64_t tiles() const { return (shape.channels + wide() - 1) / wide(); }
  PYCNN_BOTH std::int64_t pieces() const { return shape.groups * shape.chunks(); }
  PYCNN_BOTH std::int64_t blocks() const { return (pieces() + down() - 1) / down() * tiles(); }

  PYCNN_BOTH void operator()(Block<ColumnPartials>& block) const {
    const std::int64_t first_channel = block.index() % tiles() * wide();
    const std::int64_t first_piece = block.index() / tiles() * down();  // of (groups, chunks)
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const int vector = thread % across, lane = thread / across % kLanes;
      const int down_here = thread / across / kLanes;
      const std::int64_t channel = first_channel + std::int64_t{vector} * kWidth;
      const std::int64_t piece = first_piece + down_here, rest = shape.channels - channel;
      float sums[kSums][kWidth] = {};
      if (rest > 0 && piece < pieces()) {
        const int n = rest < kWidth ? static_cast<int>(rest) : kWidth;
        const std::int64_t group = piece / shape.chunks();
        const std::int64_t begin = piece % shape.chunks() * kChunkRows;
        const std::int64_t rest_rows = shape.rows - begin - lane;
        const auto rows =
            static_cast<int>(rest_rows < kChunkRows - lane ? rest_rows : kChunkRows - lane);
        const typename Term::Channels channels(term, channel, n);
        add({group * shape.rows + begin + lane, (rows + kLanes - 1) / kLanes, channel, n}, channels,
            sums);
      }
      PYCNN_UNROLL
      for (int s = 0; s < kSums; ++s) {
        PYCNN_UNROLL
        for (int i = 0; i < kWidth; ++i)
          shared.sum[s][lane][(down_here * across + vector) * kWidth + i] = sums[s][i];
      }
    });
    block.last([&](int thread, Registers&) {
      const std::int64_t channel = first_channel + thread % wide();
      const std::int64_t piece = first_piece + thread / wide();
      if (thread >= kVectors * kWidth || channel >= shape.channels || piece >= pieces()) return;
      double totals[kSums];
      for (int s = 0; s < kSums; ++s) {
        float sum = 0.0f;
        for (int lane = 0; lane < kLanes; ++lane) sum += shared.sum[s][lane][thread];
        if (shape.chunks() > 1) partials[(piece * kSums + s) * shape.channels + channel] = sum;
        totals[s] = static_cast<double>(sum);
      }
      if (shape.chunks() == 1) finish(piece, channel, totals);
    });
  }

 private:
  using Sums = float[kSums][kWidth];
  // Rows that are left to a thread, each kLanes-th.
  struct Lane {
    std::int64_t row;  // of all groups, the next one
    int rows;
    std::int64_t channel;
    int n;
  };
  template <class Channels>
  PYCNN_BOTH void add(Lane lane, const Channels& channels, Sums& sums) const {
    if constexpr (kReadsAhead<Term>) {
      if (lane.n == kWidth && term.is_whole())
        with_curve(term.curve(), [&](const auto& curve) {
          add_lane<std::decay_t<decltype(curve)>::kIsShort ? 4 : 1, true>(lane, channels, curve,
                                                                          sums);
        });
      else
        add_lane<1, false>(lane, channels, term.curve(), sums);
    } else {
      for (; lane.rows > 0; --lane.rows, lane.row += kLanes) {
        Sums values;
        term(channels, lane.row, lane.channel, lane.n, values);
        plus(values, sums);
      }
    }
  }
  // Rows are read kAtOnce at a time, and added in their order.
  template <int kAtOnce, bool kWhole, class Channels>
  PYCNN_BOTH void add_lane(Lane lane, const Channels& channels, const Curve& curve,
                           Sums& sums) const {
    for (; lane.rows >= kAtOnce; lane.rows -= kAtOnce, lane.row += kAtOnce * kLanes)
      add_rows<kAtOnce, kWhole>(lane, channels, curve, sums);
    if constexpr (kAtOnce > 1)
      for (; lane.rows > 0; --lane.rows, lane.row += kLanes)
        add_rows<1, kWhole>(lane, channels, curve, sums);
  }
  template <int kAtOnce, bool kWhole, class Channels>
  PYCNN_BOTH void add_rows(const Lane& lane, const Channels& channels, const Curve& curve,
                           Sums& sums) const {
    typename Term::Row rows[kAtOnce];
    PYCNN_UNROLL
    for (int i = 0; i < kAtOnce; ++i)
      rows[i] = term.template read<kWhole>(lane.row + i * kLanes, lane.channel, lane.n);
    PYCNN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      Sums values;
      term(channels, curve, rows[i], values);
      plus(values, sums);
    }
  }
  PYCNN_BOTH static void plus(const Sums& values, Sums& sums) {
    PYCNN_UNROLL
    for (int s = 0; s < kSums; ++s) {
      PYCNN_UNROLL
      for (int i = 0; i < kWidth; ++i) sums[s][i] += values[s][i];
    }
  }
};

// Adds the chunks, in float64: each lane every 64th of them, then the lanes by halves.
template <class Finish, int kSums>
struct ColumnTotals {
  static constexpr int kChannels = 8, kLanes = 64, kThreads = kChannels * kLanes;
  struct Shared {
    double sum[kSums][kThreads];
  };
  struct Registers {};
  Finish finish;
  ColumnShape shape;
  const float* partials;

  PYCNN_BOTH std::int64_t tiles() const { return (shape.channels + kChannels - 1) / kChannels; }
  PYCNN_BOTH std::int64_t blocks() const { return shape.groups * tiles(); }

  PYCNN_BOTH void operator()(Block<ColumnTotals>& block) const {
    const std::int64_t group = block.index() / tiles();
    const std::int64_t first_channel = block.index() % tiles() * kChannels;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const std::int64_t channel = first_channel + thread % kChannels;
      double sums[kSums] = {};
      if (channel < shape.channels)
        for (std::int64_t chunk = thread / kChannels; chunk < shape.chunks(); chunk += kLanes)
          for (int s = 0; s < kSums; ++s)
            sums[s] += static_cast<double>(
                partials[((group * shape.chunks() + chunk) * kSums + s) * shape.channels +
                         channel]);
      for (int s = 0; s < kSums; ++s) shared.sum[s][thread] = sums[s];
    });
    for (int half = kThreads / 2; half >= kChannels; half /= 2)
      block.each([&](int thread, Registers&) {
        if (thread >= half) return;
        for (int s = 0; s < kSums; ++s) shared.sum[s][thread] += shared.sum[s][thread + half];
      });
    block.last([&](int thread, Registers&) {
      if (thread >= kChannels || first_channel + thread >= shape.channels) return;
      double sums[kSums];
      for (int s = 0; s < kSums; ++s) sums[s] = shared.sum[s][thread];
      finish(group, first_channel + thread, sums);
    });
  }
};

struct NoCurve {
  PYCNN_BOTH static Curve curve() { return {}; }
};

// A Term that adds up what it reads.
template <class T>
struct PlainTerm : NoCurve {
  static constexpr int kSums = 1, kWidth = kVector<T>;
  struct Channels {
    PYCNN_BOTH Channels(const PlainTerm&, std::int64_t, int) {}
  };
  using Row = Pack<T, kWidth>;
  const T* input;
  std::int64_t pitch;
  PYCNN_BOTH PlainTerm(const T* from, std::int64_t step) : input(from), pitch(step) {}
  PYCNN_BOTH bool is_whole() const { return is_at_vector(input) && pitch % kWidth == 0; }
  template <bool kWhole>
  PYCNN_BOTH Row read(std::int64_t row, std::int64_t c, int n) const {
    return load_pack<kWidth, kWhole>(input + row * pitch + c, n);
  }
  PYCNN_BOTH void operator()(const Channels&, const Curve&, const Row& row,
                             float (&values)[1][kWidth]) const {
    widen(row, values[0]);
  }
};

// A Term that knows nothing of its channels.
struct NoChannels {
  template <class Term>
  PYCNN_BOTH NoChannels(const Term&, std::int64_t, int) {}
};

}  // namespace pycnn::cuda
