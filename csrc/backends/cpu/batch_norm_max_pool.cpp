// A batch norm's pass and the max pool behind it, and the gradient of both, without what lies
// between them: bands of rows are normalised into scratch, where the pool's own inner loops find
// them. Of the gradient they leave the pool's in scratch, too, which is added up for the batch norm
// before it goes to where the input's gradient will be; that is made of it in place. Rows that
// windows of two bands hold are normalised for each. Bands, and thus the order of sums, follow from
// the shapes alone. (The gradient of bfloat16 on AVX-512: batch_norm_max_pool_bfloat16.cpp.)
#include <algorithm>
#include <cstring>
#include <optional>

#include "backends/cpu/activation_reference.h"
#include "backends/cpu/batch_norm_matrix.h"
#include "backends/cpu/batch_norm_max_pool_bfloat16.h"
#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/pool.h"
#include "backends/cpu/pool_reference.h"
#include "backends/cpu/select.h"

namespace pycnn::cpu {
namespace batch_norm {
namespace {

// ---- Bands

// What a thread works on at a time is to stay in its cache; but short bands share many rows.
constexpr std::int64_t kBandBytes = 1024 * 1024;

// Windows [first, end) of an image and the rows [top, bottom) that they touch; of the gradient, the
// rows [begin, done) that are finished with them.
struct Band {
  std::int64_t image, first, end, top, bottom, begin, done;
  std::int64_t rows() const noexcept { return bottom - top; }
};

// Rows of windows that are cut out at a time.
std::int64_t windows_of_band(const PoolGeometry& g, std::size_t item) noexcept {
  const std::int64_t row = std::max<std::int64_t>(g.input_row() * static_cast<int>(item), 1);
  const std::int64_t reach = (g.rows.kernel - 1) * g.rows.dilation + 1;
  return std::max<std::int64_t>(1, (kBandBytes / row - reach) / g.rows.stride + 1);
}

// The rows that windows [first, end) touch.
void set_rows(const PoolAxis& v, Band& band) noexcept {
  band.top = std::clamp<std::int64_t>(band.first * v.stride - v.before, 0, v.input);
  const std::int64_t last = (band.end - 1) * v.stride - v.before + (v.kernel - 1) * v.dilation;
  band.bottom = band.first < band.end ? std::clamp(last + 1, band.top, v.input) : band.top;
}

Band forward_band(const PoolGeometry& g, std::int64_t windows, std::int64_t k) noexcept {
  const std::int64_t bands = ceil_div(g.rows.output, windows);
  Band band{};
  band.image = k / bands, band.first = k % bands * windows;
  band.end = std::min(band.first + windows, g.rows.output);
  set_rows(g.rows, band);
  return band;
}

// Rows of the image that are finished at a time. Bands of windows that do not overlap share none.
std::int64_t rows_of_band(const PoolGeometry& g, std::size_t item) noexcept {
  const std::int64_t stride = g.rows.stride, most = windows_of_band(g, 2 * item) * stride;
  const std::int64_t height = std::max<std::int64_t>(g.rows.input, 1);
  return ceil_div(ceil_div(height, ceil_div(height, most)), stride) * stride;
}

Band gradient_band(const PoolGeometry& g, std::int64_t rows, std::int64_t k) noexcept {
  const PoolAxis& v = g.rows;
  const std::int64_t bands = ceil_div(v.input, rows), reach = (v.kernel - 1) * v.dilation;
  Band band{};
  band.image = k / bands, band.begin = k % bands * rows;
  band.done = std::min(band.begin + rows, v.input);
  const std::int64_t below = band.begin + v.before - reach;
  band.first = below <= 0 ? 0 : ceil_div(below, v.stride);
  // A window before the band rather than none, so that what is cut out begins with one.
  if (band.first * v.stride - v.before > band.begin) --band.first;
  band.first = std::min(band.first, v.output);
  band.end = std::clamp((band.done - 1 + v.before) / v.stride + 1, band.first, v.output);
  set_rows(v, band);
  if (band.first == band.end) band.top = band.bottom = band.begin;
  band.top = std::min(band.top, band.begin), band.bottom = std::max(band.bottom, band.done);
  return band;
}

// The band as an image of its own.
PoolGeometry geometry_of(const PoolGeometry& g, const Band& band) noexcept {
  PoolGeometry part = g;
  part.images = 1;
  part.rows.input = band.rows(), part.rows.output = band.end - band.first;
  part.rows.before = band.top - (band.first * g.rows.stride - g.rows.before);
  return part;
}

// Of the largest band.
std::int64_t most_rows(const PoolAxis& v, std::int64_t windows, std::int64_t rows) noexcept {
  const std::int64_t reach = (v.kernel - 1) * v.dilation;
  return std::min(v.input, std::max((windows - 1) * v.stride + reach + 1, rows + 2 * reach));
}
std::int64_t line_elements(std::int64_t elements) noexcept {
  return ceil_div(elements, std::int64_t{64}) * 64;
}

// Rows that are normalised, and of windows that are cut out, over those there are.
constexpr double kMostRepeated = 1.35;
// Pixels for each of the partial sums of a band, which are as wide as they are.
constexpr std::int64_t kLeastPixels = 32;

// ---- Pixels, several of which may be one row of the batch norm's functions

template <class F>
void for_pixels(const Layout& l, std::int64_t pixels, F&& f) noexcept {
  const std::int64_t packed = pixels / l.pack, rest = pixels % l.pack * l.channels;
  if (packed > 0) f(std::int64_t{0}, packed, l.width, 0);
  if (rest > 0) f(packed * l.width, std::int64_t{1}, rest, 1);
}

template <class T>
void normalise(const BatchNormFunctions<T>& functions, const Layout& l, const float* mean,
               const float* factor, const float* offset, const Rectifier* rectifier, const T* x,
               T* y, std::int64_t pixels) noexcept {
  for_pixels(l, pixels, [&](std::int64_t at, std::int64_t rows, std::int64_t width, int) {
    functions.apply(x + at, nullptr, y + at, rows, width, {mean, factor, offset}, nullptr,
                    rectifier, false);
  });
}

void repeat(const KernelArgs& args, const Layout& l, const Scratch& scratch, std::size_t input,
            std::int64_t coefficient) noexcept {
  const auto* const values = args.inputs[input].as<const float>();
  for (std::int64_t c = 0; c < l.channels; ++c) scratch.set(coefficient, c, values[c]);
}

// Behind Scratch: of each thread.
std::byte* own_part(const KernelArgs& args, const Layout& l, std::size_t bytes, int worker) {
  const std::size_t shared = (Scratch::bytes(l) + 63) / 64 * 64;
  return args.scratch + shared + static_cast<std::size_t>(worker) * bytes;
}
std::size_t scratch_bytes(const Layout& l, std::size_t bytes, const Problem& problem) {
  return (Scratch::bytes(l) + 63) / 64 * 64 +
         static_cast<std::size_t>(std::max(problem.threads, 1)) * bytes;
}

// ---- What there is for each instruction set and element type

template <class Isa>
struct Float32Rows {
  using Element = float;
  static constexpr const BatchNormFunctions<float>& kNorm = Isa::Norm::kFloat32;
  static constexpr auto kMax = Isa::kMax;

