// Whole programs on the emulated device (support/emulated_device.cpp) beside the CPU's: places in
// memory, copies, prepared weights, recorded runs, and variables that both share.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "backends/cuda/training.h"
#include "compile/inception_net.h"
#include "compile/random_net.h"
#include "pycnn/error.h"
#include "pycnn/program.h"
#include "support/temporary_directory.h"
#include "support/variable.h"

namespace pycnn {
namespace {

using testing::Failing;
using testing::in_child;
using testing::inputs_of;
using testing::options_for;
using testing::Results;
using testing::train;
using testing::Training;
using testing::Variable;

void check_alike(const Training& actual, const Training& expected, double loss_error,
                 double variable_error) {
  for (std::size_t i = 0; i < expected.losses.size(); ++i) {
    CAPTURE(i);
    CHECK(actual.losses[i] == doctest::Approx(expected.losses[i]).epsilon(loss_error));
  }
  for (const auto& [name, tensor] : expected.variables) {
    CAPTURE(name);
    if (is_floating(tensor.dtype()))
      CHECK(test::difference(actual.variables.at(name), tensor) < variable_error);
    else
      CHECK(test::same_bits(actual.variables.at(name), tensor));
  }
}

TEST_CASE("cuda programs: a training goes as the CPU's does, dropout's masks included") {
  const Training cpu = train(options_for("cpu"), 6);
  const Training gpu = train(options_for("cuda"), 6);
  check_alike(gpu, cpu, 1e-4, 1e-3);
  CHECK(gpu.losses.back() < gpu.losses.front());
}

TEST_CASE("cuda programs: the order of threads and shared memory change no bit") {
  const Training forwards = train(options_for(Device::cuda(0)), 4);
  CHECK(test::same_bits(train(options_for(Device::cuda(testing::other_device())), 4).variables,
                        forwards.variables));
  CompileOptions separate = options_for("cuda");
  separate.reuse_memory = false;
  CHECK(test::same_bits(train(separate, 4).variables, forwards.variables));
}

// Two convolutions in a row, each with a batch norm and a relu, and a classifier.
Graph normed_net() {
  Graph graph;
  test::Layers net{graph};
  const Symbol y = graph.input("y", {{5}, DType::kInt64});
  Symbol h = graph.input("x", {{5, 8, 8, 2}, DType::kFloat32});
  for (const char* name : {"a", "b"}) {
    h = net.norm(net.conv(h, std::string(name) + ".conv", 12, 3, false), std::string(name) + ".bn");
    h = graph.add(ops::Activation{ActivationKind::kRelu}, {h}, std::string(name) + ".relu", "");
  }
  h = graph.add(ops::GlobalAvgPool2d{}, {h}, "pool", "");
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}, "loss"));
  return graph;
}

TEST_CASE("cuda programs: batch norms by what convolutions measured, for 20 steps") {
  const Graph graph = normed_net();
  const test::Compiled cpu(graph, options_for("cpu"));
  CHECK(cpu.program.graph_text().find(", moments)") == std::string::npos);
  std::vector<float> expected;
  for (int step = 0; step < 20; ++step)
    expected.push_back(*cpu.program.run(inputs_of(5)).at("loss").data<float>());
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    CAPTURE(static_cast<int>(dtype));
    CompileOptions options = options_for("cuda");
    options.dtype = dtype;
    CompileOptions passes = options;  // of our own, too, which measure nothing
    passes.variants = {{"conv2d", "reference"}, {"conv2d_grad_input", "reference"}};
    const test::Compiled measured(graph, options), again(graph, options), plain(graph, passes);
    const std::string text = measured.program.graph_text();
    CHECK(text.find(", moments)") != std::string::npos);
    CHECK(text.find(", sums=(relu") != std::string::npos);
    CHECK(plain.program.graph_text().find(", moments)") == std::string::npos);
    // More by no more than moments and sums themselves.
    // Kernels that are named pack their weights in scratch.
    std::size_t packed = 0;
    for (const StepProfile& step : measured.program.steps())
      if (step.op == "pack") packed += static_cast<std::size_t>(step.cost.bytes);
    CHECK(measured.program.memory().arena_bytes <=
          plain.program.memory().arena_bytes + packed + 256);
    for (const float loss : expected) {
      const auto tolerance = dtype == DType::kFloat32 ? 1e-4 : 0.02;
      const float found = *measured.program.run(inputs_of(5)).at("loss").data<float>();
      CHECK(found == doctest::Approx(loss).epsilon(tolerance));
      CHECK(*plain.program.run(inputs_of(5)).at("loss").data<float>() ==
            doctest::Approx(found).epsilon(tolerance));
      again.program.run(inputs_of(5));
    }
    CHECK(test::same_bits(again.variables, measured.variables));
  }
}

