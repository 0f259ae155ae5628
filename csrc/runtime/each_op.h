#pragma once
#include <utility>
#include <variant>
#include <vector>

#include "pycnn/ops.h"

namespace pycnn {

// One op of each kind, with default attributes.
inline std::vector<Op> each_op() {
  return []<std::size_t... Index>(std::index_sequence<Index...>) {
    return std::vector<Op>{Op(std::in_place_index<Index>)...};
  }
  (std::make_index_sequence<std::variant_size_v<Op>>());
}

}  // namespace pycnn
