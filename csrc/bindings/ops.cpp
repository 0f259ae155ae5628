#include <pybind11/stl.h>

#include <cctype>
#include <string>
#include <type_traits>
#include <unordered_map>

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
py::object field_to(const Field& field) {
  if constexpr (std::is_same_v<Field, Padding>)
    return py::make_tuple(field.top, field.bottom, field.left, field.right);
  else if constexpr (std::is_same_v<Field, Pair>)
    return py::make_tuple(field[0], field[1]);
  else if constexpr (std::is_same_v<Field, Epilogue>)
    return py::none();
  else if constexpr (std::is_same_v<Field, ActivationKind>)
    return py::str(activation_name(field));
  else if constexpr (std::is_same_v<Field, Reduction>)
    return py::str(reduction_name(field));
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
  } else if constexpr (std::is_same_v<Field, Epilogue>) {
    throw ArgumentError("epilogue: only the compiler sets it");
  } else if constexpr (std::is_same_v<Field, ActivationKind>) {
    field = parse_activation(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, Reduction>) {
    field = parse_reduction(value.cast<std::string>());
  } else if constexpr (std::is_same_v<Field, DType>) {
    field = parse_dtype(value.cast<std::string>());
  } else {
    field = value.cast<Field>();
  }
}

// Every class comes from the op's own field list, so a new op needs no line here.
template <class T>
void bind_op(py::module_& m) {
  py::class_<T>(m, class_name(T::kName).c_str())
      .def(py::init([](const py::kwargs& attributes) {
        T op;
        std::size_t known = 0;
        T::fields(op, [&](const char* name, auto& field) {
          if (!attributes.contains(name)) return;
          ++known;
          try {
            field_from(attributes[name], field);
          } catch (const py::cast_error&) {
            throw py::type_error(std::string(T::kName) + ": " + name + " cannot be " +
                                 py::repr(attributes[name]).template cast<std::string>());
          }
        });
        if (known != attributes.size())
          throw py::type_error(std::string(T::kName) + ": unknown attribute");
        return op;
      }))
      .def_property_readonly_static("name", [](const py::object&) { return T::kName; })
      .def("attributes", [](const T& op) {
        py::dict result;
        T::fields(op, [&](const char* name, const auto& field) { result[name] = field_to(field); });
        return result;
      });
}

template <class... Ts>
void bind_all(py::module_& m, std::variant<Ts...>*) {
  (bind_op<Ts>(m), ...);
}

using FromPython = Op (*)(const py::handle&);

template <class... Ts>
std::unordered_map<PyTypeObject*, FromPython> converters(std::variant<Ts...>*) {
  return {{reinterpret_cast<PyTypeObject*>(py::type::of<Ts>().ptr()),
           [](const py::handle& h) -> Op { return h.cast<const Ts&>(); }}...};
}

}  // namespace

Op op_from(const py::handle& object) {
  static const auto table = converters(static_cast<Op*>(nullptr));
  const auto it = table.find(Py_TYPE(object.ptr()));
  if (it == table.end())
    throw py::type_error("expected an op, got " + py::repr(object).cast<std::string>());
  return it->second(object);
}

py::object op_to(const Op& op) {
  return std::visit([](const auto& alternative) { return py::cast(alternative); }, op);
}

void bind_ops(py::module_& m) { bind_all(m, static_cast<Op*>(nullptr)); }

}  // namespace pycnn::bindings
