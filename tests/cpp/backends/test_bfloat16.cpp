#include <doctest/doctest.h>

#include "backends/backend.h"
#include "backends/cpu/widened.h"
#include "kernel_harness.h"
#include "ops/roles.h"
#include "support/op_examples.h"

// Images in bfloat16: every op that takes them gives what its float32 kernel gives for the widened
// images, rounded, whatever the number of threads and wherever the buffers end.
namespace pycnn::testing {
namespace {

bool is_image_role(const std::string& name) {
  for (const char* image : {"input", "grad_output", "output", "a", "b", "residual"})
    if (name == image) return true;
  return false;
}

// The inputs of an example with bf16 images; empty when the op takes none.
std::vector<TensorSpec> lowered(const OpExample& example) {
  std::vector<TensorSpec> specs = example.inputs;
  for (std::size_t i = 0; i < specs.size(); ++i)
    if (specs[i].dtype == DType::kFloat32 &&
        is_image_role(ops::input_role(example.op, i, specs.size()).name))
      specs[i].dtype = DType::kBFloat16;
  try {
    (void)infer(example.op, specs);
  } catch (const Error&) {
    return {};
  }
  const bool any = std::any_of(specs.begin(), specs.end(), [](const TensorSpec& spec) {
    return spec.dtype == DType::kBFloat16;
  });
  return any ? specs : std::vector<TensorSpec>{};
}

struct AnyRun {
  int threads = 1;
  Guard guard = Guard::kAfter;
  std::string variant = {};
  bool winograd = true;
};

std::vector<HostTensor> run_any(const Op& op, const std::vector<HostTensor>& inputs,
                                const AnyRun& run, std::string* variant = nullptr) {
  const std::vector<TensorSpec> specs = specs_of(inputs), results = infer(op, specs);
  const Problem problem{specs, results, best_isa(), run.threads, run.variant, run.winograd};
  const Kernel kernel = cpu_backend().select(op, problem).kernel;
  if (variant != nullptr) *variant = kernel.variant;
  GuardedBuffer plan((kernel.plan.size() + 63) / 64 * 64, Guard::kAfter);
  if (!kernel.plan.empty()) std::memcpy(plan.data(), kernel.plan.data(), kernel.plan.size());

  std::vector<GuardedBuffer> buffers;
  buffers.reserve(inputs.size() + results.size() + 1);
  std::vector<TensorView> in, out;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    buffers.emplace_back(inputs[i].bytes.size(), run.guard);
    buffers.back().copy_from(inputs[i].bytes.data());
    buffers.back().make_read_only();
    in.push_back({buffers.back().data(), &specs[i]});
  }
  KernelArgs args;
  args.op = &op;
  args.threads = run.threads;
  args.plan = plan.data();
  if (kernel.packed.input >= 0) {
    TensorView& source = in[static_cast<std::size_t>(kernel.packed.input)];
    const TensorSpec packed_spec{{static_cast<std::int64_t>(kernel.packed.bytes)}, DType::kUInt8};
    buffers.emplace_back((kernel.packed.bytes + 63) / 64 * 64, run.guard);
    const TensorView packed{buffers.back().data(), &packed_spec};
    GuardedBuffer scratch((kernel.packed.pack_scratch_bytes + 63) / 64 * 64, run.guard);
    args.inputs = {&source, 1};
    args.outputs = {&packed, 1};
    args.scratch = scratch.data();
    kernel.packed.pack(args);
    source.data = packed.data;
  }
  for (const TensorSpec& spec : results) {
    buffers.emplace_back(byte_size(spec), run.guard);
    out.push_back({buffers.back().data(), &spec});
  }
  GuardedBuffer scratch((kernel.scratch_bytes + 63) / 64 * 64, run.guard);
  args.inputs = in;
  args.outputs = out;
  args.scratch = scratch.data();
  kernel.run(args);
  note_reached(kernel.variant);
  for (const GuardedBuffer& buffer : buffers) CHECK(buffer.border_is_intact());
  std::vector<HostTensor> found;
  for (std::size_t i = 0; i < results.size(); ++i) {
    found.emplace_back(results[i]);
    if (!found.back().bytes.empty())
      std::memcpy(found.back().bytes.data(), out[i].data, found.back().bytes.size());
  }
  return found;
}

HostTensor to_type(const HostTensor& from, DType dtype) {
  HostTensor to(TensorSpec{from.spec.shape, dtype});
  for (std::size_t i = 0; i < from.size(); ++i) to.set(i, from[i]);
  return to;
}

// What the float32 kernel gives, in the types of the op on bf16: that which was widened to
// `variant`, else the best.
std::vector<HostTensor> expected_of(const Op& op, const std::vector<HostTensor>& inputs,
                                    const std::vector<TensorSpec>& results, bool rounds_weight,
                                    const std::string& variant) {
  std::vector<HostTensor> wide;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    wide.push_back(inputs[i]);
    if (inputs[i].spec.dtype == DType::kBFloat16)
      wide.back() = to_type(inputs[i], DType::kFloat32);
    else if (i == 1 && rounds_weight)
      wide.back() = to_type(to_type(inputs[i], DType::kBFloat16), DType::kFloat32);
  }
  AnyRun run;
  run.winograd = false;
  if (variant.ends_with(cpu::kWidenedSuffix)) {
    run.winograd = true;
    run.variant = variant.substr(0, variant.size() - std::string_view(cpu::kWidenedSuffix).size());
  }
  std::vector<HostTensor> found = run_any(op, wide, run);
  for (std::size_t i = 0; i < found.size(); ++i) found[i] = to_type(found[i], results[i].dtype);
  return found;
}

