// Kernels that go by 16 bytes where shapes allow it: whole vectors, ends, and tensors that begin
// anywhere.
#include "backends/cuda/check_kernel.h"
#include "backends/cuda/training.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

// The bits of the CPU's results, wherever tensors begin and in both orders of threads and blocks.
template <class OpType>
void check_moved(const OpType& op, const Tensors& inputs) {
  const Tensors expected = run_kernel(op, inputs);
  const std::vector<TensorSpec> outputs = op.infer(specs_of(inputs));
  for (const int device : {0, other_device()})
    for (const int shift : {0, 1, 2, 3}) {
      CAPTURE(shift);
      OnDevice how{device};
      how.shift = shift;
      Kernel kernel;
      CHECK(same_bits(run_on_device(op, inputs, outputs, how, kernel), expected));
    }
}

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
  // A thread has up to three vectors, of 8 or 4 classes.
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

// By tiles where both sides have neighbours enough: whole ones, ends along either axis, and axes
// around and between the two.
TEST_CASE("cuda vectors: transposes") {
  const std::vector<std::pair<Shape, std::vector<std::int64_t>>> cases = {
      {{64, 128}, {1, 0}},
      {{33, 41}, {1, 0}},
      {{131, 257}, {1, 0}},
      {{2, 35, 130}, {0, 2, 1}},
      {{3, 32, 2, 40}, {0, 3, 2, 1}},
      {{2, 40, 3, 33}, {3, 2, 1, 0}},
      {{2, 70, 3, 67}, {0, 3, 2, 1}},
      {{32, 2, 3, 37}, {1, 3, 2, 0}},
      {{2, 7, 9, 36}, {0, 3, 1, 2}},
      {{2, 36, 7, 9}, {0, 2, 3, 1}},
      {{16, 8}, {1, 0}},
      {{7, 40}, {1, 0}},
      {{40, 3}, {1, 0}}};
  for (const auto& [shape, permutation] : cases) {
    CAPTURE(to_string(shape));
    const ops::Transpose op{permutation};
    for (const DType dtype : kImages) check_moved(op, {random_tensor(shape, 1, -2, 2, dtype)});
    check_moved(op, {random_integers(shape, 2, 100, DType::kUInt8)});
    check_moved(op, {random_integers(shape, 3, 1000, DType::kInt64)});
  }
  const auto launches_tiles = [](const Shape& shape, const char* type, DType dtype) {
    expect_launched(ops::Transpose{{1, 0}}, {random_integers(shape, 1, 9, dtype)},
                    std::string("TransposeTiles<") + type + ">");
  };
  // A quarter of a tile, at least.
  launches_tiles({8, 33}, "unsigned int", DType::kFloat32);
  launches_tiles({16, 16}, "unsigned int", DType::kFloat32);
  launches_tiles({100, 16}, "unsigned short", DType::kBFloat16);
  launches_tiles({64, 65}, "unsigned char", DType::kUInt8);
  const auto copies = [](const Shape& shape, const char* kernel, DType dtype) {
    expect_launched(ops::Transpose{{1, 0}}, {random_integers(shape, 1, 9, dtype)}, kernel);
  };
  copies({8, 7}, "CopyBox<unsigned int, 4>", DType::kFloat32);
  copies({6, 9}, "CopyBox<unsigned int, 2>", DType::kFloat32);
  copies({7, 9}, "CopyBox<unsigned int, 1>", DType::kFloat32);
  copies({16, 15}, "CopyBox<unsigned short, 8>", DType::kFloat16);
  copies({16, 15}, "CopyBox<unsigned int, 4>", DType::kFloat32);
  copies({32, 31}, "CopyBox<unsigned short, 8>", DType::kFloat16);
  copies({64, 63}, "CopyBox<unsigned char, 16>", DType::kUInt8);
  copies({64, 64}, "CopyBox<unsigned long, 2>", DType::kInt64);
}

