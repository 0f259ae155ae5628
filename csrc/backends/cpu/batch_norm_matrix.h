#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "backends/cpu/batch_norm.h"
#include "backends/cpu/batch_norm_reference.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// What the kernels of batch norm share.
//
// A tensor (..., C) is a matrix of R rows and C columns. Few channels would not fill a vector, so
// `pack` rows are read as one row of pack * C columns; the statistics of the columns that belong to
// one channel are joined in the end, with those of the chunks of rows, in double and in the order
// of chunks and columns.
namespace pycnn::cpu::batch_norm {

namespace ref = batch_norm_reference;

// ---- Cutting the matrix

struct Layout {
  std::int64_t rows = 0;
  std::int64_t channels = 0;
  std::int64_t pack = 1;
  std::int64_t width = 0;         // pack * channels
  std::int64_t packed_rows = 0;   // whole ones
  std::int64_t rest = 0;          // elements after the whole packed rows, less than width
  std::int64_t chunk_rows = 1;    // packed rows a chunk
  std::int64_t whole_chunks = 0;  // chunks of packed rows; the rest, if any, is one more
  std::int64_t chunks = 0;
};

// More chunks cost scratch, fewer leave threads without work.
constexpr std::int64_t kMostChunks = 128;

inline Layout layout_of(const TensorSpec& input) noexcept {
  Layout l;
  l.channels = input.shape.back();
  l.rows = 1;
  for (std::size_t i = 0; i + 1 < input.shape.size(); ++i) l.rows *= input.shape[i];
  if (l.channels == 0) l.rows = 0;
  if (l.channels > 0 && l.channels < 64) {
    // Widths are whole vectors of 16 on every instruction set, and at least four of them.
    l.pack = 16 / std::gcd(l.channels, std::int64_t{16});
    l.pack *= (64 + l.pack * l.channels - 1) / (l.pack * l.channels);
  }
  l.width = l.pack * l.channels;
  l.packed_rows = l.rows / l.pack;
  l.rest = l.rows % l.pack * l.channels;
  const std::int64_t cached = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(l.width, 1));
  l.chunk_rows = std::max(cached, ceil_div(l.packed_rows, kMostChunks));
  l.whole_chunks = ceil_div(l.packed_rows, l.chunk_rows);
  l.chunks = l.whole_chunks + (l.rest > 0 ? 1 : 0);
  return l;
}

struct Chunk {
  std::int64_t offset;  // elements
  std::int64_t rows;    // packed rows
  std::int64_t width;   // less than Layout::width in the rest
};
inline Chunk chunk_of(const Layout& l, std::int64_t k) noexcept {
  if (k == l.whole_chunks) return {l.packed_rows * l.width, 1, l.rest};
  const std::int64_t begin = k * l.chunk_rows;
  return {begin * l.width, std::min(l.chunk_rows, l.packed_rows - begin), l.width};
}

// Scratch: up to three numbers a column and chunk, then the columns' coefficients.
constexpr std::int64_t kPartials = 3;
constexpr std::int64_t kCoefficients = 6;
struct Scratch {
  Scratch(const KernelArgs& args, const Layout& l) noexcept
      : layout(&l), base(reinterpret_cast<float*>(args.scratch)) {}
  static std::size_t bytes(const Layout& l) noexcept {
    return static_cast<std::size_t>((kPartials * l.chunks + kCoefficients) * l.width) *
           sizeof(float);
  }
  float* partial(std::int64_t i, std::int64_t chunk) const noexcept {
    return base + (kPartials * chunk + i) * layout->width;
  }
  float* coefficient(std::int64_t i) const noexcept {
    return base + (kPartials * layout->chunks + i) * layout->width;
  }
  // Coefficients i, i + 1 and i + 2.
  ColumnNorm norm(std::int64_t i) const noexcept {
    return {coefficient(i), coefficient(i + 1), coefficient(i + 2)};
  }
  // Channel c's coefficient in all its columns.
  void set(std::int64_t i, std::int64_t c, double value) const noexcept {
    float* const p = coefficient(i);
    for (std::int64_t column = c; column < layout->width; column += layout->channels)
      p[column] = static_cast<float>(value);
  }
  const Layout* layout;
  float* base;
};

