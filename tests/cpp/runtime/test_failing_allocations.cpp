#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <new>

#include "compile/nets.h"
#include "pycnn/checkpoint.h"
#include "pycnn/error.h"
#include "support/allocations.h"
#include "support/temporary_directory.h"

// Each allocation in turn fails. The call must then end in an error, leave things as they were and
// succeed when it is made again.
#if PYCNN_COUNTS_ALLOCATIONS
namespace pycnn {
namespace {

using Results = std::map<std::string, Tensor>;

// Calls `work` with the first, second, ... allocation failing, until none does. Far ones are
// sampled: they are the same few places over and over. `check` runs after each failure.
void fail_each(const std::function<void()>& work, const std::function<void()>& check,
               bool always_limit_error = false) {
  int failures = 0;
  for (std::int64_t n = 1;; n += 1 + n / 40) {
    CAPTURE(n);
    bool refused = false, happened = false;
    {
      const testing::FailingAllocation failing(n);
      try {
        work();
      } catch (const MemoryLimitError&) {
        refused = true;
      } catch (const std::bad_alloc&) {
        refused = !always_limit_error;
      } catch (const Error&) {
        // Whatever it is, it must not hide behind another error.
      }
      happened = failing.happened();
    }
    if (!happened) break;
    CHECK(refused);
    check();
    ++failures;
  }
  CHECK(failures > 5);
  CHECK_NOTHROW(work());
}

CompileOptions all_options() {
  CompileOptions options = test::training_options();
  options.optimizer->momentum = 0.9;
  options.optimizer->ema_decay = 0.9;
  return options;
}

}  // namespace

TEST_CASE("compile without memory is a MemoryLimitError and changes no variable") {
  const Graph graph = test::small_net(2, true);
  Variables variables;
  create_variables(graph, variables, 2);
  const Variables before = test::clone(variables);
  for (const CompileOptions& options : {CompileOptions{}, all_options()}) {
    Variables given = variables;
    fail_each([&] { (void)compile(graph, given, options); },
              [&] { CHECK(test::same_bits(given, before)); }, true);
  }
}

TEST_CASE("a run without memory changes nothing and can be made again") {
  const Graph graph = test::small_net(2, true, 0.0);
  Variables variables;
  create_variables(graph, variables, 2);
  const Results inputs = {{"x", test::random_tensor({2, 8, 8, 2}, 9)}, {"y", test::labels(2, 4)}};
  // A team of threads that finds no memory is done without: it is there before.
  Variables others = test::clone(variables);
  (void)compile(graph, others, all_options()).run(inputs);
  for (const CompileOptions& options : {CompileOptions{}, all_options()}) {
    const Program program = compile(graph, variables, options);
    const Variables before = test::clone(variables);
    bool first = true;
    fail_each(
        [&] {
          (void)program.run(inputs);
          first = false;
        },
        [&] {
          if (first) CHECK(test::same_bits(variables, before));
        });
  }
}

TEST_CASE("recording, gradients and text without memory leave the graph as it was") {
  const Graph graph = test::small_net(2, true, 0.0);
  const std::string text = graph.text();
  fail_each([&] { (void)Graph::parse(text); }, [] {});
  Graph grown = graph;
  fail_each(
      [&] {
        Graph copy = grown;
        const Symbol wrt[] = {copy.find("fc.weight")};
        (void)differentiate(copy, copy.find("loss"), wrt);
      },
      [&] { CHECK(grown.text() == text); });
  Graph target;
  const Symbol x = target.input("x", {{2, 3}, DType::kFloat32});
  const std::size_t nodes = target.nodes().size();
  bool added = false;
  fail_each(
      [&] {
        if (added) return;
        (void)target.add(ops::Affine{2.0, 1.0}, {x}, "a name that is long enough for the heap");
        added = true;
      },
      [&] {
        if (added) return;
        CHECK(target.nodes().size() == nodes);
        CHECK(!target.contains("a name that is long enough for the heap"));
      });
}

TEST_CASE("files without memory: a load gives an error, a save leaves the old file and no other") {
  const TemporaryDirectory directory;
  const std::string path = directory / "net.safetensors";
  Model model;
  model.graph = test::small_net(2, false);
  create_variables(model.graph, model.variables, 2);
  save_model(path, model);
  fail_each([&] { (void)load_model(path); }, [] {});
  fail_each([&] { save_model(path, model); },
            [&] {
              int files = 0;
              for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
                (void)entry;
                ++files;
              }
              CHECK(files == 1);
              CHECK(test::same_bits(load_model(path).variables, model.variables));
            });
}

}  // namespace pycnn
#endif
