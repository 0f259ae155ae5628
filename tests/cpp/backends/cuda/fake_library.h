#pragma once
#ifndef PYCNN_VERSION
#define PYCNN_VERSION "test"
#endif
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/cuda/library_kernel.h"
#include "support/temporary_directory.h"
#include "support/variable.h"

// For tests of how a library's kernel is chosen (library_kernel.h): a library whose plans have
// scripted times, moves that are counted and a runtime whose clock the tests know
// (support/fake_cuda).
namespace pycnn::cuda {

using testing::Variable;

// What moves images and weights takes, and how often it was asked to.
struct Moves {
  double gather_us = 1.0, pack_us = 1.0, finish_us = 1.0, measure_us = 1.0, copy_us = 1.0;
  int gathers = 0, scatters = 0, packs = 0, unpacks = 0, finishes = 0, measures = 0, copies = 0,
      joined = 0, epilogues = 0, centers = 0;
};
inline Moves moves;
inline std::map<const void*, const void*> written_signs;  // that were written: of what
inline double own_us = 1000.0;
// What products add up to in forward passes, before the curve.
inline float products = 1.0f;
inline int own_runs = 0, casts = 0;

// What a plan that measures its result leaves there.
enum class Measures {
  kNothing,  // it does not
  kRight,
  kAdding,     // to what lies there
  kWrong,      // all sums a tenth too large
  kNan,        // a sum that it leaves as it was, as those beyond the last tile
  kUnsteady,   // a little more each time
  kMisplaced,  // the values are wrong, the sums right
  kTile        // all but the last 128 rows
};

// What a plan leaves of its results, which are ones unless `products` says something else.
enum class Leaves {
  kRight,
  kWrong,  // a tenth too large
  kGap,    // the last row as it was
  kZero,   // as if its products were zero
  kNothing,
  kUnmeasured  // the values alone, where it measures
};

struct Scripted {
  std::string name;
  double us = 0.0;
  bool fails = false;
  std::int64_t scratch = 0;
  bool compiles = false;
  Measures measures = Measures::kNothing;
  Leaves leaves = Leaves::kRight;
  bool lacks_memory = false;
  bool refuses_recording = false;
  std::optional<Leaves> replayed = {};  // what a recording of it leaves; none: the same
};

struct FakePlan {
  Scripted script;
  ConvTask task;
  bool zeroes = false;
  std::int64_t scratch_bytes() const { return script.scratch; }
  std::int64_t workspace_bytes() const { return script.scratch; }
};

// What it offers for tasks by their number of input channels.
struct Fake {
  struct Link {
    const int* functions = nullptr;
    std::string problem;
    bool is_loaded = false;
  };
  using Plan = FakePlan;
  static constexpr const char* kName = "fake";
  static constexpr const char* kNoPlan = "the library has none";
  static constexpr const char* kNotGiven = "not given";

  static std::map<int, std::vector<Scripted>> scripts;
  static int planned, runs, last_step;
  static bool writes_apart;  // whether there are plans where pixels of the result lie apart
  static double apart_us;    // what it takes more where pixels of the result lie apart
  static std::string missing;
  static std::vector<std::pair<const void*, const void*>> places;  // images and weights of runs

  template <class OpType>
  static const char* variant(const Plan&) {
    return kLibrary<OpType>;
  }
  static const int* load(std::string&) { return &planned; }
  static bool open(Link&) { return true; }
  static std::string left_out(const Link&, const LibraryOptions&) { return missing; }
  static std::string key(const Link&, const ConvTask& task, const LibraryOptions&) {
    return "fake " + std::to_string(task.shape.images) + " " +
           std::to_string(static_cast<int>(task.direction)) + " " +
           std::to_string(task.shape.output_step) +
           (task.measure != MeasureKind::kNothing ? kMeasuredMark : "");
  }
  // When it makes plans that are compiled, and which thread did.
  static std::function<void()> while_compiling;
  static std::set<int> compilers;
  static std::mutex compiling;