// Calls body(begin, end) for blocks of channels, small enough for sums on the stack.
constexpr std::int64_t kChannelBlock = 64;
template <class F>
void for_channel_blocks(const KernelArgs& args, const Layout& l, F&& body) noexcept {
  parallel_ranges(args.threads, l.channels, kChannelBlock, body);
}

// Calls f(chunk, its rows, first column, channels) for each group of columns that holds channels
// [begin, end), in a fixed order.
template <class F>
void for_columns(const Layout& l, std::int64_t begin, std::int64_t end, F&& f) noexcept {
  for (std::int64_t k = 0; k < l.chunks; ++k) {
    const Chunk chunk = chunk_of(l, k);
    for (std::int64_t column = begin; column < chunk.width; column += l.channels)
      f(k, chunk.rows, column, end - begin);
  }
}

// The end of a tensor was written last and is still in a cache: who reads it first goes backwards.
// Then its beginning is near, for the next one, who goes forwards.
enum class Order : std::uint8_t { kForwards, kBackwards };

// Calls f(functions, k, chunk k, first, second, output) for all chunks, with the vector functions
// for the element type of the three tensors and where the chunk lies in them. Only `first` must be
// there. `output` may lie on either input.
template <class Isa, class F>
void for_chunks(const KernelArgs& args, const Layout& l, const TensorView& first,
                const TensorView* second, const TensorView* output, Order order, F&& f) noexcept {
  const auto run = [&]<class T>(const BatchNormFunctions<T>& functions) {
    parallel_for(args.threads, l.chunks, [&](std::int64_t i, int) {
      const std::int64_t k = order == Order::kForwards ? i : l.chunks - 1 - i;
      const Chunk chunk = chunk_of(l, k);
      const auto at = [&](const TensorView* view) {
        return view != nullptr ? view->as<T>() + chunk.offset : nullptr;
      };
      f(functions, k, chunk, at(&first), at(second), at(output));
    });
  };
  if (first.spec->dtype == DType::kBFloat16)
    run(Isa::kBFloat16);
  else
    run(Isa::kFloat32);
}

// What of a result goes past the caches: all but what is written last, which the next one who reads
// it still finds there. Lines that are written whole are not read first then, a third of what an
// apply moves. Where the result takes the place of an input, its lines are there already.
constexpr std::int64_t kNearFloats = 1024 * 1024;
constexpr std::int64_t kLineFloats = 16;

class StreamedPart {
 public:
  StreamedPart(const KernelArgs& args, const Layout& l, Order order) noexcept : width_(l.width) {
    const TensorView& output = args.outputs[0];
    const std::int64_t all = l.rows * l.channels;
    if (output.spec->dtype != DType::kFloat32 || all <= kNearFloats) return;
    if (l.width % kLineFloats != 0 ||
        reinterpret_cast<std::uintptr_t>(output.data) % (kLineFloats * sizeof(float)) != 0)
      return;
    for (const TensorView& input : args.inputs)
      if (input.data == output.data) return;
    begin_ = order == Order::kForwards ? 0 : kNearFloats;
    end_ = order == Order::kForwards ? all - kNearFloats : all;
  }
  bool has(const Chunk& chunk) const noexcept {
    return chunk.width == width_ && chunk.offset >= begin_ &&
           chunk.offset + chunk.rows * chunk.width <= end_;
  }

 private:
  std::int64_t width_, begin_ = 0, end_ = 0;  // floats
};

// ---- Statistics of the batch