// A convolution, an inception block, then a classifier.
Graph inception_net(bool batch_norm, std::int64_t branch) {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = net.conv(graph.input("x", {{4, 6, 6, 2}, DType::kFloat32}), "stem", 32, 3);
  test::classify(graph,
                 test::inception(graph, x,
                                 {.branch1 = branch,
                                  .reduce3 = 8,
                                  .branch3 = 8,
                                  .reduce5 = 8,
                                  .branch5 = 4,
                                  .pool = 4,
                                  .branch5_kernel = 5,
                                  .batch_norm = batch_norm},
                                 ""),
                 4);
  return graph;
}

TEST_CASE("cuda programs: siblings are one convolution under training, as their shapes say") {
  const Results inputs = {{"x", test::random_tensor({4, 6, 6, 2}, 9)}, {"y", test::labels(4, 4)}};
  const auto merged = [](const Program& program) {
    return program.graph_text().find("branch1.conv.merged") != std::string::npos;
  };
  for (const bool batch_norm : {false, true}) {
    CAPTURE(batch_norm);
    const Graph graph = inception_net(batch_norm, 16);
    const test::Compiled cpu(graph, options_for("cpu")), gpu(graph, options_for("cuda"));
    CHECK(!merged(cpu.program));
    CHECK(merged(gpu.program));
    for (int step = 0; step < 3; ++step) {
      const float expected = *cpu.program.run(inputs).at("loss").data<float>();
      CHECK(*gpu.program.run(inputs).at("loss").data<float>() ==
            doctest::Approx(expected).epsilon(1e-4));
    }
    for (const auto& [name, tensor] : cpu.variables) {
      CAPTURE(name);
      if (is_floating(tensor.dtype()))
        CHECK(test::difference(gpu.variables.at(name), tensor) < 1e-3);
    }
    CompileOptions infer;
    infer.device = "cuda";
    CHECK(!merged(test::Compiled(graph, infer).program));
  }
  // Slices would not begin at whole vectors; copies would take more than is spared, but batch norms
  // need none.
  const auto is_merged = [&](bool batch_norm, std::int64_t branch) {
    return merged(test::Compiled(inception_net(batch_norm, branch), options_for("cuda")).program);
  };
  CHECK(!is_merged(true, 12));
  CHECK(!is_merged(false, 128));
  CHECK(is_merged(true, 128));
}

int copies_in(const Program& program) {
  const std::vector<StepProfile> steps = program.steps();
  return static_cast<int>(std::count_if(steps.begin(), steps.end(), [](const StepProfile& step) {
    return step.op == "concat" || step.op == "slice";
  }));
}

TEST_CASE(
    "cuda programs: branches are made where their concat has them, and their gradients read "
    "there") {
  const Results inputs = {{"x", test::random_tensor({4, 6, 6, 2}, 9)}, {"y", test::labels(4, 4)}};
  for (const auto& [batch_norm, branch] :
       {std::pair{false, 12}, {false, 17}, {true, 12}, {true, 17}})
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      CAPTURE(batch_norm);
      CAPTURE(branch);
      CAPTURE(static_cast<int>(dtype));
      const Graph graph = inception_net(batch_norm, branch);
      CompileOptions options = options_for("cuda");
      options.dtype = dtype;
      CompileOptions copying = options;
      copying.reuse_memory = false;
      const test::Compiled apart(graph, copying), joined(graph, options);
      CHECK(copies_in(apart.program) >= 5);
      CHECK(copies_in(joined.program) == 0);
      CHECK(joined.program.memory().arena_bytes < apart.program.memory().arena_bytes);
      const test::Compiled cpu(graph, options_for("cpu"));
      for (int step = 0; step < 3; ++step) {
        const float expected = *cpu.program.run(inputs).at("loss").data<float>();
        CHECK(*apart.program.run(inputs).at("loss").data<float>() ==
              doctest::Approx(expected).epsilon(dtype == DType::kFloat32 ? 1e-4 : 0.02));
        joined.program.run(inputs);
      }
      CHECK(test::same_bits(joined.variables, apart.variables));
      options.mode = Mode::kInference;
      options.optimizer.reset();
      CHECK(copies_in(test::Compiled(graph, options).program) == 0);
    }
}

