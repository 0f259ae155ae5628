#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"

namespace pycnn {
namespace {

constexpr const char* kHead = R"(pycnn.graph 1
input "a" = f32(2, 1)
input "b" = f32(2, 3)
input "c" = f32(2, 2)
)";
std::string pad(const std::string& name, const std::string& of, int before, int after,
                const std::string& value = "0") {
  return "\"" + name + "\" = pad(\"" + of + "\") {before=(0, " + std::to_string(before) +
         "), after=(0, " + std::to_string(after) + "), value=" + value + "} -> f32(2, 6)\n";
}
std::string add(const std::string& name, const std::string& a, const std::string& b) {
  return "\"" + name + "\" = add(\"" + a + "\", \"" + b + "\") -> f32(2, 6)\n";
}
std::string joined(const std::string& body) {
  return drop_unused(concat_pads(Graph::parse(kHead + body)))
      .text()
      .substr(std::string(kHead).size());
}

TEST_CASE("slices that cover a tensor are concatenated in their order") {
  const std::string expected = R"("t" = concat("a", "b", "c") {axis=1} -> f32(2, 6)
output "y" = "t"
)";
  const std::string pads = pad("pb", "b", 1, 2) + pad("pc", "c", 4, 0) + pad("pa", "a", 0, 5);
  CHECK(joined(pads + add("s", "pb", "pc") + add("t", "s", "pa") + "output \"y\" = \"t\"\n") ==
        expected);
  CHECK(joined(pads + add("s", "pb", "pa") + add("t", "pc", "s") + "output \"y\" = \"t\"\n") ==
        expected);
}

TEST_CASE("sums that are no concatenation stay") {
  const std::string end = "output \"y\" = \"t\"\noutput \"u\" = \"c\"\n";
  for (const std::string& body :
       {// A gap: the last two cells.
        pad("pa", "a", 0, 5) + pad("pb", "b", 1, 2) + add("t", "pa", "pb") + end,
        // Both have cell 3.
        pad("pa", "a", 3, 2) + pad("pb", "b", 1, 2) + add("t", "pa", "pb") + end,
        // Not zero outside.
        pad("pa", "a", 0, 5) + pad("pb", "b", 1, 2) + pad("pc", "c", 4, 0, "1") +
            add("s", "pa", "pb") + add("t", "s", "pc") + end,
        // A part of the sum is wanted by itself.
        pad("pa", "a", 0, 5) + pad("pb", "b", 1, 2) + pad("pc", "c", 4, 0) + add("s", "pa", "pb") +
            add("t", "s", "pc") + end + "output \"z\" = \"s\"\n"}) {
    CAPTURE(body);
    CHECK(joined(body) == body);
  }
}

TEST_CASE("a net that cuts its channels trains alike with and without") {
  Graph graph;
  test::Layers net{graph};
  const Symbol x = graph.input("x", {{2, 4, 4, 3}, DType::kFloat32});
  const Symbol h = net.conv(x, "c", 6, 3);
  const auto cut = [&](std::int64_t begin, std::int64_t channels) {
    return graph.add(ops::Slice{{0, 0, 0, begin}, {2, 4, 4, channels}}, {h});
  };
  const Symbol sum = graph.add(ops::Concat{}, {net.conv(cut(2, 4), "d", 2, 3), cut(0, 2)});
  const Symbol logits = net.dense(graph.add(ops::GlobalAvgPool2d{}, {sum}), "fc", 4);
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {logits, y}, "loss"));
  const std::map<std::string, Tensor> inputs = {{"x", test::random_tensor({2, 4, 4, 3}, 4)},
                                                {"y", test::labels(2, 4)}};
  CompileOptions plain = test::training_options();
  plain.fuse = false;
  const test::Compiled with(graph, test::training_options()), without(graph, plain);
  CHECK(with.program.graph_text().find("pad(") == std::string::npos);
  CHECK(without.program.graph_text().find("pad(") != std::string::npos);
  for (int step = 0; step < 3; ++step) with.program.run(inputs), without.program.run(inputs);
  for (const auto& [name, tensor] : with.variables)
    if (tensor.dtype() == DType::kFloat32)
      CHECK(test::difference(tensor, without.variables.at(name)) < 1e-5);
}

}  // namespace
}  // namespace pycnn
