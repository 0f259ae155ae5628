#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backends/cpu/pool.h"
#include "backends/cpu/pool_reference.h"
#include "backends/cpu/pool_window.h"
#include "backends/cpu/pool_winners.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// ---- MaxPool2d

PoolGeometry forward_geometry(const KernelArgs& args) noexcept {
  PoolGeometry g =
      pool_geometry(op_of<ops::MaxPool2d>(args), *args.inputs[0].spec, *args.outputs[0].spec);
  g.input_pitch = args.inputs[0].pitch(), g.output_pitch = args.outputs[0].pitch();
  return g;
}

void forward_reference(const KernelArgs& args) noexcept {
  const PoolGeometry g = forward_geometry(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    parallel_for(args.threads, g.images, [&](std::int64_t n, int) {
      pool_reference::max_pool(g, input + n * g.input_image(), output + n * g.output_image());
    });
  });
}

// Chunks are ranges of output rows, counted over the whole batch.
template <class T, void (*kRow)(const PoolRowOf<T>&) noexcept>
void forward_direct(const KernelArgs& args) noexcept {
  const PoolGeometry g = forward_geometry(args);
  const PoolColumns columns = pool_columns(g);
  const auto* const input = args.inputs[0].as<const T>();
  auto* const output = args.outputs[0].as<T>();
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / g.rows.output;
      const Taps v = g.rows.taps(i % g.rows.output);
      PoolRowOf<T> row{};
      row.input =
          input + n * g.input_image() + (v.start + v.first * g.rows.dilation) * g.input_row();
      row.input_end = input + g.input_size();
      row.row_step = g.rows.dilation * g.input_row();
      row.taps = v.end - v.first;
      row.output = output + i * g.output_row();
      row.output_end = g.output_pitch == g.channels ? output + end * g.output_row() : row.output;
      row.columns = &columns;
      kRow(row);
    }
  };
  const std::int64_t floats = g.output_row() + g.rows.stride * g.input_row();
  const std::int64_t rows = g.images * g.rows.output;
  // Windows that overlap share rows, of which a core should have its own.
  const std::int64_t shared =
      std::is_same_v<T, BFloat16> && !g.rows.disjoint() ? std::min<std::int64_t>(rows / 16, 8) : 1;
  parallel_ranges(args.threads, rows, std::max(chunk_items(floats), shared), body);
}

template <class T, void (*kRow)(const PoolRowOf<T>&) noexcept>
Kernel make_max(const ops::MaxPool2d& op, const Problem& problem) {
  Kernel kernel = plain_kernel<forward_direct<T, kRow>>(op, problem);
  kernel.strided_inputs = kernel.strided_outputs = 1;
  return kernel;
}

// ---- MaxPool2dGrad

PoolGeometry grad_geometry(const KernelArgs& args) noexcept {
  PoolGeometry g = pool_geometry(op_of<ops::MaxPool2dGrad>(args).pool, *args.inputs[0].spec,
                                 *args.inputs[1].spec);
  g.output_pitch = args.inputs[1].pitch();
  return g;
}

void grad_reference(const KernelArgs& args) noexcept {
  const PoolGeometry g = grad_geometry(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    const T* grad_output = args.inputs[1].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    parallel_for(args.threads, g.images, [&](std::int64_t n, int) {
      pool_reference::max_pool_grad(g, input + n * g.input_image(),
                                    grad_output + n * g.output_image(),
                                    grad_input + n * g.input_image());
    });
  });
}

// What the row kernels need of window row `oh` of image `n`.
MaxPoolGradRow grad_row(const KernelArgs& args, const PoolGeometry& g, const PoolColumns& columns,
                        std::int64_t n, std::int64_t oh) noexcept {
  const Taps v = g.rows.taps(oh);
  const std::int64_t first =
      n * g.input_image() + (v.start + v.first * g.rows.dilation) * g.input_row();
  const auto* const grad_output = args.inputs[1].as<const float>();
  MaxPoolGradRow row{};
  row.input = args.inputs[0].as<const float>() + first;
  row.row_step = g.rows.dilation * g.input_row();
  row.taps = v.end - v.first;
  row.grad_output = grad_output + (n * g.rows.output + oh) * g.output_row();
  row.grad_output_end = grad_output + g.output_size();
  row.grad_input = args.outputs[0].as<float>() + first;
  row.channel_count = g.channels;
  row.columns = &columns;
  return row;
}

