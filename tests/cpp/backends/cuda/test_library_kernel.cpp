// How a library's kernel is chosen for a convolution among plans for the convolution itself and for
// those it can be rewritten to: by a library whose plans have scripted times, moves that are
// counted and a runtime whose clock the tests know (support/fake_cuda).
#ifndef PYCNN_VERSION
#define PYCNN_VERSION "test"
#endif
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "backends/cuda/conv2d_rewrite.cpp"
#include "backends/cuda/library_kernel.h"
#include "support/temporary_directory.h"
#include "support/variable.h"

namespace pycnn::cuda {

namespace {

// What moves images and weights takes, and how often it was asked to.
struct Moves {
  double gather_us = 1.0, pack_us = 1.0, finish_us = 1.0, measure_us = 1.0, copy_us = 1.0;
  int gathers = 0, scatters = 0, packs = 0, unpacks = 0, finishes = 0, measures = 0, copies = 0,
      joined = 0, epilogues = 0;
};
Moves moves;
double own_us = 1000.0;
int own_runs = 0;

void move(int& count, double us) {
  ++count;
  fake_cuda().work(us);
}
void run_own_kernel() { move(own_runs, own_us); }

}  // namespace

bool fits(const BlockMap&, int) { return true; }
void gather_blocks(DeviceQueue&, int, const BlockMap&, const void*, void*) {
  move(moves.gathers, moves.gather_us);
}
void scatter_blocks(DeviceQueue&, int, const BlockMap&, const void*, void*) {
  move(moves.scatters, moves.gather_us);
}
void finish_padded(DeviceQueue&, Image, const BlockMap&, const ConvEpilogue&, const void*, void*) {
  move(moves.finishes, moves.finish_us);
}
void map_filter(DeviceQueue&, Image, const FilterMap&, const float*, void*) {
  move(moves.packs, moves.pack_us);
}
void unmap_filter(DeviceQueue&, const FilterMap&, const float*, float*) {
  move(moves.unpacks, moves.pack_us);
}
std::int64_t conv2d_packed_bytes(Arithmetic, const ConvShape&, PackForm) { return 0; }
PackedInput packed_input(const PackTask&, std::int64_t bytes, const char* format, bool) {
  PackedInput packed;
  packed.input = 1;
  packed.bytes = static_cast<std::size_t>(bytes);
  packed.format = format;
  return packed;
}
std::int64_t conv2d_scratch_bytes(Arithmetic, const ConvShape&, MeasureKind, bool) { return 16; }
std::int64_t conv2d_grad_input_scratch_bytes(Arithmetic, const ConvShape&, MeasureKind, bool) {
  return 16;
}
std::int64_t conv2d_grad_weight_scratch_bytes(const ConvShape&, bool) { return 16; }
std::int64_t conv2d_grad_bias_scratch_bytes(const ConvShape&) { return 16; }
void conv2d(DeviceQueue&, Arithmetic, const ConvShape&, const void*, const ConvWeights&,
            const ConvEpilogue&, const Measure&, void*, void*) {
  run_own_kernel();
}
void conv2d_grad_input(DeviceQueue&, Arithmetic, const ConvShape&, const void*, const ConvWeights&,
                       const ConvEpilogue&, const Measure&, void*, void*) {
  run_own_kernel();
}
void conv2d_grad_weight(DeviceQueue&, Arithmetic, const ConvShape&, const void*, const void*,
                        float*, float*, void*) {
  run_own_kernel();
}
void conv2d_grad_bias(DeviceQueue&, Image, const ConvShape&, const void*, float*, void*) {}
void conv2d_gradient_epilogue(DeviceQueue&, Image, const ConvShape&, const ConvEpilogue&, void*) {
  move(moves.epilogues, moves.finish_us);
}
std::int64_t pass_tiles(std::int64_t rows) { return rows; }
std::int64_t measure_scratch_bytes(std::int64_t tiles, std::int64_t channels) {
  return tiles * channels;
}
void measure_pass(DeviceQueue&, Image, const Measure&, const void*, std::int64_t, std::int64_t,
                  void*) {
  move(moves.measures, moves.measure_us);
}
void finish_and_sum_pass(DeviceQueue&, Image, const ConvEpilogue&, const Measure&, void*,
                         std::int64_t, std::int64_t, void*) {
  move(moves.joined, moves.measure_us);
}
void cast(DeviceQueue&, Image, Image, const void*, void*, std::int64_t) {}
void copy_box(DeviceQueue&, int item_bytes, const BoxParams& box) {
  CHECK(item_bytes == 2);
  CHECK(box.input != box.output);
  CHECK(box.count == box.shape[0] * box.shape[1]);
  CHECK(box.output_step[0] > box.input_step[0]);
  move(moves.copies, moves.copy_us);
}

namespace {

using testing::Variable;

struct Scripted {
  std::string name;
  double us = 0.0;
  bool fails = false;
  std::int64_t scratch = 0;
  bool compiles = false;
};

struct FakePlan {
  Scripted script;
  ConvTask task;
  std::int64_t scratch_bytes() const { return script.scratch; }
};

// What it offers for tasks by their number of input channels.
struct Fake {
  struct Link {
    const int* functions = nullptr;
    std::string problem;
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
           std::to_string(task.shape.output_step);
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
                       script.compiles});
    return found;
  }
  static std::string text(const Plan& plan) { return plan.script.name; }
  static std::shared_ptr<Plan> read(const Link&, const ConvTask& task, const LibraryOptions&,
                                    const std::string& text) {
    for (const Scripted& script : scripts[task.shape.in_channels])
      if (script.name == text) return std::make_shared<Plan>(Plan{script, task});
    return nullptr;
  }
  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte*) {
    ++runs;
    stream = queue.stream;
    places.push_back({call.input, call.packed != nullptr ? call.packed : call.weight});
    fake_cuda().work(plan.script.us + (plan.task.shape.output_step != 0 ? apart_us : 0.0));
    last_step = plan.task.shape.output_step;
    if (plan.script.name == "throws") throw std::runtime_error("no work for it");
    if (plan.script.fails) note_library(queue, "trouble");
  }
  static Image image(const Plan& plan) { return plan.task.image; }
  static void forget_stream(const Link&) { stream = nullptr; }
  static cudaStream_t stream;  // that it was given last
};
std::map<int, std::vector<Scripted>> Fake::scripts;
int Fake::planned = 0, Fake::runs = 0, Fake::last_step = 0;
bool Fake::writes_apart = true;
double Fake::apart_us = 0.0;
std::string Fake::missing;
std::vector<std::pair<const void*, const void*>> Fake::places;
std::function<void()> Fake::while_compiling;
std::set<int> Fake::compilers;
std::mutex Fake::compiling;
cudaStream_t Fake::stream = nullptr;