TEST_CASE("cuda programs: dropout and casts of some channels need no copy of them") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = net.conv(graph.input("x", {{4, 6, 6, 2}, DType::kFloat32}), "stem", 24, 3);
  std::vector<Symbol> parts;
  for (const std::int64_t begin : {0, 8, 16}) {
    const Symbol part = graph.add(ops::Slice{{0, 0, 0, begin}, {4, 6, 6, 8}}, {x});
    parts.push_back(begin == 0 ? graph.add(ops::Cast{DType::kFloat32},
                                           {graph.add(ops::Cast{DType::kBFloat16}, {part})})
                               : graph.add(ops::Dropout{0.5}, {part}));
  }
  test::classify(graph, net.conv(test::concat(graph, parts, -1), "conv", 8, 3), 4);
  const Results inputs = {{"x", test::random_tensor({4, 6, 6, 2}, 9)}, {"y", test::labels(4, 4)}};
  CompileOptions options = options_for("cuda"), copying = options;
  copying.reuse_memory = false;
  const test::Compiled joined(graph, options), apart(graph, copying);
  CHECK(copies_in(joined.program) == 0);
  CHECK(copies_in(apart.program) > 0);
  for (int step = 0; step < 2; ++step)
    CHECK(test::same_bits(joined.program.run(inputs), apart.program.run(inputs)));
  CHECK(test::same_bits(joined.variables, apart.variables));
}

// Images of a batch, joined and cut.
Graph batches_net(std::int64_t size, std::int64_t channels) {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{3, size, size, channels}, DType::kFloat32});
  const Symbol joined =
      test::concat(graph, {net.conv(x, "a", channels, 3), net.conv(x, "b", channels, 3)}, 0);
  const Symbol y = net.conv(test::slice(graph, joined, 0, 1, 3), "c", channels, 3);
  graph.set_output("y", graph.add(ops::GlobalAvgPool2d{}, {y}));
  return graph;
}

TEST_CASE("cuda programs: what a library reads and makes lies as it was told") {
  if (!testing::is_emulated()) return;
  const Variable rewrite("PYCNN_EMULATED_REWRITE", "0");
  CompileOptions options, copying;
  options.device = copying.device = "cuda";
  options.dtype = copying.dtype = DType::kBFloat16;
  copying.reuse_memory = false;
  testing::cuda_module();
  // An image of 320 bytes, and one of 250.
  for (const auto& [size, channels, copies] : {std::tuple{4, 10, 0}, {5, 5, 2}}) {
    CAPTURE(size);
    const Graph graph = batches_net(size, channels);
    const test::Compiled apart(graph, copying), joined(graph, options);
    CHECK(joined.program.explain().find("cudnn+padded") != std::string::npos);
    CHECK(copies_in(apart.program) == 2);
    CHECK(copies_in(joined.program) == copies);
    const Results inputs = {{"x", test::random_tensor({3, size, size, channels}, 9)}};
    CHECK(test::same_bits(joined.program.run(inputs), apart.program.run(inputs)));
  }
}

