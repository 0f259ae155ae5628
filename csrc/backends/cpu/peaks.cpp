#include "backends/peaks.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "backends/cpu/fastest_rate.h"
#include "backends/cpu/peak_loops.h"
#include "core/cache_sizes.h"
#include "core/memory.h"
#include "pycnn/tensor.h"

namespace pycnn {
namespace {

using cpu::kPeakBlockBytes;
using cpu::PeakLoops;

constexpr std::size_t kKibibyte = 1024, kMebibyte = 1024 * kKibibyte;
// Where the machine tells nothing.
constexpr std::size_t kUsualL1 = 32 * kKibibyte, kUsualL2 = 512 * kKibibyte;
// Beyond all caches, but not more than is needed to see memory.
constexpr std::size_t kLeastMemory = 64 * kMebibyte, kMostMemory = 1024 * kMebibyte;
// What one call of a loop goes through; a buffer beyond the caches takes many.
constexpr std::size_t kSegment = 256 * kKibibyte;

// Where the loops leave their results, so that nobody takes them for useless.
std::atomic<std::int64_t> peak_sink{0};

const PeakLoops& loops_of(Isa isa) {
#if defined(PYCNN_HAVE_AVX512)
  if (isa == Isa::kAvx512) return cpu::avx512::kPeakLoops;
#endif
#if defined(PYCNN_HAVE_AVX2)
  if (isa >= Isa::kAvx2) return cpu::avx2::kPeakLoops;
#endif
  (void)isa;
  return cpu::baseline::kPeakLoops;
}

struct WorkingSet {
  const char* level;
  std::size_t capacity;    // of all caches of the threads
  std::size_t per_thread;  // bytes to go through
};

// Sizes that fit a level well and the level before not at all.
std::vector<WorkingSet> working_sets(const CacheSizes& sizes, int threads) {
  const auto count = static_cast<std::size_t>(threads);
  const auto total = [&](const CacheLevel& level) {
    const std::size_t cores = static_cast<std::size_t>(std::max(level.cores, 1));
    return level.bytes * ((count + cores - 1) / cores);
  };
  CacheLevel first = sizes.l1, second = sizes.l2;
  if (first.bytes == 0) first.bytes = kUsualL1;
  if (second.bytes == 0) second.bytes = kUsualL2;
  std::vector<WorkingSet> sets = {{"L1", total(first), total(first) / 2 / count}};
  std::size_t reached = total(first);
  for (const auto& [name, level] : {std::pair{"L2", second}, std::pair{"L3", sizes.l3}}) {
    const std::size_t size = total(level);
    // Some have a last level hardly larger than those before it together.
    if (size / 2 < 2 * reached) continue;
    sets.push_back({name, size, size / 2 / count});
    reached = size;
  }
  std::size_t memory = std::clamp(4 * reached, kLeastMemory, kMostMemory);
  memory = std::min(memory, std::max(available_memory() / 4, kMebibyte));
  sets.push_back({"memory", 0, memory / count});
  for (WorkingSet& set : sets) {
    constexpr std::size_t kStep = 2 * kPeakBlockBytes;  // halves are whole blocks
    const std::size_t step = set.per_thread >= 2 * kSegment ? 2 * kSegment : kStep;
    set.per_thread = std::max(set.per_thread / step * step, kStep);
  }
  return sets;
}

// Where a worker is in its part of the buffer: each try goes on where the last one ended.
struct alignas(64) Position {
  std::size_t at = 0;

  std::size_t advance(std::size_t by, std::size_t size) noexcept {
    const std::size_t here = at;
    at = here + by < size ? here + by : 0;
    return here;
  }
};

void measure_level(const WorkingSet& set, const PeakLoops& loops, int threads, double seconds,
                   DevicePeaks& peaks) {
  const std::size_t size = set.per_thread, bytes = size * static_cast<std::size_t>(threads);
  Tensor buffer({{static_cast<std::int64_t>(bytes)}, DType::kUInt8});
  std::byte* const data = static_cast<std::byte*>(buffer.mutable_raw());
  // Pages that nobody wrote to are one page of zeros, and come from the cache.
  std::memset(data, 0x3C, bytes);

  const auto step_of = [](std::size_t part) { return part >= 2 * kSegment ? kSegment : part; };
  const std::size_t half = size / 2, read_step = step_of(size), copy_step = step_of(half);
  std::vector<Position> positions(static_cast<std::size_t>(threads));
  auto read = [&](int worker, std::int64_t repeats) {
    const std::byte* const from = data + size * static_cast<std::size_t>(worker);
    Position& position = positions[static_cast<std::size_t>(worker)];
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < repeats; ++i)
      sum += loops.read(from + position.advance(read_step, size),
                        static_cast<std::int64_t>(read_step));
    peak_sink.fetch_add(sum, std::memory_order_relaxed);
  };
  auto copy = [&](int worker, std::int64_t repeats) {
    std::byte* const part = data + size * static_cast<std::size_t>(worker);
    Position& position = positions[static_cast<std::size_t>(worker)];
    for (std::int64_t i = 0; i < repeats; ++i) {
      std::byte* const from = part + position.advance(copy_step, half);
      loops.copy(from, from + half, static_cast<std::int64_t>(copy_step));
    }
  };
  const cpu::FastestRate read_rate =
      cpu::fastest_rate(threads, seconds, static_cast<double>(read_step), read);
  positions.assign(positions.size(), Position{});
  const cpu::FastestRate copy_rate =
      cpu::fastest_rate(threads, seconds, 2.0 * static_cast<double>(copy_step), copy);
  peaks.memory.push_back(
      {set.level, set.capacity, bytes, read_rate.per_second, copy_rate.per_second});
  peaks.disturbed = peaks.disturbed || read_rate.disturbed || copy_rate.disturbed;
}

void measure_unit(const char* dtype, const cpu::ComputeLoop& loop, int threads, double seconds,
                  DevicePeaks& peaks) {
  if (loop.multiply_add == nullptr) return;
  auto work = [&](int, std::int64_t repeats) {
    peak_sink.fetch_add(static_cast<std::int64_t>(loop.multiply_add(repeats)),
                        std::memory_order_relaxed);
  };
  const cpu::FastestRate rate =
      cpu::fastest_rate(threads, seconds, static_cast<double>(loop.flops_per_round), work);
  peaks.compute.push_back({dtype, loop.unit, rate.per_second});
  peaks.disturbed = peaks.disturbed || rate.disturbed;
}

}  // namespace

DevicePeaks measure_cpu_peaks(Isa isa, int threads, double seconds) {
  const PeakLoops& loops = loops_of(isa);
  DevicePeaks peaks;
  measure_unit("float32", {isa_name(isa), loops.multiply_add, loops.flops_per_round}, threads,
               seconds, peaks);
  if (isa == Isa::kAvx512) {
    measure_unit("bfloat16", cpu::avx512_bf16_loop(), threads, seconds, peaks);
    measure_unit("bfloat16", cpu::amx_bf16_loop(), threads, seconds, peaks);
  }
  for (const WorkingSet& set : working_sets(cache_sizes(), threads))
    measure_level(set, loops, threads, seconds, peaks);
  return peaks;
}

}  // namespace pycnn
