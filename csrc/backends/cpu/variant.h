#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "core/function_ref.h"

// An op's kernels as data: an ordered list, best first, the reference last.
namespace pycnn::cpu {

// Element types of images that a variant takes.
enum class Images : std::uint8_t {
  kFloat,     // float32, float64
  kBFloat16,  // bfloat16 beside float32 parameters
  kAny,
};

template <class OpType>
struct Variant {
  const char* name;
  Isa isa;  // needs at least this
  // nullptr means yes, else the reason.
  const char* (*accept)(const OpType&, const Problem&);
  // Fills run, scratch, packing, in-place. `variant` is set by the caller.
  Kernel (*make)(const OpType&, const Problem&);
  Images images = Images::kFloat;
};

inline const char* accept_all(const auto&, const Problem&) { return nullptr; }

// The fast kernels are for float32, some for bfloat16; float64, to check gradients, for none.
inline const char* accept_float32(const auto&, const Problem& problem) {
  for (const TensorSpec& spec : problem.inputs)
    if (spec.dtype == DType::kFloat64) return "float64 has the reference only";
  return nullptr;
}

Kernel make_plain_kernel(KernelFunction run, std::initializer_list<std::uint32_t> in_place);

// For Variant::make: a kernel without scratch or packing. The masks are Kernel::in_place.
template <KernelFunction kRun, std::uint32_t... kInPlace>
Kernel plain_kernel(const auto&, const Problem&) {
  return make_plain_kernel(kRun, {kInPlace...});
}

// What of a variant does not depend on the op's type, so that choosing is compiled once for all.
struct VariantHead {
  const char* name;
  Isa isa;
  Images images;
};

// An op's list with variant i behind its number.
struct VariantChoice {
  const char* op;
  std::span<const VariantHead> heads;
  FunctionRef<const char*(std::size_t, const Problem&)> accept;
  FunctionRef<Kernel(std::size_t, const Problem&)> make;
};

// Takes the first variant that the ISA allows and that accepts the problem. Where none takes
// bfloat16, the one for float32 is widened (widened.h).
Selection choose_variant(const VariantChoice& choice, const Problem& problem);
std::vector<std::string> names_of(std::span<const VariantHead> heads);

template <class OpType, std::size_t Count>
constexpr std::array<VariantHead, Count> heads_of(const Variant<OpType> (&list)[Count]) {
  std::array<VariantHead, Count> heads{};
  for (std::size_t i = 0; i < Count; ++i) heads[i] = {list[i].name, list[i].isa, list[i].images};
  return heads;
}

template <class OpType, std::size_t Count>
Selection choose(const Variant<OpType> (&list)[Count], const OpType& op, const Problem& problem) {
  const auto heads = heads_of(list);
  return choose_variant(
      {OpType::kName, heads, [&](std::size_t i, const Problem& p) { return list[i].accept(op, p); },
       [&](std::size_t i, const Problem& p) { return list[i].make(op, p); }},
      problem);
}

template <class OpType, std::size_t Count>
std::vector<std::string> names_of(const Variant<OpType> (&list)[Count]) {
  return names_of(heads_of(list));
}

// Calls `f` with a value of the C++ type of a floating dtype: the reference kernels run in both.
template <class F>
void with_float(DType dtype, F&& f) {
  if (dtype == DType::kFloat64)
    f(double{});
  else
    f(float{});
}

}  // namespace pycnn::cpu
