#pragma once
#include <cstdint>
#include <type_traits>
#if !defined(__CUDA_ARCH__)
#include <cstring>
#endif

#include "backends/cuda/block.h"
#include "core/half.h"
#include "core/half_types.h"

// Element types of images, and what every kernel does with them: load as float, 16 bytes at a time,
// and round once when storing.
namespace pycnn::cuda {

// The numbers are part of what is kept of choices (plan_cache.h).
enum class Image : std::uint8_t { kFloat32, kBFloat16, kFloat16 };

// Whether it is of 16 bits, beside which weights are rounded to its type.
constexpr bool is_narrow(Image image) { return image != Image::kFloat32; }

// Calls f with a value of the C++ type.
template <class F>
void with_image(Image image, const F& f) {
  switch (image) {
    case Image::kFloat32:
      return f(float{});
    case Image::kBFloat16:
      return f(BFloat16{});
    case Image::kFloat16:
      return f(Float16{});
  }
}

// f with a value of an unsigned type of that size.
template <class F>
void with_word(int item_bytes, const F& f) {
  switch (item_bytes) {
    case 1:
      return f(std::uint8_t{});
    case 2:
      return f(std::uint16_t{});
    case 4:
      return f(std::uint32_t{});
    default:
      return f(std::uint64_t{});
  }
}

PYCNN_BOTH std::uint32_t bits_of(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

PYCNN_BOTH float float_of(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

PYCNN_BOTH float widened(float value) { return value; }
PYCNN_BOTH float widened(BFloat16 value) {
  return float_of(static_cast<std::uint32_t>(value.bits) << 16);
}
PYCNN_BOTH float widened(Float16 value) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  return float_from_float16(value.bits);
#endif
}
PYCNN_BOTH float widened(std::uint8_t value) { return static_cast<float>(value); }

// To nearest, ties to even; NaN stays NaN (core/half.h).
PYCNN_BOTH void narrow(float value, float& to) { to = value; }
PYCNN_BOTH void narrow(float value, BFloat16& to) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    to.bits = static_cast<std::uint16_t>((bits >> 16) | 0x0040u);
  else
    to.bits = static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
PYCNN_BOTH void narrow(float value, Float16& to) {
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
#else
  to.bits = float16_from_float(value);
#endif
}

// What is left of a value once it was stored as a T.
template <class T>
PYCNN_BOTH float rounded(float value) {
  T stored{};
  narrow(value, stored);
  return widened(stored);
}

PYCNN_BOTH bool is_nan(float value) { return value != value; }

constexpr int kVectorBytes = 16;
template <class T>
constexpr int kVector = kVectorBytes / static_cast<int>(sizeof(T));

// f(type, width): by vectors where the channels divide into them.
template <class F>
void with_vectors(Image image, std::int64_t channels, const F& f) {
  with_image(image, [&](auto type) {
    constexpr int kWidth = kVector<decltype(type)>;
    if (channels % kWidth == 0)
      f(type, std::integral_constant<int, kWidth>{});
    else
      f(type, std::integral_constant<int, 1>{});
  });
}

template <class T, int Count>
struct alignas(sizeof(T) * Count) Pack {
  T element[Count];
};

template <class T, int Count>
PYCNN_BOTH bool is_one_access(const T* data) {
  return Count * sizeof(T) <= kVectorBytes &&
         reinterpret_cast<std::uintptr_t>(data) % alignof(Pack<T, Count>) == 0;
}

PYCNN_BOTH bool is_at_vector(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % kVectorBytes == 0;
}

// `n` of at most Count elements; one access where all of an aligned vector is wanted.
template <int Count, class T>
PYCNN_BOTH void load(const T* from, int n, float (&to)[Count]) {
  if (n == Count && is_one_access<T, Count>(from)) {
    const auto pack = *reinterpret_cast<const Pack<T, Count>*>(from);
    for (int i = 0; i < Count; ++i) to[i] = widened(pack.element[i]);
  } else {
    for (int i = 0; i < Count; ++i) to[i] = i < n ? widened(from[i]) : 0.0f;
  }
}

// Elements as they lie: by one access, which must be possible, or the first `n` and zeros. Nothing
// waits for it before it is used, so that several may be on their way (`load` widens at once).
template <int Count, bool kOneAccess, class T>
PYCNN_BOTH Pack<T, Count> load_pack(const T* from, int n) {
  if constexpr (kOneAccess) {
    return *reinterpret_cast<const Pack<T, Count>*>(from);
  } else {
    Pack<T, Count> pack;
    PYCNN_UNROLL
    for (int i = 0; i < Count; ++i) pack.element[i] = i < n ? from[i] : T{};
    return pack;
  }
}

template <class T, int Count>
PYCNN_BOTH void widen(const Pack<T, Count>& pack, float (&to)[Count]) {
  PYCNN_UNROLL
  for (int i = 0; i < Count; ++i) to[i] = widened(pack.element[i]);
}

template <int Count, class T>
PYCNN_BOTH void store(T* to, int n, const float (&from)[Count]) {
  if (n == Count && is_one_access<T, Count>(to)) {
    Pack<T, Count> pack;
    for (int i = 0; i < Count; ++i) narrow(from[i], pack.element[i]);
    *reinterpret_cast<Pack<T, Count>*>(to) = pack;
  } else {
    for (int i = 0; i < n && i < Count; ++i) narrow(from[i], to[i]);
  }
}

// Count neighbours as they lie, by accesses of at most 16 bytes: as many as of one, or several.
template <class T, int Count>
struct Run {
  static constexpr int kPart = Count < kVector<T> ? Count : kVector<T>;
  Pack<T, kPart> part[Count / kPart];
};

// All of them, or the first `n` and zeros; whole parts where they begin at one. Nothing waits for
// it.
template <int Count, class T>
PYCNN_BOTH Run<T, Count> load_run(const T* from, int n) {
  constexpr int kPart = Run<T, Count>::kPart;
  Run<T, Count> run;
  if (n == Count && is_one_access<T, kPart>(from)) {
    PYCNN_UNROLL
    for (int p = 0; p < Count / kPart; ++p)
      run.part[p] = load_pack<kPart, true>(from + p * kPart, kPart);
  } else {
    PYCNN_UNROLL
    for (int p = 0; p < Count / kPart; ++p)
      run.part[p] = load_pack<kPart, false>(from + p * kPart, n - p * kPart);
  }
  return run;
}

template <class T, int Count>
PYCNN_BOTH void widen(const Run<T, Count>& run, float (&to)[Count]) {
  constexpr int kPart = Run<T, Count>::kPart;
  PYCNN_UNROLL
  for (int i = 0; i < Count; ++i) to[i] = widened(run.part[i / kPart].element[i % kPart]);
}

// All of them.
template <int Count, class T>
PYCNN_BOTH void load_run(const T* from, float (&to)[Count]) {
  widen(load_run<Count>(from, Count), to);
}

template <int Count, class T>
PYCNN_BOTH void store_run(T* to, const float (&from)[Count]) {
  constexpr int kPart = Run<T, Count>::kPart;
  PYCNN_UNROLL
  for (int p = 0; p < Count / kPart; ++p) {
    float part[kPart];
    PYCNN_UNROLL
    for (int i = 0; i < kPart; ++i) part[i] = from[p * kPart + i];
    store(to + p * kPart, kPart, part);
  }
}

// All elements, by one access where it is possible, or the first `n`.
template <class T, int Count>
PYCNN_BOTH void store_pack(T* to, int n, const Pack<T, Count>& pack) {
  if (n == Count && is_one_access<T, Count>(to)) {
    *reinterpret_cast<Pack<T, Count>*>(to) = pack;
  } else {
    PYCNN_UNROLL
    for (int i = 0; i < Count; ++i)
      if (i < n) to[i] = pack.element[i];
  }
}

// A bit each for what stands above zero or is NaN once it is stored as a T: element e of all is bit
// e % 8 of byte e / 8.
constexpr int kSigns = 8;  // of a byte
template <class T>
PYCNN_BOTH std::uint8_t signs_of(const float (&values)[kSigns]) {
  unsigned bits = 0;
  PYCNN_UNROLL
  for (int i = 0; i < kSigns; ++i) bits |= (rounded<T>(values[i]) <= 0.0f ? 0u : 1u) << i;
  return static_cast<std::uint8_t>(bits);
}
// Of `count` elements, at most 8, the first one's lowest.
PYCNN_BOTH unsigned load_signs(const std::uint8_t* signs, std::int64_t element, int count) {
  const std::uint8_t* const from = signs + element / kSigns;
  const int first = static_cast<int>(element % kSigns);
  unsigned bits = from[0];
  if (first + count > kSigns) bits |= static_cast<unsigned>(from[1]) << kSigns;
  return bits >> first;
}
// Numbers of those signs.
template <int Count>
PYCNN_BOTH void widen_signs(unsigned bits, float (&to)[Count]) {
  PYCNN_UNROLL
  for (int i = 0; i < Count; ++i) to[i] = (bits >> i & 1u) != 0 ? 1.0f : 0.0f;
}

}  // namespace pycnn::cuda
