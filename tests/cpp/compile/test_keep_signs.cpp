#include <doctest/doctest.h>

#include "backends/backend.h"
#include "compile/passes.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

// A block's end, and the gradient of a convolution that begins with it.
std::string block(const std::string& channels, const std::string& activation = "relu") {
  const std::string image = "f32(2, 4, 4, " + channels + ")";
  return "pycnn.graph 1\ninput \"x\" = " + image + "\ninput \"r\" = " + image +
         "\ninput \"g\" = " + image + "\nparameter \"c\" = f32(" + channels +
         ")\nparameter \"w\" = f32(" + channels + ", 1, 1, " + channels +
         ")\n\"z\" = batch_norm_apply(\"x\", \"c\", \"c\", \"c\", \"r\") {epilogue=(true, " +
         activation + ", 0.01)} -> " + image + "\n";
}
std::string gradient(const std::string& inputs, const std::string& fields) {
  return "\"d\" = conv2d_grad_input(\"g\", \"w\", " + inputs +
         ") {stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, input_size=(4, 4), " +
         fields + "} -> f32(2, 4, 4, 8)";
}
const std::string kOutput = "\noutput \"y\" = \"d\"\n";

std::string passed(const std::string& text, const std::map<std::string, std::string>& pins = {}) {
  const std::string result = keep_signs(Graph::parse(text), pins).text();
  CHECK(Graph::parse(result).text() == result);
  return result;
}

// A block's end that gives signs.
std::string giving() {
  std::string text = block("8");
  text.replace(text.find("0.01)"), 5, "0.01, signs)");
  return text.substr(0, text.size() - 1) + ", u8(2, 4, 4, 1)\n";
}

TEST_CASE("a batch norm gives the signs of its ReLU to a gradient that goes back through it") {
  CHECK(passed(block("8") + gradient("\"r\", \"z\"", "finish=(true, true)") + kOutput) ==
        giving() + gradient("\"r\", \"z\", \"z\":1", "finish=(true, true, signs)") + kOutput);
  CHECK(passed(block("8") + gradient("\"z\"", "finish=(false, true)") + kOutput) ==
        giving() + gradient("\"z\", \"z\":1", "finish=(false, true, signs)") + kOutput);
  // Behind them comes the batch norm that takes sums.
  const std::string sums = "sums=(relu, 0.01), finish=(true, true";
  const std::string both = ", f32(2, 8)";
  CHECK(passed(block("8") + gradient("\"r\", \"z\", \"x\", \"c\", \"c\", \"c\"", sums + ")") +
               both + kOutput) ==
        giving() +
            gradient("\"r\", \"z\", \"z\":1, \"x\", \"c\", \"c\", \"c\"", sums + ", signs)") +
            both + kOutput);
}

TEST_CASE("no signs of other activations, of what is no batch norm's, or where one is pinned") {
  for (const std::string& text :
       {block("8", "relu6") + gradient("\"r\", \"z\"", "finish=(true, true)") + kOutput,
        block("8") + gradient("\"z\", \"x\"", "finish=(true, true)") + kOutput,
        block("8") + gradient("\"z\"", "finish=(true, false)") + kOutput,
        giving() + gradient("\"z\", \"z\":1", "finish=(false, true, signs)") + kOutput})
    CHECK(passed(text) == text);
  const std::string text = block("8") + gradient("\"z\"", "finish=(false, true)") + kOutput;
  for (const std::string pin : {"z", "d", "batch_norm_apply", "conv2d_grad_input", "*"})
    CHECK(passed(text, {{pin, "some.kernel"}}) == text);
  std::string odd = block("12") + gradient("\"z\"", "finish=(false, true)") + kOutput;
  odd.replace(odd.find("4, 8)"), 5, "4, 12)");
  CHECK(passed(odd) == odd);
}

TEST_CASE("the CPU refuses a graph that keeps signs") {
  const Graph graph =
      Graph::parse(giving() + gradient("\"z\", \"z\":1", "finish=(false, true, signs)") + kOutput);
  for (const char* const name : {"z", "d"}) {
    const Node& node = graph.node(graph.find(name));
    std::vector<TensorSpec> inputs;
    for (const Symbol input : node.inputs) inputs.push_back(graph.spec(input));
    CHECK_THROWS_AS(cpu_backend().select(node.op, {inputs, node.outputs}), UnsupportedError);
  }
}

}  // namespace
}  // namespace pycnn