// Each test has tasks of its own, since choices are kept: images are counted on.
int next_images() {
  static int images = 0;
  return ++images;
}

// 3 channels become 16 by blocks, 8 or 16 by padding; 16 stay.
ConvTask stem(int images, int channels = 3) {
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
    own_runs = Fake::planned = Fake::runs = 0;
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

TEST_CASE("library kernel: rewrites are timed with what moves images and weights") {
  const Choices choices;
  Found found = choices.find(stem(next_images()));
  CHECK(found.rewrite == kBlocksName);
  CHECK(found.plan == "blocks");
  CHECK(moves.gathers > 0);
  CHECK(moves.finishes + moves.scatters + moves.unpacks == 0);
  moves.gather_us = 90.5;  // and 10 are more than 100
  found = choices.find(stem(next_images()));
  CHECK(found.rewrite.empty());
  CHECK(found.plan == "plain");
  moves.gather_us = 89.5;
  CHECK(choices.find(stem(next_images())).plan == "blocks");
  // Weights are packed once, and their gradients unpacked each time.
  moves = {};
  moves.pack_us = 1000.0;
  ConvTask task = stem(next_images());
  for (const Direction direction : {Direction::kForward, Direction::kGradInput}) {
    task.direction = direction;
    CHECK(choices.find(task).plan == "blocks");
  }
  CHECK(moves.packs == 0);
  task.direction = Direction::kGradWeight;
  moves.pack_us = 88.5;  // 10 + 1 + 88.5 are less than 100
  CHECK(choices.find(task).plan == "blocks");
  moves.pack_us = 89.5;
  task.shape.images = next_images();
  CHECK(choices.find(task).plan == "plain");
  own_us = 5.0;
  found = choices.find(stem(next_images()));
  CHECK(found.plan.empty());
  CHECK(found.why == kOwnWasFaster);
}

TEST_CASE("library kernel: each direction moves what it has to") {
  const Choices choices;
  ConvTask task = stem(next_images());
  task.shape.out_channels = 6;  // padded to 8
  task.bias = true;
  Fake::scripts = {{kBlocks, {{"blocks", 10.0}}}};
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.gathers > 0);
  CHECK(moves.finishes == moves.gathers);
  CHECK(moves.packs + moves.scatters + moves.unpacks == 0);
  moves = {};
  task.bias = false;
  task.direction = Direction::kGradInput;
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.scatters > 0);
  CHECK(moves.gathers == moves.scatters);  // the gradient of the result
  CHECK(moves.packs + moves.finishes + moves.unpacks == 0);
  moves = {};
  task.direction = Direction::kGradWeight;
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.unpacks > 0);
  CHECK(moves.gathers == 2 * moves.unpacks);
  CHECK(moves.packs + moves.scatters + moves.finishes == 0);
}

