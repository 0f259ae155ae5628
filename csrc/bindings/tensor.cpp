#include <pybind11/stl.h>

#include <cstring>
#include <memory>

#include "bindings/module.h"

namespace pycnn::bindings {

py::tuple to_tuple(const Shape& shape) {
  py::tuple result(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) result[i] = py::int_(shape[i]);
  return result;
}

int numpy_number(DType dtype) {
  constexpr int kHalf = 23;  // NPY_HALF, which pybind11 does not name
  switch (dtype) {
    case DType::kFloat32:
      return py::detail::npy_format_descriptor<float>::value;
    case DType::kFloat64:
      return py::detail::npy_format_descriptor<double>::value;
    case DType::kBFloat16:
      throw UnsupportedError("NumPy has no bfloat16; convert to float32 first");
    case DType::kFloat16:
      return kHalf;
    case DType::kUInt8:
      return py::detail::npy_format_descriptor<std::uint8_t>::value;
    case DType::kInt32:
      return py::detail::npy_format_descriptor<std::int32_t>::value;
    case DType::kInt64:
      break;
  }
  return py::detail::npy_format_descriptor<std::int64_t>::value;
}

// By number: a name is looked up, and each run makes arrays.
py::dtype numpy_dtype(DType dtype) { return py::dtype(numpy_number(dtype)); }

namespace {

DType dtype_of(const py::array& array) {
  // By number, for a schedule writes a rate in each step and the text of a type takes long.
  const py::dtype given = array.dtype();
  for (const DType dtype : {DType::kFloat32, DType::kInt64, DType::kUInt8})
    if (given.num() == numpy_number(dtype) && given.byteorder() != '>') return dtype;
  return parse_dtype(py::str(given).cast<std::string>());
}

Tensor tensor_from(const py::array& array) {
  TensorSpec spec{{array.shape(), array.shape() + array.ndim()}, dtype_of(array)};
  Tensor tensor(spec);
  if (!(array.flags() & py::array::c_style))
    throw ArgumentError("tensor: the array must be contiguous");
  std::memcpy(tensor.overwrite(), array.data(), tensor.bytes());
  return tensor;
}

// Read-only, over memory that somebody keeps.
py::buffer_info describe(const void* memory, const TensorSpec& spec) {
  const auto item = static_cast<py::ssize_t>(item_bytes(spec.dtype));
  std::vector<py::ssize_t> shape(spec.shape.begin(), spec.shape.end()), strides(shape.size());
  py::ssize_t stride = item;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i] > 0 ? shape[i] : 1;
  }
  const py::dtype dtype = numpy_dtype(spec.dtype);
  return {const_cast<void*>(memory),
          item,
          std::string(1, dtype.char_()),
          static_cast<py::ssize_t>(shape.size()),
          shape,
          strides,
          true};
}

// An array over the tensor's memory. As long as it lives, or any made of it, programs on a GPU copy
// back what they write, so that it never shows older values.
py::array view(const Tensor& tensor) {
  (void)numpy_dtype(tensor.dtype());  // throws before anything is kept
  std::unique_ptr<HostView> kept;
  {
    py::gil_scoped_release nogil;  // another thread's run on the device may have to end first
    kept = std::make_unique<HostView>(tensor);
  }
  const void* const memory = kept->raw();
  const py::capsule owner(kept.get(),
                          [](void* pointer) { delete static_cast<HostView*>(pointer); });
  (void)kept.release();
  py::array array(describe(memory, tensor.spec()), owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

}  // namespace

void bind_tensor(py::module_& m) {
  py::class_<Initializer> init(m, "Initializer", "How a fresh parameter gets its values.");
  init.def(py::init([](const std::string& kind, double a, double b) {
             using Kind = Initializer::Kind;
             for (auto [name, value] : {std::pair{"constant", Kind::kConstant},
                                        {"uniform", Kind::kUniform},
                                        {"normal", Kind::kNormal},
                                        {"truncated_normal", Kind::kTruncatedNormal}})
               if (kind == name) return Initializer{value, a, b};
             throw ArgumentError("initializer: '" + kind +
                                 "' is not one of constant, uniform, normal, truncated_normal");
           }),
           py::arg("kind") = "constant", py::arg("a") = 0.0, py::arg("b") = 0.0);
  init.def_property_readonly("kind", [](const Initializer& i) {
    constexpr const char* kNames[] = {"constant", "uniform", "normal", "truncated_normal"};
    return kNames[static_cast<int>(i.kind)];
  });
  init.def_readonly("a", &Initializer::a).def_readonly("b", &Initializer::b);

  py::class_<Tensor>(m, "Tensor", "Shared array of the core.")
      .def(py::init([](const Shape& shape, const std::string& dtype) {
             return Tensor({shape, parse_dtype(dtype)});
           }),
           py::arg("shape"), py::arg("dtype") = "float32", "Zero-filled.")
      .def_static("from_array", &tensor_from, py::arg("array"), "Copies a contiguous array.")
      .def_property_readonly("shape", [](const Tensor& t) { return to_tuple(t.shape()); })
      .def_property_readonly("dtype", [](const Tensor& t) { return long_name(t.dtype()); })
      .def_property_readonly("bytes", &Tensor::bytes)
      .def_property_readonly("version", &Tensor::version)
      .def("clone", &Tensor::clone, py::call_guard<py::gil_scoped_release>(),
           "A copy with its own storage.")
      .def("shares_storage_with", &Tensor::shares_storage_with, py::arg("other"))
      .def(
          "assign",
          [](Tensor& t, const py::array& array) {
            Shape shape(array.shape(), array.shape() + array.ndim());
            const DType dtype = dtype_of(array);
            if (shape != t.shape())
              throw ShapeError("assign: array is " + to_string(shape) + ", the tensor " +
                               to_string(t.shape()));
            if (dtype != t.dtype())
              throw DTypeError(std::string("assign: array is ") + long_name(dtype) +
                               ", the tensor " + long_name(t.dtype()));
            if (!(array.flags() & py::array::c_style))
              throw ArgumentError("assign: the array must be contiguous");
            std::memcpy(t.overwrite(), array.data(), t.bytes());
          },
          py::arg("array"), "Overwrites the values in place.")
      .def(
          "fill",
          [](Tensor& t, const Initializer& init, std::uint64_t seed, const std::string& name) {
            py::gil_scoped_release nogil;
            fill(t, init, seed, stream_of(name));
          },
          py::arg("init"), py::arg("seed"), py::arg("name"), "Draws fresh values.")
      .def("view", &view, "Read-only array over the same memory.");
}

}  // namespace pycnn::bindings
