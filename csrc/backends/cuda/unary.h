#pragma once
#include "backends/cuda/numbers.h"
#include "backends/unary_form.h"

namespace pycnn {
struct DeviceQueue;
}

// Functions of one number that stand alone (ops::Unary). Results may lie on inputs.
namespace pycnn::cuda {

struct UnaryFunction {
  UnaryForm form;
  float a, b;
};
void unary(DeviceQueue& queue, Image image, const UnaryFunction& function, const void* input,
           void* output, std::int64_t count);
void unary_grad(DeviceQueue& queue, Image image, const UnaryFunction& function, const void* input,
                const void* grad_output, void* grad_input, std::int64_t count);

}  // namespace pycnn::cuda