  // All rows of `grad_input`.
  static void gradient(const PoolGeometry& g, const float* input, const float* grad_output,
                       std::int64_t readable, float* grad_input) noexcept {
    std::memset(grad_input, 0, static_cast<std::size_t>(g.input_image()) * sizeof(float));
    const PoolColumns columns = pool_columns(g);
    const bool disjoint = g.rows.disjoint() && g.columns.disjoint();
    for (std::int64_t oh = 0; oh < g.rows.output; ++oh) {
      const Taps v = g.rows.taps(oh);
      if (v.first >= v.end) continue;
      const std::int64_t first = (v.start + v.first * g.rows.dilation) * g.input_row();
      MaxPoolGradRow row{};
      row.input = input + first;
      row.row_step = g.rows.dilation * g.input_row();
      row.taps = v.end - v.first;
      row.grad_output = grad_output + oh * g.output_row();
      row.grad_output_end = grad_output + readable;
      row.grad_input = grad_input + first;
      row.channel_count = g.channels;
      row.columns = &columns;
      disjoint ? Isa::disjoint(row) : Isa::overlapping(row);
    }
  }
};

#define PYCNN_POOL_ISA(NAME, ISA)                                 \
  struct NAME##Pool {                                             \
    using Norm = NAME;                                            \
    static constexpr auto kMax = ISA::max_pool_row;               \
    static void disjoint(const MaxPoolGradRow& row) noexcept {    \
      ISA::max_pool_grad_row_disjoint(row);                       \
    }                                                             \
    static void overlapping(const MaxPoolGradRow& row) noexcept { \
      ISA::max_pool_grad_row_overlapping(row);                    \
    }                                                             \
  };
PYCNN_IF_AVX512(PYCNN_POOL_ISA(Avx512, avx512))
PYCNN_IF_AVX2(PYCNN_POOL_ISA(Avx2, avx2))
PYCNN_POOL_ISA(Baseline, baseline)
#undef PYCNN_POOL_ISA

#if PYCNN_HAVE_AVX512
struct BFloat16Rows {
  using Element = BFloat16;
  static constexpr const BatchNormFunctions<BFloat16>& kNorm = Avx512::kBFloat16;
  static constexpr auto kMax = avx512::max_pool_row_bfloat16;
};
#endif

// ---- BatchNormMaxPool

PoolGeometry pooled_geometry(const KernelArgs& args) noexcept {
  PoolGeometry g = pool_geometry(op_of<ops::BatchNormMaxPool>(args).pool, *args.inputs[0].spec,
                                 *args.outputs[0].spec);
  g.output_pitch = args.outputs[0].pitch();
  return g;
}

template <class T>
std::size_t pooled_bytes(const PoolGeometry& g) noexcept {
  const std::int64_t rows = most_rows(g.rows, windows_of_band(g, sizeof(T)), 0);
  return static_cast<std::size_t>(line_elements(rows * g.input_row())) * sizeof(T);
}

// Of a matrix without chunks: coefficients only.
Layout layout_of_pixels(const TensorSpec& input, std::int64_t chunks) noexcept {
  Layout l = layout_of(input);
  l.chunks = chunks;
  return l;
}

template <class Rows>
void pooled(const KernelArgs& args) noexcept {
  using T = typename Rows::Element;
  const auto& op = op_of<ops::BatchNormMaxPool>(args);
  const PoolGeometry g = pooled_geometry(args);
  const PoolColumns columns = pool_columns(g);
  const Layout l = layout_of_pixels(*args.inputs[0].spec, 0);
  const Scratch scratch(args, l);
  for (std::int64_t i = 0; i < 3; ++i) repeat(args, l, scratch, static_cast<std::size_t>(i) + 1, i);
  const std::optional<Rectifier> rectifier = rectifier_of(op.activation, op.slope);
  const std::int64_t windows = windows_of_band(g, sizeof(T));
  const auto* const input = args.inputs[0].as<const T>();
  auto* const output = args.outputs[0].as<T>();
  const std::int64_t bands = g.images * ceil_div(g.rows.output, windows);
  parallel_for(args.threads, bands, [&](std::int64_t k, int worker) {
    // As a rule a convolution has just written the input, its end last.
    const Band band = forward_band(g, windows, bands - 1 - k);
    T* const y = reinterpret_cast<T*>(own_part(args, l, pooled_bytes<T>(g), worker));
    normalise(Rows::kNorm, l, scratch.coefficient(0), scratch.coefficient(1),
              scratch.coefficient(2), rectifier ? &*rectifier : nullptr,
              input + band.image * g.input_image() + band.top * g.input_row(), y,
              band.rows() * g.columns.input);
    T* const image = output + band.image * g.output_image();
    for (std::int64_t oh = band.first; oh < band.end; ++oh) {
      const Taps v = g.rows.taps(oh);
      PoolRowOf<T> row{};
      row.input = y + (v.start + v.first * g.rows.dilation - band.top) * g.input_row();
      row.input_end = y + band.rows() * g.input_row();
      row.row_step = g.rows.dilation * g.input_row();
      row.taps = v.end - v.first;
      row.output = image + oh * g.output_row();
      row.output_end =
          g.output_pitch == g.channels ? image + band.end * g.output_row() : row.output;
      row.columns = &columns;
      Rows::kMax(row);
    }
  });
}

template <class Rows>
Kernel make_pooled(const ops::BatchNormMaxPool& op, const Problem& problem) {
  using T = typename Rows::Element;
  Kernel kernel = plain_kernel<pooled<Rows>>(op, problem);
  const PoolGeometry g = pool_geometry(op.pool, problem.inputs[0], problem.outputs[0]);
  kernel.scratch_bytes =
      scratch_bytes(layout_of_pixels(problem.inputs[0], 0), pooled_bytes<T>(g), problem);
  kernel.strided_outputs = 1;
  return kernel;
}

// One image, normalised, of a thread.
std::size_t image_bytes(const TensorSpec& input) noexcept {
  std::size_t bytes = item_bytes(input.dtype);
  for (std::size_t axis = 1; axis < 4; ++axis) bytes *= static_cast<std::size_t>(input.shape[axis]);
  return (bytes + 63) / 64 * 64;
}

template <class T>
void normalise_reference(const KernelArgs& args, const ops::BatchNormMaxPool& op,
                         const std::size_t (&vectors)[3], std::int64_t offset, std::int64_t count,
                         T* y) noexcept {
  const std::int64_t channels = args.inputs[0].dim(3);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto vector = [&](int k) -> double {
      return args.inputs[vectors[k]].as<const T>()[i % channels];
    };
    const double x = args.inputs[0].as<const T>()[offset + i];
    y[i] = activated(op.activation, static_cast<T>((x - vector(0)) * vector(1) + vector(2)),
                     static_cast<T>(op.slope));
  }
}

void pooled_reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormMaxPool>(args);
  const PoolGeometry g = pooled_geometry(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    T* const y = reinterpret_cast<T*>(args.scratch);
    const std::size_t vectors[] = {1, 2, 3};
    for (std::int64_t n = 0; n < g.images; ++n) {
      normalise_reference<T>(args, op, vectors, n * g.input_image(), g.input_image(), y);
      pool_reference::max_pool(g, y, args.outputs[0].as<T>() + n * g.output_image());
    }
  });
}

