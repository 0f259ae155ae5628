#include "backends/cpu/variant.h"

#include <string>
#include <utility>

#include "pycnn/error.h"

namespace pycnn::cpu {

Kernel make_plain_kernel(KernelFunction run, std::initializer_list<std::uint32_t> in_place) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = in_place;
  return kernel;
}

Selection choose_variant(const char* op, std::span<const VariantHead> heads, const Problem& problem,
                         FunctionRef<const char*(std::size_t)> accept,
                         FunctionRef<Kernel(std::size_t)> make) {
  Selection result;
  bool known = problem.pinned.empty() || problem.pinned == "reference";
  for (std::size_t i = 0; i < heads.size(); ++i) {
    const VariantHead& variant = heads[i];
    const bool last = i + 1 == heads.size();
    std::string reason;
    if (problem.pinned == variant.name) known = true;
    if (!problem.pinned.empty() && problem.pinned != variant.name &&
        !(problem.pinned == "reference" && last)) {
      reason = "another variant is pinned";
    } else if (variant.isa > problem.isa) {
      reason = std::string("needs ") + isa_name(variant.isa);
    } else if (const char* refused = accept(i)) {
      reason = refused;
    } else {
      result.kernel = make(i);
      result.kernel.variant = variant.name;
      return result;
    }
    result.refused.push_back({variant.name, std::move(reason)});
  }
  if (!known) {
    std::string names;
    for (const VariantHead& variant : heads)
      names += std::string(names.empty() ? "" : ", ") + variant.name;
    throw ArgumentError(std::string(op) + ": no variant is called '" + std::string(problem.pinned) +
                        "'; there are " + names);
  }
  std::string why;
  for (const Refusal& refusal : result.refused)
    why += "\n  " + refusal.variant + ": " + refusal.reason;
  throw UnsupportedError(std::string(op) + ": no variant accepts this problem" + why);
}

std::vector<std::string> names_of(std::span<const VariantHead> heads) {
  std::vector<std::string> names;
  for (const VariantHead& variant : heads) names.emplace_back(variant.name);
  return names;
}

}  // namespace pycnn::cpu