bool multiplies_weight(const Op& op) {
  return std::holds_alternative<ops::Conv2d>(op) || std::holds_alternative<ops::Dense>(op) ||
         std::holds_alternative<ops::Conv2dGradInput>(op) ||
         std::holds_alternative<ops::DenseGradInput>(op);
}

// As the ops do that it is made of (test_batch_norm_max_pool.cpp).
bool rounds_in_between(const Op& op) {
  return std::holds_alternative<ops::BatchNormMaxPoolGrad>(op);
}

// Sums of products without rounding at their end: only whole numbers have them in any order.
bool sums_products(const Op& op) {
  return std::holds_alternative<ops::Conv2dGradWeight>(op) ||
         std::holds_alternative<ops::DenseGradWeight>(op);
}

std::vector<HostTensor> values_for(const std::vector<TensorSpec>& specs, std::uint64_t seed,
                                   bool whole = false) {
  std::vector<HostTensor> inputs;
  for (const TensorSpec& spec : specs)
    if (!is_floating(spec.dtype))
      inputs.emplace_back(spec);
    else if (whole)
      inputs.push_back(random_integers(spec.shape, seed++, 4, spec.dtype));
    else  // statistics must not be negative
      inputs.push_back(random_tensor(spec.shape, seed++, 0.0625, 2.0, spec.dtype));
  return inputs;
}

TEST_CASE("images in bfloat16 give what float32 gives, rounded") {
  int seen = 0;
  for (const OpExample& example : op_examples()) {
    const std::vector<TensorSpec> specs = lowered(example);
    const bool recorded_form = std::holds_alternative<ops::BatchNorm>(example.op) ||
                               std::holds_alternative<ops::Dropout>(example.op);
    if (specs.empty() || recorded_form || std::holds_alternative<ops::Cast>(example.op)) continue;
    CAPTURE(op_name(example.op));
    ++seen;
    const std::vector<HostTensor> inputs =
        values_for(specs, 11 + static_cast<unsigned>(seen), sums_products(example.op));
    const std::vector<TensorSpec> results = infer(example.op, specs);
    std::string variant;
    std::vector<HostTensor> first = run_any(example.op, inputs, {}, &variant);
    const std::vector<HostTensor> expected =
        expected_of(example.op, inputs, results, multiplies_weight(example.op), variant);
    CAPTURE(variant);
    if (variant.ends_with(cpu::kWidenedSuffix) ||
        !(multiplies_weight(example.op) || rounds_in_between(example.op)))
      CHECK(same_bits(first, expected));
    for (const int threads : {2, 3}) {
      AnyRun run;
      run.threads = threads;
      CHECK(same_bits(run_any(example.op, inputs, run), first));
    }
    AnyRun before;
    before.guard = Guard::kBefore;
    CHECK(same_bits(run_any(example.op, inputs, before), first));
  }
  CHECK(seen >= 40);
}

struct ImageCase {
  Shape input, weight;
  Pair stride = {1, 1}, dilation = {1, 1};
  std::int64_t padding = 0, groups = 1;
  bool residual = false;
};

