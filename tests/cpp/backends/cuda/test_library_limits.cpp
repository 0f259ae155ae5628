// How a library's kernel is chosen where not all can be timed: memory, seconds, devices that fail,
// the deterministic choice.
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

TEST_CASE("library kernel: what there is no memory for leaves the choice to the others") {
  const Choices choices;
  Fake::scripts[kBlocks] = {{"large", 5.0, false, 1 << 20}, {"blocks", 10.0}};
  CHECK(choices.find(stem(next_images())).plan == "large");
  fake_cuda().largest_block = 1 << 20;  // and the images are moved
  CHECK(choices.find(stem(next_images())).plan == "blocks");
  const ConvTask task = stem(700 + next_images());  // no other test has as many
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

TEST_CASE("library kernel: a large workspace has to be worth it, or the only one") {
  const Choices choices;
  constexpr std::int64_t kLarge = kMostWorkspace + 1;
  const auto find = [&](double large_us, double small_us) {
    Fake::scripts = {
        {16, {{"large", large_us, false, kLarge}, {"small", small_us, false, kMostWorkspace}}}};
    return choices.find(stem(next_images(), 16)).plan;
  };
  CHECK(find(95.0, 100.0) == "large");
  CHECK(find(95.5, 100.0) == "small");
  {
    const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
    CHECK(find(1.0, 100.0) == "small");
    Fake::scripts[16][1].fails = true;
    CHECK(choices.find(stem(next_images(), 16)).plan == "large");
  }
  // What there is no memory for is not looked for again by each process.
  fake_cuda().largest_block = kMostWorkspace;
  const ConvTask task = stem(next_images(), 16);
  Fake::scripts[16][1].fails = false;
  CHECK(choices.find(task).plan == "small");
  CHECK(PlanCache(plan_cache().file()).find(choices.key_of(task)) == "small");
  fake_cuda().largest_block = ~std::size_t{0};
  Fake::scripts = {{16, {{"large", 90.0, false, kLarge}}}};
  Concatenated net(16);
  net.problem.output_pitch = 0;
  CHECK(net.choose().scratch_bytes == std::size_t{kLarge});  // as the program plans for it
  own_us = 94.0;
  CHECK(choices.find(stem(next_images(), 16)).plan.empty());  // it has none
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
  Found found = choices.find(stem(next_images()));
  CHECK(found.plan == "plain");
  CHECK(found.why == "not timed: no kernel could be recorded for it");
  fake_cuda().failing.clear();
  fake_cuda().blocks_left = 0;
  found = choices.find(stem(next_images()));
  CHECK(found.plan == "broken");  // which nobody could see
  CHECK(found.why == "not timed: there is no memory for it");
  fake_cuda().failing = {"cudaStreamCreateWithFlags"};
  CHECK(choices.find(stem(next_images())).why == "not timed: the GPU cannot be used for it");
  fake_cuda().blocks_left = 1000;
  fake_cuda().failing = {"cudaStreamBeginCapture"};
  Fake::scripts = {{kPlain, {{"broken", 1.0, true}, {"throws", 2.0}}}};
  found = choices.find(stem(next_images()));
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

}  // namespace
}  // namespace pycnn::cuda
