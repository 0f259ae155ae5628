#include <doctest/doctest.h>

#include "compile/nets.h"
#include "compile/passes.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

using namespace test;

constexpr const char* kHead = R"(pycnn.graph 1
input "x" = f32(2, 4)
parameter "w" = f32(4, 4)
parameter "s" = f32(4)
)";

std::string lowered(const std::string& body) {
  const std::string text = lower_precision(Graph::parse(kHead + body)).text();
  return text.substr(std::string(kHead).size());
}

constexpr const char* kDense =
    "\"fc\" = dense(\"x\", \"w\") {epilogue=(false, identity, 0.01)} -> f32(2, 4)\n";
constexpr const char* kLowDense =
    "\"x.cast\" = cast(\"x\") {dtype=bf16} -> bf16(2, 4)\n"
    "\"fc\" = dense(\"x.cast\", \"w\") {epilogue=(false, identity, 0.01)} -> bf16(2, 4)\n";

TEST_CASE("images are cast once, results back; parameters stay") {
  CHECK(
      lowered(kDense + std::string(R"("act" = activation("fc") {kind=relu, slope=0.01} -> f32(2, 4)
"fc2" = dense("act", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 4)
"again" = dense("x", "w") {epilogue=(false, identity, 0.01)} -> f32(2, 4)
"sum" = add("fc2", "again") -> f32(2, 4)
output "y" = "sum"
)")) == kLowDense + std::string(R"("act" = activation("fc") {kind=relu, slope=0.01} -> bf16(2, 4)
"fc2" = dense("act", "w") {epilogue=(false, identity, 0.01)} -> bf16(2, 4)
"again" = dense("x.cast", "w") {epilogue=(false, identity, 0.01)} -> bf16(2, 4)
"sum" = add("fc2", "again") -> bf16(2, 4)
"sum.cast" = cast("sum") {dtype=f32} -> f32(2, 4)
output "y" = "sum.cast"
)"));
}

TEST_CASE("softmax, and what meets a parameter, is computed in f32") {
  CHECK(lowered(kDense + std::string(R"("scaled" = multiply("fc", "s") -> f32(2, 4)
"soft" = softmax("fc") -> f32(2, 4)
"both" = add("scaled", "soft") -> f32(2, 4)
output "y" = "both"
)")) == kLowDense + std::string(R"("fc.cast" = cast("fc") {dtype=f32} -> f32(2, 4)
"scaled" = multiply("fc.cast", "s") -> f32(2, 4)
"soft" = softmax("fc.cast") -> f32(2, 4)
"both" = add("scaled", "soft") -> f32(2, 4)
output "y" = "both"
)"));
}

TEST_CASE("what comes before the first weight stays f32, a weight made from parameters too") {
  const std::string body = R"("act" = activation("x") {kind=relu, slope=0.01} -> f32(2, 4)
"w2" = add("w", "s") -> f32(4, 4)
"fc" = dense("act", "w2") {epilogue=(false, identity, 0.01)} -> f32(2, 4)
output "y" = "fc"
)";
  CHECK(lowered(body) == R"("act" = activation("x") {kind=relu, slope=0.01} -> f32(2, 4)
"w2" = add("w", "s") -> f32(4, 4)
"act.cast" = cast("act") {dtype=bf16} -> bf16(2, 4)
"fc" = dense("act.cast", "w2") {epilogue=(false, identity, 0.01)} -> bf16(2, 4)
"fc.cast" = cast("fc") {dtype=f32} -> f32(2, 4)
output "y" = "fc.cast"
)");
}

TEST_CASE("a second time changes nothing, also after differentiating") {
  Graph graph = lower_precision(specialize(small_net(4, true), Mode::kTraining));
  CHECK(lower_precision(graph).text() == graph.text());
  const Symbol wrt[] = {graph.find("conv1.weight"), graph.find("bn1.weight"), graph.find("x")};
  Symbol loss;
  for (const auto& [name, symbol] : graph.outputs())
    if (name == "loss") loss = symbol;
  const std::vector<Symbol> gradients = differentiate(graph, loss, wrt);
  for (std::size_t i = 0; i < 3; ++i) CHECK(graph.spec(gradients[i]) == graph.spec(wrt[i]));
  CHECK(lower_precision(graph).text() == graph.text());
}

TEST_CASE("gradients of activations are bf16, those of parameters f32") {
  Graph graph = lower_precision(specialize(small_net(4, true), Mode::kTraining));
  const std::size_t forward = graph.nodes().size();
  const Symbol wrt[] = {graph.find("conv1.weight"), graph.find("fc.bias")};
  Symbol loss;
  for (const auto& [name, symbol] : graph.outputs())
    if (name == "loss") loss = symbol;
  (void)differentiate(graph, loss, wrt);
  int images = 0;
  for (std::size_t i = forward; i < graph.nodes().size(); ++i)
    for (const TensorSpec& spec : graph.nodes()[i].outputs) {
      const bool image = spec.shape.size() == 4 && spec.shape[0] == 4 && spec.shape[1] >= 4;
      if (image) ++images;
      if (image) CHECK(spec.dtype == DType::kBFloat16);
      if (spec.shape == Shape{5}) CHECK(spec.dtype == DType::kFloat32);
    }
  CHECK(images >= 6);
}

TEST_CASE("float64 is left alone") {
  const Graph graph = small_net(2, false, 0.0, DType::kFloat64);
  CHECK(lower_precision(graph).text() == graph.text());
}

CompileOptions emulated(CompileOptions options = {}) {
  options.dtype = DType::kBFloat16;
  options.emulate_bfloat16 = true;
  return options;
}

TEST_CASE("bfloat16 gives the same results within its precision, in half the memory") {
  const Graph graph = small_net(8, false, 0.0);
  const Compiled full(graph, {}), half(graph, emulated());
  const Tensor x = random_tensor({8, 8, 8, 2}, 1);
  const Tensor expected = full.program.run({{"x", x}}).at("logits"),
               found = half.program.run({{"x", x}}).at("logits");
  CHECK(found.dtype() == DType::kFloat32);
  const double error = difference(found, expected);
  CHECK(error > 0.0);
  CHECK(error < 0.03);
  CHECK(half.program.memory().arena_bytes <
        0.75 * static_cast<double>(full.program.memory().arena_bytes));
}

TEST_CASE("training keeps parameters and their state in f32") {
  const Graph graph = small_net(8, true, 0.25);
  CompileOptions options = training_options();
  options.optimizer->momentum = 0.9;
  const Compiled training(graph, emulated(options));
  const auto losses = [&] {
    return training.program.run({{"x", random_tensor({8, 8, 8, 2}, 1)}, {"y", labels(8, 4)}})
        .at("loss")
        .data<float>()[0];
  };
  Variables variables = training.variables;
  const float rate = 0.1f;
  *variables.at("train.learning_rate").mutable_data<float>() = rate;
  const float first = losses();
  float last = first;
  for (int i = 0; i < 30; ++i) last = losses();
  CHECK(last < 0.7f * first);
  for (const auto& [name, tensor] : training.variables)
    CHECK((tensor.dtype() == DType::kFloat32 || tensor.dtype() == DType::kInt64));
}

TEST_CASE("other types are refused") {
  const Graph graph = small_net(2, false);
  CompileOptions options;
  options.dtype = DType::kFloat64;
  CHECK_THROWS_AS(Compiled(graph, options), DTypeError);
  CHECK_THROWS_AS(lower_precision(graph, DType::kFloat32), DTypeError);
}

TEST_CASE("float16 is refused on the CPU, with the alternative, emulated or not") {
  for (const bool emulate : {false, true}) {
    CompileOptions options;
    options.dtype = DType::kFloat16;
    options.emulate_bfloat16 = emulate;
    try {
      const Compiled compiled(small_net(2, false), options);
      FAIL("was compiled");
    } catch (const UnsupportedError& error) {
      const std::string text = error.what();
      CHECK(text.find("float16 is computed on GPUs only") != std::string::npos);
      CHECK(text.find("bfloat16") != std::string::npos);
    }
  }
}

TEST_CASE(
    "a graph that casts to float16 by itself is refused by the CPU's kernels, moves are not") {
  const auto halved = [](const char* op) {
    return Graph::parse(std::string(kHead) + R"("half" = cast("x") {dtype=f16} -> f16(2, 4)
"moved" = reshape("half") {shape=(4, 2)} -> f16(4, 2)
)" + op);
  };
  CHECK_NOTHROW(Compiled(halved(R"("wide" = cast("moved") {dtype=f32} -> f32(4, 2)
output "y" = "wide"
)"),
                         {}));
  CHECK_THROWS_AS(
      Compiled(halved(R"("act" = activation("moved") {kind=relu, slope=0.01} -> f16(4, 2)
"wide" = cast("act") {dtype=f32} -> f32(4, 2)
output "y" = "wide"
)"),
               {}),
      UnsupportedError);
}

TEST_CASE("float16 is lowered as bfloat16 is") {
  for (const bool training : {false, true}) {
    const Graph graph =
        specialize(small_net(4, true), training ? Mode::kTraining : Mode::kInference);
    std::string text = lower_precision(graph, DType::kFloat16).text();
    CHECK(text.find("f16") != std::string::npos);
    std::string expected = lower_precision(graph).text();
    for (std::size_t at; (at = expected.find("bf16")) != std::string::npos;) expected.erase(at, 1);
    CHECK(text == expected);
    const Graph low = lower_precision(graph, DType::kFloat16);
    CHECK(lower_precision(low, DType::kFloat16).text() == low.text());
  }
}

TEST_CASE("an instruction set without the units is refused, with the alternatives") {
  const Graph graph = small_net(2, false);
  CompileOptions options;
  options.dtype = DType::kBFloat16;
  options.isa = "baseline";
  try {
    const Compiled compiled(graph, options);
    FAIL("was compiled");
  } catch (const UnsupportedError& error) {
    const std::string text = error.what();
    CHECK(text.find("AMX or AVX512-BF16") != std::string::npos);
    CHECK(text.find("float32 runs here") != std::string::npos);
    CHECK(text.find("emulate_bfloat16") != std::string::npos);
  }
  options.emulate_bfloat16 = true;
  CHECK_NOTHROW(Compiled(graph, options));
}

}  // namespace
}  // namespace pycnn
