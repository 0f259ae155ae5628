#pragma once
#include "backends/cuda/conv2d.h"
#include "backends/cuda/conv2d_measure.h"
#include "backends/cuda/tile_product.h"

// The matrices of a convolution (tile_product.h). Forward and the input's gradient are one product:
// rows are result pixels, columns result channels of a group, terms (tap of the window, channel),
// and pixel `y` of a row's window is at first + tap * delta of the images that are gathered.
// Weights lie as (group, column, tap, channel), their channels padded to 16 bytes (PackedWeights).
//
// The gradient of a stride is a product for each place within the stride: its pixels take part in
// the same taps, so none is multiplied with zeros.
//
// Narrow groups are joined to wider ones whose weights are zero off the diagonal (GroupShape). Of
// images with few channels a row of the window, whose elements are neighbours, counts as one tap:
// its pixels are the channels (joins_rows), and what lies beyond the image's row is zero.
namespace pycnn::cuda {

// Beyond every image, also with a window added.
constexpr int kNowhere = -(1 << 30);

template <class T>
PYCNN_BOTH int padded_channels(int channels) {
  const int chunks = (channels + kVector<T> - 1) / kVector<T>;
  return (chunks > 0 ? chunks : 1) * kVector<T>;
}

// Groups as they are multiplied: `joined` of the convolution's make one.
struct GroupShape {
  int joined, groups, in, out;  // in, out: channels of a group
  int in_narrow, out_narrow;    // of one of the convolution's

