#pragma once
#include "backends/cuda/device_kernel.h"

// The kernels of the CUDA module, run by the host, against the CPU's references in float64: their
// arithmetic of tiles, borders and counters, and their order of sums. What only a GPU shows (races
// within a step of a block, alignment of its accesses) is not seen here.
namespace pycnn::testing {

// Relative to the largest value of a tensor.
constexpr double kFloat32Error = 1e-5, kTf32Error = 1e-3, kBFloat16Error = 1.0 / 128,
                 kFloat16Error = 1.0 / 1024;

inline void check_close(const HostTensor& actual, const HostTensor& expected) {
  REQUIRE(actual.size() == expected.size());
  const bool tf32 = std::getenv("PYCNN_CUDA_TF32") != nullptr;
  const double error = actual.spec.dtype == DType::kBFloat16  ? kBFloat16Error
                       : actual.spec.dtype == DType::kFloat16 ? kFloat16Error
                       : tf32                                 ? kTf32Error
                                                              : kFloat32Error;
  // What float16 has no number for is half of its smallest one off.
  const double least = actual.spec.dtype == DType::kFloat16 ? 0x1p-25 : 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (std::isfinite(expected[i])) largest = std::max(largest, std::abs(expected[i]));
  int wrong = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const bool same_special = std::isnan(expected[i])
                                  ? std::isnan(actual[i])
                                  : std::isinf(expected[i]) && actual[i] == expected[i];
    if (!same_special && !(std::abs(actual[i] - expected[i]) <= error * largest + least)) {
      if (wrong++ == 0) {
        CAPTURE(i);
        CHECK(actual[i] == expected[i]);  // shows the first
      }
    }
  }
  CHECK(wrong == 0);
}

inline bool module_has_library(const Op& op) { return cuda_module().variants(op).size() > 1; }

// What the CPU's reference makes of the inputs in float64; input `keep` is float32 for it, too.
template <class OpType>
Tensors reference_of(const OpType& op, const Tensors& inputs, std::size_t keep) {
  Tensors wide;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    wide.push_back(i == keep ? inputs[i] : to_float64(inputs[i]));
  return run_kernel(op, wide, {"reference"});
}

// In both orders of threads and blocks, and with results on inputs where the kernel allows it, the
// bits are the same; they are near those of the float64 reference.
template <class OpType>
void check(const OpType& op, const Tensors& inputs, std::size_t keep = 99) {
  const std::string name = OpType::kName;
  CAPTURE(name);
  const Tensors expected = reference_of(op, inputs, keep);
  const std::vector<TensorSpec> outputs = op.infer(specs_of(inputs));
  Kernel kernel;
  const Tensors actual = run_on_device(op, inputs, outputs, {}, kernel);
  for (std::size_t o = 0; o < expected.size(); ++o) {
    CAPTURE(o);
    check_close(actual[o], expected[o]);
  }
  CHECK(same_bits(run_on_device(op, inputs, outputs, {other_device()}, kernel), actual));
  // Weights that a step of their own packed.
  if (is_emulated() && module_has_library(op)) {
    Kernel chosen;
    CHECK(same_bits(run_on_device(op, inputs, outputs, {0, -1, -1, ""}, chosen), actual));
  }
  const bool is_about_tiles = std::getenv("PYCNN_CUDA_TILE") != nullptr;
  if (!is_emulated() && module_has_library(op) && !is_about_tiles) {
    setenv("PYCNN_CUDA_DETERMINISTIC", "1", 1);  // nothing is timed
    const OnDevice how{0, -1, -1, ""};
    const Tensors library = run_on_device(op, inputs, outputs, how, kernel);
    for (std::size_t o = 0; o < expected.size(); ++o) check_close(library[o], expected[o]);
    CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), library));
    run_on_device(op, inputs, outputs, {}, kernel);  // whose places for results are tried below
  }
  for (std::size_t o = 0; o < kernel.in_place.size(); ++o)
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if ((kernel.in_place[o] >> i & 1u) == 0) continue;
      const OnDevice how{0, static_cast<int>(o), static_cast<int>(i)};
      CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), actual));
    }
  // Parts of larger images, of whole vectors and of none.
  const std::uint32_t reads = kernel.strided_inputs, writes = kernel.strided_outputs;
  for (const int gap : {8, 3}) {
    if ((reads | writes) == 0) break;
    CAPTURE(gap);
    OnDevice how;
    how.gap = gap;
    for (const auto& [apart_inputs, apart_outputs] :
         {std::pair{reads, 0u}, std::pair{0u, writes}, std::pair{reads, writes}}) {
      if ((apart_inputs | apart_outputs) == 0) continue;
      how.apart_inputs = apart_inputs;
      how.apart_outputs = apart_outputs;
      CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), actual));
    }
  }
}

// The same bits where no tensor begins at a whole vector.
template <class OpType>
void check_anywhere(const OpType& op, const Tensors& inputs) {
  check(op, inputs);
  const std::vector<TensorSpec> outputs = op.infer(specs_of(inputs));
  Kernel kernel;
  const Tensors expected = run_on_device(op, inputs, outputs, {}, kernel);
  for (const int shift : {1, 2}) {
    CAPTURE(shift);
    OnDevice how;
    how.shift = shift;
    CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), expected));
  }
}

inline HostTensor integers(const std::vector<std::int64_t>& values, DType dtype = DType::kInt64) {
  HostTensor tensor(TensorSpec{{static_cast<std::int64_t>(values.size())}, dtype});
  for (std::size_t i = 0; i < values.size(); ++i) tensor.set(i, static_cast<double>(values[i]));
  return tensor;
}

// Of bfloat16's precision, so that rounding a weight once more changes nothing.
inline HostTensor coarse(Shape shape, std::uint64_t seed) {
  return random_integers(std::move(shape), seed, 16);
}

}  // namespace pycnn::testing
