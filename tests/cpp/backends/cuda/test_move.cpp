// What moves data: by axes, by numbers, into windows and to another size.
#include "backends/cuda/check_kernel.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

TEST_CASE("cuda kernels: moving data") {
  for (const DType dtype : kImages) {
    const HostTensor x = random_tensor({2, 3, 4, 5}, 1, -2, 2, dtype);
    check(ops::Transpose{{0, 3, 1, 2}}, {x});
    check(ops::Slice{{0, 1, 2, 1}, {2, 2, 1, -1}}, {x});
    check(ops::Pad{{0, 1, 2, 0}, {1, 0, 3, 0}, 0.5}, {x});
    check(ops::Concat{-1}, {x, random_tensor({2, 3, 4, 1}, 2, -2, 2, dtype), x});
    check(ops::Concat{1}, {x, random_tensor({2, 2, 4, 5}, 2, -2, 2, dtype)});
    // By 16 bytes, as far as the places of both sides are multiples of these.
    for (const std::int64_t channels : {16, 12, 6}) {
      const HostTensor wide = random_tensor({2, 3, 2, channels}, 3, -2, 2, dtype);
      check(ops::Transpose{{1, 0, 2, 3}}, {wide});
      check(ops::Slice{{0, 1, 0, 4}, {2, 2, 2, channels - 4}}, {wide});
      check(ops::Slice{{0, 0, 0, 1}, {2, 3, 2, 4}}, {wide});
      check(ops::Pad{{1, 0, 1, 8}, {0, 1, 0, 0}, 0.5}, {wide});
      check(ops::Concat{-1}, {wide, random_tensor({2, 3, 2, 8}, 4, -2, 2, dtype), wide});
    }
  }
  const HostTensor x = random_tensor({2, 3, 4, 5}, 1);
  for (const std::vector<std::int64_t>& axes :
       {std::vector<std::int64_t>{0}, {1, 2}, {3}, {0, 1, 2, 3}})
    for (const Reduction kind : {Reduction::kSum, Reduction::kMean})
      check(ops::Reduce{kind, axes, axes.size() == 1}, {x});
  Kernel kernel;
  const ops::Fill fill{{3, 7}, DType::kInt32, -5.0};
  const Tensors filled = run_on_device(fill, {}, fill.infer({}), {}, kernel);
  for (std::size_t i = 0; i < 21; ++i) CHECK(filled[0][i] == -5.0);
  const ops::Reshape reshape{{4, -1}};
  const HostTensor flat = random_tensor({2, 6}, 3);
  CHECK(run_on_device(reshape, {flat}, reshape.infer(specs_of({flat})), {}, kernel)[0].bytes ==
        flat.bytes);
}

// By pieces where one block a result would be few blocks, side by side where terms lie apart or are
// few.
TEST_CASE("cuda kernels: sums over axes by blocks enough") {
  const auto pieces = [](const Shape& shape, const std::vector<std::int64_t>& axes) {
    const HostTensor x = random_tensor(shape, 1, -2, 2);
    std::size_t bytes = 0, results = 1;
    for (const Reduction kind : {Reduction::kSum, Reduction::kMean, Reduction::kMax}) {
      const ops::Reduce op{kind, axes};
      check(op, {x});
      const std::vector<TensorSpec> outputs = op.infer(specs_of({x}));
      Kernel kernel;
      run_on_device(op, {x}, outputs, {}, kernel);
      bytes = kernel.scratch_bytes;
      results = static_cast<std::size_t>(element_count(outputs[0].shape));
    }
    return bytes / sizeof(double) / results;
  };
  CHECK(pieces({70001}, {0}) == 18);
  CHECK(pieces({3, 1, 23333, 1}, {0, 1, 2, 3}) == 18);
  CHECK(pieces({4, 30, 31, 5}, {0, 1, 2}) == 8);    // 32 threads for each of 8 results
  CHECK(pieces({2, 30, 31, 40}, {0, 1, 2}) == 30);  // 16 threads for each 4 of 40
  CHECK(pieces({2, 30, 31, 40}, {1, 2}) == 30);
  CHECK(pieces({2, 30, 31, 40}, {0}) == 0);
  CHECK(pieces({2, 30, 31, 7}, {3}) == 0);
  CHECK(pieces({2, 3, 4, 5000}, {1, 3}) == 4);
  CHECK(pieces({5, 700, 3, 2}, {1, 3}) == 0);
}

