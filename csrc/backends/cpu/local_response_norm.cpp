#include "backends/cpu/local_response_norm.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// ---- References: one pixel at a time, in double

struct Constants {
  std::int64_t channels, before, after;
  double alpha_over_size, beta, k;
  Constants(const ops::LocalResponseNorm& op, std::int64_t c) noexcept
      : channels(c),
        before(op.size / 2),
        after((op.size - 1) / 2),
        alpha_over_size(op.alpha / static_cast<double>(op.size)),
        beta(op.beta),
        k(op.k) {}
  template <class F>
  double window_sum(std::int64_t begin, std::int64_t last, F&& f) const noexcept {
    double sum = 0.0;
    for (std::int64_t j = std::max<std::int64_t>(begin, 0); j <= std::min(last, channels - 1); ++j)
      sum += f(j);
    return sum;
  }
  template <class T>
  double denominator(const T* x, std::int64_t c) const noexcept {
    return k + alpha_over_size * window_sum(c - before, c + after, [&](std::int64_t j) {
                 return static_cast<double>(x[j]) * static_cast<double>(x[j]);
               });
  }
};

std::int64_t pixels_of(const TensorView& view) noexcept {
  const std::int64_t channels = view.spec->shape.back();
  return channels > 0 ? count_of(view) / channels : 0;
}

void forward_reference(const KernelArgs& args) noexcept {
  const Constants lrn(op_of<ops::LocalResponseNorm>(args), args.inputs[0].spec->shape.back());
  const std::int64_t pixels = pixels_of(args.inputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* x = args.inputs[0].as<const T>();
    T* y = args.outputs[0].as<T>();
    for (std::int64_t p = 0; p < pixels; ++p, x += lrn.channels)
      for (std::int64_t c = 0; c < lrn.channels; ++c)
        *y++ = static_cast<T>(x[c] * std::pow(lrn.denominator(x, c), -lrn.beta));
  });
}

void grad_reference(const KernelArgs& args) noexcept {
  const Constants lrn(op_of<ops::LocalResponseNormGrad>(args).norm,
                      args.inputs[0].spec->shape.back());
  const std::int64_t pixels = pixels_of(args.inputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* x = args.inputs[0].as<const T>();
    const T* g = args.inputs[1].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    for (std::int64_t p = 0; p < pixels; ++p, x += lrn.channels, g += lrn.channels) {
      for (std::int64_t c = 0; c < lrn.channels; ++c) {
        const double shares = lrn.window_sum(c - lrn.after, c + lrn.before, [&](std::int64_t j) {
          return g[j] * x[j] * std::pow(lrn.denominator(x, j), -lrn.beta - 1.0);
        });
        const double direct = g[c] * std::pow(lrn.denominator(x, c), -lrn.beta);
        *grad_input++ =
            static_cast<T>(direct - 2.0 * lrn.beta * lrn.alpha_over_size * x[c] * shares);
      }
    }
  });
}

// ---- Vectors over the channels. Chunks are ranges of pixels, scratch is per worker

// A window wider than the tensor sums no more than all channels.
std::int64_t reach_before(const ops::LocalResponseNorm& op, std::int64_t channels) noexcept {
  return std::min(op.size / 2, channels);
}
std::int64_t reach_after(const ops::LocalResponseNorm& op, std::int64_t channels) noexcept {
  return std::min((op.size - 1) / 2, channels);
}

std::size_t scratch_floats(const ops::LocalResponseNorm& op, std::int64_t channels) noexcept {
  return static_cast<std::size_t>(
      kLrnRows * lrn_row_floats(channels, reach_before(op, channels), reach_after(op, channels)));
}

// `grad_output` is null in the forward direction.
template <void (*kPixels)(const LrnPixels&) noexcept>
void for_pixels(const KernelArgs& args, const ops::LocalResponseNorm& op,
                const float* grad_output) noexcept {
  const std::int64_t channels = args.inputs[0].spec->shape.back();
  const std::int64_t pixels = pixels_of(args.inputs[0]);
  const std::int64_t grain = row_grain(channels);
  const std::size_t stride = scratch_floats(op, channels);
  auto body = [&](std::int64_t chunk, int worker) {
    const std::int64_t begin = chunk * grain;
    LrnPixels p{};
    p.input = args.inputs[0].as<const float>() + begin * channels;
    if (grad_output != nullptr) p.grad_output = grad_output + begin * channels;
    p.output = args.outputs[0].as<float>() + begin * channels;
    p.pixels = std::min(grain, pixels - begin);
    p.channels = channels;
    p.before = reach_before(op, channels);
    p.after = reach_after(op, channels);
    p.alpha_over_size = static_cast<float>(op.alpha / static_cast<double>(op.size));
    p.beta = static_cast<float>(op.beta);
    p.k = static_cast<float>(op.k);
    p.scratch = reinterpret_cast<float*>(args.scratch) + static_cast<std::size_t>(worker) * stride;
    kPixels(p);
  };
  parallel_for(args.threads, ceil_div(pixels, grain), body);
}

template <void (*kPixels)(const LrnPixels&) noexcept>
void forward(const KernelArgs& args) noexcept {
  for_pixels<kPixels>(args, op_of<ops::LocalResponseNorm>(args), nullptr);
}
template <void (*kPixels)(const LrnPixels&) noexcept>
void grad(const KernelArgs& args) noexcept {
  for_pixels<kPixels>(args, op_of<ops::LocalResponseNormGrad>(args).norm,
                      args.inputs[1].as<const float>());
}

Kernel with_scratch(Kernel kernel, const ops::LocalResponseNorm& op, const Problem& problem) {
  kernel.scratch_bytes = scratch_floats(op, problem.inputs[0].shape.back()) * sizeof(float) *
                         static_cast<std::size_t>(problem.threads);
  return kernel;
}

// A pixel is read before its result is written, so outputs may replace inputs.
template <void (*kPixels)(const LrnPixels&) noexcept>
Kernel make_forward(const ops::LocalResponseNorm& op, const Problem& problem) {
  return with_scratch(plain_kernel<forward<kPixels>, 0b1>(op, problem), op, problem);
}
template <void (*kPixels)(const LrnPixels&) noexcept>
Kernel make_grad(const ops::LocalResponseNormGrad& op, const Problem& problem) {
  return with_scratch(plain_kernel<grad<kPixels>, 0b11>(op, problem), op.norm, problem);
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::LocalResponseNorm, "local_response_norm", accept_float32, make_forward,
                      lrn_forward, plain_kernel<forward_reference>)
PYCNN_DEFINE_VARIANTS(ops::LocalResponseNormGrad, "local_response_norm_grad", accept_float32,
                      make_grad, lrn_gradient, plain_kernel<grad_reference>)

}  // namespace pycnn::cpu
