// What of cuDNN's use needs no GPU: the rules for engines and, where cuDNN is installed (name its
// file in $PYCNN_CUDNN), graphs, engines and plans for a device that is only described.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "backends/cuda/conv2d_rewrite.h"
#include "backends/cuda/cudnn_graph.h"
#include "backends/cuda/library_choice.h"
#include "support/variable.h"

namespace pycnn::cuda::cudnn {
namespace {

// An H100 as cuDNN describes devices.
constexpr const char* kH100 = R"({"deviceName": "NVIDIA H100 80GB HBM3", "deviceVer": 900,
  "driverVer": 13000, "cudaDeviceId": 0, "pciDeviceId": 590352606, "isTccDriver": 0,
  "supportCoopLaunch": 1, "totalGlobalMem": 85000000000, "multiProcessorCount": 132,
  "smCountOrigin": 0, "warpSize": 32, "maxGridSize": [2147483647, 65535, 65535],
  "maxBlockSize": [1024, 1024, 64], "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048,
  "maxCtasPerSM": 32, "regsPerBlock": 65536, "maxRegistersPerSM": 65536,
  "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
  "reservedSharedMemoryPerBlock": 1024, "oversizedSharedMemoryPerBlock": 0,
  "smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "memoryBusWidth": 5120,
  "l2CacheSize": 52428800})";

// Null: there is none, and the test has nothing to do.
const Functions* functions() {
  // cuDNN is linked to the driver's library, of which its planner calls nothing.
  static void* const driver = dlopen(PYCNN_FAKE_LIBCUDA, RTLD_NOW | RTLD_GLOBAL);
  REQUIRE(driver != nullptr);
  std::string problem;
  const Functions* const found = load_cudnn(problem);
  if (found == nullptr) MESSAGE("left out: ", problem);
  CHECK(problem.empty() == (found != nullptr));
  return found;
}

ConvShape shape(int images, int size, int in, int out, int kernel, int stride) {
  ConvShape s{};
  s.images = images;
  s.height = s.width = size;
  s.in_channels = in;
  s.out_channels = out;
  s.kernel_height = s.kernel_width = kernel;
  s.stride_y = s.stride_x = stride;
  s.top = s.left = kernel / 2;
  s.out_height = s.out_width = (size + 2 * (kernel / 2) - kernel) / stride + 1;
  s.dilation_y = s.dilation_x = s.groups = 1;
  return s;
}

ConvProblem problem_of(Direction direction, Image image, const ConvShape& s) {
  ConvProblem problem;
  problem.direction = direction;
  problem.image = image;
  problem.shape = s;
  problem.bottom = s.top;
  problem.right = s.left;
  return problem;
}

constexpr Direction kDirections[] = {Direction::kForward, Direction::kGradInput,
                                     Direction::kGradWeight};

TEST_CASE("cudnn: engines that break a rule are named unfit") {
  const auto reason = [](std::vector<int> notes, Image image, EngineRules rules,
                         std::vector<int> behavior = {}) {
    const EngineFacts engine{0, std::move(notes), std::move(behavior)};
    const char* const text = unfit_engine(engine, image, rules);
    return std::string(text != nullptr ? text : "");
  };
  const Image wide = Image::kFloat32, narrow = Image::kBFloat16;
  CHECK(reason({}, wide, {}).empty());
  CHECK(reason({kNoteTensorCore}, wide, {}) == "it rounds to TF32");
  CHECK(reason({kNoteDownConvertInputs}, wide, {}) == "it rounds to TF32");
  CHECK(reason({kNoteTensorCore}, wide, {true, false}).empty());
  CHECK(reason({kNoteTensorCore}, narrow, {}).empty());
  CHECK(reason({kNoteTensorCore, kNoteNondeterministic}, narrow, {true, false}) ==
        "its results differ from run to run");
  CHECK(!reason({kNoteReducedPrecisionReduction}, narrow, {}).empty());
  CHECK(!reason({kNoteFft}, wide, {}).empty());
  CHECK(!reason({kNoteWinograd, kNoteWinogradTile6}, wide, {}).empty());
  CHECK(reason({kNoteWinograd, kNoteWinogradTile4}, wide, {}).empty());
  CHECK(!reason({kNoteWinograd, kNoteWinogradTile4}, wide, {false, false, false}).empty());
  CHECK(reason({}, narrow, {}, {kNoteRuntimeCompilation}).empty());
  CHECK(reason({}, narrow, {false, true}, {kNoteRuntimeCompilation}) ==
        "it is compiled at run time");
  const EngineRules without{false, false, true, false};
  CHECK(reason({}, narrow, without, {kNoteRuntimeCompilation}) == "there is no compiler for it");
  CHECK(reason({}, narrow, without).empty());
}

