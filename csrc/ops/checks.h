#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "pycnn/error.h"
#include "pycnn/ops.h"

// What shape rules share: wording of values, and checks that throw with the numbers.
//
// The first line of a message says what is wrong, further lines (two spaces in front) are hints.
// `pycnn::infer` puts the inputs between the two, `Graph::add` the name of the node in front.
namespace pycnn::ops {

// ---- Wording

std::string to_text(double value);  // shortest decimal that reads back as the same value
std::string to_text(bool value);
std::string to_text(std::int64_t value);
std::string to_text(const Pair& value);     // (2, 2)
std::string to_text(const Padding& value);  // (1, 1, 2, 2): top, bottom, left, right
inline std::string to_text(int value) { return to_text(static_cast<std::int64_t>(value)); }
inline std::string to_text(std::size_t value) { return to_text(static_cast<std::int64_t>(value)); }
inline std::string to_text(const char* value) { return value; }
inline std::string to_text(std::string_view value) { return std::string(value); }
inline std::string to_text(const std::string& value) { return value; }
inline std::string to_text(const Shape& value) { return to_string(value); }
inline std::string to_text(const TensorSpec& value) { return to_string(value); }
inline std::string to_text(DType value) { return short_name(value); }

template <class... Parts>
std::string cat(const Parts&... parts) {
  std::string text;
  (text.append(to_text(parts)), ...);
  return text;
}

template <class E, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw E(cat(parts...));
}

// ---- Arithmetic on sizes; ShapeError where 64 bits do not hold the result

std::int64_t checked_add(std::int64_t a, std::int64_t b);
std::int64_t checked_multiply(std::int64_t a, std::int64_t b);

// ---- Checks of inputs

// Largest rank of a tensor and largest value of a stride, padding, dilation or window size.
inline constexpr std::size_t kMaxRank = 8;
inline constexpr std::int64_t kMaxAttribute = (std::int64_t{1} << 31) - 1;

inline int rank(const TensorSpec& spec) { return static_cast<int>(spec.shape.size()); }
// Size of an axis; negative ones count from the end.
inline std::int64_t dim(const TensorSpec& spec, int axis) {
  return spec.shape[static_cast<std::size_t>(axis < 0 ? axis + rank(spec) : axis)];
}

// Rank, sizes and bytes are such that later arithmetic cannot overflow.
void expect_valid(const TensorSpec& spec, const char* what);
// ArgumentError unless the number of inputs is in [least, most].
void expect_inputs(Specs inputs, std::size_t least, std::size_t most, const char* names);
inline void expect_inputs(Specs inputs, std::size_t count, const char* names) {
  expect_inputs(inputs, count, count, names);
}
// DTypeError unless f32 or f64.
void expect_float(const TensorSpec& spec, const char* name);
// As expect_float, and all have the type of the first.
void expect_floats(Specs inputs, std::initializer_list<const char*> names);
void expect_dtype(const TensorSpec& spec, const char* name, DType dtype);
void expect_rank(const TensorSpec& spec, const char* name, int rank, const char* axes);
void expect_least_rank(const TensorSpec& spec, const char* name, int rank, const char* axes);
// ShapeError unless the shape is exactly this one. `meaning` explains it: "(N, OH, OW, OC)".
void expect_shape(const TensorSpec& spec, const char* name, const Shape& shape,
                  const char* meaning);
// (N, H, W, C), floating, with at least one pixel and one channel.
void expect_image(const TensorSpec& spec, const char* name);

// ---- Checks of attributes: ArgumentError naming the value

void expect_finite(double value, const char* name);
void expect_within(double value, const char* name, double least, double most);
void expect_positive(double value, const char* name);
void expect_least(std::int64_t value, const char* name, std::int64_t least);
// Both in [least, kMaxAttribute].
void expect_pair(const Pair& value, const char* name, std::int64_t least);
void expect_padding(const Padding& value);
// ArgumentError unless a known kind with a finite slope of at least 0.
void expect_activation(ActivationKind kind, double slope);
// The type can hold the value exactly enough: integers take whole numbers in range, floats all but
// NaN.
void expect_holds(DType dtype, double value, const char* name);

// Checks and drops the residual at the end of the inputs of a convolution or dense layer, whose
// shape must be `output`.
void expect_epilogue(const Epilogue& epilogue, Specs inputs, const TensorSpec& output);

}  // namespace pycnn::ops
