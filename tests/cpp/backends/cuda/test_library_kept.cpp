// What is kept of choices between programs and processes, and when it is chosen anew.
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

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
  CHECK(Fake::runs == 2);  // whether it still does
  CHECK(choices.find(plain).plan == "plain");
  CHECK(Fake::runs == 2);
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

TEST_CASE("library kernel: the deterministic choice is not timed and not kept") {
  const Choices choices;
  const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
  const ConvTask task = stem(next_images()), good = stem(next_images(), 16);
  CHECK(choices.find(task).rewrite == kBlocksName);
  CHECK(choices.find(good).rewrite.empty());
  CHECK(choices.find(good).plan == "blocks");  // of 16 channels
  Fake::scripts[kBlocks].clear();
  CHECK(choices.find(task).rewrite == "paddedc8k8");
  CHECK(Fake::runs == 6);  // twice each
  CHECK(!plan_cache().find(choices.key_of(task)));
  // Full precision has no kernels that want more than one channel.
  ConvTask wide = stem(next_images());
  wide.image = Image::kFloat32;
  CHECK(choices.find(wide).rewrite.empty());
}

}  // namespace
}  // namespace pycnn::cuda