TEST_CASE("cudnn: a compiler that is missing is named, and where it is") {
  Functions functions;
  functions.cudnnGetCudartVersion = [] { return std::size_t{13000}; };
  const pycnn::testing::Variable file("PYCNN_NVRTC", "/there/is/no/libnvrtc");
  const std::string problem = missing_compiler(functions);
  CHECK(problem.find("/there/is/no/libnvrtc") != std::string::npos);
}

TEST_CASE("cudnn: plans of all directions and types for a device that is described") {
  const Functions* const f = functions();
  if (f == nullptr) return;
  const Descriptor h100 = device_properties(*f, kH100);
  const Target target{nullptr, &h100};
  for (const Image image : {Image::kFloat32, Image::kBFloat16})
    for (const Direction direction : kDirections)
      for (const ConvShape& s : {shape(4, 14, 64, 32, 3, 1), shape(4, 14, 64, 128, 1, 2)}) {
        CAPTURE(static_cast<int>(image));
        CAPTURE(static_cast<int>(direction));
        const ConvGraph graph(*f, problem_of(direction, image, s), target);
        const std::vector<Candidate> candidates = graph.candidates({});
        REQUIRE(!candidates.empty());
        int plans = 0;
        for (const Candidate& candidate : candidates) {
          CHECK(unfit_engine(candidate.engine, image, {}) == nullptr);
          if (plans >= 2) continue;
          const Descriptor plan = make_plan(*f, candidate, target);
          ++plans;
          CHECK(plan.integer(kPlanWorkspace) >= 0);
          const std::string text = plan.text(kPlanJson);
          CHECK(text.find("cudnnVersion") != std::string::npos);
          const Descriptor again = read_plan(*f, text, target);
          CHECK(again.integer(kPlanWorkspace) == plan.integer(kPlanWorkspace));
          CHECK(again.text(kPlanJson) == text);
        }
        // More where TF32 is allowed.
        if (image == Image::kFloat32)
          CHECK(graph.candidates({true, false}).size() > candidates.size());
      }
}

TEST_CASE("cudnn: what joins a convolution is joined by precompiled engines") {
  const Functions* const f = functions();
  if (f == nullptr) return;
  const Descriptor h100 = device_properties(*f, kH100);
  const Target target{nullptr, &h100};
  for (const Image image : {Image::kFloat32, Image::kBFloat16})
    for (const bool residual : {false, true})
      for (const bool relu : {false, true}) {
        CAPTURE(static_cast<int>(image));
        CAPTURE(residual);
        CAPTURE(relu);
        ConvProblem problem = problem_of(Direction::kForward, image, shape(2, 9, 16, 24, 3, 1));
        problem.bias = true;
        problem.residual = residual;
        problem.relu = relu;
        const ConvGraph graph(*f, problem, target);
        // Without tensor cores, float32 has few engines that join a sum.
        const std::vector<Candidate> candidates = graph.candidates({true, true});
        CHECK(!candidates.empty());
        if (!candidates.empty()) CHECK(make_plan(*f, candidates[0], target).object() != nullptr);
      }
}

