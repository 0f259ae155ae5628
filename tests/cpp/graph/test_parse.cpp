#include <doctest/doctest.h>

#include <random>

#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {

const std::string kHeader = "pycnn.graph 1\n";
const std::string kLeaves = kHeader + "input \"x\" = f32(2, 3)\nbuffer \"m\" = f32(2, 3)\n";

void refused(const std::string& text, std::initializer_list<const char*> parts) {
  INFO(text.substr(0, 400));
  check_error<FormatError>([&] { Graph::parse(text); }, parts);
}

// Lines after the header and two leaves, so the first is line 4.
void refused_line(const std::string& lines, std::initializer_list<const char*> parts) {
  refused(kLeaves + lines + "\n", parts);
}

// All ops in one text.
std::string everything() {
  Graph graph;
  Symbol last;
  for (const OpExample& example : op_examples()) {
    std::vector<Symbol> inputs;
    for (const TensorSpec& spec : example.inputs) {
      inputs.push_back(graph.buffer("b" + std::to_string(graph.nodes().size()), spec));
    }
    last = graph.add(example.op, inputs);
    if (!inputs.empty() && graph.spec(last) == graph.spec(inputs[0])) graph.assign(inputs[0], last);
  }
  graph.set_output("last", last);
  return graph.text();
}

}  // namespace

TEST_CASE("a text that is empty, cut off or of another version is refused") {
  refused("", {"line 1, column 1", "empty"});
  refused("pycnn.graph 1", {"line 1, column 14", "cut off"});
  refused("pycnn.graph 2\n", {"line 1", "version 2", "version 1"});
  refused("pycnn.graph 1 \n", {"line 1, column 14"});
  refused("pycnn.graph 01\n", {"line 1, column 13", "'1'"});
  refused("pycnn.graph 99999999999999999999\n", {"out of range"});
  refused("{\"graph\": 1}\n", {"line 1, column 1", "'pycnn.graph'"});
  refused(std::string("PK\x03\x04\0\0", 6) + "\n", {"line 1, column 1", "PK??"});
  refused(kHeader + "\n", {"line 2, column 1", "the end of the line"});
}

TEST_CASE("every prefix of a text is refused or is a smaller graph") {
  const std::string text = everything();
  REQUIRE(Graph::parse(text).text() == text);
  int whole = 0;
  for (std::size_t length = 0; length < text.size(); length += length < 3000 ? 1 : 37) {
    try {
      const Graph graph = Graph::parse(text.substr(0, length));
      CHECK(graph.text() == text.substr(0, length));
      ++whole;
    } catch (const FormatError&) {
    }
  }
  CHECK(whole > 0);
}

TEST_CASE("a text with changed bytes is refused or prints as itself") {
  const std::string text = everything();
  std::mt19937 random(7);
  const std::string bytes = std::string("\0\n\"\\(){}=,:-> 019.ezx\xff", 22);
  int refusals = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string changed = text;
    const int edits = 1 + static_cast<int>(random() % 3);
    for (int edit = 0; edit < edits; ++edit) {
      const std::size_t at = random() % changed.size();
      const char byte = bytes[random() % bytes.size()];
      switch (random() % 4) {
        case 0:
          changed[at] = byte;
          break;
        case 1:
          changed.insert(at, 1, byte);
          break;
        case 2:
          changed.erase(at, 1 + random() % 5);
          break;
        default:
          changed.insert(at, changed.substr(random() % changed.size(), random() % 60));
          break;
      }
    }
    INFO("round ", round);
    try {
      const Graph graph = Graph::parse(changed);
      CHECK(graph.text() == changed);
    } catch (const FormatError&) {
      ++refusals;
    }
  }
  CHECK(refusals > 1000);
}

TEST_CASE("names: duplicate, forward, own and unknown references are refused") {
  refused_line("input \"x\" = f32(1)", {"line 4, column 7", "'x' is taken"});
  refused_line("\"x\" = softmax(\"m\") -> f32(2, 3)", {"line 4, column 1", "taken"});
  refused_line("\"a\" = softmax(\"b\") -> f32(2, 3)\n\"b\" = softmax(\"x\") -> f32(2, 3)",
               {"line 4, column 15", "no earlier node is called 'b'"});
  refused_line("\"a\" = softmax(\"a\") -> f32(2, 3)", {"line 4, column 15", "'a'"});
  refused_line("output \"y\" = \"z\"", {"line 4, column 14", "'z'"});
  refused_line("output \"y\" = \"x\"\noutput \"y\" = \"m\"",
               {"line 5, column 8", "two outputs 'y'"});
  refused_line("assign \"m\" = \"x\"\nassign \"m\" = \"x\"", {"line 5", "assigned twice"});
  refused_line("assign \"x\" = \"m\"", {"line 4", "'x'", "input"});
  refused_line("output \"y\" = \"x\":1", {"no output 1", "it has 1"});
  refused_line("output \"y\" = \"x\":0", {"no output 0", "0 is not written"});
  refused_line("output \"y\" = \"x\":99999999999", {"out of range"});
  refused_line("input \"\" = f32(1)", {"column 7", "empty"});
  refused_line("input \"a\\u0041\" = f32(1)", {"backslash"});
  refused_line("input \"abc = f32(1)", {"closing quote"});
  refused_line("input \"\xff\" = f32(1)", {"UTF-8", "'?'"});
}

TEST_CASE("order: nodes, outputs, assignments") {
  refused_line("output \"y\" = \"x\"\ninput \"z\" = f32(1)", {"line 5", "after the outputs"});
  refused_line("assign \"m\" = \"x\"\noutput \"y\" = \"x\"", {"line 5", "after the assignments"});
}