// Rows of vectors, of halves and of neither, that are neighbours of the input or are not; one row
// with a shorter end.
TEST_CASE("cuda vectors: copies and fills") {
  for (const DType dtype : kImages) {
    for (const std::int64_t channels : {5, 6, 12, 16, 24}) {
      CAPTURE(channels);
      const HostTensor x = random_tensor({2, 3, 5, channels}, 1, -2, 2, dtype);
      check_moved(ops::Transpose{{1, 0, 2, 3}}, {x});
      check_moved(ops::Slice{{0, 1, 0, 1}, {2, 2, 3, channels - 1}}, {x});
      check_moved(ops::Slice{{0, 1, 0, 0}, {2, 2, 3, 4}}, {x});
      check_moved(ops::Pad{{1, 0, 1, 3}, {0, 1, 0, 2}, 0.5}, {x});
      check_moved(ops::Concat{-1}, {x, random_tensor({2, 3, 5, 8}, 2, -2, 2, dtype), x});
      check_moved(ops::Broadcast{{2, 4, channels, 8}}, {random_tensor({4, 1, 8}, 3, -2, 2, dtype)});
      check_moved(ops::Broadcast{{3, channels, 8}},
                  {random_tensor({channels, 1}, 4, -2, 2, dtype)});
    }
    for (const std::int64_t n : {1, 7, 8, 2051}) {
      CAPTURE(n);
      check_moved(ops::Reshape{{n, 1}}, {random_tensor({n}, 5, -2, 2, dtype)});
      check_moved(ops::Broadcast{{n}}, {random_tensor({}, 6, -2, 2, dtype)});
      check_moved(ops::Fill{{n}, dtype, -1.5}, {});
    }
    check_moved(ops::Transpose{{1, 0}}, {random_tensor({0, 40}, 5, -2, 2, dtype)});
  }
  check_moved(ops::Fill{{2051}, DType::kUInt8, 7.0}, {});
  const HostTensor row = random_tensor({2051}, 1);
  expect_launched(ops::Reshape{{2051, 1}}, {row}, "CopyBox<unsigned int, 4>");
  // One value for a whole row has no neighbours to be parted.
  expect_launched(ops::Broadcast{{40, 64}}, {random_tensor({40, 1}, 1)},
                  "CopyBox<unsigned int, 4>");
}

// What would be written at a place that no vector begins at goes one by one, so that neighbouring
// threads write neighbours.
TEST_CASE("cuda vectors: copies to anywhere") {
  if (!is_emulated()) return;
  const auto copies = [](const auto& op, const Tensors& inputs, const std::string& kernel,
                         int shift = 0) {
    OnDevice how;
    how.shift = shift;
    std::stringstream text(launched(op, inputs, op.infer(specs_of(inputs)), how));
    CAPTURE(kernel);
    int lines = 0;
    for (std::string line; std::getline(text, line); ++lines)
      CHECK(line.find(kernel) != std::string::npos);
    CHECK(lines > 0);
  };
  const auto joined = [&](std::int64_t first, std::int64_t second, const char* kernel) {
    CAPTURE(first);
    CAPTURE(second);
    copies(ops::Concat{-1},
           {random_tensor({7, first}, 1, -2, 2, DType::kFloat16),
            random_tensor({7, second}, 2, -2, 2, DType::kFloat16)},
           kernel);
  };
  joined(5, 8, "CopyBox<unsigned short, 1>");
  joined(8, 5, "CopyBox<unsigned short, 1>");
  joined(4, 8, "CopyBox<unsigned short, 4>");
  joined(16, 8, "CopyBox<unsigned short, 8>");
  const HostTensor row = random_tensor({2051}, 1), rows = random_tensor({5, 3, 8}, 2);
  const ops::Reshape reshape{{2051, 1}};
  const ops::Transpose transpose{{1, 0, 2}};
  const char* const widths[] = {"CopyBox<unsigned int, 4>", "CopyBox<unsigned int, 1>",
                                "CopyBox<unsigned int, 2>", "CopyBox<unsigned int, 1>"};
  for (int shift = 0; shift < 4; ++shift) {
    CAPTURE(shift);
    copies(reshape, {row}, widths[shift], shift);
    copies(transpose, {rows}, widths[shift], shift);
  }
}

