#include "ops/checks.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

namespace pycnn::ops {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 62;

// Something to try, for the commonest mistakes.
std::string image_hint(const TensorSpec& spec, int wanted_rank) {
  if (wanted_rank != 4) return "";
  if (rank(spec) == 3) return "\n  hint: one image is a batch of one, reshape it to (1, H, W, C)";
  if (rank(spec) == 2) return "\n  hint: a grey image is (1, H, W, 1)";
  return "";
}

}  // namespace

void TextPart::append_to(std::string& text) const {
  switch (kind_) {
    case Kind::kText:
      text += text_;
      break;
    case Kind::kInteger:
      text += std::to_string(integer_);
      break;
    case Kind::kReal: {
      char buffer[32];
      text.append(buffer, std::to_chars(buffer, buffer + sizeof(buffer), real_).ptr);
      break;
    }
    case Kind::kPair: {
      const Pair& pair = *static_cast<const Pair*>(object_);
      text += cat("(", pair[0], ", ", pair[1], ")");
      break;
    }
    case Kind::kPadding: {
      const Padding& sides = *static_cast<const Padding*>(object_);
      text += cat("(", sides.top, ", ", sides.bottom, ", ", sides.left, ", ", sides.right, ")");
      break;
    }
    case Kind::kShape:
      text += to_string(*static_cast<const Shape*>(object_));
      break;
    case Kind::kSpec:
      text += to_string(*static_cast<const TensorSpec*>(object_));
      break;
  }
}

std::string concatenate(std::initializer_list<TextPart> parts) {
  std::string text;
  for (const TextPart& part : parts) part.append_to(text);
  return text;
}

std::int64_t checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) fail<ShapeError>("size ", a, " + ", b, " overflows");
  return sum;
}

std::int64_t checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    fail<ShapeError>("size ", a, " * ", b, " overflows");
  }
  return product;
}

void expect_valid(const TensorSpec& spec, const char* what) {
  if (spec.shape.size() > kMaxRank) {
    fail<ShapeError>(what, " has ", spec.shape.size(), " axes, at most ", kMaxRank,
                     " are supported");
  }
  for (const std::int64_t size : spec.shape) {
    if (size < 0) fail<ShapeError>(what, " ", spec, " has a negative axis");
  }
  // An empty tensor may have long axes too; its parts must still be addressable.
  std::int64_t bytes = static_cast<std::int64_t>(item_bytes(spec.dtype));
  for (const std::int64_t size : spec.shape) {
    const std::int64_t factor = std::max<std::int64_t>(size, 1);
    if (bytes > kMaxBytes / factor) fail<ShapeError>(what, " ", spec, " is larger than 2^62 bytes");
    bytes *= factor;
  }
}

void expect_inputs(Specs inputs, std::size_t least, std::size_t most, const char* names) {
  if (inputs.size() >= least && inputs.size() <= most) return;
  const std::string count = least == most ? cat(least) : cat(least, " to ", most);
  fail<ArgumentError>("takes ", count, most == 1 ? " input (" : " inputs (", names, "), got ",
                      inputs.size());
}

namespace {

void expect_type(const TensorSpec& spec, const char* name, bool image) {
  if (spec.dtype == DType::kFloat32 || spec.dtype == DType::kFloat64) return;
  if (image && is_low_precision(spec.dtype)) return;
  const char* hint = "";
  if (spec.dtype == DType::kUInt8) {
    hint = "\n  hint: normalize_image turns u8 images into floating point";
  } else if (is_floating(spec.dtype)) {
    hint = "\n  hint: cast it to f32 first";
  }
  fail<DTypeError>(name, " is ", spec.dtype,
                   image ? ", expected f32, f64, bf16 or f16" : ", expected f32 or f64", hint);
}

[[noreturn]] void types_differ(const TensorSpec& spec, const char* name, const TensorSpec& first,
                               const char* first_name) {
  fail<DTypeError>(name, " is ", spec.dtype, ", ", first_name, " is ", first.dtype,
                   "; both must be the same");
}

void expect_types(Specs inputs, std::initializer_list<const char*> names, bool image) {
  const char* const* name = names.begin();
  for (const TensorSpec& spec : inputs) {
    if (name == names.end()) return;
    expect_type(spec, *name, image);
    if (spec.dtype != inputs[0].dtype) types_differ(spec, *name, inputs[0], *names.begin());
    ++name;
  }
}

}  // namespace

void expect_float(const TensorSpec& spec, const char* name) { expect_type(spec, name, false); }

void expect_floats(Specs inputs, std::initializer_list<const char*> names) {
  expect_types(inputs, names, false);
}

void expect_image_type(const TensorSpec& spec, const char* name) { expect_type(spec, name, true); }

void expect_image_types(Specs inputs, std::initializer_list<const char*> names) {
  expect_types(inputs, names, true);
}

void expect_parameter_type(const TensorSpec& spec, const char* name, const TensorSpec& image,
                           const char* image_name) {
  expect_type(spec, name, false);
  if (spec.dtype == parameter_type(image.dtype)) return;
  if (!is_low_precision(image.dtype)) types_differ(spec, name, image, image_name);
  fail<DTypeError>(name, " is ", spec.dtype, ", expected f32 beside ", image_name, " of ",
                   image.dtype);
}

