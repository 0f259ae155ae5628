#include "pycnn/version.h"

namespace pycnn {

const char* version() noexcept { return PYCNN_VERSION; }

}  // namespace pycnn
