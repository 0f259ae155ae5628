// Variables that stay on the device: a steady step copies none, whoever reads one has its newest
// values, and what the host writes is there before the next step. "Always copied" is what programs
// do while somebody holds a HostView of every variable.
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backends/cuda/training.h"

namespace pycnn {
namespace {

using testing::Calls;
using testing::Failing;
using testing::in_child;
using testing::inputs_of;
using testing::options_for;
using testing::Results;

// A training of the small net, of which some programs may be compiled.
struct Net {
  explicit Net(bool is_viewed = false, float rate = 0.02f)
      : graph(test::small_net(16, true, 0.25)) {
    create_variables(graph, variables, 1);
    training.push_back(compile(graph, variables, options_for("cuda")));
    variables["train.learning_rate"].mutable_data<float>()[0] = rate;
    if (!is_viewed) return;
    for (const auto& [name, tensor] : variables)
      views.push_back(std::make_unique<HostView>(tensor));
  }
  void add(const std::string& device) {
    training.push_back(compile(graph, variables, options_for(device)));
  }
  double step(std::size_t program = 0) {
    return *training[program].run(inputs_of(16)).at("loss").data<float>();
  }
  template <class T = float>
  T* write(const std::string& name) {
    return variables.at(name).mutable_data<T>();
  }