// What follows from a channel's moments, for the fast kernels and the references. The outputs mean,
// inverse deviation and both running statistics begin with output `first`.
template <class T>
void finish_statistics(const KernelArgs& args, std::size_t first, double momentum, std::int64_t c,
                       std::int64_t rows, double mean, double variance, double inv_std) noexcept {
  if (rows == 0) momentum = 0.0;
  const double unbiased =
      rows > 1 ? variance * (static_cast<double>(rows) / static_cast<double>(rows - 1)) : variance;
  const double old_mean = args.inputs[3].as<const T>()[c];
  const double old_var = args.inputs[4].as<const T>()[c];
  args.outputs[first].as<T>()[c] = static_cast<T>(mean);
  args.outputs[first + 1].as<T>()[c] = static_cast<T>(inv_std);
  args.outputs[first + 2].as<T>()[c] =
      static_cast<T>((1.0 - momentum) * old_mean + momentum * mean);
  args.outputs[first + 3].as<T>()[c] =
      static_cast<T>((1.0 - momentum) * old_var + momentum * unbiased);
}

// Calls put(c, mean, factor, offset), for each channel once, with the coefficients of
// (x - mean) * factor + offset; `op` has eps and momentum. The outputs of finish_statistics begin
// with output kFirst.
template <class Isa, std::size_t kFirst, class OpType, class Put>
void measure(const KernelArgs& args, const OpType& op, const Layout& l, const Scratch& scratch,
             Order order, Put&& put) noexcept {
  const auto* const scale = args.inputs[1].as<const float>();
  const auto* const shift = args.inputs[2].as<const float>();
  for_chunks<Isa>(args, l, args.inputs[0], nullptr, nullptr, order,
                  [&](const auto& functions, std::int64_t k, const Chunk& chunk, const auto* x,
                      const auto*, auto*) {
                    functions.statistics(x, chunk.rows, chunk.width, scratch.partial(0, k),
                                         scratch.partial(1, k), scratch.partial(2, k));
                  });
  for_channel_blocks(args, l, [&](std::int64_t begin, std::int64_t end) {
    double mean[kChannelBlock] = {}, m2[kChannelBlock] = {};
    for_columns(l, begin, end,
                [&](std::int64_t k, std::int64_t rows, std::int64_t column, std::int64_t count) {
                  const float* const pivots = scratch.partial(0, k) + column;
                  const float* const means = scratch.partial(1, k) + column;
                  for (std::int64_t i = 0; i < count; ++i)
                    mean[i] += static_cast<double>(rows) *
                               (static_cast<double>(pivots[i]) + static_cast<double>(means[i]));
                });
    const double n = static_cast<double>(std::max<std::int64_t>(l.rows, 1));
    for (double& m : mean) m /= n;
    for_columns(l, begin, end,
                [&](std::int64_t k, std::int64_t rows, std::int64_t column, std::int64_t count) {
                  const float* const pivots = scratch.partial(0, k) + column;
                  const float* const means = scratch.partial(1, k) + column;
                  const float* const squares = scratch.partial(2, k) + column;
                  for (std::int64_t i = 0; i < count; ++i) {
                    const double d =
                        static_cast<double>(pivots[i]) + static_cast<double>(means[i]) - mean[i];
                    m2[i] += squares[i] + static_cast<double>(rows) * d * d;
                  }
                });
    for (std::int64_t c = begin; c < end; ++c) {
      const double m = mean[c - begin], variance = m2[c - begin] / n;
      const double inv_std = 1.0 / std::sqrt(variance + op.eps);
      const double factor = inv_std * scale[c];
      // What float cannot hold of the mean goes into the shift: it matters when the mean is large
      // against the spread.
      const double rounded = static_cast<float>(m);
      const double lost = std::isfinite(rounded) ? m - rounded : 0.0;
      put(c, rounded, factor, shift[c] - lost * factor);
      finish_statistics<float>(args, kFirst, op.momentum, c, l.rows, m, variance, inv_std);
    }
  });
}

// ---- Gradients