  PYCNN_BOTH bool is_diagonal(int in_channel, int out_channel) const {
    return joined == 1 || in_channel / in_narrow == out_channel / out_narrow;
  }
  // Index of a weight (out channel of all groups, tap, in channel); both channels of one group.
  PYCNN_BOTH std::int64_t weight(int group, int out_channel, int tap, int taps,
                                 int in_channel) const {
    const std::int64_t oc = std::int64_t{group} * out + out_channel;
    return (oc * taps + tap) * in_narrow + (joined == 1 ? in_channel : in_channel % in_narrow);
  }
};

// Results of one axis and where their windows are.
struct ConvAxis {
  int size, first, step;           // of results: i-th is first + i * step
  int origin, origin_step, delta;  // tap t of the i-th: origin + i * origin_step + t * delta
  int first_tap, tap_step, taps;   // which of the window's taps
};

PYCNN_BOTH int common_divisor(int a, int b) {
  while (b != 0) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

struct ConvWindow {
  int size, stride, padding, dilation;

  PYCNN_BOTH ConvAxis forward(int results) const {
    return {results, 0, 1, -padding, stride, dilation, 0, 1, size};
  }
  // Of pixels phase, phase + stride, ... of an input of that many.
  PYCNN_BOTH ConvAxis backward(int pixels, int phase) const {
    const int tap_step = stride / common_divisor(stride, dilation);
    int tap = 0;
    while (tap < size && (phase + padding - tap * dilation) % stride != 0) ++tap;
    const int taps = tap < size ? (size - tap + tap_step - 1) / tap_step : 0;
    const int origin = taps > 0 ? (phase + padding - tap * dilation) / stride : 0;
    return {(pixels - phase + stride - 1) / stride, phase, stride,   origin, 1,
            -(tap_step * dilation / stride),        tap,   tap_step, taps};
  }
};

// The elements begin ... end - 1 of a chunk by single loads, the others zero: for what is not
// aligned.
template <class T>
PYCNN_BOTH void copy_elements(std::byte* shared, const T* global, int begin, int end) {
  Pack<T, kVector<T>> pack;
  PYCNN_UNROLL
  for (int i = 0; i < kVector<T>; ++i) pack.element[i] = i >= begin && i < end ? global[i] : T{};
  *reinterpret_cast<Pack<T, kVector<T>>*>(shared) = pack;
}

// The same of a row of an image with `size` elements, of which `first` is the chunk's first.
template <class T>
PYCNN_BOTH void copy_of_row(std::byte* shared, const T* global, int first, int size, int end) {
  copy_elements(shared, global, first < 0 ? -first : 0, size - first < end ? size - first : end);
}

template <class T, class TileType>
struct GatherSource {
  using Element = T;
  using Tile = TileType;
  static constexpr bool kDepthInner = true;
  static constexpr int kChunks = kDepthBytes / kChunkBytes;
  static constexpr int kLineStep = Tile::kThreads / kChunks;  // each thread has one chunk of lines
  static constexpr int kOwnRows = Tile::kRows / kLineStep;
  static constexpr int kOwnColumns = Tile::kColumns / kLineStep;
  using A = OperandTile<T, true, Tile::kRows>;
  using B = OperandTile<T, true, Tile::kColumns>;

  bool backward;
  bool aligned;  // images are read by 16 bytes
  bool joins_rows;
  int images, height, width;      // of what is gathered
  int groups, channels, columns;  // of a group: gathered channels, result channels
  int pitch;                      // elements from pixel to pixel
  int result_pitch, residual_pitch, gate_pitch;
  int result_height, result_width;
  ConvWindow y, x;
  const T* gathered;
  const T* weights;  // packed
  ConvEpilogue epilogue;
  T* result;
  Measure measure;
  float* partials;  // (tile, kMeasured, channels of all groups)

  using Kept = Measured<T>;
  struct Work {
    bool is_empty;
    int group, rows, m0, n0, steps, tile;
    ConvAxis y, x;
  };
  struct Place {
    int y[kOwnRows], x[kOwnRows];  // in the images, for tap 0
    unsigned pixel[kOwnRows];      // likewise, of all images
    const T* weight;               // of the first column
    int channel, tap_y, tap_x;
  };

  PYCNN_BOTH static int tiles(int size, int of) { return (size + of - 1) / of; }
  PYCNN_BOTH int phases_y() const { return !backward ? 1 : min_of(y.stride, result_height); }
  PYCNN_BOTH int phases_x() const { return !backward ? 1 : min_of(x.stride, result_width); }
  // Of the phase with the most pixels, the first.
  PYCNN_BOTH std::int64_t most_rows() const {
    const int high = tiles(result_height, phases_y()), wide = tiles(result_width, phases_x());
    return std::int64_t{images} * high * wide;
  }
  PYCNN_BOTH int row_tiles() const {
    return static_cast<int>((most_rows() + Tile::kRows - 1) / Tile::kRows);
  }
  PYCNN_BOTH std::int64_t blocks() const {
    return std::int64_t{row_tiles()} * tiles(columns, Tile::kColumns) * phases_y() * phases_x() *
           groups;
  }

  // Tiles of one row of tiles follow one another and share its part of the images in the cache.
  PYCNN_BOTH Work work(std::int64_t block) const {
    const int column_tiles = tiles(columns, Tile::kColumns), high = row_tiles();
    Work result_work;
    result_work.n0 = static_cast<int>(block % column_tiles) * Tile::kColumns;
    block /= column_tiles;
    result_work.m0 = static_cast<int>(block % high) * Tile::kRows;
    block /= high;
    const int phase_x = static_cast<int>(block % phases_x());
    block /= phases_x();
    const int phase_y = static_cast<int>(block % phases_y());
    result_work.tile = result_work.m0 / Tile::kRows + high * (phase_x + phases_x() * phase_y);
    result_work.group = static_cast<int>(block / phases_y());
    result_work.y = backward ? y.backward(result_height, phase_y) : y.forward(result_height);
    result_work.x = backward ? x.backward(result_width, phase_x) : x.forward(result_width);
    result_work.rows = images * result_work.y.size * result_work.x.size;
    result_work.is_empty = result_work.m0 >= result_work.rows;
    const int depth = result_work.y.taps * result_work.x.taps * padded();
    result_work.steps = (depth + kDepthOf<T> - 1) / kDepthOf<T>;
    return result_work;
  }

  PYCNN_BOTH void begin(const Work& work, int thread, Place& place) const {
    const int line = thread / kChunks;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      const int m = work.m0 + line + i * kLineStep;
      const bool inside = m < work.rows;
      const int row_x = m % work.x.size, rest = m / work.x.size;
      const int row_y = rest % work.y.size, n = inside ? rest / work.y.size : 0;
      const int first_y = work.y.origin + row_y * work.y.origin_step;
      place.y[i] = inside ? first_y : kNowhere;
      place.x[i] = work.x.origin + row_x * work.x.origin_step;
      // Of no pixel, where the window begins outside: the sum with a tap inside is one.
      place.pixel[i] =
          static_cast<unsigned>((std::int64_t{n} * height + first_y) * width + place.x[i]);
    }
    place.weight =
        weights + (std::int64_t{work.group} * columns + work.n0 + line) * weights_of_column();
    place.channel = thread % kChunks * kVector<T>;
    place.tap_y = place.tap_x = 0;
    wrap(work, place);
  }

  template <class BlockType>
  PYCNN_BOTH void load(BlockType& block, const Work& work, int thread, Place& place, std::byte* a,
                       std::byte* b) const {
    const int line = thread / kChunks, chunk = thread % kChunks;
    const bool inside = place.tap_y < work.y.taps;
    const int dy = place.tap_y * work.y.delta, dx = place.tap_x * work.x.delta;
    // By 32 bits without signs: what overflows is not wanted.
    const unsigned step =
        static_cast<unsigned>(dy) * static_cast<unsigned>(width) + static_cast<unsigned>(dx);
    const T* const first = gathered + work.group * channels + place.channel;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnRows; ++i) {
      const int at_y = place.y[i] + dy, at_x = place.x[i] + dx;
      const bool wanted =
          inside && static_cast<unsigned>(at_y) < static_cast<unsigned>(height) &&
          (joins_rows || static_cast<unsigned>(at_x) < static_cast<unsigned>(width));
      const T* const from =
          wanted ? first + std::int64_t{static_cast<int>(place.pixel[i] + step)} * pitch : gathered;
      std::byte* const to = a + A::place(line, chunk) + i * kLineStep * A::kLineBytes;
      if (aligned)
        block.copy_async(thread, to, from, wanted);
      else if (joins_rows)
        copy_of_row(to, from, at_x * pitch + place.channel, width * pitch,
                    wanted ? channels - place.channel : 0);
      else
        copy_elements(to, from, 0, wanted ? channels - place.channel : 0);
    }
    const int tap = (work.y.first_tap + place.tap_y * work.y.tap_step) * x.size + work.x.first_tap +
                    place.tap_x * work.x.tap_step;
    const T* const of_tap = place.weight + tap * padded() + place.channel;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnColumns; ++i) {
      const bool wanted = inside && work.n0 + line + i * kLineStep < columns;
      const T* const from =
          wanted ? of_tap + std::int64_t{i * kLineStep} * weights_of_column() : weights;
      std::byte* const to = b + B::place(line, chunk) + i * kLineStep * B::kLineBytes;
      if (weights_aligned())
        block.copy_async(thread, to, from, wanted);
      else
        copy_elements(to, from, 0, wanted ? kVector<T> : 0);
    }
    place.channel += kDepthOf<T>;
    wrap(work, place);
  }

  // Weights of 16 bits are packed, those of 32 may be a part of something.
  PYCNN_BOTH bool weights_aligned() const {
    return sizeof(T) != sizeof(float) ||
           reinterpret_cast<std::uintptr_t>(weights) % kVectorBytes == 0;
  }

  PYCNN_BOTH bool measures() const { return measure.kind != MeasureKind::kNothing; }

  PYCNN_BOTH void store(const Work& work, int thread, const float* sums, Kept& kept) const {
    if (measures()) kept.clear();
    const int n = work.n0 + thread % kAcross * kVector<T>;
    const int count = min_of(columns - n, kVector<T>);
    if (count <= 0) return;
    const int channel = work.group * columns + n;
    float bias[kVector<T>];
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i)
      bias[i] = epilogue.bias != nullptr && i < count ? epilogue.bias[channel + i] : 0.0f;
    const float* const column = sums + thread % kAcross * kVector<T>;
    if (measure.kind == MeasureKind::kMoments) {
      finish(pixel_of(work, work.m0), channel, count, column, bias, kept.center);
      PYCNN_UNROLL
      for (int i = 0; i < kVector<T>; ++i) kept.center[i] = rounded<T>(kept.center[i]);
    }
    if (measure.kind == MeasureKind::kSums) kept.read_norm(measure, channel, count);
    for (int row = thread / kAcross; row < Tile::kRows; row += Tile::kThreads / kAcross) {
      const int m = work.m0 + row;
      if (m >= work.rows) return;
      const std::int64_t pixel = pixel_of(work, m);
      float sum[kVector<T>];
      finish(pixel, channel, count, column + row * kSumPitch<Tile>, bias, sum);
      cuda::store(result + pixel * result_pitch + channel, count, sum);
      if (measures()) {
        PYCNN_UNROLL
        for (int i = 0; i < kVector<T>; ++i) sum[i] = rounded<T>(sum[i]);
        kept.take(measure, pixel, channel, count, sum);
      }
    }
  }

  // What the threads kept of the same columns lies one below the other: a, then b, then `center`.
  PYCNN_BOTH static void gather(int thread, const Kept& kept, float* shared) {
    float* const to = shared + thread / kAcross * Tile::kColumns + thread % kAcross * kVector<T>;
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      to[i] = kept.a[i];
      to[kDown * Tile::kColumns + i] = kept.b[i];
      if (thread < kAcross) to[2 * kDown * Tile::kColumns + i] = kept.center[i];
    }
  }
  PYCNN_BOTH void leave(const Work& work, int thread, const float* shared) const {
    const int which = thread / Tile::kColumns, column = thread % Tile::kColumns;
    if (which > 1 || work.n0 + column >= columns) return;
    float sum = 0.0f;
    for (int row = 0; row < kDown; ++row)
      sum += shared[(which * kDown + row) * Tile::kColumns + column];
    float* const to = partial(work, column);
    to[std::int64_t{which} * groups * columns] = sum;
    if (which == 0)
      to[std::int64_t{2} * groups * columns] = shared[2 * kDown * Tile::kColumns + column];
  }
  // Of a tile without pixels.
  PYCNN_BOTH void leave_nothing(const Work& work, int thread) const {
    if (!measures() || thread >= Tile::kColumns || work.n0 + thread >= columns) return;
    for (int which = 0; which < kMeasured; ++which)
      partial(work, thread)[std::int64_t{which} * groups * columns] = 0.0f;
  }

 private:
  static constexpr int kAcross = Tile::kColumns / kVector<T>, kDown = Tile::kThreads / kAcross;
  static_assert(Tile::kThreads >= 2 * Tile::kColumns, "a thread for each sum");
  static_assert((2 * kDown + 1) * Tile::kColumns <= Tile::kRows * kSumPitch<Tile>,
                "`gather` finds room where the sums were");

  // What is to be stored of a pixel whose sums these are.
  PYCNN_BOTH void finish(std::int64_t pixel, int channel, int count, const float* sums,
                         const float (&bias)[kVector<T>], float (&values)[kVector<T>]) const {
    float residual[kVector<T>] = {}, gate[kVector<T>] = {};
    load_sums(sums, values);
    if (epilogue.residual != nullptr)
      cuda::load(static_cast<const T*>(epilogue.residual) + pixel * residual_pitch + channel, count,
                 residual);
    if (epilogue.signs != nullptr)
      widen_signs(load_signs(epilogue.signs, pixel * groups * columns + channel, count), gate);
    else if (epilogue.gate != nullptr)
      cuda::load(static_cast<const T*>(epilogue.gate) + pixel * gate_pitch + channel, count, gate);
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; ++i) {
      const float sum = values[i] + bias[i] + residual[i];
      values[i] = epilogue.gate != nullptr ? passed(epilogue.curve, gate[i], rounded<T>(sum))
                                           : activate(epilogue.curve, sum);
    }
  }

  PYCNN_BOTH float* partial(const Work& work, int column) const {
    return partials + std::int64_t{work.tile} * kMeasured * groups * columns +
           work.group * columns + work.n0 + column;
  }
  PYCNN_BOTH static int min_of(int a, int b) { return a < b ? a : b; }
  PYCNN_BOTH int padded() const { return padded_channels<T>(channels); }
  PYCNN_BOTH int weights_of_column() const { return y.size * x.size * padded(); }

  PYCNN_BOTH void wrap(const Work& work, Place& place) const {
    while (place.channel >= padded()) {
      place.channel -= padded();
      if (++place.tap_x == work.x.taps) {
        place.tap_x = 0;
        ++place.tap_y;
      }
    }
  }
  PYCNN_BOTH std::int64_t pixel_of(const Work& work, int m) const {
    if (!backward) return m;
    const int row_x = m % work.x.size, rest = m / work.x.size;
    const int row_y = rest % work.y.size, n = rest / work.y.size;
    return (std::int64_t{n} * result_height + work.y.first + row_y * work.y.step) * result_width +
           work.x.first + row_x * work.x.step;
  }
  PYCNN_BOTH static void load_sums(const float* from, float (&to)[kVector<T>]) {
    PYCNN_UNROLL
    for (int i = 0; i < kVector<T>; i += 4) {
      const auto four = *reinterpret_cast<const Pack<float, 4>*>(from + i);
      PYCNN_UNROLL
      for (int e = 0; e < 4; ++e) to[i + e] = four.element[e];
    }
  }
};

