#include <algorithm>
#include <cmath>

#include "backends/cpu/pool.h"
#include "backends/cpu/pool_window.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Pooling of whole images: (N, H, W, C) to (N, C) and back.
namespace pycnn::cpu {
namespace {

struct Image {
  std::int64_t count, pixels, channels;
};
Image image_of(const TensorView& view) noexcept {
  return {view.dim(0), view.dim(1) * view.dim(2), view.dim(3)};
}

// ---- References

void avg_reference(const KernelArgs& args) noexcept {
  const Image g = image_of(args.inputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    for (std::int64_t n = 0; n < g.count; ++n) {
      for (std::int64_t c = 0; c < g.channels; ++c) {
        T total = 0;
        for (std::int64_t begin = 0; begin < g.pixels; begin += kPixelBlock) {
          T sum = 0;
          for (std::int64_t p = begin; p < std::min(begin + kPixelBlock, g.pixels); ++p)
            sum += input[(n * g.pixels + p) * g.channels + c];
          total += sum;
        }
        output[n * g.channels + c] = total / static_cast<T>(g.pixels);
      }
    }
  });
}

void avg_grad_reference(const KernelArgs& args) noexcept {
  const Image g = image_of(args.outputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* grad_output = args.inputs[0].as<const T>();
    T* grad_input = args.outputs[0].as<T>();
    for (std::int64_t n = 0; n < g.count; ++n)
      for (std::int64_t p = 0; p < g.pixels; ++p)
        for (std::int64_t c = 0; c < g.channels; ++c)
          *grad_input++ = grad_output[n * g.channels + c] / static_cast<T>(g.pixels);
  });
}

// First largest pixel, or first NaN.
template <class T>
std::int64_t winning_pixel(const T* image, const Image& g, std::int64_t c) noexcept {
  std::int64_t winner = 0;
  for (std::int64_t p = 1; p < g.pixels; ++p) {
    const T x = image[p * g.channels + c], best = image[winner * g.channels + c];
    if (x > best || (std::isnan(x) && !std::isnan(best))) winner = p;
  }
  return winner;
}

void max_reference(const KernelArgs& args) noexcept {
  const Image g = image_of(args.inputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* image = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    for (std::int64_t n = 0; n < g.count; ++n, image += g.pixels * g.channels)
      for (std::int64_t c = 0; c < g.channels; ++c)
        *output++ = image[winning_pixel(image, g, c) * g.channels + c];
  });
}

void max_grad_reference(const KernelArgs& args) noexcept {
  const Image g = image_of(args.inputs[0]);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T* image = args.inputs[0].as<const T>();
    const T* grad_output = args.inputs[1].as<const T>();
    T* grad = args.outputs[0].as<T>();
    const std::int64_t size = g.pixels * g.channels;
    for (std::int64_t n = 0; n < g.count; ++n, image += size, grad += size) {
      std::fill_n(grad, size, T(0));
      for (std::int64_t c = 0; c < g.channels; ++c)
        grad[winning_pixel(image, g, c) * g.channels + c] = *grad_output++;
    }
  });
}

// ---- Vectors over the channels. Chunks are images, cut into blocks of channels.

constexpr std::int64_t kBlock = 256;

// `input` and `grad_output` may be null; `output` is of images when kGrad, else pooled.
template <void (*kImage)(const GlobalPool&) noexcept, bool kGrad>
void for_images(const KernelArgs& args, const Image& g, const float* input,
                const float* grad_output) noexcept {
  auto* const output = args.outputs[0].as<float>();
  const std::int64_t blocks = ceil_div(g.channels, kBlock);
  auto body = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / blocks, c = i % blocks * kBlock;
      const std::int64_t pooled = n * g.channels + c, image = n * g.pixels * g.channels + c;
      GlobalPool p{};
      if (input != nullptr) {
        p.input = input + image;
        p.input_end = input + g.count * g.pixels * g.channels;
      }
      p.pixels = g.pixels;
      p.channels = g.channels;
      p.count = std::min(kBlock, g.channels - c);
      if (grad_output != nullptr) p.grad_output = grad_output + pooled;
      p.output = output + (kGrad ? image : pooled);
      kImage(p);
    }
  };
  parallel_ranges(args.threads, g.count * blocks,
                  chunk_items(g.pixels * std::min(kBlock, g.channels)), body);
}

template <void (*kImage)(const GlobalPool&) noexcept>
void forward(const KernelArgs& args) noexcept {
  for_images<kImage, false>(args, image_of(args.inputs[0]), args.inputs[0].as<const float>(),
                            nullptr);
}
template <void (*kImage)(const GlobalPool&) noexcept>
void avg_grad(const KernelArgs& args) noexcept {
  for_images<kImage, true>(args, image_of(args.outputs[0]), nullptr,
                           args.inputs[0].as<const float>());
}
template <void (*kImage)(const GlobalPool&) noexcept>
void max_grad(const KernelArgs& args) noexcept {
  for_images<kImage, true>(args, image_of(args.inputs[0]), args.inputs[0].as<const float>(),
                           args.inputs[1].as<const float>());
}

// Pixels are counted in 32 bits, and there must be one.
const char* accept_pixels(const TensorSpec& image) {
  const std::int64_t pixels = image.shape[1] * image.shape[2];
  if (pixels < 1) return "the image is empty";
  return pixels >> 30 > 0 ? "the image has too many pixels" : nullptr;
}
template <class OpType>
const char* accept_input(const OpType& op, const Problem& p) {
  if (const char* refused = accept_pixels(p.inputs[0])) return refused;
  return accept_float32(op, p);
}
const char* accept_output(const ops::GlobalAvgPool2dGrad& op, const Problem& p) {
  if (const char* refused = accept_pixels(p.outputs[0])) return refused;
  return accept_float32(op, p);
}

}  // namespace

// clang-format off
#define PYCNN_GLOBAL_POOL(OP, NAME, ACCEPT, RUN, KERNEL, REFERENCE)                               \
  template <>                                                                                     \
  struct VariantList<OP> {                                                                        \
    static constexpr Variant<OP> kAll[] = {                                                       \
        PYCNN_IF_AVX512({NAME ".direct.avx512", Isa::kAvx512, ACCEPT,                             \
                         plain_kernel<RUN<avx512::KERNEL>>},)                                     \
        PYCNN_IF_AVX2({NAME ".direct.avx2", Isa::kAvx2, ACCEPT, plain_kernel<RUN<avx2::KERNEL>>},)\
        {NAME ".direct.baseline", Isa::kBaseline, ACCEPT, plain_kernel<RUN<baseline::KERNEL>>},   \
        {NAME ".reference", Isa::kBaseline, accept_all, plain_kernel<REFERENCE>}};                \
  };                                                                                              \
  PYCNN_DEFINE_SELECT(OP)
// clang-format on

PYCNN_GLOBAL_POOL(ops::GlobalAvgPool2d, "global_avg_pool2d", accept_input, forward, global_avg_pool,
                  avg_reference)
PYCNN_GLOBAL_POOL(ops::GlobalAvgPool2dGrad, "global_avg_pool2d_grad", accept_output, avg_grad,
                  global_avg_pool_grad, avg_grad_reference)
PYCNN_GLOBAL_POOL(ops::GlobalMaxPool2d, "global_max_pool2d", accept_input, forward, global_max_pool,
                  max_reference)
PYCNN_GLOBAL_POOL(ops::GlobalMaxPool2dGrad, "global_max_pool2d_grad", accept_input, max_grad,
                  global_max_pool_grad, max_grad_reference)
#undef PYCNN_GLOBAL_POOL

}  // namespace pycnn::cpu