void expect_dtype(const TensorSpec& spec, const char* name, DType dtype) {
  if (spec.dtype != dtype) fail<DTypeError>(name, " is ", spec.dtype, ", expected ", dtype);
}

void expect_rank(const TensorSpec& spec, const char* name, int wanted, const char* axes) {
  if (rank(spec) == wanted) return;
  fail<ShapeError>(name, " ", spec.shape, " has ", rank(spec), rank(spec) == 1 ? " axis" : " axes",
                   ", expected ", wanted, ": ", axes,
                   std::string_view(name) == "input" ? image_hint(spec, wanted) : "");
}

void expect_least_rank(const TensorSpec& spec, const char* name, int least, const char* axes) {
  if (rank(spec) >= least) return;
  fail<ShapeError>(name, " ", spec.shape, " has ", rank(spec), rank(spec) == 1 ? " axis" : " axes",
                   ", expected at least ", least, ": ", axes);
}

void expect_shape(const TensorSpec& spec, const char* name, const Shape& shape,
                  const char* meaning) {
  if (spec.shape == shape) return;
  fail<ShapeError>(name, " is ", spec.shape, ", expected ", shape, ": ", meaning);
}

void expect_image(const TensorSpec& spec, const char* name) {
  expect_rank(spec, name, 4, "(N, H, W, C)");
  expect_image_type(spec, name);
  for (int axis = 1; axis < 4; ++axis) {
    if (dim(spec, axis) < 1) {
      fail<ShapeError>(name, " ", spec.shape, " has no ", axis == 3 ? "channel" : "pixel",
                       "; only the batch may be empty");
    }
  }
}

void expect_finite(double value, const char* name) {
  if (!std::isfinite(value)) fail<ArgumentError>(name, " is ", value, ", expected a finite number");
}

void expect_within(double value, const char* name, double least, double most) {
  if (!(value >= least && value <= most)) {
    fail<ArgumentError>(name, " is ", value, ", expected a number from ", least, " to ", most);
  }
}

void expect_positive(double value, const char* name) {
  if (!(value > 0.0 && std::isfinite(value))) {
    fail<ArgumentError>(name, " is ", value, ", expected a finite number above 0");
  }
}

void expect_least(std::int64_t value, const char* name, std::int64_t least) {
  if (value < least) fail<ArgumentError>(name, " is ", value, ", expected at least ", least);
}

void expect_pair(const Pair& value, const char* name, std::int64_t least) {
  for (const std::int64_t part : value) {
    if (part < least || part > kMaxAttribute) {
      fail<ArgumentError>(name, " is ", value, ", expected values from ", least, " to ",
                          kMaxAttribute);
    }
  }
}

void expect_padding(const Padding& value) {
  for (const std::int64_t side : {value.top, value.bottom, value.left, value.right}) {
    if (side < 0 || side > kMaxAttribute) {
      fail<ArgumentError>("padding is ", value,
                          " (top, bottom, left, right), expected values from 0", " to ",
                          kMaxAttribute);
    }
  }
}

void expect_activation(ActivationKind kind, double slope) {
  if (kind < ActivationKind::kIdentity || kind > ActivationKind::kScaledTanh) {
    fail<ArgumentError>("activation kind ", static_cast<int>(kind), " is unknown");
  }
  if (!(slope >= 0.0 && std::isfinite(slope))) {
    fail<ArgumentError>("slope is ", slope, ", expected a finite number of at least 0");
  }
}

void expect_holds(DType dtype, double value, const char* name) {
  if (std::isnan(value)) fail<ArgumentError>(name, " is nan");
  if (is_floating(dtype)) return;
  double least = 0.0, limit = 256.0;  // limit itself is excluded
  if (dtype == DType::kInt32) least = -0x1p31, limit = 0x1p31;
  if (dtype == DType::kInt64) least = -0x1p63, limit = 0x1p63;
  if (!(value >= least && value < limit) || value != std::trunc(value)) {
    fail<ArgumentError>(name, " is ", value, ", which is not a value of ", dtype);
  }
}

void expect_rectifier(ActivationKind kind, double slope) {
  expect_activation(kind, slope);
  if (kind == ActivationKind::kIdentity || kind == ActivationKind::kRelu ||
      kind == ActivationKind::kRelu6 || kind == ActivationKind::kLeakyRelu)
    return;
  fail<ArgumentError>("activation is ", activation_name(kind),
                      ", expected identity, relu, relu6 or leaky_relu");
}

TensorSpec signs_of(const TensorSpec& image) {
  constexpr std::int64_t kBits = 8;
  TensorSpec signs{image.shape, DType::kUInt8};
  if (signs.shape.back() % kBits != 0)
    fail<ShapeError>(kBits, " does not divide the ", signs.shape.back(),
                     " channels whose signs are kept");
  signs.shape.back() /= kBits;
  return signs;
}

void expect_epilogue(const Epilogue& epilogue, Specs inputs, const TensorSpec& output) {
  expect_activation(epilogue.activation, epilogue.slope);
  if (epilogue.signs) fail<ArgumentError>("only a batch norm gives signs");
  if (!epilogue.residual) return;
  const TensorSpec& residual = inputs.back();
  expect_shape(residual, "residual", output.shape, "the output's shape");
  expect_dtype(residual, "residual", output.dtype);
}

}  // namespace pycnn::ops
