#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/cpu_features.h"
#include "core/parallel.h"

#if defined(__linux__)
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

using namespace pycnn;

namespace {

void busy(std::chrono::microseconds duration) {
  const auto until = std::chrono::steady_clock::now() + duration;
  while (std::chrono::steady_clock::now() < until) {
  }
}

// Whether every chunk is called once, by a worker below `threads`, and no two chunks share a worker
// at one time.
bool sound(int threads, std::int64_t chunks, std::chrono::microseconds duration = {}) {
  std::vector<std::atomic<int>> calls(static_cast<std::size_t>(chunks));
  std::vector<std::atomic<int>> inside(static_cast<std::size_t>(threads));
  std::atomic<bool> good{true};
  parallel_for(threads, chunks, [&](std::int64_t chunk, int worker) {
    if (worker < 0 || worker >= threads ||
        inside[static_cast<std::size_t>(worker)].fetch_add(1) != 0)
      good = false;
    calls[static_cast<std::size_t>(chunk)].fetch_add(1);
    if (duration.count() > 0) busy(duration);
    inside[static_cast<std::size_t>(worker)].fetch_sub(1);
  });
  for (const auto& count : calls) good = good && count.load() == 1;
  return good;
}

}  // namespace

#if defined(__linux__)
TEST_CASE("helpers take part") {
  if (thread_choice().affinity < 2) return;
  // On a busy machine the scheduler may keep a helper on the caller's processor, where it does not
  // help. Bound threads are kept apart, and binding must be asked for before the program starts.
  if (std::getenv("OMP_PROC_BIND") == nullptr) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::setenv("OMP_PROC_BIND", "close", 1);
      ::execl("/proc/self/exe", "tests", "--test-case=helpers take part", "--minimal", nullptr);
      ::_exit(127);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    return;
  }
  const auto caller = std::this_thread::get_id();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  std::atomic<int> others{0};
  while (others.load() == 0 && std::chrono::steady_clock::now() < deadline) {
    parallel_for(2, 10, [&](std::int64_t, int worker) {
      if (worker != 0 && std::this_thread::get_id() != caller) others.fetch_add(1);
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    });
  }
  CHECK(others.load() > 0);
}
#endif

TEST_CASE("parallel_for calls every chunk exactly once") {
  for (const int threads : {1, 2, 3, 7, 16}) {
    for (const std::int64_t chunks : {0, 1, 2, 3, 17, 1000}) {
      CAPTURE(threads);
      CAPTURE(chunks);
      for (int repeat = 0; repeat < 20; ++repeat) REQUIRE(sound(threads, chunks));
    }
  }
  CHECK(sound(4, 60, std::chrono::microseconds(200)));
}

TEST_CASE("parallel_for without anything to do returns") {
  bool called = false;
  const auto body = [&](std::int64_t, int) { called = true; };
  parallel_for(4, 0, body);
  parallel_for(4, -5, body);
  CHECK_FALSE(called);
  parallel_for(0, 1, body);
  CHECK(called);
}

TEST_CASE("results of many short jobs are visible after the return") {
  // Plain, not atomic: a data race would be one that a thread sanitizer sees.
  std::vector<std::int64_t> values(64);
  std::int64_t expected = 0;
  for (int job = 0; job < 20000; ++job) {
    const int threads = 1 + job % 5;
    parallel_for(threads, static_cast<std::int64_t>(values.size()), [&](std::int64_t chunk, int) {
      values[static_cast<std::size_t>(chunk)] += chunk;
    });
  }
  for (const std::int64_t value : values) {
    REQUIRE(value == 20000 * expected);
    ++expected;
  }
}

TEST_CASE("nested calls run on the calling thread") {
  std::atomic<int> inner{0};
  std::atomic<bool> good{true};
  parallel_for(3, 12, [&](std::int64_t, int) {
    const auto me = std::this_thread::get_id();
    parallel_for(3, 5, [&](std::int64_t, int worker) {
      if (worker != 0 || std::this_thread::get_id() != me) good = false;
      inner.fetch_add(1);
    });
  });
  CHECK(inner.load() == 60);
  CHECK(good.load());
}

