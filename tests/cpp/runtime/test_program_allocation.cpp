#include <doctest/doctest.h>

#include "compile/nets.h"
#include "support/allocations.h"

#if PYCNN_COUNTS_ALLOCATIONS
namespace pycnn {
namespace {

void check_runs_without_allocation(const Program& program, const std::vector<const void*>& inputs) {
  std::vector<Tensor> results;
  std::vector<void*> outputs;
  for (const auto& [name, spec] : program.outputs()) {
    results.emplace_back(spec);
    outputs.push_back(results.back().mutable_raw());
  }
  program.run(inputs, outputs);
  const std::int64_t before = testing::allocations();
  for (int i = 0; i < 10; ++i) program.run(inputs, outputs);
  CHECK(testing::allocations() == before);
}

TEST_CASE("nothing is allocated by a run after the first one") {
  const Graph graph = test::small_net(4, true);
  Variables variables;
  create_variables(graph, variables, 2);
  const Tensor x = test::random_tensor({4, 8, 8, 2}, 9), y = test::labels(4, 4);
  CompileOptions training;
  training.mode = Mode::kTraining;
  training.optimizer = Optimizer{};
  for (const CompileOptions& options : {CompileOptions{}, training})
    check_runs_without_allocation(compile(graph, variables, options), {x.raw(), y.raw()});
}

}  // namespace
}  // namespace pycnn
#endif
