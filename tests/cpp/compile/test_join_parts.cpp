// Programs without the copies of concat and slice give the bits of programs with them.
#include <doctest/doctest.h>

#include <functional>

#include "compile/inception_net.h"
#include "compile/passes.h"
#include "compile/random_net.h"

namespace pycnn {
namespace {

using test::Compiled;
using test::concat;
using test::Layers;
using test::max_pool;
using test::RandomNet;
using test::slice;

std::map<std::string, Tensor> inputs_of(const Program& program) {
  std::map<std::string, Tensor> inputs;
  for (const auto& [name, spec] : program.inputs())
    inputs[name] = spec.dtype == DType::kInt64
                       ? test::labels(spec.shape[0], 2)
                       : test::random_tensor(spec.shape, stream_of(name), 1.0, spec.dtype);
  return inputs;
}

// Steps that copy: concats (one for each input that is left), slices, and copies to outputs.
int copies(const Program& program) {
  int count = 0;
  for (const StepProfile& step : program.steps())
    count += step.op == "concat" || step.op == "slice" || step.op == "copy";
  return count;
}

// The pin keeps the copies.
CompileOptions copying(CompileOptions options) {
  options.variants = {{"concat", "reference"}, {"slice", "reference"}};
  return options;
}

// Runs both programs twice; variables after training count as results.
void check_same(const Graph& graph, const CompileOptions& options, int expected_copies) {
  const Compiled copied(graph, copying(options));
  const auto inputs = inputs_of(copied.program);
  copied.program.run(inputs);
  const auto expected = copied.program.run(inputs);
  for (const int threads : {1, 2, 3, 7}) {
    CAPTURE(threads);
    CompileOptions joining = options;
    joining.threads = threads;
    const Compiled joined(graph, joining);
    if (expected_copies >= 0) CHECK(copies(joined.program) == expected_copies);
    joined.program.run(inputs);
    CHECK(test::same_bits(joined.program.run(inputs), expected));
    CHECK(test::same_bits(joined.variables, copied.variables));
  }
}

// Two blocks, then a classifier.
Graph inception_net(std::int64_t batch, bool batch_norm) {
  Graph graph;
  Symbol x = graph.input("x", {{batch, 9, 10, 5}, DType::kFloat32});
  for (const char* prefix : {"a.", "b."})
    x = test::inception(graph, x, test::odd_inception(batch_norm), prefix);
  test::classify(graph, x, 2);
  return graph;
}

TEST_CASE("inception blocks need no copy") {
  for (const std::int64_t batch : {1, 3})
    for (const bool batch_norm : {false, true}) {
      CAPTURE(batch);
      CAPTURE(batch_norm);
      const Graph graph = inception_net(batch, batch_norm);
      check_same(graph, {}, 0);
      CompileOptions training = test::training_options();
      training.optimizer->momentum = 0.9;
      // Batch norms of training cannot make parts yet.
      check_same(graph, training, batch_norm ? -1 : 0);
    }
}

TEST_CASE("the pin and separate memory keep the copies") {
  const Graph graph = inception_net(2, false);
  CHECK(copies(Compiled(graph, copying({})).program) == 2);
  CompileOptions separate;
  separate.reuse_memory = false;
  CHECK(copies(Compiled(graph, separate).program) == 2);
}

TEST_CASE("what is joined takes no more memory") {
  const Graph graph = inception_net(8, false);
  for (CompileOptions options : {CompileOptions{}, test::training_options()}) {
    const auto report = [&](const CompileOptions& with) { return plan_memory(graph, with).memory; };
    CHECK(report(options).unshared_bytes < report(copying(options)).unshared_bytes);
    CHECK(report(options).arena_bytes <= report(copying(options)).arena_bytes);
  }
}

// Each builds outputs from x (2, 6, 6, 4) and says how many copies must stay.
struct Case {
  const char* name;
  int copies;
  std::function<void(Graph&, Layers&, Symbol)> build;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"a concat that is an output", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         graph.set_output(
             "y", concat(graph, {net.conv(x, "a", 3, 3), net.relu(net.conv(x, "b", 5, 1, true, 0)),
                                 max_pool(graph, x)}));
       }},
      {"an input of the graph has its own place", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         graph.set_output("y", concat(graph, {x, net.conv(x, "a", 3, 3)}));
       }},
      {"the same value twice", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.conv(x, "a", 3, 3);
         graph.set_output("y", concat(graph, {a, a}));
       }},
      {"a part that is an output too", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.conv(x, "a", 3, 3);
         graph.set_output("a", a);
         graph.set_output("y", concat(graph, {a, net.conv(x, "b", 2, 3)}));
       }},
      {"two outputs of one concat", 1,  // to the second
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol y = concat(graph, {net.conv(x, "a", 3, 3), net.conv(x, "b", 2, 3)});
         graph.set_output("y", y);
         graph.set_output("z", y);
       }},
      {"a part that others read", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.relu(net.conv(x, "a", 18, 3));
         graph.set_output(
             "y", concat(graph, {a, net.conv(a, "b", 17, 3), net.conv(a, "c", 5, 1, true, 0)}));
       }},
      {"a dense block", 1,  // x
       [](Graph& graph, Layers& net, Symbol x) {
         for (const char* name : {"a", "b", "c"})
           x = concat(graph, {x, net.conv(net.relu(x), name, 3, 3)});
         graph.set_output("y", x);
       }},
      {"a residual lies as the output does", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.conv(x, "a", 4, 3);
         const Symbol sum = net.relu(graph.add(ops::Add{}, {net.conv(a, "b", 4, 3), x}));
         graph.set_output("y", concat(graph, {sum, net.conv(sum, "c", 3, 3)}));
       }},
      {"a part in two concats", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.conv(x, "a", 3, 3), b = net.conv(x, "b", 2, 3);
         graph.set_output("y", concat(graph, {a, b}));
         graph.set_output("z", concat(graph, {net.conv(x, "c", 2, 3), a}));
       }},
      {"images of a batch", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         graph.set_output("y", concat(graph, {net.conv(x, "a", 4, 3), max_pool(graph, x)}, 0));
       }},
      {"rows of several images", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         graph.set_output("y", concat(graph, {net.conv(x, "a", 4, 3), max_pool(graph, x)}, 1));
       }},
      {"rows of one image, joined and cut", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol one = max_pool(graph, slice(graph, x, 0, 1, 1));
         const Symbol y = concat(graph, {net.conv(one, "a", 4, 3), net.relu(one)}, 1);
         graph.set_output("y", max_pool(graph, slice(graph, y, 1, 3, 7)));
       }},
      {"joined channels joined by images", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = concat(graph, {net.conv(x, "a", 3, 3), net.conv(x, "b", 2, 3)});
         graph.set_output("y", concat(graph, {a, net.conv(x, "c", 5, 3)}, 0));
       }},
      {"joined images joined by channels", 2,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = concat(graph, {net.conv(x, "a", 3, 3), net.conv(x, "b", 3, 3)}, 0);
         const Symbol b = concat(graph, {x, x}, 0);
         graph.set_output("y", concat(graph, {a, net.conv(b, "c", 5, 3)}));
       }},
      {"a slice for a kernel that reads pixels apart", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         graph.set_output("y", net.conv(slice(graph, max_pool(graph, x), 3, 1, 3), "a", 3, 3));
       }},
      {"a slice of an input", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         graph.set_output("y", net.conv(slice(graph, x, 3, 1, 2), "a", 3, 1, true, 0));
         graph.set_output("z", net.conv(slice(graph, x, 0, 1, 1), "b", 3, 3));
       }},
      {"a slice of a slice", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = slice(graph, net.conv(x, "a", 20, 3), 3, 1, 18);
         graph.set_output("y", net.conv(slice(graph, a, 3, 1, 16), "b", 17, 3));
         graph.set_output("z", net.relu(slice(graph, a, 3, 3, 5)));
       }},
      {"an image of a slice of channels", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = slice(graph, net.conv(x, "a", 20, 3), 3, 1, 18);
         graph.set_output("y", net.conv(slice(graph, a, 0, 1, 1), "b", 17, 3));
         graph.set_output("z", net.relu(a));
       }},
      {"a slice of a concat, and a concat of slices", 1,  // a slice cannot be made apart
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = concat(graph, {net.conv(x, "a", 3, 3), net.conv(x, "b", 4, 3)});
         const Symbol y = concat(graph, {slice(graph, a, 3, 2, 4), net.relu(a, "r")});
         graph.set_output("y", net.relu(y));
       }},
      {"through another shape", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.conv(x, "a", 3, 3);
         const Symbol y = concat(graph, {a, net.conv(x, "b", 2, 3)});
         graph.set_output("y", net.relu(graph.add(ops::Reshape{{2, 36, 5}}, {y})));
         graph.set_output("z", net.relu(graph.add(ops::Reshape{{72, 3}}, {a})));
       }},
      {"through a shape of other pixels", 1,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol a = net.conv(x, "a", 3, 3);
         graph.set_output("y", concat(graph, {a, net.conv(x, "b", 2, 3)}));
         graph.set_output("z", net.relu(graph.add(ops::Reshape{{2, 108}}, {a})));
       }},
      {"dense layers side by side", 0,
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol flat = graph.add(ops::Reshape{{2, -1}}, {x});
         graph.set_output(
             "y", concat(graph, {net.relu(net.dense(flat, "a", 3)), net.dense(flat, "b", 18)}));
       }},
      {"nothing is joined", 1,
       [](Graph& graph, Layers&, Symbol x) {
         graph.set_output("y", concat(graph, {x, x}));
       }},
      {"parts without elements", 1,  // the slice that makes one
       [](Graph& graph, Layers& net, Symbol x) {
         const Symbol none = slice(graph, x, 3, 0, 0);
         graph.set_output("y", concat(graph, {net.conv(x, "a", 3, 3), net.relu(none)}));
       }},
  };
  return all;
}

