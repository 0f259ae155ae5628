#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/cpu_features.h"
#include "pycnn/ops.h"

// What the rest of the engine knows of a device: it chooses a kernel for a problem, and a kernel is
// a function pointer with its wishes (scratch, packed weights, in-place).
namespace pycnn {

struct TensorView {
  void* data = nullptr;
  const TensorSpec* spec = nullptr;
  // Elements from one position of all axes but the last to the next, where the tensor is a part of
  // a larger one; 0: they follow one another. Kernels that do not declare it see 0.
  std::int64_t pixel_pitch = 0;

  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
  std::int64_t dim(int axis) const noexcept { return spec->shape[static_cast<std::size_t>(axis)]; }
  // Of a tensor of at least one axis.
  std::int64_t pitch() const noexcept {
    return pixel_pitch != 0 ? pixel_pitch : spec->shape.back();
  }
};

struct KernelArgs {
  const Op* op = nullptr;
  std::span<const TensorView> inputs;
  std::span<const TensorView> outputs;
  std::byte* scratch = nullptr;     // 64-byte aligned, contents undefined
  int threads = 1;                  // at most; the result must not depend on it
  const std::byte* plan = nullptr;  // what `select` computed once for this problem (Kernel::plan)
};

using KernelFunction = void (*)(const KernelArgs&) noexcept;

struct Kernel;

// Several steps of one kind, each of whose kernels has the same `Kernel::join`, may be one. Its
// inputs are those of the first, then those of the second ..., its outputs likewise, and so is
// Kernel::in_place, which it keeps of one of them. What some of them round (Kernel::rounds) comes
// behind all other outputs. The kernel is made for these in their order.
struct Joining {
  const Op* op;
  const Kernel* kernel;
};
using JoinFunction = Kernel (*)(std::span<const Joining> steps) noexcept;

// A kernel may want one of its inputs in another form, made once per change of that input
// (inference: once; training: once per step). The packing function sees the original as inputs[0]
// and fills outputs[0], a u8 vector of `bytes`. The kernel then finds the packed data in place of
// input `input`, whose view keeps the ORIGINAL spec.
struct PackedInput {
  int input = -1;  // -1: nothing to pack
  std::size_t bytes = 0;
  KernelFunction pack = nullptr;
  std::size_t pack_scratch_bytes = 0;
  const char* format =
      "";  // steps with the same format, op attributes and source share one packing
  // Optional: what runs, with so much scratch, where the input changes in each run. It finds the
  // input as it is and packs a part at a time, so that no packing stands in memory.
  KernelFunction run_unpacked = nullptr;
  std::size_t unpacked_scratch_bytes = 0;
  // Of the step that packs: Kernel::join, and Kernel::state where it is not that of the reader.
  JoinFunction join = nullptr;
  std::shared_ptr<const void> state;
  // Set where what is packed is the input itself, each element rounded to this type, and whatever
  // stands behind the last one is never looked at.
  std::optional<DType> rounded = {};
};

// A step that gives a kernel its input `place`, or alone takes its output `place`.
struct Neighbour {
  const Op* op = nullptr;
  Specs inputs;
  Specs outputs;
  bool is_reader = false;
  int place = 0;
};

struct Kernel {
  const char* variant = "";
  KernelFunction run = nullptr;
  std::size_t scratch_bytes = 0;  // total, for Problem::threads threads
  PackedInput packed;
  PackedInput packed_bias;  // of another input, likewise
  // Bit i of entry o: output o may be the same memory as input i (same size; the input dies here).
  std::vector<std::uint32_t> in_place;
  // Bit i: input (output) i may have a TensorView::pixel_pitch. What lies between the pixels of an
  // output belongs to others, who write it meanwhile.
  std::uint32_t strided_inputs = 0;
  std::uint32_t strided_outputs = 0;
  // Optional, of float32 kernels: what runs, with so much scratch, where all inputs are bfloat16.
  // It widens no more of them at a time than it works on, and gives the same results.
  KernelFunction run_widening = nullptr;
  std::size_t widening_scratch_bytes = 0;
  // What the addresses of inputs and outputs are a multiple of, which parts of others need not be.
  std::size_t alignment = 1;
  // Small immutable data computed at selection (tables of offsets, block sizes); the program owns
  // it, 64-byte aligned.
  std::vector<std::byte> plan;
  // What the plan points at, if anything; lives as long as the kernel.
  std::shared_ptr<const void> state;
  JoinFunction join = nullptr;  // null: it stays a step of its own
  // Whether the kernel, which is one for `op`, can do the neighbour's work as well; changes it if
  // so. It then reads the input of a neighbour of one input in place of its own, or writes that of
  // a reader whose last input it made, whose other inputs come behind all of its own.
  // A neighbour of several inputs that gives it its input 0 it makes itself: it then finds the
  // neighbour's first input in place of that, the others behind all of its own, and writes the
  // neighbour's outputs behind its own, for those who read them later.
  bool (*absorb)(Kernel& kernel, const Op& op, const Neighbour& neighbour) noexcept = nullptr;
  // Whether the kernel, of an update, can write its output 0 once more, rounded to `dtype`, as an
  // output behind all of its own (PackedInput::rounded); changes it if so.
  bool (*rounds)(Kernel& kernel, DType dtype) noexcept = nullptr;
  // Set where the kernel makes output 0, which is float32, in this type of 16 bits and widens it by
  // a pass of its own: it spares that where its view says that the output is of this type.
  std::optional<DType> widened_from = {};
  // Whether the kernel, of an update or a ClipFactor, also takes a gradient, its input 1 or any of
  // them, whose view says that it is of 16 bits.
  bool takes_narrow_gradient = false;
  // The only pixel_pitch that output 0 may have (strided_outputs); 0: any.
  std::int64_t output_pitch = 0;
  // What runs where output 0 has that pixel_pitch; null: `variant`.
  const char* apart_variant = nullptr;

