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

template <class F>
void arrays(const float* a, const float* b, float* y, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, F::apply(load(a + i), load(b + i)));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, F::apply(load_partial(a + i, rest), load_partial(b + i, rest)), rest);
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

void affine(const float* x, float scale, float offset, float* y, std::int64_t n) {
  const Vec s = broadcast(scale), o = broadcast(offset);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, fma(load(x + i), s, o));
  if (const int rest = static_cast<int>(n - i))
    store_partial(y + i, fma(load_partial(x + i, rest), s, o), rest);
}

}  // namespace

extern const ElementwiseFunctions kElementwise = {
    {arrays<Sum>, array_scalar<Sum>, scalar_array<Sum>},
    {arrays<Difference>, array_scalar<Difference>, scalar_array<Difference>},
    {arrays<Product>, array_scalar<Product>, scalar_array<Product>},
    affine,
    &kConvert};

}  // namespace pycnn::cpu::PYCNN_ISA