  Graph graph;
  Variables variables;
  std::vector<Program> training;
  std::vector<std::unique_ptr<HostView>> views;
};

void check_same(const Net& actual, const Net& expected) {
  CHECK(test::same_bits(actual.variables, expected.variables));
}

TEST_CASE("cuda residence: a steady step copies its inputs and results and nothing else") {
  if (!testing::is_emulated()) return;
  Net net;
  for (int i = 0; i < 3; ++i) net.step();
  std::size_t in = 0, out = 0;
  // Places are of 256 bytes.
  for (const auto& [name, spec] : net.training[0].inputs())
    in += (byte_size(spec) + 255) / 256 * 256;
  for (const auto& [name, spec] : net.training[0].outputs())
    out += (byte_size(spec) + 255) / 256 * 256;
  const Calls calls;
  for (int i = 0; i < 5; ++i) net.step();
  CHECK(calls.count("replay") == 5);
  CHECK(calls.count("copy_in") == 5);
  CHECK(calls.bytes("copy_in") == 5 * in);
  CHECK(calls.count("copy_out") == 5);
  CHECK(calls.bytes("copy_out") == 5 * out);
  CHECK(calls.count("wait_for") == 5);
  CHECK(calls.count("wait") == 0);
  CHECK(calls.count("allocate") == 0);
  CHECK(calls.count("allocate_host") == 0);
}

TEST_CASE("cuda residence: a training has the bits of one whose variables are always copied") {
  Net lazy, eager(true);
  for (int i = 0; i < 5; ++i) CHECK(lazy.step() == eager.step());
  check_same(lazy, eager);
  CHECK(lazy.step() == eager.step());  // and so it goes on after it was read
  check_same(lazy, eager);
}

TEST_CASE("cuda residence: every step counts a version, read or not") {
  Net net;
  net.step();
  const Tensor& weight = net.variables.at("fc.weight");
  const std::uint64_t before = weight.version();
  net.step();
  CHECK(weight.version() == before + 1);
  (void)weight.raw();
  CHECK(weight.version() == before + 1);
}

TEST_CASE("cuda residence: a kept pointer follows every step, and only it is copied") {
  Net net, other;
  const HostView view(net.variables.at("fc.weight"));
  for (int i = 0; i < 3; ++i) {
    net.step();
    other.step();
    const Tensor& expected = other.variables.at("fc.weight");
    CHECK(std::memcmp(view.raw(), expected.raw(), expected.bytes()) == 0);
  }
  if (!testing::is_emulated()) return;
  const Calls calls;
  net.step();
  CHECK(calls.count("copy_out") == 2);  // results and that variable
  CHECK(calls.count("copy_in") == 1);
}

TEST_CASE("cuda residence: what the host writes is there in the next step") {
  Net lazy, eager(true);
  for (Net* net : {&lazy, &eager}) {
    for (int i = 0; i < 6; ++i) {
      if (i == 2) *net->write("train.learning_rate") = 0.005f;
      if (i == 3) net->write("fc.weight")[5] += 0.25f;  // the others keep what was trained
      if (i == 4) *net->write<std::int64_t>("train.step") = 100;
      if (i == 5)
        fill(net->variables.at("conv2.weight"), {Initializer::Kind::kUniform, -0.1, 0.1}, 5, 6);
      net->step();
    }
  }
  check_same(lazy, eager);
  CHECK(*lazy.variables.at("train.step").data<std::int64_t>() == 102);
}

TEST_CASE("cuda residence: a number that changes every step is copied alone, without waiting") {
  if (!testing::is_emulated()) return;
  Net net;
  for (int i = 0; i < 3; ++i) net.step();
  const Calls calls;
  for (int i = 0; i < 3; ++i) {
    *net.write("train.learning_rate") = 0.01f * static_cast<float>(i);
    net.step();
  }
  CHECK(calls.count("copy_in") == 6);
  CHECK(calls.count("wait") == 0);
}

TEST_CASE("cuda residence: training goes from one device to another and back") {
  for (const bool threads_differ : {false, true}) {
    CAPTURE(threads_differ);
    Net lazy, eager(true);
    const std::string second =
        threads_differ ? Device::cuda(testing::other_device()) : std::string("cpu");
    for (Net* net : {&lazy, &eager}) {
      net->add(second);
      for (const std::size_t program : {0, 0, 1, 0, 1, 1, 0}) net->step(program);
    }
    check_same(lazy, eager);
    CHECK(*lazy.variables.at("train.step").data<std::int64_t>() == 7);
  }
}

TEST_CASE("cuda residence: programs on one device share what is there, others get it") {
  Net net;
  CompileOptions infer;
  const Program on_cpu = compile(net.graph, net.variables, infer);
  infer.device = "cuda";
  const Program on_gpu = compile(net.graph, net.variables, infer);
  const Results inputs = inputs_of(16);
  for (int i = 0; i < 3; ++i) {
    net.step();
    const Results gpu = on_gpu.run(inputs);
    for (const auto& [name, tensor] : on_cpu.run(inputs)) {
      CAPTURE(name);
      CHECK(test::difference(gpu.at(name), tensor) < 1e-4);
    }
  }
  if (!testing::is_emulated()) return;
  net.step();
  const Calls calls;
  on_gpu.run(inputs);
  CHECK(calls.count("copy_in") == 1);
  CHECK(calls.count("copy_out") == 1);
}

TEST_CASE("cuda residence: a copy home that fails says so and can be tried again") {
  if (!testing::is_emulated()) return;
  Net net, expected(true);
  for (int i = 0; i < 3; ++i) {
    net.step();
    expected.step();
  }
  const Tensor& weight = net.variables.at("fc.weight");
  for (const char* const what : {"copy_out", "wait"}) {
    const Failing failing(what);
    CHECK_THROWS_WITH_AS((void)weight.raw(), "program: device 'cuda:0' failed: told to fail",
                         DeviceError);
    CHECK_THROWS_AS((void)net.variables.at("conv1.weight").mutable_raw(), DeviceError);
    CHECK_THROWS_AS((void)weight.clone(), DeviceError);
    CHECK_THROWS_AS(HostView{weight}, DeviceError);
  }
  CompileOptions infer;
  const Program on_cpu = compile(net.graph, net.variables, infer);
  {
    const Failing failing("copy_out");
    CHECK_THROWS_AS(on_cpu.run(inputs_of(16)), DeviceError);
  }
  check_same(net, expected);
  net.step();
  expected.step();
  check_same(net, expected);
}

TEST_CASE("cuda residence: a step that fails half-way loses what it was to write, and says so") {
  if (!testing::is_emulated()) return;
  Net net;
  for (int i = 0; i < 2; ++i) net.step();
  const Tensor kept = net.variables.at("conv1.weight").clone();
  net.step();
  {
    const Failing failing("wait");
    CHECK_THROWS_WITH_AS(net.step(), "program: device 'cuda:0' failed: told to fail", DeviceError);
  }
  const char* const why =
      "were lost when device 'cuda:0' failed in a step that wrote them: told to fail\n"
      "  hint: load a checkpoint, or write new values";
  CHECK_THROWS_WITH_AS((void)net.variables.at("conv1.weight").raw(), doctest::Contains(why),
                       DeviceError);
  CHECK_THROWS_WITH_AS(net.step(), doctest::Contains(("' " + std::string(why)).c_str()),
                       DeviceError);
  CompileOptions infer;
  CHECK_THROWS_WITH_AS(compile(net.graph, net.variables, infer).run(inputs_of(16)),
                       doctest::Contains(why), DeviceError);

  // A checkpoint overwrites all of it; from there it goes as from the same values elsewhere.
  Net saved(true);
  for (int i = 0; i < 2; ++i) saved.step();
  for (auto& [name, tensor] : net.variables) {
    const Tensor& from = saved.variables.at(name);
    std::memcpy(tensor.overwrite(), from.raw(), tensor.bytes());
  }
  CHECK(test::same_bits(net.variables.at("conv1.weight"), kept));
  for (int i = 0; i < 2; ++i) CHECK(net.step() == saved.step());
  check_same(net, saved);
}

TEST_CASE("cuda residence: what the last program leaves on the device comes home") {
  Net net, expected(true);
  for (int i = 0; i < 3; ++i) {
    net.step();
    expected.step();
  }
  net.training.clear();
  check_same(net, expected);
  net.add("cuda");
  net.step();
  expected.step();
  check_same(net, expected);
  if (!testing::is_emulated()) return;
  net.step();
  {
    const Failing failing("copy_out");
    net.training.clear();
  }
  Tensor& weight = net.variables.at("fc.weight");
  CHECK_THROWS_WITH_AS((void)weight.raw(), doctest::Contains("told to fail"), DeviceError);
  net.add("cuda");
  CHECK_THROWS_WITH_AS(net.step(), doctest::Contains("told to fail"), DeviceError);
  for (auto& [name, tensor] : net.variables)
    std::memcpy(tensor.overwrite(), expected.variables.at(name).raw(), tensor.bytes());
  net.step();
  expected.step();
  check_same(net, expected);
}

TEST_CASE("cuda residence: an older pointer is no way to write") {
  Net net;
  Tensor& weight = net.variables.at("fc.weight");
  float* const old = weight.mutable_data<float>();
  net.step();
  *old = 1.0f;
  CHECK_THROWS_WITH_AS(weight.mark_written(),
                       doctest::Contains("take mutable_raw() again before writing"), ArgumentError);
  const float trained = *weight.data<float>();
  CHECK(trained != 1.0f);
  *old = 2.0f;  // current again, as long as nothing runs
  weight.mark_written();
  net.step();
  CHECK(*weight.data<float>() == doctest::Approx(2.0f).epsilon(0.1));
}

TEST_CASE("cuda residence: a forked child is told where the values are, and may write its own") {
  if (!testing::is_emulated()) return;
  Net net;
  for (int i = 0; i < 2; ++i) net.step();
  const double home = *net.variables.at("fc.bias").data<float>();
  net.step();
  CHECK(in_child([&] {
          Tensor& weight = net.variables.at("fc.weight");
          bool told = false;
          try {
            (void)weight.raw();
          } catch (const DeviceError& error) {
            told = std::string(error.what()).find("forked") != std::string::npos;
          }
          std::memset(weight.overwrite(), 0, weight.bytes());
          const bool written = *weight.data<float>() == 0.0f;
          net.training.clear();  // gives nothing back
          bool still_told = false;
          try {
            (void)net.variables.at("conv1.weight").raw();
          } catch (const DeviceError& error) {
            still_told = std::string(error.what()).find("forked") != std::string::npos;
          }
          return told && written && still_told ? 7 : 1;
        }) == 7);
  CHECK(*net.variables.at("fc.bias").data<float>() != home);
  net.step();
}

TEST_CASE("cuda residence: threads that read see whole steps while another trains") {
  Net net;
  net.step();
  std::atomic<bool> done{false};
  std::atomic<bool> grew{true};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      std::int64_t last = 0;
      while (!done) {
        const std::int64_t step = *net.variables.at("train.step").data<std::int64_t>();
        if (step < last) grew = false;
        last = step;
        const HostView view(net.variables.at("fc.weight"));
      }
    });
  for (int i = 0; i < 10; ++i) net.step();
  done = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(grew);
  CHECK(*net.variables.at("train.step").data<std::int64_t>() == 11);
  Net expected(true);
  for (int i = 0; i < 11; ++i) expected.step();
  check_same(net, expected);
}

}  // namespace
}  // namespace pycnn
