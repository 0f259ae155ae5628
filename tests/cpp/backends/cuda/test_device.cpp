// device.cpp with a runtime that fails when told to (support/fake_cuda): every failure is told
// once, none is lost or told of later work, and nothing is left behind.
#include <doctest/doctest.h>

#include <iterator>
#include <set>
#include <vector>

#include "backends/cuda/device.cpp"

namespace pycnn::cuda {
namespace {

struct Opened {
  DeviceQueue* queue = nullptr;
  Opened() {
    fake_cuda() = {};
    std::string problem;
    queue = open(0, problem);
    REQUIRE(queue != nullptr);
  }
  ~Opened() {
    fake_cuda().failing.clear();
    close(queue);
    CHECK(fake_cuda().streams == 0);
    CHECK(fake_cuda().allocations == 0);
    CHECK(fake_cuda().host_allocations == 0);
    CHECK(fake_cuda().events == 0);
    CHECK(fake_cuda().graphs == 0);
    CHECK(fake_cuda().executables == 0);
    CHECK(fake_cuda().last == cudaSuccess);
    CHECK(fake_cuda().current == 7);  // as it was
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
};

std::string problem_of_probe(int index) {
  DeviceFacts facts;
  std::string problem;
  CHECK(!probe(index, facts, problem));
  CHECK(fake_cuda().last == cudaSuccess);
  return problem;
}

TEST_CASE("cuda device: what is missing is named") {
  fake_cuda() = {};
  DeviceFacts facts;
  std::string problem;
  CHECK(probe(0, facts, problem));
  CHECK(facts.name == "fake");
  CHECK(facts.capability == "9.0");
  CHECK(problem_of_probe(1) == "there is no GPU 1, the driver sees 1 (counted from 0)");
  fake_cuda().driver = 0;
  CHECK(problem_of_probe(0).find("there is no NVIDIA driver") != std::string::npos);
  fake_cuda().driver = 12080;
  CHECK(problem_of_probe(0).find("serves CUDA 12.8 and pycnn needs 13.0") != std::string::npos);
  fake_cuda() = {};
  fake_cuda().devices = 0;
  CHECK(problem_of_probe(0).find("the NVIDIA driver sees none") != std::string::npos);
  fake_cuda() = {};
  fake_cuda().properties.major = 7;
  CHECK(problem_of_probe(0).find("compute capability 7.0, pycnn needs 8.0") != std::string::npos);
  for (const char* const call : {"cudaGetDeviceCount", "cudaGetDeviceProperties"}) {
    fake_cuda() = {};
    fake_cuda().failing = {call};
    CHECK(problem_of_probe(0).find("cudaErrorUnknown") != std::string::npos);
    CHECK(problem_of_probe(0).find("hint") == std::string::npos);
  }
  // So a forked child is refused whose parent had the driver.
  fake_cuda().failing = {"cudaGetDeviceCount"};
  fake_cuda().count_error = cudaErrorInitializationError;
  CHECK(problem_of_probe(0).find("hint: if this process was forked") != std::string::npos);
  fake_cuda() = {};
}

TEST_CASE("cuda device: who keeps a stream is told before it ends") {
  static int device, streams;
  device = streams = -1;
  forget_streams = [](int of) noexcept {
    device = of;
    streams = fake_cuda().streams;
  };
  { const Opened opened; }
  forget_streams = nullptr;
  CHECK(device == 0);
  CHECK(streams == DeviceQueue::kLanes);
}

TEST_CASE("cuda device: a device that cannot be opened is no queue") {
  for (const char* const call : {"cudaSetDevice", "cudaStreamCreateWithFlags"}) {
    fake_cuda() = {};
    fake_cuda().failing = {call};
    std::string problem;
    CHECK(open(0, problem) == nullptr);
    CHECK(problem == "GPU 0 cannot be used: trouble (cudaErrorUnknown)");
    CHECK(fake_cuda().last == cudaSuccess);
  }
}

TEST_CASE("cuda device: memory that cannot be had is null, and later calls work") {
  const Opened opened;
  std::string problem;
  for (const char* const call : {"cudaMalloc", "cudaSetDevice"}) {
    fake_cuda().failing = {call};
    CHECK(allocate(opened.queue, 8) == nullptr);
    fake_cuda().failing.clear();
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  for (const char* const call : {"cudaHostAlloc", "cudaSetDevice"}) {
    fake_cuda().failing = {call};
    CHECK(allocate_host(opened.queue, 8) == nullptr);
    fake_cuda().failing.clear();
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  void* const host = allocate_host(opened.queue, 0);
  CHECK(host != nullptr);
  release_host(opened.queue, host);
  fake_cuda().failing = {"cudaMemGetInfo"};
  CHECK(free_bytes(opened.queue) == 0);
  fake_cuda().failing.clear();
  void* const memory = allocate(opened.queue, 0);
  CHECK(memory != nullptr);
  release(opened.queue, memory);
  CHECK(wait(opened.queue, problem));
}

TEST_CASE("cuda device: what failed is told by the next wait, once") {
  const Opened opened;
  std::vector<float> from = {1, 2, 3}, to(3);
  std::string problem;
  for (const char* const call :
       {"cudaMemcpyAsync", "cudaSetDevice", "cudaStreamSynchronize", "cudaGraphLaunch"}) {
    CAPTURE(call);
    fake_cuda().failing = {call};
    copy_in(opened.queue, to.data(), from.data(), 12);
    DeviceRecording recording;
    replay(opened.queue, &recording);
    const bool late = std::string(call) == "cudaStreamSynchronize";
    if (!late) fake_cuda().failing.clear();
    CHECK(!wait(opened.queue, problem));
    CHECK(problem == "trouble (cudaErrorUnknown)");
    fake_cuda().failing.clear();
    CHECK(wait(opened.queue, problem));
    CHECK(cudaGetLastError() == cudaSuccess);
  }
}

TEST_CASE("cuda device: the caller's device is current again") {
  {
    const Opened opened;
    CHECK(fake_cuda().current == 7);
    const int before = enter(opened.queue);
    CHECK(fake_cuda().current == 0);
    void* const memory = allocate(opened.queue, 8);
    CHECK(fake_cuda().current == 0);  // as long as the caller is within
    leave(opened.queue, before);
    CHECK(fake_cuda().current == 7);
    release(opened.queue, memory);
    CHECK(fake_cuda().current == 7);
    fake_cuda().failing = {"cudaSetDevice"};
    leave(opened.queue, enter(opened.queue));
    CHECK(has_failed(opened.queue));
    fake_cuda().failing.clear();
    CHECK(fake_cuda().current == 7);
    std::string problem;
    CHECK(!wait(opened.queue, problem));
    CHECK(wait(opened.queue, problem));
  }
  // One that nobody uses stays unused: making it current would take memory of it.
  fake_cuda() = {};
  fake_cuda().in_use.clear();
  std::string problem;
  DeviceQueue* const queue = open(0, problem);
  CHECK(fake_cuda().current == 0);
  close(queue);
  fake_cuda() = {};
}

TEST_CASE("cuda device: a queue that cannot have all its lanes is none") {
  fake_cuda() = {};
  fake_cuda().streams_left = 2;
  std::string problem;
  CHECK(open(0, problem) == nullptr);
  CHECK(fake_cuda().streams == 0);
  CHECK(fake_cuda().last == cudaSuccess);
}

TEST_CASE("cuda device: work goes to the lane in use") {
  const Opened opened;
  std::string problem;
  const cudaStream_t main = opened.queue->stream;
  for (int lane = kDeviceLanes - 1; lane >= 0; --lane) {
    use_lane(opened.queue, lane);
    CHECK(opened.queue->stream == opened.queue->lanes[lane]);
    CHECK((opened.queue->stream == main) == (lane == kMainLane));
  }
  CHECK(wait(opened.queue, problem));
  CHECK(fake_cuda().synchronized ==
        std::set<cudaStream_t>(std::begin(opened.queue->lanes), std::end(opened.queue->lanes)));
}

TEST_CASE("cuda device: events that cannot be had, marked or waited for are told") {
  const Opened opened;
  std::string problem;
  for (const char* const call : {"cudaEventCreateWithFlags", "cudaSetDevice"}) {
    fake_cuda().failing = {call};
    CHECK(make_event(opened.queue, false, problem) == nullptr);
    CHECK(problem == "trouble (cudaErrorUnknown)");
    fake_cuda().failing.clear();
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  DeviceEvent* const event = make_event(opened.queue, false, problem);
  REQUIRE(event != nullptr);
  CHECK(!has_failed(opened.queue));
  for (const char* const call : {"cudaEventRecord", "cudaStreamWaitEvent"}) {
    CAPTURE(call);
    fake_cuda().failing = {call};
    mark(opened.queue, event);
    follow(opened.queue, event);
    fake_cuda().failing.clear();
    CHECK(has_failed(opened.queue));
    CHECK(!wait_for(opened.queue, event, problem));
    CHECK(problem == "trouble (cudaErrorUnknown)");
    CHECK(!has_failed(opened.queue));
    CHECK(wait_for(opened.queue, event, problem));
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  DeviceEvent* const later = make_event(opened.queue, true, problem);
  mark(opened.queue, later);
  CHECK(elapsed_us(opened.queue, event, later) > 0.0);
  for (const char* const call : {"cudaEventElapsedTime", "cudaSetDevice"}) {
    fake_cuda().failing = {call};
    CHECK(elapsed_us(opened.queue, event, later) < 0.0);
    fake_cuda().failing.clear();
    CHECK(wait(opened.queue, problem));
    CHECK(cudaGetLastError() == cudaSuccess);
  }
  forget_event(later);
  fake_cuda().failing = {"cudaEventSynchronize"};
  CHECK(!wait_for(opened.queue, event, problem));
  fake_cuda().failing.clear();
  CHECK(wait_for(opened.queue, event, problem));
  fake_cuda().failing = {"cudaEventDestroy"};
  forget_event(event);
  fake_cuda().failing.clear();
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("cuda device: a recording that fails leaves nothing behind, and single launches work") {
  const Opened opened;
  for (const char* const call :
       {"cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"}) {
    CAPTURE(call);
    fake_cuda().failing = {call};
    std::string problem;
    begin_recording(opened.queue);
    CHECK(end_recording(opened.queue, problem) == nullptr);
    CHECK(problem == "trouble (cudaErrorUnknown)");
    fake_cuda().failing.clear();
    CHECK(!fake_cuda().capturing);
    CHECK(wait(opened.queue, problem));
  }
}

TEST_CASE("cuda device: what may not be recorded makes the recording fail") {
  const Opened opened;
  std::string problem;
  begin_recording(opened.queue);
  note(*opened.queue, cudaStreamSynchronize(opened.queue->stream));
  CHECK(end_recording(opened.queue, problem) == nullptr);
  CHECK(wait(opened.queue, problem));
}

TEST_CASE("cuda device: a copy that failed before a recording is not forgotten with it") {
  const Opened opened;
  std::vector<float> from = {1}, to = {0};
  for (const bool recorded : {true, false}) {
    std::string problem;
    fake_cuda().failing = {"cudaMemcpyAsync"};
    copy_in(opened.queue, to.data(), from.data(), 4);
    fake_cuda().failing.clear();
    if (!recorded) fake_cuda().failing = {"cudaGraphInstantiate"};
    begin_recording(opened.queue);
    DeviceRecording* const recording = end_recording(opened.queue, problem);
    CHECK((recording != nullptr) == recorded);
    fake_cuda().failing.clear();
    if (recording != nullptr) forget(recording);
    CHECK(!wait(opened.queue, problem));
    CHECK(wait(opened.queue, problem));
  }
}

}  // namespace
}  // namespace pycnn::cuda
