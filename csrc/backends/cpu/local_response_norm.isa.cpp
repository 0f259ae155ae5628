#include "backends/cpu/local_response_norm.h"

#include "backends/cpu/math.isa.h"
#include "backends/cpu/simd.isa.h"

// Krizhevsky et al. 2012, section 3.3. With d[c] = k + alpha/size * sum over the window of x^2:
//   y[c] = x[c] d[c]^-beta
//   dL/dx[c] = g[c] d[c]^-beta - 2 beta alpha/size x[c] * sum over the windows j that hold c of
//              g[j] x[j] d[j]^(-beta-1)
namespace pycnn::cpu::PYCNN_ISA {

using Index = std::int64_t;

// Square roots and divisions are right to half a unit in the last place, and faster than exp and
// log.
enum class Power { kHalf, kThreeQuarters, kOne, kAny };

// x * d^-beta
template <Power kPower>
PYCNN_INLINE Vec times_power(Vec x, Vec d, Vec beta) {
  if constexpr (kPower == Power::kOne) return x / d;
  if constexpr (kPower == Power::kHalf) return x / sqrt(d);
  if constexpr (kPower == Power::kThreeQuarters) {
    const Vec root = sqrt(d);
    return x / (root * sqrt(root));
  }
  return x * exp(-beta * log(d));
}

PYCNN_INLINE int lanes_at(Index c, Index channels) {
  return c + kLanes <= channels ? kLanes : static_cast<int>(channels - c);
}
PYCNN_INLINE Vec window_sum(const float* first, Index size) {
  Vec sum = load(first);
  if (size == 5) {
    for (int j = 1; j < 5; ++j) sum += load(first + j);
  } else {
    for (Index j = 1; j < size; ++j) sum += load(first + j);
  }
  return sum;
}

PYCNN_INLINE void clear(float* p, Index count) {
  for (Index i = 0; i < count; ++i) p[i] = 0.0f;
}

// squares[before + c] = x[c]^2; the lanes after the last channel become 0.
PYCNN_INLINE void square_pixel(const float* x, Index channels, float* squares) {
  for (Index c = 0; c < channels; c += kLanes) {
    const Vec v = load_lanes(x + c, lanes_at(c, channels));
    store(squares + c, v * v);
  }
}

PYCNN_INLINE Vec denominator(const LrnPixels& p, const float* squares, Index c) {
  return fma(window_sum(squares + c, p.before + p.after + 1), broadcast(p.alpha_over_size),
             broadcast(p.k));
}

template <Power kPower>
static void forward(const LrnPixels& p) noexcept {
  float* const squares = p.scratch;
  const Vec beta = broadcast(p.beta);
  clear(squares, lrn_row_floats(p.channels, p.before, p.after));
  const float* x = p.input;
  float* y = p.output;
  for (Index i = 0; i < p.pixels; ++i, x += p.channels, y += p.channels) {
    square_pixel(x, p.channels, squares + p.before);
    for (Index c = 0; c < p.channels; c += kLanes) {
      const int lanes = lanes_at(c, p.channels);
      const Vec v = times_power<kPower>(load_lanes(x + c, lanes), denominator(p, squares, c), beta);
      store_lanes(y + c, v, lanes);
    }
  }
}

template <Power kPower>
static void gradient(const LrnPixels& p) noexcept {
  const Index row = lrn_row_floats(p.channels, p.before, p.after);
  float* const squares = p.scratch;
  // g x d^(-beta-1), `after` places to the right: c lies in the windows c - after ... c + before.
  float* const shares = squares + row;
  float* const direct = shares + row;  // g d^-beta
  const Vec beta = broadcast(p.beta);
  const Vec factor = broadcast(-2.0f * p.beta * p.alpha_over_size);
  clear(squares, row);
  clear(shares, row);
  const float *x = p.input, *g = p.grad_output;
  float* grad_input = p.output;
  for (Index i = 0; i < p.pixels; ++i, x += p.channels, g += p.channels, grad_input += p.channels) {
    square_pixel(x, p.channels, squares + p.before);
    for (Index c = 0; c < p.channels; c += kLanes) {
      const int lanes = lanes_at(c, p.channels);
      const Vec d = denominator(p, squares, c);
      const Vec scaled = times_power<kPower>(load_lanes(g + c, lanes), d, beta);
      store(direct + c, scaled);
      // Lanes after the last channel must stay 0, even where d is 0 or beyond float.
      const Vec share = scaled * load_lanes(x + c, lanes) / d;
      store_lanes(shares + p.after + c, share, lanes);
    }
    for (Index c = 0; c < p.channels; c += kLanes) {
      const int lanes = lanes_at(c, p.channels);
      const Vec sum = window_sum(shares + c, p.before + p.after + 1);
      const Vec v = fma(load_lanes(x + c, lanes) * factor, sum, load(direct + c));
      store_lanes(grad_input + c, v, lanes);
    }
  }
}

void lrn_forward(const LrnPixels& p) noexcept {
  if (p.beta == 0.75f)
    forward<Power::kThreeQuarters>(p);
  else if (p.beta == 0.5f)
    forward<Power::kHalf>(p);
  else if (p.beta == 1.0f)
    forward<Power::kOne>(p);
  else
    forward<Power::kAny>(p);
}

void lrn_gradient(const LrnPixels& p) noexcept {
  if (p.beta == 0.75f)
    gradient<Power::kThreeQuarters>(p);
  else if (p.beta == 0.5f)
    gradient<Power::kHalf>(p);
  else if (p.beta == 1.0f)
    gradient<Power::kOne>(p);
  else
    gradient<Power::kAny>(p);
}

}  // namespace pycnn::cpu::PYCNN_ISA
