#include <pybind11/stl.h>

#include "bindings/module.h"

namespace pycnn::bindings {
namespace {

const char* kind_name(NodeKind kind) {
  constexpr const char* kNames[] = {"input", "parameter", "buffer", "op"};
  return kNames[static_cast<int>(kind)];
}

ParameterLayout parse_layout(const std::string& layout) {
  if (layout == "plain") return ParameterLayout::kPlain;
  if (layout == "conv") return ParameterLayout::kConvWeight;
  throw ArgumentError("layout: '" + layout + "' is not one of plain, conv");
}

py::tuple spec_tuple(const TensorSpec& spec) {
  return py::make_tuple(to_tuple(spec.shape), long_name(spec.dtype));
}

py::dict describe(const Graph& graph, const Node& node) {
  py::dict d;
  d["name"] = node.name;
  d["kind"] = kind_name(node.kind);
  d["origin"] = node.origin;
  d["layout"] = node.layout == ParameterLayout::kConvWeight ? "conv" : "plain";
  py::list inputs, outputs;
  for (const Symbol& s : node.inputs) inputs.append(s);
  for (const TensorSpec& s : node.outputs) outputs.append(spec_tuple(s));
  d["inputs"] = inputs;
  d["outputs"] = outputs;
  if (node.kind == NodeKind::kOp) {
    std::vector<TensorSpec> specs;
    for (const Symbol& s : node.inputs) specs.push_back(graph.spec(s));
    const Cost c = cost(node.op, specs, node.outputs);
    d["op"] = node.op;
    d["macs"] = c.macs;
    d["other_flops"] = c.other_flops;
    d["bytes"] = c.bytes;
  }
  return d;
}

}  // namespace

Mode parse_mode(const std::string& mode) {
  if (mode == "inference") return Mode::kInference;
  if (mode == "training") return Mode::kTraining;
  throw ArgumentError("mode: '" + mode + "' is not one of inference, training");
}

void bind_graph(py::module_& m) {
  py::class_<Symbol>(m, "SymbolId", "A value within one graph.")
      .def(py::init([](int node, int output, std::uint32_t graph) {
             return Symbol{node, output, graph};
           }),
           py::arg("node"), py::arg("output"), py::arg("graph"))
      .def_readonly("node", &Symbol::node)
      .def_readonly("output", &Symbol::output)
      .def_readonly("graph", &Symbol::graph)
      .def(
          "result",
          [](Symbol s, int k) {
            return Symbol{s.node, k, s.graph};
          },
          py::arg("index"), "Another output of the node.");

  py::class_<Graph>(m, "Graph", "Recorded network.")
      .def(py::init<>())
      .def(
          "input",
          [](Graph& g, std::string name, Shape shape, const std::string& dtype) {
            return g.input(std::move(name), {std::move(shape), parse_dtype(dtype)});
          },
          py::arg("name"), py::arg("shape"), py::arg("dtype"))
      .def(
          "parameter",
          [](Graph& g, std::string name, Shape shape, const std::string& dtype,
             const std::string& layout) {
            return g.parameter(std::move(name), {std::move(shape), parse_dtype(dtype)}, {},
                               parse_layout(layout));
          },
          py::arg("name"), py::arg("shape"), py::arg("dtype"), py::arg("layout") = "plain")
      .def(
          "buffer",
          [](Graph& g, std::string name, Shape shape, const std::string& dtype) {
            return g.buffer(std::move(name), {std::move(shape), parse_dtype(dtype)});
          },
          py::arg("name"), py::arg("shape"), py::arg("dtype"))
      .def(
          "add",
          [](Graph& g, const Op& op, std::vector<Symbol> inputs, std::string name,
             std::string origin) {
            return g.add(op, std::move(inputs), std::move(name), std::move(origin));
          },
          py::arg("op"), py::arg("inputs"), py::arg("name") = "", py::arg("origin") = "")
      .def("set_output", &Graph::set_output, py::arg("name"), py::arg("value"))
      .def("clear_outputs", &Graph::clear_outputs)
      .def("assign", &Graph::assign, py::arg("variable"), py::arg("value"))
      .def("clear_assignments", &Graph::clear_assignments)
      .def(
          "spec", [](const Graph& g, const Symbol& s) { return spec_tuple(g.spec(s)); },
          py::arg("symbol"), "(shape, dtype)")
      .def("find", &Graph::find, py::arg("name"))
      .def("contains", &Graph::contains, py::arg("name"))
      .def(
          "nodes",
          [](const Graph& g) {
            py::list result;
            for (const Node& node : g.nodes()) result.append(describe(g, node));
            return result;
          },
          "One dict a node, in order.")
      .def("outputs", &Graph::outputs)
      .def("copy", [](const Graph& g) { return g; })
      .def(
          "with_inputs",
          [](const Graph& g, const std::map<std::string, std::pair<Shape, std::string>>& inputs) {
            std::map<std::string, TensorSpec> specs;
            for (const auto& [name, spec] : inputs)
              specs[name] = {spec.first, parse_dtype(spec.second)};
            return g.with_inputs(specs);
          },
          py::arg("inputs"))
      .def(
          "specialize",
          [](const Graph& g, const std::string& mode) { return specialize(g, parse_mode(mode)); },
          py::arg("mode"))
      .def(
          "lower_precision",
          [](const Graph& g, const std::string& dtype) {
            return lower_precision(g, parse_dtype(dtype));
          },
          py::arg("dtype"), "Activations as bfloat16 or float16.")
      .def(
          "differentiate",
          [](Graph& g, const Symbol& loss, const std::vector<Symbol>& wrt,
             const std::string& relu_rule) {
            return differentiate(g, loss, wrt, {parse_relu_rule(relu_rule)});
          },
          py::arg("loss"), py::arg("wrt"), py::arg("relu_rule") = "exact")
      .def("text", &Graph::text)
      .def_static(
          "parse", [](const std::string& text) { return Graph::parse(text); }, py::arg("text"));
}

}  // namespace pycnn::bindings
