#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#if !defined(__CUDA_ARCH__)
#include <cstring>
#endif

#include "backends/cuda/numbers.h"

// Instructions of a whole warp. What a lane holds of a matrix (a fragment) is as the PTX ISA says
// of ldmatrix and mma.m16n8k16 (bfloat16, float16) and mma.m16n8k8 (TF32); with g = lane / 4, t =
// lane % 4:
//
//   A, 16 rows x 32 bytes of depth: register 0 holds row g, bytes 4t .. 4t+3; register 1 row g + 8;
//                                   registers 2 and 3 the same 16 bytes further
//   B, 8 columns likewise:          register 0 holds column g, bytes 4t .. 4t+3; register 1 16
//   further sums, 16 x 8:                   0 and 1: row g, columns 2t and 2t+1; 2 and 3: row g + 8
//
// Four bytes of depth are two elements of 16 bits or one of TF32. On the host each lane reads the
// other lanes' registers instead.
namespace pycnn::cuda {

// All lanes go on together: those that took other ways through a loop or a branch wait here.
PYCNN_BOTH void converge_warp() {
#if defined(__CUDA_ARCH__)
  __syncwarp();
#endif
}

// Four matrices of 8 rows of 16 bytes in shared memory: address(lane) is that of row lane % 8 of
// matrix lane / 8, and register i is of matrix i: row lane / 4, bytes 4 * (lane % 4) and on.
// kTransposed: of 16-bit elements, of the matrix whose rows are those columns.
template <bool kTransposed, class Address>
PYCNN_BOTH void load_matrices(int lane, const Address& address, std::uint32_t (&to)[4]) {
#if defined(__CUDA_ARCH__)
  const auto row = static_cast<unsigned>(__cvta_generic_to_shared(address(lane)));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row));
#else
  for (int matrix = 0; matrix < 4; ++matrix) {
    std::uint16_t half[2];
    for (int i = 0; i < 2; ++i) {
      const int row = kTransposed ? 2 * (lane % 4) + i : lane / 4;
      const int column = kTransposed ? lane / 4 : 2 * (lane % 4) + i;
      std::memcpy(&half[i], address(8 * matrix + row) + 2 * column, 2);
    }
    to[matrix] = half[0] | static_cast<std::uint32_t>(half[1]) << 16;
  }
#endif
}

// float32 in the bits of TF32, which has 10 of its 23 bits of mantissa: to nearest, ties away from
// zero.
PYCNN_BOTH std::uint32_t rounded_tf32(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  std::uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(__uint_as_float(bits)));
  return result;
#else
  if ((bits & 0x7F800000u) == 0x7F800000u) return bits;
  return (bits + 0x1000u) & ~0x1FFFu;
#endif
}

#if !defined(__CUDA_ARCH__)
// Element `depth` of those that lanes hold of a row.
template <class Element>
float fragment_element(std::uint32_t bits, int depth) {
  if constexpr (sizeof(Element) == 2)
    return widened(Element{static_cast<std::uint16_t>(depth % 2 == 0 ? bits : bits >> 16)});
  else
    return float_of(bits);
}
#endif

// sum += A B of one warp. `lanes(lane)` are the registers of a lane, `a_of` and `b_of` find in them
// the fragments. Element: BFloat16, Float16, or float for TF32.
template <class Element, class Lanes, class AOf, class BOf>
PYCNN_BOTH void multiply_add(int lane, const Lanes& lanes, const AOf& a_of, const BOf& b_of,
                             float (&sum)[4]) {
#if defined(__CUDA_ARCH__)
  const std::uint32_t(&a)[4] = a_of(lanes(lane));
  const std::uint32_t(&b)[2] = b_of(lanes(lane));
  if constexpr (std::is_same_v<Element, Float16>)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else if constexpr (sizeof(Element) == 2)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Rows g and g + 8, columns 2t and 2t + 1, a word of each of them at a time. No arrays: on the
  // stack they would be half of the time beside a sanitizer.
  constexpr int kWord = 4 / static_cast<int>(sizeof(Element));  // elements of a register
  const int g = lane / 4, t = lane % 4;
  for (int word = 0; word < 8; ++word) {
    const int half = word / 4, place = word % 4;  // of 16 bytes
    const std::uint32_t(&a)[4] = a_of(lanes(g * 4 + place));
    const std::uint32_t upper = a[2 * half], lower = a[2 * half + 1];
    const std::uint32_t left = b_of(lanes(2 * t * 4 + place))[half];
    const std::uint32_t right = b_of(lanes((2 * t + 1) * 4 + place))[half];
    for (int depth = 0; depth < kWord; ++depth) {
      const float x = fragment_element<Element>(upper, depth);
      const float next_x = fragment_element<Element>(lower, depth);
      const float y = fragment_element<Element>(left, depth);
      const float next_y = fragment_element<Element>(right, depth);
      sum[0] += x * y;
      sum[1] += x * next_y;
      sum[2] += next_x * y;
      sum[3] += next_x * next_y;
    }
  }
#endif
}

}  // namespace pycnn::cuda
