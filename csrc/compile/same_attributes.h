#pragma once
#include "pycnn/ops.h"

namespace pycnn {

// Whether two ops are of one kind with equal attributes.
bool same_attributes(const Op& a, const Op& b);

}  // namespace pycnn
