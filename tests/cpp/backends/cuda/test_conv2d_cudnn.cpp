// How plans of cuDNN are made, tried and executed, and with which handles.
#include "backends/cuda/fake_cudnn.h"
#include "backends/cuda/stream_users.h"

namespace pycnn::cuda {
namespace {

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
  CudnnEngines asked(linked.link, plain_problem(small_task()), {});
  fake.workspaces = {
      {10, kMostWorkspace + 1}, {11, kLargestWorkspace}, {12, kLargestWorkspace + 1}};
  CHECK(asked.plan(0, 10, false, 0)->workspace_bytes() > kMostWorkspace);
  CHECK(asked.plan(1, 11, false, 0)->workspace_bytes() == kLargestWorkspace);
  CHECK(asked.plan(2, 12, false, 0) == nullptr);
}

TEST_CASE("conv2d by cudnn: a mode of the heuristics that fails leaves the other one") {
  const Linked linked;
  fake.fallbacks = 2;
  const cudnn::ConvGraph graph(fake_cudnn_functions(), plain_problem(small_task()),
                               target_of(linked.link, 0));
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
    CudnnEngines engines(linked.link, plain_problem(task), {});
    std::set<void*> handles = {linked.link.for_runs};
    for (int thread = 0; thread < kMostBuilders; ++thread) {
      const auto plan = engines.plan(1, kFirstEngine + 1, false, thread);
      REQUIRE(plan != nullptr);
      CHECK(fake_object(plan->plan.object()).engine == kFirstEngine + 1);
      handles.insert(fake_object(plan->plan.object()).handle);
    }
    CHECK(handles.size() == kMostBuilders + 1);
    // What another thread found is not there, or is another one.
    CHECK(engines.plan(9, kFirstEngine, false, 0) == nullptr);
    CHECK(engines.plan(1, kFirstEngine, false, 0) == nullptr);
  }
  CHECK(fake.objects == 0);
}

TEST_CASE("conv2d by cudnn: a handle keeps no stream that ends") {
  const Linked linked;
  const Cudnn::Link& link = linked.link;
  const ConvTask task = small_task();
  CudnnEngines engines(link, plain_problem(task), {});
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

}  // namespace
}  // namespace pycnn::cuda
