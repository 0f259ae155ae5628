#include "compile/arena.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "runtime/program_plan.h"

namespace pycnn {
namespace {

// Ordering by size compares each block with each.
constexpr std::size_t kMostBySize = 4000;

struct Block {
  std::size_t offset;
  std::size_t bytes;
  Lifetime life;
};

bool meet(const Lifetime& a, const Lifetime& b) { return a.first <= b.last && b.first <= a.last; }

// The smallest gap among the blocks (sorted by offset) that are alive with `life`, or the place
// behind them all.
std::size_t best_gap(const std::vector<Block>& placed, const Lifetime& life, std::size_t bytes) {
  std::size_t end = 0;  // of the blocks seen so far
  std::size_t best = 0;
  std::size_t best_size = std::numeric_limits<std::size_t>::max();
  for (const Block& block : placed) {
    if (!meet(block.life, life)) continue;
    if (block.offset > end && block.offset - end >= bytes && block.offset - end < best_size) {
      best = end;
      best_size = block.offset - end;
    }
    end = std::max(end, block.offset + block.bytes);
  }
  return best_size == std::numeric_limits<std::size_t>::max() ? end : best;
}

ArenaLayout place(std::span<const Lifetime> lifetimes, const std::vector<std::size_t>& order,
                  bool in_time) {
  ArenaLayout layout;
  layout.offsets.resize(lifetimes.size());
  std::vector<Block> placed;
  for (const std::size_t i : order) {
    const Lifetime& life = lifetimes[i];
    const std::size_t bytes = aligned_bytes(life.bytes);
    if (bytes == 0) continue;
    if (in_time)
      std::erase_if(placed, [&](const Block& block) { return block.life.last < life.first; });
    const std::size_t offset = best_gap(placed, life, bytes);
    const Block block{offset, bytes, life};
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), block,
                         [](const Block& a, const Block& b) { return a.offset < b.offset; }),
        block);
    layout.offsets[i] = offset;
    layout.bytes = std::max(layout.bytes, offset + bytes);
  }
  return layout;
}

}  // namespace

ArenaLayout share_arena(std::span<const Lifetime> lifetimes) {
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].first < lifetimes[b].first;
  });
  ArenaLayout layout = place(lifetimes, order, true);
  if (lifetimes.size() > kMostBySize) return layout;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });
  ArenaLayout by_size = place(lifetimes, order, false);
  return by_size.bytes < layout.bytes ? by_size : layout;
}

ArenaLayout separate_arena(std::span<const Lifetime> lifetimes) {
  ArenaLayout layout;
  for (const Lifetime& life : lifetimes) {
    layout.offsets.push_back(layout.bytes);
    layout.bytes += aligned_bytes(life.bytes);
  }
  return layout;
}

}  // namespace pycnn
