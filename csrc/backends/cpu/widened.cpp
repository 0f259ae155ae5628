#include "backends/cpu/widened.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "backends/cpu/conv2d_winograd.h"
#include "backends/cpu/convert.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"
#include "pycnn/error.h"

namespace pycnn::cpu {
namespace {

constexpr std::size_t kMostTensors = 8;
constexpr std::size_t kNowhere = ~std::size_t{0};
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kImageAxes = 4;
constexpr std::size_t kWeightInput = 1;
// Of the images of a slice, widened: they stay in a cache near the core beside what a kernel needs.
constexpr std::int64_t kSliceFloats = 64 * 1024;
constexpr std::int64_t kManyWeights = 128 * 1024;  // floats
constexpr std::int64_t kImagesOfManyWeights = 4;   // at least, of a slice

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A tensor as the float32 kernel sees it, and where in scratch it lies if it is converted.
struct Converted {
  TensorSpec spec;
  std::size_t offset = kNowhere;
  bool rounded = false;  // a weight: float32 already
  bool sliced = false;   // some images at a time, in the scratch of a thread
};

// The float32 kernel, and its plan where it finds it.
struct Inner {
  Kernel kernel;
  std::vector<TensorSpec> inputs, outputs;
  std::vector<std::byte> plan_memory;
  const std::byte* plan = nullptr;
};

struct Widened {
  std::vector<Converted> inputs, outputs;
  Inner inner;                    // of all images, or of those of a slice
  Inner smaller;                  // of the last slices, which have an image less, if there are any
  std::size_t inner_scratch = 0;  // where its scratch begins
  std::size_t pack_scratch = 0;
  const ConvertFunctions* functions = nullptr;
  std::string variant;
  void (*store)(const float*, BFloat16*, std::int64_t) = nullptr;
  std::int64_t images = 0, slices = 0;  // 0: all images at once
  std::size_t worker_scratch = 0;       // of each thread, with slices
  std::size_t shared_scratch = 0;       // before those of the threads
};

const ConvertFunctions& functions_of(Isa isa) {
  PYCNN_IF_AVX512(if (isa >= Isa::kAvx512) return avx512::kConvert;)
  PYCNN_IF_AVX2(if (isa >= Isa::kAvx2) return avx2::kConvert;)
  static_cast<void>(isa);
  return baseline::kConvert;
}

const Widened& widened_of(const KernelArgs& args) noexcept {
  const Widened* widened = nullptr;
  std::memcpy(&widened, args.plan, sizeof widened);
  return *widened;
}

// Calls f(begin, n) for pieces of a tensor.
template <class F>
void for_pieces(int threads, const TensorView& view, F&& f) noexcept {
  parallel_ranges(threads, count_of(view), kElementGrain,
                  [&](std::int64_t begin, std::int64_t end) { f(begin, end - begin); });
}

// The tensor as a float32 one in scratch.
TensorView converted(const KernelArgs& args, const Widened& widened, const TensorView& source,
                     const Converted& to, std::size_t offset) noexcept {
  const ConvertFunctions& functions = *widened.functions;
  auto* const target = reinterpret_cast<float*>(args.scratch + offset);
  for_pieces(args.threads, source, [&](std::int64_t begin, std::int64_t n) {
    if (to.rounded)
      functions.round(source.as<const float>() + begin, target + begin, n);
    else
      functions.widen(source.as<const BFloat16>() + begin, target + begin, n);
  });
  return {target, &to.spec};
}

void run_widened(const KernelArgs& args) noexcept {
  const Widened& widened = widened_of(args);
  TensorView inputs[kMostTensors], outputs[kMostTensors];
  for (std::size_t i = 0; i < args.inputs.size(); ++i) {
    const Converted& to = widened.inputs[i];
    inputs[i] = to.offset == kNowhere ? TensorView{args.inputs[i].data, &to.spec}
                                      : converted(args, widened, args.inputs[i], to, to.offset);
  }
  for (std::size_t i = 0; i < args.outputs.size(); ++i) {
    const Converted& from = widened.outputs[i];
    outputs[i] = {from.offset == kNowhere ? args.outputs[i].data : args.scratch + from.offset,
                  &from.spec};
  }
  widened.inner.kernel.run({args.op,
                            {inputs, args.inputs.size()},
                            {outputs, args.outputs.size()},
                            args.scratch + widened.inner_scratch,
                            args.threads,
                            widened.inner.plan});
  for (std::size_t i = 0; i < args.outputs.size(); ++i) {
    if (widened.outputs[i].offset == kNowhere) continue;
    for_pieces(args.threads, args.outputs[i], [&](std::int64_t begin, std::int64_t n) {
      widened.store(outputs[i].as<const float>() + begin, args.outputs[i].as<BFloat16>() + begin,
                    n);
    });
  }
}

// One slice of images after the other, each thread with scratch of its own: what is widened stays
// in a cache near the core.
void run_slices(const KernelArgs& args) noexcept {
  const Widened& widened = widened_of(args);
  const ConvertFunctions& functions = *widened.functions;
  TensorView shared[kMostTensors];
  for (std::size_t i = 0; i < args.inputs.size(); ++i) {
    const Converted& to = widened.inputs[i];
    if (to.sliced) continue;
    shared[i] = to.offset == kNowhere ? TensorView{args.inputs[i].data, &to.spec}
                                      : converted(args, widened, args.inputs[i], to, to.offset);
  }
  const auto from_image = [&](const TensorView& view, std::int64_t n) {
    const auto elements = static_cast<std::size_t>(n * (count_of(view) / widened.images));
    return static_cast<std::byte*>(view.data) + elements * item_bytes(view.spec->dtype);
  };
  const auto run_slice = [&](std::int64_t index, int worker) {
    const std::int64_t least = widened.images / widened.slices;
    const std::int64_t larger = widened.images % widened.slices;
    const std::int64_t first = index * least + std::min(index, larger);
    const Inner& inner = larger == 0 || index < larger ? widened.inner : widened.smaller;
    std::byte* const scratch = args.scratch + widened.shared_scratch +
                               static_cast<std::size_t>(worker) * widened.worker_scratch;
    TensorView inputs[kMostTensors], outputs[kMostTensors];
    for (std::size_t i = 0; i < args.inputs.size(); ++i) {
      const Converted& to = widened.inputs[i];
      if (!to.sliced) {
        inputs[i] = shared[i];
        continue;
      }
      std::byte* const source = from_image(args.inputs[i], first);
      inputs[i] = {to.offset == kNowhere ? source : scratch + to.offset, &inner.inputs[i]};
      if (to.offset != kNowhere)
        functions.widen(reinterpret_cast<const BFloat16*>(source), inputs[i].as<float>(),
                        count_of(inputs[i]));
    }
    for (std::size_t i = 0; i < args.outputs.size(); ++i) {
      const std::size_t offset = widened.outputs[i].offset;
      outputs[i] = {offset == kNowhere ? from_image(args.outputs[i], first) : scratch + offset,
                    &inner.outputs[i]};
    }
    inner.kernel.run({args.op,
                      {inputs, args.inputs.size()},
                      {outputs, args.outputs.size()},
                      scratch + widened.inner_scratch,
                      1,
                      inner.plan});
    for (std::size_t i = 0; i < args.outputs.size(); ++i) {
      if (widened.outputs[i].offset == kNowhere) continue;
      widened.store(outputs[i].as<const float>(),
                    reinterpret_cast<BFloat16*>(from_image(args.outputs[i], first)),
                    count_of(outputs[i]));
    }
  };
  parallel_for(args.threads, widened.slices, run_slice);
}

// The inner kernel's packing, of the rounded weight.
void pack_widened(const KernelArgs& args) noexcept {
  const Widened& widened = widened_of(args);
  const PackedInput& packed = widened.inner.kernel.packed;
  const Converted& to = widened.inputs[static_cast<std::size_t>(packed.input)];
  const TensorView source = converted(args, widened, args.inputs[0], to, widened.pack_scratch);
  packed.pack(
      {args.op, {&source, 1}, args.outputs, args.scratch, args.threads, widened.inner.plan});
}

// Which input is a weight that the units for bfloat16 would take rounded, or -1.
int weight_of(std::string_view op) {
  for (const char* name : {ops::Conv2d::kName, ops::Conv2dGradInput::kName, ops::Dense::kName,
                           ops::DenseGradInput::kName})
    if (op == name) return 1;
  return -1;
}

bool is_convolution(std::string_view op) {
  return op == ops::Conv2d::kName || op == ops::Conv2dGradInput::kName;
}

// Ops that compute each image by itself, from images alone.
bool goes_by_image(std::string_view op) {
  for (const char* name :
       {ops::MaxPool2d::kName, ops::MaxPool2dGrad::kName, ops::AvgPool2d::kName,
        ops::AvgPool2dGrad::kName, ops::AdaptiveAvgPool2d::kName, ops::AdaptiveAvgPool2dGrad::kName,
        ops::GlobalAvgPool2d::kName, ops::GlobalAvgPool2dGrad::kName, ops::GlobalMaxPool2d::kName,
        ops::GlobalMaxPool2dGrad::kName, ops::LocalResponseNorm::kName,
        ops::LocalResponseNormGrad::kName})
    if (op == name) return true;
  return false;
}

TensorSpec as_float32(TensorSpec spec) {
  if (spec.dtype == DType::kBFloat16) spec.dtype = DType::kFloat32;
  return spec;
}

// Bit i of each mask: the output may lie on input i. All images have been read when the first
// result is stored; what is float32 is in the inner kernel's hands.
std::vector<std::uint32_t> in_place_masks(const Problem& problem, const Kernel& inner) {
  std::vector<std::uint32_t> masks;
  for (std::size_t o = 0; o < problem.outputs.size(); ++o) {
    std::uint32_t mask = 0;
    for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
      const bool same = problem.inputs[i] == problem.outputs[o];
      const bool inner_may = o < inner.in_place.size() && (inner.in_place[o] >> i & 1u) != 0;
      if (same && (problem.outputs[o].dtype == DType::kBFloat16 || inner_may)) mask |= 1u << i;
    }
    masks.push_back(mask);
  }
  return masks;
}

// Whether input i of a convolution holds images, not a weight or a bias.
bool holds_images(const Problem& problem, std::size_t i) {
  return i != kWeightInput && problem.inputs[i].shape.size() == kImageAxes;
}

// Into how many slices the images fall, which threads take one by one; 0: all images at once, whose
// parts the threads share out.
std::int64_t slices_of(std::string_view op, const Problem& problem) {
  const std::int64_t threads = std::max(problem.threads, 1);
  const std::int64_t images =
      problem.inputs.empty() || problem.inputs[0].shape.empty() ? 0 : problem.inputs[0].shape[0];
  if (images < 2 || images < threads) return 0;
  if (goes_by_image(op)) return images;
  // What is measured of all pixels is no sum of slices.
  if (!is_convolution(op) || problem.outputs.size() > 1) return 0;
  std::int64_t floats = element_count(problem.outputs[0].shape) / images;  // of an image
  for (std::size_t i = 0; i < problem.inputs.size(); ++i)
    if (holds_images(problem, i)) floats += element_count(problem.inputs[i].shape) / images;
  // Weights that no cache near the core holds are read again for each slice.
  const bool many = element_count(problem.inputs[kWeightInput].shape) > kManyWeights;
  const std::int64_t most = std::max<std::int64_t>(kSliceFloats / std::max<std::int64_t>(floats, 1),
                                                   many ? kImagesOfManyWeights : 1);
  const std::int64_t rounds = ceil_div(ceil_div(images, most), threads);
  const std::int64_t slices = std::min(rounds * threads, images);
  // Some threads would wait for others that have one slice more, or larger ones.
  const std::int64_t lost = rounds * threads * ceil_div(images, slices) - images;
  return lost <= images / 4 ? slices : 0;
}

// Whether the kernel takes these inputs as they are.
bool widens_itself(const Problem& problem, const Kernel& kernel) {
  const auto all = [](Specs specs, DType dtype) {
    return std::all_of(specs.begin(), specs.end(),
                       [&](const TensorSpec& spec) { return spec.dtype == dtype; });
  };
  return kernel.run_widening != nullptr && all(problem.inputs, DType::kBFloat16) &&
         all(problem.outputs, DType::kFloat32);
}

// The problem in float32, of so many of the images.
struct Float32Problem {
  std::vector<TensorSpec> inputs, outputs;
  Problem problem;

