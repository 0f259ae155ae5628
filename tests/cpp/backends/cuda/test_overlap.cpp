// Runs that overlap with the host. The emulated device works as late as it may, so that whatever
// the host reuses or reads too early shows; its two devices go through lanes in opposite orders.
#include <deque>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/training.h"

namespace pycnn {
namespace {

using testing::Calls;
using testing::Failing;
using testing::options_for;

// Begins runs on inputs of its own, which are spoilt as soon as a run has begun.
class Stream {
 public:
  explicit Stream(const std::string& device, std::int64_t batch = 16)
      : graph_(test::small_net(batch, true, 0.25)), batch_(batch) {
    create_variables(graph_, variables, 1);
    program_ = std::make_unique<Program>(compile(graph_, variables, options_for(device)));
    variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
  }

  struct Begun {
    PendingRun run;
    std::vector<Tensor> results;
    double loss() const { return *results[0].data<float>(); }
  };

  Begun begin(int step, bool late = false) {
    Tensor x = test::random_tensor({batch_, 8, 8, 2}, 50 + static_cast<std::uint64_t>(step));
    Tensor y = test::labels(batch_, 4, 70 + static_cast<std::uint64_t>(step));
    Begun begun;
    std::vector<void*> outputs;
    for (const auto& [name, spec] : program_->outputs()) {
      begun.results.emplace_back(spec);
      outputs.push_back(begun.results.back().mutable_raw());
    }
    const void* const inputs[] = {x.raw(), y.raw()};
    begun.run = program_->begin(inputs, outputs, late);
    std::memset(x.mutable_raw(), 0xFF, x.bytes());
    std::memset(y.mutable_raw(), 0xFF, y.bytes());
    return begun;
  }
  void forget_program() { program_.reset(); }
  const Program& program() const { return *program_; }

  Variables variables;