template <KernelFunction kRun>
Kernel make_reference(const auto& op, const Problem& problem) {
  Kernel kernel = plain_kernel<kRun>(op, problem);
  kernel.scratch_bytes = image_bytes(problem.inputs[0]);
  return kernel;
}

// ---- BatchNormMaxPoolGrad

struct PooledGrad : TrainGrad {
  using OpType = ops::BatchNormMaxPoolGrad;
  static constexpr std::size_t kGradOutput = 6;
};

PoolGeometry pooled_grad_geometry(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormMaxPoolGrad>(args);
  PoolGeometry g = pool_geometry(op.forward.pool, *args.inputs[0].spec, *args.inputs[6].spec);
  g.output_pitch = args.inputs[6].pitch();
  return g;
}

// What a thread has: a band normalised, and the pool's gradient of it.
template <class Rows>
struct GradientPart {
  using T = typename Rows::Element;
  static std::int64_t elements(const PoolGeometry& g) noexcept {
    const std::int64_t rows = rows_of_band(g, sizeof(T));
    return line_elements(most_rows(g.rows, 0, rows + g.rows.stride) * g.input_row());
  }
  static std::size_t bytes(const PoolGeometry& g) noexcept {
    return 2 * static_cast<std::size_t>(elements(g)) * sizeof(T);
  }
};