TEST_CASE("eight threads may call at once") {
  std::atomic<int> bad{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int job = 0; job < 300; ++job) {
        if (!sound(1 + (t + job) % 4, 1 + job % 23)) bad.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(bad.load() == 0);
}

TEST_CASE("the team grows with the demand, between jobs") {
  for (int threads = 1; threads <= 24; ++threads) REQUIRE(sound(threads, 100));
  for (int threads = 24; threads >= 1; --threads) REQUIRE(sound(threads, 100));
}

TEST_CASE("more threads than a team may have are clamped") { CHECK(sound(1 << 20, 4)); }

TEST_CASE("parallel_ranges covers the range with chunks of the grain") {
  for (const std::int64_t count : {0, 1, 7, 8, 9, 1000}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
    std::atomic<bool> good{true};
    parallel_ranges(3, count, 8, [&](std::int64_t begin, std::int64_t end) {
      if (begin % 8 != 0 || end - begin > 8 || end <= begin || (end - begin < 8 && end != count))
        good = false;
      for (std::int64_t i = begin; i < end; ++i) seen[static_cast<std::size_t>(i)].fetch_add(1);
    });
    for (const auto& times : seen) good = good && times.load() == 1;
    CHECK(good.load());
  }
}

#if defined(__SSE2__)
TEST_CASE("helpers compute under the caller's rounding and denormal modes") {
  const unsigned before = _mm_getcsr();
  constexpr unsigned kFlushToZero = 0x8000;
  for (const unsigned modes : {before | kFlushToZero, before & ~kFlushToZero}) {
    _mm_setcsr(modes);
    std::atomic<int> wrong{0};
    for (int job = 0; job < 50; ++job) {
      parallel_for(3, 12, [&](std::int64_t, int) {
        if ((_mm_getcsr() & 0xFFC0u) != (modes & 0xFFC0u)) wrong.fetch_add(1);
        busy(std::chrono::microseconds(20));
      });
    }
    CHECK(wrong.load() == 0);
    CHECK((_mm_getcsr() & 0xFFC0u) == (modes & 0xFFC0u));
  }
  _mm_setcsr(before);
}
#endif

// The thread sanitizer ends a forked child that starts a thread.
#if defined(__linux__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a forked child has a working team") {
  REQUIRE(sound(3, 50));
  for (int round = 0; round < 5; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(120);
      bool good = true;
      for (int job = 0; job < 200; ++job) good = good && sound(3, 50);
      // A child of the child, too.
      const pid_t grandchild = ::fork();
      if (grandchild == 0) {
        ::alarm(120);
        ::_exit(sound(4, 50) ? 0 : 1);
      }
      int status = -1;
      ::waitpid(grandchild, &status, 0);
      ::_exit(good && status == 0 ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(sound(3, 50));
  }
}

TEST_CASE("fork while another thread runs jobs") {
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) sound(3, 20);
  });
  for (int round = 0; round < 10; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(120);
      // No allocation here: another thread may have held the allocator's lock in a sanitizer build.
      std::atomic<int> count{0};
      parallel_for(2, 10, [&](std::int64_t, int) { count.fetch_add(1); });
      ::_exit(count.load() == 10 ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
  stop = true;
  other.join();
}

TEST_CASE("an idle team uses no processor time") {
  REQUIRE(sound(3, 50));
  // Helpers of teams before this one may still be about to end on a busy machine, but not for long.
  double used_ms = 0.0;
  for (int attempt = 0; attempt < 20; ++attempt) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    timespec begin{}, end{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    used_ms = static_cast<double>(end.tv_sec - begin.tv_sec) * 1e3 +
              static_cast<double>(end.tv_nsec - begin.tv_nsec) * 1e-6;
    if (used_ms < 20) break;
  }
  CHECK(used_ms < 20);
}

TEST_CASE("a process ends cleanly while helpers watch or sleep") {
  for (int round = 0; round < 5; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(120);
      parallel_for(4, 100, [](std::int64_t, int) {});
      if (round % 2 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      std::quick_exit(0);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
}
#endif
