#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pycnn/export.h"

/// \file
/// Element types, shapes and the reference-counted array that parameters, optimizer state and
/// results live in.
namespace pycnn {
/// Types of elements.
enum class DType : std::uint8_t { kFloat32, kFloat64, kBFloat16, kFloat16, kUInt8, kInt32, kInt64 };

/// Sizes of the axes, outermost first. Images are (N, H, W, C).
using Shape = std::vector<std::int64_t>;

/// What is known of a tensor before the program runs.
struct TensorSpec {
  Shape shape;                                         ///< empty for a scalar
  DType dtype = DType::kFloat32;                       ///< of the elements
  bool operator==(const TensorSpec&) const = default;  ///< Same shape and type.
};

PYCNN_API std::size_t item_bytes(DType dtype) noexcept;  ///< Of one element.
/// Short name as used in graph text and messages: f32 f64 bf16 f16 u8 i32 i64.
PYCNN_API const char* short_name(DType dtype) noexcept;
/// NumPy-style name: float32 float64 bfloat16 float16 uint8 int32 int64.
PYCNN_API const char* long_name(DType dtype) noexcept;
/// Accepts either name; throws DTypeError for any other text.
PYCNN_API DType parse_dtype(std::string_view name);
/// Whether the type is one of the floating-point ones.
PYCNN_API bool is_floating(DType dtype) noexcept;
/// Whether the type is bf16 or f16: images of these stand beside parameters of f32.
constexpr bool is_low_precision(DType dtype) noexcept {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16;
}

/// Product of the axes; 1 for a scalar. Throws ShapeError for a negative axis or a product over
/// 2^62.
PYCNN_API std::int64_t element_count(const Shape& shape);
PYCNN_API std::size_t byte_size(const TensorSpec& spec);  ///< Throws as `element_count`.
/// "(2, 28, 28, 1)".
PYCNN_API std::string to_string(const Shape& shape);
/// "f32(2, 28, 28, 1)".
PYCNN_API std::string to_string(const TensorSpec& spec);

/// A contiguous row-major array, aligned to 64 bytes. Copying a Tensor shares the storage; `clone`
/// copies it.
///
/// A program that trains on a GPU leaves there what it wrote, and whoever reads the tensor here
/// next gets a copy of it first. If that fails, `raw` and all that read through it throw
/// DeviceError.
///
/// A default-constructed Tensor is empty: `defined()` is false and only assignment is allowed.
/// Reading from several threads is safe; writing needs the caller's own exclusion.
class PYCNN_API Tensor {
 public:
  Tensor() = default;
  /// Zero-filled. Throws MemoryLimitError when the memory cannot be had.
  explicit Tensor(TensorSpec spec);

  bool defined() const noexcept { return storage_ != nullptr; }  ///< False for an empty one.
  const TensorSpec& spec() const noexcept;                       ///< Never changes.
  const Shape& shape() const noexcept { return spec().shape; }   ///< Of `spec()`.
  DType dtype() const noexcept { return spec().dtype; }          ///< Of `spec()`.
  std::int64_t size() const noexcept;                            ///< Elements.
  std::size_t bytes() const noexcept;                            ///< Of all elements.

  /// For reading. Never null for a defined tensor, also when it holds no element. What is there are
  /// the values of now: after a run on a GPU call it again, or keep a HostView.
  const void* raw() const;
  /// For writing: counts a new version, so that programs which derived something from the old
  /// values (packed or folded weights, copies on a GPU) derive it again before their next run.
  void* mutable_raw();
  /// As `mutable_raw`, for writing every element: older values are given up unread, be they on a
  /// GPU or lost there.
  void* overwrite() noexcept;
  template <class T>
  const T* data() const {  ///< `raw()`; T must be the type that `dtype()` says.
    return static_cast<const T*>(raw());
  }
  template <class T>
  T* mutable_data() {  ///< `mutable_raw()`; T must be the type that `dtype()` says.
    return static_cast<T*>(mutable_raw());
  }
  /// Grows with every `mutable_raw`, `overwrite`, `mark_written` and training step that wrote this
  /// tensor.
  std::uint64_t version() const noexcept;
  /// After writing through an older pointer. Throws ArgumentError when a program on a GPU has
  /// written the tensor since: then the pointer led to old values.
  void mark_written();

  Tensor clone() const;  ///< Storage of its own. Throws MemoryLimitError.
  bool shares_storage_with(const Tensor& other) const noexcept {  ///< Whether copies of one.
    return storage_ == other.storage_;
  }

 private:
  friend class HostView;
  friend struct TensorResidence;
  struct Storage;
  std::shared_ptr<Storage> storage_;
};

/// A pointer for reading that may be kept while programs train the tensor on a GPU: as long as one
/// exists, each of their runs ends with a copy of the tensor to the host, which takes time.
class PYCNN_API HostView {
 public:
  /// Throws DeviceError where `Tensor::raw` does.
  explicit HostView(Tensor tensor);
  ~HostView();
  HostView(const HostView&) = delete;
  HostView& operator=(const HostView&) = delete;
  const void* raw() const noexcept;  ///< The tensor's memory; null for an empty one.

 private:
  Tensor tensor_;
};

/// How a fresh parameter gets its values. Drawn from counters keyed by (seed, stream, element), so
/// the values do not depend on thread count or on the order in which tensors are filled.
struct Initializer {
  enum class Kind : std::uint8_t { kConstant, kUniform, kNormal, kTruncatedNormal };
  Kind kind = Kind::kConstant;  ///< The law that values follow.
  /// kConstant: the value. kUniform: lower bound. kNormal, kTruncatedNormal (cut at two
  /// deviations): mean.
  double a = 0.0;
  /// kUniform: upper bound. kNormal, kTruncatedNormal: standard deviation.
  double b = 0.0;
};

/// Fills a floating-point tensor. `stream` keeps tensors of one seed apart (see `stream_of`).
PYCNN_API void fill(Tensor& tensor, const Initializer& init, std::uint64_t seed,
                    std::uint64_t stream);
/// A stream number from a parameter's name (64-bit FNV-1a).
PYCNN_API std::uint64_t stream_of(std::string_view name) noexcept;

}  // namespace pycnn

/// \enum pycnn::Initializer::Kind
/// The law that fresh values follow; what its numbers are is told with `a` and `b`.