// Bands have two rows of partial sums: of whole rows of pixels and of what is left over.
Layout gradient_layout(const TensorSpec& input, const PoolGeometry& g, std::int64_t rows) noexcept {
  return layout_of_pixels(input, 2 * g.images * ceil_div(g.rows.input, rows));
}

template <class Rows>
class PooledGradient {
 public:
  using T = typename Rows::Element;

  explicit PooledGradient(const KernelArgs& args) noexcept
      : args_(args),
        g_(pooled_grad_geometry(args)),
        rows_(rows_of_band(g_, sizeof(T))),
        l_(gradient_layout(*args.inputs[0].spec, g_, rows_)),
        scratch_(args, l_),
        bands_(l_.chunks / 2) {
    const auto& forward = op_of<ops::BatchNormMaxPoolGrad>(args).forward;
    rectifier_ = rectifier_of(forward.activation, forward.slope);
    repeat(args, l_, scratch_, 2, 0);
    repeat(args, l_, scratch_, 4, 4);
    repeat(args, l_, scratch_, 5, 5);
    if (rectifier_) gate_ = Gate{scratch_.coefficient(4), scratch_.coefficient(5), *rectifier_};
  }

  void run() const noexcept {
    auto* const result = args_.outputs[0].as<T>();
    parallel_for(args_.threads, bands_, [&](std::int64_t i, int worker) {
      const std::int64_t k = bands_ - 1 - i;
      const Band band = gradient_band(g_, rows_, k);
      const T* const g = gradient_of(band, worker);
      for_pixels(
          l_, pixels(band), [&](std::int64_t at, std::int64_t rows, std::int64_t width, int rest) {
            Rows::kNorm.gradient_sums(
                input(band) + at, width, g + at, {rows, width, width, 0}, scratch_.coefficient(0),
                gate(), scratch_.partial(0, 2 * k + rest), scratch_.partial(1, 2 * k + rest));
          });
      std::memcpy(result + offset_of(band), g,
                  static_cast<std::size_t>((band.done - band.begin) * g_.input_row()) * sizeof(T));
    });
    for_channel_blocks(args_, l_,
                       [&](std::int64_t begin, std::int64_t end) { add_up(begin, end); });
    parallel_for(args_.threads, bands_, [&](std::int64_t k, int) {
      const Band band = gradient_band(g_, rows_, k);
      T* const g = result + offset_of(band);
      for_pixels(
          l_, pixels(band), [&](std::int64_t at, std::int64_t rows, std::int64_t width, int) {
            Rows::kNorm.gradient(input(band) + at, g + at, g + at, rows, width,
                                 scratch_.coefficient(0), scratch_.coefficient(1),
                                 scratch_.coefficient(2), scratch_.coefficient(3), gate(), false);
          });
    });
  }