TEST_CASE("ops: unknown ones, wrong fields and wrong results are refused") {
  refused_line("\"a\" = conv3d(\"x\") -> f32(1)", {"line 4, column 7", "'conv3d'", "'conv2d'"});
  refused_line("\"a\" = softmax(\"x\") -> f32(3, 2)",
               {"line 4, column 23", "f32(2, 3)", "gives f32(3, 2)"});
  refused_line("\"a\" = softmax(\"x\") -> f64(2, 3)", {"f32(2, 3)", "f64(2, 3)"});
  refused_line("\"a\" = softmax(\"x\") -> f32(2, 3), f32(2, 3)", {"1 outputs", "gives 2"});
  refused_line("\"a\" = softmax(\"x\")", {"expected ' -> '", "the end of the line"});
  refused_line("\"a\" = softmax(\"x\") {} -> f32(2, 3)", {"expected ' -> '"});
  refused_line("\"a\" = softmax(\"x\" ) -> f32(2, 3)", {"expected ')'"});
  refused_line("\"a\" = softmax() -> f32(2, 3)", {"takes 1 input", "got 0"});
  refused_line("\"a\" = affine(\"x\") -> f32(2, 3)", {"expected ' {'"});
  refused_line("\"a\" = affine(\"x\") {offset=1, scale=2} -> f32(2, 3)", {"expected 'scale='"});
  refused_line("\"a\" = affine(\"x\") {scale=2, offset=1, more=3} -> f32(2, 3)", {"expected '}'"});
  refused_line("\"a\" = affine(\"x\") {scale=two, offset=1} -> f32(2, 3)", {"expected a number"});
  refused_line("\"a\" = affine(\"x\") {scale=nan, offset=1} -> f32(2, 3)", {"scale is nan"});
  refused_line("\"a\" = affine(\"x\") {scale=1e999, offset=1} -> f32(2, 3)", {"out of range"});
  refused_line("\"a\" = activation(\"x\") {kind=gelu, slope=0.01} -> f32(2, 3)",
               {"expected an activation", "'gelu'"});
  refused_line("\"a\" = fill() {shape=(2), dtype=f8, value=0} -> f32(2)", {"expected a dtype"});
  refused_line("\"a\" = dropout(\"x\") {p=1} -> f32(2, 3)", {"dropout 'a'", "p is 1"});
  refused_line("\"a\" = reshape(\"x\") {shape=(7)} -> f32(7)", {"line 4", "6 elements"});
  refused_line("\"a\" = take(\"x\") {indices=(9223372036854775807)} -> f32(1, 3)",
               {"index 9223372036854775807"});
  refused_line("\"a\" = take(\"x\") {indices=(9223372036854775808)} -> f32(1, 3)",
               {"out of range"});
}

TEST_CASE("sizes that no machine has are refused without allocating") {
  refused_line("input \"a\" = f32(9223372036854775807, 9223372036854775807)", {"2^62"});
  refused_line("input \"a\" = f32(-1)", {"negative"});
  refused_line("input \"a\" = f32(1, 1, 1, 1, 1, 1, 1, 1, 1)", {"9 axes"});
  refused_line("\"a\" = fill() {shape=(4611686018427387904, 8), dtype=u8, value=0} -> u8(1)",
               {"2^62"});
  refused_line(
      "\"a\" = pad(\"x\") {before=(4611686018427387904, 0), after=(4611686018427387904, 0), "
      "value=0} -> f32(1)",
      {"overflows"});
  refused_line("\"a\" = broadcast(\"x\") {shape=(4611686018427387904, 2, 3)} -> f32(1)", {"2^62"});
}

TEST_CASE("writing the same graph otherwise is refused") {
  refused_line("input  \"a\" = f32(1)", {"line 4"});
  refused_line("input \"a\" = float32(1)", {"line 4, column 14", "written '32(1)'"});
  refused_line("input \"a\" = f32(1,2)", {"line 4"});
  refused_line("input \"a\" = f32(01)", {"line 4, column 17", "'1)'"});
  refused_line("input \"a\" = f32(1) ", {"line 4, column 19"});
  refused_line("input \"a\" = f32(1)\r", {"line 4, column 19", "'?'"});
  refused_line("\"a\" = affine(\"x\") {scale=1.0, offset=0} -> f32(2, 3)", {"line 4, column 27"});
  refused_line("\"a\" = affine(\"x\") {scale=1, offset=0e5} -> f32(2, 3)", {"line 4"});
  refused_line("parameter \"a\" = f32(1) layout=plain", {"line 4"});
  refused_line("input \"a\" = f32(1) layout=conv", {"line 4, column 19"});
  refused_line("parameter \"a\" = f32(1) layout=conv", {"line 4", "4 axes"});
}

TEST_CASE("long lines, long lists and many parentheses end in an error, soon") {
  refused(kHeader + "input \"" + std::string(1 << 20, 'a') + "\" = f32(1)\n", {"1024 bytes"});
  refused(kHeader + std::string((1 << 24) + 1, '(') + "\n", {"longer than 16777216 bytes"});
  refused(kHeader + "input \"a\" = f32" + std::string(1 << 20, '(') + "\n", {"column 17"});
  std::string list = "1";
  for (int i = 0; i < 100000; ++i) list += ", 1";
  refused(kHeader + "input \"a\" = f32(" + list + ")\n", {"100001 axes"});
}
