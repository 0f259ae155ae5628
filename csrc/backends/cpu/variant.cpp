#include "backends/cpu/variant.h"

#include <algorithm>
#include <string>
#include <utility>

#include "backends/cpu/widened.h"
#include "pycnn/error.h"

namespace pycnn::cpu {

Kernel make_plain_kernel(KernelFunction run, std::initializer_list<std::uint32_t> in_place) {
  Kernel kernel;
  kernel.run = run;
  kernel.in_place = in_place;
  return kernel;
}

namespace {

constexpr const char* kOtherType = "takes images of another type";

bool takes(Images images, bool bfloat16) {
  return images == Images::kAny || (images == Images::kBFloat16) == bfloat16;
}

bool has_float16(const Problem& problem) {
  const auto is_float16 = [](const TensorSpec& spec) { return spec.dtype == DType::kFloat16; };
  return std::any_of(problem.inputs.begin(), problem.inputs.end(), is_float16) ||
         std::any_of(problem.outputs.begin(), problem.outputs.end(), is_float16);
}

// Ops that convert any type or move it about.
bool is_for_any_type(std::string_view op) {
  for (const char* name : {ops::Cast::kName, ops::Fill::kName, ops::Broadcast::kName,
                           ops::Concat::kName, ops::Slice::kName, ops::Pad::kName,
                           ops::Reshape::kName, ops::Transpose::kName, ops::Take::kName})
    if (op == name) return true;
  return false;
}

[[noreturn]] void unknown_pin(const VariantChoice& choice, std::string_view pinned) {
  std::string names;
  for (const VariantHead& variant : choice.heads)
    names += std::string(names.empty() ? "" : ", ") + variant.name;
  throw ArgumentError(std::string(choice.op) + ": no variant is called '" + std::string(pinned) +
                      "'; there are " + names);
}

// The better variants, without those that are for another type.
std::vector<Refusal> worth_telling(std::vector<Refusal> refused) {
  std::erase_if(refused, [](const Refusal& refusal) { return refusal.reason == kOtherType; });
  return refused;
}

}  // namespace

Selection choose_variant(const VariantChoice& choice, const Problem& problem) {
  if (has_float16(problem) && !is_for_any_type(choice.op))
    throw UnsupportedError(std::string(choice.op) +
                           ": float16 is computed on GPUs only\n  hint: cast it to float32 or "
                           "bfloat16 first");
  const bool bfloat16 = has_bfloat16(problem);
  std::string_view pinned = problem.pinned;
  const bool pins_widened = bfloat16 && pinned.ends_with(kWidenedSuffix);
  if (pins_widened) pinned.remove_suffix(kWidenedSuffix.size());
  bool known = pinned.empty() || pinned == "reference", widens = bfloat16;
  std::vector<Refusal> refused;
  for (std::size_t i = 0; i < choice.heads.size(); ++i) {
    const VariantHead& variant = choice.heads[i];
    const bool last = i + 1 == choice.heads.size();
    std::string reason;
    if (pinned == variant.name) {
      known = true;
      widens = widens && variant.images == Images::kFloat;
    }
    if (!takes(variant.images, bfloat16)) {
      reason = kOtherType;
    } else if (!pinned.empty() && pinned != variant.name && !(pinned == "reference" && last)) {
      reason = "another variant is pinned";
    } else if (variant.isa > problem.isa) {
      reason = std::string("needs ") + isa_name(variant.isa);
    } else if (const char* unfit = choice.accept(i, problem)) {
      reason = unfit;
    } else {
      Selection result{choice.make(i, problem), worth_telling(std::move(refused))};
      result.kernel.variant = variant.name;
      return result;
    }
    refused.push_back({variant.name, std::move(reason)});
  }
  if (!known) unknown_pin(choice, problem.pinned);
  if (widens) {
    Selection result = widen(choice.op, problem,
                             [&](const Problem& inner) { return choose_variant(choice, inner); });
    // All were refused; those that the list has behind the chosen one are not better.
    const std::string_view chosen = result.kernel.variant;
    const auto place =
        std::find_if(choice.heads.begin(), choice.heads.end(), [&](const VariantHead& head) {
          return chosen == std::string(head.name).append(kWidenedSuffix);
        });
    refused.resize(static_cast<std::size_t>(place - choice.heads.begin()));
    std::vector<Refusal> all = worth_telling(std::move(refused));
    all.insert(all.end(), result.refused.begin(), result.refused.end());
    result.refused = std::move(all);
    return result;
  }
  std::string why;
  for (const Refusal& refusal : refused) why += "\n  " + refusal.variant + ": " + refusal.reason;
  throw UnsupportedError(std::string(choice.op) + ": no variant accepts this problem" + why);
}

std::vector<std::string> names_of(std::span<const VariantHead> heads) {
  std::vector<std::string> names;
  for (const VariantHead& variant : heads) names.emplace_back(variant.name);
  return names;
}

}  // namespace pycnn::cpu