TEST_CASE("what can be a part becomes one, and all else stays right") {
  for (const Case& c : cases()) {
    CAPTURE(std::string(c.name));
    Graph graph;
    Layers net{graph};
    c.build(graph, net, graph.input("x", {{2, 6, 6, 4}, DType::kFloat32}));
    check_same(graph, {}, c.copies);
  }
}

TEST_CASE("whole numbers are left alone") {
  Graph graph;
  const Symbol x = graph.input("x", {{4, 2}, DType::kFloat32});
  const Symbol y = graph.input("y", {{6}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {x, slice(graph, y, 0, 1, 4)}));
  check_same(graph, {}, 1);
}

TEST_CASE("a small slice does not keep a large value in memory") {
  Graph graph;
  Layers net{graph};
  const Symbol x = graph.input("x", {{1, 32, 32, 16}, DType::kFloat32});
  const Symbol large = net.relu(x);
  const Symbol small = slice(graph, large, 1, 0, 1);
  Symbol y = large;
  for (const char* name : {"a", "b", "c"}) y = max_pool(graph, net.relu(max_pool(graph, y), name));
  graph.set_output("y", graph.add(ops::Add{}, {graph.add(ops::GlobalAvgPool2d{}, {y}),
                                               graph.add(ops::GlobalAvgPool2d{}, {small})}));
  check_same(graph, {}, 1);
}

