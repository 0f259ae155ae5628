// The module's one exported function.
#include <string>
#include <type_traits>
#include <utility>

#include "backends/cuda/device.h"
#include "backends/cuda/select.h"

namespace pycnn::cuda {
namespace {

// One kernel an op so far, named after it.
template <class OpType>
const std::string& variant_name() {
  static const std::string name = std::string(OpType::kName) + ".cuda";
  return name;
}

bool select_kernel(const Op& op, const Problem& problem, Selection& selection,
                   std::string& refusal) noexcept {
  return std::visit(
      [&](const auto& alternative) {
        using T = std::decay_t<decltype(alternative)>;
        Choice choice = select(alternative, problem);
        if (choice.run == nullptr) {
          refusal = std::string(T::kName) + ": not on cuda yet: " + choice.refusal;
          return false;
        }
        selection.kernel.variant = variant_name<T>().c_str();
        selection.kernel.run = choice.run;
        selection.kernel.scratch_bytes = choice.scratch_bytes;
        selection.kernel.in_place = std::move(choice.in_place);
        selection.kernel.plan = std::move(choice.plan);
        return true;
      },
      op);
}

std::vector<std::string> list_variants(const Op& op) noexcept {
  return std::visit(
      [](const auto& alternative) -> std::vector<std::string> {
        using T = std::decay_t<decltype(alternative)>;
        using Result = decltype(select(alternative, std::declval<const Problem&>()));
        if constexpr (std::is_same_v<Result, NoKernel>)
          return {};
        else
          return {variant_name<T>()};
      },
      op);
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
      cuda::open,
      cuda::close,
      cuda::allocate,
      cuda::release,
      cuda::free_bytes,
      cuda::copy_in,
      cuda::copy_within,
      cuda::copy_out,
      cuda::wait,
      cuda::begin_recording,
      cuda::end_recording,
      cuda::replay,
      cuda::forget,
  };
  return &module;
}
