#include <pybind11/stl.h>

#include <cstring>

#include "bindings/module.h"

namespace pycnn::bindings {

py::tuple to_tuple(const Shape& shape) {
  py::tuple result(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) result[i] = py::int_(shape[i]);
  return result;
}

py::dtype numpy_dtype(DType dtype) {
  if (dtype == DType::kBFloat16)
    throw UnsupportedError("NumPy has no bfloat16; convert to float32 first");
  return py::dtype(long_name(dtype));
}

namespace {

Tensor tensor_from(const py::array& array) {
  TensorSpec spec{{array.shape(), array.shape() + array.ndim()},
                  parse_dtype(py::str(array.dtype()).cast<std::string>())};
  Tensor tensor(spec);
  if (!(array.flags() & py::array::c_style))
    throw ArgumentError("tensor: the array must be contiguous");
  std::memcpy(tensor.mutable_raw(), array.data(), tensor.bytes());
  return tensor;
}

py::buffer_info describe(const Tensor& tensor, bool read_only) {
  const TensorSpec& spec = tensor.spec();
  const auto item = static_cast<py::ssize_t>(item_bytes(spec.dtype));
  std::vector<py::ssize_t> shape(spec.shape.begin(), spec.shape.end()), strides(shape.size());
  py::ssize_t stride = item;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= shape[i] > 0 ? shape[i] : 1;
  }
  const py::dtype dtype = numpy_dtype(spec.dtype);
  return {const_cast<void*>(tensor.raw()),
          item,
          std::string(1, dtype.char_()),
          static_cast<py::ssize_t>(shape.size()),
          shape,
          strides,
          read_only};
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

  py::class_<Tensor>(m, "Tensor", py::buffer_protocol(), "Shared array of the core.")
      .def(py::init([](const Shape& shape, const std::string& dtype) {
             return Tensor({shape, parse_dtype(dtype)});
           }),
           py::arg("shape"), py::arg("dtype") = "float32", "Zero-filled.")
      .def_static("from_array", &tensor_from, py::arg("array"), "Copies a contiguous array.")
      .def_property_readonly("shape", [](const Tensor& t) { return to_tuple(t.shape()); })
      .def_property_readonly("dtype", [](const Tensor& t) { return long_name(t.dtype()); })
      .def_property_readonly("bytes", &Tensor::bytes)
      .def_property_readonly("version", &Tensor::version)
      .def("clone", &Tensor::clone, "A copy with its own storage.")
      .def("shares_storage_with", &Tensor::shares_storage_with, py::arg("other"))
      .def(
          "assign",
          [](Tensor& t, const py::array& array) {
            Shape shape(array.shape(), array.shape() + array.ndim());
            const DType dtype = parse_dtype(py::str(array.dtype()).cast<std::string>());
            if (shape != t.shape())
              throw ShapeError("assign: array is " + to_string(shape) + ", the tensor " +
                               to_string(t.shape()));
            if (dtype != t.dtype())
              throw DTypeError(std::string("assign: array is ") + long_name(dtype) +
                               ", the tensor " + long_name(t.dtype()));
            if (!(array.flags() & py::array::c_style))
              throw ArgumentError("assign: the array must be contiguous");
            std::memcpy(t.mutable_raw(), array.data(), t.bytes());
          },
          py::arg("array"), "Overwrites the values in place.")
      .def(
          "fill",
          [](Tensor& t, const Initializer& init, std::uint64_t seed, const std::string& name) {
            py::gil_scoped_release nogil;
            fill(t, init, seed, stream_of(name));
          },
          py::arg("init"), py::arg("seed"), py::arg("name"), "Draws fresh values.")
      .def(
          "view",
          [](const py::object& self) {
            py::array view(describe(self.cast<const Tensor&>(), true), self);
            view.attr("setflags")(py::arg("write") = false);
            return view;
          },
          "Read-only array over the same memory.")
      .def_buffer([](Tensor& t) { return describe(t, true); });
}

}  // namespace pycnn::bindings