TEST_CASE("cudnn: groups, dilation and unequal padding make graphs") {
  const Functions* const f = functions();
  if (f == nullptr) return;
  const Descriptor h100 = device_properties(*f, kH100);
  const Target target{nullptr, &h100};
  ConvShape grouped = shape(2, 10, 32, 64, 3, 1);
  grouped.groups = 4;
  CHECK(!ConvGraph(*f, problem_of(Direction::kForward, Image::kBFloat16, grouped), target)
             .candidates({})
             .empty());
  ConvShape dilated = shape(2, 12, 8, 8, 3, 1);
  dilated.dilation_y = dilated.dilation_x = 2;
  dilated.top = dilated.left = 2;
  CHECK(!ConvGraph(*f, problem_of(Direction::kForward, Image::kFloat32, dilated), target)
             .candidates({true, false})
             .empty());
  ConvShape uneven = shape(2, 12, 8, 8, 3, 2);
  uneven.top = uneven.left = 0;
  uneven.out_height = uneven.out_width = 6;
  ConvProblem problem = problem_of(Direction::kForward, Image::kFloat32, uneven);
  problem.bottom = problem.right = 1;
  // Which engines there are is the library's business; the graph is one.
  const ConvGraph graph(*f, problem, target);
  (void)graph.candidates({true, false});
}

// What rewrites_of gives for the image types of tensor cores, in all directions.
TEST_CASE("cudnn: rewritten convolutions have plans where it is they that are wanted") {
  const Functions* const f = functions();
  if (f == nullptr) return;
  const Descriptor h100 = device_properties(*f, kH100);
  const Target target{nullptr, &h100};
  ConvShape large_stride = shape(2, 63, 3, 64, 11, 4), uneven = shape(2, 16, 3, 20, 5, 2);
  uneven.dilation_x = 2;
  uneven.top = 1;
  uneven.out_height = (16 + 1 + 2 - 5) / 2 + 1;
  uneven.out_width = (16 + 2 + 3 - 9) / 2 + 1;
  ConvShape grouped = shape(2, 14, 128, 128, 3, 1), strided_groups = shape(2, 14, 128, 128, 3, 2);
  grouped.groups = strided_groups.groups = 32;
  int rewritten = 0;
  for (const ConvShape& s :
       {shape(2, 32, 3, 64, 7, 2), large_stride, uneven, shape(2, 14, 3, 64, 3, 1),
        shape(2, 9, 17, 30, 1, 1), grouped, strided_groups})
    for (const Image image : {Image::kBFloat16, Image::kFloat16})
      for (const Direction direction : kDirections) {
        ConvTask task;
        task.direction = direction;
        task.image = image;
        task.shape = s;
        task.bottom = s.kernel_height / 2;
        task.right = s.dilation_x == 2 ? 3 : s.kernel_width / 2;
        CHECK(needs_rewrite(task, false));
        const std::vector<ConvRewrite> rewrites = rewrites_of(task);
        CHECK(!rewrites.empty());
        for (const ConvRewrite& rewrite : rewrites) {
          CAPTURE(rewrite.name);
          CAPTURE(static_cast<int>(image));
          CAPTURE(static_cast<int>(direction));
          ConvProblem problem = problem_of(direction, image, rewrite.task.shape);
          problem.bottom = rewrite.task.bottom;
          problem.right = rewrite.task.right;
          const ConvGraph graph(*f, problem, target);
          const std::vector<Candidate> candidates = graph.candidates({});
          // Precompiled, by tensor cores, within the memory that a choice may use.
          const bool planned =
              std::any_of(candidates.begin(), candidates.end(), [&](const Candidate& candidate) {
                if (candidate.engine.compiles() || !candidate.engine.has(kNoteTensorCore))
                  return false;
                const Descriptor plan = make_plan(*f, candidate, target);
                return plan.integer(kPlanWorkspace) <= kMostWorkspace;
              });
          CHECK(planned);
          ++rewritten;
        }
      }
  CHECK(rewritten >= 60);
}

// An A100, likewise.
std::string a100() {
  std::string json = kH100;
  for (const auto& [h100, other] : {std::pair{"NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"},
                                    {"900", "800"},
                                    {"132", "108"},
                                    {"232448", "166912"},
                                    {"52428800", "41943040"}}) {
    const std::size_t place = json.find(h100);
    REQUIRE(place != std::string::npos);
    json.replace(place, std::string(h100).size(), other);
  }
  return json;
}

