// The device's side of the CUDA module for tests: memory is the host's, work is done when somebody
// waits for it and not before, so that what the host touches too early shows.
// Device 0 runs blocks and threads in their order and the last lane as far as it gets before the
// others; device 1 runs them backwards and the first lane before the others, so that what depends
// on an order differs. $PYCNN_EMULATED_FAILURE names what fails: "copy_in", "copy_out", "wait",
// "recording", "begin_recording", "allocate_host", "make_event" or "elapsed"; with "slow_lanes" it
// takes long to follow an event, in a time that counts each piece of work as a microsecond. Ranges
// are written to the file that $PYCNN_EMULATED_RANGES names, and calls with their bytes to that of
// $PYCNN_EMULATED_CALLS, kernels as "launch" when they run, and then their types to that of
// $PYCNN_EMULATED_KERNELS. There are as many bytes as $PYCNN_EMULATED_MEMORY says. Libraries of
// NVIDIA's that $PYCNN_EMULATED_MISSING names ("cuDNN, NVRTC, cuBLASLt") are told to be missing.
#include <cxxabi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/conv2d_rewrite.h"
#include "backends/cuda/device.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/library_options.h"
#include "backends/cuda/missing_library.h"
#include "backends/cuda/queue.h"
#include "backends/cuda/ranges.h"
#include "backends/cuda/select.h"

