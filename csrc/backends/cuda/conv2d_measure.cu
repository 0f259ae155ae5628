// Sums that convolutions leave of their results, tile by tile (conv2d_tiles.h), and a pass that
// leaves the same of a result which a library computed: `a` and `b` of each tile and channel are,
// for moments, the sums of distances from `center`, a value of that tile, and of their squares, so
// that a mean far from zero costs no digits. Tiles are added in float64 in an order that depends on
// their number alone.
#include <type_traits>

#include "backends/cuda/conv2d.h"
#include "backends/cuda/conv2d_center.h"
#include "backends/cuda/conv2d_finish.h"
#include "backends/cuda/conv2d_measure.h"
#include "backends/cuda/launch.h"

namespace pycnn::cuda {
namespace {

constexpr int kPassRows = 512, kChunkTiles = 64;
constexpr int kChannels = 32, kLanes = 8;

// A block has a tile of kPassRows pixels and some channels. With `Finishes` the values are finished
// and stored first; not for moments, whose center others of the tile would read too late.
template <class T, bool Finishes>
struct MeasurePass {
  static constexpr int kAcross = 8, kDown = 32, kThreads = kAcross * kDown;
  static constexpr int kWide = kAcross * kVector<T>;
  static constexpr int kResidentBlocks = 2;  // registers enough for loads that are on their way
  struct Shared {
    float a[kDown][kWide], b[kDown][kWide];
  };
  struct Registers {};
  Measure measure;
  std::conditional_t<Finishes, T*, const T*> result;
  ConvEpilogue epilogue;
  float* partials;
  std::int64_t rows, channels;

  PYCNN_BOTH std::int64_t across() const { return (channels + kWide - 1) / kWide; }
  PYCNN_BOTH std::int64_t blocks() const { return (rows + kPassRows - 1) / kPassRows * across(); }
  PYCNN_BOTH void operator()(Block<MeasurePass>& block) const {
    const std::int64_t tile = block.index() / across(), c0 = block.index() % across() * kWide;
    const std::int64_t begin = tile * kPassRows;
    const std::int64_t end = begin + kPassRows < rows ? begin + kPassRows : rows;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const int column = thread % kAcross * kVector<T>, lane = thread / kAcross;
      const std::int64_t channel = c0 + column, rest = channels - channel;
      const int count = rest < kVector<T> ? static_cast<int>(rest) : kVector<T>;
      Measured<T> own;
      own.clear();
      if (count > 0) {
        if (measure.kind == MeasureKind::kMoments)
          load(result + begin * channels + channel, count, own.center);
        else
          own.read_norm(measure, channel, count);
        const std::int64_t row = begin + lane;
        add({row * channels + channel, row * measure.normed_pitch + channel, channel, count,
             static_cast<int>((end - row + kDown - 1) / kDown)},
            own);
      }
      PYCNN_UNROLL
      for (int i = 0; i < kVector<T>; ++i) {
        shared.a[lane][column + i] = own.a[i];
        shared.b[lane][column + i] = own.b[i];
      }
    });
    block.last([&](int thread, Registers&) {
      const std::int64_t channel = c0 + thread;
      if (thread >= kWide || channel >= channels) return;
      float a = 0.0f, b = 0.0f;
      for (int lane = 0; lane < kDown; ++lane) {
        a += shared.a[lane][thread];
        b += shared.b[lane][thread];
      }
      float* const to = partials + tile * kMeasured * channels + channel;
      to[0] = a;
      to[channels] = b;
      to[2 * channels] = measure.kind == MeasureKind::kMoments
                             ? widened(result[begin * channels + channel])
                             : 0.0f;
    });
  }

 private:
  // Rows that are left to a thread, each kDown-th.
  struct Lane {
    std::int64_t place, normed;  // of the next one's vector
    std::int64_t channel;
    int count, rows;
  };
  using Vector = Pack<T, kVector<T>>;

