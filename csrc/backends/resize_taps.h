#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "pycnn/ops.h"

// What each row and each column of a resized image takes of the given one, as lists of weighted
// places; the gradient takes the lists turned round. Of Resize2d on every device.
namespace pycnn::resize_taps {

struct Tap {
  std::int64_t source;
  double weight;
};

// Of one axis: result i takes taps[first[i]] up to taps[first[i + 1]].
struct Taps {
  std::vector<std::int64_t> first = {0};
  std::vector<Tap> taps;

  std::int64_t begin(std::int64_t i) const { return first[static_cast<std::size_t>(i)]; }
  std::int64_t end(std::int64_t i) const { return first[static_cast<std::size_t>(i) + 1]; }
  const Tap& at(std::int64_t k) const { return taps[static_cast<std::size_t>(k)]; }
};

struct Axis {
  std::int64_t given, resized;
  double scale;  // 0: resized / given
};

// Where result i lies in the given image. Without a scale the fraction is rounded once.
inline double place_of(const ops::Resize2d& op, const Axis& axis, std::int64_t i) {
  const auto x = static_cast<double>(i), given = static_cast<double>(axis.given),
             resized = static_cast<double>(axis.resized);
  switch (op.grid) {
    case ResizeGrid::kAlignCorners:
      return axis.resized == 1 ? 0.0 : x * (given - 1.0) / (resized - 1.0);
    case ResizeGrid::kAsymmetric:
      return axis.scale == 0.0 ? x * given / resized : x / axis.scale;
    case ResizeGrid::kPytorchHalfPixel:
      if (axis.resized == 1) return 0.0;
      break;
    case ResizeGrid::kHalfPixel:
      break;
  }
  return axis.scale == 0.0 ? ((2.0 * x + 1.0) * given - resized) / (2.0 * resized)
                           : (x + 0.5) / axis.scale - 0.5;
}

inline double nearest(ResizeMode mode, double place) {
  switch (mode) {
    case ResizeMode::kNearestCeil:
      return std::ceil(place);
    case ResizeMode::kNearestRoundDown:
      return std::ceil(place - 0.5);
    case ResizeMode::kNearestRoundUp:
      return std::floor(place + 0.5);
    default:
      return std::floor(place);
  }
}

inline Taps taps_of(const ops::Resize2d& op, const Axis& axis) {
  const auto last = static_cast<double>(axis.given - 1);
  Taps result;
  const auto add = [&](double source, double weight) {
    if (weight != 0.0)
      result.taps.push_back({static_cast<std::int64_t>(std::clamp(source, 0.0, last)), weight});
  };
  for (std::int64_t i = 0; i < axis.resized; ++i) {
    const double place = place_of(op, axis, i), before = std::floor(place);
    if (op.mode != ResizeMode::kBilinear) {
      add(nearest(op.mode, place), 1.0);
    } else if (before < 0.0 || before >= last) {
      add(place, 1.0);
    } else {
      add(before, 1.0 - (place - before));
      add(before + 1.0, place - before);
    }
    result.first.push_back(static_cast<std::int64_t>(result.taps.size()));
  }
  return result;
}

// For each source the results that take it.
inline Taps turned(const Taps& taps, std::int64_t sources) {
  std::vector<std::vector<Tap>> lists(static_cast<std::size_t>(sources));
  const auto count = static_cast<std::int64_t>(taps.first.size()) - 1;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t k = taps.begin(i); k < taps.end(i); ++k)
      lists[static_cast<std::size_t>(taps.at(k).source)].push_back({i, taps.at(k).weight});
  Taps result;
  for (const std::vector<Tap>& list : lists) {
    result.taps.insert(result.taps.end(), list.begin(), list.end());
    result.first.push_back(static_cast<std::int64_t>(result.taps.size()));
  }
  return result;
}

inline Axis axis_of(const ops::Resize2d& op, std::size_t i, std::int64_t given) {
  return {given, op.output_size[i], op.scales.empty() ? 0.0 : op.scales[i]};
}

}  // namespace pycnn::resize_taps