// Disjoint windows: the image rows from the start of one window row to that of the next are
// written by that window row alone.
template <void (*kRow)(const MaxPoolGradRow&) noexcept>
void grad_disjoint(const KernelArgs& args) noexcept {
  const PoolGeometry g = grad_geometry(args);
  const PoolColumns columns = pool_columns(g);
  const PoolAxis& v = g.rows;
  const bool covered = v.covers() && g.columns.covers();
  auto* const grad_input = args.outputs[0].as<float>();
  auto first_row = [&](std::int64_t oh) {
    if (oh == 0) return std::int64_t{0};
    return oh == v.output ? v.input
                          : std::clamp<std::int64_t>(oh * v.stride - v.before, 0, v.input);
  };
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / v.output, oh = i % v.output;
      if (!covered) {
        const std::int64_t top = first_row(oh), rows = first_row(oh + 1) - top;
        std::memset(grad_input + n * g.input_image() + top * g.input_row(), 0,
                    static_cast<std::size_t>(rows * g.input_row()) * sizeof(float));
      }
      kRow(grad_row(args, g, columns, n, oh));
    }
  };
  parallel_ranges(args.threads, g.images * v.output, chunk_items(2 * v.stride * g.input_row()),
                  body);
}

// Overlapping windows: an image's cells are one chunk's business, so the order of the sums is that
// of the windows. Few images with many channels are cut into blocks of channels instead.
template <void (*kRow)(const MaxPoolGradRow&) noexcept>
void grad_overlapping(const KernelArgs& args) noexcept {
  const PoolGeometry g = grad_geometry(args);
  const PoolColumns columns = pool_columns(g);
  constexpr std::int64_t kBlock = 64;
  const bool whole = g.images >= 8 || g.channels < 2 * kBlock;
  const std::int64_t block = whole ? std::max<std::int64_t>(g.channels, 1) : kBlock;
  const std::int64_t blocks = ceil_div(g.channels, block);
  const std::int64_t pixels = g.rows.input * g.columns.input;
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / blocks, c = i % blocks * block;
      const std::int64_t count = std::min(block, g.channels - c);
      auto* const image = args.outputs[0].as<float>() + n * g.input_image() + c;
      // Rows are zeroed when the windows come to them, so that they stay in the cache.
      std::int64_t zeroed = 0;
      const auto zero_until = [&](std::int64_t row) {
        for (; zeroed < row; ++zeroed)
          for (std::int64_t p = 0; p < (whole ? 1 : g.columns.input); ++p)
            std::memset(image + zeroed * g.input_row() + p * g.channels, 0,
                        static_cast<std::size_t>(whole ? g.input_row() : count) * sizeof(float));
      };
      for (std::int64_t oh = 0; oh < g.rows.output; ++oh) {
        const Taps v = g.rows.taps(oh);
        if (v.first >= v.end) continue;
        zero_until(v.start + (v.end - 1) * g.rows.dilation + 1);
        MaxPoolGradRow row = grad_row(args, g, columns, n, oh);
        row.input += c;
        row.grad_output += c;
        row.grad_input += c;
        row.channel_count = count;
        kRow(row);
      }
      zero_until(g.rows.input);
    }
  };
  parallel_ranges(args.threads, g.images * blocks, chunk_items(2 * pixels * block), body);
}

template <KernelFunction kRun>
Kernel make_max_grad(const ops::MaxPool2dGrad& op, const Problem& problem) {
  Kernel kernel = plain_kernel<kRun>(op, problem);
  kernel.strided_inputs = 0b10;
  return kernel;
}

template <const char* (*kAccept)(const ops::MaxPool2dGrad&, const Problem&)>
const char* accept_wide_grad(const ops::MaxPool2dGrad& op, const Problem& p) {
  return few_channels(p.inputs[0]) ? kFewChannels : kAccept(op, p);
}
[[maybe_unused]] const char* accept_wide(const ops::MaxPool2d& op, const Problem& p) {
  return few_channels(p.inputs[0]) ? kFewChannels : accept_float32(op, p);
}

// The winner is remembered as a 32-bit number.
constexpr std::int64_t kMostTaps = std::int64_t{1} << 30;

const char* accept_overlapping(const ops::MaxPool2dGrad& op, const Problem& p) {
  const Pair& k = op.pool.kernel_size;
  if (k[0] > kMostTaps / k[1]) return "the window has too many taps";
  return accept_float32(op, p);
}

const char* accept_disjoint(const ops::MaxPool2dGrad& op, const Problem& p) {
  const PoolGeometry g = pool_geometry(op.pool, p.inputs[0], p.inputs[1]);
  if (!g.rows.disjoint() || !g.columns.disjoint()) return "windows overlap";
  if (g.rows.output == 0 || g.columns.output == 0) return "there is no window";
  return accept_overlapping(op, p);
}

#if PYCNN_HAVE_AVX512
// ---- MaxPool2dGrad of bfloat16