TEST_CASE("random nets have the bits of their copies") {
  int fewer = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    CAPTURE(seed);
    const bool training = seed % 2 == 1;
    const Graph graph = RandomNet(seed, training).graph;
    CompileOptions options = training ? test::training_options() : CompileOptions{};
    options.threads = 2;
    const Compiled copied(graph, copying(options)), joined(graph, options);
    const auto inputs = inputs_of(copied.program);
    CHECK(test::same_bits(joined.program.run(inputs), copied.program.run(inputs)));
    CHECK(test::same_bits(joined.variables, copied.variables));
    fewer += copies(joined.program) < copies(copied.program);
  }
  CHECK(fewer > 50);
}

// Three convolutions, two of which are joined, then the third to these. The first can have its
// pixels at one distance alone; 0: at any.
Schedule nested_schedule(std::int64_t output_pitch) {
  Graph graph;
  Layers net{graph};
  const Symbol x = graph.input("x", {{2, 6, 6, 8}, DType::kFloat32});
  const auto conv = [&](const char* name) { return net.conv(x, name, 8, 1, false, 0); };
  const Symbol inner = concat(graph, {conv("a"), conv("b")});
  graph.set_output("y", max_pool(graph, concat(graph, {inner, conv("c")})));
  Schedule schedule = select_kernels(graph, split_prepare(graph), {best_isa(), 1, {}});
  for (ScheduleStep& step : schedule.run) {
    if (step.op_name != "conv2d") continue;
    step.kernel.strided_outputs = 1;
    if (step.name == "a") step.kernel.output_pitch = output_pitch;
    step.kernel.apart_variant = "apart";
  }
  join_parts(schedule);
  return schedule;
}

TEST_CASE("a kernel that knows one distance of its pixels writes where they have that") {
  const auto pitch_of = [](const Schedule& schedule, const std::string& name) {
    for (const ScheduleStep& step : schedule.run)
      if (step.name == name) return schedule.value(step.outputs[0]).pixel_pitch;
    return std::int64_t{-1};
  };
  const auto is_named = [](const Schedule& schedule, const std::string& name) {
    for (const ScheduleStep& step : schedule.run)
      if (step.name == name) return std::string(step.kernel.variant) == "apart";
    return false;
  };
  const auto copied = [](const Schedule& schedule) {
    int count = 0;
    for (const ScheduleStep& step : schedule.run) count += step.op_name == "concat" ? 1 : 0;
    return count;
  };
  const Schedule any = nested_schedule(0), one = nested_schedule(16), other = nested_schedule(24);
  CHECK(pitch_of(any, "a") == 24);
  CHECK(copied(any) == 0);
  // What holds it stays by itself and is copied into the outer one, not the third.
  CHECK(pitch_of(one, "a") == 16);
  CHECK(pitch_of(one, "b") == 16);
  CHECK(pitch_of(one, "c") == 24);
  CHECK(copied(one) == 1);
  // It is told of the first concat, so it is never asked for the outer's distance.
  CHECK(pitch_of(other, "a") == 0);
  CHECK(!is_named(other, "a"));
  CHECK(pitch_of(other, "b") == 24);
  CHECK(is_named(other, "b"));  // as what runs there
  CHECK(copied(other) == 1);
}

}  // namespace
}  // namespace pycnn
