#include "backends/cpu/normalize_image.h"

#include "backends/cpu/simd.isa.h"
#if defined(__SSE4_1__)
#include <smmintrin.h>
#endif

namespace pycnn::cpu::PYCNN_ISA {
namespace {

// Intrinsics, since gcc 12 makes element-wise code of the conversion.
PYCNN_INLINE Vec load_bytes(const std::uint8_t* p) {
#if defined(__AVX512F__)
  return to_float((IVec)_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return to_float((IVec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#elif defined(__SSE4_1__)
  std::int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return to_float((IVec)_mm_cvtepu8_epi32(_mm_cvtsi32_si128(four)));
#else
  using Bytes = std::uint8_t __attribute__((vector_size(kLanes)));
  Bytes bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return to_float(__builtin_convertvector(bytes, IVec));
#endif
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
