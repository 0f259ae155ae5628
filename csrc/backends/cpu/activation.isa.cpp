#include "backends/cpu/activation.h"

#include "backends/cpu/math.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

template <class F>
PYCNN_INLINE void map(const float* x, float* y, std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(x + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, f(load_partial(x + i, rest)), rest);
}

template <class F>
PYCNN_INLINE void map2(const float* a, const float* b, float* y, std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, f(load(a + i), load(b + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, f(load_partial(a + i, rest), load_partial(b + i, rest)), rest);
}

PYCNN_INLINE Vec relu_passed_back(Vec out, Vec grad) {
  // Written so that a NaN output lets the incoming gradient through.
  return select(out <= zero(), zero(), grad);
}

void relu_all(const float* x, float* y, std::int64_t n, float) {
  map(x, y, n, [](Vec v) { return relu(v); });
}
void relu6_all(const float* x, float* y, std::int64_t n, float) {
  map(x, y, n, [](Vec v) { return relu6(v); });
}
void leaky_relu_all(const float* x, float* y, std::int64_t n, float slope) {
  const Vec s = broadcast(slope);
  map(x, y, n, [s](Vec v) { return leaky_relu(v, s); });
}
void sigmoid_all(const float* x, float* y, std::int64_t n, float) {
  map(x, y, n, [](Vec v) { return sigmoid(v); });
}
void tanh_all(const float* x, float* y, std::int64_t n, float) {
  map(x, y, n, [](Vec v) { return tanh(v); });
}
void scaled_tanh_all(const float* x, float* y, std::int64_t n, float) {
  map(x, y, n, [](Vec v) { return scaled_tanh(v); });
}

void relu_grad(const float* y, const float* g, float* gx, std::int64_t n, float) {
  map2(y, g, gx, n, [](Vec out, Vec grad) { return relu_passed_back(out, grad); });
}
void relu6_grad(const float* y, const float* g, float* gx, std::int64_t n, float) {
  const Vec six = broadcast(6.0f);
  map2(y, g, gx, n,
       [six](Vec out, Vec grad) { return select((out <= zero()) | (out >= six), zero(), grad); });
}
void leaky_relu_grad(const float* y, const float* g, float* gx, std::int64_t n, float slope) {
  const Vec s = broadcast(slope);
  map2(y, g, gx, n, [s](Vec out, Vec grad) { return select(out > zero(), grad, s * grad); });
}
void sigmoid_grad(const float* y, const float* g, float* gx, std::int64_t n, float) {
  map2(y, g, gx, n, [](Vec out, Vec grad) { return grad * (out * (broadcast(1.0f) - out)); });
}
void tanh_grad(const float* y, const float* g, float* gx, std::int64_t n, float) {
  map2(y, g, gx, n, [](Vec out, Vec grad) { return grad * fma(-out, out, broadcast(1.0f)); });
}
// With y = a tanh(b x): dy/dx = a b - (b / a) y^2.
void scaled_tanh_grad(const float* y, const float* g, float* gx, std::int64_t n, float) {
  const Vec slope_at_0 = broadcast(static_cast<float>(1.7159 * 2.0 / 3.0));
  const Vec curvature = broadcast(static_cast<float>(-2.0 / 3.0 / 1.7159));
  map2(y, g, gx, n,
       [=](Vec out, Vec grad) { return grad * fma(curvature * out, out, slope_at_0); });
}

// ---- Of bfloat16

void bfloat16_relu(const BFloat16* x, BFloat16* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Pair v = load_pair(x + i);
    store_pair_cut(y + i, {relu(v.first), relu(v.second)});
  }
  for (; i + kLanes <= n; i += kLanes) store_cut(y + i, relu(load(x + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, relu(load_partial(x + i, rest)), rest);
}

void bfloat16_relu_grad(const BFloat16* y, const BFloat16* g, BFloat16* gx, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Pair out = load_pair(y + i), grad = load_pair(g + i);
    store_pair_cut(gx + i, {relu_passed_back(out.first, grad.first),
                            relu_passed_back(out.second, grad.second)});
  }
  for (; i + kLanes <= n; i += kLanes)
    store_cut(gx + i, relu_passed_back(load(y + i), load(g + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(gx + i, relu_passed_back(load_partial(y + i, rest), load_partial(g + i, rest)),
                  rest);
}

}  // namespace

extern const ActivationFunctions kActivation = {
    relu_all,        relu6_all,        leaky_relu_all, sigmoid_all,        tanh_all,
    scaled_tanh_all, relu_grad,        relu6_grad,     leaky_relu_grad,    sigmoid_grad,
    tanh_grad,       scaled_tanh_grad, bfloat16_relu,  bfloat16_relu_grad, &kConvert};

}  // namespace pycnn::cpu::PYCNN_ISA
