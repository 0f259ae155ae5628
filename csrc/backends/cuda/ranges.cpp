// Ranges by NVTX, whose headers find a tool at run time: without one a call does nothing. Toolkits
// of few parts lack the headers.
#include "backends/cuda/ranges.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace pycnn::cuda {

void begin_range(const char* name) noexcept { (void)nvtxRangePushA(name); }
void end_range() noexcept { (void)nvtxRangePop(); }

}  // namespace pycnn::cuda
#else
namespace pycnn::cuda {

void begin_range(const char*) noexcept {}
void end_range() noexcept {}

}  // namespace pycnn::cuda
#endif
