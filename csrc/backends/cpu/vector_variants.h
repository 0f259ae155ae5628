#pragma once
#include <algorithm>

#include "backends/cpu/variant.h"

// The usual list of an element-wise op: one float32 kernel per instruction set, then the reference.
//
//   PYCNN_DEFINE_VARIANTS(ops::Add, "add", accept_float32, make_binary, kElementwise,
//                         make_binary_reference)
//
// makes "add.vector.avx512" from make_binary<avx512::kElementwise>(op, problem), and so on down to
// "add.reference", and defines select and variants of the op. Use it in namespace pycnn::cpu.
#if PYCNN_HAVE_AVX512
#define PYCNN_IF_AVX512(...) __VA_ARGS__
#else
#define PYCNN_IF_AVX512(...)
#endif
#if PYCNN_HAVE_AVX2
#define PYCNN_IF_AVX2(...) __VA_ARGS__
#else
#define PYCNN_IF_AVX2(...)
#endif

// A further argument says of the vector kernels which images they take; the reference is for
// floats.
// clang-format off
#define PYCNN_DEFINE_VARIANTS(OP, NAME, ACCEPT, MAKE, TABLE, REFERENCE, ...)                       \
  template <>                                                                                     \
  struct VariantList<OP> {                                                                        \
    static constexpr Variant<OP> kAll[] = {                                                       \
        PYCNN_IF_AVX512({NAME ".vector.avx512", Isa::kAvx512, ACCEPT,                             \
                         MAKE<avx512::TABLE> __VA_OPT__(,) __VA_ARGS__},)                         \
        PYCNN_IF_AVX2({NAME ".vector.avx2", Isa::kAvx2, ACCEPT,                                   \
                       MAKE<avx2::TABLE> __VA_OPT__(,) __VA_ARGS__},)                             \
        {NAME ".vector.baseline", Isa::kBaseline, ACCEPT,                                         \
         MAKE<baseline::TABLE> __VA_OPT__(,) __VA_ARGS__},                                        \
        {NAME ".reference", Isa::kBaseline, accept_all, REFERENCE}};                              \
  };                                                                                              \
  PYCNN_DEFINE_SELECT(OP)
// clang-format on

// An op with one kernel for all element types, bfloat16 too.
#define PYCNN_DEFINE_SINGLE_VARIANT(OP, NAME, MAKE)              \
  template <>                                                    \
  struct VariantList<OP> {                                       \
    static constexpr Variant<OP> kAll[] = {                      \
        {NAME, Isa::kBaseline, accept_all, MAKE, Images::kAny}}; \
  };                                                             \
  PYCNN_DEFINE_SELECT(OP)

#define PYCNN_DEFINE_SELECT(OP)                            \
  Selection select(const OP& op, const Problem& problem) { \
    return choose(VariantList<OP>::kAll, op, problem);     \
  }                                                        \
  std::vector<std::string> variants(const OP&) { return names_of(VariantList<OP>::kAll); }

namespace pycnn::cpu {

template <class OpType>
struct VariantList;

template <class OpType>
const OpType& op_of(const KernelArgs& args) noexcept {
  return *std::get_if<OpType>(args.op);
}

// Elements of a float tensor that make one chunk of an element-wise kernel.
constexpr std::int64_t kElementGrain = 8192;

// What an element costs that takes an exponential, where one of an addition costs 1.
constexpr std::int64_t kExponentialCost = 4;

// Rows that make one chunk.
constexpr std::int64_t row_grain(std::int64_t columns, std::int64_t cost = 1) noexcept {
  return std::max<std::int64_t>(1, kElementGrain / cost / std::max<std::int64_t>(1, columns));
}

// Cannot throw: the program that calls a kernel has allocated the tensor already.
inline std::int64_t count_of(const TensorView& view) noexcept {
  std::int64_t count = 1;
  for (std::int64_t size : view.spec->shape) count *= size;
  return count;
}

// A tensor of one floating value.
inline double scalar_of(const TensorView& view) noexcept {
  return view.spec->dtype == DType::kFloat64 ? *view.as<const double>() : *view.as<const float>();
}

}  // namespace pycnn::cpu
