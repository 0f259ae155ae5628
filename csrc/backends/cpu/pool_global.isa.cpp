#include "backends/cpu/pool.isa.h"

namespace pycnn::cpu::PYCNN_ISA {

PYCNN_INLINE Vec mean_of_pixels(const GlobalPool& p, Index c, int lanes, bool spill) {
  const float* x = p.input + c;
  Vec total = zero();
  for (Index begin = 0; begin < p.pixels; begin += kPixelBlock) {
    const Index end = begin + kPixelBlock < p.pixels ? begin + kPixelBlock : p.pixels;
    Vec sum = zero();
    for (Index i = begin; i < end; ++i, x += p.channels)
      sum += spill && p.input_end - x >= kLanes ? load(x) : load_lanes(x, lanes);
    total += sum;
  }
  return total / broadcast(static_cast<float>(p.pixels));
}

void global_avg_pool(const GlobalPool& p) noexcept {
  Index c = 0;
  for (; c + kLanes <= p.count; c += kLanes)
    store(p.output + c, mean_of_pixels(p, c, kLanes, false));
  if (c < p.count) {
    const int lanes = static_cast<int>(p.count - c);
    store_partial(p.output + c, mean_of_pixels(p, c, lanes, true), lanes);
  }
}

// The first pixel is computed, the others are copies of it, written in the order of the memory.
void global_avg_pool_grad(const GlobalPool& p) noexcept {
  const Vec pixels = broadcast(static_cast<float>(p.pixels));
  const Index whole = p.count / kLanes * kLanes;
  const int lanes = static_cast<int>(p.count - whole);
  for (Index i = 0; i < p.pixels; ++i) {
    float* const cell = p.output + i * p.channels;
    if (i == 0) {
      for (Index c = 0; c < whole; c += kLanes) store(cell + c, load(p.grad_output + c) / pixels);
      if (lanes > 0)
        store_partial(cell + whole, load_partial(p.grad_output + whole, lanes) / pixels, lanes);
      continue;
    }
    for (Index c = 0; c < whole; c += kLanes) store(cell + c, load(p.output + c));
    if (lanes > 0) store_partial(cell + whole, load_partial(p.output + whole, lanes), lanes);
  }
}

PYCNN_INLINE IVec winning_pixel(const GlobalPool& p, Index c, int lanes, bool spill, Vec* value) {
  const float* x = p.input + c;
  Vec best = load_lanes(x, lanes);
  IVec index = {};
  for (Index i = 1; i < p.pixels; ++i) {
    x += p.channels;
    const Vec candidate = spill && p.input_end - x >= kLanes ? load(x) : load_lanes(x, lanes);
    const Mask mask = beats(candidate, best);
    best = choose(mask, candidate, best);
    index = choose(mask, broadcast_index(static_cast<int>(i)), index);
  }
  *value = best;
  return index;
}

void global_max_pool(const GlobalPool& p) noexcept {
  for (Index c = 0; c < p.count; c += kLanes) {
    const bool full = c + kLanes <= p.count;
    const int lanes = full ? kLanes : static_cast<int>(p.count - c);
    Vec best;
    winning_pixel(p, c, lanes, !full, &best);
    store_lanes(p.output + c, best, lanes);
  }
}

void global_max_pool_grad(const GlobalPool& p) noexcept {
  for (Index c = 0; c < p.count; c += kLanes) {
    const bool full = c + kLanes <= p.count;
    const int lanes = full ? kLanes : static_cast<int>(p.count - c);
    Vec best;
    const IVec index = winning_pixel(p, c, lanes, !full, &best);
    const Vec g = load_lanes(p.grad_output + c, lanes);
    float* cell = p.output + c;
    for (Index i = 0; i < p.pixels; ++i, cell += p.channels)
      store_lanes(cell, where_equal(index, broadcast_index(static_cast<int>(i)), g), lanes);
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
