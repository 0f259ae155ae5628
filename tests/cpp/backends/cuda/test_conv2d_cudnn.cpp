// How plans of cuDNN are made, tried and executed: by a library of which each object is a few
// numbers, and a runtime whose clock the tests know (support/fake_cuda).
#ifndef PYCNN_VERSION
#define PYCNN_VERSION "test"
#endif
#include <doctest/doctest.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "backends/cuda/conv2d_cudnn.cpp"
#include "backends/cuda/fake_cublaslt.h"
#include "backends/cuda/fake_library.h"
#include "support/variable.h"

namespace pycnn::cuda {

void conv2d_epilogue(DeviceQueue&, Image, const ConvShape&, const ConvEpilogue&, void*) {}

namespace {

using pycnn::testing::Variable;

struct FakeObject {
  int kind;
  void* handle = nullptr;
  int mode = 0;
  std::int64_t engine = 0;
  std::int64_t id = 0;  // of a tensor
  int type = 0;
  std::int64_t result = cudnn::kOutput;  // of a graph and what is made of it
  std::vector<std::int64_t> strides = {}, dimensions = {};
  bool measures = false, repeats = false;  // a graph and what is made of it
  std::vector<std::int64_t> ids = {};      // of a pack
  std::vector<void*> pointers = {};
};
struct Executed {
  void* handle;
  void* stream;
  std::int64_t engine;
};
struct FakeCudnn {
  std::set<int> deaf;             // modes of heuristics that fail
  std::int64_t fallbacks = 0;     // engines of the second mode
  std::set<std::int64_t> unmade;  // engines whose plans cannot be made
  std::set<std::int64_t> loyal;   // that are executed with the handle of their plan alone
  std::map<std::int64_t, double> us;
  std::map<std::int64_t, std::int64_t> workspaces;  // of other sizes than 64
  std::map<void*, void*> streams;                   // by handle
  std::vector<Executed> executed;
  std::map<std::int64_t, std::vector<std::int64_t>> strides;  // by the name of a tensor
  std::map<std::int64_t, std::vector<std::int64_t>> dimensions;
  bool knows_repeating = true;             // what 9.11 brought
  std::set<std::int64_t> adds, wrong;      // engines that add to what lies there, that count twice
  std::map<std::int64_t, void*> operands;  // of the last run that measured
  int measured = 0;                        // how often
  std::map<std::int64_t, void*> last_operands;
  std::map<std::int64_t, int> types;
  std::set<std::int64_t> spoilt;  // engines that leave results a tenth too large
  int objects = 0;
};
FakeCudnn fake;
// Of graphs that measure, and of those whose sums are to be the same each time.
constexpr std::int64_t kFirstMeasuring = 20, kFirstRepeating = 30;
constexpr std::int64_t kFirstEngine = 10, kEngines = 3;

FakeObject& of(cudnn::Object object) { return *static_cast<FakeObject*>(object); }

cudnn::Status set(cudnn::Object object, int attribute, int, std::int64_t count,
                  const void* values) {
  FakeObject& self = of(object);
  const auto other = [&] { return of(*static_cast<void* const*>(values)); };
  switch (attribute) {
    case cudnn::kGraphHandle:
    case cudnn::kPlanHandle:
      self.handle = *static_cast<void* const*>(values);
      break;
    case cudnn::kTensorId:
      self.id = *static_cast<const std::int64_t*>(values);
      break;
    case cudnn::kTensorDataType:
      self.type = *static_cast<const int*>(values);
      break;
    case cudnn::kTensorDimensions: {
      const auto* const sizes = static_cast<const std::int64_t*>(values);
      self.dimensions.assign(sizes, sizes + count);
      break;
    }
    case cudnn::kReductionDeterministic:
      if (!fake.knows_repeating) return 3000;
      self.repeats = *static_cast<const bool*>(values);
      break;
    case cudnn::kReductionDescriptor:
      self.repeats = other().repeats;
      break;
    case cudnn::kGraphOperations:
      for (std::int64_t i = 0; i < count; ++i) {
        const FakeObject& operation = of(static_cast<void* const*>(values)[i]);
        if (operation.kind == cudnn::kConvolutionGradInput) self.result = cudnn::kInput;
        if (operation.kind == cudnn::kConvolutionGradWeight) self.result = cudnn::kWeight;
        if (operation.kind != cudnn::kReductionOperation) continue;
        self.measures = true;
        self.repeats = operation.repeats;
      }
      break;
    case cudnn::kPackIds:
      self.ids.assign(static_cast<const std::int64_t*>(values),
                      static_cast<const std::int64_t*>(values) + count);
      break;
    case cudnn::kPackPointers:
      self.pointers.assign(static_cast<void* const*>(values),
                           static_cast<void* const*>(values) + count);
      break;
    case cudnn::kTensorStrides: {
      const auto* const strides = static_cast<const std::int64_t*>(values);
      self.strides.assign(strides, strides + count);
      break;
    }
    case cudnn::kHeuristicsGraph:
      self.handle = other().handle;
      self.result = other().result;
      self.engine = other().repeats    ? kFirstRepeating
                    : other().measures ? kFirstMeasuring
                                       : kFirstEngine;
      break;
    case cudnn::kHeuristicsMode:
      self.mode = *static_cast<const int*>(values);
      break;
    case cudnn::kPlanConfig:
      self.engine = other().engine;
      self.result = other().result;
      // Of one thread's handle, all of it.
      return other().handle == self.handle ? 0 : 3000;
    default:
      break;
  }
  return 0;
}

cudnn::Status get(cudnn::Object object, int attribute, int, std::int64_t wanted,
                  std::int64_t* count, void* values) {
  const FakeObject& self = of(object);
  *count = 1;
  auto* const objects = static_cast<void**>(values);
  switch (attribute) {
    case cudnn::kHeuristicsResults:
      *count = self.mode == cudnn::kHeuristicsModeA ? kEngines : fake.fallbacks;
      for (std::int64_t i = 0; i < *count; ++i)
        of(objects[i]) = {cudnn::kEngineConfig, self.handle, 0, self.engine + i, 0, 0, self.result};
      break;
    case cudnn::kConfigEngine:
      of(objects[0]).engine = self.engine;
      break;
    case cudnn::kEngineIndex:
      *static_cast<std::int64_t*>(values) = self.engine;
      break;
    case cudnn::kPlanWorkspace:
      *static_cast<std::int64_t*>(values) =
          fake.workspaces.count(self.engine) > 0 ? fake.workspaces[self.engine] : 64;
      break;
    case cudnn::kPlanJson: {
      const std::string text = std::to_string(self.engine);
      *count = static_cast<std::int64_t>(text.size() + 1);
      if (wanted > 0) std::memcpy(values, text.c_str(), text.size() + 1);
      break;
    }
    default:
      *count = 0;
  }
  return 0;
}

// A result of ones and what fake_library.cpp says of it.
void leave(std::int64_t engine, std::int64_t result, const FakeObject& pack) {
  std::map<std::int64_t, void*> operands;
  for (std::size_t i = 0; i < pack.ids.size(); ++i) operands[pack.ids[i]] = pack.pointers[i];
  fake.last_operands = operands;
  std::int64_t count = 1;
  for (const std::int64_t size : fake.dimensions[result]) count *= size;
  const float one = fake.spoilt.count(engine) > 0 ? 1.1f : 1.0f;
  with_image(fake.types[result] == cudnn::kFloat32 ? Image::kFloat32 : Image::kBFloat16,
             [&](auto type) {
               decltype(type) stored{};
               narrow(one, stored);
               std::fill_n(static_cast<decltype(type)*>(operands[result]), count, stored);
             });
  if (engine < kFirstMeasuring) return;
  ++fake.measured;
  fake.operands = operands;
  const auto channels = fake.dimensions[result][1];
  const float second = result == cudnn::kOutput ? 2.0f : 7.0f;
  for (const auto& [id, right] : {std::pair{cudnn::kFirstSum, 3.0f}, {cudnn::kSecondSum, second}})
    for (std::int64_t c = 0; c < channels; ++c) {
      float& sum = static_cast<float*>(operands[id])[c];
      sum = (fake.adds.count(engine) > 0 ? sum : 0.0f) +
            (fake.wrong.count(engine) > 0 ? 2.0f : 1.0f) * right;
    }
}

const cudnn::Functions& functions() {
  static const cudnn::Functions functions = {
      [] { return std::size_t{91000}; },
      [] { return std::size_t{13000}; },
      [](cudnn::Status) { return "trouble"; },
      [](cudnn::Handle* handle) {
        static std::mutex mutex;
        static std::deque<int> handles;  // for the life of the process, as those of a link
        const std::lock_guard lock(mutex);
        *handle = &handles.emplace_back();
        return 0;
      },
      [](cudnn::Handle) { return 0; },
      [](cudnn::Handle handle, void* stream) {
        fake.streams[handle] = stream;
        return 0;
      },
      [](int kind, cudnn::Object* object) {
        *object = new FakeObject{kind};
        ++fake.objects;
        return 0;
      },
      [](cudnn::Object object) {
        delete &of(object);
        --fake.objects;
        return 0;
      },
      [](cudnn::Object object) {
        const FakeObject& self = of(object);
        if (self.kind == cudnn::kTensor) {
          fake.strides[self.id] = self.strides;
          fake.dimensions[self.id] = self.dimensions;
          fake.types[self.id] = self.type;
        }
        if (self.kind == cudnn::kEngineHeuristics && fake.deaf.count(self.mode) > 0) return 3000;
        return self.kind == cudnn::kExecutionPlan && fake.unmade.count(self.engine) > 0 ? 3000 : 0;
      },
      set,
      get,
      [](cudnn::Handle handle, cudnn::Object plan, cudnn::Object pack) {
        const FakeObject& self = of(plan);
        fake_cuda().effect([engine = self.engine, result = self.result, packed = of(pack)] {
          leave(engine, result, packed);
        });
        fake.executed.push_back({handle, fake.streams[handle], self.engine});
        fake_cuda().work(fake.us[self.engine]);
        return self.handle != handle && fake.loyal.count(self.engine) > 0 ? 3000 : 0;
      }};
  return functions;
}

// A link to the library, for as long as the process lives; engines are slower one after another.
struct Linked {
  Linked() {
    fake_cuda() = {};
    fake = {};
    fake.us = {{10, 10.0}, {11, 20.0}, {12, 30.0}};
    link.functions = &functions();
    const bool opened = Cudnn::open(link);
    REQUIRE(opened);
  }
  ~Linked() {
    CHECK(fake.streams[link.for_runs] == nullptr);
    CHECK(fake_cuda().allocations == 0);
    forget_streams = nullptr;
    links().list.clear();
    fake_cuda() = {};
  }
  const std::unique_ptr<Link> owned = std::make_unique<Link>();
  Link& link = *owned;
  // As test_cudnn_graph.cpp has it: it is looked for once.
  const Variable no_compiler{"PYCNN_NVRTC", "/there/is/no/libnvrtc"};
};

ConvTask small_task() {
  ConvTask task;
  task.image = Image::kFloat32;
  ConvShape& s = task.shape;
  s.images = 2;
  s.height = s.width = s.out_height = s.out_width = 4;
  s.in_channels = s.out_channels = 8;
  s.kernel_height = s.kernel_width = 3;
  s.stride_y = s.stride_x = s.dilation_y = s.dilation_x = s.groups = 1;
  s.top = s.left = task.bottom = task.right = 1;
  return task;
}

std::int64_t engine_of(const Chosen<Cudnn>& chosen) {
  return chosen.plan != nullptr ? of(chosen.plan->plan.object()).engine : 0;
}

TEST_CASE("conv2d by cudnn: a plan is chosen by running it with the handle of runs") {
  const Linked linked;
  const ConvTask task = small_task();
  std::string why;
  const auto untimed = [&] {
    return engine_of(
        first_that_runs<Cudnn>(0, linked.link, task, {nullptr}, library_options(), why));
  };
  const auto fastest = [&] {
    bool all = false;
    auto plans =
        made_plans<Cudnn>(0, task, offers_for<Cudnn>(linked.link, task, nullptr, library_options()),
                          library_options(), Clock::now(), all);
    CHECK(all);
    RaceNotes notes;
    const auto best = fastest_plan<Cudnn>(0, linked.link, task, false, plans, notes);
    return best ? engine_of(*best) : -1;
  };
  CHECK(untimed() == 10);
  CHECK(fake.executed.size() == 2);  // by itself and recorded
  CHECK(fastest() == 10);
  fake.loyal = {10};
  CHECK(untimed() == 11);
  CHECK(why.empty());
  CHECK(fastest() == 11);
  fake.unmade = {11};
  CHECK(untimed() == 12);
  CHECK(fastest() == 12);
  fake.loyal = {10, 12};
  CHECK(untimed() == 0);
  CHECK(why == kNoneRuns);
  fake.unmade = {10, 11, 12};
  CHECK(untimed() == 0);
  CHECK(why == Cudnn::kNoPlan);
  for (const Executed& each : fake.executed) {
    CHECK(each.handle == linked.link.for_runs);
    CHECK(each.stream != nullptr);
  }
}

TEST_CASE("conv2d by cudnn: workspaces of up to 1 GiB") {
  const Linked linked;
  Engines asked(linked.link, plain_problem(small_task()), {});
  fake.workspaces = {
      {10, kMostWorkspace + 1}, {11, kLargestWorkspace}, {12, kLargestWorkspace + 1}};
  CHECK(asked.plan(0, 10, false, 0)->workspace_bytes() > kMostWorkspace);
  CHECK(asked.plan(1, 11, false, 0)->workspace_bytes() == kLargestWorkspace);
  CHECK(asked.plan(2, 12, false, 0) == nullptr);
}

TEST_CASE("conv2d by cudnn: a mode of the heuristics that fails leaves the other one") {
  const Linked linked;
  fake.fallbacks = 2;
  const cudnn::ConvGraph graph(functions(), plain_problem(small_task()), target_of(linked.link, 0));
  const auto engines = [&](const std::set<int>& deaf) {
    fake.deaf = deaf;
    return static_cast<std::int64_t>(graph.candidates({}).size());
  };
  CHECK(engines({}) == kEngines + 2);
  CHECK(engines({cudnn::kHeuristicsModeA}) == 2);
  CHECK(engines({cudnn::kHeuristicsFallback}) == kEngines);
  CHECK_THROWS_AS(engines({cudnn::kHeuristicsModeA, cudnn::kHeuristicsFallback}), cudnn::Error);
}

TEST_CASE("conv2d by cudnn: threads make plans with handles of their own, and the graphs too") {
  const Linked linked;
  const ConvTask task = small_task();
  {
    Engines engines(linked.link, plain_problem(task), {});
    std::set<void*> handles = {linked.link.for_runs};
    for (int thread = 0; thread < kMostBuilders; ++thread) {
      const auto plan = engines.plan(1, kFirstEngine + 1, false, thread);
      REQUIRE(plan != nullptr);
      CHECK(of(plan->plan.object()).engine == kFirstEngine + 1);
      handles.insert(of(plan->plan.object()).handle);
    }
    CHECK(handles.size() == kMostBuilders + 1);
    // What another thread found is not there, or is another one.
    CHECK(engines.plan(9, kFirstEngine, false, 0) == nullptr);
    CHECK(engines.plan(1, kFirstEngine, false, 0) == nullptr);
  }
  CHECK(fake.objects == 0);
}

TEST_CASE("conv2d by cudnn: a bias in 16 bits is cast unless it was packed") {
  const Linked linked;
  ConvTask task = small_task();
  task.image = Image::kBFloat16;
  task.bias = true;
  Engines joined(linked.link, joined_problem(task), {}),
      plain(linked.link, plain_problem(task), {});
  const auto plan = joined.plan(0, kFirstEngine, true, 0);
  REQUIRE(plan != nullptr);
  CHECK(Cudnn::packs_bias(*plan));
  CHECK(!Cudnn::packs_bias(*plain.plan(0, kFirstEngine, true, 0)));
  ConvProblem wide = joined_problem(task);
  wide.image = Image::kFloat32;
  CHECK(!Cudnn::packs_bias(*Engines(linked.link, wide, {}).plan(0, kFirstEngine, true, 0)));
  DeviceQueue queue;
  std::vector<std::byte> data(2 * 4 * 4 * 8 * 4),
      scratch(static_cast<std::size_t>(plan->scratch_bytes()));
  std::vector<float> bias(8);
  std::vector<std::uint16_t> packed(8);
  ConvCall call{};
  call.input = call.output = data.data();
  call.epilogue.bias = bias.data();
  casts = 0;
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  auto* const cast_bias = static_cast<std::byte*>(fake.last_operands[cudnn::kBias]);
  CHECK(cast_bias == scratch.data() + plan->layout.bias);
  call.epilogue.bias = nullptr;
  call.packed_bias = packed.data();
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  CHECK(fake.last_operands[cudnn::kBias] == packed.data());
  // What a race finds is run with the bias that it wants, whatever joins it.
  std::string why;
  const Chosen<Cudnn> chosen =
      first_that_runs<Cudnn>(0, linked.link, task, {nullptr}, library_options(), why);
  CHECK(packs_bias(chosen));
  CHECK(why.empty());
  before_streams_end(linked.link.device);
}

TEST_CASE("conv2d by cudnn: a gradient of 16 bits is widened unless it is wanted as it is") {
  const Linked linked;
  ConvTask task = small_task();
  CHECK(
      !Cudnn::leaves_narrow(*Engines(linked.link, plain_problem(task), {}).plan(0, 10, false, 0)));
  task.image = Image::kBFloat16;
  CHECK(
      !Cudnn::leaves_narrow(*Engines(linked.link, plain_problem(task), {}).plan(0, 10, false, 0)));
  task.direction = Direction::kGradWeight;
  const auto plan = Engines(linked.link, plain_problem(task), {}).plan(0, 10, false, 0);
  REQUIRE(plan != nullptr);
  CHECK(Cudnn::leaves_narrow(*plan));
  CHECK(leaves_narrow(Chosen<CudnnOrCublasLt>{
      nullptr, std::make_shared<CudnnOrCublasLt::Plan>(CudnnOrCublasLt::Plan{plan, nullptr}),
      task}));
  // cuBLASLt's are float32.
  CHECK(!leaves_narrow(
      Chosen<CudnnOrCublasLt>{nullptr, std::make_shared<CudnnOrCublasLt::Plan>(), task}));
  DeviceQueue queue;
  const auto weights = static_cast<std::size_t>(task.shape.weights());
  std::vector<std::byte> data(2 * 4 * 4 * 8 * 2),
      scratch(static_cast<std::size_t>(plan->scratch_bytes()));
  std::vector<float> wide(weights), bias(8);
  std::vector<std::uint16_t> narrow(weights);
  ConvCall call{};
  call.input = call.output = data.data();
  call.grad_weight = wide.data();
  casts = 0;
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  CHECK(fake.last_operands[cudnn::kWeight] == scratch.data() + plan->layout.weight);
  call.grad_weight = nullptr;
  call.narrow_grad_weight = narrow.data();
  call.grad_bias = bias.data();
  Cudnn::run(queue, *plan, call, scratch.data());
  CHECK(casts == 1);
  CHECK(fake.last_operands[cudnn::kWeight] == narrow.data());
  CHECK(narrow == std::vector<std::uint16_t>(weights, 0x3F80));  // ones
  CHECK(bias == std::vector<float>(8, 1.0f));
  CHECK(!queue.failed());
  before_streams_end(linked.link.device);
}

TEST_CASE("conv2d by cudnn: a handle keeps no stream that ends") {
  const Linked linked;
  const Link& link = linked.link;
  const ConvTask task = small_task();
  Engines engines(link, plain_problem(task), {});
  const auto plan = engines.plan(0, kFirstEngine, false, 0);
  REQUIRE(plan != nullptr);
  int stream = 0;
  DeviceQueue queue;
  queue.stream = &stream;
  std::vector<std::byte> data(2 * 4 * 4 * 8 * 4);
  ConvCall call{};
  call.input = call.output = data.data();
  Cudnn::run(queue, *plan, call, data.data());
  CHECK(!queue.failed());
  CHECK(fake.streams[link.for_runs] == &stream);
  before_streams_end(link.device + 1);  // another device's
  CHECK(fake.streams[link.for_runs] == &stream);
  before_streams_end(link.device);
  CHECK(fake.streams[link.for_runs] == nullptr);
  Cudnn::run(queue, *plan, call, data.data());
  CHECK(fake.executed.back().stream == &stream);
  before_streams_end(link.device);
}

// A 1x1 convolution's libraries, one of which may be missing.
struct BothLinked : Linked {
  BothLinked() {
    fake_cublaslt() = {};
    fake_cublaslt().multiplies = false;
    fake_cublaslt().us = {{0, 25.0}, {1, 15.0}};
    cublaslt.functions = &fake_cublaslt_functions();
    const bool opened = CublasLt::open(cublaslt);
    REQUIRE(opened);
    both.functions = &functions();
    both.first = &link;
    both.second = &cublaslt;
    task.shape.kernel_height = task.shape.kernel_width = 1;
    task.shape.top = task.shape.left = task.bottom = task.right = 0;
  }
  ~BothLinked() { CHECK(fake_cublaslt().objects == 0); }
  CublasLt::Link cublaslt;
  CudnnOrCublasLt::Link both;
  ConvTask task = small_task();