 private:
  const Gate* gate() const noexcept { return gate_ ? &*gate_ : nullptr; }
  std::int64_t pixels(const Band& band) const noexcept {
    return (band.done - band.begin) * g_.columns.input;
  }
  std::int64_t offset_of(const Band& band) const noexcept {
    return band.image * g_.input_image() + band.begin * g_.input_row();
  }
  const T* input(const Band& band) const noexcept {
    return args_.inputs[0].as<const T>() + offset_of(band);
  }

  // Of the rows that the band finishes, in scratch.
  const T* gradient_of(const Band& band, int worker) const noexcept {
    const std::int64_t elements = GradientPart<Rows>::elements(g_);
    T* const y = reinterpret_cast<T*>(own_part(args_, l_, GradientPart<Rows>::bytes(g_), worker));
    T* const gradient = y + elements;
    const std::int64_t above = (band.begin - band.top) * g_.input_row();
    normalise(Rows::kNorm, l_, scratch_.coefficient(0), scratch_.coefficient(4),
              scratch_.coefficient(5), rectifier_ ? &*rectifier_ : nullptr, input(band) - above, y,
              band.rows() * g_.columns.input);
    const std::int64_t window = (band.image * g_.rows.output + band.first) * g_.output_row();
    Rows::gradient(geometry_of(g_, band), y, args_.inputs[6].as<const T>() + window,
                   g_.output_size() - window, gradient);
    return gradient + above;
  }

