#include <doctest/doctest.h>

#include <array>
#include <span>

#include "compile/inception_net.h"
#include "compile/passes.h"
#include "core/bfloat16_units.h"
#include "support/variable.h"

namespace pycnn {
namespace {

bool always(const Op&, const Problem&) { return true; }
bool forward_alone(const Op& op, const Problem&) { return std::holds_alternative<ops::Conv2d>(op); }
bool never(const Op&, const Problem&) { return false; }

MeasureRule rule(bool (*measures)(const Op&, const Problem&),
                 std::map<std::string, std::string> pins = {}) {
  static std::map<void*, Backend> backends;
  Backend& backend = backends[reinterpret_cast<void*>(measures)];
  backend = cpu_backend();
  backend.measures = measures;
  return {&backend, std::move(pins)};
}

const std::string kHead = R"(pycnn.graph 1
input "x" = f32(2, 4, 4, 3)
input "g" = f32(2, 4, 4, 5)
parameter "w" = f32(5, 1, 1, 3) layout=conv
parameter "s" = f32(5)
parameter "t" = f32(3)
)";
const std::string kAttributes =
    " {stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, ";

std::string conv(bool moments) {
  return R"("conv" = conv2d("x", "w"))" + kAttributes + "epilogue=(false, identity, 0.01" +
         (moments ? ", moments)} -> f32(2, 4, 4, 5), f32(3, 5)\n" : ")} -> f32(2, 4, 4, 5)\n");
}
std::string statistics(bool measured) {
  return std::string(R"("st" = batch_norm_statistics("conv", "s", "s", "s", "s")") +
         (measured ? R"(, "conv":1)" : "") +
         R"() {eps=0.5, momentum=0.1} -> f32(5), f32(5), f32(5), f32(5), f32(5), f32(5)
"bn" = batch_norm_apply("conv", "st", "st":4, "st":5) {epilogue=(false, relu, 0.01)} -> f32(2, 4, 4, 5)
output "y" = "bn"
output "z" = "conv"
)";
}

std::string passed(const std::string& body, const MeasureRule& with) {
  return measure_outputs(Graph::parse(kHead + body), with).text().substr(kHead.size());
}

TEST_CASE("a convolution gives the moments that a batch norm takes") {
  const std::string before = conv(false) + statistics(false);
  CHECK(passed(before, rule(always)) == conv(true) + statistics(true));
  CHECK(passed(before, rule(forward_alone)) == conv(true) + statistics(true));
  CHECK(passed(before, rule(never)) == before);
  CHECK(passed(before, {}) == before);  // on the CPU
  for (const char* pinned : {"conv", "conv2d", "*"})
    CHECK(passed(before, rule(always, {{pinned, "reference"}})) == before);
  CHECK(passed(before, rule(always, {{"st", "reference"}})) == conv(true) + statistics(true));
  // Twice does no more.
  CHECK(passed(conv(true) + statistics(true), rule(always)) == conv(true) + statistics(true));
}

std::string slice(const std::string& begin, const std::string& size) {
  return R"("part" = slice("conv") {begin=)" + begin + ", size=" + size + "} -> f32" + size + "\n";
}
std::string part_statistics(int channels, const std::string& moments) {
  const std::string vector = "f32(" + std::to_string(channels) + ")";
  return R"("st" = batch_norm_statistics("part", "r", "r", "r", "r")" + moments +
         ") {eps=0.5, momentum=0.1} -> " + vector + ", " + vector + ", " + vector + ", " + vector +
         ", " + vector + ", " + vector + "\noutput \"mean\" = \"st\"\n";
}

TEST_CASE("a batch norm of some channels takes their moments") {
  const std::string vector = "parameter \"r\" = f32(2)\n",
                    channels = slice("(0, 0, 0, 3)", "(2, 4, 4, 2)");
  CHECK(passed(conv(false) + vector + channels + part_statistics(2, ""), rule(always)) ==
        conv(true) + vector + channels +
            R"("st.moments" = slice("conv":1) {begin=(0, 3), size=(3, 2)} -> f32(3, 2)
)" + part_statistics(2, R"(, "st.moments")"));
  // Not of some pixels, whose moments nobody knows, nor where a kernel is named.
  const std::string all = "parameter \"r\" = f32(5)\n";
  for (const std::string& body :
       {all + slice("(1, 0, 0, 0)", "(1, 4, 4, 5)") + part_statistics(5, ""),
        all + slice("(0, 1, 0, 0)", "(2, 2, 4, 5)") + part_statistics(5, ""),
        vector + slice("(0, 0, 2, 1)", "(2, 4, 2, 2)") + part_statistics(2, "")})
    CHECK(passed(conv(false) + body, rule(always)) == conv(false) + body);
  const std::string named = conv(false) + vector + channels + part_statistics(2, "");
  CHECK(passed(named, rule(always, {{"conv", "reference"}})) == named);
  CHECK(passed(named, rule(never)) == named);
}