  // Whether all vectors of channels are one access each.
  PYCNN_BOTH bool is_whole() const {
    return channels % kVector<T> == 0 && is_at_vector(result) && is_at_vector(measure.normed) &&
           measure.normed_pitch % kVector<T> == 0 && is_at_vector(epilogue.residual) &&
           (epilogue.signs != nullptr || is_at_vector(epilogue.gate));
  }
  // The curves that batch norms mostly have are constants for whole vectors. Where a result is
  // finished, a row has up to four vectors of its own.
  PYCNN_BOTH void add(const Lane& lane, Measured<T>& own) const {
    const bool moments = !Finishes && measure.kind == MeasureKind::kMoments;
    if (lane.count < kVector<T> || !is_whole()) {
      if (moments) return add_lane<1, false, true>(lane, {}, own);
      return add_lane<1, false, false>(lane, measure.curve, own);
    }
    if (moments) return add_lane<4, true, true>(lane, {}, own);
    with_curve(measure.curve, [&](const auto& curve) {
      add_lane<std::decay_t<decltype(curve)>::kIsShort && !Finishes ? 4 : 1, true, false>(
          lane, curve, own);
    });
  }
  // Rows are read kAtOnce at a time, and added in their order.
  template <int kAtOnce, bool kWhole, bool kMoments>
  PYCNN_BOTH void add_lane(Lane lane, const Curve& curve, Measured<T>& own) const {
    for (; lane.rows >= kAtOnce; advance(lane, kAtOnce))
      add_rows<kAtOnce, kWhole, kMoments>(lane, curve, own);
    if constexpr (kAtOnce > 1)
      for (; lane.rows > 0; advance(lane, 1)) add_rows<1, kWhole, kMoments>(lane, curve, own);
  }
  PYCNN_BOTH void advance(Lane& lane, int rows) const {
    lane.rows -= rows;
    lane.place += rows * kDown * channels;
    lane.normed += rows * kDown * measure.normed_pitch;
  }
  template <int kAtOnce, bool kWhole, bool kMoments>
  PYCNN_BOTH void add_rows(const Lane& lane, const Curve& curve, Measured<T>& own) const {
    Vector values[kAtOnce], normed[kAtOnce], residual[kAtOnce], gate[kAtOnce];
    unsigned signs[kAtOnce] = {};
    PYCNN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const std::int64_t place = lane.place + i * kDown * channels;
      const auto read = [&](const void* from, std::int64_t where) {
        return load_pack<kVector<T>, kWhole>(static_cast<const T*>(from) + where, lane.count);
      };
      values[i] = read(result, place);
      if constexpr (!kMoments)
        normed[i] = read(measure.normed, lane.normed + i * kDown * measure.normed_pitch);
      if constexpr (Finishes) {
        residual[i] = gate[i] = Vector{};
        if (epilogue.residual != nullptr) residual[i] = read(epilogue.residual, place);
        if (epilogue.signs != nullptr)
          signs[i] = load_signs(epilogue.signs, place, lane.count);
        else if (epilogue.gate != nullptr)
          gate[i] = read(epilogue.gate, place);
      }
    }
    PYCNN_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      float y[kVector<T>];
      widen(values[i], y);
      if constexpr (Finishes) {
        float r[kVector<T>], g[kVector<T>];
        widen(residual[i], r);
        if (epilogue.signs != nullptr)
          widen_signs(signs[i], g);
        else
          widen(gate[i], g);
        finish_beside<T>(epilogue, lane.channel, lane.count, channels, r, g, y);
        store(result + lane.place + i * kDown * channels, lane.count, y);
        PYCNN_UNROLL
        for (int j = 0; j < kVector<T>; ++j) y[j] = rounded<T>(y[j]);
      }
      if constexpr (kMoments) {
        own.add_moments(y);
      } else {
        float x[kVector<T>];
        widen(normed[i], x);
        own.add_sums(curve, y, x);
      }
    }
  }
};

struct TileSums {
  MeasureKind kind;
  const float* partials;
  std::int64_t tiles, tile_rows, rows, channels;

