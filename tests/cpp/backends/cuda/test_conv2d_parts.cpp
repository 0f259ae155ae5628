// A library's convolutions of images that are parts of larger ones: by plans for these, and by
// plans for copies. The library is emulated (support/emulated_device.cpp).
#include "backends/cuda/check_kernel.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

void check_parts(const Op& op, const Tensors& inputs, bool has_plan = true) {
  if (!is_emulated()) return;
  const std::vector<TensorSpec> outputs = infer(op, specs_of(inputs));
  for (const char* const library : {"parts", "gather"}) {
    CAPTURE(std::string(library));
    const Variable emulated("PYCNN_EMULATED_LIBRARY", library);
    Kernel kernel;
    OnDevice how;
    how.pinned = "";
    const Tensors expected = run_on_device(op, inputs, outputs, how, kernel);
    CHECK(std::string(kernel.variant).ends_with(".cudnn"));
    const std::uint32_t reads = kernel.strided_inputs, writes = kernel.strided_outputs;
    const std::size_t whole_scratch = kernel.scratch_bytes;
    CHECK((reads & 1u) == 1u);
    how.gap = 8;
    for (const auto& [apart_inputs, apart_outputs] :
         {std::pair{reads, 0u}, std::pair{1u, 0u}, std::pair{reads & ~1u, 0u},
          std::pair{0u, writes}, std::pair{reads, writes}}) {
      how.apart_inputs = apart_inputs;
      how.apart_outputs = apart_outputs;
      for (const int device : {0, other_device()}) {
        how.device = device;
        CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), expected));
      }
      if (std::string(library) == "parts" && has_plan) CHECK(kernel.scratch_bytes == whole_scratch);
    }
    // Of all images.
    if (std::string(library) == "gather") CHECK(kernel.scratch_bytes > whole_scratch);
  }
}

}  // namespace

TEST_CASE("cuda kernels: parts of larger images for a library's plans") {
  const Shape input{3, 7, 9, 16}, weight{24, 3, 3, 16}, output{3, 7, 9, 24};
  for (const DType dtype : kImages) {
    CAPTURE(static_cast<int>(dtype));
    const auto image = [&](const Shape& shape, std::uint64_t seed) {
      return random_tensor(shape, seed, -2, 2, dtype);
    };
    const HostTensor w = coarse(weight, 2), bias = random_tensor({24}, 3);
    ops::Conv2d forward = conv({1, 1}, {1, 1, 1, 1});
    check_parts(forward, {image(input, 1), w});
    forward.epilogue.moments = true;
    check_parts(forward, {image(input, 1), w, bias});
    forward.epilogue.residual = true;
    forward.epilogue.activation = ActivationKind::kRelu;
    check_parts(forward, {image(input, 1), w, bias, image(output, 4)});
    check_parts(conv({2, 2}, {1, 1, 1, 1}), {image(input, 1), w, bias});
    ops::Conv2dGradInput backward;
    backward.padding = forward.padding;
    backward.input_size = {7, 9};
    check_parts(backward, {image(output, 5), w});
    backward.sums = {true, ActivationKind::kRelu, 0.0};
    const auto vector = [](std::uint64_t seed) { return random_tensor({16}, seed); };
    check_parts(backward, {image(output, 5), w, image(input, 6), vector(7), vector(8), vector(9)});
    ops::Conv2dGradWeight weights;
    weights.padding = forward.padding;
    weights.kernel_size = {3, 3};
    for (const bool biased : {false, true}) {
      weights.bias = biased;
      check_parts(weights, {image(input, 1), image(output, 5)});
    }
  }
  // Our own kernels join rows of few channels, which must follow one another.
  check_parts(conv({1, 1}, {1, 1, 1, 1}), {random_tensor({2, 5, 6, 4}, 1), coarse({8, 3, 3, 4}, 2)},
              false);
}
