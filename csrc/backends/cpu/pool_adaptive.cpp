#include <algorithm>

#include "backends/cpu/pool.h"
#include "backends/cpu/pool_window.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Average pooling to a fixed output size. Each window is summed row by row, the rows' sums are
// added, and the total is divided once.
namespace pycnn::cpu {
namespace {

// Windows along one axis. They cover it evenly; neighbours share a cell where sizes do not divide.
struct EvenAxis {
  std::int64_t input, output;

  std::int64_t begin(std::int64_t window) const noexcept { return window * input / output; }
  std::int64_t end(std::int64_t window) const noexcept {
    return ((window + 1) * input + output - 1) / output;
  }
  std::int64_t cells(std::int64_t window) const noexcept { return end(window) - begin(window); }
  // Windows that hold a cell: [first_window, end_window).
  std::int64_t first_window(std::int64_t cell) const noexcept { return cell * output / input; }
  std::int64_t end_window(std::int64_t cell) const noexcept {
    return ((cell + 1) * output - 1) / input + 1;
  }
};

struct Geometry {
  std::int64_t images, channels;
  EvenAxis rows, columns;

  std::int64_t input_row() const noexcept { return columns.input * channels; }
  std::int64_t output_row() const noexcept { return columns.output * channels; }
  std::int64_t input_image() const noexcept { return rows.input * input_row(); }
  std::int64_t output_image() const noexcept { return rows.output * output_row(); }
};

Geometry geometry_of(const TensorSpec& image, const TensorSpec& pooled) noexcept {
  return {image.shape[0],
          image.shape[3],
          {image.shape[1], pooled.shape[1]},
          {image.shape[2], pooled.shape[2]}};
}

const char* accept_wide(const auto& op, const Problem& p) {
  return few_channels(p.inputs[0]) ? kFewChannels : accept_float32(op, p);
}

// ---- AdaptiveAvgPool2d

Geometry forward_geometry(const KernelArgs& args) noexcept {
  return geometry_of(*args.inputs[0].spec, *args.outputs[0].spec);
}

template <class T>
T window_mean(const Geometry& g, const T* image, std::int64_t oh, std::int64_t ow,
              std::int64_t c) noexcept {
  T total = 0;
  for (std::int64_t ih = g.rows.begin(oh); ih < g.rows.end(oh); ++ih) {
    T sum = 0;
    for (std::int64_t iw = g.columns.begin(ow); iw < g.columns.end(ow); ++iw)
      sum += image[ih * g.input_row() + iw * g.channels + c];
    total += sum;
  }
  return total / static_cast<T>(g.rows.cells(oh) * g.columns.cells(ow));
}

void forward_reference(const KernelArgs& args) noexcept {
  const Geometry g = forward_geometry(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    for (std::int64_t n = 0; n < g.images; ++n, input += g.input_image())
      for (std::int64_t oh = 0; oh < g.rows.output; ++oh)
        for (std::int64_t ow = 0; ow < g.columns.output; ++ow)
          for (std::int64_t c = 0; c < g.channels; ++c)
            *output++ = window_mean(g, input, oh, ow, c);
  });
}

// Chunks are ranges of output rows, counted over the whole batch.
template <void (*kRow)(const AdaptivePoolRow&) noexcept>
void forward_direct(const KernelArgs& args) noexcept {
  const Geometry g = forward_geometry(args);
  const auto* const input = args.inputs[0].as<const float>();
  auto* const output = args.outputs[0].as<float>();
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / g.rows.output, oh = i % g.rows.output;
      AdaptivePoolRow row{};
      row.input = input + n * g.input_image() + g.rows.begin(oh) * g.input_row();
      row.rows = g.rows.cells(oh);
      row.input_width = g.columns.input, row.output_width = g.columns.output;
      row.channels = g.channels;
      row.output = output + i * g.output_row();
      kRow(row);
    }
  };
  const std::int64_t floats = g.output_row() + g.input_image() / g.rows.output;
  parallel_ranges(args.threads, g.images * g.rows.output, chunk_items(floats), body);
}

// ---- AdaptiveAvgPool2dGrad

Geometry grad_geometry(const KernelArgs& args) noexcept {
  return geometry_of(*args.outputs[0].spec, *args.inputs[0].spec);
}

