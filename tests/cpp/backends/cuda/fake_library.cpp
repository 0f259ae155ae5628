// What fake_library.h declares, and what library_kernel.h calls: it takes its time, and whatever
// computes a result leaves ones.
#include "backends/cuda/fake_library.h"

#include "backends/cuda/checked_plan.cpp"
#include "backends/cuda/conv2d_rewrite.cpp"
#include "backends/cuda/measured_plan.cpp"

namespace pycnn::cuda {

namespace {

constexpr std::uint16_t kOne = 0x3F80;  // of bfloat16

void move(int& count, double us) {
  ++count;
  fake_cuda().work(us);
}

// `rows` of a matrix become that number.
void leave_rows(Image image, void* matrix, std::int64_t rows, std::int64_t channels,
                std::int64_t pitch, float number = 1.0f) {
  if (matrix == nullptr) return;
  fake_cuda().effect([=] {
    with_image(image, [&](auto type) {
      using T = decltype(type);
      T stored{};
      narrow(number, stored);
      for (std::int64_t row = 0; row < rows; ++row)
        std::fill_n(static_cast<T*>(matrix) + row * pitch, channels, stored);
    });
  });
}
void leave_ones(Image image, void* values, std::int64_t count) {
  leave_rows(image, values, 1, count, count);
}
void run_own_kernel() { move(own_runs, own_us); }

}  // namespace

bool fits(const BlockMap&, int) { return true; }
void gather_blocks(DeviceQueue&, int, const BlockMap&, const void*, void*) {
  move(moves.gathers, moves.gather_us);
}
void scatter_blocks(DeviceQueue&, int item_bytes, const BlockMap& map, const void*, void* to) {
  leave_ones(item_bytes == 2 ? Image::kBFloat16 : Image::kFloat32, to, map.from_count());
  move(moves.scatters, moves.gather_us);
}
void finish_padded(DeviceQueue&, Image image, const BlockMap& map, const ConvEpilogue&, const void*,
                   void* to) {
  leave_ones(image, to, map.from_count());
  move(moves.finishes, moves.finish_us);
}
void map_filters(DeviceQueue&, Image, const FilterMapping*, int) {
  move(moves.packs, moves.pack_us);
}
void unmap_filter(DeviceQueue&, const FilterMap& map, Image, const void*, Image type, void* to) {
  leave_ones(type, to, map.from_count());
  move(moves.unpacks, moves.pack_us);
}
std::int64_t conv2d_packed_bytes(Arithmetic, const ConvShape&, PackForm) { return 0; }
PackedInput packed_input(const PackTask&, std::int64_t bytes, const char* format, bool) {
  PackedInput packed;
  packed.rounded = DType::kBFloat16;
  packed.input = 1;
  packed.bytes = static_cast<std::size_t>(bytes);
  packed.format = format;
  return packed;
}
std::int64_t conv2d_scratch_bytes(Arithmetic, const ConvShape&, MeasureKind, bool) { return 16; }
std::int64_t conv2d_grad_input_scratch_bytes(Arithmetic, const ConvShape&, MeasureKind, bool) {
  return 16;
}
std::int64_t conv2d_grad_weight_scratch_bytes(Arithmetic, const ConvShape&, bool) { return 16; }
std::int64_t conv2d_grad_bias_scratch_bytes(const ConvShape&) { return 16; }
void conv2d_gradient_epilogue(DeviceQueue&, Image, const ConvShape&, const ConvEpilogue&, void*) {
  move(moves.epilogues, moves.finish_us);
}
std::int64_t pass_tiles(std::int64_t rows) { return rows; }
std::int64_t measure_scratch_bytes(std::int64_t tiles, std::int64_t channels) {
  return (2 * tiles + 1) * channels * static_cast<std::int64_t>(sizeof(float));
}

namespace {

// Moments, or the two sums, of values that are all ones.
std::vector<float> sums_of(MeasureKind kind, std::int64_t channels) {
  std::vector<float> sums;
  for (const float each : {3.0f, kind == MeasureKind::kMoments ? 0.0f : 7.0f, 2.0f})
    if (sums.size() < static_cast<std::size_t>(channels * (kind == MeasureKind::kMoments ? 3 : 2)))
      sums.insert(sums.end(), static_cast<std::size_t>(channels), each);
  return sums;
}
void leave_sums(const Measure& measure, const void* result, std::int64_t count,
                std::int64_t channels) {
  fake_cuda().effect([=] {
    std::vector<float> sums = sums_of(measure.kind, channels);
    const auto* const values = static_cast<const std::uint16_t*>(result);
    for (std::int64_t i = 0; i < count; ++i)
      if (values[i] != kOne) sums[0] = 1e3f;
    std::copy(sums.begin(), sums.end(), measure.result);
  });
}

}  // namespace

void conv2d(DeviceQueue&, Arithmetic arithmetic, const ConvShape& shape, const void*,
            const ConvWeights&, const ConvEpilogue& epilogue, const Measure& measure, void* output,
            void*) {
  leave_rows(image_of(arithmetic), output, shape.pixels(), shape.out_channels, shape.output_pitch(),
             activate(epilogue.curve, products));
  if (measure.kind != MeasureKind::kNothing) leave_sums(measure, output, 0, shape.out_channels);
  run_own_kernel();
}
void conv2d_grad_input(DeviceQueue&, Arithmetic arithmetic, const ConvShape& shape, const void*,
                       const ConvWeights&, const ConvEpilogue&, const Measure& measure,
                       void* grad_input, void*) {
  leave_rows(image_of(arithmetic), grad_input,
             std::int64_t{shape.images} * shape.height * shape.width, shape.in_channels,
             shape.input_pitch());
  if (measure.kind != MeasureKind::kNothing) leave_sums(measure, grad_input, 0, shape.in_channels);
  run_own_kernel();
}
void conv2d_grad_weight(DeviceQueue& queue, Arithmetic arithmetic, const ConvShape& shape,
                        const void*, const void* grad_output, float* grad_weight, float* grad_bias,
                        void* scratch) {
  leave_ones(Image::kFloat32, grad_weight, shape.weights());
  conv2d_grad_bias(queue, image_of(arithmetic), shape, grad_output, grad_bias, scratch);
  run_own_kernel();
}
void conv2d_grad_bias(DeviceQueue&, Image, const ConvShape& shape, const void*, float* grad_bias,
                      void*) {
  leave_ones(Image::kFloat32, grad_bias, shape.out_channels);
}
void compare(DeviceQueue&, Image image, const Comparison& comparison) {
  CHECK(!fake_cuda().capturing);
  with_vectors(image, comparison.channels, [&](auto type, auto width) {
    using Kernel = CompareRows<decltype(type), decltype(width)::value>;
    const Kernel kernel{comparison};
    typename Kernel::Shared shared;
    std::vector<typename Kernel::Registers> registers(Kernel::kThreads);
    for (std::int64_t i = 0; i < comparison.pieces(); ++i) {
      Block<Kernel> block(i, shared, registers.data(), i % 2 == 0);
      kernel(block);
    }
  });
}

void measure_pass(DeviceQueue&, Image, const Measure& measure, const void* result,
                  std::int64_t rows, std::int64_t channels, void*) {
  leave_sums(measure, result, rows * channels, channels);
  move(moves.measures, moves.measure_us);
}
void finish_and_sum_pass(DeviceQueue&, Image, const ConvEpilogue&, const Measure& measure,
                         void* result, std::int64_t rows, std::int64_t channels, void*) {
  leave_sums(measure, result, rows * channels, channels);
  move(moves.joined, moves.measure_us);
}

float* measure_partials(void* scratch, std::int64_t, std::int64_t) {
  return static_cast<float*>(scratch);
}
void measure_center(DeviceQueue&, Image, const ConvShape&, const void*, const void*, float*) {
  ++moves.centers;
}
// Of one tile: its sums are the variance, or what is wanted, as they are.
void finish_measure(DeviceQueue&, const Measure& measure, const MeasureShape& shape,
                    void* scratch) {
  CHECK(shape.tiles == 1);
  CHECK(shape.tile_rows == shape.rows);
  fake_cuda().effect([=] {
    const auto* const sums = static_cast<const float*>(scratch);
    const bool moments = measure.kind == MeasureKind::kMoments;
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      measure.result[c] = sums[c];
      measure.result[shape.channels + c] = moments ? 0.0f : sums[shape.channels + c];
      if (moments) measure.result[2 * shape.channels + c] = sums[shape.channels + c];
    }
  });
}

