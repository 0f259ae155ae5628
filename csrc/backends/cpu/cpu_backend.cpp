#include <string_view>
#include <type_traits>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/select.h"
#include "backends/cpu/widened.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

// Recorded forms; compile/specialize_mode has replaced them before kernels are chosen.
template <class T>
constexpr bool kIsRecordedForm =
    std::is_same_v<T, ops::BatchNorm> || std::is_same_v<T, ops::Dropout>;

// Only a graph's text can ask the CPU for them, whose gradients read what they are the signs of.
bool has_signs(const Op& op) {
  const auto* const norm = std::get_if<ops::BatchNormApply>(&op);
  const auto* const grad = std::get_if<ops::Conv2dGradInput>(&op);
  return (norm != nullptr && norm->epilogue.signs) || (grad != nullptr && grad->finish.signs);
}

Selection select_kernel(const Op& op, const Problem& problem) {
  if (has_signs(op)) throw UnsupportedError("signs of a relu are kept on GPUs alone");
  return std::visit(
      [&](const auto& alternative) -> Selection {
        using T = std::decay_t<decltype(alternative)>;
        if constexpr (kIsRecordedForm<T>)
          throw InternalError(std::string(T::kName) +
                              ": reached kernel selection unspecialised; please report");
        else
          return cpu::select(alternative, problem);
      },
      op);
}

std::vector<std::string> list_variants(const Op& op) {
  return std::visit(
      [](const auto& alternative) -> std::vector<std::string> {
        if constexpr (kIsRecordedForm<std::decay_t<decltype(alternative)>>)
          return {};
        else
          return cpu::variants(alternative);
      },
      op);
}

// An image that is read again is in the cache. Merged, GoogLeNet's steps were some 2 % faster,
// which is within the noise, and took 4 % more memory; forward alone it was a draw.
bool merges_siblings(const Siblings&) { return false; }

// Whether `op` and `other` of one problem, both not the reference, have the same kernel.
template <class OpType>
bool same_kernel(const OpType& op, const Problem& problem, const OpType& other,
                 const Problem& other_problem) {
  // The name may live as long as its kernel.
  const Selection one = cpu::select(op, problem), two = cpu::select(other, other_problem);
  const std::string_view variant = one.kernel.variant;
  return !variant.ends_with(".reference") && variant == two.kernel.variant;
}

bool measures_outputs(const Op& op, const Problem& problem) {
  if (!cpu::worth_measuring(problem.outputs[0])) return false;
  if (const auto* forward = std::get_if<ops::Conv2d>(&op)) {
    // All kernels of float32 do.
    if (problem.outputs[0].dtype == DType::kFloat32) return true;
    ops::Conv2d both = *forward;
    both.epilogue.moments = true;
    return same_kernel(*forward, problem, both, problem);
  }
  const auto* gradient = std::get_if<ops::Conv2dGradInput>(&op);
  if (gradient == nullptr) return false;
  ops::Conv2dGradInput both = *gradient;
  both.sums.wanted = true;
  return same_kernel(*gradient, problem, both, problem);
}

bool finishes_gradients(const ops::Conv2dGradInput& op, const Problem& problem) {
  ops::Conv2dGradInput plain = op;
  plain.finish = {};
  Problem without = problem;
  without.inputs = problem.inputs.first(2);
  return same_kernel(plain, without, op, problem);
}

// What is widened rounds less than the ops that it is made of.
bool pools_norms(const Op& op, const Problem& problem) {
  const Selection selection = select_kernel(op, problem);
  const std::string_view variant = selection.kernel.variant;
  if (variant.find(".rows.") == variant.npos || variant.ends_with(cpu::kWidenedSuffix))
    return false;
  if (const auto* forward = std::get_if<ops::BatchNormMaxPool>(&op))
    return cpu::pools_in_bands(forward->pool, problem.inputs[0], problem.outputs[0]);
  const auto& gradient = std::get<ops::BatchNormMaxPoolGrad>(op);
  return cpu::pools_in_bands(gradient.forward.pool, problem.inputs[0], problem.inputs[6]);
}

}  // namespace

const Backend& cpu_backend() {
  static const Backend backend{"cpu",           select_kernel,    list_variants,
                               merges_siblings, measures_outputs, finishes_gradients,
                               pools_norms};
  return backend;
}

}  // namespace pycnn