namespace pycnn::cuda {
namespace {
constexpr int kDevices = 2;
constexpr std::size_t kAlignment = 256, kMemoryBytes = std::size_t{1} << 30;

bool fails(const char* what) {
  const char* const named = std::getenv("PYCNN_EMULATED_FAILURE");
  return named != nullptr && std::strcmp(named, what) == 0;
}

void append(const char* variable, const std::string& line) {
  const char* const path = std::getenv(variable);
  if (path == nullptr) return;
  std::FILE* const file = std::fopen(path, "a");
  if (file == nullptr) return;
  (void)std::fprintf(file, "%s\n", line.c_str());
  (void)std::fclose(file);
}

void count(const char* call, std::size_t bytes = 0) {
  if (std::getenv("PYCNN_EMULATED_CALLS") != nullptr)
    append("PYCNN_EMULATED_CALLS", std::string(call) + " " + std::to_string(bytes));
}

// What the work that runs takes: as long as any other, but for recordings.
double work_us = 1.0;

// Runs what can run, of the last lane that can go on or, backwards, of the first, until it is
// enough or nothing can.
template <class Enough>
void run(LaneWork& work, bool backwards, const Enough& enough) {
  std::vector<int> order;
  for (auto& [lane, items] : work.lanes) order.push_back(lane);
  if (!backwards) std::reverse(order.begin(), order.end());
  while (!enough()) {
    const auto ready = std::find_if(order.begin(), order.end(), [&](int lane) {
      const std::deque<LaneWork::Item>& items = work.lanes[lane];
      return !items.empty() && (items.front().follows == nullptr ||
                                items.front().follows->reached >= items.front().number);
    });
    if (ready == order.end()) return;
    std::deque<LaneWork::Item>& items = work.lanes[*ready];
    const LaneWork::Item item = std::move(items.front());
    items.pop_front();
    double& clock = work.clocks[*ready];
    if (item.work) {
      work_us = 1.0;
      item.work();
      clock += work_us;
    }
    if (item.follows != nullptr)
      clock = std::max(clock, item.follows->time) + (fails("slow_lanes") ? 50.0 : 0.0);
    if (item.marks != nullptr) {
      item.marks->reached = item.number;
      item.marks->time = clock;
    }
  }
}

void run_all(DeviceQueue& queue) {
  run(queue.work, queue.backwards, [] { return false; });
}

// With events of its own: a recording is replayed many times.
LaneWork fresh_copy(const LaneWork& recorded) {
  LaneWork copy = recorded;
  std::map<const DeviceEvent::Count*, std::shared_ptr<DeviceEvent::Count>> fresh;
  const auto renew = [&](std::shared_ptr<DeviceEvent::Count>& event) {
    if (event == nullptr) return;
    std::shared_ptr<DeviceEvent::Count>& own = fresh[event.get()];
    if (own == nullptr) own = std::make_shared<DeviceEvent::Count>();
    event = own;
  };
  for (auto& [lane, items] : copy.lanes) {
    for (LaneWork::Item& item : items) {
      renew(item.marks);
      renew(item.follows);
    }
  }
  return copy;
}

// Whether the lanes of a recording begin and end on the main one, as CUDA wants it.
bool is_joined(const LaneWork& recorded) {
  using Mark = std::pair<const DeviceEvent::Count*, std::uint64_t>;
  std::set<Mark> marked, followed_by_main;
  for (const auto& [lane, items] : recorded.lanes) {
    for (const LaneWork::Item& item : items) {
      if (item.marks != nullptr) marked.insert({item.marks.get(), item.number});
      if (item.follows != nullptr && lane == kMainLane)
        followed_by_main.insert({item.follows.get(), item.number});
    }
  }
  for (const auto& [lane, items] : recorded.lanes) {
    for (const LaneWork::Item& item : items)
      if (item.follows != nullptr && !marked.contains({item.follows.get(), item.number}))
        return false;
    if (lane == kMainLane || items.empty()) continue;
    const LaneWork::Item& last = items.back();
    if (items.front().follows == nullptr || last.marks == nullptr ||
        !followed_by_main.contains({last.marks.get(), last.number}))
      return false;
  }
  return true;
}
}  // namespace

void note_launch(const char* kernel) {
  count("launch");
  if (std::getenv("PYCNN_EMULATED_KERNELS") == nullptr) return;
  char* const name = abi::__cxa_demangle(kernel, nullptr, nullptr, nullptr);
  append("PYCNN_EMULATED_KERNELS", name != nullptr ? name : kernel);
  std::free(name);
}

bool probe(int index, DeviceFacts& facts, std::string& problem) noexcept {
  if (index >= kDevices) {
    problem = "there is no GPU " + std::to_string(index);
    return false;
  }
  facts = {"emulated", "8.0", kMemoryBytes};
  return true;
}

DeviceQueue* open(int index, std::string&) noexcept {
  auto* queue = new DeviceQueue;
  queue->backwards = index == 1;
  return queue;
}
void close(DeviceQueue* queue) noexcept {
  run_all(*queue);
  delete queue;
}
int enter(DeviceQueue* queue) noexcept { return queue->entered++; }
void leave(DeviceQueue* queue, int before) noexcept { queue->entered = before; }

namespace {
// Filled with NaN (of float32 and bfloat16): what is read before it was written shows.
void* allocate_filled(std::size_t bytes) {
  if (bytes > kMemoryBytes) return nullptr;
  void* memory = ::operator new (bytes + 1, std::align_val_t{kAlignment}, std::nothrow);
  if (memory != nullptr) std::memset(memory, 0xFF, bytes);
  return memory;
}
}  // namespace

namespace {
std::size_t memory_bytes() {
  const char* const bytes = std::getenv("PYCNN_EMULATED_MEMORY");
  return bytes == nullptr ? kMemoryBytes : std::strtoull(bytes, nullptr, 10);
}

// What is allocated, of all queues.
struct Taken {
  std::mutex mutex;
  std::map<void*, std::size_t> blocks;
  std::size_t bytes = 0;
};
Taken& taken() {
  static auto* const all = new Taken;  // never destroyed: sessions may live as long as the process
  return *all;
}
}  // namespace

void* allocate(DeviceQueue*, std::size_t bytes) noexcept {
  count("allocate", bytes);
  const std::lock_guard lock(taken().mutex);
  if (taken().bytes + bytes > memory_bytes()) return nullptr;
  void* const memory = allocate_filled(bytes);
  if (memory == nullptr) return nullptr;
  taken().blocks[memory] = bytes;
  taken().bytes += bytes;
  return memory;
}
void release(DeviceQueue* queue, void* memory) noexcept {
  run_all(*queue);  // as cudaFree does
  {
    const std::lock_guard lock(taken().mutex);
    if (const auto entry = taken().blocks.find(memory); entry != taken().blocks.end()) {
      taken().bytes -= entry->second;
      taken().blocks.erase(entry);
    }
  }
  ::operator delete (memory, std::align_val_t{kAlignment});
}
std::size_t free_bytes(DeviceQueue*) noexcept {
  const std::lock_guard lock(taken().mutex);
  const std::size_t all = memory_bytes();
  return all > taken().bytes ? all - taken().bytes : 0;
}
void* allocate_host(DeviceQueue*, std::size_t bytes) noexcept {
  count("allocate_host", bytes);
  return fails("allocate_host") ? nullptr : allocate_filled(bytes);
}
void release_host(DeviceQueue*, void* memory) noexcept {
  ::operator delete (memory, std::align_val_t{kAlignment});
}

namespace {
void copy(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) {
  if (bytes > 0) submit(*queue, [=] { std::memmove(target, source, bytes); });
}

bool told(DeviceQueue& queue, std::string& problem) {
  const bool failed = queue.failed || fails("wait");
  queue.failed = false;
  if (failed) problem = "told to fail";
  return !failed;
}

LaneWork& taker(DeviceQueue& queue) {
  return queue.recording != nullptr ? *queue.recording->work : queue.work;
}
}  // namespace

void copy_in(DeviceQueue* queue, void* device, const void* host, std::size_t bytes) noexcept {
  count("copy_in", bytes);
  if (fails("copy_in"))
    queue->failed = true;
  else
    copy(queue, device, host, bytes);
}
void copy_within(DeviceQueue* queue, void* target, const void* source, std::size_t bytes) noexcept {
  copy(queue, target, source, bytes);
}
void copy_out(DeviceQueue* queue, void* host, const void* device, std::size_t bytes) noexcept {
  count("copy_out", bytes);
  if (fails("copy_out"))
    queue->failed = true;
  else
    copy(queue, host, device, bytes);
}
bool wait(DeviceQueue* queue, std::string& problem) noexcept {
  count("wait");
  run_all(*queue);
  return told(*queue, problem);
}
bool has_failed(DeviceQueue* queue) noexcept { return queue->failed; }

void use_lane(DeviceQueue* queue, int lane) noexcept { queue->lane = lane; }
DeviceEvent* make_event(DeviceQueue*, bool, std::string& problem) noexcept {
  if (!fails("make_event")) return new DeviceEvent;
  problem = "told to fail";
  return nullptr;
}
void forget_event(DeviceEvent* event) noexcept { delete event; }
void mark(DeviceQueue* queue, DeviceEvent* event) noexcept {
  taker(*queue).lanes[queue->lane].push_back(
      {nullptr, event->count, nullptr, ++event->count->marked});
}
void follow(DeviceQueue* queue, DeviceEvent* event) noexcept {
  count("follow");
  taker(*queue).lanes[queue->lane].push_back(
      {nullptr, nullptr, event->count, event->count->marked});
}
bool wait_for(DeviceQueue* queue, DeviceEvent* event, std::string& problem) noexcept {
  count("wait_for");
  run(queue->work, queue->backwards, [&] { return event->count->reached >= event->count->marked; });
  return told(*queue, problem);
}

double elapsed_us(DeviceQueue*, DeviceEvent* from, DeviceEvent* to) noexcept {
  return fails("elapsed") ? -1.0 : to->count->time - from->count->time;
}

// The libraries need a GPU. With $PYCNN_EMULATED_REWRITE, a number, their place is taken by our own
// kernels, which compute that one of the task's rewrites.
namespace {
constexpr const char* kNoLibrary = "the device is emulated";

struct OwnRewrite {
  ConvTask task;
  ConvRewrite rewrite;
  bool tf32;
  bool narrow;  // as OwnNarrow below
};
const OwnRewrite& own_rewrite(const KernelArgs& args) {
  return *static_cast<const OwnRewrite*>(static_cast<const DeviceKernelArgs&>(args).state);
}

std::int64_t aligned(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Our own kernels read weights of float32, so the packed ones of 16 bits are widened.
std::int64_t wide_bytes(const ConvRewrite& rewrite) { return rewrite.weight.to_count() * 4; }

template <class OpType>
constexpr bool kReadsWeight = !requires(const OpType& op) {
  op.bias;
};

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<std::uintptr_t>(view.data) % kVectorBytes == 0;
}

template <class OpType>
void run_own_rewrite(const KernelArgs& args) noexcept {
  const OwnRewrite& own = own_rewrite(args);
  DeviceQueue& queue = queue_of(args);
  // As a library, which would end there.
  queue.failed = queue.failed || !std::all_of(args.inputs.begin(), args.inputs.end(), is_aligned) ||
                 !std::all_of(args.outputs.begin(), args.outputs.end(), is_aligned);
  ConvCall call = call_of<OpType>(args);
  if (kReadsWeight<OpType>) call.packed = std::exchange(call.weight, nullptr);
  run_rewritten(queue, own.rewrite, call, args.scratch, own.narrow,
                [&](const ConvCall& moved, std::byte* rest) {
                  ConvCall inner = moved;
                  if (own.narrow) {
                    inner.grad_weight = reinterpret_cast<float*>(rest);
                    inner.narrow_grad_weight = nullptr;
                    rest += aligned(wide_bytes(own.rewrite));
                  }
                  if (kReadsWeight<OpType>) {
                    inner.weight = reinterpret_cast<const float*>(rest);
                    cast(queue, own.rewrite.task.image, Image::kFloat32, moved.packed, rest,
                         own.rewrite.weight.to_count());
                    rest += wide_bytes(own.rewrite);
                  }
                  inner.packed = nullptr;  // not as they read them
                  run_own(queue, own.rewrite.task, own.tf32, inner, rest);
                  if (own.narrow)
                    cast(queue, Image::kFloat32, own.rewrite.task.image, inner.grad_weight,
                         moved.narrow_grad_weight, own.rewrite.weight.to_count());
                });
  finish_behind(queue, own.task, call, args.scratch);
}

// With $PYCNN_EMULATED_MEASURE=1 it is taken by one that measures its result itself, as plans of
// libraries do: it leaves one tile's sums, in float32.
struct OwnMeasuring {
  ConvTask task;
  bool tf32;
  std::int64_t own_bytes;  // of scratch, before that of what is measured
};

void add_up(const ConvTask& task, const ConvCall& call, float* sums) {
  const std::int64_t rows = result_rows(task), channels = result_channels(task);
  const bool moments = task.measure == MeasureKind::kMoments;
  const void* const result = moments ? call.output : call.input;
  const Measure& m = call.measure;
  with_image(task.image, [&](auto type) {
    using T = decltype(type);
    const auto at = [](const void* values, std::int64_t i) {
      return widened(static_cast<const T*>(values)[i]);
    };
    for (std::int64_t c = 0; c < channels; ++c) {
      float a = 0.0f, b = 0.0f;
      for (std::int64_t row = 0; row < rows; ++row) {
        float value = at(result, row * channels + c), distance;
        if (moments) {
          value -= sums[2 * channels + c];
          distance = value;
        } else {
          distance = at(m.normed, row * m.normed_pitch + c) - m.mean[c];
          if (m.curve.kind != CurveKind::kIdentity)
            value = passed(
                m.curve, activate(m.curve, normalised(distance, m.factor[c], m.offset[c])), value);
        }
        a += value;
        b += value * distance;
      }
      sums[c] = a;
      sums[channels + c] = b;
    }
  });
}

template <class OpType>
void run_own_measuring(const KernelArgs& args) noexcept {
  const auto& own =
      *static_cast<const OwnMeasuring*>(static_cast<const DeviceKernelArgs&>(args).state);
  DeviceQueue& queue = queue_of(args);
  const ConvTask& task = own.task;
  const std::int64_t rows = result_rows(task), channels = result_channels(task);
  ConvCall call = call_of<OpType>(args);
  std::byte* const measured = args.scratch + own.own_bytes;
  float* const sums = measure_partials(measured, 1, channels);
  const void* weight = call.weight;
  ConvCall plain = call;
  plain.measure = {};
  std::byte* rest = args.scratch;
  if (is_narrow(task.image)) {  // packed, for the center, and widened for our own kernel
    cast(queue, task.image, Image::kFloat32, weight, rest, task.shape.weights());
    plain.weight = reinterpret_cast<const float*>(rest);
    rest += aligned(task.shape.weights() * 4);
  }
  if (task.measure == MeasureKind::kMoments)
    measure_center(queue, task.image, task.shape, call.input, weight, sums + 2 * channels);
  ConvTask alone = task;
  alone.measure = MeasureKind::kNothing;
  run_own(queue, alone, own.tf32, plain, rest);
  submit(queue, [task, call, sums] { add_up(task, call, sums); });
  finish_measure(queue, call.measure, {1, rows, rows, channels}, measured);
}

template <class OpType>
Choice choose_measuring(const ConvTask& task) {
  ConvTask alone = task;
  alone.measure = MeasureKind::kNothing;
  OwnMeasuring own{task, library_options(task.tf32).tf32, 0};
  own.own_bytes = aligned(task.shape.weights() * 4) + aligned(own_scratch_bytes(alone, own.tf32));
  Choice choice{run_own_measuring<OpType>,
                scratch(own.own_bytes + measure_scratch_bytes(1, result_channels(task)))};
  choice.variant = "measured";
  if (is_narrow(task.image))
    choice.packed = packed_input({arithmetic_of(task.image, false), task.shape, PackForm::kRounded},
                                 task.shape.weights() * 2, "weights, measured", true);
  choice.state = std::make_shared<OwnMeasuring>(own);
  choice.alignment = kVectorBytes;
  return choice;
}

// With $PYCNN_EMULATED_NARROW=1 it is taken, for gradients of weights beside 16 bits, by one that
// makes them in 16 bits and widens them in a pass behind, as plans of cuDNN do.
struct OwnNarrow {
  ConvTask task;
  bool tf32;
};

void run_own_narrow(const KernelArgs& args) noexcept {
  const auto& own =
      *static_cast<const OwnNarrow*>(static_cast<const DeviceKernelArgs&>(args).state);
  DeviceQueue& queue = queue_of(args);
  queue.failed = queue.failed || !is_aligned(args.outputs[0]);
  const std::int64_t weights = own.task.shape.weights();
  const ConvCall call = call_of<ops::Conv2dGradWeight>(args);
  std::byte* const wide = args.scratch;
  std::byte* const narrow = wide + aligned(weights * 4);
  ConvCall inner = call;
  inner.grad_weight = reinterpret_cast<float*>(wide);
  run_own(queue, own.task, own.tf32, inner, narrow + aligned(weights * 2));
  const Image image = own.task.image;
  void* const to = call.narrow_grad_weight != nullptr ? call.narrow_grad_weight : narrow;
  cast(queue, Image::kFloat32, image, wide, to, weights);
  if (to == narrow) cast(queue, image, Image::kFloat32, narrow, call.grad_weight, weights);
}

Choice choose_narrow(const ConvTask& task, const Problem& problem) {
  const OwnNarrow own{task, library_options(task.tf32).tf32};
  const std::int64_t weights = task.shape.weights();
  Choice choice{run_own_narrow, scratch(aligned(weights * 4) + aligned(weights * 2) +
                                        own_scratch_bytes(task, own.tf32))};
  if (problem.pinned.empty()) choice.widened_from = problem.inputs[0].dtype;
  choice.state = std::make_shared<OwnNarrow>(own);
  choice.alignment = kVectorBytes;
  return choice;
}

template <class OpType>
Choice choose_rewrite(const OpType& op, const Problem& problem) {
  if (std::getenv("PYCNN_EMULATED_MEASURE") != nullptr)
    if (const ConvTask task = wanted_task(op, problem); task.measure != MeasureKind::kNothing)
      return choose_measuring<OpType>(task);
  const char* const number = std::getenv("PYCNN_EMULATED_REWRITE");
  if (number == nullptr) return refuse(kNoLibrary);
  const ConvTask task = wanted_task(op, problem);
  const std::vector<ConvRewrite> rewrites = rewrites_of(task);
  const auto index = static_cast<std::size_t>(std::atoi(number));
  if (index >= rewrites.size()) return refuse("there are not that many rewrites");
  const bool narrow = std::getenv("PYCNN_EMULATED_NARROW") != nullptr &&
                      task.direction == Direction::kGradWeight && is_narrow(task.image);
  const OwnRewrite own{task, rewrites[index], library_options(task.tf32).tf32, narrow};
  const ConvRewrite& rewrite = own.rewrite;
  const std::int64_t inner =
      own_scratch_bytes(rewrite.task, own.tf32) + (wide_bytes(rewrite) + 255) / 256 * 256;
  const std::int64_t rewritten =
      rewrite.scratch_bytes() + std::max(inner, finish_scratch_bytes(rewrite));
  Choice choice{run_own_rewrite<OpType>,
                scratch(std::max(rewritten, measure_behind_scratch_bytes(task)))};
  choice.strided_inputs = norm_input(task);
  if (task.direction == Direction::kForward && task.measure == MeasureKind::kNothing &&
      !rewrite.moves_output)
    choice.strided_outputs = 1;  // a plan of the library would be made for that
  static auto* const names = new std::set<std::string>;
  choice.variant = names->insert(kLibrary<OpType> + ("+" + rewrite.name)).first->c_str();
  if (kReadsWeight<OpType>)
    choice.packed = rewritten_weight(rewrite, choice.variant, !problem.pinned.empty());
  if (narrow && problem.pinned.empty()) choice.widened_from = problem.inputs[0].dtype;
  choice.state = std::make_shared<OwnRewrite>(own);
  choice.alignment = kVectorBytes;
  return choice;
}

Choice choose_grad_weight(const ops::Conv2dGradWeight& op, const Problem& p) {
  const ConvTask task = task_of(op, p);
  if (Choice rewritten = choose_rewrite(op, p); rewritten.run != nullptr) return rewritten;
  if (std::getenv("PYCNN_EMULATED_NARROW") != nullptr && is_narrow(task.image))
    return choose_narrow(task, p);
  return choose_rewrite(op, p);
}

// With what is told to be missing of the libraries that would compute it.
Choice without(std::initializer_list<const NvidiaLibrary*> libraries, Choice choice) {
  const char* const missing = std::getenv("PYCNN_EMULATED_MISSING");
  for (const NvidiaLibrary* const library : libraries)
    if (missing != nullptr && std::strstr(missing, library->name) != nullptr)
      for (std::string& line : missing_line(*library, "told to be missing"))
        choice.missing.push_back(std::move(line));
  return choice;
}
template <class OpType>
Choice choose_conv(const OpType& op, const Problem& p) {
  return without({&kCudnnLibrary, &kNvrtcLibrary}, choose_rewrite(op, p));
}
template <class OpType>
Choice choose_dense(const OpType& op, const Problem& p) {
  return without({&kCublasLtLibrary}, choose_rewrite(op, p));
}
}  // namespace
Choice select_library(int, const ops::Conv2d& op, const Problem& p) { return choose_conv(op, p); }
Choice select_library(int, const ops::Conv2dGradInput& op, const Problem& p) {
  return choose_conv(op, p);
}
Choice select_library(int, const ops::Conv2dGradWeight& op, const Problem& p) {
  return without({&kCudnnLibrary, &kNvrtcLibrary}, choose_grad_weight(op, p));
}
Choice select_library(int, const ops::Dense& op, const Problem& p) { return choose_dense(op, p); }
Choice select_library(int, const ops::DenseGradInput& op, const Problem& p) {
  return choose_dense(op, p);
}
Choice select_library(int, const ops::DenseGradWeight& op, const Problem& p) {
  return choose_dense(op, p);
}

void begin_recording(DeviceQueue* queue) noexcept {
  queue->earlier = queue->failed;
  queue->failed = fails("begin_recording");
  if (queue->failed) return;
  queue->recording = std::make_unique<DeviceRecording>();
}
DeviceRecording* end_recording(DeviceQueue* queue, std::string& problem) noexcept {
  const std::unique_ptr<DeviceRecording> recording = std::move(queue->recording);
  queue->failed = queue->earlier;
  if (recording == nullptr) {
    problem = "told to fail";
    return nullptr;
  }
  problem = fails("recording")            ? "told to fail"
            : is_joined(*recording->work) ? ""
                                          : "the lanes are not joined";
  if (!problem.empty()) return nullptr;
  return new DeviceRecording(std::move(*recording));
}
void replay(DeviceQueue* queue, DeviceRecording* recording) noexcept {
  count("replay");
  submit(*queue, [recorded = recording->work, backwards = queue->backwards] {
    LaneWork work = fresh_copy(*recorded);
    run(work, backwards, [] { return false; });
    work_us = work.clocks[kMainLane];
  });
}
void forget(DeviceRecording* recording) noexcept { delete recording; }

void begin_range(const char* name) noexcept { append("PYCNN_EMULATED_RANGES", name); }
void end_range() noexcept { append("PYCNN_EMULATED_RANGES", "end"); }

}  // namespace pycnn::cuda
