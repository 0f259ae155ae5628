#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <variant>
#include <vector>

#include "backends/cuda/curve.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/select.h"
#include "backends/device_module.h"

// What lies between an op with its views and a kernel's parameters.
namespace pycnn::cuda {

inline DeviceQueue& queue_of(const KernelArgs& args) {
  return *static_cast<const DeviceKernelArgs&>(args).queue;
}

template <class OpType>
const OpType& op_of(const KernelArgs& args) {
  return *std::get_if<OpType>(args.op);
}

// A table as a kernel's plan.
template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& table) {
  std::vector<std::byte> bytes(table.size() * sizeof(T));
  if (!table.empty()) std::memcpy(bytes.data(), table.data(), bytes.size());
  return bytes;
}

inline std::int64_t count_of(const TensorSpec& spec) {
  std::int64_t count = 1;
  for (const std::int64_t axis : spec.shape) count *= axis;
  return count;
}
inline std::int64_t count_of(const TensorView& view) { return count_of(*view.spec); }
inline std::int64_t channels_of(const TensorSpec& spec) {
  return spec.shape.empty() ? 1 : spec.shape.back();
}
// Of a matrix of that many channels.
inline std::int64_t rows_of(const TensorSpec& spec) {
  const std::int64_t channels = channels_of(spec);
  return channels > 0 ? count_of(spec) / channels : 0;
}

inline int item_size(DType dtype) {
  switch (dtype) {
    case DType::kUInt8:
      return 1;
    case DType::kBFloat16:
    case DType::kFloat16:
      return 2;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
  }
  return 8;
}

inline bool is_image_type(DType dtype) {
  return dtype == DType::kFloat32 || is_low_precision(dtype);
}
inline Image image_of(DType dtype) {
  if (dtype == DType::kFloat16) return Image::kFloat16;
  return dtype == DType::kBFloat16 ? Image::kBFloat16 : Image::kFloat32;
}
inline Image image_of(const TensorView& view) { return image_of(view.spec->dtype); }

// Whether all that the neighbour does is to widen or round numbers of images.
inline bool is_cast(const Neighbour& neighbour) {
  return std::holds_alternative<ops::Cast>(*neighbour.op) &&
         is_image_type(neighbour.inputs[0].dtype) && is_image_type(neighbour.outputs[0].dtype);
}

inline std::size_t scratch(std::int64_t bytes) { return static_cast<std::size_t>(bytes); }

// Why kernels for float32 and the 16-bit types do not take a problem: null, if they do. Indices of
// tensors are 32 bits wide where pixels are counted.
inline const char* unfit_type(const Problem& problem, bool only_float32 = false) {
  for (const Specs specs : {problem.inputs, problem.outputs}) {
    for (const TensorSpec& spec : specs) {
      if (spec.dtype == DType::kFloat64) return "float64 is computed on the CPU only";
      if (only_float32 && is_low_precision(spec.dtype))
        return "bfloat16 and float16 are not computed here";
    }
  }
  return nullptr;
}

inline bool has_curve(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kIdentity:
    case ActivationKind::kRelu:
    case ActivationKind::kRelu6:
    case ActivationKind::kLeakyRelu:
    case ActivationKind::kSigmoid:
    case ActivationKind::kTanh:
    case ActivationKind::kScaledTanh:
      return true;
    default:
      return false;
  }
}
constexpr const char* kNoCurve = "there is no kernel for this activation";

// Of a kind that has_curve.
inline Curve curve_of(ActivationKind kind, double slope) {
  CurveKind result = CurveKind::kIdentity;
  switch (kind) {
    case ActivationKind::kRelu:
      result = CurveKind::kRelu;
      break;
    case ActivationKind::kRelu6:
      result = CurveKind::kRelu6;
      break;
    case ActivationKind::kLeakyRelu:
      result = CurveKind::kLeakyRelu;
      break;
    case ActivationKind::kSigmoid:
      result = CurveKind::kSigmoid;
      break;
    case ActivationKind::kTanh:
      result = CurveKind::kTanh;
      break;
    case ActivationKind::kScaledTanh:
      result = CurveKind::kScaledTanh;
      break;
    default:
      break;
  }
  return {result, static_cast<float>(slope)};
}

}  // namespace pycnn::cuda
