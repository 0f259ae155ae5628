// Times of convolutions and dense layers of known nets on a GPU: our own kernels in each tile
// beside the library's choice, as a table and in percent of what the GPU can do.
//
//   pycnn_cuda_kernel_times [TFLOPS]     of bfloat16 products, measured; 0: no percentages
//   pycnn_cuda_kernel_times --check      tiny shapes, once: whether it works (on the emulated
//   device)
//
// Each is recorded many times as one, so that the host is no part of it; bfloat16 images of normal
// numbers (support/timed_operands.h). Times are of what a step gives the device, what moves images
// for a rewritten convolution included; the library's weights are packed before. A line ends with
// what the library's convolution was rewritten to, if it was.
// A second table has microseconds of a convolution with what the batch norm next to it does: the
// norm looks at the convolution's result itself (apart), or the convolution measures (measured).
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backends/cuda_loader.h"
#include "support/timed_operands.h"

namespace pycnn {
namespace {

struct Layer {
  const char* name;
  std::int64_t images, size, in, out, kernel, stride, groups;
};
// ResNet-50 at batch 64, VGG-16 at 32, ResNeXt-50 at 64, LeNet-5, whose channels fill no tile, at
// 256; size 1 and kernel 1: a dense layer.
const std::vector<Layer> kLayers = {
    {"resnet50 stem 7x7/2", 64, 224, 3, 64, 7, 2, 1},
    {"resnet50 1x1 64-256", 64, 56, 64, 256, 1, 1, 1},
    {"resnet50 3x3 64-64", 64, 56, 64, 64, 3, 1, 1},
    {"resnet50 3x3 128-128/2", 64, 56, 128, 128, 3, 2, 1},
    {"resnet50 3x3 256-256", 64, 14, 256, 256, 3, 1, 1},
    {"resnet50 1x1 2048-512", 64, 7, 2048, 512, 1, 1, 1},
    {"resnext50 3x3 128, 32", 64, 56, 128, 128, 3, 1, 32},
    {"vgg16 3x3 512-512", 32, 28, 512, 512, 3, 1, 1},
    {"vgg16 dense 25088-4096", 256, 1, 25088, 4096, 1, 1, 1},
    {"lenet5 5x5 1-6", 256, 28, 1, 6, 5, 1, 1},
};
// Of ResNet-50, too, with a batch norm behind.
const std::vector<Layer> kNormed = {{"resnet50 1x1 64-256", 64, 56, 64, 256, 1, 1, 1},
                                    {"resnet50 3x3 64-64", 64, 56, 64, 64, 3, 1, 1}};
// When choosing among the libraries' plans began, of all cases together
// (PYCNN_CUDA_CHOOSE_SECONDS).
const std::chrono::steady_clock::time_point kBegan = std::chrono::steady_clock::now();
const std::vector<Layer> kTiny = {{"conv", 1, 6, 8, 8, 3, 1, 1}, {"dense", 4, 1, 16, 8, 1, 1, 1}};
const std::vector<Layer> kTinyNormed = {{"conv", 1, 6, 8, 8, 3, 1, 1}};

struct Case {
  Op op;
  std::vector<TensorSpec> inputs, outputs;
  const char* direction;
};

std::vector<Case> cases_of(const Layer& layer) {
  const DType image = DType::kBFloat16, wide = DType::kFloat32;
  std::vector<Case> cases;
  const auto add = [&](auto op, std::vector<TensorSpec> inputs, const char* direction) {
    std::vector<TensorSpec> outputs = op.infer(inputs);
    cases.push_back({op, std::move(inputs), std::move(outputs), direction});
  };
  if (layer.size == 1) {
    const TensorSpec x{{layer.images, layer.in}, image}, w{{layer.out, layer.in}, wide};
    const TensorSpec y{{layer.images, layer.out}, image};
    add(ops::Dense{}, {x, w}, "forward");
    add(ops::DenseGradInput{}, {y, w}, "grad_input");
    add(ops::DenseGradWeight{}, {x, y}, "grad_weight");
    return cases;
  }
  ops::Conv2d conv;
  const std::int64_t pad = layer.kernel / 2;
  conv.stride = {layer.stride, layer.stride};
  conv.padding = {pad, pad, pad, pad};
  conv.groups = layer.groups;
  const TensorSpec x{{layer.images, layer.size, layer.size, layer.in}, image};
  const TensorSpec w{{layer.out, layer.kernel, layer.kernel, layer.in / layer.groups}, wide};
  const TensorSpec y = conv.infer(std::vector{x, w})[0];
  add(conv, {x, w}, "forward");
  const auto same = [&](auto op) {
    op.stride = conv.stride;
    op.padding = conv.padding;
    op.groups = conv.groups;
    return op;
  };
  auto grad_input = same(ops::Conv2dGradInput{});
  grad_input.input_size = {layer.size, layer.size};
  // The gradient of images is of no use.
  if (layer.in > 3) add(grad_input, {y, w}, "grad_input");
  auto grad_weight = same(ops::Conv2dGradWeight{});
  grad_weight.kernel_size = {layer.kernel, layer.kernel};
  add(grad_weight, {x, y}, "grad_weight");
  return cases;
}

// A convolution and its batch norm's kernel, apart or measured.
struct NormedConv {
  Case conv, norm;
};
// Forward with statistics; the input's gradient with that of the batch norm before.
std::vector<NormedConv> normed_cases(const Layer& layer, bool measured) {
  std::vector<NormedConv> pairs;
  for (const Case& plain : cases_of(layer)) {
    const TensorSpec result = plain.outputs[0];
    const TensorSpec vector{{result.shape.back()}, DType::kFloat32};
    NormedConv pair{plain, plain};
    const auto set = [](Case& to, auto op, std::vector<TensorSpec> inputs) {
      to.outputs = op.infer(inputs);
      to.op = op;
      to.inputs = std::move(inputs);
    };
    std::vector<TensorSpec> norm_inputs;
    if (const auto* forward = std::get_if<ops::Conv2d>(&plain.op)) {
      ops::Conv2d op = *forward;
      op.epilogue.moments = measured;
      set(pair.conv, op, plain.inputs);
      norm_inputs = {result, vector, vector, vector, vector};
      if (measured) norm_inputs.push_back(pair.conv.outputs[1]);
      set(pair.norm, ops::BatchNormStatistics{}, std::move(norm_inputs));
    } else if (const auto* backward = std::get_if<ops::Conv2dGradInput>(&plain.op)) {
      ops::Conv2dGradInput op = *backward;
      op.sums = {measured, ActivationKind::kRelu, 0.0};
      std::vector<TensorSpec> inputs = plain.inputs;
      if (measured) inputs.insert(inputs.end(), {result, vector, vector, vector});
      set(pair.conv, op, std::move(inputs));
      norm_inputs = {result, vector, vector, vector, vector, vector, result};
      if (measured) norm_inputs.push_back(pair.conv.outputs[1]);
      set(pair.norm, ops::BatchNormApplyGrad{ActivationKind::kRelu, 0.0}, std::move(norm_inputs));
    } else {
      continue;
    }
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

double multiply_adds(const Layer& layer) {
  const auto size = static_cast<double>(layer.size == 1 ? 1 : (layer.size - 1) / layer.stride + 1);
  return static_cast<double>(layer.images) * size * size * static_cast<double>(layer.out) *
         static_cast<double>(layer.kernel * layer.kernel * layer.in / layer.groups);
}

testing::Operand operand_of(const Op& op, const TensorSpec& spec, int place) {
  const bool is_norm = std::holds_alternative<ops::BatchNormStatistics>(op) ||
                       std::holds_alternative<ops::BatchNormApplyGrad>(op);
  if (spec.dtype != DType::kFloat32) return testing::Operand::kImage;
  return is_norm || place != 1 ? testing::Operand::kVector : testing::Operand::kWeight;
}

// Microseconds of one run; negative: there is no such kernel, or it failed, for which `reason`
// tells.
double time_of(const DeviceModule& module, const Case& timed, const char* pinned, int repeats,
               std::string& reason, std::string& rewrite) {
  Problem problem;
  problem.inputs = timed.inputs;
  problem.outputs = timed.outputs;
  problem.pinned = pinned;
  problem.began = kBegan;
  Selection selection;
  if (!module.select(0, timed.op, problem, selection, reason)) return -1.0;
  const Kernel& kernel = selection.kernel;
  if (*pinned == '\0' && !selection.refused.empty()) {
    reason = selection.refused.front().reason;
    return -1.0;
  }
  const std::string variant = kernel.variant;
  if (const auto at = variant.find('+'); at != std::string::npos) rewrite = variant.substr(at + 1);
  DeviceQueue* const queue = module.open(0, reason);
  if (queue == nullptr) return -1.0;
  const int before = module.enter(queue);
  std::vector<void*> memory;
  const auto allocate = [&](std::size_t bytes) {
    memory.push_back(module.allocate(queue, bytes));
    return memory.back();
  };
  std::vector<TensorView> in, out;
  for (const TensorSpec& spec : timed.inputs) {
    const int place = static_cast<int>(in.size());
    const std::vector<std::byte> values =
        testing::timed_operand(spec, operand_of(timed.op, spec, place), place);
    in.push_back({allocate(values.size()), &spec, 0});
    if (memory.back() == nullptr || values.empty()) continue;
    module.copy_in(queue, memory.back(), values.data(), values.size());
    (void)module.wait(queue, reason);
  }
  for (const TensorSpec& spec : timed.outputs) out.push_back({allocate(byte_size(spec)), &spec, 0});
  DeviceKernelArgs args;
  args.op = &timed.op;
  args.inputs = in;
  args.outputs = out;
  args.scratch = static_cast<std::byte*>(allocate(kernel.scratch_bytes));
  args.queue = queue;
  args.state = kernel.state.get();
  bool good = true;
  // As a step finds it: made when the weights change.
  struct Packing {
    const PackedInput* of;
    TensorSpec spec;
    void* data;
  };
  std::vector<Packing> packings;
  for (const PackedInput* const each : {&kernel.packed, &kernel.packed_bias})
    if (each->input >= 0)
      packings.push_back(
          {each, {{static_cast<std::int64_t>(each->bytes)}, DType::kUInt8}, allocate(each->bytes)});
  for (const void* const block : memory) good = good && block != nullptr;
  double us = -1.0;
  if (!good) reason = "no memory";
  for (const Packing& packing : packings) {
    if (!good) break;
    TensorView& input = in[static_cast<std::size_t>(packing.of->input)];
    const TensorView to{packing.data, &packing.spec, 0};
    DeviceKernelArgs pack = args;
    pack.inputs = {&input, 1};
    pack.outputs = {&to, 1};
    if (packing.of->state != nullptr) pack.state = packing.of->state.get();
    packing.of->pack(pack);
    input.data = packing.data;
  }
  if (good) {
    kernel.run(args);
    good = module.wait(queue, reason);
    module.begin_recording(queue);
    for (int i = 0; i < repeats; ++i) kernel.run(args);
    DeviceRecording* const recording = module.end_recording(queue, reason);
    if (good && recording != nullptr) {
      module.replay(queue, recording);
      good = module.wait(queue, reason);
      const auto begin = std::chrono::steady_clock::now();
      module.replay(queue, recording);
      good = module.wait(queue, reason) && good;
      const std::chrono::duration<double, std::micro> took =
          std::chrono::steady_clock::now() - begin;
      if (good) us = took.count() / repeats;
    }
    if (recording != nullptr) module.forget(recording);
  }
  for (void* const block : memory)
    if (block != nullptr) module.release(queue, block);
  module.leave(queue, before);
  module.close(queue);
  return us;
}

// Whether all of our own kernels ran.
bool print_normed(const DeviceModule& module, bool check) {
  std::printf("\n%-36s %13s %13s %13s %13s\n", "with its batch norm, microseconds", "library",
              "measured", "own", "measured");
  bool good = true;
  for (const Layer& layer : check ? kTinyNormed : kNormed) {
    const std::vector<NormedConv> apart = normed_cases(layer, false),
                                  measured = normed_cases(layer, true);
    for (std::size_t i = 0; i < apart.size(); ++i) {
      std::printf("%-24s%-12s", layer.name, apart[i].conv.direction);
      for (const char* const pinned : {"", "reference"})
        for (const NormedConv* const pair : {&apart[i], &measured[i]}) {
          std::string reason, rewrite;
          const int repeats = check ? 1 : 20;
          const double conv = time_of(module, pair->conv, pinned, repeats, reason, rewrite);
          const double norm = time_of(module, pair->norm, "reference", repeats, reason, rewrite);
          if (conv < 0.0 || norm < 0.0)
            std::printf(" %13s", "-");
          else
            std::printf(" %13.1f", conv + norm);
          good = good && ((conv >= 0.0 && norm >= 0.0) || *pinned == '\0');
          std::fflush(stdout);
        }
      std::printf("\n");
    }
  }
  return good;
}

int run(int count, char** arguments) {
  const bool check = count > 1 && std::strcmp(arguments[1], "--check") == 0;
  const double peak = count > 1 && !check ? std::atof(arguments[1]) : 0.0;
  std::string problem;
  const DeviceModule* const module = load_cuda_module(problem);
  DeviceFacts facts;
  if (module == nullptr || !module->probe(0, facts, problem)) {
    std::printf("%s\n", problem.c_str());
    return 77;
  }
  struct Column {
    const char *title, *pinned, *tile;
  };
  const std::vector<Column> columns = {{"library", "", ""},
                                       {"own", "reference", ""},
                                       {"large", "reference", "large"},
                                       {"medium", "reference", "medium"},
                                       {"small", "reference", "small"}};
  std::printf("%s, bfloat16, TFLOP/s", facts.name.c_str());
  if (peak > 0.0) std::printf(" (percent of %.0f)", peak);
  std::printf("\n%-36s", "");
  for (const Column& column : columns) std::printf(" %13s", column.title);
  std::printf("\n");
  bool good = true;
  for (const Layer& layer : check ? kTiny : kLayers)
    for (const Case& timed : cases_of(layer)) {
      std::printf("%-24s%-12s", layer.name, timed.direction);
      std::string rewrite;
      for (const Column& column : columns) {
        if (*column.tile != '\0') setenv("PYCNN_CUDA_TILE", column.tile, 1);
        std::string reason;
        const double us = time_of(*module, timed, column.pinned, check ? 1 : 20, reason, rewrite);
        unsetenv("PYCNN_CUDA_TILE");
        const double rate = 2.0 * multiply_adds(layer) / us * 1e-6;
        if (us < 0.0)
          std::printf(" %13s", "-");
        else if (peak > 0.0)
          std::printf(" %6.1f (%3.0f%%)", rate, 100.0 * rate / peak);
        else
          std::printf(" %13.1f", rate);
        // Without a library there is nothing to compare with; our own must work.
        good = good && (us >= 0.0 || *column.pinned == '\0');
        std::fflush(stdout);
      }
      std::printf("%s%s\n", rewrite.empty() ? "" : "  ", rewrite.c_str());
    }
  good = print_normed(*module, check) && good;
  return good ? 0 : 1;
}

}  // namespace
}  // namespace pycnn

int main(int count, char** arguments) { return pycnn::run(count, arguments); }