  void add_up(std::int64_t begin, std::int64_t end) const noexcept {
    ref::GradientSums sums[kChannelBlock] = {};
    for (std::int64_t k = 0; k < bands_; ++k)
      for_pixels(l_, pixels(gradient_band(g_, rows_, k)),
                 [&](std::int64_t, std::int64_t, std::int64_t width, int rest) {
                   const float* const sum = scratch_.partial(0, 2 * k + rest);
                   const float* const product = scratch_.partial(1, 2 * k + rest);
                   for (std::int64_t column = begin; column < width; column += l_.channels)
                     for (std::int64_t i = 0; i < end - begin; ++i) {
                       sums[i].sum += sum[column + i];
                       sums[i].product += product[column + i];
                     }
                 });
    for (std::int64_t c = begin; c < end; ++c) {
      const Coefficients k = finish_gradient<PooledGrad, float>(args_, c, l_.rows, sums[c - begin]);
      scratch_.set(1, c, k.a), scratch_.set(2, c, k.b), scratch_.set(3, c, k.c);
    }
  }

  const KernelArgs& args_;
  const PoolGeometry g_;
  const std::int64_t rows_;
  const Layout l_;
  const Scratch scratch_;
  const std::int64_t bands_;
  std::optional<Rectifier> rectifier_;
  std::optional<Gate> gate_;
};

template <class Rows>
void pooled_grad(const KernelArgs& args) noexcept {
  PooledGradient<Rows>(args).run();
}

template <class Rows>
Kernel make_pooled_grad(const ops::BatchNormMaxPoolGrad& op, const Problem& problem) {
  Kernel kernel = plain_kernel<pooled_grad<Rows>, 0, 0, 0>(op, problem);
  const PoolGeometry g = pool_geometry(op.forward.pool, problem.inputs[0], problem.inputs[6]);
  const std::int64_t rows = rows_of_band(g, sizeof(typename Rows::Element));
  kernel.scratch_bytes = scratch_bytes(gradient_layout(problem.inputs[0], g, rows),
                                       GradientPart<Rows>::bytes(g), problem);
  kernel.strided_inputs = bit(6);
  return kernel;
}

void pooled_grad_reference(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::BatchNormMaxPoolGrad>(args).forward;
  const PoolGeometry g = pooled_grad_geometry(args);
  const Layout l = layout_of(*args.inputs[0].spec);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    T* const y = reinterpret_cast<T*>(args.scratch);
    T* const result = args.outputs[0].as<T>();
    const std::size_t vectors[] = {2, 4, 5};
    for (std::int64_t n = 0; n < g.images; ++n) {
      normalise_reference<T>(args, op, vectors, n * g.input_image(), g.input_image(), y);
      pool_reference::max_pool_grad(g, y, args.inputs[6].as<const T>() + n * g.output_image(),
                                    result + n * g.input_image());
    }
    for (std::int64_t c = 0; c < l.channels; ++c) {
      const auto vector = [&](std::size_t input) -> double {
        return args.inputs[input].as<const T>()[c];
      };
      const ref::Column<T> x{args.inputs[0].as<const T>(), l.rows, l.channels, c};
      const ref::Column<T> pooled{result, l.rows, l.channels, c};
      const double mean = vector(2);
      const auto gated = [&](std::int64_t r) -> double {
        const auto before = static_cast<T>((x[r] - mean) * vector(4) + vector(5));
        return passed_back(op.activation, before, static_cast<T>(pooled[r]),
                           static_cast<T>(op.slope));
      };
      ref::GradientSums sums;
      for (std::int64_t r = 0; r < l.rows; ++r) {
        sums.sum += gated(r);
        sums.product += gated(r) * (x[r] - mean);
      }
      const Coefficients k = finish_gradient<PooledGrad, T>(args, c, l.rows, sums);
      for (std::int64_t r = 0; r < l.rows; ++r)
        result[r * l.channels + c] = static_cast<T>(k.a * gated(r) + k.b * (x[r] - mean) + k.c);
    }
  });
}

// The winner is remembered as a 32-bit number, of bfloat16 as one of a byte.
const char* accept_taps(const ops::BatchNormMaxPoolGrad& op, const Problem& p) {
  const Pair& k = op.forward.pool.kernel_size;
  if (k[0] > (std::int64_t{1} << 30) / k[1]) return "the window has too many taps";
  return accept_float32(op, p);
}
[[maybe_unused]] const char* accept_few_taps(const ops::BatchNormMaxPoolGrad& op,
                                             const Problem& p) {
  const Pair& k = op.forward.pool.kernel_size;
  if (k[0] > kMostWindowTaps / k[1]) return "the window has more than 64 taps";
  return accept_float32(op, p);
}

