#include "backends/cpu/convert.h"

#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

template <class From, class To>
void convert(const From* x, To* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) store_pair(y + i, load_pair(x + i));
  for (; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    store_lanes(y + i, load_lanes(x + i, lanes), lanes);
  }
}
void cut(const float* x, BFloat16* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) store_pair_cut(y + i, load_pair(x + i));
  for (; i + kLanes <= n; i += kLanes) store_cut(y + i, load(x + i));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, load_partial(x + i, rest), rest);
}
void round(const float* x, float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    store_lanes(y + i, round_to_bfloat16(load_lanes(x + i, lanes)), lanes);
  }
}

}  // namespace

extern const ConvertFunctions kConvert = {convert<BFloat16, float>, convert<float, BFloat16>, cut,
                                          round};

}  // namespace pycnn::cpu::PYCNN_ISA
