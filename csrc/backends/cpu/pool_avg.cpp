#include <algorithm>

#include "backends/cpu/pool.h"
#include "backends/cpu/pool_reference.h"
#include "backends/cpu/pool_window.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// Cells that count towards the mean of window (oh, ow). Exact in float: windows are small.
std::int64_t mean_cells(const PoolGeometry& g, const ops::AvgPool2d& op, std::int64_t oh,
                        std::int64_t ow) noexcept {
  return g.rows.mean_cells(oh, op.count_include_pad) *
         g.columns.mean_cells(ow, op.count_include_pad);
}

// A number for every window, the same in all images: computed at selection, kept as the plan.
template <class F>
std::vector<std::byte> window_table(const PoolGeometry& g, F&& value) {
  std::vector<std::byte> table(static_cast<std::size_t>(g.rows.output * g.columns.output) *
                               sizeof(float));
  std::byte* p = table.data();
  for (std::int64_t oh = 0; oh < g.rows.output; ++oh) {
    for (std::int64_t ow = 0; ow < g.columns.output; ++ow, p += sizeof(float)) {
      const float v = value(oh, ow);
      std::copy_n(reinterpret_cast<const std::byte*>(&v), sizeof v, p);
    }
  }
  return table;
}

const char* accept_wide(const auto& op, const Problem& p) {
  return few_channels(p.inputs[0]) ? kFewChannels : accept_float32(op, p);
}

// ---- AvgPool2d

PoolGeometry forward_geometry(const KernelArgs& args) noexcept {
  PoolGeometry g =
      pool_geometry(op_of<ops::AvgPool2d>(args), *args.inputs[0].spec, *args.outputs[0].spec);
  g.input_pitch = args.inputs[0].pitch(), g.output_pitch = args.outputs[0].pitch();
  return g;
}

void forward_reference(const KernelArgs& args) noexcept {
  const PoolGeometry g = forward_geometry(args);
  const bool count_padding = op_of<ops::AvgPool2d>(args).count_include_pad;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    parallel_for(args.threads, g.images, [&](std::int64_t n, int) {
      pool_reference::avg_pool(g, count_padding, input + n * g.input_image(),
                               output + n * g.output_image());
    });
  });
}

// Chunks are ranges of output rows, counted over the whole batch.
template <void (*kRow)(const PoolRow&) noexcept>
void forward_direct(const KernelArgs& args) noexcept {
  const PoolGeometry g = forward_geometry(args);
  const PoolColumns columns = pool_columns(g);
  const auto* const input = args.inputs[0].as<const float>();
  auto* const output = args.outputs[0].as<float>();
  const auto* const divisors = reinterpret_cast<const float*>(args.plan);
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / g.rows.output, oh = i % g.rows.output;
      const Taps v = g.rows.taps(oh);
      PoolRow row{};
      row.input = input + n * g.input_image() + (v.start + v.first) * g.input_row();
      row.input_end = input + g.input_size();
      row.row_step = g.input_row();
      row.taps = v.end - v.first;
      row.output = output + i * g.output_row();
      row.output_end = g.output_pitch == g.channels ? output + end * g.output_row() : row.output;
      row.columns = &columns;
      row.divisors = divisors + oh * g.columns.output;
      kRow(row);
    }
  };
  const std::int64_t floats = g.output_row() + g.rows.stride * g.input_row();
  parallel_ranges(args.threads, g.images * g.rows.output, chunk_items(floats), body);
}

template <void (*kRow)(const PoolRow&) noexcept>
Kernel make_forward(const ops::AvgPool2d& op, const Problem& problem) {
  const PoolGeometry g = pool_geometry(op, problem.inputs[0], problem.outputs[0]);
  Kernel kernel = plain_kernel<forward_direct<kRow>>(op, problem);
  kernel.plan = window_table(g, [&](std::int64_t oh, std::int64_t ow) {
    return static_cast<float>(mean_cells(g, op, oh, ow));
  });
  kernel.strided_inputs = kernel.strided_outputs = 1;
  return kernel;
}

// ---- AvgPool2dGrad

PoolGeometry grad_geometry(const KernelArgs& args) noexcept {
  PoolGeometry g = pool_geometry(op_of<ops::AvgPool2dGrad>(args).pool, *args.outputs[0].spec,
                                 *args.inputs[0].spec);
  g.output_pitch = args.inputs[0].pitch();
  return g;
}

void grad_reference(const KernelArgs& args) noexcept {
  const PoolGeometry g = grad_geometry(args);
  const bool count_padding = op_of<ops::AvgPool2dGrad>(args).pool.count_include_pad;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad_output = args.inputs[0].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    parallel_for(args.threads, g.images, [&](std::int64_t n, int) {
      pool_reference::avg_pool_grad(g, count_padding, grad_output + n * g.output_image(),
                                    grad_input + n * g.input_image());
    });
  });
}