TEST_CASE("cuda kernels: maxima and where they are") {
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{1, 1, 1, 1}, Shape{3, 300, 2, 129}}) {
    const HostTensor x = random_integers(shape, 1, 3);  // with ties
    for (const bool last : {false, true})
      for (const std::int64_t axis : {0, 1, -1})
        for (const bool keep : {false, true}) check(ops::ArgMax{axis, keep, last}, {x});
    for (const std::vector<std::int64_t>& axes :
         {std::vector<std::int64_t>{0}, {1, 2}, {3}, {0, 1, 2, 3}})
      check(ops::Reduce{Reduction::kMax, axes, true}, {x});
  }
  HostTensor x = random_tensor({3, 200}, 1);
  x.set(7, kNaN);
  x.set(150, kNaN);
  x.set(399, kInfinity);
  for (std::size_t i = 400; i < 600; ++i) x.set(i, -kInfinity);
  for (const bool last : {false, true})
    for (const std::int64_t axis : {0, 1}) check(ops::ArgMax{axis, false, last}, {x});
  for (const std::int64_t axis : {0, 1}) check(ops::Reduce{Reduction::kMax, {axis}}, {x});
}

TEST_CASE("cuda kernels: rows by number") {
  const std::vector<std::int64_t> indices = {3, -1, 0, 3, 3, 1, -1};
  for (const DType dtype : kImages) {
    check(ops::Take{indices}, {random_tensor({4, 3, 5}, 1, -2, 2, dtype)});
    check(ops::Take{indices}, {random_tensor({4}, 1, -2, 2, dtype)});
    check(ops::Take{{}}, {random_tensor({3, 2}, 2, -2, 2, dtype)});
  }
  // By 16 bytes where rows are whole vectors, and lie at their places.
  for (const DType dtype : kImages)
    for (const std::int64_t items : {1, 4, 8, 12, 24}) {
      CAPTURE(items);
      check_anywhere(ops::Take{indices}, {random_tensor({4, items}, 1, -2, 2, dtype)});
      check_anywhere(ops::Take{indices}, {random_tensor({4, 2, items, 1}, 1, -2, 2, dtype)});
    }
  for (const std::int64_t items : {1, 3, 4, 20}) {
    check_anywhere(ops::TakeGrad{indices, 4}, {random_tensor({7, items}, 2)});
    check_anywhere(ops::TakeGrad{indices, 5}, {random_tensor({7, 3, items}, 2)});
  }
  check(ops::TakeGrad{indices, 4}, {random_tensor({7, 3, 5}, 2)});
  check(ops::TakeGrad{indices, 5}, {random_tensor({7}, 2)});
  check(ops::TakeGrad{{}, 3}, {random_tensor({0, 2}, 2)});
  Kernel kernel;
  const HostTensor labels = integers({10, 20, 30});
  const ops::Take op{{2, 2, -1, 0}};
  const Tensors taken = run_on_device(op, {labels}, op.infer(specs_of({labels})), {}, kernel);
  CHECK(same_bits(taken, {integers({30, 30, 0, 10})}));
  const HostTensor bytes = random_integers({3, 32}, 4, 100, DType::kUInt8);
  CHECK(same_bits(run_on_device(op, {bytes}, op.infer(specs_of({bytes})), {}, kernel),
                  run_kernel(op, {bytes})));
}