constexpr int kBiasRows = 256;

// The weight's gradient: rows are output channels of a group, columns (tap, input channel), terms
// output pixels. Each chunk of pixels has sums of its own. Blocks behind those of the product add
// the same pixels up for the bias' gradient, in chunks of kBiasRows.
template <class T, class TileType>
struct WeightSource {
  using Element = T;
  using Tile = TileType;
  static constexpr bool kDepthInner = false;
  using A = OperandTile<T, false, Tile::kRows>;
  using B = OperandTile<T, false, Tile::kColumns>;
  static constexpr int kStepA = Tile::kThreads / A::kChunks, kStepB = Tile::kThreads / B::kChunks;
  static constexpr int kOwnA = A::kLines / kStepA, kOwnB = B::kLines / kStepB;

  GroupShape group_shape;
  bool input_aligned, output_aligned;  // read by 16 bytes
  bool joins_rows;
  int pitch;  // elements from input pixel to input pixel
  int output_pitch;
  int height, width, out_height, out_width, pixels;
  ConvWindow y, x;
  const T* input;
  const T* grad_output;
  float* sums;  // (chunk, weights)
  int chunks, chunk_pixels;
  float* bias_sums;  // (bias chunk, output channel)
  int bias_chunks;   // 0: none is wanted

  struct Work {
    bool is_empty;
    int group, chunk, m0, n0, begin, end, steps;
  };
  struct Place {
    int pixel;                  // of the first line
    int tap_y, tap_x, channel;  // of the columns: where the window's tap is
    bool has_column, has_row;
    int n[kOwnB], y[kOwnB], x[kOwnB];  // output pixels of lines of the input
  };

