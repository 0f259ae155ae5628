#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "backends/cuda/cuda_module.h"
#include "compile/nets.h"
#include "pycnn/error.h"
#include "pycnn/program.h"
#include "support/temporary_directory.h"

// What the tests of programs on the emulated device (support/emulated_device.cpp) have in common: a
// small training, failures, and how often the device was called.
namespace pycnn::testing {

using Results = std::map<std::string, Tensor>;

inline Results inputs_of(int batch) {
  return {{"x", test::random_tensor({batch, 8, 8, 2}, 9)}, {"y", test::labels(batch, 4)}};
}

inline CompileOptions options_for(const std::string& device) {
  cuda_module();
  CompileOptions options = test::training_options();
  options.device = device;
  options.optimizer->momentum = 0.9;
  options.optimizer->clip_norm = 5.0;
  options.optimizer->ema_decay = 0.95;
  return options;
}

struct Training {
  std::vector<double> losses;
  Variables variables;
};

inline Training train(const CompileOptions& options, int steps) {
  const Graph graph = test::small_net(16, true, 0.25);
  Training training;
  create_variables(graph, training.variables, 1);
  const Program program = compile(graph, training.variables, options);
  training.variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
  for (int step = 0; step < steps; ++step)
    training.losses.push_back(*program.run(inputs_of(16)).at("loss").data<float>());
  return training;
}

// Bytes that a step moves, without what is prepared.
inline std::int64_t bytes_of(const Program& program) {
  std::int64_t bytes = 0;
  for (const StepProfile& step : program.steps())
    if (step.phase == "run") bytes += step.cost.bytes;
  return bytes;
}

// A program as it is, with memory of its own for each value, and on the device that goes backwards.
class EachWay {
 public:
  EachWay(const Graph& graph, const CompileOptions& options)
      : one_(graph, options), apart_(graph, apart(options)), backwards_(graph, other(options)) {}

  const Program& program() const { return one_.program; }
  // That their results and variables are those of another one, which makes as many steps.
  template <class Data>
  void expect_bits_of(const test::Compiled& expected, std::uint64_t steps, const Data& data) const {
    for (std::uint64_t step = 0; step < steps; ++step) {
      const Results results = expected.program.run(data(step));
      for (const test::Compiled* way : {&one_, &apart_, &backwards_})
        CHECK(test::same_bits(way->program.run(data(step)), results));
    }
    for (const test::Compiled* way : {&one_, &apart_, &backwards_})
      CHECK(test::same_bits(way->variables, expected.variables));
  }

 private:
  static CompileOptions apart(CompileOptions options) {
    options.reuse_memory = false;
    return options;
  }
  static CompileOptions other(CompileOptions options) {
    options.device = Device::cuda(other_device());
    return options;
  }
  test::Compiled one_, apart_, backwards_;
};

// While it lives, that of the emulated device fails (support/emulated_device.cpp).
struct Failing {
  explicit Failing(const char* what) { setenv("PYCNN_EMULATED_FAILURE", what, 1); }
  ~Failing() { unsetenv("PYCNN_EMULATED_FAILURE"); }
  Failing(const Failing&) = delete;
  Failing& operator=(const Failing&) = delete;
};

// Calls of the emulated device while it lives.
class Calls {
 public:
  Calls() { setenv("PYCNN_EMULATED_CALLS", path().c_str(), 1); }
  ~Calls() { unsetenv("PYCNN_EMULATED_CALLS"); }
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  int count(const std::string& call) const { return total(call).first; }
  std::size_t bytes(const std::string& call) const { return total(call).second; }

 private:
  std::string path() const { return (directory_ / "calls").string(); }
  std::pair<int, std::size_t> total(const std::string& call) const {
    std::pair<int, std::size_t> result{0, 0};
    std::ifstream file(path());
    std::string name;
    for (std::size_t bytes = 0; file >> name >> bytes;) {
      if (name != call) continue;
      ++result.first;
      result.second += bytes;
    }
    return result;
  }

  const TemporaryDirectory directory_;
};

// The code with which a forked child ends.
template <class Body>
int in_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace pycnn::testing
