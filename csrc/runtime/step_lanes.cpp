// List scheduling: each step goes to the lane where it can begin first, by estimated times. A step
// depends on an earlier one if either writes what the other touches. Vector clocks tell of which
// steps of other lanes a lane has already been told, so that no event is followed twice.
#include "runtime/step_lanes.h"

#include <algorithm>

namespace pycnn {
namespace {

// To follow an event costs a lane about as much; a lane is not left for less.
constexpr double kEventMicroseconds = 2.0;

bool touch(std::span<const MemoryRows> a, std::span<const MemoryRows> b) {
  return std::any_of(a.begin(), a.end(), [&](const MemoryRows& one) {
    return std::any_of(b.begin(), b.end(),
                       [&](const MemoryRows& two) { return overlap(one, two); });
  });
}

bool depends(const StepUse& later, const StepUse& earlier) {
  return touch(later.reads, earlier.writes) || touch(later.writes, earlier.writes) ||
         touch(later.writes, earlier.reads);
}

}  // namespace

bool overlap(const MemoryRows& a, const MemoryRows& b) noexcept {
  if (a.width == 0 || b.width == 0 || a.rows == 0 || b.rows == 0) return false;
  if (a.begin > b.begin) return overlap(b, a);
  const auto end_of = [](const MemoryRows& rows) {
    return rows.begin + (rows.rows - 1) * rows.pitch + rows.width;
  };
  if (end_of(a) <= b.begin) return false;
  // Columns of one table: a part of the channels each.
  if (a.rows > 1 && b.rows > 1 && a.pitch == b.pitch && a.pitch > 0) {
    const std::size_t column = (b.begin - a.begin) % a.pitch;
    return column < a.width || column + b.width > a.pitch;
  }
  return true;
}

std::vector<LanedStep> plan_lanes(std::span<const StepUse> steps, int lanes) {
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  const auto lane_count = static_cast<std::size_t>(std::max(lanes, 1));
  std::vector<LanedStep> plan(steps.size());
  std::vector<double> end(steps.size());
  std::vector<double> lane_end(lane_count, 0.0);
  std::vector<std::size_t> last(lane_count, kNone);  // step of each lane
  // Of each step and each lane: one more than the last step there that is done before this one
  // ends.
  std::vector<std::vector<std::size_t>> known(steps.size(),
                                              std::vector<std::size_t>(lane_count, 0));
  std::vector<std::vector<std::size_t>> lane_known(lane_count,
                                                   std::vector<std::size_t>(lane_count, 0));

  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::vector<std::size_t> needed(lane_count, kNone);  // the last one of each lane
    if (lane_count > 1) {
      for (std::size_t j = 0; j < i; ++j) {
        if (!depends(steps[i], steps[j])) continue;
        needed[static_cast<std::size_t>(plan[j].lane)] = j;
      }
    }
    std::size_t best = 0;
    double best_begin = 0.0;
    for (std::size_t lane = 0; lane < lane_count; ++lane) {
      double begin = lane_end[lane];
      for (std::size_t other = 0; other < lane_count; ++other) {
        if (needed[other] == kNone || other == lane) continue;
        if (needed[other] < lane_known[lane][other]) continue;  // known of
        begin = std::max(begin, end[needed[other]]) + kEventMicroseconds;
      }
      if (lane != 0 && last[lane] == kNone) begin += kEventMicroseconds;  // it begins with an event
      if (lane == 0 || begin < best_begin) {
        best = lane;
        best_begin = begin;
      }
    }
    LanedStep& step = plan[i];
    step.lane = static_cast<int>(best);
    std::vector<std::size_t>& told = lane_known[best];
    for (std::size_t other = 0; other < lane_count; ++other) {
      const std::size_t j = needed[other];
      if (j == kNone || other == best || j < told[other]) continue;
      step.follows.push_back(j);
      plan[j].is_followed = true;
      for (std::size_t lane = 0; lane < lane_count; ++lane)
        told[lane] = std::max(told[lane], known[j][lane]);
    }
    told[best] = i + 1;
    known[i] = told;
    end[i] = best_begin + steps[i].microseconds;
    lane_end[best] = end[i];
    last[best] = i;
  }
  for (std::size_t lane = 1; lane < lane_count; ++lane)
    if (last[lane] != kNone) plan[last[lane]].is_followed = true;
  return plan;
}

}  // namespace pycnn
