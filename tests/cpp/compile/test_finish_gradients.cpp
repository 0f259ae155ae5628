#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"
#include "core/bfloat16_units.h"

namespace pycnn {
namespace {

bool always(const ops::Conv2dGradInput&, const Problem&) { return true; }
bool never(const ops::Conv2dGradInput&, const Problem&) { return false; }
bool pointwise_alone(const ops::Conv2dGradInput&, const Problem& problem) {
  return problem.inputs[1].shape[1] == 1;
}
bool sums_alone(const ops::Conv2dGradInput& op, const Problem&) { return !op.finish.relu; }

FinishRule rule(bool (*finishes)(const ops::Conv2dGradInput&, const Problem&),
                std::map<std::string, std::string> pins = {}) {
  static std::map<void*, Backend> backends;
  Backend& backend = backends[reinterpret_cast<void*>(finishes)];
  backend = cpu_backend();
  backend.finishes = finishes;
  return {&backend, std::move(pins)};
}

const std::string kHead = R"(pycnn.graph 1
input "y" = f32(2, 4, 4, 3)
input "g" = f32(2, 4, 4, 5)
input "r" = f32(2, 4, 4, 3)
parameter "v" = f32(5, 3, 3, 3) layout=conv
parameter "w" = f32(5, 1, 1, 3) layout=conv
)";
const std::string kImage = " -> f32(2, 4, 4, 3)\n";

std::string grad(const std::string& name, const std::string& inputs, bool wide = false,
                 const std::string& finish = "") {
  return "\"" + name + "\" = conv2d_grad_input(\"g\", " + (wide ? "\"v\"" : "\"w\"") + inputs +
         ") {stride=(1, 1), padding=" + (wide ? "(1, 1, 1, 1)" : "(0, 0, 0, 0)") +
         ", dilation=(1, 1), groups=1, input_size=(4, 4)" + finish + "}" + kImage;
}
std::string sum(const std::string& name, const std::string& a, const std::string& b) {
  return "\"" + name + "\" = add(\"" + a + "\", \"" + b + "\")" + kImage;
}
std::string slope(const std::string& name, const std::string& of,
                  const std::string& kind = "relu") {
  return "\"" + name + "\" = activation_grad(\"y\", \"" + of + "\") {kind=" + kind +
         ", slope=0.01}" + kImage;
}
std::string output(const std::string& of) { return "output \"dx\" = \"" + of + "\"\n"; }

std::string passed(const std::string& body, const FinishRule& with = rule(always)) {
  const Graph result = finish_gradients(Graph::parse(kHead + body), with);
  CHECK(Graph::parse(result.text()).text() == result.text());
  return result.text().substr(kHead.size());
}

TEST_CASE("a sum and the gradient of a ReLU join the gradient of a convolution's input") {
  const std::string both = grad("c", "") + sum("s", "c", "r") + slope("d", "s") + output("d");
  CHECK(passed(both) == grad("c", R"(, "r", "y")", false, ", finish=(true, true)") + output("c"));
  const std::string turned = grad("c", "") + sum("s", "r", "c") + slope("d", "s") + output("d");
  CHECK(passed(turned) == passed(both));
  CHECK(passed(grad("c", "") + sum("s", "c", "r") + output("s")) ==
        grad("c", R"(, "r")", false, ", finish=(true, false)") + output("c"));
  CHECK(passed(grad("c", "") + slope("d", "c") + output("d")) ==
        grad("c", R"(, "y")", false, ", finish=(false, true)") + output("c"));
  CHECK(passed(both, rule(sums_alone)) ==
        grad("c", R"(, "r")", false, ", finish=(true, false)") + slope("d", "c") + output("d"));
  // Twice does no more.
  CHECK(passed(passed(both)) == passed(both));
}

TEST_CASE("of two gradients the later one takes the other, where it can") {
  const std::string two =
      grad("b", "", true) + grad("c", "") + sum("s", "b", "c") + slope("d", "s") + output("d");
  CHECK(passed(two) == grad("b", "", true) +
                           grad("c", R"(, "b", "y")", false, ", finish=(true, true)") +
                           output("c"));
  const std::string turned =
      grad("b", "") + grad("c", "", true) + sum("s", "b", "c") + slope("d", "s") + output("d");
  // Then the one before stands where the ReLU's gradient did.
  CHECK(passed(turned, rule(pointwise_alone)) ==
        grad("c", "", true) + grad("b", R"(, "c", "y")", false, ", finish=(true, true)") +
            output("b"));
  // One residual a convolution: of three, two take one each.
  CHECK(passed(grad("a", "") + grad("b", "", true) + sum("s", "a", "b") + grad("c", "") +
               sum("t", "s", "c") + slope("d", "t") + output("d")) ==
        grad("a", "") + grad("b", R"(, "a")", true, ", finish=(true, false)") +
            grad("c", R"(, "b", "y")", false, ", finish=(true, true)") + output("c"));
  CHECK(passed(grad("a", "") + sum("s", "a", "r") + sum("t", "s", "y") + output("t")) ==
        grad("a", R"(, "r")", false, ", finish=(true, false)") + sum("t", "a", "y") + output("t"));
}

TEST_CASE("a finished gradient stands where the convolution did if what joined is there by then") {
  const std::string between = "\"n\" = activation(\"r\") {kind=relu, slope=0.01}" + kImage;
  const std::string tail = output("d") + "output \"more\" = \"n\"\n";
  const std::string finished = grad("c", R"(, "r", "y")", false, ", finish=(true, true)");
  CHECK(passed(grad("c", "") + between + sum("s", "c", "r") + slope("d", "s") + tail) ==
        finished + between + output("c") + "output \"more\" = \"n\"\n");
  // What joins comes later.
  CHECK(passed(grad("c", "") + between + sum("s", "c", "n") + slope("d", "s") + tail) ==
        between + grad("c", R"(, "n", "y")", false, ", finish=(true, true)") + output("c") +
            "output \"more\" = \"n\"\n");
}

TEST_CASE("what others read, are pinned to or another backend makes stays by itself") {
  const std::string both = grad("c", "") + sum("s", "c", "r") + slope("d", "s") + output("d");
  CHECK(passed(both, rule(never)) == both);
  for (const char* pinned : {"c", "conv2d_grad_input", "*"})
    CHECK(passed(both, rule(always, {{pinned, "reference"}})) == both);
  for (const char* pinned : {"s", "add"})
    CHECK(passed(both, rule(always, {{pinned, "reference"}})) == both);
  for (const char* pinned : {"d", "activation_grad"})
    CHECK(passed(both, rule(always, {{pinned, "reference"}})) ==
          grad("c", R"(, "r")", false, ", finish=(true, false)") + slope("d", "c") + output("d"));
  for (const std::string& body :
       {grad("c", "") + sum("s", "c", "r") + output("s") + "output \"more\" = \"c\"\n",
        grad("c", "") + sum("s", "c", "c") + output("s"),
        grad("c", "") + slope("d", "c", "leaky_relu") + output("d"),
        grad("c", "") + slope("d", "c", "relu6") + output("d"),
        grad("c", "") + slope("d", "r") + sum("s", "c", "d") + output("s") +
            "output \"more\" = \"c\"\n",
        // The ReLU's own result is no gradient.
        grad("c", "") + "\"d\" = activation_grad(\"c\", \"r\") {kind=relu, slope=0.01}" + kImage +
            output("d")}) {
    CAPTURE(body);
    CHECK(passed(body) == body);
  }
  // What the sum's other reader wants is the sum.
  const std::string read = grad("c", "") + sum("s", "c", "r") + slope("d", "s") + output("d");
  CHECK(passed(read + "output \"more\" = \"s\"\n") ==
        grad("c", R"(, "r")", false, ", finish=(true, false)") + slope("d", "c") + output("d") +
            "output \"more\" = \"c\"\n");
  // A row for all pixels is no residual.
  const std::string row = "input \"row\" = f32(3)\n";
  const std::string broadcast = row + grad("c", "") + sum("s", "c", "row") + output("s");
  CHECK(passed(broadcast) == broadcast);
}

// Two residual blocks, the second with a strided shortcut, and a stem without batch norm.
Graph blocks(DType dtype) {
  Graph graph;
  test::Layers net{graph, dtype};
  const Symbol x = graph.input("x", {{3, 9, 9, 3}, dtype});
  Symbol h = net.relu(net.conv(x, "stem", 48, 3), "stem.relu");
  Symbol branch = net.relu(net.norm(net.conv(h, "a1", 32, 1, false, 0), "a1.bn"));
  branch = net.norm(net.conv(branch, "a2", 48, 3, false), "a2.bn");
  h = net.relu(graph.add(ops::Add{}, {branch, h}, "a.add"), "a.relu");
  const auto strided = [&](Symbol from, const std::string& name, std::int64_t kernel,
                           std::int64_t pad) {
    ops::Conv2d op;
    op.stride = {2, 2}, op.padding = {pad, pad, pad, pad};
    const Symbol weight = graph.parameter(name + ".weight", {{64, kernel, kernel, 48}, dtype},
                                          test::uniform(0.05), ParameterLayout::kConvWeight);
    return graph.add(op, {from, weight}, name, "");
  };
  branch = net.relu(net.norm(strided(h, "b1", 3, 1), "b1.bn"));
  branch = net.norm(net.conv(branch, "b2", 64, 1, false, 0), "b2.bn");
  const Symbol shortcut = net.norm(strided(h, "down", 1, 0), "down.bn");
  h = net.relu(graph.add(ops::Add{}, {branch, shortcut}, "b.add"), "b.relu");
  branch = net.norm(net.conv(h, "c1", 64, 1, false, 0), "c1.bn");
  h = net.relu(graph.add(ops::Add{}, {branch, h}, "c.add"), "c.relu");
  h = net.dense(graph.add(ops::GlobalAvgPool2d{}, {h}, "pool"), "fc", 5);
  const Symbol y = graph.input("y", {{3}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {h, y}, "loss"));
  return graph;
}

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
    ++found;
  return found;
}