// The emulated device ends the process where a GPU would not take an address.
TEST_CASE("cuda programs: weights that are a part of something at an odd place") {
  Graph graph;
  const Symbol x = graph.input("x", {{2, 3, 3, 4}, DType::kFloat32});
  const Symbol rows = graph.input("rows", {{3, 4}, DType::kFloat32});
  const Symbol numbers = graph.input("numbers", {{1 + 8 * 4 + 2 + 5 * 4}, DType::kFloat32});
  const auto weights = [&](std::int64_t begin, Shape shape) {
    const Symbol part = graph.add(ops::Slice{{begin}, {element_count(shape)}}, {numbers});
    return graph.add(ops::Reshape{shape}, {part});
  };
  graph.set_output("conv", graph.add(ops::Conv2d{}, {x, weights(1, {8, 1, 1, 4})}));
  graph.set_output("dense", graph.add(ops::Dense{}, {rows, weights(35, {5, 4})}));
  const Results inputs = {{"x", test::random_tensor({2, 3, 3, 4}, 1)},
                          {"rows", test::random_tensor({3, 4}, 2)},
                          {"numbers", test::random_tensor({55}, 3)}};
  testing::cuda_module();
  const auto results = [&](const char* device) {
    CompileOptions options;
    options.device = device;
    return test::Compiled(graph, options).program.run(inputs);
  };
  const Results cpu = results("cpu"), gpu = results("cuda");
  for (const auto& [name, tensor] : cpu) {
    CAPTURE(name);
    CHECK(test::difference(gpu.at(name), tensor) < 1e-5);
  }
}

TEST_CASE("cuda programs: random nets have the bits of their copies") {
  int fewer = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    const bool training = seed % 2 == 1;
    const Graph graph = test::RandomNet(seed, training).graph;
    CompileOptions options = training ? test::training_options() : CompileOptions{};
    options.device = "cuda";
    options.dtype = seed % 3 == 0 ? DType::kBFloat16 : DType::kFloat32;
    testing::cuda_module();
    CompileOptions copying = options;
    copying.reuse_memory = false;
    const test::Compiled apart(graph, copying), joined(graph, options);
    Results inputs;
    for (const auto& [name, spec] : joined.program.inputs())
      inputs[name] = test::random_tensor(spec.shape, stream_of(name), 1.0, spec.dtype);
    for (int step = 0; step < 2; ++step)
      CHECK(test::same_bits(joined.program.run(inputs), apart.program.run(inputs)));
    CHECK(test::same_bits(joined.variables, apart.variables));
    fewer += copies_in(joined.program) < copies_in(apart.program);
  }
  CHECK(fewer > 20);
}

TEST_CASE("cuda programs: Adam, whole batch norms and no fusion train as on the CPU") {
  CompileOptions options = options_for("cuda");
  options.fuse = false;
  options.optimizer->kind = Optimizer::Kind::kAdamW;
  options.optimizer->weight_decay = 0.01;
  CompileOptions on_cpu = options;
  on_cpu.device = "cpu";
  const Training gpu = train(options, 3), cpu = train(on_cpu, 3);
  for (std::size_t i = 0; i < cpu.losses.size(); ++i)
    CHECK(gpu.losses[i] == doctest::Approx(cpu.losses[i]).epsilon(1e-4));
  // Not the biases before a batch norm: their gradients are rounding errors, which Adam makes
  // large.
  for (const char* const name : {"fc.weight", "conv2.weight", "train.step"}) {
    CAPTURE(name);
    const Tensor& expected = cpu.variables.at(name);
    if (is_floating(expected.dtype()))
      CHECK(test::difference(gpu.variables.at(name), expected) < 5e-3);
    else
      CHECK(test::same_bits(gpu.variables.at(name), expected));
  }
}

TEST_CASE("cuda programs: 16 bits train about as float32 does") {
  CompileOptions options = options_for("cuda");
  const Training wide = train(options, 6);
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    options.dtype = dtype;
    const Training narrow = train(options, 6);
    for (std::size_t i = 0; i < wide.losses.size(); ++i)
      CHECK(narrow.losses[i] ==
            doctest::Approx(wide.losses[i]).epsilon(dtype == DType::kFloat16 ? 0.004 : 0.03));
  }
}