// From here on a gradient has left the caches by the time that it is read.
constexpr std::int64_t kStreamedElements = 4 * 1024 * 1024;

void grad_bfloat16(const KernelArgs& args) noexcept {
  const PoolGeometry g = grad_geometry(args);
  const WinnerRows rows = winner_rows(g);
  const std::int64_t blocks = ceil_div(g.channels, rows.block);
  const WinnerTensors tensors{args.inputs[0].as<const BFloat16>(),
                              args.inputs[1].as<const BFloat16>(), args.outputs[0].as<BFloat16>(),
                              g.images * g.input_image() >= kStreamedElements};
  parallel_for(args.threads, g.images * blocks, [&](std::int64_t i, int worker) {
    WinnersOfImage image(tensors, g, rows,
                         args.scratch + static_cast<std::size_t>(worker) * rows.bytes());
    image.run(i / blocks, i % blocks * rows.block);
  });
}

Kernel make_grad_bfloat16(const ops::MaxPool2dGrad& op, const Problem& problem) {
  Kernel kernel = plain_kernel<grad_bfloat16>(op, problem);
  kernel.strided_inputs = 0b10;
  const PoolGeometry g = pool_geometry(op.pool, problem.inputs[0], problem.inputs[1]);
  kernel.scratch_bytes =
      static_cast<std::size_t>(std::max(problem.threads, 1)) * winner_rows(g).bytes();
  return kernel;
}

const char* accept_grad_bfloat16(const ops::MaxPool2dGrad& op, const Problem& p) {
  const Pair& k = op.pool.kernel_size;
  if (p.inputs[0].shape[3] < 32) return "fewer than 32 channels: shorter vectors are faster";
  if (k[0] > kMostWindowTaps / k[1]) return "the window has more than 64 taps";
  return accept_float32(op, p);
}
#endif

}  // namespace

template <>
struct VariantList<ops::MaxPool2d> {
  static constexpr Variant<ops::MaxPool2d> kAll[] = {
      PYCNN_IF_AVX512({"max_pool2d.bfloat16.avx512", Isa::kAvx512, accept_all,
                       make_max<BFloat16, avx512::max_pool_row_bfloat16>, Images::kBFloat16},
                      {"max_pool2d.direct.avx512", Isa::kAvx512, accept_wide,
                       make_max<float, avx512::max_pool_row>}, )  //
      PYCNN_IF_AVX2({"max_pool2d.direct.avx2", Isa::kAvx2, accept_float32,
                     make_max<float, avx2::max_pool_row>}, )  //
      {"max_pool2d.direct.baseline", Isa::kBaseline, accept_float32,
       make_max<float, baseline::max_pool_row>},
      {"max_pool2d.reference", Isa::kBaseline, accept_all, plain_kernel<forward_reference>}};
};
PYCNN_DEFINE_SELECT(ops::MaxPool2d)

template <>
struct VariantList<ops::MaxPool2dGrad> {
  static constexpr Variant<ops::MaxPool2dGrad> kAll[] = {
      PYCNN_IF_AVX512(
          {"max_pool2d_grad.bfloat16.avx512", Isa::kAvx512, accept_grad_bfloat16,
           make_grad_bfloat16, Images::kBFloat16},
          {"max_pool2d_grad.disjoint.avx512", Isa::kAvx512, accept_wide_grad<accept_disjoint>,
           make_max_grad<grad_disjoint<avx512::max_pool_grad_row_disjoint>>},
          {"max_pool2d_grad.overlapping.avx512", Isa::kAvx512, accept_wide_grad<accept_overlapping>,
           make_max_grad<grad_overlapping<avx512::max_pool_grad_row_overlapping>>}, )  //
      PYCNN_IF_AVX2({"max_pool2d_grad.disjoint.avx2", Isa::kAvx2, accept_disjoint,
                     make_max_grad<grad_disjoint<avx2::max_pool_grad_row_disjoint>>},
                    {"max_pool2d_grad.overlapping.avx2", Isa::kAvx2, accept_overlapping,
                     make_max_grad<grad_overlapping<avx2::max_pool_grad_row_overlapping>>}, )  //
      {"max_pool2d_grad.disjoint.baseline", Isa::kBaseline, accept_disjoint,
       make_max_grad<grad_disjoint<baseline::max_pool_grad_row_disjoint>>},
      {"max_pool2d_grad.overlapping.baseline", Isa::kBaseline, accept_overlapping,
       make_max_grad<grad_overlapping<baseline::max_pool_grad_row_overlapping>>},
      {"max_pool2d_grad.reference", Isa::kBaseline, accept_all, plain_kernel<grad_reference>}};
};
PYCNN_DEFINE_SELECT(ops::MaxPool2dGrad)

}  // namespace pycnn::cpu
