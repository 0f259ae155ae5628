#include <cmath>
#include <cstring>
#include <limits>

#include "backends/cpu/optimizer.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// Gradient clipping by the norm of all gradients. Each chunk of each tensor leaves its sum of
// squares, as a double, in scratch; the caller adds these in order. The chunks are those of the
// shapes, listed once at selection.
namespace pycnn::cpu {
namespace {

constexpr std::int64_t kGrain = 2 * kElementGrain;

struct Chunk {
  std::int64_t input, begin, n;
};

// A norm that is not finite gives a factor of NaN, so that a broken step shows in the loss instead
// of passing as a step of size 0. With max_norm of infinity the factor is always 1.
void store_factor(const KernelArgs& args, double sum) noexcept {
  const double norm = std::sqrt(sum), max_norm = op_of<ops::ClipFactor>(args).max_norm;
  double factor = 1.0;
  if (!std::isinf(max_norm)) {
    if (!std::isfinite(norm))
      factor = std::numeric_limits<double>::quiet_NaN();
    else if (norm > max_norm)
      factor = max_norm / norm;
  }
  with_float(args.outputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    *args.outputs[0].as<T>() = static_cast<T>(factor);
    *args.outputs[1].as<T>() = static_cast<T>(norm);
  });
}

void reference(const KernelArgs& args) noexcept {
  double sum = 0.0;
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    for (const TensorView& input : args.inputs)
      for (std::int64_t i = 0; i < count_of(input); ++i) {
        const double value = input.as<const T>()[i];
        sum += value * value;
      }
  });
  store_factor(args, sum);
}

std::vector<Chunk> chunks_of(const Problem& problem) {
  std::vector<Chunk> chunks;
  for (std::size_t input = 0; input < problem.inputs.size(); ++input) {
    const std::int64_t count = element_count(problem.inputs[input].shape);
    for (std::int64_t begin = 0; begin < count; begin += kGrain)
      chunks.push_back({static_cast<std::int64_t>(input), begin, std::min(kGrain, count - begin)});
  }
  return chunks;
}

// The plan is the number of chunks and the chunks.
template <const OptimizerFunctions& Functions>
void run_vector(const KernelArgs& args) noexcept {
  const std::int64_t count = *reinterpret_cast<const std::int64_t*>(args.plan);
  const auto* chunks = reinterpret_cast<const Chunk*>(args.plan + sizeof count);
  auto* parts = reinterpret_cast<double*>(args.scratch);
  parallel_for(args.threads, count, [=](std::int64_t i, int) {
    const Chunk& chunk = chunks[i];
    const auto* input = args.inputs[static_cast<std::size_t>(chunk.input)].as<const float>();
    parts[i] = Functions.sum_of_squares(input + chunk.begin, chunk.n);
  });
  double sum = 0.0;
  for (std::int64_t i = 0; i < count; ++i) sum += parts[i];
  store_factor(args, sum);
}

template <const OptimizerFunctions& Functions>
Kernel make_vector(const ops::ClipFactor&, const Problem& problem) {
  const std::vector<Chunk> chunks = chunks_of(problem);
  const auto count = static_cast<std::int64_t>(chunks.size());
  Kernel kernel;
  kernel.run = run_vector<Functions>;
  kernel.scratch_bytes = chunks.size() * sizeof(double);
  kernel.plan.resize(sizeof count + chunks.size() * sizeof(Chunk));
  std::memcpy(kernel.plan.data(), &count, sizeof count);
  if (!chunks.empty())
    std::memcpy(kernel.plan.data() + sizeof count, chunks.data(), chunks.size() * sizeof(Chunk));
  kernel.in_place = {0, 0};
  return kernel;
}
Kernel make_reference(const ops::ClipFactor&, const Problem&) {
  Kernel kernel;
  kernel.run = reference;
  kernel.in_place = {0, 0};
  return kernel;
}

}  // namespace

PYCNN_DEFINE_VARIANTS(ops::ClipFactor, "clip_factor", accept_float32, make_vector, kOptimizer,
                      make_reference)

}  // namespace pycnn::cpu
