#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {
namespace {

// How many scores rank before that of `label`. Nothing ranks before or after a NaN, so such a label
// is never among the first k: the caller looks for it.
template <class T>
std::int64_t rank_of(const T* scores, std::int64_t label, std::int64_t classes) noexcept {
  const T own = scores[label];
  std::int64_t rank = 0;
  for (std::int64_t c = 0; c < label; ++c) rank += scores[c] >= own ? 1 : 0;
  for (std::int64_t c = label + 1; c < classes; ++c) rank += scores[c] > own ? 1 : 0;
  return rank;
}

template <class T>
std::int64_t count_correct(const KernelArgs& args, std::int64_t begin, std::int64_t end) noexcept {
  const std::int64_t k = op_of<ops::TopKCorrect>(args).k;
  const std::int64_t classes = args.inputs[0].dim(1);
  const bool wide = args.inputs[1].spec->dtype == DType::kInt64;
  std::int64_t correct = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t label = wide ? args.inputs[1].as<const std::int64_t>()[row]
                                    : args.inputs[1].as<const std::int32_t>()[row];
    if (label < 0 || label >= classes) continue;
    const T* scores = args.inputs[0].as<const T>() + row * classes;
    if (scores[label] != scores[label]) continue;
    if (rank_of(scores, label, classes) < k) ++correct;
  }
  return correct;
}

void scan(const KernelArgs& args) noexcept {
  const std::int64_t rows = args.inputs[0].dim(0), grain = row_grain(args.inputs[0].dim(1));
  auto* parts = reinterpret_cast<std::int64_t*>(args.scratch);
  with_float(args.inputs[0].spec->dtype, [&](auto type) {
    using T = decltype(type);
    parallel_ranges(args.threads, rows, grain, [&](std::int64_t begin, std::int64_t end) {
      parts[begin / grain] = count_correct<T>(args, begin, end);
    });
    std::int64_t correct = 0;
    for (std::int64_t i = 0; i < ceil_div(rows, grain); ++i) correct += parts[i];
    *args.outputs[0].as<T>() = static_cast<T>(correct);
  });
}

Kernel make_scan(const ops::TopKCorrect&, const Problem& problem) {
  const Shape& scores = problem.inputs[0].shape;
  const std::int64_t grain = row_grain(scores[1]);
  Kernel kernel;
  kernel.run = scan;
  kernel.scratch_bytes =
      static_cast<std::size_t>(ceil_div(scores[0], grain)) * sizeof(std::int64_t);
  return kernel;
}

}  // namespace

PYCNN_DEFINE_SINGLE_VARIANT(ops::TopKCorrect, "top_k_correct.scan", make_scan)

}  // namespace pycnn::cpu
