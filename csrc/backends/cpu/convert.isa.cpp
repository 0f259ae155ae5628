#include "backends/cpu/convert.h"

#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

template <class From, class To, class F>
PYCNN_INLINE void map(const From* x, To* y, std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, f(load_partial(x + i, rest)), rest);
}

void widen(const BFloat16* x, float* y, std::int64_t n) {
  map(x, y, n, [](Vec v) { return v; });
}
void narrow(const float* x, BFloat16* y, std::int64_t n) {
  map(x, y, n, [](Vec v) { return v; });
}
void cut(const float* x, BFloat16* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const HalfVec half = __builtin_convertvector((UVec)as_int(load(x + i)) >> 16, HalfVec);
    __builtin_memcpy(y + i, &half, sizeof half);
  }
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, load_partial(x + i, rest), rest);
}
void round(const float* x, float* y, std::int64_t n) {
  map(x, y, n, [](Vec v) { return round_to_bfloat16(v); });
}

}  // namespace

extern const ConvertFunctions kConvert = {widen, narrow, cut, round};

}  // namespace pycnn::cpu::PYCNN_ISA
