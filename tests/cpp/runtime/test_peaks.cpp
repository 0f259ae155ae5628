#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>

#include "backends/cpu/fastest_rate.h"
#include "core/bfloat16_units.h"
#include "pycnn/error.h"
#include "pycnn/program.h"

namespace pycnn {
namespace {

constexpr double kShort = 0.002;

TEST_CASE("peaks are rates, from the nearest level to memory, on every instruction set") {
  for (const std::string& isa : machine().isas) {
    CAPTURE(isa);
    const MachinePeaks peaks = measure_peaks(isa, 1, kShort);
    CHECK(peaks.isa == isa);
    CHECK(peaks.threads == 1);
    CHECK(!peaks.cpu.empty());
    REQUIRE(!peaks.compute.empty());
    CHECK(peaks.compute[0].dtype == "float32");
    CHECK(peaks.compute[0].unit == isa);
    for (const MachinePeaks::Compute& compute : peaks.compute) {
      CHECK(std::isfinite(compute.flops));
      CHECK(compute.flops > 0.0);
    }
    // AMX may be there and not be granted by the system.
    const auto has_unit = [&](const char* unit) {
      return std::any_of(peaks.compute.begin(), peaks.compute.end(),
                         [&](const MachinePeaks::Compute& compute) {
                           return compute.dtype == "bfloat16" && compute.unit == unit;
                         });
    };
#if defined(__linux__)
    CHECK(has_unit("avx512_bf16") == (isa == "avx512" && has_avx512_bf16()));
#endif
    if (has_unit("amx_bf16")) CHECK((isa == "avx512" && has_amx_bf16()));
    REQUIRE(peaks.memory.size() >= 2);
    CHECK(peaks.memory.front().level == "L1");
    CHECK(peaks.memory.back().level == "memory");
    CHECK(peaks.memory.back().capacity_bytes == 0);
    std::size_t before = 0;
    for (const MachinePeaks::Memory& level : peaks.memory) {
      CAPTURE(level.level);
      CHECK(std::isfinite(level.read_bytes));
      CHECK(level.read_bytes > 0.0);
      CHECK(std::isfinite(level.copy_bytes));
      CHECK(level.copy_bytes > 0.0);
      // The buffer lies in its level and not in the one before.
      CHECK(level.buffer_bytes > before);
      if (level.level != "memory") {
        CHECK(level.buffer_bytes <= level.capacity_bytes);
        before = level.capacity_bytes;
      }
    }
  }
}

TEST_CASE("peaks refuse what makes no sense") {
  for (const double seconds : {0.0, -1.0, 61.0, std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity()})
    CHECK_THROWS_WITH_AS(measure_peaks("auto", 1, seconds), doctest::Contains("seconds"),
                         ArgumentError);
  CHECK_THROWS_AS(measure_peaks("sse9", 1, kShort), ArgumentError);
  CHECK_THROWS_AS(measure_peaks("auto", -1, kShort), ArgumentError);
}

TEST_CASE("the clock of the core is a rate") {
  const double hertz = clock_hertz();
  CHECK(std::isfinite(hertz));
  CHECK(hertz > 1e6);
}

TEST_CASE("a try is as much work as all workers do in it") {
  // Work that takes as long as it says has a known rate.
  std::int64_t calls[2] = {0, 0};
  auto wait = [&](int worker, std::int64_t repeats) {
    ++calls[worker];
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(50) * repeats;
    while (std::chrono::steady_clock::now() < end) {
    }
  };
  for (const int threads : {1, 2}) {
    calls[0] = calls[1] = 0;
    const double rate = cpu::fastest_rate(threads, 0.02, 10.0, wait).per_second;
    // 10 units of each worker in 50 us; others may slow it down, nothing makes it faster.
    CHECK(rate > 0.0);
    CHECK(rate <= threads * 10.0 / 50e-6 * 1.001);
    CHECK(calls[0] >= 2);
    CHECK(calls[1] == (threads == 2 ? calls[0] : 0));
  }
}

}  // namespace
}  // namespace pycnn
