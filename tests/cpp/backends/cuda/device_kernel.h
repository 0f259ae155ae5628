#pragma once
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/cuda_module.h"
#include "backends/kernel_harness.h"
#include "support/temporary_directory.h"
#include "support/variable.h"

// Runs a kernel of the CUDA module alone, on tensors that lie on the device in different ways.
namespace pycnn::testing {

using Tensors = std::vector<HostTensor>;

// A step behind it that a kernel is to do as well (Kernel::absorb), or one before it.
struct Absorbed {
  Op op;
  std::vector<TensorSpec> inputs, outputs;
  bool is_reader = true;
  int place = 0;  // Neighbour::place
};

struct OnDevice {
  int device = 0;
  int alias_output = -1, alias_input = -1;  // the output lies on the input
  const char* pinned = "reference";         // our own kernel; empty: a library's, if there is one
  // Bit i: `gap` elements lie between the pixels of input (output) i, and before the first.
  std::uint32_t apart_inputs = 0, apart_outputs = 0;
  int gap = 0;
  int shift = 0;                        // elements of each tensor's type before its first
  std::vector<Absorbed> absorbed = {};  // one after the other; not of a pinned kernel
};

// Pixels as they lie on the device, what is between them filled with ones.
struct Places {
  std::size_t pixels, pixel_bytes, stride, first = 0;
  std::int64_t pitch = 0;
  std::size_t bytes() const { return first + pixels * stride; }
};
inline Places places_of(const TensorSpec& spec, std::uint32_t apart, std::size_t index,
                        const OnDevice& how) {
  const std::size_t bytes = byte_size(spec);
  const int gap = how.gap;
  if (index >= 32 || (apart >> index & 1u) == 0 || spec.shape.empty() || bytes == 0)
    return {1, bytes, bytes, static_cast<std::size_t>(how.shift) * item_bytes(spec.dtype)};
  const auto channels = static_cast<std::size_t>(spec.shape.back());
  const std::size_t item = bytes / static_cast<std::size_t>(element_count(spec.shape));
  const std::size_t pixel = channels * item;
  const std::size_t between = static_cast<std::size_t>(gap) * item;
  return {bytes / pixel, pixel, pixel + between, between, spec.shape.back() + gap};
}

inline Tensors run_on_device(const Op& op, const Tensors& inputs,
                             const std::vector<TensorSpec>& outputs, const OnDevice& how,
                             Kernel& kernel) {
  const DeviceModule& module = cuda_module();
  std::string problem_text;
  DeviceQueue* const queue = module.open(how.device, problem_text);
  const std::vector<TensorSpec> specs = specs_of(inputs);
  Problem problem;
  problem.inputs = specs;
  problem.outputs = outputs;
  problem.pinned = how.pinned;
  problem.winograd = false;
  Selection selection;
  std::string refusal;
  const bool selected = module.select(how.device, op, problem, selection, refusal);
  INFO(refusal);
  REQUIRE(selected);
  kernel = selection.kernel;
  for (const Absorbed& step : how.absorbed) {
    const bool is_done =
        kernel.absorb != nullptr &&
        kernel.absorb(kernel, op,
                      {&step.op, step.inputs, step.outputs, step.is_reader, step.place});
    REQUIRE(is_done);
  }

  std::vector<void*> memory;
  const auto allocate = [&](std::size_t bytes) {
    memory.push_back(module.allocate(queue, bytes));
    return static_cast<std::byte*>(memory.back());
  };
  std::vector<TensorView> in, out;
  std::vector<std::vector<std::byte>> kept;  // until the copies are done
  const auto write = [&](void* target, const Places& places, const std::byte* values) {
    std::vector<std::byte> bytes(places.bytes(), std::byte{0xFF});
    for (std::size_t p = 0; p < places.pixels && values != nullptr; ++p)
      std::memcpy(bytes.data() + places.first + p * places.stride, values + p * places.pixel_bytes,
                  places.pixel_bytes);
    kept.push_back(std::move(bytes));
    module.copy_in(queue, target, kept.back().data(), kept.back().size());
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Places places = places_of(inputs[i].spec, how.apart_inputs, i, how);
    std::byte* const memory_of = allocate(places.bytes());
    in.push_back({memory_of + places.first, &inputs[i].spec, places.pitch});
    write(memory_of, places, reinterpret_cast<const std::byte*>(inputs[i].bytes.data()));
  }
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    const Places places = places_of(outputs[o], how.apart_outputs, o, how);
    if (static_cast<int>(o) == how.alias_output) {
      out.push_back({in[static_cast<std::size_t>(how.alias_input)].data, &outputs[o], 0});
      continue;
    }
    std::byte* const memory_of = allocate(places.bytes());
    out.push_back({memory_of + places.first, &outputs[o], places.pitch});
    if (places.first != 0) write(memory_of, places, nullptr);
  }
  DeviceKernelArgs args;
  args.op = &op;
  args.inputs = in;
  args.outputs = out;
  args.scratch = allocate(kernel.scratch_bytes);
  if (!kernel.plan.empty()) {
    std::byte* const plan = allocate(kernel.plan.size());
    module.copy_in(queue, plan, kernel.plan.data(), kernel.plan.size());
    args.plan = plan;
  }
  args.queue = queue;
  args.state = kernel.state.get();
  const int before = module.enter(queue);
  for (const PackedInput* const packing : {&kernel.packed, &kernel.packed_bias}) {
    if (packing->input < 0) continue;
    const auto packed = static_cast<std::size_t>(packing->input);
    DeviceKernelArgs pack = args;
    const TensorSpec spec{{static_cast<std::int64_t>(packing->bytes)}, DType::kUInt8};
    const TensorView to{allocate(packing->bytes), &spec, 0};
    pack.inputs = std::span(in).subspan(packed, 1);
    pack.outputs = {&to, 1};
    pack.scratch = allocate(packing->pack_scratch_bytes);
    if (packing->state != nullptr) pack.state = packing->state.get();
    packing->pack(pack);
    in[packed].data = to.data;
  }
  kernel.run(args);
  module.leave(queue, before);
  Tensors results;
  std::vector<std::vector<std::byte>> lying;
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    results.emplace_back(outputs[o]);
    const Places places = places_of(outputs[o], how.apart_outputs, o, how);
    lying.emplace_back(places.bytes());
    module.copy_out(queue, lying.back().data(),
                    static_cast<const std::byte*>(out[o].data) - places.first, places.bytes());
  }
  CHECK(module.wait(queue, problem_text));
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    const Places places = places_of(outputs[o], how.apart_outputs, o, how);
    auto* const values = reinterpret_cast<std::byte*>(results[o].bytes.data());
    const auto is_kept = [](std::byte b) { return b == std::byte{0xFF}; };
    const std::byte* const begin = lying[o].data();
    bool others_kept = std::all_of(begin, begin + places.first, is_kept);
    const std::size_t pixels = results[o].bytes.empty() ? 0 : places.pixels;
    for (std::size_t p = 0; p < pixels; ++p) {
      const std::byte* const from = lying[o].data() + places.first + p * places.stride;
      std::memcpy(values + p * places.pixel_bytes, from, places.pixel_bytes);
      others_kept =
          others_kept && std::all_of(from + places.pixel_bytes, from + places.stride, is_kept);
    }
    CHECK(others_kept);
  }
  for (void* const block : memory) module.release(queue, block);
  module.close(queue);
  return results;
}

// The types of the kernels that an op's own kernel launches on the emulated device, one a line.
inline std::string launched(const Op& op, const Tensors& inputs,
                            const std::vector<TensorSpec>& outputs, const OnDevice& how = {}) {
  const TemporaryDirectory directory;
  const std::string path = directory / "kernels";
  const Variable variable("PYCNN_EMULATED_KERNELS", path.c_str());
  Kernel kernel;
  run_on_device(op, inputs, outputs, how, kernel);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

constexpr DType kImages[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16};

inline ops::Conv2d conv(Pair stride, Padding padding, Pair dilation = {1, 1},
                        std::int64_t groups = 1) {
  ops::Conv2d op;
  op.stride = stride;
  op.padding = padding;
  op.dilation = dilation;
  op.groups = groups;
  return op;
}

// A gradient's op with the windows of a convolution.
template <class Gradient>
Gradient gradient_of(const ops::Conv2d& op) {
  Gradient gradient;
  gradient.stride = op.stride;
  gradient.padding = op.padding;
  gradient.dilation = op.dilation;
  gradient.groups = op.groups;
  return gradient;
}

}  // namespace pycnn::testing