TEST_CASE("cuda programs: inference follows what a CPU program trains, and the other way round") {
  const Graph graph = test::small_net(16, true, 0.25);
  Variables variables;
  create_variables(graph, variables, 1);
  const Program on_cpu = compile(graph, variables, options_for("cpu"));
  const Program on_gpu = compile(graph, variables, options_for("cuda"));
  variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
  CompileOptions infer;
  const Program cpu_infer = compile(graph, variables, infer);
  infer.device = "cuda";
  const Program gpu_infer = compile(graph, variables, infer);
  const Results inputs = inputs_of(16);
  for (int step = 0; step < 4; ++step) {
    (step % 2 == 0 ? on_cpu : on_gpu).run(inputs);
    for (const auto& [name, tensor] : cpu_infer.run(inputs)) {
      CAPTURE(name);
      CHECK(test::difference(gpu_infer.run(inputs).at(name), tensor) < 1e-4);
    }
  }
  CHECK(*variables.at("train.step").data<std::int64_t>() == 4);
}

TEST_CASE("cuda programs: a wrong label is refused before anything is written") {
  const Graph graph = test::small_net(16, true, 0.25);
  Variables variables;
  create_variables(graph, variables, 1);
  const Program program = compile(graph, variables, options_for("cuda"));
  Results inputs = inputs_of(16);
  inputs.at("y").mutable_data<std::int64_t>()[3] = 4;
  CHECK_THROWS_AS(program.run(inputs), LabelError);
  CHECK(*variables.at("train.step").data<std::int64_t>() == 0);
}

TEST_CASE("cuda programs: a profile has every step, and profiled runs compute the same") {
  const Graph graph = test::small_net(16, true, 0.25);
  Variables plain, profiled;
  create_variables(graph, plain, 1);
  create_variables(graph, profiled, 1);
  const Program first = compile(graph, plain, options_for("cuda"));
  const Program second = compile(graph, profiled, options_for("cuda"));
  second.start_profile();
  for (int step = 0; step < 2; ++step) {
    first.run(inputs_of(16));
    second.run(inputs_of(16));
  }
  CHECK(first.recording().starts_with("recorded on "));
  CHECK(second.recording().empty());
  const std::vector<StepProfile> profile = second.profile();
  CHECK(profile.size() == second.steps().size());
  for (const StepProfile& step : profile)
    if (step.phase == "run") CHECK(step.runs == 2);
  CHECK(test::same_bits(plain, profiled));
}

TEST_CASE("cuda programs: steps are timed by the device, which is waited for once") {
  if (!testing::is_emulated()) return;
  const Graph graph = test::small_net(16, true, 0.25);
  for (const char* const what : {"", "elapsed", "make_event"}) {
    CAPTURE(what);
    const bool by_host = *what != '\0';
    Variables variables, expected;
    create_variables(graph, variables, 1);
    create_variables(graph, expected, 1);
    const Program program = compile(graph, variables, options_for("cuda"));
    const Program plain = compile(graph, expected, options_for("cuda"));
    program.run(inputs_of(16));
    const Failing failing(what);
    program.start_profile();
    int waits = 0, launches = 0;
    {
      const testing::Calls calls;
      program.run(inputs_of(16));
      waits = calls.count("wait");
      launches = calls.count("launch");
    }
    CHECK(launches > 10);
    CHECK((waits > 10) == by_host);
    double all = 0.0;
    for (int run = 0; run < 2; ++run) program.run(inputs_of(16));
    for (const StepProfile& step : program.profile()) {
      if (step.phase != "run") continue;
      CHECK(step.runs == 3);
      CHECK(step.min_seconds <= step.total_seconds / 3 + 1e-12);
      const double us = 1e6 * step.min_seconds;
      all += us;
      // A microsecond for each launch.
      if (!by_host) CHECK(us == doctest::Approx(std::round(us)).epsilon(1e-9));
    }
    if (!by_host) CHECK(all >= launches);
    for (int run = 0; run < 4; ++run) plain.run(inputs_of(16));
    CHECK(test::same_bits(variables, expected));
  }
}