  // Of what is read in place of that input; null: the input itself.
  const PackedInput* packing_of(int input) const noexcept {
    if (input >= 0 && packed.input == input) return &packed;
    return input >= 0 && packed_bias.input == input ? &packed_bias : nullptr;
  }
};

struct Problem {
  Specs inputs;
  Specs outputs;
  Isa isa = Isa::kBaseline;
  int threads = 1;
  // Pins: a variant's name, "reference", or empty.
  std::string_view pinned;
  bool winograd = true;  // whether kernels may round more for fewer multiplications
  // When the program's first kernel was asked for: choices that take long have an end.
  std::chrono::steady_clock::time_point began = std::chrono::steady_clock::now();
  // The pixel_pitch that output 0 has if it becomes a part of the concat that reads it; 0: none
  // does. Whether it becomes one is not known yet.
  std::int64_t output_pitch = 0;
  bool tf32 = false;  // whether tensor cores may round float32 to TF32
};

struct Refusal {
  std::string variant;
  std::string reason;
};

struct Selection {
  Kernel kernel;
  std::vector<Refusal> refused;  // better variants and why not
  // Lines for Program::warnings: what kernels of the op would be taken from and is not there.
  std::vector<std::string> missing = {};
};

// Convolutions of one image by the same window and without groups, which could be one.
struct Siblings {
  const ops::Conv2d* op = nullptr;
  TensorSpec input;
  Shape weight;  // of the first
  struct Result {
    std::int64_t channels = 0;
    std::vector<const Op*> readers = {};  // behind an activation that all have
    bool is_kept = false;                 // the graph itself wants it, by itself
  };
  std::vector<Result> results;
  bool training = false;  // gradients are wanted, too
};

struct Backend {
  const char* name;
  // Throws UnsupportedError when no variant accepts, ArgumentError for an unknown pinned name.
  Selection (*select)(const Op&, const Problem&);
  // Names of an op's variants, best first; the last is the reference.
  std::vector<std::string> (*variants)(const Op&);
  // Whether siblings are computed faster as one, by their shapes alone.
  bool (*merges)(const Siblings&);
  // Whether a Conv2d (Conv2dGradInput) that also gives moments (sums) of its result spares more
  // than that costs, by the shapes alone. The op and problem are those of one that does not.
  bool (*measures)(const Op&, const Problem&);
  // Whether a Conv2dGradInput that is finished is made by the same kernel as one that is not, which
  // then does that to what it stores. The problem is the one of the finished.
  bool (*finishes)(const ops::Conv2dGradInput&, const Problem&);
  // Whether a BatchNormMaxPool (BatchNormMaxPoolGrad) costs no more than the ops that it is made
  // of, by the shapes alone, and rounds no less often; but for the pool's gradient on CUDA, which
  // stays float32 until it is added up.
  bool (*pools)(const Op&, const Problem&);
};

const Backend& cpu_backend();

}  // namespace pycnn