  static std::vector<Offer<Plan>> offers(const Link&, const ConvTask& task, const LibraryOptions&) {
    ++planned;
    std::vector<Offer<Plan>> found;
    if (task.shape.output_step != 0 && !writes_apart) return found;
    for (const Scripted& script : scripts[task.shape.in_channels])
      found.push_back({[script, task](int thread) {
                         if (script.compiles) {
                           if (while_compiling) while_compiling();
                           const std::lock_guard lock(compiling);
                           compilers.insert(thread);
                         }
                         return std::make_shared<Plan>(Plan{script, task});
                       },
                       script.compiles, script.measures != Measures::kNothing});
    return found;
  }
  static std::string text(const Plan& plan) { return (plan.zeroes ? "0" : "") + plan.script.name; }
  static std::shared_ptr<Plan> read(const Link&, const ConvTask& task, const LibraryOptions&,
                                    const std::string& text) {
    for (const Scripted& script : scripts[task.shape.in_channels])
      for (const bool zeroes : {false, true})
        if ((zeroes ? "0" : "") + script.name == text)
          return std::make_shared<Plan>(Plan{script, task, zeroes});
    return nullptr;
  }
  static bool measures(const Plan& plan) { return plan.script.measures != Measures::kNothing; }
  static void zero_first(Plan& plan) { plan.zeroes = true; }
  static void leave(const Plan& plan, const ConvCall& call);
  static void leave_measured(const Plan& plan, const ConvCall& call);
  static int measured;  // how often such a plan ran
  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte*) {
    ++runs;
    stream = queue.stream;
    places.push_back({call.input, call.packed != nullptr ? call.packed : call.weight});
    fake_cuda().work(plan.script.us + (plan.task.shape.output_step != 0 ? apart_us : 0.0));
    last_step = plan.task.shape.output_step;
    bias = call.epilogue.bias;
    packed_bias = call.packed_bias;
    leave(plan, call);
    if (plan.script.name == "throws") throw std::runtime_error("no work for it");
    if (plan.script.fails) note_library(queue, "trouble");
    if (plan.script.refuses_recording && fake_cuda().capturing)
      note_library(queue, "not while it is recorded");
    if (plan.script.lacks_memory)
      note_library(queue, "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED");
  }
  static Image image(const Plan& plan) { return plan.task.image; }
  static bool packs_bias(const Plan& plan) {
    return plan.task.bias && plan.script.name != "widens" && is_narrow(plan.task.image);
  }
  static bool leaves_narrow(const Plan& plan) {
    return plan.task.direction == Direction::kGradWeight && plan.script.name.starts_with("narrow");
  }
  static const void *bias, *packed_bias;  // of the last run
  static void forget_stream(const Link&) { stream = nullptr; }
  static cudaStream_t stream;  // that it was given last
};
// Each test has tasks of its own, since choices are kept: images are counted on.
inline int next_images() {
  static int images = 0;
  return ++images;
}

// 3 channels become 16 by blocks, 8 or 16 by padding; 16 stay.
inline ConvTask stem(int images, int channels = 3) {
  ConvTask task;
  task.image = Image::kBFloat16;
  ConvShape& s = task.shape;
  s.images = images;
  s.height = s.width = 12;
  s.in_channels = channels;
  s.out_channels = 8;
  s.kernel_height = s.kernel_width = 7;
  s.stride_y = s.stride_x = 2;
  s.out_height = s.out_width = 6;
  s.top = s.left = task.bottom = task.right = 3;
  s.dilation_y = s.dilation_x = s.groups = 1;
  return task;
}
constexpr int kPlain = 3, kPadded = 8, kBlocks = 16;

struct Found {
  std::string rewrite, plan, why;
};

