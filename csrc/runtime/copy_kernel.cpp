#include "runtime/copy_kernel.h"

#include <cstring>

#include "core/parallel.h"

namespace pycnn {

void copy_kernel(const KernelArgs& args) noexcept {
  constexpr std::int64_t kGrain = std::int64_t{1} << 18;
  const TensorSpec& spec = *args.inputs[0].spec;
  std::int64_t bytes = static_cast<std::int64_t>(item_bytes(spec.dtype));
  for (const std::int64_t axis : spec.shape) bytes *= axis;
  const auto* source = args.inputs[0].as<std::byte>();
  auto* target = args.outputs[0].as<std::byte>();
  parallel_ranges(args.threads, bytes, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(target + begin, source + begin, static_cast<std::size_t>(end - begin));
  });
}

}  // namespace pycnn
