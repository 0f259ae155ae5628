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

// A part of a text: a value of one of the types below, by reference. Not templates of strings,
// since what each of them costs to compile is paid hundreds of times.
class TextPart {
 public:
  TextPart(std::string_view value) : kind_(Kind::kText), text_(value) {}
  TextPart(const char* value) : TextPart(std::string_view(value)) {}
  TextPart(const std::string& value) : TextPart(std::string_view(value)) {}
  TextPart(DType value) : TextPart(short_name(value)) {}
  TextPart(bool value) : TextPart(value ? "true" : "false") {}
  TextPart(std::int64_t value) : kind_(Kind::kInteger), integer_(value) {}
  TextPart(int value) : TextPart(static_cast<std::int64_t>(value)) {}
  TextPart(std::size_t value) : TextPart(static_cast<std::int64_t>(value)) {}
  // The shortest decimal that reads back as the same value.
  TextPart(double value) : kind_(Kind::kReal), real_(value) {}
  TextPart(const Pair& value) : kind_(Kind::kPair), object_(&value) {}  // (2, 2)
  TextPart(const Padding& value)
      : kind_(Kind::kPadding), object_(&value) {}  // top, bottom, left, right
  TextPart(const Shape& value) : kind_(Kind::kShape), object_(&value) {}
  TextPart(const TensorSpec& value) : kind_(Kind::kSpec), object_(&value) {}

  void append_to(std::string& text) const;

 private:
  enum class Kind { kText, kInteger, kReal, kPair, kPadding, kShape, kSpec };
  Kind kind_;
  union {
    std::string_view text_;
    std::int64_t integer_;
    double real_;
    const void* object_;
  };
};

std::string concatenate(std::initializer_list<TextPart> parts);

template <class... Parts>
std::string cat(const Parts&... parts) {
  return concatenate({TextPart(parts)...});
}

template <class E, class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw E(concatenate({TextPart(parts)...}));
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
// As expect_float and expect_floats, for images, which may also be bf16 or f16.
void expect_image_type(const TensorSpec& spec, const char* name);
void expect_image_types(Specs inputs, std::initializer_list<const char*> names);
// Type of parameters, statistics and their gradients beside images of a type.
inline DType parameter_type(DType image) {
  return is_low_precision(image) ? DType::kFloat32 : image;
}
// DTypeError unless of the type that goes with the image's.
void expect_parameter_type(const TensorSpec& spec, const char* name, const TensorSpec& image,
                           const char* image_name = "input");
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
// The same of what a batch norm can be joined with: activations whose slope follows from the sign
// of their input and bounds.
void expect_rectifier(ActivationKind kind, double slope);
// The type can hold the value exactly enough: integers take whole numbers in range, floats all but
// NaN.
void expect_holds(DType dtype, double value, const char* name);

// Epilogue::signs of an image, a bit for each value. Throws ShapeError where 8 does not divide its
// channels.
TensorSpec signs_of(const TensorSpec& image);

// Checks and drops the residual at the end of the inputs of a convolution or dense layer, whose
// shape must be `output`.
void expect_epilogue(const Epilogue& epilogue, Specs inputs, const TensorSpec& output);

}  // namespace pycnn::ops
