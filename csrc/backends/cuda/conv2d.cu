#include <cstdlib>
#include <cstring>
#include <optional>
#include <type_traits>

#include "backends/cuda/columns.h"
#include "backends/cuda/conv2d.h"
#include "backends/cuda/conv2d_chunks.h"
#include "backends/cuda/conv2d_direct.h"
#include "backends/cuda/conv2d_finish.h"
#include "backends/cuda/conv2d_packing.h"
#include "backends/cuda/conv2d_tiles.h"
#include "backends/cuda/map.h"

namespace pycnn::cuda {
namespace {

template <class T>
struct AddEpilogue {
  static constexpr int kWidth = kVector<T>;
  std::int64_t channels;
  ConvEpilogue epilogue;
  T* output;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float y[kWidth];
    load(output + begin, n, y);
    finish_values<T>(epilogue, begin, n, channels, y);
    store(output + begin, n, y);
  }
};

struct BiasFinish {
  float* grad_bias;
  PYCNN_BOTH void operator()(std::int64_t, std::int64_t c, const double (&sums)[1]) const {
    grad_bias[c] = static_cast<float>(sums[0]);
  }
};

// Enough blocks for the largest GPUs, each with a good piece of work.
constexpr std::int64_t kWantedBlocks = 528, kLeastBlocks = kWantedBlocks / 2, kLeastChunk = 1024;

std::int64_t tiles_of(std::int64_t rows, std::int64_t columns, std::int64_t tile_rows,
                      std::int64_t tile_columns) {
  return (rows + tile_rows - 1) / tile_rows * ((columns + tile_columns - 1) / tile_columns);
}

// $PYCNN_CUDA_TILE, "large", "medium" or "small": for tests and to time one beside another.
std::optional<TileSize> named_tile() {
  const char* const name = std::getenv("PYCNN_CUDA_TILE");
  if (name == nullptr) return std::nullopt;
  if (std::strcmp(name, "large") == 0) return TileSize::kLarge;
  if (std::strcmp(name, "medium") == 0) return TileSize::kMedium;
  if (std::strcmp(name, "small") == 0) return TileSize::kSmall;
  return std::nullopt;
}

TileSize tile_of(std::int64_t rows, std::int64_t columns, std::int64_t products) {
  if (const std::optional<TileSize> named = named_tile()) return *named;
  const auto fills = [&](int tile_rows, int tile_columns) {
    return tiles_of(rows, columns, tile_rows, tile_columns) * products >= kLeastBlocks;
  };
  if (columns > MediumTile::kColumns && fills(LargeTile::kRows, LargeTile::kColumns))
    return TileSize::kLarge;
  return fills(MediumTile::kRows, MediumTile::kColumns) ? TileSize::kMedium : TileSize::kSmall;
}

// Of a weight's gradient: as many chunks of pixels as there may be make up for few tiles.
TileSize weight_tile_of(const GroupShape& g, int columns) {
  if (const std::optional<TileSize> named = named_tile()) return *named;
  const bool is_narrow = g.out <= SmallTile::kRows || columns <= SmallTile::kColumns;
  return is_narrow ? TileSize::kSmall : TileSize::kLarge;
}

std::int64_t tile_chunks_of(const ConvShape& s) {
  const Joined product = joined(s);
  const GroupShape& g = product.g;
  const int columns = product.taps() * g.in;
  const int tile =
      weight_tile_of(g, columns) == TileSize::kLarge ? LargeTile::kRows : SmallTile::kRows;
  const std::int64_t blocks = tiles_of(g.out, columns, tile, tile) * g.groups;
  const std::int64_t wanted = (kWantedBlocks + blocks - 1) / blocks;
  const std::int64_t most = (s.pixels() + kLeastChunk - 1) / kLeastChunk;
  return wanted < most ? wanted : most > 1 ? most : 1;
}

std::int64_t bias_chunks_of(const ConvShape& s) {
  const std::int64_t chunks = (s.pixels() + kBiasRows - 1) / kBiasRows;
  return chunks > 1 ? chunks : 1;
}

template <class T>
bool is_aligned(int channels, int pitch, const void* images) {
  return channels > 0 && channels % kVector<T> == 0 && pitch % kVector<T> == 0 &&
         reinterpret_cast<std::uintptr_t>(images) % kVectorBytes == 0;
}

// Weights that lie as they are multiplied.
template <class T>
bool is_packed(const GroupShape& g) {
  return sizeof(T) == sizeof(float) && g.joined == 1 && g.in > 0 && g.in % kVector<T> == 0;
}

// f with a value of the element type and whether tensor cores are used.
template <class F>
void with_arithmetic(Arithmetic arithmetic, const F& f) {
  switch (arithmetic) {
    case Arithmetic::kFloat32:
      return f(float{}, std::false_type{});
    case Arithmetic::kTf32:
      return f(float{}, std::true_type{});
    case Arithmetic::kBFloat16:
      return f(BFloat16{}, std::true_type{});
    case Arithmetic::kFloat16:
      return f(Float16{}, std::true_type{});
  }
}

// Multiply-adds of a tile, by CUDA cores and by tensor cores, in the time of one of a thread that
// loads what it multiplies. Estimated, never timed: a tile loads its elements one by one here.
constexpr std::int64_t kPlainGain = 2, kTensorCoreGain = 8;

// Whether the weight's gradient is added up by threads: where tiles would make so many more
// multiply-adds for each pixel, most of them of zeros, that these take longer.
bool is_direct_weight(Arithmetic arithmetic, const ConvShape& s) {
  if (!conv2d_is_direct(s) || named_tile()) return false;
  const Joined product = joined(s);
  bool is_direct = false;
  with_arithmetic(arithmetic, [&](auto type, auto tensor_cores) {
    const std::int64_t columns =
        std::int64_t{product.taps()} * padded_channels<decltype(type)>(product.g.in);
    const std::int64_t of_tiles =
        tiles_of(product.g.out, columns, SmallTile::kRows, SmallTile::kColumns) * SmallTile::kRows *
        SmallTile::kColumns;
    const std::int64_t gain = tensor_cores.value ? kTensorCoreGain : kPlainGain;
    is_direct = of_tiles > gain * conv2d_direct_weight_work(s);
  });
  return is_direct;
}

// Chunks of pixels, whose sums are added by a launch of their own where there are several.
struct WeightChunks {
  bool is_direct;
  std::int64_t weight, bias;

