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

TEST_CASE("two hundred thousand blocks that live together are placed quickly") {
  // All alive at once, then freed in a scattered order, each freed place taken by a smaller block.
  constexpr int kBlocks = 200000;
  const Philox random(5);
  std::vector<Lifetime> lives;
  std::size_t all = 0;
  for (int i = 0; i < kBlocks; ++i) {
    const auto words = random(static_cast<std::uint64_t>(i), 0);
    const std::size_t bytes = 64 + words[0] % 5000;
    lives.push_back({bytes, i, kBlocks + static_cast<int>(words[1] % kBlocks)});
    all += rounded(bytes);
  }
  for (int i = 0; i < kBlocks; ++i) lives.push_back({64, 2 * kBlocks + i, 2 * kBlocks + i + 1});
  const ArenaLayout layout = share_arena(lives);
  CHECK(layout.bytes == all);
  std::vector<std::pair<std::size_t, std::size_t>> parts;
  for (int i = 0; i < kBlocks; ++i)
    parts.emplace_back(layout.offsets[static_cast<std::size_t>(i)],
                       rounded(lives[static_cast<std::size_t>(i)].bytes));
  std::sort(parts.begin(), parts.end());
  bool disjoint = true;
  for (std::size_t i = 1; i < parts.size(); ++i)
    disjoint &= parts[i - 1].first + parts[i - 1].second <= parts[i].first;
  CHECK(disjoint);
}

TEST_CASE("a freed place is taken again, the tightest first, and neighbours join") {
  // Steps:         a b c d e all alive; a, c freed; x takes c (tighter than a); b freed joins a.
  const std::vector<Lifetime> lives = {{640, 0, 0}, {64, 0, 2},  {128, 0, 0}, {64, 0, 9},
                                       {64, 0, 9},  {128, 1, 9}, {704, 3, 9}};
  std::vector<Lifetime> many = lives;
  for (int i = 0; i < 4000; ++i) many.push_back({0, 0, 0});  // by time only
  const ArenaLayout layout = share_arena(many);
  CHECK(layout.offsets[5] == layout.offsets[2]);
  CHECK(layout.offsets[6] == layout.offsets[0]);
  CHECK(layout.bytes == 640 + 64 + 128 + 64 + 64);
}

TEST_CASE("nothing takes nothing") {
  CHECK(share_arena({}).bytes == 0);
  CHECK(separate_arena({}).bytes == 0);
}

}  // namespace
}  // namespace pycnn