 private:
  Graph graph_;
  std::int64_t batch_;
  std::unique_ptr<Program> program_;
};

std::vector<double> losses_one_by_one(Stream& stream, int steps) {
  std::vector<double> losses;
  for (int step = 0; step < steps; ++step) {
    Stream::Begun begun = stream.begin(step);
    begun.run.wait();
    losses.push_back(begun.loss());
  }
  return losses;
}

std::vector<std::string> devices() {
  return {Device::cuda(0), Device::cuda(testing::other_device())};
}

// Images of so many are more than what is copied without a lane of its own.
constexpr std::int64_t kLargeBatch = 130;

void check_runs_begun_ahead(std::int64_t batch, std::initializer_list<std::size_t> aheads) {
  Stream expected("cuda", batch);
  const std::vector<double> losses = losses_one_by_one(expected, 9);
  for (const std::string& device : devices()) {
    for (const std::size_t ahead : aheads) {
      CAPTURE(device);
      CAPTURE(ahead);
      Stream stream(device, batch);
      std::deque<Stream::Begun> begun;
      std::vector<double> actual;
      const auto collect = [&] {
        begun.front().run.wait();
        actual.push_back(begun.front().loss());
        begun.pop_front();
      };
      for (int step = 0; step < 9; ++step) {
        begun.push_back(stream.begin(step));
        if (begun.size() > ahead) collect();
      }
      while (!begun.empty()) collect();
      CHECK(actual == losses);
      CHECK(test::same_bits(stream.variables, expected.variables));
    }
  }
}

TEST_CASE("cuda overlap: runs begun ahead have the bits of runs one by one") {
  check_runs_begun_ahead(16, {1, 2, 3, 5});
}

TEST_CASE("cuda overlap: runs begun ahead with large inputs have the bits of runs one by one") {
  check_runs_begun_ahead(kLargeBatch, {3});
}

TEST_CASE("cuda overlap: large inputs go to the device on a lane of their own, small ones do not") {
  if (!testing::is_emulated()) return;
  for (const std::int64_t batch : {std::int64_t{16}, kLargeBatch}) {
    CAPTURE(batch);
    Stream stream("cuda", batch);
    (void)losses_one_by_one(stream, 2);  // the second one is recorded, with what follows in it
    const Calls calls;
    (void)losses_one_by_one(stream, 3);
    CHECK(calls.count("copy_in") == 3);
    CHECK(calls.count("follow") == (batch == kLargeBatch ? 3 : 0));
  }
}

TEST_CASE("cuda overlap: what runs under way take is planned, and never exceeded") {
  Stream stream("cuda");
  const MemoryReport planned =
      plan_memory(test::small_net(16, true, 0.25), options_for("cuda")).memory;
  const MemoryReport report = stream.program().memory();
  CHECK(report.transfer_bytes == planned.transfer_bytes);
  CHECK(report.staging_bytes == planned.staging_bytes);
  // The arrays themselves, once for the run that is computed and once for each under way.
  CHECK(report.transfer_bytes >= 4 * (16 * 8 * 8 * 2 * sizeof(float) + 16 * sizeof(std::int64_t)));
  CHECK(stream.program().explain().find(", inputs and outputs up to ") != std::string::npos);
  if (!testing::is_emulated()) return;
  const testing::Calls calls;
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 6; ++step) begun.push_back(stream.begin(step));
  begun.back().run.wait();
  // Two slots, for the first was there before, then rows for results that are wanted late.
  const std::size_t slots = calls.bytes("allocate_host");
  CHECK(slots > report.staging_bytes / 3);
  stream.begin(6, true).run.wait();
  CHECK(calls.bytes("allocate_host") + slots / 2 == report.staging_bytes);
}

TEST_CASE("cuda overlap: results may be asked for in any order, twice, or never") {
  Stream expected("cuda"), stream("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, 8);
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 8; ++step) begun.push_back(stream.begin(step));
  begun[3].run = {};
  for (const std::size_t step : {7, 0, 5, 5, 2}) {
    begun[step].run.wait();
    CHECK(begun[step].loss() == losses[step]);
  }
  CHECK(test::same_bits(stream.variables, expected.variables));
}

TEST_CASE("cuda overlap: a run outlives the program's handle") {
  Stream expected("cuda"), stream("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, 2);
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 2; ++step) begun.push_back(stream.begin(step));
  stream.forget_program();
  begun[0].run = {};
  begun[1].run.wait();
  CHECK(begun[1].loss() == losses[1]);
  begun.clear();
  CHECK(test::same_bits(stream.variables, expected.variables));
}

TEST_CASE("cuda overlap: variables are read and written between runs that are under way") {
  const auto train = [](Stream& stream, bool at_once) {
    std::vector<Stream::Begun> begun;
    double read = 0.0;
    for (int step = 0; step < 7; ++step) {
      if (step > 1)
        *stream.variables.at("train.learning_rate").mutable_data<float>() =
            0.01f / static_cast<float>(step);
      if (step == 3) stream.variables.at("fc.weight").mutable_data<float>()[1] += 0.5f;
      if (step == 5) read = *stream.variables.at("conv1.weight").data<float>();
      begun.push_back(stream.begin(step));
      if (at_once) begun.back().run.wait();
    }
    for (Stream::Begun& each : begun) each.run.wait();
    std::vector<double> losses = {read};
    for (const Stream::Begun& each : begun) losses.push_back(each.loss());
    return losses;
  };
  Stream expected("cuda");
  const std::vector<double> losses = train(expected, true);
  for (const std::string& device : devices()) {
    Stream stream(device);
    CHECK(train(stream, false) == losses);
    CHECK(test::same_bits(stream.variables, expected.variables));
  }
}

TEST_CASE("cuda overlap: a kept pointer shows a run once it was waited for") {
  Stream expected("cuda"), stream("cuda");
  const HostView view(stream.variables.at("fc.weight"));
  Stream::Begun begun = stream.begin(0);
  begun.run.wait();
  (void)losses_one_by_one(expected, 1);
  const Tensor& weight = expected.variables.at("fc.weight");
  CHECK(std::memcmp(view.raw(), weight.raw(), weight.bytes()) == 0);
}

TEST_CASE("cuda overlap: nothing waits for the device before a third run is under way") {
  if (!testing::is_emulated()) return;
  Stream stream("cuda");
  {
    std::vector<Stream::Begun> begun;  // makes the slots
    for (int step = 0; step < 4; ++step) begun.push_back(stream.begin(step));
    for (Stream::Begun& each : begun) each.run.wait();
  }
  const Calls calls;
  std::deque<Stream::Begun> begun;
  for (int step = 0; step < 3; ++step) begun.push_back(stream.begin(step));
  CHECK(calls.count("wait_for") == 0);
  for (int step = 3; step < 8; ++step) {
    begun.front().run.wait();  // of three runs before
    begun.pop_front();
    begun.push_back(stream.begin(step));
  }
  CHECK(calls.count("wait_for") == 5);
  CHECK(calls.count("wait") == 0);
  CHECK(calls.count("replay") == 8);
  CHECK(calls.count("copy_in") == 8);
  CHECK(calls.count("copy_out") == 8);
  CHECK(calls.count("allocate") == 0);
  CHECK(calls.count("allocate_host") == 0);
}

TEST_CASE("cuda overlap: results that are wanted late are those of runs one by one") {
  constexpr int kSteps = 40;
  Stream expected("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, kSteps);
  for (const std::string& device : devices())
    for (const std::size_t ahead : {0, 1, 3, 12, 15, 16, 17, 40}) {
      CAPTURE(device);
      CAPTURE(ahead);
      Stream stream(device);
      std::deque<Stream::Begun> begun;
      std::vector<double> actual;
      const auto collect = [&] {
        begun.front().run.wait();
        actual.push_back(begun.front().loss());
        begun.pop_front();
      };
      for (int step = 0; step < kSteps; ++step) {
        // One of seven is wanted at once.
        begun.push_back(stream.begin(step, step % 7 != 3));
        while (begun.size() > ahead) collect();
      }
      while (!begun.empty()) collect();
      CHECK(actual == losses);
      CHECK(test::same_bits(stream.variables, expected.variables));
    }
}

TEST_CASE("cuda overlap: results that are wanted late may be asked for in any order or never") {
  Stream expected("cuda"), stream("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, 36);
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 36; ++step) begun.push_back(stream.begin(step, true));
  for (const std::size_t step : {7, 9, 20}) begun[step].run = {};
  for (const std::size_t step : {35, 0, 21, 5, 5, 34, 19}) {
    begun[step].run.wait();
    CHECK(begun[step].loss() == losses[step]);
  }
}

TEST_CASE("cuda overlap: results that are wanted late outlast their rows in any slot") {
  Stream expected("cuda"), stream("cuda");
  constexpr int kSteps = 22;
  const std::vector<double> losses = losses_one_by_one(expected, kSteps);
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 3; ++step) begun.push_back(stream.begin(step, true));
  begun[0].run.wait();
  // All in its slot: the others are asked for nothing meanwhile.
  for (int step = 3; step < kSteps; ++step) {
    begun.push_back(stream.begin(step, true));
    begun.back().run.wait();
  }
  for (const std::size_t step : {2, 1, 0, kSteps - 1}) {
    begun[step].run.wait();
    CHECK(begun[step].loss() == losses[step]);
  }
  CHECK(test::same_bits(stream.variables, expected.variables));
}

TEST_CASE("cuda overlap: results that are wanted late are fetched some at once") {
  if (!testing::is_emulated()) return;
  constexpr std::size_t kAhead = 12;
  Stream stream("cuda");
  std::deque<Stream::Begun> begun;
  int step = 0;
  const auto go_on = [&](int steps) {
    for (const int end = step + steps; step < end; ++step) {
      begun.push_back(stream.begin(step, true));
      if (begun.size() <= kAhead) continue;
      begun.front().run.wait();
      begun.pop_front();
    }
  };
  go_on(20);
  const Calls calls;
  go_on(60);
  CHECK(calls.count("replay") == 60);
  CHECK(calls.count("copy_in") == 60);
  CHECK(calls.count("copy_out") >= 4);
  CHECK(calls.count("copy_out") <= 8);
  // For a slot, which its inputs need, and for what is fetched.
  CHECK(calls.count("wait_for") == 60 + calls.count("copy_out"));
  CHECK(calls.count("wait") == 0);
  CHECK(calls.count("allocate") == 0);
  CHECK(calls.count("allocate_host") == 0);
}

TEST_CASE(
    "cuda overlap: without memory for them, results that are wanted late come with each run") {
  if (!testing::is_emulated()) return;
  Stream expected("cuda"), stream("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, 5);
  std::vector<Stream::Begun> begun;
  {
    const Failing failing("allocate");
    for (int step = 0; step < 5; ++step) begun.push_back(stream.begin(step, true));
  }
  for (std::size_t i = 0; i < 5; ++i) {
    begun[i].run.wait();
    CHECK(begun[i].loss() == losses[i]);
  }
}

TEST_CASE("cuda overlap: a failure is told to all whose results are still wanted") {
  if (!testing::is_emulated()) return;
  Stream stream("cuda");
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 6; ++step) begun.push_back(stream.begin(step, true));
  {
    const Failing failing("copy_out");
    CHECK_THROWS_AS(begun[0].run.wait(), DeviceError);
  }
  for (Stream::Begun& each : begun) CHECK_THROWS_AS(each.run.wait(), DeviceError);
  CHECK_THROWS_AS(stream.begin(6, true), DeviceError);  // the weights are lost
}

TEST_CASE("cuda overlap: without quick memory of the host it is slower and the same") {
  if (!testing::is_emulated()) return;
  Stream expected("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, 4);
  const Failing failing("allocate_host");
  Stream stream("cuda");
  CHECK(losses_one_by_one(stream, 4) == losses);
}

TEST_CASE("cuda overlap: a device without events is told of by compile") {
  if (!testing::is_emulated()) return;
  const Failing failing("make_event");
  CHECK_THROWS_WITH_AS(Stream("cuda"), "program: device 'cuda:0' failed: told to fail",
                       DeviceError);
}

TEST_CASE("cuda overlap: a failure is told to every run that was under way") {
  if (!testing::is_emulated()) return;
  Stream stream("cuda");
  (void)losses_one_by_one(stream, 3);
  std::vector<Stream::Begun> begun;
  for (int step = 0; step < 3; ++step) begun.push_back(stream.begin(step));
  {
    const Failing failing("wait");
    CHECK_THROWS_WITH_AS(begun[0].run.wait(), "program: device 'cuda:0' failed: told to fail",
                         DeviceError);
  }
  for (Stream::Begun& each : begun)
    CHECK_THROWS_WITH_AS(each.run.wait(), "program: device 'cuda:0' failed: told to fail",
                         DeviceError);
  CHECK_THROWS_WITH_AS((void)stream.variables.at("fc.weight").raw(), doctest::Contains("were lost"),
                       DeviceError);
}

TEST_CASE("cuda overlap: a failure that another program meets is told to the runs under way") {
  if (!testing::is_emulated()) return;
  Stream stream("cuda"), other("cuda"), idle("cuda");
  (void)losses_one_by_one(stream, 2);
  (void)losses_one_by_one(idle, 2);
  Stream::Begun begun = stream.begin(2);
  {
    const Failing failing("copy_in");
    CHECK_THROWS_AS(other.begin(0), DeviceError);
  }
  CHECK_THROWS_WITH_AS(begun.run.wait(), "program: device 'cuda:0' failed: told to fail",
                       DeviceError);
  CHECK_THROWS_WITH_AS((void)stream.variables.at("fc.weight").raw(), doctest::Contains("were lost"),
                       DeviceError);
  // What was done before is whole.
  Stream expected("cuda");
  (void)losses_one_by_one(expected, 2);
  CHECK(test::same_bits(idle.variables, expected.variables));
  (void)losses_one_by_one(other, 2);
  CHECK(test::same_bits(other.variables, expected.variables));
}

TEST_CASE("cuda overlap: a wrong label is refused and harms no run under way") {
  Stream expected("cuda"), stream("cuda");
  const std::vector<double> losses = losses_one_by_one(expected, 2);
  Stream::Begun begun = stream.begin(0);
  {
    Tensor x({{16, 8, 8, 2}}), y({{16}, DType::kInt64});
    y.mutable_data<std::int64_t>()[3] = 4;
    const void* const inputs[] = {x.raw(), y.raw()};
    std::vector<Tensor> results;
    std::vector<void*> outputs;
    for (const auto& [name, spec] : stream.program().outputs()) {
      results.emplace_back(spec);
      outputs.push_back(results.back().mutable_raw());
    }
    CHECK_THROWS_AS(stream.program().begin(inputs, outputs), LabelError);
  }
  Stream::Begun second = stream.begin(1);
  begun.run.wait();
  second.run.wait();
  CHECK(std::vector<double>{begun.loss(), second.loss()} == losses);
  CHECK(test::same_bits(stream.variables, expected.variables));
}

TEST_CASE("cuda overlap: on the CPU to begin is to run") {
  Stream stream("cpu");
  CHECK(!stream.program().overlaps());
  Stream::Begun begun = stream.begin(0);
  const double loss = begun.loss();
  CHECK(loss > 0.0);
  begun.run.wait();
  CHECK(begun.loss() == loss);
  CHECK(Stream("cuda").program().overlaps());
}

}  // namespace
}  // namespace pycnn
