// The gradient through a max pool and the batch norm before it, of bfloat16 on AVX-512, in two
// passes over the input. The first one finds the winner of each window, which is kept, and adds up
// what the windows give by their winners: there are fewer windows than pixels. The second one makes
// the gradient, row by row, of winners and grad_output, where the input has been. Parts of images,
// and thus the order of sums, follow from the shapes alone.
#include "backends/cpu/batch_norm_max_pool_bfloat16.h"

#if PYCNN_HAVE_AVX512
#include <algorithm>
#include <cstring>
#include <optional>

#include "backends/cpu/activation_reference.h"
#include "backends/cpu/batch_norm_matrix.h"
#include "backends/cpu/batch_norm_max_pool.h"
#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/pool_window.h"

namespace pycnn::cpu {
namespace batch_norm {
namespace {

struct NormedPoolGrad : TrainGrad {
  using OpType = ops::BatchNormMaxPoolGrad;
  static constexpr std::size_t kGradOutput = 6;
};

// Rows of windows, and of the image, that are worked on at a time. Neighbours share rows.
constexpr std::int64_t kParts = 4, kLeastWindowRows = 8, kImageRows = 8;
constexpr std::int64_t kSortedCoefficients = 6, kSortedSums = 3;

std::int64_t lines(std::int64_t bytes) noexcept { return ceil_div(bytes, std::int64_t{64}) * 64; }

// Where everything lies in the kernel's scratch. Rings hold as many rows as a window reaches over:
// row i is in place i % ring.
struct NormedPoolScratch {
  std::int64_t pitch, window_rows, parts, ring;
  std::int64_t keys, size;                                   // numbers of a row: pixels, windows
  std::int64_t coefficients, sums, winners, own, own_bytes;  // bytes to where they begin

  explicit NormedPoolScratch(const PoolGeometry& g) noexcept {
    pitch = ceil_div(std::max<std::int64_t>(g.channels, 1), std::int64_t{32}) * 32;
    window_rows = std::max(kLeastWindowRows, ceil_div(g.rows.output, kParts));
    parts = g.images * ceil_div(g.rows.output, window_rows);
    ring = std::min((g.rows.kernel - 1) * g.rows.dilation + 1,
                    std::max<std::int64_t>(g.rows.input, 1));
    keys = g.columns.input * pitch, size = g.columns.output * pitch;
    constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
    constexpr auto kNumber = static_cast<std::int64_t>(sizeof(std::int16_t));
    coefficients = 0;
    sums = kSortedCoefficients * pitch * kFloat;
    winners = lines(sums + parts * kSortedSums * pitch * kFloat);
    own = lines(winners + g.images * g.rows.output * size * kNumber);
    own_bytes = lines((keys + (3 * ring + 1) * size) * kNumber);
  }
  std::size_t bytes(int threads) const noexcept {
    return static_cast<std::size_t>(own + std::max(threads, 1) * own_bytes);
  }
};

class NormedPoolGradient {
 public:
  explicit NormedPoolGradient(const KernelArgs& args) noexcept
      : args_(args), g_(geometry(args)), columns_(pool_columns(g_)), s_(g_) {
    const auto& forward = op_of<ops::BatchNormMaxPoolGrad>(args).forward;
    rectifier_ = rectifier_of(forward.activation, forward.slope);
    std::fill_n(coefficient(0), kSortedCoefficients * s_.pitch, 0.0f);
    const std::size_t vectors[] = {2, 4, 5};
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t c = 0; c < g_.channels; ++c)
        coefficient(i)[sorted_channel(c)] = args.inputs[vectors[i]].as<const float>()[c];
    if (rectifier_) gate_ = Gate{coefficient(1), coefficient(2), *rectifier_};
  }

  void run() const noexcept {
    // As a rule a convolution's gradient is next, which reads the images forwards.
    parallel_for(args_.threads, s_.parts,
                 [&](std::int64_t i, int worker) { find_winners(s_.parts - 1 - i, worker); });
    parallel_ranges(args_.threads, g_.channels, kChannelBlock,
                    [&](std::int64_t begin, std::int64_t end) { add_up(begin, end); });
    const std::int64_t bands = ceil_div(g_.rows.input, kImageRows);
    parallel_for(args_.threads, g_.images * bands, [&](std::int64_t i, int) {
      const std::int64_t n = i / bands, begin = i % bands * kImageRows;
      const std::int64_t end = std::min(begin + kImageRows, g_.rows.input);
      for (std::int64_t ih = begin; ih < end; ++ih) give_row(n, ih);
    });
  }

