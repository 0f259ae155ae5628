#pragma once
#include "backends/cuda/numbers.h"

namespace pycnn {
struct DeviceQueue;
}

// Rows by their numbers. The tables are on the device.
namespace pycnn::cuda {

// output (places, items) = the rows of input (rows, items) that `indices` names; -1 gives zeros.
void take(DeviceQueue& queue, int item_bytes, const void* input, const std::int64_t* indices,
          void* output, std::int64_t places, std::int64_t items);

// A row of grad_input sums the rows of grad_output at place[first[row]] up to place[first[row +
// 1]], in this order.
void take_grad(DeviceQueue& queue, const float* grad_output, const std::int64_t* first,
               const std::int64_t* place, float* grad_input, std::int64_t rows, std::int64_t items);

}  // namespace pycnn::cuda