// Vectors over ends of rows and of windows, places far away, boxes; of a type as it is, then
// normalised and rounded on the way as two kernels after it would.
TEST_CASE("cuda kernels: windows of images") {
  constexpr double kFar = 4e18;
  const std::vector<std::vector<double>> rows = {
      {0, 0, 0, 0, 0, 0, 0, 0},    {1, -2, -1, 1, 1, 3, 2, 5},   {2, 1, 2, 0, -3, 2, 4, 99},
      {0, 3, -3, 1, 0, 9, 0, 1},   {3, 0, 0, 0, 0, 0, 0, 0},     {-1, 0, 0, 1, 1, 2, 1, 2},
      {2, kFar, 0, 1, 0, 0, 0, 0}, {2, 0, -kFar, 0, 0, 0, 0, 0}, {1, -kFar, kFar, 1, 0, 0, 0, 0}};
  HostTensor places(TensorSpec{{static_cast<std::int64_t>(rows.size()), 8}, DType::kInt64});
  for (std::size_t i = 0; i < places.size(); ++i) places.set(i, rows[i / 8][i % 8]);
  for (const std::int64_t channels : {1, 3, 4, 7, 19}) {
    for (const Pair size : {Pair{5, 6}, Pair{1, 1}, Pair{8, 16}, Pair{3, 11}}) {
      for (const DType from : {DType::kUInt8, DType::kFloat32}) {
        CAPTURE(channels);
        const HostTensor images = random_integers({3, 5, 6, channels}, 1, 100, from);
        ops::TakeWindows op{size, 9.0, {}};
        for (std::int64_t c = 0; c < channels; ++c) op.box_fill.push_back(double(20 + c));
        const Tensors expected = run_kernel(op, {images, places}, {});
        Kernel kernel;
        const std::vector<TensorSpec> outputs = op.infer(specs_of({images, places}));
        CHECK(same_bits(run_on_device(op, {images, places}, outputs, {}, kernel), expected));
        CHECK(same_bits(run_on_device(op, {images, places}, outputs, {other_device()}, kernel),
                        expected));
        ops::NormalizeImage norm{1.0 / 255, {0.4}, {0.2}};
        // More factors of their own are another kernel's.
        for (std::int64_t c = 1; c < channels && channels <= 16; ++c) {
          norm.mean.push_back(0.4 + 0.1 * double(c));
          norm.std.push_back(0.2 + 0.1 * double(c));
        }
        for (const DType dtype : kImages) {
          std::vector<TensorSpec> normalised = norm.infer(outputs);
          Kernel separate;
          Tensors wanted = run_on_device(norm, expected, normalised, {}, separate);
          OnDevice how;
          how.pinned = "";
          how.absorbed = {{norm, outputs, normalised}};
          if (dtype != DType::kFloat32) {
            const ops::Cast cast{dtype};
            const std::vector<TensorSpec> cast_from = normalised;
            normalised = cast.infer(cast_from);
            wanted = run_on_device(cast, wanted, normalised, {}, separate);
            how.absorbed.push_back({cast, cast_from, normalised});
          }
          CHECK(same_bits(run_on_device(op, {images, places}, normalised, how, kernel), wanted));
        }
      }
    }
  }
}