TEST_CASE("cuda programs: why no library was taken is told, and a kernel can be pinned") {
  if (!testing::is_emulated()) return;
  const Graph graph = test::small_net(16, true, 0.25);
  Variables variables;
  create_variables(graph, variables, 1);
  CompileOptions options = options_for("cuda");
  const std::string text = compile(graph, variables, options).explain();
  CHECK(text.find("conv2d.cudnn") != std::string::npos);
  CHECK(text.find("dense.cublaslt") != std::string::npos);
  CHECK(text.find("the device is emulated") != std::string::npos);
  CHECK(text.starts_with("cuda:0\narena "));
  CHECK(text.find("threads") == std::string::npos);
  options.variants = {{"conv2d", "conv2d.cuda"}, {"dense", "reference"}};
  CHECK(compile(graph, variables, options).explain().find("conv2d.cuda") != std::string::npos);
  for (const std::string library : {"conv2d.cudnn", "conv2d.cublaslt"}) {
    options.variants = {{"conv2d", library}};
    const std::string message = "'" + library + "' cannot be had: the device is emulated";
    CHECK_THROWS_WITH_AS(compile(graph, variables, options), doctest::Contains(message.c_str()),
                         UnsupportedError);
  }
  options.variants = {{"conv2d", "conv2d.reference"}};
  CHECK_THROWS_AS(compile(graph, variables, options), Error);
}

TEST_CASE("cuda programs: a step that failed has assigned nothing and can be repeated") {
  if (!testing::is_emulated()) return;
  const Training expected = train(options_for("cuda"), 4);
  const Graph graph = test::small_net(16, true, 0.25);
  Training actual;
  create_variables(graph, actual.variables, 1);
  const Program program = compile(graph, actual.variables, options_for("cuda"));
  actual.variables["train.learning_rate"].mutable_data<float>()[0] = 0.02f;
  for (int step = 0; step < 4; ++step) {
    // What failed half-way can be repeated where the host has all values, which reading them does.
    for (const char* const what : {"copy_in", "copy_out", "wait"}) {
      if (what != std::string("copy_in"))
        for (const auto& [name, tensor] : actual.variables) (void)tensor.raw();
      {
        const Failing failing(what);
        CHECK_THROWS_WITH_AS(program.run(inputs_of(16)),
                             "program: device 'cuda:0' failed: told to fail", DeviceError);
      }
      CHECK(*actual.variables.at("train.step").data<std::int64_t>() == step);
    }
    actual.losses.push_back(*program.run(inputs_of(16)).at("loss").data<float>());
  }
  CHECK(actual.losses == expected.losses);
  CHECK(test::same_bits(actual.variables, expected.variables));
}

TEST_CASE("cuda programs: a variable whose copy failed is copied again") {
  if (!testing::is_emulated()) return;
  testing::cuda_module();
  const Graph graph = test::small_net(16, true, 0.25);
  Variables variables;
  create_variables(graph, variables, 1);
  CompileOptions options;
  const Results expected = compile(graph, variables, options).run(inputs_of(16));
  options.device = "cuda";
  const Program program = compile(graph, variables, options);
  {
    const Failing failing("copy_in");
    CHECK_THROWS_AS(program.run(inputs_of(16)), DeviceError);
  }
  for (const auto& [name, tensor] : program.run(inputs_of(16)))
    CHECK(test::difference(tensor, expected.at(name)) < 1e-4);
}

TEST_CASE("cuda programs: what cannot be recorded runs by single launches") {
  if (!testing::is_emulated()) return;
  const Training expected = train(options_for("cuda"), 4);
  for (const char* const what : {"recording", "begin_recording"}) {
    CAPTURE(what);
    const Failing failing(what);
    CHECK(test::same_bits(train(options_for("cuda"), 4).variables, expected.variables));
    const Graph graph = test::small_net(16, true, 0.25);
    Variables variables;
    create_variables(graph, variables, 1);
    const Program program = compile(graph, variables, options_for("cuda"));
    program.run(inputs_of(16));
    CHECK(program.recording().empty());
    program.run(inputs_of(16));
    const std::string told = "not recorded, its steps are launched one by one: told to fail";
    CHECK(program.recording() == told);
    CHECK(program.explain().find("\n" + told + "\n") != std::string::npos);
  }
}

