#include <doctest/doctest.h>

#include <algorithm>

#include "compile/arena.h"
#include "core/rng.h"

namespace pycnn {
namespace {

std::size_t rounded(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

void check_disjoint(const std::vector<Lifetime>& lives, const ArenaLayout& layout) {
  for (std::size_t i = 0; i < lives.size(); ++i) {
    CHECK(layout.offsets[i] % 64 == 0);
    CHECK(layout.offsets[i] + lives[i].bytes <= layout.bytes);
    for (std::size_t j = 0; j < i; ++j) {
      const bool together = lives[i].first <= lives[j].last && lives[j].first <= lives[i].last;
      const bool overlap = lives[i].bytes > 0 && lives[j].bytes > 0 &&
                           layout.offsets[i] < layout.offsets[j] + lives[j].bytes &&
                           layout.offsets[j] < layout.offsets[i] + lives[i].bytes;
      CHECK(!(together && overlap));
    }
  }
}

TEST_CASE("blocks that live together never overlap, and sharing is near the bound") {
  const Philox random(11);
  for (std::uint64_t trial = 0; trial < 50; ++trial) {
    CAPTURE(trial);
    std::vector<Lifetime> lives;
    std::vector<std::size_t> alive(64, 0);
    for (std::uint64_t i = 0; i < 1 + trial; ++i) {
      const auto words = random(i, trial);
      const int first = static_cast<int>(words[0] % 40);
      const int last = first + static_cast<int>(words[1] % 6);
      const std::size_t bytes = words[2] % 7 == 0 ? 0 : words[2] % 5000;
      lives.push_back({bytes, first, last});
      for (int step = first; step <= last; ++step)
        alive[static_cast<std::size_t>(step)] += rounded(bytes);
    }
    const ArenaLayout shared = share_arena(lives);
    check_disjoint(lives, shared);
    const std::size_t bound = *std::max_element(alive.begin(), alive.end());
    CHECK(shared.bytes >= bound);
    CHECK(static_cast<double>(shared.bytes) <= 1.3 * static_cast<double>(bound));
    const ArenaLayout separate = separate_arena(lives);
    check_disjoint(lives, separate);
    CHECK(shared.bytes <= separate.bytes);
  }
}

TEST_CASE("very many blocks are placed quickly") {
  std::vector<Lifetime> lives;
  for (int i = 0; i < 50000; ++i) lives.push_back({1000, i, i + 1});
  CHECK(share_arena(lives).bytes == 2 * 1024);
}

TEST_CASE("nothing takes nothing") {
  CHECK(share_arena({}).bytes == 0);
  CHECK(separate_arena({}).bytes == 0);
}

}  // namespace
}  // namespace pycnn