// Of how many calls the tensors are that were read last.
std::size_t calls_in_turn() {
  const std::size_t last = std::min<std::size_t>(kTimedCalls, Fake::places.size());
  std::set<const void*> images, weights;
  for (std::size_t i = Fake::places.size() - last; i < Fake::places.size(); ++i) {
    images.insert(Fake::places[i].first);
    weights.insert(Fake::places[i].second);
  }
  CHECK(images.size() == weights.size());
  return images.size();
}

TEST_CASE("library kernel: tensors are timed in turn until the cache cannot hold them all") {
  const Choices choices;
  Fake::scripts = {{16, {{"only", 10.0}}}};
  own_us = 1e6;
  const auto find = [&](double cache) {  // of that many times a call's tensors
    const ConvTask task = stem(next_images(), 16);
    const int images = task.shape.images * (12 * 12 * 16 + 6 * 6 * 8) * 2;
    fake_cuda().cache_bytes = static_cast<int>(cache * (images + 8 * 7 * 7 * 16 * (4 + 2)));
    CHECK(choices.find(task).plan == "only");
    return calls_in_turn();
  };
  CHECK(find(0.0) == 1);
  CHECK(find(0.5) == 2);
  CHECK(find(1.0) == 3);
  CHECK(find(3.0) == 7);
  CHECK(find(100.0) == kTimedCalls);
  // What there is no memory for is left out.
  fake_cuda().blocks_left = 3 * 4 + 1;  // tensors of three calls, and scratch
  CHECK(find(100.0) == 3);
}

TEST_CASE("library kernel: what measures a result is timed with each plan") {
  const Choices choices;
  ConvTask task = stem(next_images());
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.measures == 0);
  own_us = 30.0;  // which measures itself
  for (const Direction direction : {Direction::kForward, Direction::kGradInput}) {
    task = stem(next_images());
    task.direction = direction;
    task.measure = direction == Direction::kForward ? MeasureKind::kMoments : MeasureKind::kSums;
    moves.measures = Fake::runs = 0;
    moves.measure_us = 10.0;
    CHECK(choices.find(task).rewrite == kBlocksName);
    CHECK(moves.measures == Fake::runs);
    task.shape.images = next_images();
    moves.measure_us = 25.0;
    CHECK(choices.find(task).why == kOwnWasFaster);
  }
}

