#include "bindings/module.h"

PYBIND11_MODULE(_core, m) {
  using namespace pycnn::bindings;
  m.doc() =
      "The compiled core of pycnn. Use the package's own modules; this one is not a public "
      "interface.";
  m.attr("version") = pycnn::version();
  bind_errors(m);
  bind_tensor(m);
  bind_ops(m);
  bind_graph(m);
  bind_composites(m);
  bind_program(m);
  bind_checkpoint(m);
}
