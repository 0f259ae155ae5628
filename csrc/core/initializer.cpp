// Values of fresh parameters.
//
// Element i of a tensor takes its bits from Philox block i / 4 of (seed, stream), so any part of a
// tensor can be computed by anyone. Normal values come in pairs (Box and Muller, 1958): words 0, 1
// of a block make elements 0, 1 and words 2, 3 make elements 2, 3. A truncated value that falls
// outside is drawn again from another block, numbered by the attempt in the highest byte of the
// counter.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <string>

#include "core/cpu_features.h"
#include "core/half.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "pycnn/error.h"
#include "pycnn/tensor.h"

namespace pycnn {
namespace {

constexpr int kBlock = 4;
constexpr std::int64_t kGrain = std::int64_t{1} << 15;  // a multiple of kBlock
constexpr double kCut = 2.0;
constexpr std::uint64_t kMaxAttempts = 64;

struct Block {
  double value[kBlock];
};

// In (0, 1): never 0, whose logarithm is infinite.
double open_unit(std::uint32_t bits) noexcept {
  return (static_cast<double>(bits) + 0.5) * 0x1p-32;
}

Block normal_block(const Philox& philox, std::uint64_t stream, std::uint64_t index,
                   std::uint64_t attempt) noexcept {
  const auto words = philox(index | (attempt << 56), stream);
  Block block;
  for (int pair = 0; pair < kBlock; pair += 2) {
    const double radius = std::sqrt(-2.0 * std::log(open_unit(words[pair])));
    const double angle = 2.0 * std::numbers::pi * open_unit(words[pair + 1]);
    block.value[pair] = radius * std::cos(angle);
    block.value[pair + 1] = radius * std::sin(angle);
  }
  return block;
}

Block draw(const Initializer& init, const Philox& philox, std::uint64_t stream,
           std::uint64_t index) noexcept {
  Block block{};
  switch (init.kind) {
    case Initializer::Kind::kConstant:
      for (double& value : block.value) value = init.a;
      return block;
    case Initializer::Kind::kUniform: {
      const auto words = philox(index, stream);
      for (int i = 0; i < kBlock; ++i) {
        block.value[i] = init.a + (init.b - init.a) * (static_cast<double>(words[i]) * 0x1p-32);
      }
      return block;
    }
    case Initializer::Kind::kNormal:
      block = normal_block(philox, stream, index, 0);
      break;
    case Initializer::Kind::kTruncatedNormal:
      block = normal_block(philox, stream, index, 0);
      for (int i = 0; i < kBlock; ++i) {
        for (std::uint64_t attempt = 1; std::abs(block.value[i]) > kCut && attempt < kMaxAttempts;
             ++attempt) {
          block.value[i] = normal_block(philox, stream, index, attempt).value[i];
        }
        block.value[i] = std::clamp(block.value[i], -kCut, kCut);
      }
      break;
  }
  for (double& value : block.value) value = init.a + init.b * value;
  return block;
}

void store(void* data, DType dtype, std::int64_t index, double value) noexcept {
  switch (dtype) {
    case DType::kFloat64:
      static_cast<double*>(data)[index] = value;
      break;
    case DType::kBFloat16:
      static_cast<std::uint16_t*>(data)[index] = bfloat16_from_float(static_cast<float>(value));
      break;
    case DType::kFloat16:
      static_cast<std::uint16_t*>(data)[index] = float16_from_float(static_cast<float>(value));
      break;
    default:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
  }
}

void check(const Tensor& tensor, const Initializer& init) {
  if (!tensor.defined())
    throw ArgumentError("fill: the tensor is empty; give it a shape and dtype first");
  if (!is_floating(tensor.dtype())) {
    throw DTypeError("fill: tensor " + to_string(tensor.spec()) + " is not floating-point");
  }
  if (init.kind == Initializer::Kind::kConstant) return;
  const std::string values = std::to_string(init.a) + " and " + std::to_string(init.b);
  if (!std::isfinite(init.a) || !std::isfinite(init.b)) {
    throw ArgumentError("fill: parameters must be finite, got " + values);
  }
  if (init.kind == Initializer::Kind::kUniform) {
    if (init.a > init.b) throw ArgumentError("fill: lower bound is above the upper one: " + values);
  } else if (init.b < 0) {
    throw ArgumentError("fill: standard deviation is negative: " + std::to_string(init.b));
  }
}

}  // namespace

void fill(Tensor& tensor, const Initializer& init, std::uint64_t seed, std::uint64_t stream) {
  check(tensor, init);
  void* const data = tensor.overwrite();
  const DType dtype = tensor.dtype();
  const std::int64_t size = tensor.size();
  const Philox philox(seed);
  const int threads = size > kGrain ? thread_choice().chosen : 1;
  parallel_ranges(threads, size, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += kBlock) {
      const Block block = draw(init, philox, stream, static_cast<std::uint64_t>(i / kBlock));
      const std::int64_t count = std::min<std::int64_t>(kBlock, end - i);
      for (std::int64_t j = 0; j < count; ++j) store(data, dtype, i + j, block.value[j]);
    }
  });
}

std::uint64_t stream_of(std::string_view name) noexcept {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const char letter : name)
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3u;
  return hash;
}

}  // namespace pycnn