  // "cudnn" or "cublaslt" and its number.
  static std::string name(const Chosen<CudnnOrCublasLt>& chosen) {
    if (chosen.plan == nullptr) return "none";
    if (chosen.plan->first != nullptr)
      return "cudnn " + std::to_string(of(chosen.plan->first->plan.object()).engine);
    return "cublaslt " + std::to_string(chosen.plan->second->algorithm.data[0]);
  }
  Chosen<CudnnOrCublasLt> fastest() {
    bool all = false;
    auto plans = made_plans<CudnnOrCublasLt>(
        0, task, offers_for<CudnnOrCublasLt>(both, task, nullptr, library_options()),
        library_options(), Clock::now(), all);
    RaceNotes notes;
    const auto best = fastest_plan<CudnnOrCublasLt>(0, both, task, false, plans, notes);
    return best ? *best : Chosen<CudnnOrCublasLt>{};
  }
  std::string untimed() {
    std::string why;
    return name(first_that_runs<CudnnOrCublasLt>(0, both, task, {nullptr}, library_options(), why));
  }
};

TEST_CASE("conv2d by cudnn or cublaslt: the fastest of both, untimed cuDNN's first") {
  BothLinked linked;
  for (const Direction direction :
       {Direction::kForward, Direction::kGradInput, Direction::kGradWeight}) {
    linked.task.direction = direction;
    fake.us[10] = 10.0;
    CHECK(linked.name(linked.fastest()) == "cudnn 10");
    fake.us[10] = 16.0;
    const Chosen<CudnnOrCublasLt> chosen = linked.fastest();
    CHECK(linked.name(chosen) == "cublaslt 1");
    CHECK(std::string(CudnnOrCublasLt::variant<ops::Conv2d>(*chosen.plan)) == "conv2d.cublaslt");
    CHECK(std::string(CudnnOrCublasLt::variant<ops::Conv2dGradWeight>(*chosen.plan)) ==
          "conv2d_grad_weight.cublaslt");
    CHECK(linked.untimed() == "cudnn 10");
  }
  fake.unmade = {10, 11, 12};
  CHECK(linked.untimed() == "cublaslt 0");
  fake_cublaslt().algorithms = 0;
  CHECK(linked.untimed() == "none");
  fake.unmade = {};
  CHECK(linked.name(linked.fastest()) == "cudnn 10");
}

TEST_CASE("conv2d by cudnn or cublaslt: an engine with a wrong result is not taken") {
  BothLinked linked;
  for (const Direction direction :
       {Direction::kForward, Direction::kGradInput, Direction::kGradWeight}) {
    linked.task.direction = direction;
    fake.spoilt = {10};
    fake.us[10] = 1.0;
    CHECK(linked.name(linked.fastest()) == "cublaslt 1");
    CHECK(linked.untimed() == "cudnn 11");
    fake.spoilt = {};
    CHECK(linked.name(linked.fastest()) == "cudnn 10");
  }
}

TEST_CASE("conv2d by cudnn or cublaslt: each reads what it wrote itself") {
  BothLinked linked;
  const LibraryOptions options = library_options();
  fake.us[10] = 16.0;
  const Chosen<CudnnOrCublasLt> second = linked.fastest();
  const auto read = [&](const std::string& text) {
    return linked.name(
        {nullptr, CudnnOrCublasLt::read(linked.both, linked.task, options, text), linked.task});
  };
  CHECK(read(CudnnOrCublasLt::text(*second.plan)) == "cublaslt 1");
  fake.us[10] = 1.0;
  const Chosen<CudnnOrCublasLt> first = linked.fastest();
  CHECK(linked.name(first) == "cudnn 10");
  CHECK(read(CudnnOrCublasLt::text(*first.plan)).starts_with("cudnn"));
  CHECK(read("10") == "none");
  // A key says which libraries there were.
  const std::string key = CudnnOrCublasLt::key(linked.both, linked.task, options);
  CHECK(key.starts_with(Cudnn::key(linked.link, linked.task, options)));
  CHECK(key.ends_with(CublasLt::key(linked.cublaslt, linked.task, options)));
  linked.cublaslt.functions = nullptr;
  CHECK(CudnnOrCublasLt::key(linked.both, linked.task, options) ==
        Cudnn::key(linked.link, linked.task, options));
}

TEST_CASE("conv2d by cudnn or cublaslt: one does without the other, which is told") {
  BothLinked linked;
  const LibraryOptions options = library_options();
  const std::string compiler = Cudnn::left_out(linked.link, options);
  CHECK(CudnnOrCublasLt::left_out(linked.both, options) == compiler);
  linked.cublaslt.functions = nullptr;
  linked.cublaslt.problem = "it is off";
  CHECK(linked.untimed() == "cudnn 10");
  CHECK(CudnnOrCublasLt::left_out(linked.both, options).ends_with("cuBLASLt: it is off"));
  linked.cublaslt.functions = &fake_cublaslt_functions();
  linked.link.functions = nullptr;
  linked.link.problem = "there is none";
  CHECK(linked.name(linked.fastest()) == "cublaslt 1");
  CHECK(CudnnOrCublasLt::left_out(linked.both, options) == "cuDNN: there is none");
  CHECK(CudnnOrCublasLt::key(linked.both, linked.task, options) ==
        CublasLt::key(linked.cublaslt, linked.task, options));
  linked.link.functions = &functions();
}

TEST_CASE("conv2d by cudnn or cublaslt: a pinned product that is none is refused") {
  const std::vector<TensorSpec> inputs = {{{1, 4, 4, 8}, DType::kFloat32},
                                          {{8, 3, 3, 8}, DType::kFloat32}};
  const std::vector<TensorSpec> outputs = {{{1, 2, 2, 8}, DType::kFloat32}};
  Problem problem;
  problem.inputs = inputs;
  problem.outputs = outputs;
  problem.pinned = "conv2d.cublaslt";
  const Choice choice = select_library(0, ops::Conv2d{}, problem);
  const bool taken = choice.run != nullptr;
  CHECK(!taken);
  CHECK(std::string(choice.refusal) == "it is no product of two matrices");
}

TEST_CASE("conv2d by our own kernels: as another convolution, held against the one it is") {
  const Choices choices;
  const Variable own("PYCNN_CUDA_REWRITES", "own");
  fake = {};
  const Variable untimed("PYCNN_CUDA_CHOOSE_SECONDS", "0");
  const auto choose = [](std::int64_t channels) {
    const std::vector<TensorSpec> inputs = {{{1, 12, 12, channels}, DType::kBFloat16},
                                            {{8, 7, 7, channels}, DType::kFloat32}};
    const std::vector<TensorSpec> outputs = {{{1, 6, 6, 8}, DType::kBFloat16}};
    ops::Conv2d op;
    op.stride = {2, 2};
    op.padding = {3, 3, 3, 3};
    Problem problem;
    problem.inputs = inputs;
    problem.outputs = outputs;
    return select_library(0, op, problem);
  };
  casts = 0;
  const Choice choice = choose(3);
  const bool taken = choice.run != nullptr;
  REQUIRE(taken);
  CHECK(std::string(choice.variant) == "conv2d.cuda+blocks2x2c16k8");
  CHECK(std::string(choice.left_out).starts_with("not timed: "));
  // Once as it is and twice, also recorded, as the other one, whose packed weights are widened.
  CHECK(own_runs == 3);
  CHECK(casts == 2);
  CHECK(moves.packs == 1);
  CHECK(moves.gathers == 2);
  CHECK(fake.executed.empty());
  CHECK(std::string(choose(16).refusal) == OwnLibrary::kNoPlan);
}

TEST_CASE("conv2d by cudnn: a part of a concat is a tensor whose pixels lie apart") {
  const Linked linked;
  const LibraryOptions options = library_options();
  ConvTask task = small_task();
  task.bias = task.residual = true;
  task.curve = {CurveKind::kRelu};
  const std::string dense_key = Cudnn::key(linked.link, task, options);
  CHECK(Cudnn::offers(linked.link, task, options).size() == 2 * kEngines);
  const std::vector<std::int64_t> dense = {4 * 4 * 8, 1, 4 * 8, 8};
  CHECK(fake.strides[cudnn::kOutput] == dense);
  task.shape.output_step = 24;
  fake.strides.clear();
  // Nothing comes behind that has not joined.
  CHECK(Cudnn::offers(linked.link, task, options).size() == kEngines);
  CHECK(fake.strides[cudnn::kOutput] == std::vector<std::int64_t>{4 * 4 * 24, 1, 4 * 24, 24});
  CHECK(fake.strides[cudnn::kInput] == dense);
  CHECK(fake.strides[cudnn::kResidual] == dense);
  CHECK(Cudnn::key(linked.link, task, options) != dense_key);
  task.curve = {CurveKind::kTanh};
  CHECK(Cudnn::offers(linked.link, task, options).empty());
  task.bias = task.residual = false;
  task.curve = {};
  CHECK(Cudnn::offers(linked.link, task, options).size() == kEngines);
}

// Tasks of bfloat16 whose results are measured, and what is chosen for them.
struct Measuring : Linked {
  explicit Measuring(MeasureKind kind) {
    task.image = Image::kBFloat16;
    task.measure = kind;
    if (kind == MeasureKind::kSums) {
      task.direction = Direction::kGradInput;
    }
    // The pass takes 1.
    fake.us = {{10, 10.0}, {11, 20.0}, {12, 30.0}, {20, 10.0}, {21, 11.0},
               {22, 12.0}, {30, 10.5}, {31, 11.5}, {32, 12.5}};
  }
  ConvTask task = small_task();
  RaceNotes notes;