  std::int64_t weight_sums(const ConvShape& s) const {
    return weight > 1 ? weight * s.weights() : 0;
  }
  std::int64_t bias_sums(const ConvShape& s) const { return bias > 1 ? bias * s.out_channels : 0; }
};
WeightChunks chunks_of(Arithmetic arithmetic, const ConvShape& s, bool bias) {
  WeightChunks chunks{is_direct_weight(arithmetic, s), 0, 0};
  chunks.weight = chunks.is_direct ? conv2d_direct_weight_chunks(s) : tile_chunks_of(s);
  if (bias) chunks.bias = chunks.is_direct ? chunks.weight : bias_chunks_of(s);
  return chunks;
}

constexpr std::int64_t kApart = 256;
std::int64_t apart(std::int64_t bytes) { return (bytes + kApart - 1) / kApart * kApart; }

template <class T>
int rows_of(TileSize size) {
  return size == TileSize::kSmall ? SmallTile::kRows : LargeTile::kRows;
}
static_assert(MediumTile::kRows == LargeTile::kRows);

// Tiles of rows of what is gathered, with those of all phases.
template <class T>
std::int64_t tiles_in(const GatherSource<T, SmallTile>& source, TileSize size) {
  const std::int64_t tile_rows = rows_of<T>(size);
  return (source.most_rows() + tile_rows - 1) / tile_rows * source.phases_y() * source.phases_x();
}

// The shapes alone, for what depends on them.
template <class T>
GatherSource<T, SmallTile> forward_source(const ConvShape& shape, const Joined& product) {
  GatherSource<T, SmallTile> source{};
  source.backward = false;
  source.joins_rows = product.rows;
  source.images = shape.images;
  source.height = shape.height;
  source.width = shape.width;
  source.groups = product.g.groups;
  source.channels = product.g.in;
  source.columns = product.g.out;
  source.pitch = shape.input_pitch();
  source.result_pitch = shape.output_pitch();
  source.residual_pitch = shape.residual_pitch();
  source.result_height = shape.out_height;
  source.result_width = shape.out_width;
  source.y = product.y;
  source.x = product.x;
  return source;
}
template <class T>
GatherSource<T, SmallTile> backward_source(const ConvShape& shape, const GroupShape& g) {
  GatherSource<T, SmallTile> source{};
  source.backward = true;
  source.images = shape.images;
  source.height = shape.out_height;
  source.width = shape.out_width;
  source.groups = g.groups;
  source.channels = g.out;
  source.columns = g.in;
  source.pitch = shape.output_pitch();
  source.result_pitch = source.residual_pitch = shape.input_pitch();
  source.result_height = shape.height;
  source.result_width = shape.width;
  source.y = window_y(shape);
  source.x = window_x(shape);
  return source;
}
template <class T>
TileSize tile_of(const GatherSource<T, SmallTile>& source) {
  const std::int64_t products = std::int64_t{source.phases_y()} * source.phases_x() * source.groups;
  return tile_of(source.most_rows(), source.columns, products);
}

template <class T>
std::int64_t with_measured(std::int64_t bytes, MeasureKind kind,
                           const GatherSource<T, SmallTile>& source) {
  if (kind == MeasureKind::kNothing) return bytes;
  return apart(bytes) + measure_scratch_bytes(tiles_in(source, tile_of(source)),
                                              std::int64_t{source.groups} * source.columns);
}

// Multiplies, and measures what it gave. `packed_bytes` of scratch are in use.
template <class T, bool kTensorCores>
void multiply_measured(DeviceQueue& queue, GatherSource<T, SmallTile> source,
                       const Measure& measure, void* scratch, std::int64_t packed_bytes) {
  const TileSize size = tile_of(source);
  const std::int64_t channels = std::int64_t{source.groups} * source.columns;
  const std::int64_t tiles = tiles_in(source, size);
  void* const behind = static_cast<std::byte*>(scratch) + apart(packed_bytes);
  source.measure = measure;
  if (source.measures()) source.partials = measure_partials(behind, tiles, channels);
  multiply<T, kTensorCores>(queue, size, source);
  if (source.measures()) {
    const std::int64_t rows =
        std::int64_t{source.images} * source.result_height * source.result_width;
    finish_measure(queue, measure, {tiles, rows_of<T>(size), rows, channels}, behind);
  }
}

ColumnShape bias_shape(const ConvShape& s) { return {1, s.pixels(), s.out_channels}; }

}  // namespace

