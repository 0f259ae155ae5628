#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

struct Case {
  std::int64_t channels;
  Pair from;
  ops::Resize2d op;
};

// The share of given pixel `source` in resized pixel `i`, by the definition.
double share(const ops::Resize2d& op, std::size_t axis, std::int64_t given, std::int64_t i,
             std::int64_t source) {
  const auto n = static_cast<double>(given), m = static_cast<double>(op.output_size[axis]);
  const double scale = op.scales.empty() ? m / n : op.scales[axis];
  const auto x = static_cast<double>(i);
  double place = (x + 0.5) / scale - 0.5;
  if (op.grid == ResizeGrid::kAsymmetric) place = x / scale;
  if (op.grid == ResizeGrid::kAlignCorners) place = m == 1 ? 0.0 : x * (n - 1) / (m - 1);
  if (op.grid == ResizeGrid::kPytorchHalfPixel && m == 1) place = 0.0;
  if (op.mode == ResizeMode::kBilinear) {
    place = std::min(std::max(place, 0.0), n - 1);
    return std::max(0.0, 1.0 - std::abs(place - static_cast<double>(source)));
  }
  double nearest = std::floor(place);
  if (op.mode == ResizeMode::kNearestCeil) nearest = std::ceil(place);
  if (op.mode == ResizeMode::kNearestRoundDown) nearest = std::ceil(place - 0.5);
  if (op.mode == ResizeMode::kNearestRoundUp) nearest = std::floor(place + 0.5);
  return static_cast<double>(source) == std::min(std::max(nearest, 0.0), n - 1) ? 1.0 : 0.0;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int mode = 0; mode <= static_cast<int>(ResizeMode::kNearestRoundUp); ++mode)
    for (int grid = 0; grid <= static_cast<int>(ResizeGrid::kAlignCorners); ++grid) {
      const auto m = static_cast<ResizeMode>(mode);
      const auto g = static_cast<ResizeGrid>(grid);
      // Powers of two keep the places exact in both formulas, so that nearest has one answer.
      all.push_back({17, {4, 8}, {{8, 4}, m, g, {}}});
      all.push_back({3, {4, 2}, {{8, 1}, m, g, {2.0, 0.5}}});
      all.push_back({1, {1, 1}, {{2, 4}, m, g, {}}});
    }
  for (const ResizeGrid grid : {ResizeGrid::kHalfPixel, ResizeGrid::kAlignCorners}) {
    all.push_back({5, {7, 5}, {{3, 11}, ResizeMode::kBilinear, grid, {}}});
    all.push_back({33, {5, 9}, {{13, 9}, ResizeMode::kBilinear, grid, {2.6, 1.0}}});
    all.push_back({2, {3, 40}, {{50, 1}, ResizeMode::kBilinear, grid, {}}});
  }
  return all;
}

}  // namespace

TEST_CASE("resized images and their gradients are weighted sums by the definition") {
  for (const Case& c : cases()) {
    CAPTURE(resize_mode_name(c.op.mode));
    CAPTURE(resize_grid_name(c.op.grid));
    const Pair from = c.from, to = c.op.output_size;
    const HostTensor x = random_tensor({2, from[0], from[1], c.channels}, 1);
    const HostTensor g = random_tensor({2, to[0], to[1], c.channels}, 2);
    const auto at = [&](const Pair& size, std::int64_t n, std::int64_t h, std::int64_t w,
                        std::int64_t channel) {
      return static_cast<std::size_t>(((n * size[0] + h) * size[1] + w) * c.channels + channel);
    };
    std::vector<double> y(g.size(), 0.0), gx(x.size(), 0.0), y_size = y, gx_size = gx;
    for (std::int64_t oh = 0; oh < to[0]; ++oh)
      for (std::int64_t h = 0; h < from[0]; ++h)
        for (std::int64_t ow = 0; ow < to[1]; ++ow)
          for (std::int64_t w = 0; w < from[1]; ++w) {
            const double weight = share(c.op, 0, from[0], oh, h) * share(c.op, 1, from[1], ow, w);
            if (weight == 0.0) continue;
            for (std::int64_t n = 0; n < 2; ++n)
              for (std::int64_t k = 0; k < c.channels; ++k) {
                const std::size_t i = at(from, n, h, w, k), o = at(to, n, oh, ow, k);
                y[o] += weight * x[i];
                y_size[o] += std::abs(weight * x[i]);
                gx[i] += weight * g[o];
                gx_size[i] += std::abs(weight * g[o]);
              }
          }
    for (const bool wide : {false, true}) {
      // Places in float64 leave an error of a few units of it in the weights.
      const double units = wide ? 64.0 : 2.0 * kElementwiseUnits;
      const auto typed = [&](const HostTensor& t) { return wide ? to_float64(t) : t; };
      check_kernels(c.op, {typed(x)}, [&](const std::vector<HostTensor>& found) {
        REQUIRE(found[0].size() == y.size());
        for (std::size_t i = 0; i < y.size(); ++i)
          CHECK(is_close(found[0], i, y[i], y_size[i] + 1e-12, units));
      });
      check_kernels(ops::Resize2dGrad{c.op, from}, {typed(g)},
                    [&](const std::vector<HostTensor>& found) {
                      REQUIRE(found[0].size() == gx.size());
                      for (std::size_t i = 0; i < gx.size(); ++i)
                        CHECK(is_close(found[0], i, gx[i], gx_size[i] + 1e-12, units));
                    });
    }
  }
}

TEST_CASE("an empty batch is resized, and far places are those at the border") {
  check_kernels(ops::Resize2d{{4, 4}}, {random_tensor({0, 2, 3, 5}, 1)},
                [](const std::vector<HostTensor>& y) { CHECK(y[0].size() == 0); });
  const HostTensor x = random_tensor({1, 3, 3, 2}, 1);
  const ops::Resize2d op{{2, 2}, ResizeMode::kBilinear, ResizeGrid::kAsymmetric, {1e-300, 1e-300}};
  check_kernels(op, {x}, [&](const std::vector<HostTensor>& y) {
    CHECK(y[0][0] == x[0]);
    CHECK(y[0][7] == x[17]);
  });
}