TEST_CASE("merged siblings measure for all batch norms behind them, in both directions") {
  Graph graph;
  test::Layers layers{graph};
  const Symbol x = graph.input("x", {{2, 6, 6, 3}, DType::kFloat32});
  const Symbol stem = layers.relu(layers.norm(layers.conv(x, "stem", 4, 3, false), "stem.bn"));
  test::classify(graph, test::inception(graph, stem, test::odd_inception(true), ""), 3);
  static Backend backend = cpu_backend();
  backend.merges = [](const Siblings&) { return true; };
  const Graph merged = merge_siblings(specialize(graph, Mode::kTraining), {&backend, true});
  test::Compiled compiled(merged, test::training_options());
  const std::string text =
      measure_outputs(Graph::parse(compiled.program.graph_text()), rule(always)).text();
  const auto count = [&](const std::string& what) {
    int found = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
      ++found;
    return found;
  };
  // The stem, three merged ones, those behind two of them and that of what is pooled.
  CHECK(count(", moments)") == 5);
  CHECK(count(".moments\" = slice(") == 3);
  CHECK(count(" = batch_norm_statistics(") == 7);
  // Of the convolutions behind two of the merged ones, and of one that adds what else comes back to
  // the stem.
  CHECK(count(", sums=(relu, 0.01)") == 3);
  CHECK(Graph::parse(text).text() == text);
}

const std::string kResults = R"(output "dx" = "d"
output "ds" = "d":1
)";
std::string grad(const std::string& more, const std::string& sums, const std::string& results) {
  return R"("gi" = conv2d_grad_input("g", "w")" + more + ")" + kAttributes + "input_size=(4, 4)" +
         sums + "} -> f32(2, 4, 4, 3)" + results + "\n";
}
std::string norm(bool relu, bool known) {
  return std::string(relu ? R"("d" = batch_norm_apply_grad("x", "t", "t", "t", "t", "t", "gi")"
                          : R"("d" = batch_norm_train_grad("x", "t", "t", "t", "gi")") +
         (known ? R"(, "gi":1))" : ")") + (relu ? " {activation=relu, slope=0.01}" : "") +
         " -> f32(2, 4, 4, 3), f32(3), f32(3)\n";
}

TEST_CASE("the gradient of a convolution's input gives the sums of the batch norm before it") {
  const std::string relu = grad("", "", "") + norm(true, false) + kResults;
  CHECK(passed(relu, rule(always)) ==
        grad(R"(, "x", "t", "t", "t")", ", sums=(relu, 0.01)", ", f32(2, 3)") + norm(true, true) +
            kResults);
  CHECK(passed(relu, rule(forward_alone)) == relu);
  CHECK(passed(relu, rule(always, {{"gi", "reference"}})) == relu);

  const std::string plain = grad("", "", "") + norm(false, false) + kResults;
  CHECK(passed(plain, rule(always)) ==
        grad(R"(, "x", "t", "t", "t")", ", sums=(identity, 0.01)", ", f32(2, 3)") +
            norm(false, true) + kResults);
  // Of a sum of gradients nobody knows the sums; the rest of them is wanted as it is.
  const std::string read = plain + "output \"more\" = \"gi\"\n";
  CHECK(passed(read, rule(always)) == read);
}

TEST_CASE("a gradient that is finished gives the sums to one of its readers") {
  const std::string finish = ", finish=(true, true)", more = R"(, "x", "x")";
  const std::string sums = ", sums=(identity, 0.01)";
  const std::string results = kResults + "output \"more\" = \"gi\"\n";
  // Of two batch norms of one gradient the first has the sums.
  const std::string second =
      R"("e" = batch_norm_train_grad("x", "t", "t", "t", "gi") -> f32(2, 4, 4, 3), f32(3), f32(3)
)";
  for (const std::string& behind : {std::string(), second}) {
    const std::string body = grad(more, finish, "") + norm(false, false) + behind + results;
    CHECK(passed(body, rule(always)) ==
          grad(more + R"(, "x", "t", "t", "t")", sums + finish, ", f32(2, 3)") + norm(false, true) +
              behind + results);
    CHECK(passed(body, rule(never)) == body);
  }
}

