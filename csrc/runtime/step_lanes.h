#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// Which steps of a device may run side by side: branches of an inception block, weight gradients
// beside input gradients. They keep their order but for that, and every step still finds what it
// reads and writes as if it ran alone, so results have the same bits.
namespace pycnn {

// What a step touches: rows of bytes at equal distances.
struct MemoryRows {
  std::uintptr_t begin = 0;
  std::size_t width = 0;  // bytes of a row; 0: nothing
  std::size_t pitch = 0;  // from row to row; of several rows at least the width
  std::size_t rows = 1;
};
bool overlap(const MemoryRows& a, const MemoryRows& b) noexcept;

struct StepUse {
  std::vector<MemoryRows> reads;
  std::vector<MemoryRows> writes;
  double microseconds = 0.0;  // about how long it takes alone
};

struct LanedStep {
  int lane = 0;
  std::vector<std::size_t>
      follows;               // earlier steps of other lanes, to be done before this one begins
  bool is_followed = false;  // by such a step, or by the main lane at the end
};

// For each step in order. Lane 0 is the main one: it comes first and follows the last step of every
// other lane at the end. `lanes` 1: all steps there.
std::vector<LanedStep> plan_lanes(std::span<const StepUse> steps, int lanes);

}  // namespace pycnn