TEST_CASE("library kernel: what finishes a gradient measures it in the same pass") {
  const Choices choices;
  ConvTask task = stem(next_images());
  task.direction = Direction::kGradInput;
  const auto passes = [&](bool residual, bool gate, MeasureKind measure) {
    moves = {};
    task.shape.images = next_images();
    task.residual = residual;
    task.gate = gate;
    task.measure = measure;
    Fake::runs = 0;
    CHECK(choices.find(task).plan == "blocks");
    CHECK(Fake::runs > 0);
    CHECK(moves.joined + moves.epilogues + moves.measures == Fake::runs);
    return std::vector<bool>{moves.joined > 0, moves.epilogues > 0, moves.measures > 0};
  };
  using Passes = std::vector<bool>;
  CHECK(passes(true, true, MeasureKind::kNothing) == Passes{false, true, false});
  CHECK(passes(false, false, MeasureKind::kSums) == Passes{false, false, true});
  CHECK(passes(true, false, MeasureKind::kSums) == Passes{true, false, false});
  CHECK(passes(false, true, MeasureKind::kSums) == Passes{true, false, false});
}

TEST_CASE("library kernel: a rewrite that is refused or fails leaves the choice to the others") {
  const Choices choices;
  Fake::scripts[kBlocks].clear();
  Found found = choices.find(stem(next_images()));
  CHECK(found.rewrite == "paddedc8k8");
  CHECK(found.plan == "padded");
  Fake::scripts[kBlocks] = {{"blocks", 10.0, true}};
  CHECK(choices.find(stem(next_images())).plan == "padded");
  Fake::scripts[kPadded] = {{"padded", 1.0, true}};
  found = choices.find(stem(next_images()));
  CHECK(found.rewrite.empty());
  CHECK(found.plan == "plain");
  Fake::scripts.clear();
  found = choices.find(stem(next_images()));
  CHECK(found.plan.empty());
  CHECK(found.why == Fake::kNoPlan);
}

TEST_CASE("library kernel: what there is no memory for leaves the choice to the others") {
  const Choices choices;
  Fake::scripts[kBlocks] = {{"large", 5.0, false, 1 << 20}, {"blocks", 10.0}};
  CHECK(choices.find(stem(next_images())).plan == "large");
  fake_cuda().largest_block = 1 << 20;  // and the images are moved
  CHECK(choices.find(stem(next_images())).plan == "blocks");
  const ConvTask task = stem(100 + next_images());
  // Not even for moved images, but for all weights.
  fake_cuda().largest_block = std::size_t{1000} * task.shape.images;
  Fake::scripts[kPlain] = {{"plain", 100.0}, {"wide", 50.0, false, 1 << 20}};
  CHECK(choices.find(task).plan == "plain");
  // It is kept for this process, which has little memory, and for no other.
  fake_cuda().largest_block = ~std::size_t{0};
  Fake::runs = 0;
  CHECK(choices.find(task).plan == "plain");
  CHECK(Fake::runs == 0);
  CHECK(!PlanCache(plan_cache().file()).find(choices.key_of(task)));
  CHECK(choices.find(stem(next_images())).plan == "large");  // which writes the file
  CHECK(!PlanCache(plan_cache().file()).find(choices.key_of(task)));
}

