// Our own kernels in a library's place, for what a convolution is rewritten to.
#include <string>

#include "backends/cuda/fake_cudnn.h"
#include "backends/cuda/library_own.h"
#include "backends/cuda/select.h"
#include "support/variable.h"

namespace pycnn::cuda {
namespace {

using testing::Variable;

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

}  // namespace
}  // namespace pycnn::cuda
