#pragma once
#include <string>

#include "pycnn/export.h"

namespace pycnn {

/// "MAJOR.MINOR.PATCH", the same as the Python package's `__version__`.
PYCNN_API const char* version() noexcept;

}  // namespace pycnn