// Every image cell gathers from the windows that hold it, in row-major order. Chunks are ranges of
// image rows, counted over the whole batch.
template <void (*kRow)(const AvgPoolGradRow&) noexcept>
void grad_gather(const KernelArgs& args) noexcept {
  const PoolGeometry g = grad_geometry(args);
  const PoolColumns columns = pool_columns(g);
  const auto* const grad_output = args.inputs[0].as<const float>();
  auto* const grad_input = args.outputs[0].as<float>();
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / g.rows.input, ih = i % g.rows.input;
      AvgPoolGradRow row{};
      row.grad_output = grad_output + n * g.output_image();
      row.grad_output_end = grad_output + g.output_size();
      row.scales = reinterpret_cast<const float*>(args.plan);
      row.first_row = g.rows.first_window(ih);
      row.end_row = g.rows.end_window(ih);
      row.grad_input = grad_input + i * g.input_row();
      row.grad_input_end = grad_input + end * g.input_row();
      row.columns = &columns;
      kRow(row);
    }
  };
  const std::int64_t floats = g.input_row() + g.output_row() / g.rows.stride;
  parallel_ranges(args.threads, g.images * g.rows.input, chunk_items(floats), body);
}

template <void (*kRow)(const AvgPoolGradRow&) noexcept>
Kernel make_grad(const ops::AvgPool2dGrad& op, const Problem& problem) {
  const PoolGeometry g = pool_geometry(op.pool, problem.outputs[0], problem.inputs[0]);
  Kernel kernel = plain_kernel<grad_gather<kRow>>(op, problem);
  kernel.plan = window_table(g, [&](std::int64_t oh, std::int64_t ow) {
    return static_cast<float>(1.0 / static_cast<double>(mean_cells(g, op.pool, oh, ow)));
  });
  kernel.strided_inputs = 1;
  return kernel;
}

#if PYCNN_HAVE_AVX512
// ---- 2x2 windows of few channels in bfloat16

const char* refuse_four(const ops::AvgPool2d& op, const TensorSpec& image) {
  constexpr std::int64_t kMostChannels = 16;  // two windows and more are a vector
  if (op.kernel_size != Pair{2, 2} || op.stride != Pair{2, 2}) return "windows are not 2x2 ones";
  if (op.padding != Padding{}) return "there is padding";
  if (image.shape[1] % 2 != 0 || image.shape[2] % 2 != 0) return "windows leave pixels over";
  if (image.shape[3] > kMostChannels) return "more than 16 channels";
  return nullptr;
}

const char* accept_four(const ops::AvgPool2d& op, const Problem& p) {
  return refuse_four(op, p.inputs[0]);
}
const char* accept_four(const ops::AvgPool2dGrad& op, const Problem& p) {
  return refuse_four(op.pool, p.outputs[0]);
}

template <void (*kRows)(const WindowsOfFour&) noexcept>
void run_four(const KernelArgs& args, BFloat16* image, BFloat16* windows, const Shape& shape) {
  const std::int64_t row = shape[2] * shape[3];
  auto body = [&](std::int64_t begin, std::int64_t end) {
    kRows({image + begin * 4 * row, windows + begin * row, end - begin, shape[2], shape[3]});
  };
  parallel_ranges(args.threads, shape[0] * shape[1], chunk_items(5 * row), body);
}

// Neither of them writes what it reads.
void forward_four(const KernelArgs& args) noexcept {
  run_four<avx512::mean_of_four_bfloat16>(
      args, const_cast<BFloat16*>(args.inputs[0].as<const BFloat16>()),
      args.outputs[0].as<BFloat16>(), args.outputs[0].spec->shape);
}
void grad_four(const KernelArgs& args) noexcept {
  run_four<avx512::mean_of_four_grad_bfloat16>(
      args, args.outputs[0].as<BFloat16>(),
      const_cast<BFloat16*>(args.inputs[0].as<const BFloat16>()), args.inputs[0].spec->shape);
}
#endif

}  // namespace

template <>
struct VariantList<ops::AvgPool2d> {
  static constexpr Variant<ops::AvgPool2d> kAll[] = {
      PYCNN_IF_AVX512({"avg_pool2d.bfloat16.avx512", Isa::kAvx512, accept_four,
                       plain_kernel<forward_four>, Images::kBFloat16},
                      {"avg_pool2d.direct.avx512", Isa::kAvx512, accept_wide,
                       make_forward<avx512::avg_pool_row>}, )  //
      PYCNN_IF_AVX2({"avg_pool2d.direct.avx2", Isa::kAvx2, accept_float32,
                     make_forward<avx2::avg_pool_row>}, )  //
      {"avg_pool2d.direct.baseline", Isa::kBaseline, accept_float32,
       make_forward<baseline::avg_pool_row>},
      {"avg_pool2d.reference", Isa::kBaseline, accept_all, plain_kernel<forward_reference>}};
};
PYCNN_DEFINE_SELECT(ops::AvgPool2d)

template <>
struct VariantList<ops::AvgPool2dGrad> {
  static constexpr Variant<ops::AvgPool2dGrad> kAll[] = {
      PYCNN_IF_AVX512({"avg_pool2d_grad.bfloat16.avx512", Isa::kAvx512, accept_four,
                       plain_kernel<grad_four>, Images::kBFloat16},
                      {"avg_pool2d_grad.gather.avx512", Isa::kAvx512, accept_wide,
                       make_grad<avx512::avg_pool_grad_row>}, )  //
      PYCNN_IF_AVX2({"avg_pool2d_grad.gather.avx2", Isa::kAvx2, accept_float32,
                     make_grad<avx2::avg_pool_grad_row>}, )  //
      {"avg_pool2d_grad.gather.baseline", Isa::kBaseline, accept_float32,
       make_grad<baseline::avg_pool_grad_row>},
      {"avg_pool2d_grad.reference", Isa::kBaseline, accept_all, plain_kernel<grad_reference>}};
};
PYCNN_DEFINE_SELECT(ops::AvgPool2dGrad)

}  // namespace pycnn::cpu