  static PoolGeometry geometry(const KernelArgs& args) noexcept {
    const auto& op = op_of<ops::BatchNormMaxPoolGrad>(args);
    PoolGeometry g = pool_geometry(op.forward.pool, *args.inputs[0].spec, *args.inputs[6].spec);
    g.output_pitch = args.inputs[6].pitch();
    return g;
  }

 private:
  // Mean, factor and offset; a, b and c of `Coefficients`.
  float* coefficient(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(args_.scratch + s_.coefficients) + i * s_.pitch;
  }
  // Of a part: of what is given, of that times the distances, and what NaNs leave.
  float* sum(std::int64_t part, std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(args_.scratch + s_.sums) + (part * kSortedSums + i) * s_.pitch;
  }
  std::int16_t* winners(std::int64_t n, std::int64_t oh) const noexcept {
    return reinterpret_cast<std::int16_t*>(args_.scratch + s_.winners) +
           (n * g_.rows.output + oh) * s_.size;
  }
  const BFloat16* grad_output(std::int64_t n, std::int64_t oh) const noexcept {
    return args_.inputs[6].as<const BFloat16>() + (n * g_.rows.output + oh) * g_.output_row();
  }
  std::int64_t pixel(std::int64_t n, std::int64_t ih) const noexcept {
    return n * g_.input_image() + ih * g_.input_row();
  }
  const Gate* gate() const noexcept { return gate_ ? &*gate_ : nullptr; }

  // What a thread has of its own.
  struct Rows {
    std::int16_t *keys, *best, *taps, *values, *winning;
    std::int64_t ring, size;

    Rows(std::byte* scratch, const NormedPoolScratch& s) noexcept : ring(s.ring), size(s.size) {
      keys = reinterpret_cast<std::int16_t*>(scratch);
      best = keys + s.keys;
      taps = best + s.ring * s.size;
      values = taps + s.ring * s.size;
      winning = values + s.ring * s.size;
    }
    std::int64_t at(std::int64_t ih) const noexcept { return ih % ring * size; }
  };

  void find_winners(std::int64_t part, int worker) const noexcept {
    const PoolAxis& v = g_.rows;
    const Rows rows(args_.scratch + s_.own + worker * s_.own_bytes, s_);
    const std::int64_t parts = ceil_div(v.output, s_.window_rows), n = part / parts;
    const std::int64_t first = part % parts * s_.window_rows;
    const std::int64_t end = std::min(first + s_.window_rows, v.output);
    std::fill_n(sum(part, 0), kSortedSums * s_.pitch, 0.0f);
    // The rows from here on that no window holds are looked at for NaNs alone.
    std::int64_t seen = first == 0 ? 0 : first * v.stride - v.before;
    const std::int64_t last = end == v.output ? v.input : end * v.stride - v.before;
    std::int64_t compared = 0;
    for (std::int64_t oh = first; oh < end; ++oh) {
      const Taps t = v.taps(oh);
      if (t.first >= t.end) continue;
      // All from here on: of dilated windows the next may begin above this one's first tap inside.
      compared = std::max({compared, t.start, std::int64_t{0}});
      for (; seen < compared; ++seen) find_keys(n, seen, part, rows);
      for (; compared <= t.start + (t.end - 1) * v.dilation; ++compared)
        compare_taps(n, compared, part, rows);
      seen = std::max(seen, compared);
      find_winners_of_row(n, oh, t, part, rows);
    }
    for (; seen < std::min(last, v.input); ++seen) find_keys(n, seen, part, rows);
  }

  void find_keys(std::int64_t n, std::int64_t ih, std::int64_t part,
                 const Rows& rows) const noexcept {
    if (ih < 0 || ih >= g_.rows.input) return;
    NormedKeys row{};
    row.input = args_.inputs[0].as<const BFloat16>() + pixel(n, ih);
    row.pixels = g_.columns.input, row.channels = g_.channels, row.pitch = s_.pitch;
    row.norm = {coefficient(0), coefficient(1), coefficient(2)};
    row.rectifier = rectifier_ ? &*rectifier_ : nullptr;
    row.keys = rows.keys, row.lost = sum(part, 2);
    avx512::normed_keys(row);
  }

  void compare_taps(std::int64_t n, std::int64_t ih, std::int64_t part,
                    const Rows& rows) const noexcept {
    find_keys(n, ih, part, rows);
    MaxPoolTaps row{};
    row.input = args_.inputs[0].as<const BFloat16>() + pixel(n, ih);
    row.channel_count = g_.channels, row.pitch = s_.pitch;
    row.keys = rows.keys, row.best = rows.best + rows.at(ih), row.taps = rows.taps + rows.at(ih);
    row.values = rows.values + rows.at(ih);
    row.columns = &columns_;
    avx512::max_pool_taps(row);
  }