bool conv2d_reads_parts(const ConvShape& shape) { return !joined(shape).rows; }

std::int64_t conv2d_packed_bytes(Arithmetic arithmetic, const ConvShape& shape, PackForm form) {
  std::int64_t bytes = 0;
  with_arithmetic(arithmetic, [&](auto type, auto) {
    using T = decltype(type);
    const Packing<T> packing = packing_of<T>(shape, form);
    if (form != PackForm::kForward || !is_packed<T>(packing.g))
      bytes = packing.count() * static_cast<std::int64_t>(sizeof(T));
  });
  return bytes;
}

bool conv2d_packing_rounds(Arithmetic arithmetic, const ConvShape& shape, PackForm form) {
  bool rounds = false;
  with_arithmetic(arithmetic, [&](auto type, auto) {
    using T = decltype(type);
    const Packing<T> packing = packing_of<T>(shape, form);
    rounds = sizeof(T) < sizeof(float) && form != PackForm::kBackward && packing.g.joined == 1 &&
             packing.padded == packing.g.in;
  });
  return rounds;
}

void conv2d_pack(DeviceQueue& queue, Arithmetic arithmetic, const ConvPacking* packings,
                 int count) {
  with_arithmetic(arithmetic, [&](auto type, auto) {
    using T = decltype(type);
    if (count == 1)
      launch_packings<T, 1>(queue, packings, count);
    else
      launch_packings<T, kMostPackings>(queue, packings, count);
  });
}