// What cuDNN's planner takes (9.28): a convolution and a gradient for its input that are measured
// about a center, finished before in every way that our graphs know, by engines that are compiled
// at run time and use tensor cores, also where it is told that sums shall not differ from run to
// run; nothing with groups, and no float32 without TF32.
TEST_CASE("cudnn: engines that are compiled measure what they make, for both GPUs and all types") {
  const Functions* const f = functions();
  if (f == nullptr) return;
  constexpr std::size_t kFirstRepeatable = 91100;
  const bool knows_repeatable = f->cudnnGetVersion() >= kFirstRepeatable;
  const auto count = [&](const ConvProblem& problem, const Target& target, bool tf32) {
    const ConvGraph graph(*f, problem, target);
    const std::vector<Candidate> candidates = graph.candidates({tf32});
    for (const Candidate& candidate : candidates) {
      CHECK(candidate.engine.compiles());
      CHECK(candidate.engine.has(kNoteTensorCore));
      CHECK(!candidate.engine.has(kNoteNondeterministic));
    }
    CHECK(graph.candidates({tf32, true}).empty());
    return candidates.size();
  };
  for (const std::string& json : {std::string(kH100), a100()}) {
    const Descriptor gpu = device_properties(*f, json);
    const Target target{nullptr, &gpu};
    for (const Image image : {Image::kFloat32, Image::kBFloat16, Image::kFloat16})
      for (const ConvShape& s : {shape(8, 28, 64, 256, 1, 1), shape(8, 28, 256, 64, 1, 1),
                                 shape(8, 28, 64, 64, 3, 1), shape(8, 28, 128, 128, 3, 2)})
        for (const bool repeatable : {false, true}) {
          if (repeatable && !knows_repeatable) continue;
          CAPTURE(json);
          CAPTURE(static_cast<int>(image));
          CAPTURE(s.stride_y);
          CAPTURE(repeatable);
          ConvProblem moments = problem_of(Direction::kForward, image, s);
          moments.measure = MeasureKind::kMoments;
          moments.repeatable = repeatable;
          CHECK(count(moments, target, true) > 0);
          ConvProblem sums = problem_of(Direction::kGradInput, image, s);
          sums.measure = MeasureKind::kSums;
          sums.repeatable = repeatable;
          for (int finish = 0; finish < 8; ++finish) {
            CAPTURE(finish);
            sums.residual = (finish & 1) != 0;
            sums.gate = (finish & 2) != 0;
            sums.norm_relu = (finish & 4) != 0;
            CHECK(count(sums, target, true) > 0);
            sums.signs = sums.gate;
            CHECK(count(sums, target, true) > 0);
            sums.signs = false;
          }
          if (image == Image::kFloat32) {
            CHECK(count(moments, target, false) == 0);
            CHECK(count(sums, target, false) == 0);
          }
        }
    ConvShape grouped = shape(8, 28, 128, 128, 3, 1);
    grouped.groups = 4;
    ConvProblem moments = problem_of(Direction::kForward, Image::kBFloat16, grouped);
    moments.measure = MeasureKind::kMoments;
    moments.repeatable = knows_repeatable;
    CHECK(count(moments, target, true) == 0);
  }
}

TEST_CASE("cudnn: sizes that contradict one another are an error that says where") {
  const Functions* const f = functions();
  if (f == nullptr) return;
  const Descriptor h100 = device_properties(*f, kH100);
  ConvShape wrong = shape(2, 9, 8, 8, 3, 1);
  wrong.out_height = 3;
  CHECK_THROWS_WITH_AS(
      ConvGraph(*f, problem_of(Direction::kForward, Image::kFloat32, wrong), {nullptr, &h100}),
      doctest::Contains("CUDNN_STATUS"), Error);
  CHECK_THROWS_AS(device_properties(*f, "{}"), Error);
  CHECK_THROWS_AS(read_plan(*f, "no plan", {nullptr, &h100}), Error);
}

}  // namespace
}  // namespace pycnn::cuda::cudnn