  void find_winners_of_row(std::int64_t n, std::int64_t oh, const Taps& t, std::int64_t part,
                           const Rows& rows) const noexcept {
    const std::int16_t *best[kMostWindowTaps], *taps[kMostWindowTaps], *values[kMostWindowTaps];
    for (std::int64_t k = t.first; k < t.end; ++k) {
      const std::int64_t at = rows.at(t.start + k * g_.rows.dilation);
      best[k - t.first] = rows.best + at, taps[k - t.first] = rows.taps + at;
      values[k - t.first] = rows.values + at;
    }
    MaxPoolWinners row{};
    row.best = best, row.taps = taps, row.rows = t.end - t.first;
    row.row_taps = g_.columns.kernel, row.first_tap = t.first * row.row_taps;
    row.size = s_.size, row.winners = winners(n, oh);
    row.values = values, row.winning = rows.winning;
    avx512::max_pool_winners(row);
    WinnerSums sums{};
    sums.values = rows.winning, sums.grad_output = grad_output(n, oh);
    sums.channels = g_.channels, sums.pitch = s_.pitch, sums.columns = &columns_;
    sums.mean = coefficient(0), sums.gate = gate();
    sums.sum = sum(part, 0), sums.product = sum(part, 1);
    avx512::winner_sums(sums);
  }

  void add_up(std::int64_t begin, std::int64_t end) const noexcept {
    for (std::int64_t c = begin; c < end; ++c) {
      const std::int64_t at = sorted_channel(c);
      ref::GradientSums sums;
      for (std::int64_t part = 0; part < s_.parts; ++part) {
        sums.sum += sum(part, 0)[at];
        sums.product += static_cast<double>(sum(part, 1)[at]) + sum(part, 2)[at];
      }
      const std::int64_t pixels = g_.images * g_.rows.input * g_.columns.input;
      const Coefficients k = finish_gradient<NormedPoolGrad, float>(args_, c, pixels, sums);
      coefficient(3)[at] = static_cast<float>(k.a);
      coefficient(4)[at] = static_cast<float>(k.b);
      coefficient(5)[at] = static_cast<float>(k.c);
    }
  }

  void give_row(std::int64_t n, std::int64_t ih) const noexcept {
    const PoolAxis& v = g_.rows;
    const std::int64_t last = ih + v.before, below = last - (v.kernel - 1) * v.dilation;
    MaxPoolWindows windows[kMostWindowTaps];
    std::int64_t count = 0;
    for (std::int64_t oh = below <= 0 ? 0 : ceil_div(below, v.stride);
         oh <= last / v.stride && oh < v.output; ++oh) {
      const std::int64_t reach = last - oh * v.stride;
      if (reach % v.dilation != 0) continue;
      windows[count++] = {winners(n, oh), grad_output(n, oh),
                          reach / v.dilation * g_.columns.kernel};
    }
    NormedGradOfRow row{};
    row.pool.windows = windows, row.pool.window_rows = count, row.pool.pitch = s_.pitch;
    row.pool.grad_input = args_.outputs[0].as<BFloat16>() + pixel(n, ih);
    row.pool.channel_count = g_.channels, row.pool.columns = &columns_;
    row.pool.disjoint = v.disjoint() && g_.columns.disjoint();
    const auto* const input = args_.inputs[0].as<const BFloat16>();
    row.input = input + pixel(n, ih);
    row.pool.fetch = ih + 1 < v.input ? input + pixel(n, ih + 1) : nullptr;
    row.mean = coefficient(0), row.gate = gate();
    row.a = coefficient(3), row.b = coefficient(4), row.c = coefficient(5);
    avx512::normed_grad_of_row(row);
  }

  const KernelArgs& args_;
  const PoolGeometry g_;
  const PoolColumns columns_;
  const NormedPoolScratch s_;
  std::optional<Rectifier> rectifier_;
  std::optional<Gate> gate_;
};

void normed_pool_grad(const KernelArgs& args) noexcept { NormedPoolGradient(args).run(); }

}  // namespace
}  // namespace batch_norm

Kernel make_normed_pool_grad(const ops::BatchNormMaxPoolGrad& op, const Problem& problem) {
  Kernel kernel = plain_kernel<batch_norm::normed_pool_grad, batch_norm::bit(0), 0, 0>(op, problem);
  const PoolGeometry g = pool_geometry(op.forward.pool, problem.inputs[0], problem.inputs[6]);
  kernel.scratch_bytes = batch_norm::NormedPoolScratch(g).bytes(problem.threads);
  kernel.strided_inputs = batch_norm::bit(6);
  return kernel;
}

}  // namespace pycnn::cpu
#endif
