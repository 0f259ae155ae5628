#include "backends/cpu/batch_norm_max_pool.h"

#include "backends/cpu/batch_norm_bend.isa.h"
#include "backends/cpu/pool_winners.isa.h"

namespace pycnn::cpu::PYCNN_ISA {

#if defined(__AVX512F__)
namespace {

using batch_norm::Bend;

// 32 channels: those with even numbers, and those with odd ones.
struct Sorted {
  Vec even, odd;
};

PYCNN_INLINE Sorted sorted(const float* p) { return {load(p), load(p + kLanes)}; }
PYCNN_INLINE void put(float* p, const Sorted& v) { store(p, v.even), store(p + kLanes, v.odd); }
PYCNN_INLINE Sorted widened(__m512i words) {
  return {as_float((IVec)((UVec)words << 16)), as_float((IVec)((UVec)words & 0xFFFF0000u))};
}
PYCNN_INLINE __m512i narrowed(Vec even, Vec odd) {
  return (__m512i)((rounded_bits(even) >> 16) | (rounded_bits(odd) & 0xFFFF0000u));
}

// ---- Keys

template <Bend kBend>
void keys_of_row(const NormedKeys& r) noexcept {
  const Rectifier bend = kBend == Bend::kNone ? Rectifier{} : *r.rectifier;
  for (Index c = 0; c < r.pitch; c += 32) {
    const __mmask32 mask = mask_of_32(r.channels - c);
    const Sorted mean = sorted(r.norm.mean + c), factor = sorted(r.norm.factor + c);
    const Sorted offset = sorted(r.norm.offset + c);
    Sorted lost = sorted(r.lost + c);
    const BFloat16* input = r.input + c;
    std::int16_t* keys = r.keys + c;
    for (Index p = 0; p < r.pixels; ++p, input += r.channels, keys += r.pitch) {
      __builtin_prefetch(input + r.pixels * r.channels);  // of the next row
      const Sorted x = widened(_mm512_maskz_loadu_epi16(mask, input));
      const Vec even = x.even - mean.even, odd = x.odd - mean.odd;
      lost.even = fma(even, zero(), lost.even), lost.odd = fma(odd, zero(), lost.odd);
      const __m512i y =
          narrowed(batch_norm::activated<kBend>(fma(even, factor.even, offset.even), bend),
                   batch_norm::activated<kBend>(fma(odd, factor.odd, offset.odd), bend));
      _mm512_storeu_si512(keys, keys_of(y));
    }
    put(r.lost + c, lost);
  }
}

// ---- Sums

template <Bend kBend>
PYCNN_INLINE void add_windows(const WinnerSums& r, Index begin, Index end) {
  const PoolColumns& g = *r.columns;
  const Rectifier bend = kBend == Bend::kNone ? Rectifier{} : r.gate->rectifier;
  for (Index c = 0; c < r.pitch; c += 32) {
    const __mmask32 mask = mask_of_32(r.channels - c);
    const Sorted mean = sorted(r.mean + c);
    Sorted factor = {}, offset = {};
    if constexpr (kBend != Bend::kNone)
      factor = sorted(r.gate->factor + c), offset = sorted(r.gate->offset + c);
    Sorted sum = sorted(r.sum + c), product = sorted(r.product + c);
    for (Index ow = begin; ow < end; ++ow) {
      const Sorted x = widened(load_32(r.values + ow * r.pitch + c));
      Sorted grad =
          widened(_mm512_maskz_loadu_epi16(mask, r.grad_output + ow * g.output_pitch + c));
      const Vec even = x.even - mean.even, odd = x.odd - mean.odd;
      if constexpr (kBend != Bend::kNone) {
        grad.even =
            batch_norm::passed_back<kBend>(grad.even, fma(even, factor.even, offset.even), bend);
        grad.odd = batch_norm::passed_back<kBend>(grad.odd, fma(odd, factor.odd, offset.odd), bend);
      }
      sum.even += grad.even, sum.odd += grad.odd;
      product.even = fma(grad.even, even, product.even);
      product.odd = fma(grad.odd, odd, product.odd);
    }
    put(r.sum + c, sum), put(r.product + c, product);
  }
}

template <Bend kBend>
void sums_of_row(const WinnerSums& r) noexcept {
  const PoolColumns& g = *r.columns;
  const auto edge = [&](Index begin, Index end) __attribute__((always_inline)) {
    for (Index ow = begin; ow < end; ++ow)
      if (taps_of_column(g, ow).begin < taps_of_column(g, ow).end)
        add_windows<kBend>(r, ow, ow + 1);
  };
  edge(0, g.interior_begin);
  add_windows<kBend>(r, g.interior_begin, g.interior_end);
  edge(g.interior_end, g.output_width);
}

// ---- The input's gradient

// As give_pixels of the pool. COUNT: how many windows hold each of these pixels, or 0.
template <int COUNT, Bend kBend>
void normed_pixels(const NormedGradOfRow& r, const Holders& holders, Index iw,
                   Index pixels) noexcept {
  const MaxPoolGradOfRow& pool = r.pool;
  const PoolColumns& g = *pool.columns;
  const Rectifier bend = kBend == Bend::kNone ? Rectifier{} : r.gate->rectifier;
  const int count = COUNT > 0 ? COUNT : holders.count;
  const Vec first = broadcast(pool.disjoint && count > 0 ? -0.0f : 0.0f);
  const Index step = g.stride * g.input_pitch;
  for (Index ch = 0; ch < pool.channel_count; ch += 32) {
    const __mmask32 mask = mask_of_32(pool.channel_count - ch);
    const Sorted mean = sorted(r.mean + ch), a = sorted(r.a + ch), b = sorted(r.b + ch);
    const Sorted c = sorted(r.c + ch);
    Sorted factor = {}, offset = {};
    if constexpr (kBend != Bend::kNone)
      factor = sorted(r.gate->factor + ch), offset = sorted(r.gate->offset + ch);
    const BFloat16* from = r.input + iw * g.input_pitch + ch;
    const BFloat16* fetch = pool.fetch ? pool.fetch + iw * g.input_pitch + ch : nullptr;
    BFloat16* to = pool.grad_input + iw * g.input_pitch + ch;
    Index winners = ch, grads = ch;
    for (Index p = 0; p < pixels; ++p) {
      if (fetch) __builtin_prefetch(fetch + p * step, 1);
      Vec even = first, odd = first;
#pragma GCC unroll 4
      for (int i = 0; i < count; ++i) {
        const __mmask32 won = _mm512_mask_cmpeq_epi16_mask(
            mask, load_32(holders.winners[i] + winners), broadcast_16(holders.taps[i]));
        const Sorted grad = widened(_mm512_maskz_loadu_epi16(won, holders.grads[i] + grads));
        even += grad.even, odd += grad.odd;
      }
      const Sorted x = widened(_mm512_maskz_loadu_epi16(mask, from));
      const Vec x_even = x.even - mean.even, x_odd = x.odd - mean.odd;
      if constexpr (kBend != Bend::kNone) {
        even = batch_norm::passed_back<kBend>(even, fma(x_even, factor.even, offset.even), bend);
        odd = batch_norm::passed_back<kBend>(odd, fma(x_odd, factor.odd, offset.odd), bend);
      }
      even = fma(a.even, even, fma(b.even, x_even, c.even));
      odd = fma(a.odd, odd, fma(b.odd, x_odd, c.odd));
      _mm512_mask_storeu_epi16(to, mask, narrowed(even, odd));
      from += step, to += step, winners += pool.pitch, grads += g.output_pitch;
    }
  }
}

template <Bend kBend>
void normed_row(const NormedGradOfRow& r) noexcept {
  for_like_pixels(
      *r.pool.columns, [&](Index iw, Index pixels) __attribute__((always_inline)) {
        Holders holders;
        find_holders(r.pool, iw, &holders);
        if (holders.count == 1)
          normed_pixels<1, kBend>(r, holders, iw, pixels);
        else if (holders.count == 2)
          normed_pixels<2, kBend>(r, holders, iw, pixels);
        else if (holders.count == 4)
          normed_pixels<4, kBend>(r, holders, iw, pixels);
        else
          normed_pixels<0, kBend>(r, holders, iw, pixels);
      });
}

}  // namespace

void normed_keys(const NormedKeys& r) noexcept {
  if (r.rectifier == nullptr)
    keys_of_row<Bend::kNone>(r);
  else if (r.rectifier->form == Rectifier::Form::kRelu)
    keys_of_row<Bend::kRelu>(r);
  else
    keys_of_row<Bend::kAny>(r);
}

void winner_sums(const WinnerSums& r) noexcept {
  if (r.gate == nullptr)
    sums_of_row<Bend::kNone>(r);
  else if (r.gate->rectifier.form == Rectifier::Form::kRelu)
    sums_of_row<Bend::kRelu>(r);
  else if (r.gate->rectifier.form == Rectifier::Form::kLeakyRelu)
    sums_of_row<Bend::kLeakyRelu>(r);
  else
    sums_of_row<Bend::kAny>(r);
}

void normed_grad_of_row(const NormedGradOfRow& r) noexcept {
  if (r.gate == nullptr)
    normed_row<Bend::kNone>(r);
  else if (r.gate->rectifier.form == Rectifier::Form::kRelu)
    normed_row<Bend::kRelu>(r);
  else if (r.gate->rectifier.form == Rectifier::Form::kLeakyRelu)
    normed_row<Bend::kLeakyRelu>(r);
  else
    normed_row<Bend::kAny>(r);
}
#endif

}  // namespace pycnn::cpu::PYCNN_ISA