// Where a gradient finds its statistics and grad_output, and whether the statistics depend on the
// input.
struct TrainGrad {
  using OpType = ops::BatchNormTrainGrad;
  template <class T>
  static double mean(const KernelArgs& args, std::int64_t c) noexcept {
    return args.inputs[2].as<const T>()[c];
  }
  template <class T>
  static double inv_std(const KernelArgs& args, std::int64_t c) noexcept {
    return args.inputs[3].as<const T>()[c];
  }
  static constexpr std::size_t kGradOutput = 4;
  static constexpr bool kThroughStatistics = true;
};

// grad_input = a * grad_output + b * (input - mean) + c.
struct Coefficients {
  double a = 0.0, b = 0.0, c = 0.0;
};

// With x^ = (x - mean) * inv_std and sums over the R rows (Ioffe, Szegedy 2015, section 3):
//   grad_scale = sum(g x^), grad_shift = sum(g),
//   grad_input = scale * inv_std * (g - sum(g) / R - x^ * sum(g x^) / R).
// Fixed statistics leave the first of the three terms.
template <class Grad, class T>
Coefficients finish_gradient(const KernelArgs& args, std::int64_t c, std::int64_t rows,
                             const ref::GradientSums& sums) noexcept {
  const double inv_std = Grad::template inv_std<T>(args, c);
  const double grad_scale = sums.product * inv_std;
  args.outputs[1].as<T>()[c] = static_cast<T>(grad_scale);
  args.outputs[2].as<T>()[c] = static_cast<T>(sums.sum);
  Coefficients k;
  k.a = args.inputs[1].as<const T>()[c] * inv_std;
  if (Grad::kThroughStatistics && rows > 0) {
    k.b = -k.a * inv_std * grad_scale / static_cast<double>(rows);
    k.c = -k.a * sums.sum / static_cast<double>(rows);
  }
  return k;
}

// Whether a convolution gave the sums, and channel c's of them.
template <class Grad>
bool knows_sums(const KernelArgs& args) noexcept {
  return args.inputs.size() > Grad::kGradOutput + 1;
}
template <class T>
ref::GradientSums known_sums(const KernelArgs& args, std::int64_t c) noexcept {
  const T* const sums = args.inputs.back().as<const T>();
  return {static_cast<double>(sums[c]), static_cast<double>(sums[args.inputs.back().dim(1) + c])};
}

// A gradient's two passes over the input; `gate` may be null. Coefficients 0 to 3 are the mean and
// those of `Coefficients`.
template <class Isa, class Grad>
void input_gradient(const KernelArgs& args, const Layout& l, const Scratch& scratch,
                    const Gate* gate) noexcept {
  const TensorView &input = args.inputs[0], &grad_output = args.inputs[Grad::kGradOutput];
  for (std::int64_t c = 0; c < l.channels; ++c)
    scratch.set(0, c, Grad::template mean<float>(args, c));
  const bool known = knows_sums<Grad>(args);
  if (!known)
    for_chunks<Isa>(args, l, input, &grad_output, nullptr, Order::kBackwards,
                    [&](const auto& functions, std::int64_t k, const Chunk& chunk, const auto* x,
                        const auto* g, auto*) {
                      functions.gradient_sums(x, chunk.width, g,
                                              {chunk.rows, chunk.width, chunk.width, 0},
                                              scratch.coefficient(0), gate, scratch.partial(0, k),
                                              scratch.partial(1, k));
                    });
  for_channel_blocks(args, l, [&](std::int64_t begin, std::int64_t end) {
    ref::GradientSums sums[kChannelBlock] = {};
    if (known)
      for (std::int64_t c = begin; c < end; ++c) sums[c - begin] = known_sums<float>(args, c);
    else
      for_columns(l, begin, end,
                  [&](std::int64_t k, std::int64_t, std::int64_t column, std::int64_t count) {
                    const float* const sum = scratch.partial(0, k) + column;
                    const float* const product = scratch.partial(1, k) + column;
                    for (std::int64_t i = 0; i < count; ++i) {
                      sums[i].sum += sum[i];
                      sums[i].product += product[i];
                    }
                  });
    for (std::int64_t c = begin; c < end; ++c) {
      const Coefficients k = finish_gradient<Grad, float>(args, c, l.rows, sums[c - begin]);
      scratch.set(1, c, k.a);
      scratch.set(2, c, k.b);
      scratch.set(3, c, k.c);
    }
  });
  const Order order = known ? Order::kBackwards : Order::kForwards;
  const StreamedPart streamed(args, l, order);
  for_chunks<Isa>(args, l, input, &grad_output, &args.outputs[0], order,
                  [&](const auto& functions, std::int64_t, const Chunk& chunk, const auto* x,
                      const auto* g, auto* to) {
                    if constexpr (Grad::kThroughStatistics)
                      functions.gradient(x, g, to, chunk.rows, chunk.width, scratch.coefficient(0),
                                         scratch.coefficient(1), scratch.coefficient(2),
                                         scratch.coefficient(3), gate, streamed.has(chunk));
                    else
                      functions.scale(g, to, chunk.rows, chunk.width, scratch.coefficient(1));
                  });
}

