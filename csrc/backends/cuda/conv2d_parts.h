#pragma once
#include <functional>

#include "backends/cuda/conv2d_call.h"

// Convolutions whose images are parts of larger ones (ConvShape::input_step and the like), by
// kernels that want pixels to follow one another: images are gathered in scratch, and what is made
// there is put where it belongs. A batch norm's input (Measure::normed) stays where it is.
namespace pycnn::cuda {

// The task whose images follow one another.
ConvTask gathered(ConvTask task);
std::int64_t gathered_scratch_bytes(const ConvTask& task);

using ConvRun = std::function<void(const ConvCall& call, std::byte* scratch)>;
// `inner` computes the gathered task; `scratch` is of gathered_scratch_bytes() and of what it
// needs. A call that measures does not do so by `inner`.
void run_gathered(DeviceQueue& queue, const ConvTask& task, const ConvCall& call,
                  std::byte* scratch, const ConvRun& inner);

}  // namespace pycnn::cuda
