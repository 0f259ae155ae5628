// The module's one exported function.
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "backends/cuda/device.h"
#include "backends/cuda/ranges.h"
#include "backends/cuda/select.h"

namespace pycnn::cuda {
namespace {

// Our own kernel of an op is named after it.
template <class OpType>
const std::string& own_name() {
  static const std::string name = std::string(OpType::kName) + ".cuda";
  return name;
}

// Best first.
template <class OpType>
std::vector<std::string> names_of() {
  using Result = decltype(select(std::declval<const OpType&>(), std::declval<const Problem&>()));
  std::vector<std::string> names;
  if constexpr (kLibrary<OpType> != nullptr) names.emplace_back(kLibrary<OpType>);
  if constexpr (kProductLibrary<OpType> != nullptr) names.emplace_back(kProductLibrary<OpType>);
  if constexpr (!std::is_same_v<Result, NoKernel>) names.push_back(own_name<OpType>());
  return names;
}

// Empty, or that the pin names none of them. "reference" is our own kernel.
template <class OpType>
std::string unknown_pin(std::string_view pinned) {
  if (pinned.empty() || pinned == "reference") return {};
  std::string known;
  for (const std::string& name : names_of<OpType>()) {
    if (name == pinned) return {};
    known += (known.empty() ? "" : ", ") + name;
  }
  return std::string(OpType::kName) + ": no kernel '" + std::string(pinned) +
         "' on cuda, there is " + (known.empty() ? "none" : known);
}

void take(Choice&& choice, const char* variant, Kernel& kernel) {
  kernel.variant = *choice.variant != '\0' ? choice.variant : variant;
  kernel.run = choice.run;
  kernel.scratch_bytes = choice.scratch_bytes;
  kernel.in_place = std::move(choice.in_place);
  kernel.plan = std::move(choice.plan);
  kernel.state = std::move(choice.state);
  kernel.packed = choice.packed;
  kernel.packed_bias = choice.packed_bias;
  kernel.strided_inputs = choice.strided_inputs;
  kernel.strided_outputs = choice.strided_outputs;
  kernel.alignment = choice.alignment;
  kernel.join = choice.join;
  kernel.absorb = choice.absorb;
  kernel.output_pitch = choice.output_pitch;
  kernel.apart_variant = choice.apart_variant;
  kernel.rounds = choice.rounds;
  kernel.widened_from = choice.widened_from;
  kernel.takes_narrow_gradient = choice.takes_narrow_gradient;
}

// The kernel of a library that is wanted: the pinned one, else the best. Null: none is.
template <class OpType>
const char* wanted_library(std::string_view pinned) {
  for (const char* const name : {kLibrary<OpType>, kProductLibrary<OpType>})
    if (name != nullptr && (pinned.empty() || pinned == name)) return name;
  return nullptr;
}

// Whether the library's kernel was taken, which is `name` or another one; if not, `reason` says why
// not.
template <class OpType>
bool take_library(int device, const OpType& op, const Problem& problem, const char* name,
                  Selection& selection, std::string& reason) {
  Choice choice = select_library(device, op, problem);
  selection.missing = std::move(choice.missing);
  if (choice.run != nullptr) {
    if (*choice.left_out != '\0')
      selection.refused.push_back({name + std::string(" in full"), choice.left_out});
    take(std::move(choice), name, selection.kernel);
    return true;
  }
  reason = choice.refusal;
  selection.refused.push_back({name, reason});
  return false;
}

bool select_kernel(int device, const Op& op, const Problem& problem, Selection& selection,
                   std::string& refusal) noexcept {
  return std::visit(
      [&](const auto& alternative) {
        using T = std::decay_t<decltype(alternative)>;
        refusal = unknown_pin<T>(problem.pinned);
        if (!refusal.empty()) return false;
        Choice own = select(alternative, problem);
        if (own.run == nullptr) {
          refusal = std::string(T::kName) + ": not on cuda yet: " + own.refusal;
          return false;
        }
        if constexpr (kLibrary<T> != nullptr) {
          const char* const name = wanted_library<T>(problem.pinned);
          std::string reason;
          if (name != nullptr &&
              take_library(device, alternative, problem, name, selection, reason))
            return true;
          if (name != nullptr && !problem.pinned.empty()) {
            refusal = std::string(T::kName) + ": '" + name + "' cannot be had: " + reason;
            return false;
          }
        }
        take(std::move(own), own_name<T>().c_str(), selection.kernel);
        return true;
      },
      op);
}

std::vector<std::string> list_variants(const Op& op) noexcept {
  return std::visit(
      [](const auto& alternative) { return names_of<std::decay_t<decltype(alternative)>>(); }, op);
}

}  // namespace
}  // namespace pycnn::cuda

extern "C" __attribute__((visibility("default"))) const pycnn::DeviceModule* pycnn_device_module() {
  namespace cuda = pycnn::cuda;
  static const pycnn::DeviceModule module = {
      pycnn::device_module_head(PYCNN_VERSION),
      cuda::probe,
      cuda::select_kernel,
      cuda::list_variants,
      cuda::merges_siblings,
      cuda::measures_outputs,
      cuda::open,
      cuda::close,
      cuda::enter,
      cuda::leave,
      cuda::allocate,
      cuda::release,
      cuda::free_bytes,
      cuda::allocate_host,
      cuda::release_host,
      cuda::copy_in,
      cuda::copy_within,
      cuda::copy_out,
      cuda::wait,
      cuda::has_failed,
      cuda::use_lane,
      cuda::make_event,
      cuda::forget_event,
      cuda::mark,
      cuda::follow,
      cuda::wait_for,
      cuda::elapsed_us,
      cuda::begin_recording,
      cuda::end_recording,
      cuda::replay,
      cuda::forget,
      cuda::begin_range,
      cuda::end_range,
  };
  return &module;
}