  static constexpr int kBiasLanes = 4, kBiasChannels = Tile::kThreads / kBiasLanes;
  PYCNN_BOTH int out_channels() const { return group_shape.groups * group_shape.out; }
  PYCNN_BOTH int bias_tiles() const { return (out_channels() + kBiasChannels - 1) / kBiasChannels; }
  PYCNN_BOTH int taps() const { return y.size * x.size; }
  PYCNN_BOTH int padded() const { return padded_channels<T>(group_shape.in); }
  PYCNN_BOTH int columns() const { return taps() * padded(); }
  PYCNN_BOTH int row_tiles() const { return (group_shape.out + Tile::kRows - 1) / Tile::kRows; }
  PYCNN_BOTH int column_tiles() const { return (columns() + Tile::kColumns - 1) / Tile::kColumns; }
  PYCNN_BOTH std::int64_t product_blocks() const {
    return std::int64_t{row_tiles()} * column_tiles() * chunks * group_shape.groups;
  }
  PYCNN_BOTH std::int64_t blocks() const {
    return product_blocks() + std::int64_t{bias_tiles()} * bias_chunks;
  }

  PYCNN_BOTH bool is_aside(std::int64_t block) const { return block >= product_blocks(); }
  // A few lanes of each channel add its rows in turn, then these are added in order.
  template <class BlockType>
  PYCNN_BOTH void aside(BlockType& block) const {
    using Registers = typename BlockType::Registers;
    const std::int64_t index = block.index() - product_blocks();
    const int first = static_cast<int>(index % bias_tiles()) * kBiasChannels;
    const auto chunk = static_cast<int>(index / bias_tiles());
    const int begin = chunk * kBiasRows;
    const int end = pixels - begin < kBiasRows ? pixels : begin + kBiasRows;
    auto* const shared = reinterpret_cast<float*>(block.shared().bytes);
    block.each([&](int thread, Registers&) {
      const int channel = first + thread % kBiasChannels;
      float sum = 0.0f;
      if (channel < out_channels()) {
        constexpr int kAtOnce = 8;
        for (int row = begin + thread / kBiasChannels; row < end; row += kAtOnce * kBiasLanes) {
          float values[kAtOnce];
          PYCNN_UNROLL
          for (int i = 0; i < kAtOnce; ++i) {
            const int at = row + i * kBiasLanes;
            values[i] =
                at < end ? widened(grad_output[std::int64_t{at} * output_pitch + channel]) : 0.0f;
          }
          PYCNN_UNROLL
          for (int i = 0; i < kAtOnce; ++i) sum += values[i];
        }
      }
      shared[thread] = sum;
    });
    block.last([&](int thread, Registers&) {
      if (thread >= kBiasChannels || first + thread >= out_channels()) return;
      float sum = 0.0f;
      for (int lane = 0; lane < kBiasLanes; ++lane) sum += shared[lane * kBiasChannels + thread];
      bias_sums[std::int64_t{chunk} * out_channels() + first + thread] = sum;
    });
  }