// What the ranges of a run are called, each with those around it: "pycnn run/upload".
std::vector<std::string> ranges_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> open, ranges;
  for (std::string line; std::getline(file, line);) {
    if (line == "end") {
      REQUIRE(!open.empty());
      open.pop_back();
      continue;
    }
    open.push_back(open.empty() ? line : open.back() + "/" + line);
    ranges.push_back(open.back());
  }
  CHECK(open.empty());
  return ranges;
}

TEST_CASE("cuda programs: tools see runs and steps by name") {
  if (!testing::is_emulated()) return;
  testing::cuda_module();
  const TemporaryDirectory directory;
  const Graph graph = test::small_net(16, true, 0.25);
  Variables variables;
  create_variables(graph, variables, 1);
  CompileOptions options;
  options.device = "cuda";
  const Program program = compile(graph, variables, options);
  const auto ranges = [&](const char* name) {
    const std::string path = (directory / name).string();
    setenv("PYCNN_EMULATED_RANGES", path.c_str(), 1);
    program.run(inputs_of(16));
    unsetenv("PYCNN_EMULATED_RANGES");
    return ranges_of(path);
  };
  const auto steps = [](const std::vector<std::string>& ranges, const std::string& start) {
    return std::count_if(ranges.begin(), ranges.end(), [&](const std::string& range) {
      return range.starts_with(start) && range.ends_with(".cuda)");
    });
  };
  const std::vector<std::string> first = ranges("first");
  REQUIRE(first.size() > 3);
  CHECK(first[0] == "pycnn run");
  CHECK(first[1] == "pycnn run/upload");
  CHECK(first.back() == "pycnn run/download");
  const auto all = steps(first, "pycnn run/");
  CHECK(all > 3);
  CHECK(steps(ranges("recorded"), "pycnn run/record/") > 3);
  const std::vector<std::string> replayed = {"pycnn run", "pycnn run/upload", "pycnn run/download"};
  CHECK(ranges("replayed") == replayed);
  program.start_profile();  // by single launches
  const std::vector<std::string> profiled = ranges("profiled");
  CHECK(steps(profiled, "pycnn run/") > 3);
  CHECK(steps(profiled, "pycnn run/record/") == 0);
  (void)program.profile();
}

TEST_CASE("cuda programs: a forked child is told that the device is its parent's") {
  if (!testing::is_emulated()) return;
  const Graph graph = test::small_net(16, true, 0.25);
  Variables variables;
  create_variables(graph, variables, 1);
  auto program = std::make_unique<Program>(compile(graph, variables, options_for("cuda")));
  const auto is_told = [](const auto& body) {
    try {
      body();
    } catch (const DeviceError& error) {
      return std::string(error.what()).find("forked") != std::string::npos;
    }
    return false;
  };
  CHECK(in_child([&] {
          const bool run = is_told([&] { program->run(inputs_of(16)); });
          const bool compiled = is_told([&] { compile(graph, variables, options_for("cuda")); });
          program.reset();  // gives nothing back
          return run && compiled ? 7 : 1;
        }) == 7);
  program->run(inputs_of(16));
}

TEST_CASE("cuda programs: too little memory and unknown devices are errors that say so") {
  testing::cuda_module();
  if (!testing::is_emulated()) return;
  Graph graph;
  const Symbol x = graph.input("x", {{1 << 20, 512}});
  graph.set_output("y", graph.add(ops::Activation{}, {x}));
  Variables variables;
  CompileOptions options;
  options.device = "cuda";
  CHECK_THROWS_AS(compile(graph, variables, options), MemoryLimitError);
  options.device = "cuda:2";
  CHECK_THROWS_WITH_AS(compile(graph, variables, options),
                       "compile: device 'cuda:2' cannot be used: there is no GPU 2", DeviceError);
  setenv("PYCNN_CUDA_MODULE", testing::cuda_module_file(), 1);
  CHECK(machine().devices == std::vector<std::string>{"cpu", "cuda:0", "cuda:1"});
  unsetenv("PYCNN_CUDA_MODULE");
  CHECK(variants("conv2d", "cuda") ==
        std::vector<std::string>{"conv2d.cudnn", "conv2d.cublaslt", "conv2d.cuda"});
}

}  // namespace
}  // namespace pycnn