// A library and a device as they were, and what is found for tasks.
struct Choices {
  Choices() {
    static const TemporaryDirectory directory;  // for the one cache there is
    setenv("PYCNN_CUDA_PLANS", (directory / "plans").c_str(), 1);
    (void)plan_cache();
    unsetenv("PYCNN_CUDA_PLANS");
    fake_cuda() = {};
    moves = {};
    own_us = 1000.0;
    products = 1.0f;
    own_runs = Fake::planned = Fake::runs = Fake::measured = 0;
    Fake::apart_us = 0.0;
    Fake::writes_apart = true;
    Fake::places.clear();
    Fake::while_compiling = nullptr;
    Fake::compilers.clear();
    Fake::scripts = {
        {kPlain, {{"plain", 100.0}}}, {kPadded, {{"padded", 20.0}}}, {kBlocks, {{"blocks", 10.0}}}};
  }
  ~Choices() {
    CHECK(Fake::stream == nullptr);  // they ended
    CHECK(fake_cuda().streams == 0);
    CHECK(fake_cuda().allocations == 0);
    CHECK(fake_cuda().current == 7);  // the caller's, still
    fake_cuda() = {};
  }

  // `ago` seconds after choosing for the program began.
  static Found find(const ConvTask& task, double ago = 0.0) {
    Found found;
    const auto began = Clock::now() - std::chrono::duration_cast<Clock::duration>(
                                          std::chrono::duration<double>(ago));
    const Chosen<Fake> chosen = find_plan<Fake>(0, task, found.why, began);
    if (chosen.rewrite != nullptr) found.rewrite = chosen.rewrite->name;
    if (chosen.plan != nullptr) found.plan = chosen.plan->script.name;
    return found;
  }

  static std::string key_of(const ConvTask& task) {
    std::string key = std::string("pycnn " PYCNN_VERSION "; ") + device_identity(0) + "; " +
                      Fake::key({}, task, library_options());
    for (const auto& rewrite : rewrites_to_try(task, library_options()))
      key += rewrite_mark(rewrite.get());
    return key;
  }
};

constexpr const char* kBlocksName = "blocks2x2c16k8";

// A convolution whose result a concat of 24 channels reads.
struct Concatenated {
  std::vector<TensorSpec> inputs, outputs;
  ops::Conv2d conv;
  Problem problem;
  explicit Concatenated(std::int64_t channels, bool bias = false) {
    const std::int64_t images = next_images();
    inputs = {{{images, 12, 12, channels}, DType::kBFloat16},
              {{8, 3, 3, channels}, DType::kFloat32}};
    if (bias) inputs.push_back({{8}, DType::kFloat32});
    outputs = {{{images, 12, 12, 8}, DType::kBFloat16}};
    conv.padding = {1, 1, 1, 1};
    problem.inputs = inputs;
    problem.outputs = outputs;
    problem.output_pitch = 24;
  }
  Choice choose() const { return choose_library<Fake>(0, conv, problem); }
  bool takes_library() const { return choose().run != nullptr; }
  // The distance of pixels that the plan was made for which is run with that of the view.
  int run(const Choice& choice, std::int64_t pitch) const {
    DeviceQueue queue;
    const Op op = conv;
    const auto most = static_cast<std::size_t>(std::max(count_of(inputs[0]), count_of(inputs[1])));
    const auto pixels = static_cast<std::size_t>(rows_of(outputs[0]));
    std::vector<std::byte> scratch(choice.scratch_bytes), data(4 * most), result(pixels * 2 * 24);
    std::vector<TensorView> in;
    for (const TensorSpec& spec : inputs) in.push_back({data.data(), &spec, 0});
    const TensorView out{result.data(), outputs.data(), pitch};
    DeviceKernelArgs args;
    args.op = &op;
    args.inputs = in;
    args.outputs = {&out, 1};
    args.queue = &queue;
    args.state = choice.state.get();
    args.scratch = scratch.data();
    choice.run(args);
    CHECK(!queue.failed());
    return Fake::last_step;
  }
};

}  // namespace pycnn::cuda