namespace {

// Those that a product reads. `bytes` of scratch become their place where they are packed here.
const void* packed_weights(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                           PackForm form, const ConvWeights& weights, void* scratch,
                           std::int64_t& bytes) {
  if (weights.packed != nullptr) return weights.packed;
  bytes = conv2d_packed_bytes(arithmetic, shape, form);
  if (bytes == 0) return weights.stored;
  const ConvPacking packing{shape, form, weights.stored, scratch};
  conv2d_pack(queue, arithmetic, &packing, 1);
  return scratch;
}

DirectWeights direct_weights(const void* packed, Arithmetic arithmetic, const ConvShape& shape) {
  DirectWeights weights{packed, 0, 0, shape.in_channels};
  with_arithmetic(arithmetic, [&](auto type, auto) {
    const Joined product = joined(shape);
    const int padded = padded_channels<decltype(type)>(product.g.in);
    weights.channel_pitch = product.taps() * padded;
    if (!product.rows) weights.tap_pitch = padded;
    weights.row_pitch = product.x.size * padded;
  });
  return weights;
}

}  // namespace

std::int64_t conv2d_scratch_bytes(Arithmetic arithmetic, const ConvShape& shape, MeasureKind kind,
                                  bool packed) {
  std::int64_t bytes = packed ? 0 : conv2d_packed_bytes(arithmetic, shape, PackForm::kForward);
  with_arithmetic(arithmetic, [&](auto type, auto) {
    bytes = with_measured(bytes, kind, forward_source<decltype(type)>(shape, joined(shape)));
  });
  return bytes;
}

void conv2d(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape, const void* input,
            const ConvWeights& weights, const ConvEpilogue& epilogue, const Measure& measure,
            void* output, void* scratch) {
  const Joined product = joined(shape);
  std::int64_t packed_bytes = 0;
  const void* const packed =
      packed_weights(queue, arithmetic, shape, PackForm::kForward, weights, scratch, packed_bytes);
  if (measure.kind == MeasureKind::kNothing && conv2d_is_direct(shape) && !named_tile())
    return conv2d_direct(queue, image_of(arithmetic), shape, input,
                         direct_weights(packed, arithmetic, shape), epilogue, output);
  with_arithmetic(arithmetic, [&](auto type, auto tensor_cores) {
    using T = decltype(type);
    GatherSource<T, SmallTile> source = forward_source<T>(shape, product);
    source.aligned = !product.rows && is_aligned<T>(product.g.in, shape.input_pitch(), input);
    source.gathered = static_cast<const T*>(input);
    source.weights = static_cast<const T*>(packed);
    source.epilogue = epilogue;
    source.result = static_cast<T*>(output);
    multiply_measured<T, tensor_cores.value>(queue, source, measure, scratch, packed_bytes);
  });
}

void conv2d_epilogue(DeviceQueue& queue, Image image, const ConvShape& shape,
                     const ConvEpilogue& epilogue, void* output) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue, AddEpilogue<T>{shape.out_channels, epilogue, static_cast<T*>(output)},
               shape.pixels() * shape.out_channels);
  });
}

void conv2d_gradient_epilogue(DeviceQueue& queue, Image image, const ConvShape& shape,
                              const ConvEpilogue& epilogue, void* grad_input) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue, AddEpilogue<T>{shape.in_channels, epilogue, static_cast<T*>(grad_input)},
               std::int64_t{shape.images} * shape.height * shape.width * shape.in_channels);
  });
}

std::int64_t conv2d_grad_input_scratch_bytes(Arithmetic arithmetic, const ConvShape& shape,
                                             MeasureKind kind, bool packed) {
  std::int64_t bytes = packed ? 0 : conv2d_packed_bytes(arithmetic, shape, PackForm::kBackward);
  with_arithmetic(arithmetic, [&](auto type, auto) {
    bytes = with_measured(bytes, kind, backward_source<decltype(type)>(shape, groups_of(shape)));
  });
  return bytes;
}

