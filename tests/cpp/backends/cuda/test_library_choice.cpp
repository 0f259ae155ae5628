// How the fastest kernel is found, with a runtime whose clock the tests know (support/fake_cuda):
// the host's latency is no part of a time, and what fails is never chosen.
#include <doctest/doctest.h>

#include <set>
#include <vector>

#include "backends/cuda/device_timer.cpp"
#include "backends/cuda/library_choice.cpp"

namespace pycnn::cuda {

std::vector<std::uint64_t> seeds;
void fill_timed(DeviceQueue& queue, void*, std::int64_t, std::uint64_t seed) {
  seeds.push_back(seed);
  note(queue, fake_cuda().result("kernel", true));
}

namespace {

// Work that takes the device `us`, and how often it was given.
struct Timed {
  DeviceTimer timer{0};
  std::vector<int> calls;
  std::vector<Work> works;

  Timed() { fake_cuda() = {}; }
  void add(double us, bool fails = false) {
    const std::size_t index = works.size();
    calls.push_back(0);
    works.push_back([this, us, fails, index] {
      ++calls[index];
      fake_cuda().work(us);
      if (fails) note_library(timer.queue(), "trouble");
    });
  }
  int best() {
    const std::vector<int> places = ranked(timer, works);
    return places.empty() ? -1 : places.front();
  }
};

TEST_CASE("cuda timer: latency of the host is not timed") {
  Timed timed;
  for (const double us : {4.0, 30.0, 2000.0}) {
    timed.add(us);
    CAPTURE(us);
    CHECK(timed.timer.time_us(timed.works.back(), 3, 1) == doctest::Approx(us).epsilon(1e-3));
    CHECK(timed.timer.time_us(timed.works.back(), 10, 5) == doctest::Approx(us).epsilon(1e-3));
    CHECK(timed.timer.once_us(timed.works.back()) >= us);
  }
}

TEST_CASE("cuda timer: each block of memory has numbers of its own") {
  fake_cuda() = {};
  DeviceTimer timer(0);
  seeds.clear();
  for (int i = 0; i < 3; ++i) (void)timer.allocate(16);
  CHECK(seeds.size() == 3);
  CHECK(std::set<std::uint64_t>(seeds.begin(), seeds.end()).size() == 3);
}

TEST_CASE("cuda timer: nothing is left behind, whatever fails") {
  for (const char* const call :
       {"", "cudaStreamCreateWithFlags", "cudaMalloc", "kernel", "cudaEventCreate",
        "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphLaunch",
        "cudaEventRecord", "cudaStreamSynchronize", "cudaEventElapsedTime"}) {
    CAPTURE(call);
    fake_cuda() = {};
    if (*call != '\0') fake_cuda().failing = {call};
    {
      DeviceTimer timer(0);
      (void)timer.allocate(16);
      const auto work = [] { fake_cuda().work(3.0); };
      const bool good = timer.works() && timer.time_us(work, 3, 2) >= 0.0;
      const bool unrelated = std::string(call) == "kernel" || std::string(call) == "cudaMalloc";
      if (timer.works()) CHECK(good == (*call == '\0' || unrelated));
      if (timer.works()) (void)timer.once_us(work);
      // That nothing can be recorded says nothing of the work.
      const std::set<std::string> failing = {"cudaStreamEndCapture", "cudaGraphInstantiate",
                                             "cudaGraphLaunch", "cudaStreamSynchronize"};
      const Replay replay = failing.count(call) > 0 ? Replay::kFailed
                            : std::string(call) == "cudaStreamBeginCapture"
                                ? Replay::kNothingRecorded
                                : Replay::kDone;
      const bool as_expected = !timer.works() || timer.replay(work) == replay;
      CHECK(as_expected);
    }
    CHECK(fake_cuda().current == 7);
    CHECK(fake_cuda().last == cudaSuccess);
    CHECK(fake_cuda().streams == 0);
    CHECK(fake_cuda().allocations == 0);
    CHECK(fake_cuda().graphs == 0);
    CHECK(fake_cuda().executables == 0);
    CHECK(fake_cuda().events == 0);
  }
}

TEST_CASE("cuda choice: kernels are chosen anew for another build of the driver") {
  const std::string file = "/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06";
  const std::string line =
      "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  "
      "(x@y1.2)";
  CHECK(driver_build(file, line) == "580.65.06");
  CHECK(driver_build("", line) == "570.124.06");
  CHECK(driver_build("/usr/lib/libcuda.so.1", line) == "570.124.06");
  CHECK(driver_build("/usr/lib/libcuda.so.1", "").empty());
  CHECK(driver_build("", "NVRM version: none").empty());
  fake_cuda() = {};
  const std::string identity = device_identity(0), build = driver_build();  // of this machine
  CHECK(identity ==
        "fake, 132 multiprocessors, driver 13000" + (build.empty() ? build : " " + build));
}

TEST_CASE("cuda choice: the fastest wins, our own kernel too where all are short") {
  Timed timed;
  for (const double us : {9.0, 5.0, 7.0, 6.0, 8.0, 10.0, 4.0}) timed.add(us);
  CHECK(timed.best() == 6);
  Timed library;
  for (const double us : {9.0, 5.0, 7.0}) library.add(us);
  CHECK(library.best() == 1);
}

TEST_CASE("cuda choice: the others are there, those timed briefly behind those timed at length") {
  Timed timed;
  for (const double us : {9.0, 5.0, 7.0, 6.0, 8.0, 11.0, 10.0, 4.0}) timed.add(us);
  CHECK(ranked(timed.timer, timed.works) == std::vector<int>{7, 1, 3, 2, 4, 0, 6, 5});
  CHECK(timed.calls[0] < timed.calls[4]);
  timed.add(1.0, true);
  timed.add(1e6);  // our own
  CHECK(ranked(timed.timer, timed.works) == std::vector<int>{7, 1, 3, 2, 4, 0, 6, 5});
}

TEST_CASE("cuda choice: our own kernel is not timed at length where it is slow") {
  Timed timed;
  timed.add(20.0);
  timed.add(1e6);
  CHECK(timed.best() == 0);
  CHECK(timed.calls[1] == 2);
}

TEST_CASE("cuda choice: what fails is not chosen") {
  Timed timed;
  timed.add(1.0, true);
  timed.add(9.0);
  timed.add(30.0);
  CHECK(timed.best() == 1);
  Timed own;
  own.add(1.0, true);
  own.add(30.0);
  CHECK(own.best() == 1);
  Timed none;
  none.add(1.0, true);
  none.add(1.0, true);
  CHECK(none.best() == -1);
}

TEST_CASE("library choice: plans that are compiled take no place of the others") {
  for (const bool apart : {false, true}) {
    OfferLimit limit(apart);
    int compiled = 0, others = 0;
    for (int graph = 0; graph < 2; ++graph) {
      limit.begin_graph();
      for (int i = 0; i < 20; ++i) compiled += limit.takes(true) ? 1 : 0;
      for (int i = 0; i < 3; ++i) others += limit.takes(false) ? 1 : 0;
    }
    CHECK(compiled == 2 * kMostCompiled);
    CHECK(others == (apart ? kMostApart : 6));
  }
}

}  // namespace
}  // namespace pycnn::cuda
