#include <pybind11/stl.h>

#include <cctype>
#include <string>
#include <type_traits>

#include "bindings/module.h"

namespace pycnn::bindings {
namespace {

// "max_pool2d" -> "MaxPool2d"
std::string class_name(const char* op_name) {
  std::string name;
  bool upper = true;
  for (const char* c = op_name; *c; ++c) {
    if (*c == '_') {
      upper = true;
      continue;
    }
    name += upper ? static_cast<char>(std::toupper(*c)) : *c;
    upper = false;
  }
  return name;
}

template <class Field>
constexpr bool kIsSetByCompiler =
    std::is_same_v<Field, Epilogue> || std::is_same_v<Field, NormSums> ||
    std::is_same_v<Field, GradientEpilogue>;

template <class Field>
py::object field_to(const Field& field) {
  if constexpr (std::is_same_v<Field, Padding>)
    return py::make_tuple(field.top, field.bottom, field.left, field.right);
  else if constexpr (std::is_same_v<Field, Pair>)
    return py::make_tuple(field[0], field[1]);
  else if constexpr (kIsSetByCompiler<Field>)
    return py::none();
  else if constexpr (std::is_same_v<Field, ActivationKind>)
    return py::str(activation_name(field));
  else if constexpr (std::is_same_v<Field, Reduction>)
    return py::str(reduction_name(field));
  else if constexpr (std::is_same_v<Field, UnaryKind>)
    return py::str(unary_name(field));
  else if constexpr (std::is_same_v<Field, BinaryKind>)
    return py::str(binary_name(field));
  else if constexpr (std::is_same_v<Field, ResizeMode>)
    return py::str(resize_mode_name(field));
  else if constexpr (std::is_same_v<Field, ResizeGrid>)
    return py::str(resize_grid_name(field));
  else if constexpr (std::is_same_v<Field, DType>)
    return py::str(long_name(field));
  else if constexpr (std::is_same_v<Field, Shape> || std::is_same_v<Field, std::vector<double>>)
    return py::tuple(py::cast(field));
  else
    return py::cast(field);
}

template <class Field>
void field_from(const py::handle& value, Field& field) {
  if constexpr (std::is_same_v<Field, Padding>) {
    const auto sides = value.cast<std::array<std::int64_t, 4>>();
    field = {sides[0], sides[1], sides[2], sides[3]};
  } else if constexpr (kIsSetByCompiler<Field>) {
    throw ArgumentError("epilogue, sums and finish: only the compiler sets them");
  } else if constexpr (std::is_same_v<Field, ActivationKind>) {
    field = parse_activation(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, Reduction>) {
    field = parse_reduction(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, UnaryKind>) {
    field = parse_unary(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, BinaryKind>) {
    field = parse_binary(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, ResizeMode>) {
    field = parse_resize_mode(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, ResizeGrid>) {
    field = parse_resize_grid(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, DType>) {
    field = parse_dtype(value.cast<std::string>());
  } else {
    field = value.cast<Field>();
  }
}

// Called with every attribute of an op: takes those that the caller gave.
struct AttributeReader {
  const char* op;
  const py::kwargs& given;
  std::size_t known = 0;

  template <class Field>
  void operator()(const char* name, Field& field) {
    if (!given.contains(name)) return;
    ++known;
    try {
      field_from(given[name], field);
    } catch (const py::cast_error&) {
      throw py::type_error(std::string(op) + ": " + name + " cannot be " +
                           py::repr(given[name]).template cast<std::string>());
    }
  }
};

struct AttributeWriter {
  py::dict& result;

  template <class Field>
  void operator()(const char* name, const Field& field) {
    result[name] = field_to(field);
  }
};

Op with_attributes(Op op, const py::kwargs& given) {
  AttributeReader reader{op_name(op), given};
  std::visit([&](auto& alternative) { alternative.fields(alternative, reader); }, op);
  if (reader.known != given.size())
    throw py::type_error(std::string(reader.op) + ": unknown attribute");
  return op;
}

py::dict attributes_of(const Op& op) {
  py::dict result;
  AttributeWriter writer{result};
  std::visit([&](const auto& alternative) { alternative.fields(alternative, writer); }, op);
  return result;
}

}  // namespace

// One class for all ops and a function for each that makes it: "Conv2d" makes a "conv2d". A new op
// needs no line here.
void bind_ops(py::module_& m) {
  py::class_<Op>(m, "Op", "An op and its attributes.")
      .def_property_readonly("name", [](const Op& op) { return op_name(op); })
      .def("attributes", &attributes_of);
  py::list names;
  for (const Op& op : each_op()) {
    names.append(op_name(op));
    m.def(class_name(op_name(op)).c_str(),
          [&op](const py::kwargs& attributes) { return with_attributes(op, attributes); });
  }
  m.attr("op_names") = py::tuple(names);
}

}  // namespace pycnn::bindings
