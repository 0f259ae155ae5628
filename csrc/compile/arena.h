#pragma once
#include <cstddef>
#include <span>
#include <vector>

namespace pycnn {

// Memory that is needed from one step to another, both included.
struct Lifetime {
  std::size_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct ArenaLayout {
  std::vector<std::size_t> offsets;  // one for each lifetime, aligned to 64 bytes
  std::size_t bytes = 0;
};

// Places such that no two blocks overlap both in time and in memory. Takes the best of two greedy
// orders (by size, by time), which are within a few percent of the optimum for networks.
ArenaLayout share_arena(std::span<const Lifetime> lifetimes);

// One block behind the other.
ArenaLayout separate_arena(std::span<const Lifetime> lifetimes);

}  // namespace pycnn
