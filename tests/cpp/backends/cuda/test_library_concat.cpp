// How a library's kernel is chosen whose result a concat reads.
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

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
  // Which runs if it becomes a part, and nowhere else.
  const auto is_own_apart = [&](const Concatenated& net) {
    const Choice choice = net.choose();
    const bool taken = choice.run != nullptr;
    REQUIRE(taken);
    CHECK(choice.strided_outputs == 1);
    CHECK(choice.output_pitch == 0);
    CHECK(std::string(choice.variant) == "conv2d.cudnn");
    // The library's packed weights are widened for it.
    CHECK(choice.packed.bytes > 0);
    CHECK(choice.scratch_bytes >= 8 * 3 * 3 * 16 * 4 + 16);
    own_runs = Fake::runs = casts = 0;
    (void)net.run(choice, 24);
    CHECK(own_runs == 1);
    CHECK(casts == 1);
    CHECK(Fake::runs == 0);
    (void)net.run(choice, 0);
    CHECK(own_runs == 1);
    CHECK(Fake::runs == 1);
    return std::string(choice.apart_variant) == "conv2d.cuda";
  };
  for (int i = 0; i < 2; ++i) CHECK(is_own_apart(ours));
  // Likewise without such a plan.
  Fake::writes_apart = false;
  CHECK(is_own_apart(Concatenated(16)));
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
}

TEST_CASE("library kernel: a bias is packed where all that may run reads it so") {
  const Choices choices;
  Fake::scripts = {{16, {{"plan", 10.0}}}};
  Fake::apart_us = 4.0;
  moves.copy_us = 5.0;
  own_us = 16.0;
  // Whether the kernel packs it; its plans get it either way.
  const auto packs = [&](bool apart = true) {
    Concatenated net(16, true);
    if (!apart) net.problem.output_pitch = 0;
    const Choice choice = net.choose();
    const bool taken = choice.run != nullptr;
    REQUIRE(taken);
    CHECK((choice.strided_outputs == 1) == apart);
    casts = 0;
    for (const std::int64_t pitch : {apart ? 24 : 0, 0}) {
      (void)net.run(choice, pitch);
      const bool packed = choice.packed_bias.input >= 0;
      CHECK((Fake::packed_bias != nullptr) == packed);
      CHECK((Fake::bias != nullptr) == !packed);
    }
    if (choice.packed_bias.input < 0) return false;
    CHECK(choice.packed_bias.input == 2);
    CHECK(choice.packed_bias.bytes == 8 * 2);
    CHECK(choice.packed_bias.rounded == DType::kBFloat16);
    return true;
  };
  CHECK(packs());
  CHECK(packs(false));
  own_us = 14.5;  // where a concat wants it
  Fake::apart_us = 5.5;
  CHECK(packs(false));
  Concatenated own(16, true);
  CHECK(own.choose().packed_bias.input < 0);
  Concatenated none(16);
  CHECK(none.choose().packed_bias.input < 0);
  own_us = 16.0;
  Fake::apart_us = 4.0;
  Fake::scripts = {{16, {{"widens", 10.0}}}};  // by passes behind it
  CHECK(!packs());
  CHECK(!packs(false));
}

TEST_CASE("library kernel: a rewritten convolution writes into a concat, of the same weights") {
  const Choices choices;
  Fake::scripts = {{8, {{"padded", 10.0}}}, {16, {{"wider", 11.0}}}};
  Fake::apart_us = 2.0;  // the other rewrite would be as fast there
  moves.copy_us = 5.0;
  own_us = 100.0;
  const Concatenated net(3);
  for (int i = 0; i < 2; ++i) {
    const Choice choice = net.choose();
    CHECK(std::string(choice.variant) == "conv2d.cudnn+paddedc8k8");
    CHECK(choice.strided_outputs == 1);
    CHECK(choice.output_pitch == 24);
    CHECK(std::string(choice.apart_variant) == "conv2d.cudnn+paddedc8k8");
    CHECK(net.run(choice, 24) == 24);
    CHECK(net.run(choice, 0) == 0);
  }
  // Our own kernel cannot read its weights.
  own_us = 11.5;
  const Concatenated ours(3);
  CHECK(ours.choose().output_pitch == 24);
  Fake::apart_us = 5.5;
  CHECK(ours.choose().output_pitch == 24);  // as is kept
  CHECK(Concatenated(3).choose().strided_outputs == 0);
  // Results with channels of zeros are moved anyway.
  Fake::apart_us = 0.0;
  own_us = 100.0;
  Concatenated odd(3);
  odd.inputs[1].shape[0] = odd.outputs[0].shape[3] = 12;
  odd.problem.output_pitch = 32;
  const Choice choice = odd.choose();
  CHECK(std::string(choice.variant) == "conv2d.cudnn+paddedc8k16");
  CHECK(choice.strided_outputs == 0);
}

TEST_CASE("library kernel: what was copied for want of memory is kept for this process alone") {
  const Choices choices;
  Fake::scripts = {{16, {{"plan", 10.0}}}};
  own_us = 16.0;
  moves.copy_us = 1.0;
  Fake::writes_apart = false;  // so that no plan is left out for it
  const Concatenated net(16);
  CHECK(net.choose().strided_outputs == 0);
  const ConvTask task = wanted_task(net.conv, net.problem);
  ConvTask apart = task;
  apart.shape.output_step = 24;
  const auto kept = [&] { return PlanCache(plan_cache().file()).find(Choices::key_of(apart)); };
  CHECK(kept() == kCopied);
  const Concatenated other(16);
  apart.shape.images = static_cast<int>(other.inputs[0].shape[0]);
  std::string why;
  const Chosen<Fake> chosen = find_plan<Fake>(0, wanted_task(other.conv, other.problem), why);
  // For a call's three tensors and scratch, not for the result that is copied.
  fake_cuda().blocks_left = 3 + 1 + 1;
  const Chosen<Fake> copied = find_plan<Fake>(0, apart, why, Clock::now(), false, &chosen);
  CHECK(copied.plan == chosen.plan);
  CHECK(plan_cache().find(Choices::key_of(apart)) == kCopied);
  CHECK(!kept());
}

}  // namespace
}  // namespace pycnn::cuda