  PYCNN_BOTH Work work(std::int64_t block) const {
    Work result;
    result.is_empty = false;
    result.n0 = static_cast<int>(block % column_tiles()) * Tile::kColumns;
    block /= column_tiles();
    result.m0 = static_cast<int>(block % row_tiles()) * Tile::kRows;
    block /= row_tiles();
    result.chunk = static_cast<int>(block % chunks);
    result.group = static_cast<int>(block / chunks);
    const std::int64_t begin = std::int64_t{result.chunk} * chunk_pixels;
    const std::int64_t end = begin + chunk_pixels;
    result.begin = static_cast<int>(begin < pixels ? begin : pixels);
    result.end = static_cast<int>(end < pixels ? end : pixels);
    result.steps = (result.end - result.begin + kDepthOf<T> - 1) / kDepthOf<T>;
    return result;
  }

  PYCNN_BOTH void begin(const Work& work, int thread, Place& place) const {
    place.pixel = work.begin;
    place.has_row = work.m0 + thread % A::kChunks * kVector<T> < group_shape.out;
    const int column = work.n0 + thread % B::kChunks * kVector<T>;
    const int tap = column / padded();
    place.has_column = tap < taps();
    place.channel = column % padded();
    place.tap_y = tap / x.size * y.dilation - y.padding;
    place.tap_x = tap % x.size * x.dilation - x.padding;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnB; ++i) {
      const int pixel = work.begin + thread / B::kChunks + i * kStepB;
      place.x[i] = pixel % out_width;
      place.y[i] = pixel / out_width % out_height;
      place.n[i] = pixel / out_width / out_height;
    }
  }

  template <class BlockType>
  PYCNN_BOTH void load(BlockType& block, const Work& work, int thread, Place& place, std::byte* a,
                       std::byte* b) const {
    const int line_a = thread / A::kChunks, chunk_a = thread % A::kChunks;
    const int row = work.m0 + chunk_a * kVector<T>;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnA; ++i) {
      const int line = line_a + i * kStepA, pixel = place.pixel + line;
      const bool wanted = place.has_row && pixel < work.end;
      const T* const from = wanted ? grad_output + std::int64_t{pixel} * output_pitch +
                                         work.group * group_shape.out + row
                                   : grad_output;
      std::byte* const to = a + A::place(line, chunk_a);
      if (output_aligned)
        block.copy_async(thread, to, from, wanted);
      else
        copy_elements(to, from, 0, wanted ? group_shape.out - row : 0);
    }
    const int line_b = thread / B::kChunks, chunk_b = thread % B::kChunks;
    // One step of depth further, in (image, y, x).
    const int move_x = kDepthOf<T> % out_width, rest = kDepthOf<T> / out_width;
    const int move_y = rest % out_height, move_n = rest / out_height;
    PYCNN_UNROLL
    for (int i = 0; i < kOwnB; ++i) {
      const int line = line_b + i * kStepB;
      const int at_y = place.y[i] * y.stride + place.tap_y;
      const int at_x = place.x[i] * x.stride + place.tap_x;
      const bool wanted =
          place.has_column && place.pixel + line < work.end &&
          static_cast<unsigned>(at_y) < static_cast<unsigned>(height) &&
          (joins_rows || static_cast<unsigned>(at_x) < static_cast<unsigned>(width));
      const std::int64_t pixel = (std::int64_t{place.n[i]} * height + at_y) * width + at_x;
      const T* const from =
          wanted ? input + pixel * pitch + work.group * group_shape.in + place.channel : input;
      std::byte* const to = b + B::place(line, chunk_b);
      if (input_aligned)
        block.copy_async(thread, to, from, wanted);
      else if (joins_rows)
        copy_of_row(to, from, at_x * pitch + place.channel, width * pitch,
                    wanted ? group_shape.in - place.channel : 0);
      else
        copy_elements(to, from, 0, wanted ? group_shape.in - place.channel : 0);
      place.x[i] += move_x;
      const int carry_x = place.x[i] >= out_width ? 1 : 0;
      place.x[i] -= carry_x * out_width;
      place.y[i] += move_y + carry_x;
      const int carry_y = place.y[i] >= out_height ? 1 : 0;
      place.y[i] -= carry_y * out_height;
      place.n[i] += move_n + carry_y;
    }
    place.pixel += kDepthOf<T>;
  }

  struct Kept {};
  PYCNN_BOTH static bool measures() { return false; }
  PYCNN_BOTH static void gather(int, const Kept&, float*) {}
  PYCNN_BOTH static void leave(const Work&, int, const float*) {}
  PYCNN_BOTH static void leave_nothing(const Work&, int) {}

  PYCNN_BOTH void store(const Work& work, int thread, const float* tile, Kept&) const {
    const int column = work.n0 + thread % Tile::kColumns;
    const int tap = column / padded(), channel = column % padded();
    if (tap >= taps() || channel >= group_shape.in) return;
    const std::int64_t weights =
        std::int64_t{group_shape.groups} * group_shape.out * taps() * group_shape.in_narrow;
    float* const target = sums + work.chunk * weights;
    for (int row = thread / Tile::kColumns; row < Tile::kRows;
         row += Tile::kThreads / Tile::kColumns) {
      const int oc = work.m0 + row;
      if (oc >= group_shape.out) return;
      if (!group_shape.is_diagonal(channel, oc)) continue;
      target[group_shape.weight(work.group, oc, tap, taps(), channel)] =
          tile[row * kSumPitch<Tile> + thread % Tile::kColumns];
    }
  }
};

// Which tile is used changes no bit of a result, but for what is measured of it.
enum class TileSize : std::uint8_t { kLarge, kMedium, kSmall };

// By the multiply-adds of CUDA cores, or by tensor cores (float as TF32): conv2d_float32.cu,
// conv2d_tf32.cu, conv2d_bfloat16.cu and conv2d_float16.cu.
template <class T, bool kTensorCores>
void multiply(DeviceQueue& queue, TileSize size, const GatherSource<T, SmallTile>& source);
template <class T, bool kTensorCores>
void multiply(DeviceQueue& queue, TileSize size, const WeightSource<T, SmallTile>& source);

}  // namespace pycnn::cuda
