#pragma once
#include <map>
#include <string>

#include "pycnn/graph.h"

namespace pycnn {

using Pins = std::map<std::string, std::string>;  // CompileOptions::variants

// Whether a kernel was asked for by name: such a one may not know what a pass would ask of it.
inline bool is_pinned(const Pins& pins, const std::string& name, const std::string& op_name) {
  return pins.contains(name) || pins.contains(op_name) || pins.contains("*");
}
inline bool is_pinned(const Pins& pins, const Node& node) {
  return is_pinned(pins, node.name, op_name(node.op));
}

}  // namespace pycnn
