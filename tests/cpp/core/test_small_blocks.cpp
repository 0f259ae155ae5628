#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "core/small_blocks.h"

#if defined(__linux__)

using namespace pycnn;

namespace {

struct Block {
  unsigned char* data;
  std::size_t bytes;
  unsigned char mark;
};

bool holds_only(const Block& block, unsigned char value) {
  return std::all_of(block.data, block.data + block.bytes,
                     [&](unsigned char byte) { return byte == value; });
}

// Takes and gives back blocks of all sizes in any order; returns how many were not as they ought to
// be.
int churn(std::uint32_t seed, int rounds) {
  std::mt19937 random(seed);
  std::vector<Block> blocks;
  int wrong = 0;
  const auto give_back = [&](std::size_t i) {
    wrong += !holds_only(blocks[i], blocks[i].mark);
    wrong += !give_back_small_block(blocks[i].data, blocks[i].bytes);
    blocks[i] = blocks.back();
    blocks.pop_back();
  };
  for (int round = 0; round < rounds; ++round) {
    if (!blocks.empty() && random() % 2 == 0) give_back(random() % blocks.size());
    std::size_t bytes = kSmallestBlock + random() % (std::size_t{256} << 10);
    if (round % 16 == 0) bytes = kSmallBlockRegion / 8;
    auto* const data = static_cast<unsigned char*>(take_small_block(bytes));
    if (data == nullptr) return wrong + 1;
    blocks.push_back({data, bytes, static_cast<unsigned char>(1 + random() % 255)});
    wrong += !holds_only(blocks.back(), 0) + (reinterpret_cast<std::uintptr_t>(data) % 64 != 0);
    std::memset(data, blocks.back().mark, bytes);
  }
  while (!blocks.empty()) give_back(blocks.size() - 1);
  return wrong;
}

}  // namespace

TEST_CASE("small blocks are zero, aligned and nobody else's, in any order") {
  CHECK(churn(1, 400) == 0);
}

TEST_CASE("threads share small blocks") {
  constexpr int kThreads = 4;
  std::vector<int> wrong(kThreads, 1);
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (std::size_t i = 0; i < kThreads; ++i)
    threads.emplace_back([&, i] { wrong[i] = churn(static_cast<std::uint32_t>(10 + i), 60); });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(kThreads, 0));
}

TEST_CASE("memory that is from elsewhere is no small block") {
  int here = 0;
  CHECK_FALSE(give_back_small_block(&here, kSmallestBlock));
}

TEST_CASE("a small block that was given back is taken again") {
  void* const first = take_small_block(100000);
  REQUIRE(first != nullptr);
  CHECK(give_back_small_block(first, 100000));
  void* const second = take_small_block(100000);
  CHECK(second == first);
  CHECK(give_back_small_block(second, 100000));
}

#endif