// Of one image.
bool bands_pay(const PoolGeometry& g, std::size_t item) noexcept {
  const std::int64_t windows = windows_of_band(g, item), rows = rows_of_band(g, item);
  const auto within = [](std::int64_t done, std::int64_t due) {
    return static_cast<double>(done) <= kMostRepeated * static_cast<double>(due);
  };
  std::int64_t normalised = 0;
  for (std::int64_t k = 0; k < ceil_div(g.rows.output, windows); ++k)
    normalised += forward_band(g, windows, k).rows();
  if (!within(normalised, g.rows.input)) return false;
  const std::int64_t bands = ceil_div(g.rows.input, rows);
  std::int64_t pooled = 0;
  normalised = 0;
  for (std::int64_t k = 0; k < bands; ++k) {
    const Band band = gradient_band(g, rows, k);
    normalised += band.rows(), pooled += band.end - band.first;
  }
  return within(normalised, g.rows.input) && within(pooled, g.rows.output) &&
         g.rows.input * g.columns.input >= kLeastPixels * bands;
}

}  // namespace
}  // namespace batch_norm

bool pools_in_bands(const ops::MaxPool2d& pool, const TensorSpec& input, const TensorSpec& pooled) {
  return batch_norm::bands_pay(pool_geometry(pool, input, pooled), item_bytes(input.dtype));
}

template <>
struct VariantList<ops::BatchNormMaxPool> {
  static constexpr Variant<ops::BatchNormMaxPool> kAll[] = {
      PYCNN_IF_AVX512(
          {"batch_norm_max_pool.rows.bfloat16.avx512", Isa::kAvx512, accept_all,
           batch_norm::make_pooled<batch_norm::BFloat16Rows>, Images::kBFloat16},
          {"batch_norm_max_pool.rows.avx512", Isa::kAvx512, accept_float32,
           batch_norm::make_pooled<batch_norm::Float32Rows<batch_norm::Avx512Pool>>}, )  //
      PYCNN_IF_AVX2({"batch_norm_max_pool.rows.avx2", Isa::kAvx2, accept_float32,
                     batch_norm::make_pooled<batch_norm::Float32Rows<batch_norm::Avx2Pool>>}, )  //
      {"batch_norm_max_pool.rows.baseline", Isa::kBaseline, accept_float32,
       batch_norm::make_pooled<batch_norm::Float32Rows<batch_norm::BaselinePool>>},
      {"batch_norm_max_pool.reference", Isa::kBaseline, accept_all,
       batch_norm::make_reference<batch_norm::pooled_reference>}};
};
PYCNN_DEFINE_SELECT(ops::BatchNormMaxPool)

template <>
struct VariantList<ops::BatchNormMaxPoolGrad> {
  static constexpr Variant<ops::BatchNormMaxPoolGrad> kAll[] = {
      PYCNN_IF_AVX512(
          {"batch_norm_max_pool_grad.rows.bfloat16.avx512", Isa::kAvx512,
           batch_norm::accept_few_taps, make_normed_pool_grad, Images::kBFloat16},
          {"batch_norm_max_pool_grad.rows.avx512", Isa::kAvx512, batch_norm::accept_taps,
           batch_norm::make_pooled_grad<batch_norm::Float32Rows<batch_norm::Avx512Pool>>}, )  //
      PYCNN_IF_AVX2(
          {"batch_norm_max_pool_grad.rows.avx2", Isa::kAvx2, batch_norm::accept_taps,
           batch_norm::make_pooled_grad<batch_norm::Float32Rows<batch_norm::Avx2Pool>>}, )  //
      {"batch_norm_max_pool_grad.rows.baseline", Isa::kBaseline, batch_norm::accept_taps,
       batch_norm::make_pooled_grad<batch_norm::Float32Rows<batch_norm::BaselinePool>>},
      {"batch_norm_max_pool_grad.reference", Isa::kBaseline, accept_all,
       batch_norm::make_reference<batch_norm::pooled_grad_reference>}};
};
PYCNN_DEFINE_SELECT(ops::BatchNormMaxPoolGrad)

}  // namespace pycnn::cpu
