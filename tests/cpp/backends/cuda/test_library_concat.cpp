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

}  // namespace
}  // namespace pycnn::cuda