// 64 channels and more of float32, and of bfloat16 where it is multiplied as such.
TEST_CASE("the CPU measures by dtype and channels, and what one kernel can") {
  const bool in_pairs = has_avx512_bf16() && best_isa() == Isa::kAvx512;
  const auto specs = [](DType dtype, std::int64_t channels, std::int64_t stride) {
    const std::int64_t out = 32 / stride;
    return std::array{TensorSpec{{2, 32, 32, channels}, dtype},
                      TensorSpec{{128, 1, 1, channels}, DType::kFloat32},
                      TensorSpec{{2, out, out, 128}, dtype}};
  };
  const auto forward = [&](DType dtype, std::int64_t channels, std::int64_t outputs) {
    auto all = specs(dtype, channels, 1);
    all[1].shape[0] = all[2].shape[3] = outputs;
    return cpu_backend().measures(
        ops::Conv2d{}, {std::span(all).first(2), std::span(all).last(1), best_isa(), 1, {}});
  };
  CHECK(forward(DType::kFloat32, 16, 64));
  CHECK_FALSE(forward(DType::kFloat32, 64, 63));
  CHECK_FALSE(forward(DType::kFloat64, 64, 64));
  CHECK(forward(DType::kBFloat16, 64, 64) == in_pairs);
  const auto backward = [&](DType dtype, std::int64_t channels, std::int64_t stride) {
    const auto all = specs(dtype, channels, stride);
    const std::array inputs = {all[2], all[1]};
    ops::Conv2dGradInput op;
    op.stride = {stride, stride}, op.input_size = {32, 32};
    return cpu_backend().measures(op, {inputs, std::span(all).first(1), best_isa(), 1, {}});
  };
  CHECK(backward(DType::kFloat32, 128, 1));
  CHECK_FALSE(backward(DType::kFloat32, 32, 1));
  CHECK(backward(DType::kBFloat16, 128, 1) == in_pairs);
  CHECK_FALSE(backward(DType::kFloat64, 128, 1));
  // Strassen's kernels, where there are some, would leave pixels out.
  const bool narrow = best_isa() < Isa::kAvx512;
  {
    const testing::Variable plain("PYCNN_STRASSEN", "0");
    CHECK(backward(DType::kFloat32, 128, 2));
  }
  const testing::Variable strassen("PYCNN_STRASSEN", "1");
  CHECK(backward(DType::kFloat32, 128, 2) == narrow);
}

TEST_CASE("a training step of two convolutions in a row takes all of them from these") {
  Graph graph;
  test::Layers layers{graph};
  const Symbol x = graph.input("x", {{2, 6, 6, 3}, DType::kFloat32});
  const Symbol y = graph.input("y", {{2}, DType::kInt64});
  Symbol h = x;
  for (const char* name : {"a", "b"}) {
    h = layers.norm(layers.conv(h, std::string(name) + ".conv", 4, 3, false),
                    std::string(name) + ".bn");
    h = graph.add(ops::Activation{ActivationKind::kRelu}, {h}, std::string(name) + ".relu", "");
  }
  const Symbol pooled = graph.add(ops::GlobalAvgPool2d{}, {h}, "pool", "");
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {pooled, y}, "loss", ""));
  const auto count = [](const std::string& text, const std::string& what) {
    int found = 0;
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
      ++found;
    return found;
  };
  for (const Recompute which : {Recompute::kNone, Recompute::kCheap, Recompute::kSqrt}) {
    CompileOptions options = test::training_options();
    options.recompute = which;
    test::Compiled compiled(graph, options);
    const Graph planned = Graph::parse(compiled.program.graph_text());
    const std::string text = measure_outputs(planned, rule(always)).text();
    CHECK(count(text, ", moments)") == 2);
    CHECK(count(text, ", sums=(relu, 0.01)") == 1);  // of b's convolution, for a's batch norm
    CHECK(Graph::parse(text).text() == text);
  }
}

}  // namespace
}  // namespace pycnn
