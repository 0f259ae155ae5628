#include "backends/cpu/elementwise.h"

#include "backends/cpu/simd.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

struct Sum {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return a + b; }
};
struct Difference {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return a - b; }
};
struct Product {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return a * b; }
};
struct Quotient {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return a / b; }
};
struct Maximum {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return select((a > b) | (a != a), a, b); }
};
struct Minimum {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return select((a < b) | (a != a), a, b); }
};
struct Power {
  PYCNN_INLINE Vec apply(Vec a, Vec b) {
    for (int i = 0; i < kLanes; ++i) a[i] = __builtin_powf(a[i], b[i]);
    return a;
  }
};
struct Prelu {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return select(a > zero(), a, b * a); }
};
struct PreluSlope {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return select(a > zero(), broadcast(1.0f), b); }
};
struct Equal {
  PYCNN_INLINE Vec apply(Vec a, Vec b) { return select(a == b, broadcast(1.0f), zero()); }
};
struct Step {
  PYCNN_INLINE Vec apply(Vec a, Vec b) {
    return select(a > b, broadcast(1.0f), select(a == b, broadcast(0.5f), zero()));
  }
};

template <class F>
void arrays(const float* a, const float* b, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, F::apply(load(a + i), load(b + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, F::apply(load_partial(a + i, rest), load_partial(b + i, rest)), rest);
}

template <class F>
void bfloat16_arrays(const BFloat16* a, const BFloat16* b, BFloat16* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Pair p = load_pair(a + i), q = load_pair(b + i);
    store_pair(y + i, {F::apply(p.first, q.first), F::apply(p.second, q.second)});
  }
  for (; i < n; i += kLanes) {
    const int lanes = n - i < kLanes ? static_cast<int>(n - i) : kLanes;
    store_lanes(y + i, F::apply(load_lanes(a + i, lanes), load_lanes(b + i, lanes)), lanes);
  }
}

template <class F>
void array_scalar(const float* a, float b, float* y, std::int64_t n) {
  const Vec second = broadcast(b);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, F::apply(load(a + i), second));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, F::apply(load_partial(a + i, rest), second), rest);
}

template <class F>
void scalar_array(float a, const float* b, float* y, std::int64_t n) {
  const Vec first = broadcast(a);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, F::apply(first, load(b + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, F::apply(first, load_partial(b + i, rest)), rest);
}

template <class F>
constexpr BinaryFunctions functions_of = {arrays<F>, array_scalar<F>, scalar_array<F>};

void affine(const float* x, float scale, float offset, float* y, std::int64_t n) {
  const Vec s = broadcast(scale), o = broadcast(offset);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, fma(load(x + i), s, o));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, fma(load_partial(x + i, rest), s, o), rest);
}

}  // namespace

extern const ElementwiseFunctions kElementwise = {
    functions_of<Sum>,
    functions_of<Difference>,
    functions_of<Product>,
    {functions_of<Quotient>, functions_of<Maximum>, functions_of<Minimum>, functions_of<Power>,
     functions_of<Prelu>, functions_of<PreluSlope>, functions_of<Equal>, functions_of<Step>},
    {bfloat16_arrays<Sum>, bfloat16_arrays<Difference>, bfloat16_arrays<Product>},
    affine,
    &kConvert};

}  // namespace pycnn::cpu::PYCNN_ISA
