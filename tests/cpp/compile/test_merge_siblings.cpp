#include <doctest/doctest.h>

#include "compile/inception_net.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

// A backend that wants all siblings, and remembers which it was asked for.
std::vector<Siblings>& asked() {
  static std::vector<Siblings> all;
  return all;
}
const Backend& willing() {
  static const Backend backend{"willing", nullptr, nullptr, [](const Siblings& siblings) {
                                 asked().push_back(siblings);
                                 return true;
                               }};
  return backend;
}

constexpr const char* kHead = R"(pycnn.graph 1
input "x" = f32(2, 3, 3, 4)
parameter "v" = f32(5, 1, 1, 4) layout=conv
parameter "b" = f32(5)
)";
constexpr const char* kConv =
    "{stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, "
    "epilogue=(false, identity, 0.01)} -> f32(2, 3, 3, ";

std::string conv(const std::string& name, const std::string& inputs, int channels) {
  return "\"" + name + "\" = conv2d(" + inputs + ") " + kConv + std::to_string(channels) + ")\n";
}

std::string merged(const std::string& body, const SiblingRule& rule = {&willing()}) {
  return merge_siblings(Graph::parse(kHead + body), rule).text().substr(std::string(kHead).size());
}

TEST_CASE("convolutions of one image become one, with what follows all of them alike") {
  // The second's variables are recorded behind the first.
  const std::string body = conv("a", R"("x", "v", "b")", 5) +
                           R"("ra" = activation("a") {kind=relu, slope=0.01} -> f32(2, 3, 3, 5)
parameter "w" = f32(3, 1, 1, 4) layout=conv
parameter "c" = f32(3)
)" + conv("d", R"("x", "w", "c")", 3) +
                           R"("rd" = activation("d") {kind=relu, slope=0.01} -> f32(2, 3, 3, 3)
output "y" = "ra"
output "z" = "rd"
)";
  CHECK(merged(body) ==
        R"(parameter "w" = f32(3, 1, 1, 4) layout=conv
"a.merged.1" = concat("v", "w") {axis=0} -> f32(8, 1, 1, 4)
parameter "c" = f32(3)
"a.merged.2" = concat("b", "c") {axis=0} -> f32(8)
)" + conv("a.merged", R"("x", "a.merged.1", "a.merged.2")", 8) +
            R"("ra.merged" = activation("a.merged") {kind=relu, slope=0.01} -> f32(2, 3, 3, 8)
"ra.part" = slice("ra.merged") {begin=(0, 0, 0, 0), size=(2, 3, 3, 5)} -> f32(2, 3, 3, 5)
"rd.part" = slice("ra.merged") {begin=(0, 0, 0, 5), size=(2, 3, 3, 3)} -> f32(2, 3, 3, 3)
output "y" = "ra.part"
output "z" = "rd.part"
)");
}

TEST_CASE("batch norms stay by themselves and read their channels") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 3, 3, 4}, DType::kFloat32});
  graph.set_output("y", net.relu(net.norm(net.conv(x, "c1", 5, 1, false, 0), "n1")));
  graph.set_output("z", net.relu(net.norm(net.conv(x, "c2", 3, 1, false, 0), "n2")));
  asked().clear();
  const Graph result =
      merge_siblings(specialize(graph, Mode::kTraining), {&willing(), /*training=*/true});
  REQUIRE(asked().size() == 1);
  CHECK(asked()[0].results[0].channels == 5);
  CHECK(asked()[0].results[1].channels == 3);
  CHECK(asked()[0].weight == Shape{5, 1, 1, 4});
  CHECK(asked()[0].training);
  CHECK(result.spec(result.find("c1.merged")).shape == Shape{2, 3, 3, 8});
  for (const bool second : {false, true}) {
    const Node& norm = result.node(result.find(second ? "n2" : "n1"));
    REQUIRE(std::holds_alternative<ops::BatchNormTrain>(norm.op));
    const Node& part = result.node(norm.inputs[0]);
    REQUIRE(std::holds_alternative<ops::Slice>(part.op));
    CHECK(std::get<ops::Slice>(part.op).begin ==
          std::vector<std::int64_t>{0, 0, 0, second ? 5 : 0});
    CHECK(result.node(part.inputs[0]).name == "c1.merged");
  }
}

TEST_CASE("who reads what siblings give is told") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 3, 3, 4}, DType::kFloat32});
  const auto branch = [&](const char* name) { return net.relu(net.conv(x, name, 8, 1, false, 0)); };
  const Symbol a = branch("a"), b = branch("b"), c = branch("c");
  const Symbol next = net.conv(b, "next", 8, 3), pooled = graph.add(ops::MaxPool2d{}, {b});
  graph.set_output("y", graph.add(ops::Concat{3}, {a, next}));
  graph.set_output("z", pooled);
  graph.set_output("c", c);
  asked().clear();
  (void)merge_siblings(graph, {&willing()});
  REQUIRE(asked().size() == 1);
  const auto& results = asked()[0].results;
  REQUIRE(results.size() == 3);
  // Behind the activations.
  REQUIRE(results[0].readers.size() == 1);
  CHECK(std::string(op_name(*results[0].readers[0])) == "concat");
  REQUIRE(results[1].readers.size() == 2);
  CHECK(std::string(op_name(*results[1].readers[0])) == "conv2d");
  CHECK(std::string(op_name(*results[1].readers[1])) == "max_pool2d");
  CHECK(results[2].readers.empty());
  CHECK_FALSE(results[1].is_kept);
  CHECK(results[2].is_kept);
}