  PYCNN_BOTH double center(std::int64_t tile, std::int64_t c) const {
    return static_cast<double>(partials[(tile * kMeasured + 2) * channels + c]);
  }
  PYCNN_BOTH void add(std::int64_t tile, std::int64_t c, double (&sums)[2]) const {
    const float* const at = partials + tile * kMeasured * channels + c;
    const auto a = static_cast<double>(at[0]), b = static_cast<double>(at[channels]);
    if (kind == MeasureKind::kMoments) {
      // As distances from the first tile's center.
      const std::int64_t left = rows - tile * tile_rows;
      const auto n = static_cast<double>(left < tile_rows ? left : tile_rows);
      const double d = center(tile, c) - center(0, c);
      sums[0] += a + n * d;
      sums[1] += b + 2.0 * d * a + n * d * d;
    } else {
      sums[0] += a;
      sums[1] += b;
    }
  }
};

// Adds kChunkTiles tiles (or, at last, all chunks of them) of kChannels channels.
template <class Source, class Finish>
struct AddMeasured {
  static constexpr int kThreads = kChannels * kLanes;
  struct Shared {
    double sum[2][kLanes][kChannels];
  };
  struct Registers {};
  Source source;
  Finish finish;
  std::int64_t count, piece, channels;

  PYCNN_BOTH std::int64_t across() const { return (channels + kChannels - 1) / kChannels; }
  PYCNN_BOTH std::int64_t blocks() const { return (count + piece - 1) / piece * across(); }
  PYCNN_BOTH void operator()(Block<AddMeasured>& block) const {
    const std::int64_t chunk = block.index() / across(), c0 = block.index() % across() * kChannels;
    const std::int64_t end = (chunk + 1) * piece < count ? (chunk + 1) * piece : count;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const int column = thread % kChannels, lane = thread / kChannels;
      double sums[2] = {0.0, 0.0};
      if (c0 + column < channels)
        for (std::int64_t i = chunk * piece + lane; i < end; i += kLanes)
          source.add(i, c0 + column, sums);
      shared.sum[0][lane][column] = sums[0];
      shared.sum[1][lane][column] = sums[1];
    });
    block.last([&](int thread, Registers&) {
      if (thread >= kChannels || c0 + thread >= channels) return;
      double sums[2] = {0.0, 0.0};
      for (int lane = 0; lane < kLanes; ++lane) {
        sums[0] += shared.sum[0][lane][thread];
        sums[1] += shared.sum[1][lane][thread];
      }
      finish(chunk, c0 + thread, sums);
    });
  }
};

struct KeepChunk {
  double* chunks;  // (chunk, 2, channels)
  std::int64_t channels;
  PYCNN_BOTH void operator()(std::int64_t chunk, std::int64_t c, const double (&sums)[2]) const {
    chunks[2 * chunk * channels + c] = sums[0];
    chunks[(2 * chunk + 1) * channels + c] = sums[1];
  }
};
struct ChunkSums {
  const double* chunks;
  std::int64_t channels;
  PYCNN_BOTH void add(std::int64_t chunk, std::int64_t c, double (&sums)[2]) const {
    sums[0] += chunks[2 * chunk * channels + c];
    sums[1] += chunks[(2 * chunk + 1) * channels + c];
  }
};
struct FinishMeasured {
  TileSums tiles;
  float* result;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t c, const double (&sums)[2]) const {
    const std::int64_t channels = tiles.channels;
    if (tiles.kind != MeasureKind::kMoments) {
      result[c] = static_cast<float>(sums[0]);
      result[channels + c] = static_cast<float>(sums[1]);
      return;
    }
    const auto rows = static_cast<double>(tiles.rows);
    const double mean = tiles.rows > 0 ? tiles.center(0, c) + sums[0] / rows : 0.0;
    double variance = tiles.rows > 0 ? (sums[1] - sums[0] * sums[0] / rows) / rows : 0.0;
    if (variance < 0.0) variance = 0.0;
    const double lost = mean - static_cast<double>(static_cast<float>(mean));
    result[c] = static_cast<float>(mean);
    result[channels + c] = lost == lost ? static_cast<float>(lost) : 0.0f;
    result[2 * channels + c] = static_cast<float>(variance);
  }
};