ops::Conv2d forward_of(const ImageCase& c) {
  ops::Conv2d op;
  op.stride = c.stride, op.dilation = c.dilation, op.groups = c.groups;
  op.padding = {c.padding, c.padding, c.padding, c.padding};
  op.epilogue.residual = c.residual;
  op.epilogue.activation = ActivationKind::kRelu;
  return op;
}

// A convolution with the specs of its inputs.
struct Task {
  Op op;
  std::vector<TensorSpec> inputs;
};

// Forward and both gradients, of images in bfloat16.
std::vector<Task> tasks_of(const ImageCase& c) {
  const ops::Conv2d forward = forward_of(c);
  const TensorSpec input{c.input, DType::kBFloat16}, weight{c.weight, DType::kFloat32};
  const TensorSpec bias{{c.weight[0]}, DType::kFloat32};
  std::vector<TensorSpec> inputs = {input, weight, bias};
  ops::Conv2d plain = forward;
  plain.epilogue = {};
  const TensorSpec output = infer(Op(plain), inputs)[0];
  if (c.residual) inputs.push_back(output);
  ops::Conv2dGradInput grad_input;
  grad_input.stride = c.stride, grad_input.dilation = c.dilation, grad_input.groups = c.groups;
  grad_input.padding = forward.padding;
  grad_input.input_size = {c.input[1], c.input[2]};
  std::vector<TensorSpec> grad_inputs = {output, weight};
  if (c.residual) {
    grad_input.finish.residual = true;
    grad_inputs.push_back(input);
  }
  ops::Conv2dGradWeight grad_weight;
  grad_weight.stride = c.stride, grad_weight.dilation = c.dilation, grad_weight.groups = c.groups;
  grad_weight.padding = forward.padding;
  grad_weight.kernel_size = {c.weight[1], c.weight[2]};
  grad_weight.bias = true;
  return {{forward, inputs}, {grad_input, grad_inputs}, {grad_weight, {input, output}}};
}

// Pins of all kernels for float32.
std::vector<std::string> widened_variants(const Op& op) {
  std::vector<std::string> names;
  for (const std::string& name : cpu_backend().variants(op))
    if (name.find(".bfloat16.") == std::string::npos)
      names.push_back(name + std::string(cpu::kWidenedSuffix));
  return names;
}

constexpr std::size_t kMostScratch = std::size_t{5} << 18;

// Numbers of images that fall into equal slices and not, kernels that copy rows and that do not.
const ImageCase kImageCases[] = {
    {{256, 28, 28, 1}, {6, 5, 5, 1}, {1, 1}, {1, 1}, 2},
    {{101, 14, 14, 6}, {16, 5, 5, 6}},
    {{37, 19, 17, 5}, {7, 3, 3, 5}, {2, 2}, {1, 1}, 1, 1, true},
    {{9, 40, 33, 20}, {24, 3, 3, 20}, {1, 1}, {2, 2}, 2},
    {{21, 30, 30, 16}, {32, 1, 1, 16}, {1, 1}, {1, 1}, 0, 1, true},
    {{21, 31, 29, 16}, {32, 1, 1, 16}, {2, 2}},
    {{300, 1, 1, 48}, {40, 1, 1, 48}},
    {{150, 5, 5, 16}, {120, 5, 5, 16}},
    {{40, 5, 5, 16}, {20, 4, 3, 16}},
    {{11, 21, 20, 24}, {24, 3, 3, 1}, {1, 1}, {1, 1}, 1, 24},
    {{11, 21, 20, 24}, {12, 3, 3, 6}, {2, 1}, {1, 1}, 1, 4},
    {{3, 90, 90, 40}, {40, 3, 3, 40}, {1, 1}, {1, 1}, 1},
    {{10, 6, 6, 128}, {130, 3, 3, 128}, {1, 1}, {1, 1}, 1},
};