// Three steps with the passes of their own kept by pins, and without.
void compare_steps(DType dtype, Recompute which, double most) {
  const Graph graph = blocks(DType::kFloat32);
  CompileOptions options = test::training_options();
  options.dtype = dtype;
  options.recompute = which;
  options.threads = 2;
  test::Compiled finished(graph, options);
  for (const char* name : {"add", "activation_grad"}) options.variants[name] = "reference";
  test::Compiled apart(graph, options);
  CHECK(count(apart.program.graph_text(), "finish=(true, true)}") == 0);
  CHECK(count(finished.program.graph_text(), "finish=(true, true)}") == 3);
  CHECK(count(finished.program.graph_text(), "= add(") == 0);
  CHECK(count(finished.program.graph_text(), "= activation_grad(") <
        count(apart.program.graph_text(), "= activation_grad("));
  for (int step = 0; step < 3; ++step) {
    const std::map<std::string, Tensor> data = {
        {"x", test::random_tensor({3, 9, 9, 3}, 50 + static_cast<std::uint64_t>(step))},
        {"y", test::labels(3, 5)}};
    const auto one = finished.program.run(data), two = apart.program.run(data);
    CHECK(test::difference(one.at("loss"), two.at("loss")) <= most);
  }
  for (const auto& [name, value] : finished.variables) {
    CAPTURE(name);
    if (most == 0)
      CHECK(test::same_bits(value, apart.variables.at(name)));
    else if (value.dtype() == DType::kFloat32)
      CHECK(test::difference(value, apart.variables.at(name)) <= most);
  }
}

TEST_CASE("a residual network's steps have the bits of those whose sums are apart") {
  for (const Recompute which : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt})
    compare_steps(DType::kFloat32, which, 0);
}

TEST_CASE("in bfloat16 they differ by a rounding") {
  if (best_isa() < Isa::kAvx512 || !has_avx512_bf16()) return;
  compare_steps(DType::kBFloat16, Recompute::kNone, 0.02);
}

}  // namespace
}  // namespace pycnn