std::int64_t chunks_of(std::int64_t tiles) { return (tiles + kChunkTiles - 1) / kChunkTiles; }

// Chunks of float64 first.
double* chunks_in(void* scratch) { return static_cast<double*>(scratch); }

}  // namespace

std::int64_t pass_tiles(std::int64_t rows) { return (rows + kPassRows - 1) / kPassRows; }

std::int64_t measure_scratch_bytes(std::int64_t tiles, std::int64_t channels) {
  return channels * (2 * chunks_of(tiles) * static_cast<std::int64_t>(sizeof(double)) +
                     kMeasured * tiles * static_cast<std::int64_t>(sizeof(float)));
}

float* measure_partials(void* scratch, std::int64_t tiles, std::int64_t channels) {
  return reinterpret_cast<float*>(chunks_in(scratch) + 2 * chunks_of(tiles) * channels);
}

void finish_measure(DeviceQueue& queue, const Measure& measure, const MeasureShape& shape,
                    void* scratch) {
  const TileSums tiles{measure.kind, measure_partials(scratch, shape.tiles, shape.channels),
                       shape.tiles,  shape.tile_rows,
                       shape.rows,   shape.channels};
  const FinishMeasured finish{tiles, measure.result};
  const std::int64_t count = chunks_of(shape.tiles);
  // Also where there is no tile.
  if (count <= 1) {
    const AddMeasured<TileSums, FinishMeasured> all{tiles, finish, shape.tiles, kChunkTiles,
                                                    shape.channels};
    return launch(queue, all, all.across());
  }
  double* const chunks = chunks_in(scratch);
  const AddMeasured<TileSums, KeepChunk> by_chunk{
      tiles, {chunks, shape.channels}, shape.tiles, kChunkTiles, shape.channels};
  launch(queue, by_chunk, by_chunk.blocks());
  const AddMeasured<ChunkSums, FinishMeasured> all{
      {chunks, shape.channels}, finish, count, count, shape.channels};
  launch(queue, all, all.across());
}

void measure_pass(DeviceQueue& queue, Image image, const Measure& measure, const void* result,
                  std::int64_t rows, std::int64_t channels, void* scratch) {
  const std::int64_t tiles = pass_tiles(rows);
  with_image(image, [&](auto type) {
    using T = decltype(type);
    const MeasurePass<T, false> pass{measure, static_cast<const T*>(result),
                                     {},      measure_partials(scratch, tiles, channels),
                                     rows,    channels};
    launch(queue, pass, pass.blocks());
  });
  finish_measure(queue, measure, {tiles, kPassRows, rows, channels}, scratch);
}

void measure_center(DeviceQueue& queue, Image image, const ConvShape& shape, const void* input,
                    const void* weight, float* center) {
  with_vectors(image, shape.in_group(), [&](auto type, auto width) {
    using T = decltype(type);
    const auto value = CenterValue<T, decltype(width)::value>::of(
        shape, static_cast<const T*>(input), static_cast<const T*>(weight), center);
    launch(queue, value, value.blocks());
  });
}

void finish_and_sum_pass(DeviceQueue& queue, Image image, const ConvEpilogue& epilogue,
                         const Measure& measure, void* result, std::int64_t rows,
                         std::int64_t channels, void* scratch) {
  const std::int64_t tiles = pass_tiles(rows);
  with_image(image, [&](auto type) {
    using T = decltype(type);
    const MeasurePass<T, true> pass{measure,  static_cast<T*>(result),
                                    epilogue, measure_partials(scratch, tiles, channels),
                                    rows,     channels};
    launch(queue, pass, pass.blocks());
  });
  finish_measure(queue, measure, {tiles, kPassRows, rows, channels}, scratch);
}

}  // namespace pycnn::cuda