// Terms of one result that are neighbours, or results that are, with pieces of the terms or
// without.
TEST_CASE("cuda vectors: sums and maxima over axes") {
  const auto by = [](const Shape& shape, const std::vector<std::int64_t>& axes,
                     const char* widths) {
    CAPTURE(to_string(shape));
    const HostTensor x = random_tensor(shape, 1, -2, 2);
    for (const Reduction kind : {Reduction::kSum, Reduction::kMean, Reduction::kMax})
      check_anywhere(ops::Reduce{kind, axes}, {x});
    expect_launched(ops::Reduce{Reduction::kSum, axes}, {x},
                    std::string("Reduce<pycnn::cuda::Plus, float, ") + widths + ">");
  };
  by({5, 24, 8}, {2}, "4, 1");
  by({5, 24, 8}, {1, 2}, "4, 1");
  by({5, 24, 8}, {0, 2}, "4, 1");
  by({3, 40, 300}, {0, 2}, "4, 1");
  by({2, 5000}, {1}, "4, 1");
  by({2, 4999}, {1}, "1, 1");
  by({4999}, {0}, "4, 1");
  by({4999, 1, 2}, {0, 2}, "4, 1");
  by({3}, {0}, "4, 1");
  by({5, 24, 8}, {1}, "1, 4");
  by({5, 24, 8}, {0, 1}, "1, 4");
  by({3, 700, 12}, {1}, "1, 4");
  by({900, 20}, {0}, "1, 4");
  by({9, 5, 300}, {0}, "1, 4");
  by({9, 5, 300, 4}, {0, 2}, "1, 4");
  by({900, 21}, {0}, "1, 1");
  by({9, 5, 6}, {1}, "1, 1");
  by({4, 6, 3}, {0, 2}, "1, 1");
  HostTensor x = random_tensor({12, 400}, 1);
  x.set(7, kNaN);
  x.set(402, kNaN);
  x.set(1999, kInfinity);
  for (std::size_t i = 2400; i < 2800; ++i) x.set(i, -kInfinity);
  for (const std::int64_t axis : {0, 1}) check_anywhere(ops::Reduce{Reduction::kMax, {axis}}, {x});
}

// Bytes from any place, up to both ends of the images; mirrored ones, boxes and borders among them.
TEST_CASE("cuda vectors: windows of images and their numbers") {
  const std::vector<std::vector<double>> rows = {
      {0, 0, 0, 0, 0, 0, 0, 0},  {1, 2, 8, 0, 0, 0, 0, 0},  {1, 2, 9, 1, 0, 0, 0, 0},
      {0, 1, 3, 0, 1, 3, 7, 20}, {1, 0, 5, 1, 2, 5, 0, 13}, {0, -2, -5, 0, 0, 0, 0, 0},
      {1, 4, 13, 1, 0, 0, 0, 0}, {1, 2, 1, 0, 9, 0, 5, 3},  {0, 2, 4, 0, 3, 5, -4, 90}};
  HostTensor places(TensorSpec{{static_cast<std::int64_t>(rows.size()), 8}, DType::kInt64});
  for (std::size_t i = 0; i < places.size(); ++i) places.set(i, rows[i / 8][i % 8]);
  for (const std::int64_t channels : {1, 3, 4, 20})
    for (const Pair size : {Pair{7, 32}, Pair{7, 33}})
      for (const DType from : {DType::kUInt8, DType::kFloat32}) {
        CAPTURE(channels);
        const HostTensor images = random_integers({2, 9, 41, channels}, 1, 100, from);
        ops::TakeWindows op{size, 9.0, {}};
        for (std::int64_t c = 0; c < channels; ++c) op.box_fill.push_back(double(20 + c));
        check_moved(op, {images, places});
        const Tensors windows = run_kernel(op, {images, places});
        ops::NormalizeImage norm{1.0 / 255, {0.4}, {0.2}};
        for (std::int64_t c = 1; c < channels && channels <= 16; ++c) {
          norm.mean.push_back(0.4 + 0.1 * double(c));
          norm.std.push_back(0.2 + 0.1 * double(c));
        }
        check_anywhere(norm, windows);
        for (const DType dtype : kImages) {
          const std::vector<TensorSpec> taken = specs_of(windows);
          std::vector<TensorSpec> results = norm.infer(taken);
          Kernel kernel;
          Tensors expected = run_on_device(norm, windows, results, {}, kernel);
          OnDevice how;
          how.pinned = "";
          how.absorbed = {{norm, taken, results}};
          OnDevice rounded;
          rounded.pinned = "";
          if (dtype != DType::kFloat32) {
            const ops::Cast cast{dtype};
            const std::vector<TensorSpec> wide = results;
            results = cast.infer(wide);
            expected = run_on_device(cast, expected, results, {}, kernel);
            how.absorbed.push_back({cast, wide, results});
            rounded.absorbed.push_back({cast, wide, results});
          }
          for (const int shift : {0, 1, 2, 3}) {
            CAPTURE(shift);
            how.shift = rounded.shift = shift;
            CHECK(same_bits(run_on_device(op, {images, places}, results, how, kernel), expected));
            CHECK(same_bits(run_on_device(norm, windows, results, rounded, kernel), expected));
          }
        }
      }
}
