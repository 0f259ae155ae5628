#pragma once
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "backends/backend.h"
#include "pycnn/error.h"

// An op's kernels as data: an ordered list, best first, the reference last.
namespace pycnn::cpu {

template <class OpType>
struct Variant {
  const char* name;
  Isa isa;  // needs at least this
  // nullptr means yes, else the reason.
  const char* (*accept)(const OpType&, const Problem&);
  // Fills run, scratch, packing, in-place. `variant` is set by the caller.
  Kernel (*make)(const OpType&, const Problem&);
};

inline const char* accept_all(const auto&, const Problem&) { return nullptr; }

// The fast kernels are float32; float64 is for gradient checks, with the reference.
inline const char* accept_float32(const auto&, const Problem& problem) {
  for (const TensorSpec& spec : problem.inputs)
    if (spec.dtype == DType::kFloat64) return "float64 has the reference only";
  return nullptr;
}

// For Variant::make: a kernel without scratch or packing. The masks are Kernel::in_place.
template <KernelFunction kRun, std::uint32_t... kInPlace>
Kernel plain_kernel(const auto&, const Problem&) {
  Kernel kernel;
  kernel.run = kRun;
  kernel.in_place = {kInPlace...};
  return kernel;
}

// Takes the first variant that the ISA allows and that accepts the problem.
template <class OpType, std::size_t Count>
Selection choose(const Variant<OpType> (&list)[Count], const OpType& op, const Problem& problem) {
  Selection result;
  bool known = problem.pinned.empty() || problem.pinned == "reference";
  for (const Variant<OpType>& variant : list) {
    const bool last = &variant == &list[Count - 1];
    std::string reason;
    if (problem.pinned == variant.name) known = true;
    if (!problem.pinned.empty() && problem.pinned != variant.name &&
        !(problem.pinned == "reference" && last)) {
      reason = "another variant is pinned";
    } else if (variant.isa > problem.isa) {
      reason = std::string("needs ") + isa_name(variant.isa);
    } else if (const char* refused = variant.accept(op, problem)) {
      reason = refused;
    } else {
      result.kernel = variant.make(op, problem);
      result.kernel.variant = variant.name;
      return result;
    }
    result.refused.push_back({variant.name, std::move(reason)});
  }
  if (!known) {
    std::string names;
    for (const Variant<OpType>& variant : list)
      names += std::string(names.empty() ? "" : ", ") + variant.name;
    throw ArgumentError(std::string(OpType::kName) + ": no variant is called '" +
                        std::string(problem.pinned) + "'; there are " + names);
  }
  std::string why;
  for (const Refusal& refusal : result.refused)
    why += "\n  " + refusal.variant + ": " + refusal.reason;
  throw UnsupportedError(std::string(OpType::kName) + ": no variant accepts this problem" + why);
}

template <class OpType, std::size_t Count>
std::vector<std::string> names_of(const Variant<OpType> (&list)[Count]) {
  std::vector<std::string> names;
  for (const Variant<OpType>& variant : list) names.emplace_back(variant.name);
  return names;
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