void conv2d_grad_input(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                       const void* grad_output, const ConvWeights& weights,
                       const ConvEpilogue& epilogue, const Measure& measure, void* grad_input,
                       void* scratch) {
  const GroupShape g = groups_of(shape);
  std::int64_t packed_bytes = 0;
  const void* const packed =
      packed_weights(queue, arithmetic, shape, PackForm::kBackward, weights, scratch, packed_bytes);
  with_arithmetic(arithmetic, [&](auto type, auto tensor_cores) {
    using T = decltype(type);
    GatherSource<T, SmallTile> source = backward_source<T>(shape, g);
    source.aligned = is_aligned<T>(g.out, shape.output_pitch(), grad_output);
    source.epilogue = epilogue;
    source.residual_pitch = shape.residual_step != 0 ? shape.residual_step : shape.in_channels;
    source.gate_pitch = shape.gate_step != 0 ? shape.gate_step : shape.in_channels;
    source.gathered = static_cast<const T*>(grad_output);
    source.weights = static_cast<const T*>(packed);
    source.result = static_cast<T*>(grad_input);
    multiply_measured<T, tensor_cores.value>(queue, source, measure, scratch, packed_bytes);
  });
}

std::int64_t conv2d_grad_weight_scratch_bytes(Arithmetic arithmetic, const ConvShape& shape,
                                              bool bias) {
  const WeightChunks chunks = chunks_of(arithmetic, shape, bias);
  return (chunks.weight_sums(shape) + chunks.bias_sums(shape)) *
         static_cast<std::int64_t>(sizeof(float));
}

namespace {

// `chunks` of sums, or with one the gradients themselves.
void multiply_weight(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                     const void* input, const void* grad_output, const WeightChunks& chunks,
                     float* sums, float* bias_sums) {
  const Joined product = joined(shape);
  const GroupShape& g = product.g;
  with_arithmetic(arithmetic, [&](auto type, auto tensor_cores) {
    using T = decltype(type);
    WeightSource<T, SmallTile> source{};
    source.group_shape = g;
    source.input_aligned = !product.rows && is_aligned<T>(g.in, shape.input_pitch(), input);
    source.joins_rows = product.rows;
    source.pitch = shape.input_pitch();
    source.output_pitch = shape.output_pitch();
    source.output_aligned = is_aligned<T>(g.out, shape.output_pitch(), grad_output);
    source.height = shape.height;
    source.width = shape.width;
    source.out_height = shape.out_height;
    source.out_width = shape.out_width;
    source.pixels = static_cast<int>(shape.pixels());
    source.y = product.y;
    source.x = product.x;
    source.input = static_cast<const T*>(input);
    source.grad_output = static_cast<const T*>(grad_output);
    source.sums = sums;
    source.chunks = static_cast<int>(chunks.weight);
    source.chunk_pixels = static_cast<int>((shape.pixels() + chunks.weight - 1) / chunks.weight);
    source.bias_sums = bias_sums;
    source.bias_chunks = static_cast<int>(chunks.bias);
    multiply<T, tensor_cores.value>(queue, weight_tile_of(g, product.taps() * g.in), source);
  });
}

}  // namespace

void conv2d_grad_weight(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                        const void* input, const void* grad_output, float* grad_weight,
                        float* grad_bias, void* scratch) {
  const WeightChunks chunks = chunks_of(arithmetic, shape, grad_bias != nullptr);
  auto* const sums = static_cast<float*>(scratch);
  float* const bias_sums = sums + chunks.weight_sums(shape);
  float* const weight_to = chunks.weight > 1 ? sums : grad_weight;
  float* const bias_to = chunks.bias > 1 ? bias_sums : grad_bias;
  if (chunks.is_direct)
    conv2d_direct_weight(queue, image_of(arithmetic), shape, input, grad_output, weight_to,
                         bias_to);
  else
    multiply_weight(queue, arithmetic, shape, input, grad_output, chunks, weight_to, bias_to);
  const AddChunks rest{{sums, grad_weight, chunks.weight, shape.weights()},
                       {bias_sums, grad_bias, chunks.bias, shape.out_channels}};
  launch(queue, rest, rest.blocks());
}

std::int64_t conv2d_grad_bias_scratch_bytes(const ConvShape& shape) {
  return column_scratch_bytes(bias_shape(shape), 1);
}

void conv2d_grad_bias(DeviceQueue& queue, Image image, const ConvShape& shape,
                      const void* grad_output, float* grad_bias, void* scratch) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_column_sums(queue,
                       PlainTerm<T>(static_cast<const T*>(grad_output), shape.output_pitch()),
                       BiasFinish{grad_bias}, bias_shape(shape), static_cast<float*>(scratch));
  });
}

}  // namespace pycnn::cuda
