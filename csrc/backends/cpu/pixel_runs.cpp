#include "backends/cpu/pixel_runs.h"

#include <algorithm>

#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

namespace pycnn::cpu {

void parallel_runs(int threads, std::initializer_list<const TensorView*> tensors,
                   FunctionRef<void(const std::int64_t* at, std::int64_t n)> body) noexcept {
  constexpr std::size_t kMost = 3;
  constexpr std::int64_t kAhead = 8;
  const TensorView* const* const views = tensors.begin();
  const std::size_t count = std::min(tensors.size(), kMost);
  const bool apart = std::any_of(views, views + count,
                                 [](const TensorView* view) { return view->pixel_pitch != 0; });
  const std::int64_t elements = count_of(*views[0]);
  if (!apart) {
    parallel_ranges(threads, elements, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t at[kMost] = {begin, begin, begin};
      body(at, end - begin);
    });
    return;
  }
  const std::int64_t channels = views[0]->spec->shape.back();
  if (elements == 0) return;
  const auto item = static_cast<std::int64_t>(item_bytes(views[0]->spec->dtype));
  auto pixels = [&](std::int64_t begin, std::int64_t end) {
    std::int64_t at[kMost] = {}, step[kMost] = {};
    for (std::size_t i = 0; i < count; ++i) {
      step[i] = views[i]->pitch();
      at[i] = begin * step[i];
    }
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      // The processor does not foresee such steps.
      if (pixel + kAhead < end)
        for (std::size_t i = 0; i < count; ++i) {
          if (views[i]->pixel_pitch == 0) continue;
          const std::byte* const next =
              views[i]->as<const std::byte>() + (at[i] + kAhead * step[i]) * item;
          for (std::int64_t byte = 0; byte < channels * item; byte += 64)
            __builtin_prefetch(next + byte);
        }
      body(at, channels);
      for (std::size_t i = 0; i < count; ++i) at[i] += step[i];
    }
  };
  parallel_ranges(threads, elements / channels, row_grain(channels), pixels);
}

}  // namespace pycnn::cpu