void grad_reference(const KernelArgs& args) noexcept {
  const Geometry g = grad_geometry(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad_output = args.inputs[0].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    std::fill_n(grad_input, g.images * g.input_image(), T(0));
    for (std::int64_t n = 0; n < g.images; ++n, grad_input += g.input_image())
      for (std::int64_t oh = 0; oh < g.rows.output; ++oh)
        for (std::int64_t ow = 0; ow < g.columns.output; ++ow) {
          const T cells = static_cast<T>(g.rows.cells(oh) * g.columns.cells(ow));
          for (std::int64_t c = 0; c < g.channels; ++c, ++grad_output)
            for (std::int64_t ih = g.rows.begin(oh); ih < g.rows.end(oh); ++ih)
              for (std::int64_t iw = g.columns.begin(ow); iw < g.columns.end(ow); ++iw)
                grad_input[ih * g.input_row() + iw * g.channels + c] += *grad_output / cells;
        }
  });
}

// Every image cell gathers from the windows that hold it, in row-major order. Chunks are ranges of
// image rows, counted over the whole batch.
template <void (*kRow)(const AdaptivePoolGradRow&) noexcept>
void grad_gather(const KernelArgs& args) noexcept {
  const Geometry g = grad_geometry(args);
  const auto* const grad_output = args.inputs[0].as<const float>();
  auto* const grad_input = args.outputs[0].as<float>();
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / g.rows.input, ih = i % g.rows.input;
      const std::int64_t first = g.rows.first_window(ih);
      AdaptivePoolGradRow row{};
      row.grad_output = grad_output + n * g.output_image() + first * g.output_row();
      row.scales = reinterpret_cast<const float*>(args.plan) + first * g.columns.output;
      row.rows = g.rows.end_window(ih) - first;
      row.input_width = g.columns.input, row.output_width = g.columns.output;
      row.channels = g.channels;
      row.grad_input = grad_input + i * g.input_row();
      kRow(row);
    }
  };
  parallel_ranges(args.threads, g.images * g.rows.input, chunk_items(2 * g.input_row()), body);
}

template <void (*kRow)(const AdaptivePoolGradRow&) noexcept>
Kernel make_grad(const ops::AdaptiveAvgPool2dGrad& op, const Problem& problem) {
  const Geometry g = geometry_of(problem.outputs[0], problem.inputs[0]);
  Kernel kernel = plain_kernel<grad_gather<kRow>>(op, problem);
  kernel.plan.resize(static_cast<std::size_t>(g.rows.output * g.columns.output) * sizeof(float));
  std::byte* place = kernel.plan.data();
  for (std::int64_t oh = 0; oh < g.rows.output; ++oh)
    for (std::int64_t ow = 0; ow < g.columns.output; ++ow, place += sizeof(float)) {
      const auto cells = static_cast<double>(g.rows.cells(oh) * g.columns.cells(ow));
      const auto scale = static_cast<float>(1.0 / cells);
      std::copy_n(reinterpret_cast<const std::byte*>(&scale), sizeof scale, place);
    }
  return kernel;
}

}  // namespace

template <>
struct VariantList<ops::AdaptiveAvgPool2d> {
  static constexpr Variant<ops::AdaptiveAvgPool2d> kAll[] = {
      PYCNN_IF_AVX512({"adaptive_avg_pool2d.direct.avx512", Isa::kAvx512, accept_wide,
                       plain_kernel<forward_direct<avx512::adaptive_avg_pool_row>>}, )  //
      PYCNN_IF_AVX2({"adaptive_avg_pool2d.direct.avx2", Isa::kAvx2, accept_float32,
                     plain_kernel<forward_direct<avx2::adaptive_avg_pool_row>>}, )  //
      {"adaptive_avg_pool2d.direct.baseline", Isa::kBaseline, accept_float32,
       plain_kernel<forward_direct<baseline::adaptive_avg_pool_row>>},
      {"adaptive_avg_pool2d.reference", Isa::kBaseline, accept_all,
       plain_kernel<forward_reference>}};
};
PYCNN_DEFINE_SELECT(ops::AdaptiveAvgPool2d)

template <>
struct VariantList<ops::AdaptiveAvgPool2dGrad> {
  static constexpr Variant<ops::AdaptiveAvgPool2dGrad> kAll[] = {
      PYCNN_IF_AVX512({"adaptive_avg_pool2d_grad.gather.avx512", Isa::kAvx512, accept_wide,
                       make_grad<avx512::adaptive_avg_pool_grad_row>}, )  //
      PYCNN_IF_AVX2({"adaptive_avg_pool2d_grad.gather.avx2", Isa::kAvx2, accept_float32,
                     make_grad<avx2::adaptive_avg_pool_grad_row>}, )  //
      {"adaptive_avg_pool2d_grad.gather.baseline", Isa::kBaseline, accept_float32,
       make_grad<baseline::adaptive_avg_pool_grad_row>},
      {"adaptive_avg_pool2d_grad.reference", Isa::kBaseline, accept_all,
       plain_kernel<grad_reference>}};
};
PYCNN_DEFINE_SELECT(ops::AdaptiveAvgPool2dGrad)

}  // namespace pycnn::cpu
