#include "backends/cpu/dropout.h"

#include "backends/cpu/simd.isa.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// Philox4x32-10 (core/rng.h) in 64-bit lanes, one counter a lane. Each of the four words of the
// state lives in the low half of its lane; the upper halves hold rubbish that nothing looks at,
// because the 32 x 32 bit multiplication reads low halves only. So a round is two multiplications,
// two shifts and four exclusive ors.
namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kCounters = kLanes / 2;  // counters a vector
using Words = std::uint64_t __attribute__((vector_size(kLanes * 4)));

PYCNN_INLINE Words broadcast_word(std::uint64_t x) { return x - Words{}; }

PYCNN_INLINE Words multiply_low_halves(Words a, Words b) {
#if defined(__AVX512F__)
  return (Words)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// Pairs (a, b) of the even lanes; of the odd lanes.
PYCNN_INLINE IVec even_pairs(Words a, Words b) {
#if defined(__AVX512F__)
  return (IVec)_mm512_maskz_unpacklo_epi64(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (IVec)_mm256_unpacklo_epi64((__m256i)a, (__m256i)b);
#else
  for (int i = 0; i < kCounters; i += 2) a[i + 1] = b[i];
  return (IVec)a;
#endif
}
PYCNN_INLINE IVec odd_pairs(Words a, Words b) {
#if defined(__AVX512F__)
  return (IVec)_mm512_maskz_unpackhi_epi64(0xFF, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (IVec)_mm256_unpackhi_epi64((__m256i)a, (__m256i)b);
#else
  for (int i = 0; i < kCounters; i += 2) b[i] = a[i + 1];
  return (IVec)b;
#endif
}

// The words of kCounters consecutive counters in the order of the elements: 2 * kLanes of them.
struct Draw {
  IVec first, second;
};
PYCNN_INLINE Draw draw(Words counter, std::uint64_t key, std::uint64_t step) {
  const Words m0 = broadcast_word(0xD2511F53u), m1 = broadcast_word(0xCD9E8D57u);
  Words c0 = counter, c1 = counter >> 32;
  Words c2 = broadcast_word(step), c3 = broadcast_word(step >> 32);
  auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const Words p0 = multiply_low_halves(c0, m0);
    const Words p1 = multiply_low_halves(c2, m1);
    c0 = (p1 >> 32) ^ c1 ^ broadcast_word(k0);
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ broadcast_word(k1);
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const Words low = broadcast_word(0xFFFFFFFFu);
  const Words first_two = (c0 & low) | (c1 << 32), last_two = (c2 & low) | (c3 << 32);
  return {even_pairs(first_two, last_two), odd_pairs(first_two, last_two)};
}

void apply(const DropoutChunk& chunk) {
  const Vec scale = broadcast(chunk.scale);
  const IVec below = chunk.threshold - 1 - IVec{};
  // even_pairs and odd_pairs put the even lanes first, so the first half of the counters is there.
  Words offset;
  for (int i = 0; i < kCounters; ++i)
    offset[i] = static_cast<std::uint64_t>(i % 2 * (kCounters / 2) + i / 2);
  Words counter = broadcast_word(static_cast<std::uint64_t>(chunk.first) / 4) + offset;
  auto keep = [&](IVec word, Vec x) {
    return select((IVec)((UVec)word >> 8) > below, x * scale, zero());
  };
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= chunk.n; i += 2 * kLanes) {
    const Draw words = draw(counter, chunk.key, chunk.step);
    store(chunk.output + i, keep(words.first, load(chunk.input + i)));
    store(chunk.output + i + kLanes, keep(words.second, load(chunk.input + i + kLanes)));
    counter += kCounters;
  }
  if (i == chunk.n) return;
  const Draw words = draw(counter, chunk.key, chunk.step);
  const int rest = static_cast<int>(chunk.n - i);
  const int head = rest < kLanes ? rest : kLanes;
  store_partial(chunk.output + i, keep(words.first, load_partial(chunk.input + i, head)), head);
  if (rest > kLanes) {
    i += kLanes;
    store_partial(chunk.output + i,
                  keep(words.second, load_partial(chunk.input + i, rest - kLanes)), rest - kLanes);
  }
}

}  // namespace

extern const DropoutFunctions kDropout = {apply, &kConvert};

}  // namespace pycnn::cpu::PYCNN_ISA