void Fake::leave(const Plan& plan, const ConvCall& call) {
  const ConvTask& task = plan.task;
  const Scripted& script = plan.script;
  const Leaves leaves = fake_cuda().capturing && script.replayed ? *script.replayed : script.leaves;
  if (leaves == Leaves::kNothing) return;
  float number = leaves == Leaves::kZero ? 0.0f : 1.0f;
  if (task.direction == Direction::kForward)
    number = activate(call.epilogue.curve, number * products);
  for (const ResultPart& part : results_of(task, call))
    leave_rows(part.image, part.data, part.rows - (leaves == Leaves::kGap ? 1 : 0), part.channels,
               part.pitch, leaves == Leaves::kWrong ? 1.1f * number : number);
  if (task.measure == MeasureKind::kNothing || script.measures == Measures::kNothing ||
      leaves == Leaves::kUnmeasured)
    return;
  fake_cuda().effect([plan, call] { leave_measured(plan, call); });
}
void Fake::leave_measured(const Plan& plan, const ConvCall& call) {
  const ConvTask& task = plan.task;
  const bool forward = task.direction == Direction::kForward;
  auto* const values =
      static_cast<std::uint16_t*>(const_cast<void*>(forward ? call.output : call.input));
  const std::int64_t channels = result_channels(task);
  const Measures kind = plan.script.measures;
  ++measured;
  std::vector<float> sums = sums_of(task.measure, channels);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    float& to = call.measure.result[i];
    if (plan.zeroes) to = 0.0f;
    if (kind == Measures::kAdding) sums[i] += to;
    if (kind == Measures::kWrong) sums[i] *= 1.1f;
    if (kind == Measures::kTile) sums[i] *= 1.0f - 128.0f / static_cast<float>(result_rows(task));
    if (kind == Measures::kUnsteady) sums[i] *= 1.0f + 1e-6f * static_cast<float>(measured);
    if (kind != Measures::kNan || i > 0) to = sums[i];
  }
  // Beyond the samples, where the pass alone sees it.
  if (kind == Measures::kMisplaced) values[(result_rows(task) * channels) / 3] = 0;
}
void cast(DeviceQueue&, Image, Image, const void*, void*, std::int64_t) { ++casts; }
void write_signs(DeviceQueue&, Image, const void* input, void* signs, std::int64_t count) {
  CHECK(count % kSigns == 0);
  written_signs[signs] = input;
}
void copy_box(DeviceQueue&, int item_bytes, const BoxParams& box) {
  CHECK(item_bytes == 2);
  CHECK(box.input != box.output);
  CHECK(box.count == box.shape[0] * box.shape[1]);
  CHECK(box.output_step[0] > box.input_step[0]);
  move(moves.copies, moves.copy_us);
}

std::map<int, std::vector<Scripted>> Fake::scripts;
int Fake::planned = 0, Fake::runs = 0, Fake::last_step = 0, Fake::measured = 0;
bool Fake::writes_apart = true;
double Fake::apart_us = 0.0;
const void *Fake::bias = nullptr, *Fake::packed_bias = nullptr;
std::string Fake::missing;
std::vector<std::pair<const void*, const void*>> Fake::places;
std::function<void()> Fake::while_compiling;
std::set<int> Fake::compilers;
std::mutex Fake::compiling;
cudaStream_t Fake::stream = nullptr;

}  // namespace pycnn::cuda
