#include "backends/cpu/dropout.h"

#include <cmath>

#include "backends/cpu/bfloat16_pieces.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "backends/cpu/widened.h"
#include "core/parallel.h"
#include "core/rng.h"

namespace pycnn::cpu {
namespace {

constexpr std::int64_t kGrain = 4096;
static_assert(kGrain % kDropoutBlock == 0);

std::uint64_t key_of(const KernelArgs& args) noexcept {
  return static_cast<std::uint64_t>(*args.inputs[1].as<const std::int64_t>()) ^
         static_cast<std::uint64_t>(op_of<ops::DropoutTrain>(args).stream);
}
std::uint64_t step_of(const KernelArgs& args) noexcept {
  return static_cast<std::uint64_t>(*args.inputs[2].as<const std::int64_t>());
}

void reference(const KernelArgs& args) noexcept {
  const double p = op_of<ops::DropoutTrain>(args).p;
  const Philox philox(key_of(args));
  const std::uint64_t step = step_of(args);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    const T scale = static_cast<T>(1.0 / (1.0 - p));
    const T* input = args.inputs[0].as<const T>();
    T* output = args.outputs[0].as<T>();
    parallel_ranges(args.threads, count_of(args.outputs[0]), kGrain,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t i = begin; i < end; i += 4) {
                        const auto words = philox(static_cast<std::uint64_t>(i) / 4, step);
                        for (std::int64_t j = i; j < end && j < i + 4; ++j) {
                          const auto word = words[static_cast<std::size_t>(j - i)];
                          output[j] = unit_float(word) >= p ? input[j] * scale : T(0);
                        }
                      }
                    });
  });
}

// All but the elements.
DropoutChunk common_part(const KernelArgs& args) noexcept {
  const double p = op_of<ops::DropoutTrain>(args).p;
  DropoutChunk common{};
  common.key = key_of(args);
  common.step = step_of(args);
  // k * 2^-24 >= p for whole k is k >= ceil(p * 2^24); the product is exact.
  common.threshold = static_cast<std::int32_t>(std::ceil(p * 0x1p24));
  common.scale = static_cast<float>(1.0 / (1.0 - p));
  return common;
}

DropoutChunk chunk_of(const DropoutChunk& common, const float* input, float* output,
                      std::int64_t first, std::int64_t n) noexcept {
  DropoutChunk chunk = common;
  chunk.input = input;
  chunk.output = output;
  chunk.first = first;
  chunk.n = n;
  return chunk;
}

template <const DropoutFunctions& Functions>
void run_vector(const KernelArgs& args) noexcept {
  const auto* input = args.inputs[0].as<const float>();
  auto* output = args.outputs[0].as<float>();
  const DropoutChunk common = common_part(args);
  parallel_ranges(
      args.threads, count_of(args.outputs[0]), kGrain, [&](std::int64_t begin, std::int64_t end) {
        Functions.apply(chunk_of(common, input + begin, output + begin, begin, end - begin));
      });
}

template <const DropoutFunctions& Functions>
void run_bfloat16(const KernelArgs& args) noexcept {
  static_assert(kBFloat16Piece % kDropoutBlock == 0);
  const auto* input = args.inputs[0].as<const BFloat16>();
  auto* output = args.outputs[0].as<BFloat16>();
  const DropoutChunk common = common_part(args);
  parallel_ranges(args.threads, count_of(args.outputs[0]), kGrain,
                  [&](std::int64_t begin, std::int64_t end) {
                    in_pieces(*Functions.convert, input + begin, output + begin, end - begin,
                              [&](float* values, std::int64_t i, std::int64_t n) {
                                Functions.apply(chunk_of(common, values, values, begin + i, n));
                              });
                  });
}

Kernel make_kernel(KernelFunction run) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = {0b1};
  return kernel;
}
template <const DropoutFunctions& Functions>
Kernel make_vector(const ops::DropoutTrain&, const Problem& problem) {
  return make_kernel(has_bfloat16(problem) ? run_bfloat16<Functions> : run_vector<Functions>);
}
Kernel make_reference(const ops::DropoutTrain&, const Problem&) { return make_kernel(reference); }

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::DropoutTrain, "dropout_train", accept_float32, make_vector, kDropout,
                      make_reference, Images::kAny)

}  // namespace pycnn::cpu
