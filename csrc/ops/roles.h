#pragma once
#include <string>

#include "pycnn/ops.h"

namespace pycnn::ops {

// What input i of an op is called and how its axes read: {"weight", "(OC, KH, KW, IC / groups)"}.
// `axes` is empty where any shape is accepted.
struct Role {
  std::string name;
  std::string axes;
};
Role input_role(const Op& op, std::size_t i, std::size_t count);

// One line per input, each starting with a line break: "\n  input  f32(8, 3, 9, 9) read as (N, H,
// W, C)".
std::string describe_inputs(const Op& op, Specs inputs);

}  // namespace pycnn::ops