TEST_CASE("library kernel: a choice is kept, and read again without timing") {
  const Choices choices;
  const ConvTask task = stem(next_images());
  CHECK(choices.find(task).plan == "blocks");
  const std::string key = choices.key_of(task);
  CHECK(plan_cache().find(key) == "@blocks2x2c16k8@blocks");
  CHECK(PlanCache(plan_cache().file()).find(key) == "@blocks2x2c16k8@blocks");
  Fake::planned = Fake::runs = 0;
  const Found again = choices.find(task);
  CHECK(again.rewrite == kBlocksName);
  CHECK(again.plan == "blocks");
  CHECK(Fake::planned + Fake::runs == 0);
  // Of the task itself, and of our own kernel.
  const ConvTask plain = stem(next_images()), own = stem(next_images());
  plan_cache().put(choices.key_of(plain), "plain");
  plan_cache().put(choices.key_of(own), kOwnKernel);
  CHECK(choices.find(plain).plan == "plain");
  CHECK(choices.find(own).why == kOwnWasFaster);
  CHECK(Fake::planned == 0);
  CHECK(Fake::runs == 1);  // whether it still does
  CHECK(choices.find(plain).plan == "plain");
  CHECK(Fake::runs == 1);
}

TEST_CASE("library kernel: what is kept and cannot be had is timed anew") {
  const Choices choices;
  for (const char* const stale :
       {"@blocks2x2c16k8@gone", "@blocks2x2c24k8@blocks", "@blocks2x2c16k8", "@paddedc8k8@blocks",
        "blocks", "gone", "@@plain", ""}) {
    CAPTURE(stale);
    const ConvTask task = stem(next_images());
    plan_cache().put(choices.key_of(task), stale);
    Fake::runs = 0;
    const Found found = choices.find(task);
    CHECK(found.rewrite == kBlocksName);
    CHECK(found.plan == "blocks");
    CHECK(Fake::runs > 0);
    CHECK(plan_cache().find(choices.key_of(task)) == "@blocks2x2c16k8@blocks");
  }
}

TEST_CASE("library kernel: what is kept and does not run is chosen anew") {
  const Choices choices;
  Fake::scripts[kPlain] = {{"broken", 1.0, true}, {"throws", 1.0}, {"plain", 2.0}};
  for (const char* const kept : {"broken", "throws"}) {
    CAPTURE(kept);
    const ConvTask task = stem(next_images());
    plan_cache().put(choices.key_of(task), kept);
    CHECK(choices.find(task).plan == "plain");
    CHECK(plan_cache().find(choices.key_of(task)) == "plain");
  }
  // Without memory to see it, what is kept is taken.
  const ConvTask task = stem(next_images());
  plan_cache().put(choices.key_of(task), "broken");
  fake_cuda().largest_block = 16;
  CHECK(choices.find(task).plan == "broken");
}

TEST_CASE("library kernel: what users forbid or ask for is not kept for others") {
  const Choices choices;
  Fake::scripts[kPlain] = {{"plain", 1.0}};
  const ConvTask task = stem(next_images());
  {
    const Variable always("PYCNN_CUDA_REWRITES", "always");
    CHECK(choices.find(task).plan == "blocks");
  }
  CHECK(choices.find(task).plan == "plain");
  {
    const Variable always("PYCNN_CUDA_REWRITES", "always");
    CHECK(choices.find(task).plan == "blocks");
  }
  Fake::scripts[kPlain] = {{"plain", 100.0}};
  const ConvTask other = stem(next_images());
  {
    const Variable off("PYCNN_CUDA_REWRITES", "off");
    CHECK(choices.find(other).plan == "plain");
  }
  CHECK(choices.find(other).plan == "blocks");
}

TEST_CASE("library kernel: the deterministic choice is the first that runs") {
  const Choices choices;
  const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
  Fake::scripts[kBlocks] = {{"broken", 1.0, true}, {"throws", 1.0}, {"slow", 900.0}, {"fast", 1.0}};
  Found found = choices.find(stem(next_images()));
  CHECK(found.plan == "slow");
  CHECK(found.rewrite == kBlocksName);
  CHECK(found.why.empty());
  Fake::scripts[kBlocks] = {{"broken", 1.0, true}};
  found = choices.find(stem(next_images()));
  CHECK(found.plan == "padded");
  Fake::scripts = {{kPlain, {{"broken", 1.0, true}}}, {kBlocks, {{"throws", 1.0}}}};
  found = choices.find(stem(next_images()));
  CHECK(found.plan.empty());
  CHECK(found.why == kNoneRuns);
  Fake::scripts.clear();
  CHECK(choices.find(stem(next_images())).why == Fake::kNoPlan);
}

