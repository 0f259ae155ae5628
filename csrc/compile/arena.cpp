#include "compile/arena.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <queue>
#include <set>
#include <utility>

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

ArenaLayout place_by_size(std::span<const Lifetime> lifetimes,
                          const std::vector<std::size_t>& order) {
  ArenaLayout layout;
  layout.offsets.resize(lifetimes.size());
  std::vector<Block> placed;
  for (const std::size_t i : order) {
    const Lifetime& life = lifetimes[i];
    const std::size_t bytes = aligned_bytes(life.bytes);
    if (bytes == 0) continue;
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

// The free parts between the blocks that are alive, by place and by size.
class Gaps {
 public:
  // The smallest gap that is large enough, of equals the first; else behind all blocks.
  std::size_t take(std::size_t bytes) {
    const auto found = by_size_.lower_bound({bytes, 0});
    if (found == by_size_.end()) {
      // All gaps are smaller, and none touches the end.
      const std::size_t offset = end_;
      end_ += bytes;
      return offset;
    }
    const auto [size, offset] = *found;
    remove(by_place_.find(offset));
    if (size > bytes) add(offset + bytes, size - bytes);
    return offset;
  }

  void give_back(std::size_t offset, std::size_t bytes) {
    auto after = by_place_.lower_bound(offset);
    if (after != by_place_.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        remove(before);
      }
    }
    if (after != by_place_.end() && after->first == offset + bytes) {
      bytes += after->second;
      remove(after);
    }
    if (offset + bytes == end_)
      end_ = offset;
    else
      add(offset, bytes);
  }

 private:
  using ByPlace = std::map<std::size_t, std::size_t>;
  void add(std::size_t offset, std::size_t bytes) {
    by_place_.emplace(offset, bytes);
    by_size_.emplace(bytes, offset);
  }
  void remove(ByPlace::iterator gap) {
    by_size_.erase({gap->second, gap->first});
    by_place_.erase(gap);
  }

  std::size_t end_ = 0;  // of the last block
  ByPlace by_place_;
  std::set<std::pair<std::size_t, std::size_t>> by_size_;
};

// Each block when its time comes, after those that ended before it.
ArenaLayout place_in_time(std::span<const Lifetime> lifetimes,
                          const std::vector<std::size_t>& order) {
  ArenaLayout layout;
  layout.offsets.resize(lifetimes.size());
  Gaps gaps;
  using Ending = std::pair<int, std::size_t>;  // last step, lifetime
  std::priority_queue<Ending, std::vector<Ending>, std::greater<>> alive;
  for (const std::size_t i : order) {
    const std::size_t bytes = aligned_bytes(lifetimes[i].bytes);
    if (bytes == 0) continue;
    for (; !alive.empty() && alive.top().first < lifetimes[i].first; alive.pop()) {
      const std::size_t ended = alive.top().second;
      gaps.give_back(layout.offsets[ended], aligned_bytes(lifetimes[ended].bytes));
    }
    layout.offsets[i] = gaps.take(bytes);
    layout.bytes = std::max(layout.bytes, layout.offsets[i] + bytes);
    alive.emplace(lifetimes[i].last, i);
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
  ArenaLayout layout = place_in_time(lifetimes, order);
  if (lifetimes.size() > kMostBySize) return layout;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });
  ArenaLayout by_size = place_by_size(lifetimes, order);
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
