#include "pycnn/composites.h"

#include <pybind11/stl.h>

#include "bindings/module.h"

namespace pycnn::bindings {
namespace {

using composites::BlockTensor;
using composites::Inception;
using composites::Residual;

template <class Block>
void bind_block(py::class_<Block>& c) {
  c.def_property_readonly("out_channels", &Block::out_channels);
  c.def("parameters", [](const Block& block) { return composites::parameters(block); });
  c.def(
      "build",
      [](const Block& block, Graph& graph, const Symbol& input, const std::vector<Symbol>& tensors,
         const std::string& prefix, const std::string& origin) {
        return composites::build(block, graph, input, tensors, prefix, origin);
      },
      py::arg("graph"), py::arg("input"), py::arg("tensors"), py::arg("prefix") = "",
      py::arg("origin") = "");
}

}  // namespace

void bind_composites(py::module_& m) {
  py::class_<BlockTensor>(m, "BlockTensor", "One tensor of a block.")
      .def_readonly("name", &BlockTensor::name)
      .def_property_readonly("shape", [](const BlockTensor& t) { return to_tuple(t.spec.shape); })
      .def_readonly("initializer", &BlockTensor::initializer)
      .def_property_readonly("layout",
                             [](const BlockTensor& t) {
                               return t.layout == ParameterLayout::kConvWeight ? "conv" : "plain";
                             })
      .def_readonly("trainable", &BlockTensor::trainable);

  py::class_<Residual> residual(m, "Residual", "Residual block.");
  residual.def(py::init([](const std::string& kind, std::int64_t in_channels, std::int64_t channels,
                           std::int64_t stride, std::int64_t groups, std::int64_t base_width,
                           double eps, double momentum, bool zero_init_residual,
                           const std::string& shortcut, bool pre_activation) {
                 if (kind != "basic" && kind != "bottleneck")
                   throw ArgumentError("residual block: kind '" + kind +
                                       "' is not one of basic, bottleneck");
                 if (shortcut != "projection" && shortcut != "zero_pad")
                   throw ArgumentError("residual block: shortcut '" + shortcut +
                                       "' is not one of projection, zero_pad");
                 return Residual{
                     kind == "basic" ? Residual::Kind::kBasic : Residual::Kind::kBottleneck,
                     in_channels,
                     channels,
                     stride,
                     groups,
                     base_width,
                     eps,
                     momentum,
                     zero_init_residual,
                     shortcut == "projection" ? Residual::Shortcut::kProjection
                                              : Residual::Shortcut::kZeroPad,
                     pre_activation};
               }),
               py::kw_only(), py::arg("kind") = "basic", py::arg("in_channels") = 64,
               py::arg("channels") = 64, py::arg("stride") = 1, py::arg("groups") = 1,
               py::arg("base_width") = 64, py::arg("eps") = 1e-5, py::arg("momentum") = 0.1,
               py::arg("zero_init_residual") = false, py::arg("shortcut") = "projection",
               py::arg("pre_activation") = false);
  bind_block(residual);

  py::class_<Inception> inception(m, "Inception", "Inception block.");
  inception.def(py::init([](std::int64_t in_channels, std::int64_t branch1, std::int64_t reduce3,
                            std::int64_t branch3, std::int64_t reduce5, std::int64_t branch5,
                            std::int64_t pool, std::int64_t branch5_kernel, bool batch_norm) {
                  return Inception{in_channels, branch1, reduce3,        branch3,   reduce5,
                                   branch5,     pool,    branch5_kernel, batch_norm};
                }),
                py::kw_only(), py::arg("in_channels") = 192, py::arg("branch1") = 64,
                py::arg("reduce3") = 96, py::arg("branch3") = 128, py::arg("reduce5") = 16,
                py::arg("branch5") = 32, py::arg("pool") = 32, py::arg("branch5_kernel") = 5,
                py::arg("batch_norm") = false);
  bind_block(inception);
}

}  // namespace pycnn::bindings