TEST_CASE("library kernel: plans that do not run are not taken when nothing can be timed") {
  const Choices choices;
  Fake::scripts = {{kPlain, {{"broken", 1.0, true}, {"plain", 2.0}}}};
  fake_cuda().failing = {"cudaStreamBeginCapture"};
  CHECK(choices.find(stem(next_images())).plan == "plain");
  Fake::scripts = {{kPlain, {{"broken", 1.0, true}, {"throws", 2.0}}}};
  const Found found = choices.find(stem(next_images()));
  CHECK(found.plan.empty());
  CHECK(found.why == kNoneRuns);
}

TEST_CASE(
    "library kernel: plans are compiled by several threads, two at least where there are cores") {
  const Choices choices;
  const unsigned cores = std::thread::hardware_concurrency();
  Fake::scripts = {{kPlain, {{"good", 9.0}}}};
  for (int i = 0; i < 4; ++i)
    Fake::scripts[kPlain].push_back(
        {std::string("compiled") + std::to_string(i), 8.0 - i, false, 0, true});
  // The first waits until another one came, so that it must not be one after the other.
  std::atomic<int> there = 0;
  Fake::while_compiling = [&] {
    ++there;
    const auto begin = Clock::now();
    while (cores > 1 && there < 2 && !is_late(begin, 20.0)) std::this_thread::yield();
  };
  CHECK(choices.find(stem(next_images())).plan == "compiled3");
  if (cores > 1) CHECK(Fake::compilers.size() > 1);
  for (const int thread : Fake::compilers) {
    CHECK(thread >= 0);
    CHECK(thread < kMostBuilders);
  }
}