  std::size_t offered() const { return Cudnn::offers(link, task, library_options()).size(); }
  Chosen<Cudnn> fastest() {
    bool all = false;
    auto plans =
        made_plans<Cudnn>(0, task, offers_for<Cudnn>(link, task, nullptr, library_options()),
                          library_options(), Clock::now(), all);
    notes = {};
    const auto best = fastest_plan<Cudnn>(0, link, task, false, plans, notes);
    REQUIRE(best);
    return *best;
  }
  std::set<std::int64_t> operand_ids() const {
    std::set<std::int64_t> ids;
    for (const auto& [id, pointer] : fake.operands)
      if (pointer != nullptr) ids.insert(id);
    return ids;
  }
};

TEST_CASE("conv2d by cudnn: engines that measure are offered, once with a promise") {
  Measuring linked(MeasureKind::kMoments);
  CHECK(linked.offered() == 3 * kEngines);
  fake.knows_repeating = false;
  CHECK(linked.offered() == 2 * kEngines);
  fake.knows_repeating = true;
  const auto without = [&](auto change) {
    const ConvTask before = linked.task;
    change(linked.task);
    const bool none = linked.offered() == kEngines;
    linked.task = before;
    return none;
  };
  CHECK(without([](ConvTask& task) { task.measure = MeasureKind::kNothing; }));
  CHECK(without([](ConvTask& task) { task.shape.groups = 4; }));
  CHECK(without([](ConvTask& task) { task.shape.out_channels = 6; }));
  CHECK(without([](ConvTask& task) { task.curve = {CurveKind::kRelu}; }));
  CHECK(without([](ConvTask& task) { task.residual = true; }));
  Measuring sums(MeasureKind::kSums);
  sums.task.residual = sums.task.gate = true;
  sums.task.curve = sums.task.norm_curve = {CurveKind::kRelu};
  CHECK(sums.offered() == 3 * kEngines);
  sums.task.norm_curve = {CurveKind::kTanh};
  CHECK(sums.offered() == kEngines);
}

TEST_CASE("conv2d by cudnn: an engine that measures wins, is kept and read") {
  for (const MeasureKind kind : {MeasureKind::kMoments, MeasureKind::kSums}) {
    Measuring linked(kind);
    const auto read = [&](const std::string& text) {
      return Cudnn::read(linked.link, linked.task, library_options(), text);
    };
    Chosen<Cudnn> chosen = linked.fastest();
    CHECK(engine_of(chosen) == 20);
    CHECK(Cudnn::measures(*chosen.plan));
    CHECK(linked.notes.dropped.empty());
    CHECK((moves.centers > 0) == (kind == MeasureKind::kMoments));
    const std::string text = Cudnn::text(*chosen.plan);
    CHECK(text == "m20");
    auto again = read(text);
    REQUIRE(again != nullptr);
    CHECK(Cudnn::measures(*again));
    CHECK(!again->zeroes);
    CHECK(again->scratch_bytes() == chosen.plan->scratch_bytes());
    // The third of its sums, of one tile, is the center.
    CHECK(chosen.plan->scratch_bytes() == 256 + 3 * 8 * 4);
    // One that adds to what is there gets zeros.
    fake.adds = {20};
    chosen = linked.fastest();
    CHECK(engine_of(chosen) == 20);
    CHECK(Cudnn::text(*chosen.plan) == "z20");
    again = read("z20");
    REQUIRE(again != nullptr);
    CHECK(again->zeroes);
    // One that is wrong is not taken, nor one that can never be told to have been right.
    fake.adds = {};
    fake.wrong = {20};
    CHECK(engine_of(linked.fastest()) == 30);
    CHECK(linked.notes.dropped.find("instead of") != std::string::npos);
    fake.wrong = {20, 21, 22, 30, 31, 32};
    CHECK(engine_of(linked.fastest()) == 10);
    ConvTask other = linked.task;
    other.measure = MeasureKind::kNothing;
    CHECK(Cudnn::read(linked.link, other, library_options(), "m20") == nullptr);
    moves = {};
  }
}

TEST_CASE("conv2d by cudnn: what an engine reads that measures") {
  using Ids = std::set<std::int64_t>;
  Measuring moments(MeasureKind::kMoments);
  (void)moments.fastest();
  const Ids all = {cudnn::kInput,  cudnn::kWeight,   cudnn::kOutput,
                   cudnn::kCenter, cudnn::kFirstSum, cudnn::kSecondSum};
  CHECK(moments.operand_ids() == all);
  const auto at = [&](std::int64_t id) { return static_cast<float*>(fake.operands[id]); };
  CHECK(at(cudnn::kSecondSum) == at(cudnn::kFirstSum) + 8);
  CHECK(at(cudnn::kCenter) == at(cudnn::kFirstSum) + 16);
  CHECK(fake.dimensions[cudnn::kFirstSum] == std::vector<std::int64_t>{1, 8, 1, 1});
  Measuring sums(MeasureKind::kSums);
  const auto read = [&](bool residual, bool gate, bool norm_relu) {
    sums.task.residual = residual;
    sums.task.gate = gate;
    sums.task.curve = gate ? Curve{CurveKind::kRelu} : Curve{};
    sums.task.norm_curve = norm_relu ? Curve{CurveKind::kRelu} : Curve{};
    (void)sums.fastest();
    Ids more;
    for (const std::int64_t id : sums.operand_ids())
      if (all.count(id) == 0) more.insert(id);
    return more;
  };
  CHECK(read(false, false, false) == Ids{cudnn::kNormed});
  CHECK(read(true, false, false) == Ids{cudnn::kNormed, cudnn::kResidual});
  CHECK(read(true, true, false) == Ids{cudnn::kNormed, cudnn::kResidual, cudnn::kGate});
  CHECK(read(false, false, true) == Ids{cudnn::kNormed, cudnn::kFactor, cudnn::kOffset});
}

}  // namespace
}  // namespace pycnn::cuda
