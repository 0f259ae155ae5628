#include <cfenv>

#include "kernel_harness.h"
#include "pycnn/program.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

// Numbers below the smallest normal one: a kernel computes them right or takes them as zero, and
// leaves the modes of the floating-point unit as the caller had them.
namespace pycnn::testing {
namespace {

constexpr double kUnit = 0x1p-140;  // a denormal float, of which whole multiples add exactly

HostTensor denormals(Shape shape, std::uint64_t seed) {
  HostTensor tensor = random_integers(std::move(shape), seed, 9);
  for (std::size_t i = 0; i < tensor.size(); ++i) tensor.set(i, tensor[i] * kUnit);
  return tensor;
}

unsigned modes() {
#if defined(__SSE2__)
  return _mm_getcsr() & 0xFFC0u;  // without the flags that computing sets
#else
  return static_cast<unsigned>(std::fegetround());
#endif
}

// The same op on the same inputs times 2^140 gives the right result times 2^140.
template <class OpType>
void check_denormals(const OpType& op, std::vector<HostTensor> inputs, std::size_t scaled = 1) {
  std::vector<HostTensor> large = inputs;
  for (std::size_t k = 0; k < scaled; ++k)
    for (std::size_t i = 0; i < large[k].size(); ++i) large[k].set(i, inputs[k][i] / kUnit);
  const HostTensor expected = run_kernel(op, large, {"reference"})[0];
  const unsigned before = modes();
  int right = 0;
  check_kernels<OpType>(op, inputs, [&](const std::vector<HostTensor>& results) {
    CHECK(modes() == before);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double value = results[0][i], exact = expected[i] * kUnit;
      CHECK((value == exact || value == 0.0));
      right += value == exact;
    }
  });
  CHECK(right > 0);
}

void check_all() {
  const HostTensor image = denormals({2, 6, 7, 5}, 1);
  check_denormals(ops::Add{}, {image, denormals({2, 6, 7, 5}, 5)}, 2);
  check_denormals(ops::Multiply{}, {image, random_integers({5}, 6, 5)});
  check_denormals(ops::Affine{3.0, 0.0}, {image});
  check_denormals(ops::Activation{ActivationKind::kRelu, 0.0}, {image});
  check_denormals(ops::MaxPool2d{}, {image});
  check_denormals(ops::GlobalMaxPool2d{}, {image});
  check_denormals(ops::Reduce{Reduction::kSum, {0, 1, 2}, false}, {image});
  check_denormals(ops::Concat{-1}, {image, image}, 2);
  check_denormals(ops::Transpose{{0, 3, 1, 2}}, {image});
}

// Layers with weights run as programs, which pack them.
template <class OpType>
void check_layer(const OpType& op, const HostTensor& input, const HostTensor& weight) {
  Graph graph;
  const Symbol x = graph.input("x", input.spec), w = graph.input("w", weight.spec);
  graph.set_output("y", graph.add(op, {x, w}));
  const auto run = [&](const std::string& variant, double scale) {
    std::map<std::string, Tensor> inputs = {{"x", Tensor(input.spec)}, {"w", Tensor(weight.spec)}};
    for (std::size_t i = 0; i < input.size(); ++i)
      inputs["x"].mutable_data<float>()[i] = static_cast<float>(input[i] * scale);
    for (std::size_t i = 0; i < weight.size(); ++i)
      inputs["w"].mutable_data<float>()[i] = static_cast<float>(weight[i]);
    CompileOptions options;
    if (!variant.empty()) options.variants = {{"*", variant}};
    Variables variables;
    return compile(graph, variables, options).run(inputs).at("y");
  };
  const Tensor expected = run("reference", 1 / kUnit);
  const unsigned before = modes();
  const Tensor result = run("", 1);
  CHECK(modes() == before);
  int right = 0;
  for (std::int64_t i = 0; i < expected.size(); ++i) {
    const double value = result.data<float>()[i], exact = expected.data<float>()[i] * kUnit;
    CHECK((value == exact || value == 0.0));
    right += value == exact;
  }
  CHECK(right > 0);
}

TEST_CASE("denormal numbers are computed right or taken as zero") { check_all(); }

TEST_CASE("denormal numbers in convolutions and dense layers") {
  check_layer(ops::Conv2d{{1, 1}, {1, 1, 1, 1}, {1, 1}, 1, {}}, denormals({2, 6, 7, 5}, 1),
              random_integers({17, 3, 3, 5}, 2, 5));
  check_layer(ops::Conv2d{{2, 1}, {1, 0, 0, 1}, {1, 1}, 5, {}}, denormals({2, 6, 7, 5}, 1),
              random_integers({5, 3, 3, 1}, 2, 5));
  check_layer(ops::Dense{}, denormals({3, 33}, 3), random_integers({17, 33}, 4, 5));
}

#if defined(__SSE2__)
TEST_CASE("a caller that flushes denormals to zero keeps doing so, and gets zeros at worst") {
  const unsigned old = _mm_getcsr();
  _mm_setcsr(old | 0x8000u);  // flush to zero; inputs stay
  const HostTensor image = denormals({2, 6, 7, 5}, 1);
  const unsigned before = modes();
  const std::vector<HostTensor> flushed = run_kernel(ops::Affine{0.5, 0.0}, {image});
  const std::vector<HostTensor> threads =
      run_kernel(ops::Affine{0.5, 0.0}, {image}, {.variant = "", .threads = 3});
  const unsigned after = modes();
  _mm_setcsr(old);
  CHECK(after == before);
  CHECK(same_bits(flushed, threads));
  for (std::size_t i = 0; i < flushed[0].size(); ++i) CHECK(flushed[0][i] == 0.0);
}
#endif

}  // namespace
}  // namespace pycnn::testing