TEST_CASE("what differs, or is wanted by itself, stays") {
  const std::string second = "parameter \"w\" = f32(3, 1, 1, 4) layout=conv\n";
  const std::string outputs = "output \"y\" = \"a\"\noutput \"z\" = \"d\"\n";
  for (
      const std::string& body :
      {// Only one has a bias.
       second + conv("a", R"("x", "v", "b")", 5) + conv("d", R"("x", "w")", 3) + outputs,
       // Another image.
       second + "input \"x2\" = f32(2, 3, 3, 4)\n" + conv("a", R"("x", "v")", 5) +
           conv("d", R"("x2", "w")", 3) + outputs,
       // The weight is computed.
       second + R"("s" = affine("w") {scale=0.5, offset=0} -> f32(3, 1, 1, 4)
)" + conv("a", R"("x", "v")", 5) +
           conv("d", R"("x", "s")", 3) + outputs,
       // Another window.
       R"(parameter "w" = f32(3, 3, 3, 4) layout=conv
)" + conv("a", R"("x", "v")", 5) +
           R"("d" = conv2d("x", "w") {stride=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, epilogue=(false, identity, 0.01)} -> f32(2, 3, 3, 3)
)" + outputs,
       // Activations of one only.
       second + conv("a", R"("x", "v")", 5) + conv("d", R"("x", "w")", 3) +
           R"("r" = activation("d") {kind=relu, slope=0.01} -> f32(2, 3, 3, 3)
output "y" = "a"
output "z" = "r"
)"}) {
    CAPTURE(body);
    CHECK(merged(body, {&willing(), /*training=*/true}) == body);
  }
  const std::string alike =
      second + conv("a", R"("x", "v")", 5) + conv("d", R"("x", "w")", 3) + outputs;
  CHECK(merged(alike) != alike);
  CHECK(merged(alike, {&willing(), false, {{"d", "conv2d.reference"}}}) == alike);
  CHECK(merged(alike, {&cpu_backend(), false}) == alike);
}

TEST_CASE("in inference weights that are computed are joined, wherever they are recorded") {
  const std::string scale = " {scale=0.5, offset=0} -> f32(";
  const std::string body = R"("s" = affine("v"))" + scale + "5, 1, 1, 4)\n" +
                           conv("a", R"("x", "s")", 5) +
                           R"(parameter "w" = f32(3, 1, 1, 4) layout=conv
"t" = affine("w"))" + scale +
                           "3, 1, 1, 4)\n" + conv("d", R"("x", "t")", 3) +
                           "output \"y\" = \"a\"\noutput \"z\" = \"d\"\n";
  CHECK(merged(body, {&willing(), /*training=*/true}) == body);
  const std::string text = merged(body);
  CHECK(text.find(R"("a.merged.1" = concat("s", "t") {axis=0} -> f32(8, 1, 1, 4))") !=
        std::string::npos);
  CHECK(text.find(R"("a.merged" = conv2d("x", "a.merged.1"))") != std::string::npos);
  // Not what images have a part in.
  const std::string computed = R"("i" = affine("v"))" + scale + "5, 1, 1, 4)\n" +
                               R"("s" = affine("i"))" + scale + "5, 1, 1, 4)\n" +
                               conv("a", R"("x", "s")", 5) + conv("d", R"("x", "v")", 5) +
                               "output \"y\" = \"a\"\noutput \"z\" = \"d\"\n";
  CHECK(merged(computed) == computed);
}

// A convolution, an inception block, then a classifier.
Graph inception_net(bool batch_norm) {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{3, 5, 6, 64}, DType::kFloat32});
  test::classify(
      graph,
      test::inception(graph, net.conv(x, "stem", 64, 3), test::odd_inception(batch_norm), ""), 4);
  return graph;
}

TEST_CASE("a training with merged siblings is that without, and has the same bits on any threads") {
  for (const bool batch_norm : {false, true}) {
    CAPTURE(batch_norm);
    const Graph graph = inception_net(batch_norm);
    // For kernels of the CPU, which itself merges none.
    const Graph merged =
        merge_siblings(specialize(graph, Mode::kTraining), {&willing(), /*training=*/true});
    CompileOptions options = test::training_options();
    options.optimizer->momentum = 0.9;
    const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({3, 5, 6, 64}, 4)},
                                                  {"y", test::labels(3, 4)}};
    const test::Compiled apart(graph, options);
    CHECK(apart.program.graph_text().find(".merged") == std::string::npos);
    for (int step = 0; step < 3; ++step) apart.program.run(inputs);
    Variables first;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt})
      for (const int threads : {1, 3}) {
        CAPTURE(threads);
        options.recompute = recompute;
        options.threads = threads;
        const test::Compiled joined(merged, options);
        const std::string text = joined.program.graph_text();
        CHECK(text.find("branch1.conv.merged\" = conv2d(") != std::string::npos);
        CHECK(text.find("pad(") == std::string::npos);
        for (int step = 0; step < 3; ++step) joined.program.run(inputs);
        CHECK(joined.variables.size() == apart.variables.size());
        for (const auto& [key, tensor] : joined.variables) {
          const std::string& name = key;
          CAPTURE(name);
          if (tensor.dtype() == DType::kFloat32)
            CHECK(test::difference(tensor, apart.variables.at(name)) < 1e-4);
        }
        if (first.empty()) first = joined.variables;
        CHECK(test::same_bits(joined.variables, first));
      }
  }
}

}  // namespace
}  // namespace pycnn
