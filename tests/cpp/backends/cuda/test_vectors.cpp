// Kernels that go by 16 bytes where shapes allow it: whole vectors, ends, and tensors that begin
// anywhere.
#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// A GPU would be as right without: how a kernel was compiled tells that vectors are taken.
template <class OpType>
void expect_launched(const OpType& op, const Tensors& inputs, const std::string& kernel) {
  if (!is_emulated()) return;
  const std::string text = launched(op, inputs, op.infer(specs_of(inputs)));
  CAPTURE(kernel);
  CHECK(text.find(kernel) != std::string::npos);
}

HostTensor with(HostTensor tensor, std::initializer_list<std::pair<std::size_t, double>> values) {
  for (const auto& [place, value] : values) tensor.set(place, value);
  return tensor;
}

}  // namespace

TEST_CASE("cuda vectors: softmax, losses and ranks") {
  // A thread has one vector or two, of 8 or 4 classes.
  for (const std::int64_t classes : {4, 8, 12, 24, 1028, 1032}) {
    CAPTURE(classes);
    const HostTensor x = random_tensor({3, classes}, 1, -9, 9), g = random_tensor({3, classes}, 2);
    check_anywhere(ops::Softmax{}, {x});
    check_anywhere(ops::LogSoftmax{}, {x});
    check_anywhere(ops::SoftmaxGrad{}, {random_tensor({3, classes}, 3, 0, 1), g});
    check_anywhere(ops::LogSoftmaxGrad{}, {random_tensor({3, classes}, 3, -9, 0), g});
    const HostTensor grad_loss(Shape{}, {0.7});
    for (const HostTensor& target :
         {integers({1, classes - 1, classes / 2}), random_tensor({3, classes}, 4, 0, 1)}) {
      check_anywhere(ops::SoftmaxCrossEntropy{0.1}, {x, target});
      check_anywhere(ops::SoftmaxCrossEntropyGrad{0.1}, {x, target, grad_loss});
    }
    const HostTensor labels = integers({3, classes - 1, classes});
    check(ops::SoftmaxCrossEntropy{}, {x, labels});
    check(ops::SoftmaxCrossEntropyGrad{}, {x, labels, grad_loss});
    for (const std::int64_t k : {std::int64_t{1}, classes / 3, classes / 2})
      check_anywhere(ops::TopKCorrect{k}, {random_integers({3, classes}, 5, 9), labels});
    const auto last = static_cast<std::size_t>(classes - 1);
    for (const HostTensor& special : {with(x, {{2, kNaN}}), with(x, {{1, -kInfinity}}),
                                      with(x, {{last, 80.0}}), with(x, {{last, kInfinity}})}) {
      check(ops::Softmax{}, {special});
      check(ops::LogSoftmax{}, {special});
      check(ops::SoftmaxCrossEntropy{}, {special, integers({3, 0, 1})});
    }
    const std::string width = classes % 8 == 0 ? "8>" : "4>";
    expect_launched(ops::Softmax{}, {x}, "SoftmaxRows<" + width);
    expect_launched(ops::SoftmaxGrad{}, {x, g}, "SoftmaxGradRows<" + width);
    expect_launched(ops::SoftmaxCrossEntropy{}, {x, labels}, "CrossEntropyRows<float, " + width);
    expect_launched(ops::SoftmaxCrossEntropyGrad{}, {x, labels, grad_loss},
                    "CrossEntropyGradRows<float, float, " + width);
    if (classes > 32) expect_launched(ops::TopKCorrect{1}, {x, labels}, "RankRows<float, " + width);
  }
  expect_launched(ops::Softmax{}, {random_tensor({2, 6}, 1)}, "SoftmaxRows<1>");
}

// Which are read as they are, and whose gradient is rounded where it is made.
TEST_CASE("cuda vectors: losses of 16-bit scores have the bits of widened ones") {
  if (!is_emulated()) return;
  for (const std::int64_t classes : {5, 12, 48, 2056})
    for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
      CAPTURE(classes);
      Graph graph;
      test::Layers net{graph};
      const Symbol x = graph.input("x", {{3, 4}}), y = graph.input("y", {{3}, DType::kInt64});
      const Symbol scores = net.dense(x, "fc", classes);
      graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{0.1}, {scores, y}, "loss"));
      CompileOptions options = options_for("cuda");
      options.dtype = dtype;
      const TemporaryDirectory directory;
      const std::string path = directory / "kernels";
      const test::Compiled narrow(graph, options);
      options.variants = {{"softmax_cross_entropy", "reference"},
                          {"softmax_cross_entropy_grad", "reference"}};
      const test::Compiled widened(graph, options);
      const Results data = {{"x", test::random_tensor({3, 4}, 1)},
                            {"y", test::labels(3, static_cast<int>(classes))}};
      for (int step = 0; step < 2; ++step)
        CHECK(test::same_bits(narrow.program.run(data), widened.program.run(data)));
      CHECK(test::same_bits(narrow.variables, widened.variables));
      const Variable variable("PYCNN_EMULATED_KERNELS", path.c_str());
      narrow.program.run(data);
      std::stringstream text;
      text << std::ifstream(path).rdbuf();
      const std::string type = dtype == DType::kBFloat16 ? "pycnn::BFloat16" : "pycnn::Float16";
      const std::string width = classes == 5 ? "1" : classes == 12 ? "4" : "8";
      CHECK(text.str().find("CrossEntropyRows<" + type + ", " + width) != std::string::npos);
      CHECK(text.str().find("CrossEntropyGradRows<" + type + ", " + type + ", " + width) !=
            std::string::npos);
    }
}

// Of one piece and of several, whose last vector is whole or is not.
TEST_CASE("cuda vectors: sums of squares") {
  for (const std::int64_t n : {1, 7, 8, 9, 2047, 4096, 4097, 4104, 8191, 12300}) {
    CAPTURE(n);
    const auto last = static_cast<std::size_t>(n - 1);
    const HostTensor x = with(random_tensor({n}, 1), {{last, 40.0}});
    const HostTensor y = with(random_tensor({n}, 2), {{last, -30.0}, {last / 2, 50.0}});
    check_anywhere(ops::ClipFactor{1.0}, {x});
    check_anywhere(ops::ClipFactor{kInfinity}, {x, random_tensor({3}, 3), y});
    check_anywhere(ops::MeanSquaredError{}, {x, y});
  }
}