TEST_CASE("convolutions of widened images give float32's bits in any number of slices") {
  int seen = 0;
  for (const ImageCase& c : kImageCases)
    for (const Task& task : tasks_of(c)) {
      CAPTURE(op_name(task.op));
      CAPTURE(to_string(c.input));
      const std::vector<HostTensor> inputs = values_for(task.inputs, 31);
      const std::vector<TensorSpec> results = infer(task.op, task.inputs);
      for (const std::string& variant : widened_variants(task.op)) {
        AnyRun run;
        run.variant = variant;
        CAPTURE(variant);
        std::vector<HostTensor> found;
        try {
          found = run_any(task.op, inputs, run);
        } catch (const Error&) {
          continue;  // it does not take this problem
        }
        ++seen;
        const std::vector<HostTensor> expected =
            expected_of(task.op, inputs, results, multiplies_weight(task.op), run.variant);
        CHECK(same_bits(found, expected));
        for (const int threads : {2, 5}) {
          run.threads = threads;
          run.guard = threads == 2 ? Guard::kBefore : Guard::kAfter;
          CHECK(same_bits(run_any(task.op, inputs, run), expected));
        }
      }
    }
  CHECK(seen >= 60);
}

TEST_CASE("convolutions widen no more images than they work on") {
  int seen = 0;
  for (const ImageCase& c : {kImageCases[0], kImageCases[4]})  // of 5 and 3 MiB as float32
    for (const Task& task : tasks_of(c)) {
      const std::vector<TensorSpec> results = infer(task.op, task.inputs);
      for (const std::string& variant : widened_variants(task.op)) {
        CAPTURE(variant);
        try {
          const Problem problem{task.inputs, results, best_isa(), 2, variant};
          const std::size_t scratch = cpu_backend().select(task.op, problem).kernel.scratch_bytes;
          ++seen;
          if (!variant.starts_with("conv2d_grad_weight.reference")) CHECK(scratch < kMostScratch);
        } catch (const Error&) {
          // It does not take this problem.
        }
      }
    }
  // Of six tasks: at least a reference and a kernel of the baseline each, and more where there are.
  CHECK(seen >= (best_isa() == Isa::kBaseline ? 12 : 15));
}

TEST_CASE("gradients of weights widen no more than all images, by however many threads") {
  const ImageCase c{{1, 147, 147, 32}, {64, 3, 3, 32}};
  const Task task = tasks_of(c).back();
  const std::vector<TensorSpec> results = infer(task.op, task.inputs);
  std::vector<TensorSpec> wide = task.inputs;
  std::size_t images = 0;
  for (TensorSpec& spec : wide) {
    spec.dtype = DType::kFloat32;
    images += byte_size(spec);
  }
  int seen = 0;
  for (const std::string& variant : widened_variants(task.op)) {
    CAPTURE(variant);
    const std::string plain = variant.substr(0, variant.size() - cpu::kWidenedSuffix.size());
    try {
      const Problem narrow{task.inputs, results, best_isa(), 16, variant};
      const Problem floats{wide, results, best_isa(), 16, plain};
      const std::size_t scratch = cpu_backend().select(task.op, narrow).kernel.scratch_bytes;
      const std::size_t own = cpu_backend().select(task.op, floats).kernel.scratch_bytes;
      ++seen;
      CHECK(scratch <= own + images + (std::size_t{1} << 16));
    } catch (const Error&) {
      // It does not take this problem.
    }
  }
  CHECK(seen >= 2);
}

TEST_CASE("a pin of bfloat16 reaches the float32 kernel behind it") {
  const std::vector<TensorSpec> specs = {{{2, 5, 4, 3}, DType::kBFloat16}};
  const std::vector<HostTensor> inputs = values_for(specs, 5);
  const Op op = ops::MaxPool2d{};
  std::string variant;
  AnyRun run;
  run.variant = "reference";
  const std::vector<HostTensor> reference = run_any(op, inputs, run, &variant);
  CHECK(variant == "max_pool2d.reference.widened");
  CHECK(same_bits(reference, run_any(op, inputs, {})));
  run.variant = "max_pool2d.direct.baseline.widened";
  CHECK(same_bits(reference, run_any(op, inputs, run, &variant)));
  CHECK(variant == run.variant);
  run.variant = "max_pool2d.fast";
  CHECK_THROWS_AS(run_any(op, inputs, run), ArgumentError);
}

TEST_CASE("float32 problems are told nothing of kernels for other types") {
  const std::vector<TensorSpec> specs = {{{2, 5}, DType::kFloat32}};
  const std::vector<TensorSpec> results = specs;
  const Op op = ops::Activation{};
  const Selection selection = cpu_backend().select(op, {specs, results, best_isa(), 1, {}});
  for (const Refusal& refusal : selection.refused) CHECK(refusal.reason.starts_with("needs "));
}

}  // namespace
}  // namespace pycnn::testing
