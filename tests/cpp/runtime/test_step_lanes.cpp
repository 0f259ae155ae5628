#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "runtime/step_lanes.h"

namespace pycnn {
namespace {

std::set<std::uintptr_t> bytes_of(const MemoryRows& rows) {
  std::set<std::uintptr_t> bytes;
  for (std::size_t row = 0; row < rows.rows; ++row)
    for (std::size_t i = 0; i < rows.width; ++i) bytes.insert(rows.begin + row * rows.pitch + i);
  return bytes;
}

bool share(const MemoryRows& a, const MemoryRows& b) {
  const std::set<std::uintptr_t> first = bytes_of(a), second = bytes_of(b);
  return std::any_of(first.begin(), first.end(),
                     [&](std::uintptr_t byte) { return second.contains(byte); });
}

TEST_CASE("lanes: blocks that share a byte overlap, and columns of one table do not") {
  std::mt19937 random(1);
  const auto draw = [&](int low, int high) {
    return static_cast<std::size_t>(std::uniform_int_distribution<int>(low, high)(random));
  };
  int apart = 0, columns = 0;
  for (int i = 0; i < 5000; ++i) {
    const auto block = [&](std::size_t pitch) {
      MemoryRows rows{100 + draw(0, 40), draw(0, 6), pitch, draw(1, 4)};
      rows.width = std::min(rows.width, rows.pitch);
      return rows;
    };
    const std::size_t pitch = draw(1, 9);
    const bool same = draw(0, 1) == 1;
    const MemoryRows a = block(pitch), b = block(same ? pitch : draw(1, 9));
    CAPTURE(i);
    if (share(a, b)) CHECK(overlap(a, b));
    CHECK(overlap(a, b) == overlap(b, a));
    if (!overlap(a, b)) ++apart;
    // Exact where pitches agree, which is what parts of a concatenation are.
    if (a.pitch == b.pitch && a.rows > 1 && b.rows > 1 && !share(a, b)) {
      const bool ranges_meet = a.begin < b.begin + (b.rows - 1) * b.pitch + b.width &&
                               b.begin < a.begin + (a.rows - 1) * a.pitch + a.width;
      if (ranges_meet && !overlap(a, b)) ++columns;
    }
  }
  CHECK(apart > 500);
  CHECK(columns > 50);
  CHECK(!overlap({100, 4, 12, 5}, {104, 8, 12, 5}));
  CHECK(overlap({100, 5, 12, 5}, {104, 8, 12, 5}));
  CHECK(!overlap({100, 8, 8, 1}, {108, 8, 8, 1}));
  CHECK(!overlap({100, 0, 0, 1}, {100, 8, 8, 1}));
}

MemoryRows whole(std::uintptr_t place) { return {1000 * (place + 1), 100, 100, 1}; }

StepUse step(std::vector<std::uintptr_t> reads, std::vector<std::uintptr_t> writes,
             double microseconds = 10.0) {
  StepUse use;
  for (const std::uintptr_t place : reads) use.reads.push_back(whole(place));
  for (const std::uintptr_t place : writes) use.writes.push_back(whole(place));
  use.microseconds = microseconds;
  return use;
}

std::vector<int> lanes_of(const std::vector<LanedStep>& plan) {
  std::vector<int> lanes;
  for (const LanedStep& step : plan) lanes.push_back(step.lane);
  return lanes;
}

TEST_CASE("lanes: a chain stays on the main lane") {
  const std::vector<StepUse> steps = {step({0}, {1}), step({1}, {2}), step({2}, {3})};
  for (const int lanes : {1, 2, 3}) {
    const std::vector<LanedStep> plan = plan_lanes(steps, lanes);
    CHECK(lanes_of(plan) == std::vector<int>{0, 0, 0});
    for (const LanedStep& each : plan) {
      CHECK(each.follows.empty());
      CHECK(!each.is_followed);
    }
  }
}

TEST_CASE("lanes: branches run side by side and what joins them follows") {
  // 1 -> (2 -> 3, 4 -> 5) -> 6
  const std::vector<StepUse> steps = {step({0}, {1}), step({1}, {2}), step({1}, {4}),
                                      step({2}, {3}), step({4}, {5}), step({3, 5}, {6})};
  const std::vector<LanedStep> plan = plan_lanes(steps, 3);
  CHECK(lanes_of(plan) == std::vector<int>{0, 0, 1, 0, 1, 0});
  CHECK(plan[2].follows == std::vector<std::size_t>{0});
  CHECK(plan[4].follows.empty());
  CHECK(plan[5].follows == std::vector<std::size_t>{4});
  CHECK(plan[4].is_followed);
  CHECK(!plan[3].is_followed);
  CHECK(lanes_of(plan_lanes(steps, 1)) == std::vector<int>(6, 0));
}

TEST_CASE("lanes: memory used again makes a step wait, too") {
  // The second branch writes where the first one reads.
  const std::vector<StepUse> steps = {step({0}, {1}), step({1}, {2}), step({0}, {1})};
  const std::vector<LanedStep> plan = plan_lanes(steps, 2);
  CHECK(plan[2].lane == 0);
}

TEST_CASE("lanes: short steps are not worth an event") {
  const std::vector<StepUse> steps = {step({0}, {1}, 1.0), step({1}, {2}, 1.0),
                                      step({1}, {3}, 1.0)};
  CHECK(lanes_of(plan_lanes(steps, 3)) == std::vector<int>{0, 0, 0});
}

// Which steps are certainly done before each one begins.
std::vector<std::vector<bool>> order_of(const std::vector<LanedStep>& plan) {
  const std::size_t count = plan.size();
  std::vector<std::vector<bool>> before(count, std::vector<bool>(count, false));
  for (std::size_t i = 0; i < count; ++i) {
    const auto after = [&](std::size_t j) {
      before[i][j] = true;
      for (std::size_t k = 0; k < count; ++k)
        if (before[j][k]) before[i][k] = true;
    };
    for (std::size_t j = 0; j < i; ++j)
      if (plan[j].lane == plan[i].lane) after(j);
    for (const std::size_t j : plan[i].follows) after(j);
  }
  return before;
}

TEST_CASE("lanes: whatever the steps, dependent ones keep their order") {
  std::mt19937 random(7);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  int side = 0, followed = 0;
  for (int round = 0; round < 300; ++round) {
    std::vector<StepUse> steps;
    const int count = draw(1, 30), places = draw(3, 25);
    for (int i = 0; i < count; ++i) {
      std::vector<std::uintptr_t> reads, writes = {static_cast<std::uintptr_t>(draw(0, places))};
      for (int r = draw(0, 3); r > 0; --r)
        reads.push_back(static_cast<std::uintptr_t>(draw(0, places)));
      steps.push_back(step(reads, writes, draw(1, 40)));
    }
    const int lanes = draw(1, 4);
    const std::vector<LanedStep> plan = plan_lanes(steps, lanes);
    REQUIRE(plan.size() == steps.size());
    const std::vector<std::vector<bool>> before = order_of(plan);
    const auto touch = [](const std::vector<MemoryRows>& a, const std::vector<MemoryRows>& b) {
      return std::any_of(a.begin(), a.end(), [&](const MemoryRows& one) {
        return std::any_of(b.begin(), b.end(),
                           [&](const MemoryRows& two) { return share(one, two); });
      });
    };
    CAPTURE(round);
    for (std::size_t i = 0; i < plan.size(); ++i) {
      CHECK(plan[i].lane < lanes);
      side += plan[i].lane > 0;
      for (const std::size_t j : plan[i].follows) {
        CHECK(j < i);
        CHECK(plan[j].lane != plan[i].lane);
        CHECK(plan[j].is_followed);
        ++followed;
      }
      for (std::size_t j = 0; j < i; ++j)
        if (touch(steps[i].reads, steps[j].writes) || touch(steps[i].writes, steps[j].writes) ||
            touch(steps[i].writes, steps[j].reads))
          CHECK(before[i][j]);
    }
    for (int lane = 1; lane < lanes; ++lane) {
      const auto last = std::find_if(plan.rbegin(), plan.rend(),
                                     [&](const LanedStep& each) { return each.lane == lane; });
      if (last != plan.rend()) CHECK(last->is_followed);
    }
  }
  CHECK(side > 300);
  CHECK(followed > 300);
}

}  // namespace
}  // namespace pycnn
