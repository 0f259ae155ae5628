#include <pybind11/stl.h>

#include "bindings/module.h"

namespace pycnn::bindings {

void bind_checkpoint(py::module_& m) {
  m.def(
      "read_checkpoint",
      [](const std::string& path) {
        Checkpoint c;
        {
          py::gil_scoped_release nogil;
          c = read_checkpoint(path);
        }
        return std::pair(std::move(c.tensors), std::move(c.metadata));
      },
      py::arg("path"), "(tensors by name, metadata)");
  m.def(
      "write_checkpoint",
      [](const std::string& path, std::map<std::string, Tensor> tensors,
         std::map<std::string, std::string> metadata) {
        py::gil_scoped_release nogil;
        write_checkpoint(path, {std::move(tensors), std::move(metadata)});
      },
      py::arg("path"), py::arg("tensors"), py::arg("metadata"));
  m.def(
      "load_model",
      [](const std::string& path) {
        Model model;
        {
          py::gil_scoped_release nogil;
          model = load_model(path);
        }
        return std::tuple(std::move(model.graph), std::move(model.variables),
                          std::move(model.metadata));
      },
      py::arg("path"), "(graph, tensors by name in memory layout, metadata)");
  m.def(
      "save_model",
      [](const std::string& path, const Graph& graph, std::map<std::string, Tensor> tensors,
         std::map<std::string, std::string> metadata) {
        py::gil_scoped_release nogil;
        save_model(path, {graph, std::move(tensors), std::move(metadata)});
      },
      py::arg("path"), py::arg("graph"), py::arg("tensors"), py::arg("metadata"));
}

}  // namespace pycnn::bindings