  Float32Problem(const Problem& of, const Widened& widened, std::int64_t images) : problem(of) {
    const auto add = [&](const Converted& tensor, std::vector<TensorSpec>& to) {
      to.push_back(tensor.spec);
      if (tensor.sliced) to.back().shape[0] = images;
    };
    for (const Converted& tensor : widened.inputs) add(tensor, inputs);
    for (const Converted& tensor : widened.outputs) add(tensor, outputs);
    problem.inputs = inputs, problem.outputs = outputs;
    // Plain sums, as the units make.
    problem.winograd = false;
    if (problem.pinned.ends_with(kWidenedSuffix))
      problem.pinned.remove_suffix(kWidenedSuffix.size());
  }
};

Inner make_inner(Kernel kernel, const Float32Problem& of) {
  Inner inner;
  inner.kernel = std::move(kernel);
  inner.inputs = of.inputs, inner.outputs = of.outputs;
  const std::vector<std::byte>& plan = inner.kernel.plan;
  inner.plan_memory.resize(plan.size() + kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(inner.plan_memory.data());
  std::byte* const start =
      inner.plan_memory.data() + (kAlignment - address % kAlignment) % kAlignment;
  std::copy(plan.begin(), plan.end(), start);
  inner.plan = start;
  return inner;
}

// Has slices of the images computed one by one, if the kernel for one is the kernel for all.
void cut_into_slices(std::string_view op, const Problem& problem, std::int64_t slices,
                     FunctionRef<Selection(const Problem&)> select, Widened& widened) {
  const Kernel& all = widened.inner.kernel;
  const std::int64_t images = problem.inputs[0].shape[0];
  const auto set_sliced = [&](bool sliced) {
    for (std::size_t i = 0; i < widened.inputs.size(); ++i)
      widened.inputs[i].sliced = sliced && (goes_by_image(op) || holds_images(problem, i));
    for (Converted& tensor : widened.outputs) tensor.sliced = sliced;
  };
  set_sliced(true);
  std::vector<Inner> inners;
  for (const std::int64_t count : {ceil_div(images, slices), images / slices}) {
    Float32Problem slice(problem, widened, count);
    slice.problem.threads = 1;
    inners.push_back(make_inner(select(slice.problem).kernel, slice));
    const Kernel& kernel = inners.back().kernel;
    const PackedInput &packed = kernel.packed, &of_all = all.packed;
    if (std::string_view(kernel.variant) != all.variant || packed.input != of_all.input ||
        packed.bytes != of_all.bytes || std::string_view(packed.format) != of_all.format)
      return set_sliced(false);
  }
  widened.inner = std::move(inners[0]), widened.smaller = std::move(inners[1]);
  widened.images = images, widened.slices = slices;
}

// Lays out the scratch: what all share, then for each thread what is converted, then the kernel's.
void place_in_scratch(std::string_view op, const Problem& problem, Widened& widened) {
  const Kernel& inner = widened.inner.kernel;
  std::size_t shared = 0, own = 0;
  const auto place = [&](Converted& tensor, const TensorSpec& spec) {
    // Without slices there is one worker: all threads.
    std::size_t& scratch = tensor.sliced || widened.slices == 0 ? own : shared;
    tensor.offset = scratch;
    scratch += aligned(byte_size(spec));
  };
  for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
    Converted& tensor = widened.inputs[i];
    tensor.rounded =
        static_cast<int>(i) == weight_of(op) && problem.inputs[i].dtype == DType::kFloat32;
    const bool converts = tensor.rounded || problem.inputs[i].dtype == DType::kBFloat16;
    if (converts && static_cast<int>(i) != inner.packed.input)
      place(tensor, widened.inner.inputs[i]);
  }
  for (std::size_t i = 0; i < problem.outputs.size(); ++i)
    if (problem.outputs[i].dtype == DType::kBFloat16)
      place(widened.outputs[i], widened.inner.outputs[i]);
  widened.shared_scratch = shared;
  widened.inner_scratch = own;
  widened.worker_scratch =
      own + std::max(inner.scratch_bytes, widened.smaller.kernel.scratch_bytes);
  if (widened.slices > 0) widened.worker_scratch = aligned(widened.worker_scratch);
}

}  // namespace

