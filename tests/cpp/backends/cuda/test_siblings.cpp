// Which sibling convolutions are merged, from what moves with and without.
#include <vector>

#include "backends/cuda/cuda_module.h"

namespace pycnn {
namespace {

const Op kNorm = ops::BatchNormTrain{}, kPool = ops::MaxPool2d{}, kConcat = ops::Concat{3},
         kSoftmax = ops::Softmax{};

struct Case {
  std::int64_t channels = 64;  // of the image
  std::vector<Siblings::Result> results;
  std::int64_t pixels = 56 * 56;
  DType dtype = DType::kBFloat16;
  bool training = true;
  std::int64_t stride = 1, kernel = 1;
};

bool merges(const Case& c) {
  ops::Conv2d conv;
  conv.stride = {c.stride, c.stride};
  Siblings siblings;
  siblings.op = &conv;
  siblings.input = {{1, c.pixels, 1, c.channels}, c.dtype};
  siblings.results = c.results;
  siblings.weight = {c.results[0].channels, c.kernel, c.kernel, c.channels};
  siblings.training = c.training;
  return testing::cuda_module().merges(siblings);
}

TEST_CASE("cuda siblings: what readers take where it is costs nothing") {
  // Of six times 64 channels that are spared, four times those that are copied.
  CHECK(merges({.results = {{64, {&kNorm}}, {256, {&kNorm}}}}));
  CHECK(merges({.results = {{64, {&kNorm}}, {256, {&kNorm, &kPool}}}}));
  CHECK_FALSE(merges({.results = {{64, {&kConcat}}, {256, {&kConcat}}}}));
  CHECK_FALSE(merges({.results = {{64, {&kNorm}}, {256, {&kConcat}}}}));
  CHECK(merges({.results = {{64, {&kConcat}}, {256, {&kNorm}}}}));
}

TEST_CASE("cuda siblings: what is copied counts where it is more than what is spared") {
  const auto one_copied = [](std::int64_t channels, const Siblings::Result& like) {
    Siblings::Result copied = like;
    copied.channels = channels;
    return merges({.results = {{8, {&kNorm}}, copied}, .pixels = 1 << 20});
  };
  for (const Siblings::Result& like :
       {Siblings::Result{0, {&kConcat}}, Siblings::Result{0, {&kSoftmax}},
        Siblings::Result{0, {&kNorm, &kConcat}}, Siblings::Result{0, {&kNorm}, true},
        Siblings::Result{0, {}, true}}) {
    CHECK(one_copied(88, like));  // 4 * 88 < 6 * 64
    CHECK_FALSE(one_copied(96, like));
  }
  // Each sibling but one is spared something.
  CHECK_FALSE(merges({.results = {{96, {&kConcat}}, {8, {&kNorm}}}, .pixels = 1 << 20}));
  CHECK(merges({.results = {{96, {&kConcat}}, {8, {&kNorm}}, {8, {&kNorm}}}, .pixels = 1 << 20}));
}

TEST_CASE("cuda siblings: weights are copied together in every step") {
  const std::vector<Siblings::Result> results = {{64, {&kNorm}}, {64, {&kNorm}}};
  // Of bfloat16 6 * 64 * 2 bytes a pixel, of float32 twice that; 128 * 64 weights of 2 * 4.
  CHECK_FALSE(merges({.results = results, .pixels = 85}));
  CHECK(merges({.results = results, .pixels = 86}));
  CHECK_FALSE(merges({.results = results, .pixels = 42, .dtype = DType::kFloat32}));
  CHECK(merges({.results = results, .pixels = 43, .dtype = DType::kFloat32}));
  CHECK_FALSE(merges({.results = results, .pixels = 9 * 85, .kernel = 3}));
  CHECK(merges({.results = results, .pixels = 9 * 86, .kernel = 3}));
}

TEST_CASE("cuda siblings: strides, odd channels and inference stay apart") {
  const std::vector<Siblings::Result> results = {{64, {&kNorm}}, {64, {&kNorm}}};
  CHECK(merges({.results = results}));
  CHECK_FALSE(merges({.results = results, .stride = 2}));
  CHECK_FALSE(merges({.results = results, .training = false}));
  CHECK_FALSE(merges({.results = {{64, {&kNorm}}, {60, {&kNorm}}}}));
}

}  // namespace
}  // namespace pycnn
