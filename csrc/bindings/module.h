#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "pycnn/pycnn.h"

namespace pycnn::bindings {

namespace py = pybind11;

void bind_errors(py::module_& m);
void bind_tensor(py::module_& m);
void bind_ops(py::module_& m);
void bind_graph(py::module_& m);
void bind_composites(py::module_& m);
void bind_program(py::module_& m);
void bind_checkpoint(py::module_& m);

// Shapes are tuples on the Python side, element types their NumPy names.
py::tuple to_tuple(const Shape& shape);
py::dtype numpy_dtype(DType dtype);
int numpy_number(DType dtype);  // of that type

// "inference" or "training"; throws ArgumentError for anything else.
Mode parse_mode(const std::string& mode);

}  // namespace pycnn::bindings