// ---- Variants

// The vector functions of one instruction set as a type.
#define PYCNN_BATCH_NORM_ISA(NAME, ISA)                                                       \
  struct NAME {                                                                               \
    static constexpr const BatchNormFunctions<float>& kFloat32 = ISA::kBatchNorm;             \
    static constexpr const BatchNormFunctions<BFloat16>& kBFloat16 = ISA::kBatchNormBFloat16; \
  };
PYCNN_IF_AVX512(PYCNN_BATCH_NORM_ISA(Avx512, avx512))
PYCNN_IF_AVX2(PYCNN_BATCH_NORM_ISA(Avx2, avx2))
PYCNN_BATCH_NORM_ISA(Baseline, baseline)
#undef PYCNN_BATCH_NORM_ISA

constexpr std::uint32_t bit(int input) { return 1u << input; }

template <KernelFunction kRun, std::uint32_t... kInPlace>
Kernel with_scratch(const auto& op, const Problem& problem) {
  Kernel kernel = plain_kernel<kRun, kInPlace...>(op, problem);
  kernel.scratch_bytes = Scratch::bytes(layout_of(problem.inputs[0]));
  return kernel;
}

}  // namespace pycnn::cpu::batch_norm

// Variants of an op of one instruction set each, with scratch, and the reference. RUN names the
// type of the vector functions Isa.
// clang-format off
#define PYCNN_BATCH_NORM_OP(OP, NAME, REFERENCE, RUN, ...)                                        \
  template <>                                                                                     \
  struct VariantList<OP> {                                                                        \
    template <class Isa>                                                                          \
    static constexpr KernelFunction kRun = RUN;                                                   \
    static constexpr Variant<OP> kAll[] = {                                                       \
        PYCNN_IF_AVX512({NAME ".chunked.avx512", Isa::kAvx512, accept_float32,                    \
                         batch_norm::with_scratch<kRun<batch_norm::Avx512>, __VA_ARGS__>, Images::kAny},)       \
        PYCNN_IF_AVX2({NAME ".chunked.avx2", Isa::kAvx2, accept_float32,                          \
                       batch_norm::with_scratch<kRun<batch_norm::Avx2>, __VA_ARGS__>, Images::kAny},)           \
        {NAME ".chunked.baseline", Isa::kBaseline, accept_float32,                                \
         batch_norm::with_scratch<kRun<batch_norm::Baseline>, __VA_ARGS__>, Images::kAny},                      \
        {NAME ".reference", Isa::kBaseline, accept_all, plain_kernel<REFERENCE>}};                \
  };                                                                                              \
  PYCNN_DEFINE_SELECT(OP)
// clang-format on
