#pragma once
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "pycnn/ops.h"

// Shapes of convolutions that kernels get wrong.
namespace pycnn::testing {

struct Case {
  std::int64_t n = 2, h = 6, w = 7, ic = 3, oc = 5, kh = 3, kw = 3;
  Pair stride = {1, 1};
  Padding padding = {};
  Pair dilation = {1, 1};
  std::int64_t groups = 1;

  Shape input() const { return {n, h, w, ic}; }
  Shape weight() const { return {oc, kh, kw, ic / groups}; }
  Shape output() const {
    return {n, (h + padding.top + padding.bottom - (kh - 1) * dilation[0] - 1) / stride[0] + 1,
            (w + padding.left + padding.right - (kw - 1) * dilation[1] - 1) / stride[1] + 1, oc};
  }
  bool fits() const {
    return h + padding.top + padding.bottom > (kh - 1) * dilation[0] &&
           w + padding.left + padding.right > (kw - 1) * dilation[1];
  }
  ops::Conv2d forward() const {
    ops::Conv2d op;
    op.stride = stride, op.padding = padding, op.dilation = dilation, op.groups = groups;
    return op;
  }
  ops::Conv2dGradInput grad_input() const {
    return {.stride = stride,
            .padding = padding,
            .dilation = dilation,
            .groups = groups,
            .input_size = {h, w},
            .sums = {},
            .finish = {}};
  }
  ops::Conv2dGradWeight grad_weight(bool bias) const {
    return {.stride = stride,
            .padding = padding,
            .dilation = dilation,
            .groups = groups,
            .kernel_size = {kh, kw},
            .bias = bias};
  }
  std::string text() const {
    std::ostringstream out;
    out << "input " << to_string(input()) << " weight " << to_string(weight()) << " stride "
        << stride[0] << "," << stride[1] << " padding " << padding.top << "," << padding.bottom
        << "," << padding.left << "," << padding.right << " dilation " << dilation[0] << ","
        << dilation[1] << " groups " << groups;
    return out.str();
  }
};

inline std::vector<Case> nasty_cases() {
  std::vector<Case> cases;
  const std::int64_t channels[] = {1, 2, 3, 15, 16, 17, 31, 33, 64, 65};
  for (std::size_t i = 0; i < std::size(channels); ++i) {
    cases.push_back({.ic = channels[i], .oc = channels[(i * 3 + 1) % 10], .padding = {1, 1, 1, 1}});
    cases.push_back({.ic = channels[(i * 7 + 2) % 10], .oc = channels[i], .kh = 1, .kw = 1});
    cases.push_back(
        {.ic = channels[i], .oc = channels[i], .stride = {2, 2}, .padding = {0, 1, 1, 0}});
  }
  for (const std::int64_t width : {1, 15, 16, 17, 29})
    cases.push_back({.h = 3, .w = width, .ic = 2, .oc = 33, .padding = {1, 1, 1, 1}});
  const std::vector<Case> more = {
      {.n = 1, .h = 1, .w = 1, .ic = 17, .oc = 16, .padding = {1, 1, 1, 1}},
      {.n = 3, .h = 1, .w = 1, .ic = 5, .oc = 40, .kh = 7, .kw = 7, .padding = {3, 3, 3, 3}},
      {.n = 3, .h = 1, .w = 9, .ic = 4, .oc = 7, .kh = 1, .kw = 3, .padding = {0, 0, 1, 1}},
      {.n = 3, .h = 9, .w = 1, .ic = 4, .oc = 7, .kh = 3, .kw = 1, .padding = {1, 1, 0, 0}},
      {.n = 5, .h = 4, .w = 5, .ic = 6, .oc = 35, .kh = 4, .kw = 5},  // kernel = image
      {.n = 2, .h = 3, .w = 3, .ic = 2, .oc = 3, .kh = 5, .kw = 5, .padding = {1, 1, 2, 1}},
      {.n = 2, .h = 11, .w = 12, .ic = 3, .oc = 18, .kh = 2, .kw = 2, .stride = {4, 5}},
      {.n = 2, .h = 60, .w = 55, .ic = 2, .oc = 3, .kh = 3, .kw = 2, .stride = {50, 50}},
      {.n = 2, .h = 4, .w = 60, .ic = 2, .oc = 3, .stride = {50, 1}, .padding = {1, 1, 0, 0}},
      {.n = 2, .h = 12, .w = 13, .ic = 5, .oc = 9, .padding = {2, 2, 2, 2}, .dilation = {2, 2}},
      {.n = 2, .h = 12, .w = 13, .ic = 33, .oc = 9, .padding = {3, 3, 3, 3}, .dilation = {3, 3}},
      {.n = 2,
       .h = 12,
       .w = 13,
       .ic = 3,
       .oc = 4,
       .stride = {3, 2},
       .padding = {1, 2, 3, 0},
       .dilation = {2, 3}},
      {.n = 2, .h = 20, .w = 20, .ic = 2, .oc = 4, .stride = {2, 2}, .dilation = {9, 2}},
      {.n = 2, .h = 7, .w = 8, .ic = 3, .oc = 4, .kh = 2, .kw = 3, .padding = {4, 0, 1, 3}},
      {.n = 2, .h = 5, .w = 5, .ic = 3, .oc = 4, .kh = 2, .kw = 2, .padding = {5, 4, 3, 6}},
      {.n = 2, .h = 7, .w = 7, .ic = 17, .oc = 17, .padding = {1, 1, 1, 1}, .groups = 17},
      {.n = 2,
       .h = 7,
       .w = 7,
       .ic = 17,
       .oc = 34,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 17},
      {.n = 2, .h = 7, .w = 7, .ic = 64, .oc = 64, .padding = {1, 1, 1, 1}, .groups = 64},
      {.n = 2, .h = 5, .w = 7, .ic = 128, .oc = 128, .padding = {1, 1, 1, 1}, .groups = 32},
      {.n = 2,
       .h = 5,
       .w = 6,
       .ic = 32,
       .oc = 64,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 32},
      {.n = 2, .h = 5, .w = 6, .ic = 66, .oc = 6, .kh = 1, .kw = 1, .groups = 2},
      {.n = 2, .h = 4, .w = 27, .ic = 20, .oc = 20, .padding = {1, 1, 1, 1}, .groups = 5},
      {.n = 3, .h = 5, .w = 13, .ic = 6, .oc = 6, .kw = 5, .padding = {0, 2, 2, 1}, .groups = 3},
      {.n = 2, .h = 8, .w = 25, .ic = 40, .oc = 40, .padding = {1, 1, 1, 1}, .groups = 5},
      {.n = 2,
       .h = 9,
       .w = 14,
       .ic = 40,
       .oc = 40,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 5},
      {.n = 2,
       .h = 9,
       .w = 14,
       .ic = 24,
       .oc = 24,
       .stride = {1, 3},
       .padding = {1, 1, 1, 1},
       .groups = 3},
      {.n = 2,
       .h = 8,
       .w = 9,
       .ic = 15,
       .oc = 36,
       .kh = 2,
       .kw = 4,
       .padding = {1, 0, 2, 1},
       .groups = 3},
      {.n = 2,
       .h = 8,
       .w = 9,
       .ic = 40,
       .oc = 24,
       .kh = 5,
       .kw = 5,
       .padding = {2, 2, 2, 2},
       .groups = 2},
      {.n = 1,
       .h = 9,
       .w = 11,
       .ic = 48,
       .oc = 48,
       .padding = {2, 2, 2, 2},
       .dilation = {2, 2},
       .groups = 3},
      {.n = 1, .h = 7, .w = 7, .ic = 66, .oc = 66, .padding = {1, 1, 1, 1}, .groups = 2},
      {.n = 1,
       .h = 14,
       .w = 14,
       .ic = 64,
       .oc = 64,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 2},
      {.n = 1, .h = 9, .w = 9, .ic = 32, .oc = 80, .padding = {1, 1, 1, 1}, .groups = 2},
      {.n = 2,
       .h = 5,
       .w = 27,
       .ic = 48,
       .oc = 48,
       .stride = {1, 1},
       .padding = {1, 1, 1, 1},
       .groups = 12},
      {.n = 2,
       .h = 7,
       .w = 55,
       .ic = 32,
       .oc = 32,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 8},
      {.n = 2,
       .h = 7,
       .w = 27,
       .ic = 48,
       .oc = 48,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 6},
      {.n = 3,
       .h = 6,
       .w = 9,
       .ic = 64,
       .oc = 64,
       .kw = 5,
       .stride = {1, 1},
       .padding = {1, 1, 1, 1},
       .groups = 8},
      {.n = 2,
       .h = 9,
       .w = 12,
       .ic = 32,
       .oc = 32,
       .kw = 2,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 8},
      {.n = 2,
       .h = 9,
       .w = 12,
       .ic = 32,
       .oc = 32,
       .kw = 4,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 4},
      {.n = 2,
       .h = 9,
       .w = 14,
       .ic = 20,
       .oc = 20,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 10},
      {.n = 2,
       .h = 6,
       .w = 29,
       .ic = 32,
       .oc = 32,
       .stride = {2, 2},
       .padding = {1, 1, 1, 1},
       .groups = 2},
      {.n = 1,
       .h = 5,
       .w = 33,
       .ic = 16,
       .oc = 16,
       .kw = 2,
       .stride = {1, 1},
       .padding = {1, 1, 1, 1},
       .groups = 4},
      {.n = 1, .h = 2, .w = 3, .ic = 1000, .oc = 3, .padding = {1, 1, 1, 1}},
      {.n = 1, .h = 1, .w = 3, .ic = 2049, .oc = 2, .kh = 1, .kw = 1},
      {.n = 2, .h = 2, .w = 3, .ic = 3, .oc = 1000, .padding = {1, 1, 1, 1}},
      {.n = 1, .h = 3, .w = 1, .ic = 2, .oc = 2049, .kh = 1, .kw = 1},
      {.n = 1, .h = 3, .w = 3, .ic = 1000, .oc = 1000, .padding = {1, 1, 1, 1}, .groups = 1000},
      {.n = 0, .padding = {1, 1, 1, 1}},
      {.n = 0, .ic = 5, .kh = 1, .kw = 1},
      {.n = 1, .h = 28, .w = 28, .ic = 1, .oc = 6, .kh = 5, .kw = 5, .padding = {2, 2, 2, 2}},
      {.n = 3, .h = 14, .w = 14, .ic = 6, .oc = 16, .kh = 5, .kw = 5},
      {.n = 2,
       .h = 18,
       .w = 18,
       .ic = 3,
       .oc = 64,
       .kh = 7,
       .kw = 7,
       .stride = {2, 2},
       .padding = {3, 3, 3, 3}},
      {.n = 5, .h = 7, .w = 7, .ic = 64, .oc = 96, .kh = 1, .kw = 1},
      {.n = 2, .h = 9, .w = 9, .ic = 40, .oc = 33, .kh = 1, .kw = 1, .stride = {2, 2}},
      {.n = 1, .h = 40, .w = 40, .ic = 64, .oc = 64, .padding = {1, 1, 1, 1}},
      {.n = 2, .h = 40, .w = 41, .ic = 3, .oc = 50, .padding = {1, 1, 1, 1}},
      {.n = 1,
       .h = 31,
       .w = 43,
       .ic = 3,
       .oc = 20,
       .kh = 11,
       .kw = 11,
       .stride = {4, 4},
       .padding = {2, 2, 2, 2}},
  };
  cases.insert(cases.end(), more.begin(), more.end());
  return cases;
}

inline Case random_case(std::mt19937& random) {
  auto draw = [&](int low, int high) {
    return static_cast<std::int64_t>(std::uniform_int_distribution<int>(low, high)(random));
  };
  Case c;
  do {
    c.groups = draw(0, 2) == 0 ? draw(1, 6) : 1;
    c.n = draw(1, 4), c.h = draw(1, 20), c.w = draw(1, 34);
    c.ic = c.groups * draw(1, 20), c.oc = c.groups * draw(1, 40);
    c.kh = draw(1, 5), c.kw = draw(1, 5);
    c.stride = {draw(1, 3), draw(1, 3)};
    c.dilation = {draw(1, 2), draw(1, 3)};
    c.padding = {draw(0, 3), draw(0, 3), draw(0, 3), draw(0, 3)};
  } while (!c.fits() || c.n * c.h * c.w * c.ic * c.oc * c.kh * c.kw / c.groups > 3'000'000);
  return c;
}

}  // namespace pycnn::testing
