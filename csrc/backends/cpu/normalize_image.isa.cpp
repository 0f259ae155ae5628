#include "backends/cpu/normalize_image.h"

#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

using Bytes = std::uint8_t __attribute__((vector_size(kLanes)));

PYCNN_INLINE Vec load_bytes(const std::uint8_t* p) {
  Bytes bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return to_float(__builtin_convertvector(bytes, IVec));
}

void from_u8(const std::uint8_t* x, const float* scale, const float* offset, float* y,
             std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(y + i, fma(load_bytes(x + i), load(scale + i), load(offset + i)));
  if (i == n) return;
  const int rest = static_cast<int>(n - i);
  std::uint8_t last[kLanes] = {};
  for (int j = 0; j < rest; ++j) last[j] = x[i + j];
  store_partial(
      y + i, fma(load_bytes(last), load_partial(scale + i, rest), load_partial(offset + i, rest)),
      rest);
}

void from_f32(const float* x, const float* scale, const float* offset, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(y + i, fma(load(x + i), load(scale + i), load(offset + i)));
  if (i == n) return;
  const int rest = static_cast<int>(n - i);
  store_partial(
      y + i,
      fma(load_partial(x + i, rest), load_partial(scale + i, rest), load_partial(offset + i, rest)),
      rest);
}

}  // namespace

extern const NormalizeImageFunctions kNormalizeImage = {from_u8, from_f32};

}  // namespace pycnn::cpu::PYCNN_ISA
