#include <doctest/doctest.h>

#include <algorithm>

#include "backends/test_conv2d_support.h"

using namespace pycnn;
using namespace pycnn::testing;

// That the arithmetic is right within its rounding is shown in tests/ops/test_winograd.py.
namespace {

struct Case {
  std::int64_t n = 1, h = 9, w = 10, ic = 16, oc = 32;
  Padding padding = {1, 1, 1, 1};
  std::int64_t window = 3, groups = 1;

  Shape input() const { return {n, h, w, ic}; }
  Shape grad() const {
    return {n, h + padding.top + padding.bottom - window + 1,
            w + padding.left + padding.right - window + 1, oc};
  }
};

// Ones, minus ones and more zeros; times 36, since tiles of 4 divide by up to 24, twice.
Values few(const Shape& shape, std::mt19937& random, float factor) {
  Values values = whole_numbers(shape, random, 1);
  for (int i = 0; i < 3; ++i) {
    const Values kept = whole_numbers(shape, random, 1);
    for (std::size_t j = 0; j < kept.data.size(); ++j) values.data[j] *= kept.data[j];
  }
  for (float& x : values.data) x *= factor;
  return values;
}

}  // namespace

TEST_CASE("winograd: every variant of the weight gradient has the reference's bits") {
  std::mt19937 random(1);
  const std::vector<Case> cases = {
      {},
      {.n = 3, .h = 4, .w = 4},
      {.n = 2, .h = 6, .w = 7, .ic = 17, .oc = 35},
      {.h = 8, .w = 21, .ic = 24, .oc = 70},
      {.h = 9, .w = 9, .ic = 70, .oc = 16},
      {.n = 2, .h = 12, .w = 13, .ic = 18, .oc = 33, .padding = {0, 0, 0, 0}},
      {.h = 10, .w = 11, .ic = 40, .oc = 17, .padding = {2, 2, 2, 2}},
      {.h = 10, .w = 9, .ic = 33, .oc = 16, .padding = {0, 1, 2, 3}},
      {.h = 9, .w = 12, .padding = {4, 3, 3, 4}},
      {.h = 6, .w = 6, .ic = 16, .oc = 530},  // output channels are shared out
      {.n = 2, .h = 7, .w = 8, .ic = 17, .oc = 35, .padding = {2, 2, 2, 2}, .window = 5},
      {.h = 9, .w = 8, .padding = {4, 0, 1, 3}, .window = 5},
      {.n = 5, .h = 30, .w = 34, .ic = 48, .oc = 64},
      {.n = 2, .h = 11, .ic = 24, .oc = 24, .groups = 3},
      {.n = 5, .h = 4, .w = 5, .ic = 32, .oc = 32, .groups = 2},     // tiles of several images
      {.n = 2, .h = 7, .w = 8, .ic = 320, .oc = 320, .groups = 20},  // slices of groups
      {.h = 10, .w = 9, .ic = 64, .oc = 64, .padding = {0, 1, 2, 3}, .groups = 2},
      {.h = 6, .w = 109, .ic = 16, .oc = 16, .padding = {2, 2, 2, 2}, .groups = 2},
      {.n = 2, .h = 8, .w = 13, .ic = 128, .oc = 128, .padding = {0, 0, 0, 0}, .groups = 2},
      {.n = 5, .h = 30, .w = 34, .ic = 32, .oc = 32, .groups = 2},  // parts of the tiles
  };
  for (const Case& c : cases) {
    CAPTURE(to_string(c.input()));
    CAPTURE(to_string(c.grad()));
    const Values input = few(c.input(), random, 1), grad = few(c.grad(), random, 36);
    for (const bool bias : {false, true}) {
      const ops::Conv2dGradWeight op{.padding = c.padding,
                                     .groups = c.groups,
                                     .kernel_size = {c.window, c.window},
                                     .bias = bias};
      const auto names = fast_variants(op, {input, grad});
      const bool is_too_wide = c.groups > 1 && c.ic / c.groups > widest_winograd_group();
      CHECK((is_too_wide || std::any_of(names.begin(), names.end(), [](const std::string& name) {
               return name.find(".winograd.") != std::string::npos;
             })));
      check_exact(op, {input, grad}, Winograd::kTaken);
    }
  }
}