bool has_bfloat16(const Problem& problem) noexcept {
  const auto is_bfloat16 = [](const TensorSpec& spec) { return spec.dtype == DType::kBFloat16; };
  return std::any_of(problem.inputs.begin(), problem.inputs.end(), is_bfloat16) ||
         std::any_of(problem.outputs.begin(), problem.outputs.end(), is_bfloat16);
}

Selection widen(std::string_view op, const Problem& problem,
                FunctionRef<Selection(const Problem&)> select) {
  if (problem.inputs.size() > kMostTensors || problem.outputs.size() > kMostTensors)
    throw UnsupportedError(std::string(op) + ": too many tensors for bfloat16");
  auto widened = std::make_shared<Widened>();
  for (const TensorSpec& spec : problem.inputs) widened->inputs.push_back({as_float32(spec)});
  for (const TensorSpec& spec : problem.outputs) widened->outputs.push_back({as_float32(spec)});
  const Float32Problem all(problem, *widened, 0);
  Selection selection = select(all.problem);
  // It is not what the caller asked for.
  if (problem.winograd)
    for (Refusal& refusal : selection.refused)
      if (refusal.reason == kWinogradIsOff) refusal.reason = "bfloat16 is summed plainly";
  widened->inner = make_inner(std::move(selection.kernel), all);
  widened->functions = &functions_of(problem.isa);
  // The largest of some bfloat16 is one.
  const bool exact = op == ops::MaxPool2d::kName || op == ops::GlobalMaxPool2d::kName;
  widened->store = exact ? widened->functions->cut : widened->functions->narrow;
  widened->variant = std::string(widened->inner.kernel.variant) + std::string(kWidenedSuffix);
  if (const std::int64_t slices = slices_of(op, problem); slices > 0)
    cut_into_slices(op, problem, slices, select, *widened);

  Kernel& kernel = selection.kernel = Kernel{};
  kernel.variant = widened->variant.c_str();
  if (widens_itself(problem, widened->inner.kernel)) {
    kernel.run = widened->inner.kernel.run_widening;
    kernel.scratch_bytes = widened->inner.kernel.widening_scratch_bytes;
    kernel.plan = widened->inner.kernel.plan;
    kernel.state = std::move(widened);
    return selection;
  }
  place_in_scratch(op, problem, *widened);
  kernel.run = widened->slices > 0 ? run_slices : run_widened;
  kernel.scratch_bytes =
      widened->shared_scratch +
      widened->worker_scratch *
          static_cast<std::size_t>(widened->slices > 0 ? std::max(problem.threads, 1) : 1);
  kernel.in_place = in_place_masks(problem, widened->inner.kernel);
  kernel.packed = widened->inner.kernel.packed;
  if (const int packed = kernel.packed.input; packed >= 0) {
    const auto index = static_cast<std::size_t>(packed);
    const bool converts =
        packed == weight_of(op) || problem.inputs[index].dtype == DType::kBFloat16;
    widened->pack_scratch = aligned(kernel.packed.pack_scratch_bytes);
    if (converts) {
      kernel.packed.pack = pack_widened;
      kernel.packed.pack_scratch_bytes =
          widened->pack_scratch + byte_size(widened->inputs[index].spec);
    }
  }
  const Widened* const pointer = widened.get();
  const auto* const bytes = reinterpret_cast<const std::byte*>(&pointer);
  kernel.plan.assign(bytes, bytes + sizeof pointer);
  kernel.state = std::move(widened);
  return selection;
}

}  // namespace pycnn::cpu