TEST_CASE("library kernel: choosing for a program has an end") {
  const Choices choices;
  Fake::scripts = {
      {kPlain,
       {{"compiled", 1.0, false, 0, true}, {"broken", 1.0, true}, {"slow", 50.0}, {"fast", 2.0}}}};
  ConvTask task = stem(next_images());
  Found found = choices.find(task, 119.0);
  CHECK(found.plan == "compiled");
  CHECK(found.why.empty());
  CHECK(choices.find(task, 121.0).plan == "compiled");  // it is known
  task = stem(next_images());
  Fake::compilers.clear();
  found = choices.find(task, 121.0);
  CHECK(found.plan == "slow");
  CHECK(found.why == "not timed: choosing took more than 120 s (PYCNN_CUDA_CHOOSE_SECONDS)");
  CHECK(Fake::compilers.empty());
  CHECK(!plan_cache().find(choices.key_of(task)));
  CHECK(choices.find(task).plan == "compiled");  // another program has its own time
  {
    const Variable none("PYCNN_CUDA_CHOOSE_SECONDS", "0");
    CHECK(choices.find(stem(next_images())).plan == "slow");
  }
  {
    const Variable more("PYCNN_CUDA_CHOOSE_SECONDS", "500");
    CHECK(choices.find(stem(next_images()), 121.0).plan == "compiled");
  }
  // It ends while plans are compiled: those that are there are timed, for this process.
  const Variable soon("PYCNN_CUDA_CHOOSE_SECONDS", "2.5");
  Fake::scripts[kPlain].assign(40, {"compiled", 1.0, false, 0, true});
  Fake::scripts[kPlain].push_back({"fast", 0.5});
  const auto begin = Clock::now();
  Fake::while_compiling = [begin] {
    while (!is_late(begin, 3.0)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  };
  task = stem(next_images());
  found = choices.find(task);
  CHECK(found.plan == "fast");
  CHECK(found.why ==
        "no engines that would have been compiled: choosing took more than 2.5 s "
        "(PYCNN_CUDA_CHOOSE_SECONDS)");
  CHECK(plan_cache().find(choices.key_of(task)) == "fast");
  CHECK(!PlanCache(plan_cache().file()).find(choices.key_of(task)));
}

TEST_CASE("library kernel: the deterministic choice is not timed and not kept") {
  const Choices choices;
  const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
  const ConvTask task = stem(next_images()), good = stem(next_images(), 16);
  CHECK(choices.find(task).rewrite == kBlocksName);
  CHECK(choices.find(good).rewrite.empty());
  CHECK(choices.find(good).plan == "blocks");  // of 16 channels
  Fake::scripts[kBlocks].clear();
  CHECK(choices.find(task).rewrite == "paddedc8k8");
  CHECK(Fake::runs == 4);  // once each
  CHECK(!plan_cache().find(choices.key_of(task)));
  // Full precision has no kernels that want more than one channel.
  ConvTask wide = stem(next_images());
  wide.image = Image::kFloat32;
  CHECK(choices.find(wide).rewrite.empty());
}

TEST_CASE("library kernel: a rewritten convolution's kernel packs weights once and moves images") {
  const Choices choices;
  const std::vector<TensorSpec> inputs = {{{next_images(), 12, 12, 3}, DType::kBFloat16},
                                          {{8, 7, 7, 3}, DType::kFloat32}};
  ops::Conv2d conv;
  conv.stride = {2, 2};
  conv.padding = {3, 3, 3, 3};
  Fake::scripts[kBlocks] = {{"blocks", 10.0, false, 1000}};
  const std::vector<TensorSpec> outputs = {{{inputs[0].shape[0], 6, 6, 8}, DType::kBFloat16}};
  Problem problem;
  problem.inputs = inputs;
  problem.outputs = outputs;
  const Choice choice = choose_library<Fake>(0, conv, problem);
  const bool taken = choice.run != nullptr;
  REQUIRE(taken);
  CHECK(std::string(choice.variant) == "conv2d.cudnn+blocks2x2c16k8");
  CHECK(std::string(choice.left_out).empty());
  Fake::missing = "no compiler";
  CHECK(std::string(choose_library<Fake>(0, conv, problem).left_out) == "no compiler");
  Fake::scripts.clear();
  const std::vector<TensorSpec> others = {{{next_images(), 12, 12, 3}, DType::kBFloat16},
                                          inputs[1]};
  problem.inputs = others;
  CHECK(std::string(choose_library<Fake>(0, conv, problem).refusal) ==
        std::string(Fake::kNoPlan) + "; no compiler");
  Fake::missing.clear();
  CHECK(choice.strided_inputs + choice.strided_outputs == 0);
  CHECK(choice.alignment == 16);
  CHECK(choice.packed.input == 1);
  CHECK(choice.packed.bytes == 8 * 4 * 4 * 16 * 2);
  CHECK(std::string(choice.packed.format) == "weights1+blocks2x2c16k8");
  const auto images = static_cast<std::size_t>(inputs[0].shape[0]);
  // Weights are packed elsewhere.
  CHECK(choice.scratch_bytes == (images * 9 * 9 * 16 * 2 + 255) / 256 * 256 + 1000);
  moves = {};
  Fake::runs = 0;
  DeviceQueue queue;
  Op op = conv;
  std::vector<std::byte> scratch(choice.scratch_bytes), data(1);
  const std::vector<TensorView> in = {{data.data(), &inputs[0], 0}, {data.data(), &inputs[1], 0}};
  const TensorView out{data.data(), outputs.data(), 0};
  DeviceKernelArgs args;
  args.op = &op;
  args.inputs = std::span(in).subspan(1);
  args.outputs = {&out, 1};
  args.queue = &queue;
  args.state = choice.state.get();
  choice.packed.pack(args);
  CHECK(moves.packs == 1);
  args.inputs = in;
  args.scratch = scratch.data();
  choice.run(args);
  CHECK(Fake::runs == 1);
  CHECK(moves.gathers == 1);
  CHECK(moves.packs == 1);
  CHECK(!queue.failed());
}

// A convolution whose result a concat of 24 channels reads.
struct Concatenated {
  std::vector<TensorSpec> inputs, outputs;
  ops::Conv2d conv;
  Problem problem;
  explicit Concatenated(std::int64_t channels) {
    const std::int64_t images = next_images();
    inputs = {{{images, 12, 12, channels}, DType::kBFloat16},
              {{8, 3, 3, channels}, DType::kFloat32}};
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
    std::vector<std::byte> scratch(choice.scratch_bytes), data(1);
    const std::vector<TensorView> in = {{data.data(), &inputs[0], 0}, {data.data(), &inputs[1], 0}};
    const TensorView out{data.data(), outputs.data(), pitch};
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

TEST_CASE("library kernel: a result that a concat reads is written where it wants it") {
  const Choices choices;
  Fake::scripts = {{16, {{"plan", 10.0, false, 500}}}};
  own_us = 16.0;
  Fake::apart_us = 4.0;
  moves.copy_us = 5.0;
  {
    const Concatenated net(16);
    const Choice choice = net.choose();
    CHECK(choice.strided_outputs == 1);
    CHECK(choice.output_pitch == 24);
    CHECK(std::string(choice.apart_variant) == "conv2d.cudnn");
    CHECK(net.run(choice, 24) == 24);
    CHECK(net.run(choice, 0) == 0);  // it did not become a part
    CHECK(std::string(choice.packed.format) == "weights1");
  }
  const auto stays = [](const Concatenated& net) {
    const Choice choice = net.choose();
    const bool taken = choice.run != nullptr;
    CHECK(taken);
    CHECK(net.run(choice, 0) == 0);
    return choice.strided_outputs == 0 && choice.output_pitch == 0;
  };
  Fake::apart_us = 5.5;  // the copy of the other plan's result is faster, also than our own
  const Concatenated copied(16);
  CHECK(stays(copied));
  CHECK(moves.copies > 0);
  moves.copies = own_runs = 0;
  CHECK(stays(copied));  // as is kept
  CHECK(moves.copies + own_runs == 0);
  own_us = 14.5;  // than a copy and a plan that writes there, not than the plan by itself
  const Concatenated ours(16);
  for (int i = 0; i < 2; ++i) {
    const Choice choice = ours.choose();
    const bool is_refused = choice.run == nullptr;
    CHECK(is_refused);
    CHECK(std::string(choice.refusal) ==
          "our own kernel was faster where a concat wants the result");
  }
  // Likewise without such a plan.
  Fake::writes_apart = false;
  CHECK(!Concatenated(16).takes_library());
  own_us = 16.0;
  CHECK(stays(Concatenated(16)));
  Fake::writes_apart = true;
  Fake::apart_us = 0.0;
  Concatenated alone(16);
  alone.problem.output_pitch = 0;
  CHECK(stays(alone));
  Concatenated odd(16);
  odd.problem.output_pitch = 20;  // every other pixel would not begin with a vector
  CHECK(stays(odd));
  Fake::scripts = {{8, {{"padded", 10.0}}}};
  CHECK(stays(Concatenated(3)));  // as another convolution
}

TEST_CASE("library kernel: one that is asked for by name does not race our own") {
  const Choices choices;
  Fake::scripts = {{16, {{"plan", 10.0}}}};
  own_us = 5.0;
  Concatenated net(16);
  net.problem.output_pitch = 0;
  net.problem.pinned = "conv2d.cudnn";
  CHECK(net.takes_library());
  CHECK(own_runs == 0);
  net.problem.pinned = {};
  CHECK(!net.takes_library());  // what was kept for the pin says nothing here,
  net.problem.pinned = "conv2d.cudnn";
  CHECK(net.takes_library());  // nor the other way round
}

}  // namespace
}  // namespace pycnn::cuda
