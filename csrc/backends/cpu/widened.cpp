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

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A tensor as the float32 kernel sees it, and where in scratch it lies if it is converted.
struct Converted {
  TensorSpec spec;
  std::size_t offset = kNowhere;
  bool rounded = false;  // a weight: float32 already
};

struct Widened {
  std::vector<Converted> inputs, outputs;
  Kernel inner;
  std::size_t inner_scratch = 0;  // where its scratch begins
  std::size_t pack_scratch = 0;
  const ConvertFunctions* functions = nullptr;
  std::string variant;
  std::vector<std::byte> plan_memory;
  const std::byte* plan = nullptr;  // of the inner kernel
  void (*store)(const float*, BFloat16*, std::int64_t) = nullptr;
  std::int64_t images = 0;         // run one by one; 0: all at once
  std::size_t worker_scratch = 0;  // of each thread, with images
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
  widened.inner.run({args.op,
                     {inputs, args.inputs.size()},
                     {outputs, args.outputs.size()},
                     args.scratch + widened.inner_scratch,
                     args.threads,
                     widened.plan});
  for (std::size_t i = 0; i < args.outputs.size(); ++i) {
    if (widened.outputs[i].offset == kNowhere) continue;
    for_pieces(args.threads, args.outputs[i], [&](std::int64_t begin, std::int64_t n) {
      widened.store(outputs[i].as<const float>() + begin, args.outputs[i].as<BFloat16>() + begin,
                    n);
    });
  }
}

// One image after the other, each thread with scratch of its own.
void run_images(const KernelArgs& args) noexcept {
  const Widened& widened = widened_of(args);
  const ConvertFunctions& functions = *widened.functions;
  const auto first_of = [&](const TensorView& view, std::int64_t n) {
    return view.as<BFloat16>() + n * (count_of(view) / widened.images);
  };
  parallel_for(args.threads, widened.images, [&](std::int64_t n, int worker) {
    std::byte* const scratch =
        args.scratch + static_cast<std::size_t>(worker) * widened.worker_scratch;
    TensorView inputs[kMostTensors], outputs[kMostTensors];
    for (std::size_t i = 0; i < args.inputs.size(); ++i) {
      const Converted& to = widened.inputs[i];
      inputs[i] = {scratch + to.offset, &to.spec};
      functions.widen(first_of(args.inputs[i], n), inputs[i].as<float>(), count_of(inputs[i]));
    }
    for (std::size_t i = 0; i < args.outputs.size(); ++i)
      outputs[i] = {scratch + widened.outputs[i].offset, &widened.outputs[i].spec};
    widened.inner.run({args.op,
                       {inputs, args.inputs.size()},
                       {outputs, args.outputs.size()},
                       scratch + widened.inner_scratch,
                       1,
                       widened.plan});
    for (std::size_t i = 0; i < args.outputs.size(); ++i)
      widened.store(outputs[i].as<const float>(), first_of(args.outputs[i], n),
                    count_of(outputs[i]));
  });
}

// The inner kernel's packing, of the rounded weight.
void pack_widened(const KernelArgs& args) noexcept {
  const Widened& widened = widened_of(args);
  const Converted& to = widened.inputs[static_cast<std::size_t>(widened.inner.packed.input)];
  const TensorView source = converted(args, widened, args.inputs[0], to, widened.pack_scratch);
  widened.inner.packed.pack(
      {args.op, {&source, 1}, args.outputs, args.scratch, args.threads, widened.plan});
}

// Which input is a weight that the units for bfloat16 would take rounded, or -1.
int weight_of(std::string_view op) {
  for (const char* name : {ops::Conv2d::kName, ops::Conv2dGradInput::kName, ops::Dense::kName,
                           ops::DenseGradInput::kName})
    if (op == name) return 1;
  return -1;
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

std::vector<TensorSpec> specs_of(const std::vector<Converted>& tensors) {
  std::vector<TensorSpec> specs;
  for (const Converted& tensor : tensors) specs.push_back(tensor.spec);
  return specs;
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
  // A few images would leave threads without work.
  const std::int64_t count = goes_by_image(op) ? problem.inputs[0].shape[0] : 0;
  if (count > 1 && count >= problem.threads) {
    widened->images = count;
    for (std::vector<Converted>* tensors : {&widened->inputs, &widened->outputs})
      for (Converted& tensor : *tensors) tensor.spec.shape[0] = 1;
  }

  const std::vector<TensorSpec> inputs = specs_of(widened->inputs),
                                outputs = specs_of(widened->outputs);
  Problem inner = problem;
  inner.inputs = inputs;
  inner.outputs = outputs;
  if (widened->images > 0) inner.threads = 1;
  // Plain sums, as the units make.
  inner.winograd = false;
  if (inner.pinned.ends_with(kWidenedSuffix)) inner.pinned.remove_suffix(kWidenedSuffix.size());
  Selection selection = select(inner);
  // It is not what the caller asked for.
  if (problem.winograd)
    for (Refusal& refusal : selection.refused)
      if (refusal.reason == kWinogradIsOff) refusal.reason = "bfloat16 is summed plainly";
  widened->inner = std::move(selection.kernel);
  widened->functions = &functions_of(problem.isa);
  // The largest of some bfloat16 is one.
  const bool exact = op == ops::MaxPool2d::kName || op == ops::GlobalMaxPool2d::kName;
  widened->store = exact ? widened->functions->cut : widened->functions->narrow;
  widened->variant = std::string(widened->inner.variant) + std::string(kWidenedSuffix);

  const std::vector<std::byte>& plan = widened->inner.plan;
  widened->plan_memory.resize(plan.size() + kAlignment);
  const auto address = reinterpret_cast<std::uintptr_t>(widened->plan_memory.data());
  std::byte* const start =
      widened->plan_memory.data() + (kAlignment - address % kAlignment) % kAlignment;
  std::copy(plan.begin(), plan.end(), start);
  widened->plan = start;

  const int packed = widened->inner.packed.input, weight = weight_of(op);
  std::size_t scratch = 0;
  const auto place = [&](Converted& tensor) {
    tensor.offset = scratch;
    scratch += aligned(byte_size(tensor.spec));
  };
  for (std::size_t i = 0; i < problem.inputs.size(); ++i) {
    Converted& tensor = widened->inputs[i];
    tensor.rounded = static_cast<int>(i) == weight && problem.inputs[i].dtype == DType::kFloat32;
    const bool converts = tensor.rounded || problem.inputs[i].dtype == DType::kBFloat16;
    if (converts && static_cast<int>(i) != packed) place(tensor);
  }
  for (std::size_t i = 0; i < problem.outputs.size(); ++i)
    if (problem.outputs[i].dtype == DType::kBFloat16) place(widened->outputs[i]);
  widened->inner_scratch = scratch;

  Kernel& kernel = selection.kernel = Kernel{};
  kernel.variant = widened->variant.c_str();
  kernel.run = run_widened;
  kernel.scratch_bytes = scratch + widened->inner.scratch_bytes;
  if (widened->images > 0) {
    kernel.run = run_images;
    widened->worker_scratch = aligned(kernel.scratch_bytes);
    kernel.scratch_bytes = widened->worker_scratch * static_cast<std::size_t>(problem.threads);
  }
  kernel.in_place = in_place_masks(problem, widened->inner);
  kernel.packed = widened->inner.packed;
  if (packed >= 0) {
    const auto index = static_cast<std::size_t>(packed);
    const bool converts =
        static_cast<int>(index) == weight || problem.inputs[index].dtype == DType::kBFloat16;
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