// A GPU would be as right without: how a kernel was compiled tells that vectors are taken.
TEST_CASE("cuda kernels: whole vectors are moved as such") {
  if (!is_emulated()) return;
  const auto check_launched = [](const auto& op, const Tensors& inputs, const std::string& kernel,
                                 int shift = 0) {
    OnDevice how;
    how.shift = shift;
    const std::string text = launched(op, inputs, op.infer(specs_of(inputs)), how);
    CAPTURE(kernel);
    CHECK(text.find(kernel) != std::string::npos);
  };
  const std::vector<std::int64_t> places = {2, 0, -1, 3};
  const std::string vectors = "Rows<pycnn::cuda::Pack<unsigned int, 4> >";
  check_launched(ops::Take{places}, {random_tensor({4, 8}, 1)}, vectors);
  check_launched(ops::Take{places}, {random_tensor({4, 8}, 1)}, "Rows<unsigned int>", 1);
  check_launched(ops::Take{places}, {random_tensor({4, 6}, 1)}, "Rows<unsigned int>");
  check_launched(ops::Take{places}, {random_integers({4, 32}, 1, 9, DType::kUInt8)}, vectors);
  check_launched(ops::TakeGrad{places, 4}, {random_tensor({4, 12}, 1)}, "RowSums<4>");
  check_launched(ops::TakeGrad{places, 4}, {random_tensor({4, 6}, 1)}, "RowSums<1>");
  const ops::Resize2d resize{{5, 3}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {}};
  const ops::Resize2dGrad resize_grad{resize, {2, 3}};
  for (const auto& [dtype, type, width] : {std::tuple{DType::kFloat32, "float", 4},
                                           {DType::kBFloat16, "pycnn::BFloat16", 8},
                                           {DType::kFloat16, "pycnn::Float16", 8}})
    for (const auto& [channels, lanes] : {std::pair{2 * width, width}, {width + 2, 1}}) {
      const std::string ends = std::string("<") + type + ", " + std::to_string(lanes);
      CAPTURE(ends);
      const HostTensor x = random_tensor({2, 2, 3, channels}, 1, -2, 2, dtype);
      const HostTensor g = random_tensor({2, 5, 3, channels}, 2, -2, 2, dtype);
      const HostTensor largest = random_tensor({2, channels}, 3, -2, 2, dtype);
      check_launched(resize, {x}, "Resize" + ends + ">");
      check_launched(resize_grad, {g}, "Resize" + ends + ">");
      check_launched(ops::GlobalMaxPool2d{}, {x}, "GlobalMax" + ends + ">");
      check_launched(ops::GlobalMaxPool2dGrad{}, {x, largest}, "GlobalMax" + ends + ">");
      const HostTensor row = random_tensor({channels}, 4, 1, 2, dtype);
      const HostTensor one = random_tensor({2, 2, 3, 1}, 5, 1, 2, dtype);
      for (const HostTensor& other : {row, one}) {
        check_launched(ops::Multiply{}, {x, other}, "PairVectors" + ends + ",");
        check_launched(ops::Binary{BinaryKind::kDivide}, {other, x}, "PairVectors" + ends + ",");
      }
    }
}

TEST_CASE("cuda kernels: images of another size") {
  for (const DType dtype : kImages)
    for (const Shape& shape : {Shape{2, 5, 7, 3}, Shape{1, 1, 4, 8}, Shape{3, 6, 6, 1}})
      for (const Pair size : {Pair{10, 14}, Pair{3, 4}, Pair{1, 1}, Pair{7, 5}})
        for (int mode = 0; mode <= static_cast<int>(ResizeMode::kNearestRoundUp); ++mode)
          for (int grid = 0; grid <= static_cast<int>(ResizeGrid::kPytorchHalfPixel); ++grid) {
            const ops::Resize2d op{
                size, static_cast<ResizeMode>(mode), static_cast<ResizeGrid>(grid), {}};
            const HostTensor x = random_tensor(shape, 1, -2, 2, dtype);
            check(op, {x});
            const Shape output = op.infer(specs_of({x}))[0].shape;
            check(ops::Resize2dGrad{op, {shape[1], shape[2]}},
                  {random_tensor(output, 2, -2, 2, dtype)});
          }
  for (const DType dtype : kImages)
    for (const std::int64_t channels : {4, 12, 16, 24}) {
      const ops::Resize2d op{{7, 3}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {}};
      check_anywhere(op, {random_tensor({2, 4, 5, channels}, 1, -2, 2, dtype)});
      check_anywhere(ops::Resize2dGrad{op, {4, 5}},
                     {random_tensor({2, 7, 3, channels}, 2, -2, 2, dtype)});
    }
  const ops::Resize2d empty{{3, 4}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {}};
  check(empty, {random_tensor({0, 5, 6, 8}, 1)});
  const ops::Resize2d scaled{{9, 8}, ResizeMode::kBilinear, ResizeGrid::kHalfPixel, {1.7, 1.3}};
  check(scaled, {random_tensor({1, 5, 6, 2}, 1)});
  check(ops::Resize2dGrad{scaled, {5, 6}}, {random_tensor({1, 9, 8, 2}, 1)});
}
