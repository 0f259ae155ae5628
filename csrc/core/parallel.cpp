// The team of threads behind parallel_for.
//
// One job at a time is on offer, described by a single word, the ticket: how many threads may take
// part and how many chunks nobody has taken yet. A thread takes a chunk by lowering the ticket with
// compare-and-swap. The job cannot end while a chunk is held, so a thread may read the rest of the
// description (body, chunk count) once it holds one, and a helper that comes too late finds an
// empty ticket and touches nothing. The caller therefore waits for chunks, never for threads.
//
// Between jobs helpers watch the ticket for some microseconds, then sleep on a word of their own.
// Publishing a job costs a system call only for helpers that sleep.
//
// The helpers are members 1, 2, ... of one OpenMP parallel region that a host thread (member 0,
// asleep) keeps open. So OMP_PROC_BIND and OMP_PLACES are honoured, while no job pays for the fork
// and join of a region, and a forked child opens a region of its own, from a new host thread.
#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "core/wait_word.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#define PYCNN_POSIX_THREADS 1
#else
#define PYCNN_POSIX_THREADS 0
#endif
#if defined(__linux__)
#include <sched.h>
#include <time.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(PYCNN_WITH_OPENMP)
#include <omp.h>
#endif

namespace pycnn {
namespace {

using Body = FunctionRef<void(std::int64_t chunk, int worker)>;

constexpr std::int64_t kMicrosecond = 1000;
constexpr std::int64_t kMillisecond = 1000 * kMicrosecond;

// How long a helper without work, and a caller without chunks, watch before they sleep.
constexpr std::int64_t kHelperSpin = 40 * kMicrosecond;
constexpr std::int64_t kCallerSpin = 50 * kMicrosecond;
// A stall is time that the caller slept for helpers that did not run either. Such helpers share
// their core with somebody else. Every machine has something to do now and then, so kForgiven of it
// passes, once in kForgetFactor times as long. Beyond that the caller does without helpers for
// kAloneFactor times as long as it stood still: waiting stays below a tenth.
constexpr std::int64_t kMinStall = 50 * kMicrosecond;
constexpr std::int64_t kForgiven = 8 * kMillisecond;
constexpr std::int64_t kForgetFactor = 30;
constexpr std::int64_t kAloneFactor = 15;
constexpr std::int64_t kMinAlone = 1 * kMillisecond;
constexpr std::int64_t kMaxAlone = 200 * kMillisecond;

// The ticket: threads that may take part in the upper bits, chunks left in the lower ones.
constexpr int kLeftBits = 48;
constexpr std::uint64_t kMaxChunks = (std::uint64_t{1} << kLeftBits) - 1;
constexpr std::uint64_t chunks_left(std::uint64_t ticket) noexcept { return ticket & kMaxChunks; }
constexpr int thread_limit(std::uint64_t ticket) noexcept {
  return static_cast<int>(ticket >> kLeftBits);
}
constexpr int kMaxTeam = 1024;

std::int64_t now_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void relax() noexcept {
#if defined(__SSE2__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// -1 where it cannot be told.
int current_cpu() noexcept {
#if defined(__linux__)
  return ::sched_getcpu();
#else
  return -1;
#endif
}

// Rounding and denormal modes, without the sticky exception flags. A helper computes under the
// caller's modes, so that the bits of a chunk do not depend on who takes it.
std::uint32_t float_modes() noexcept {
#if defined(__SSE2__)
  return _mm_getcsr() & 0xFFC0u;
#else
  return 0;
#endif
}

void adopt_float_modes([[maybe_unused]] std::uint32_t modes) noexcept {
#if defined(__SSE2__)
  if (float_modes() != modes) _mm_setcsr(modes);
#endif
}

struct alignas(64) Helper {
  std::atomic<std::uint32_t> asleep{0};
  std::atomic<bool> holds_chunks{false};
  // Whose processor time the caller reads while it waits. Set before the helper takes its first
  // chunk.
  std::atomic<bool> has_clock{false};
#if defined(__linux__)
  clockid_t clock{};
#endif
};

struct Team {
  explicit Team(int threads) : size(threads), helpers(static_cast<std::size_t>(threads)) {}

  const int size;  // the caller included
  alignas(64) std::atomic<std::uint64_t> ticket{0};
  alignas(64) std::atomic<std::int64_t> unfinished{0};
  std::atomic<std::uint32_t> caller_asleep{0};
  std::atomic<bool> crowded{false};

  // Written between jobs, read by whoever holds a chunk.
  alignas(64) const Body* body = nullptr;
  std::int64_t chunks = 0;
  std::uint32_t modes = 0;
  std::atomic<int> caller_cpu{-1};

  // First the helpers are told to leave, then the host, who frees the team after them.
  alignas(64) std::atomic<std::uint32_t> stop{0};
  std::atomic<std::uint32_t> released{0};
  std::vector<Helper> helpers;
};

// Takes a chunk; false when none is left for this thread.
bool take(Team& team, int worker, std::int64_t& chunk) noexcept {
  std::uint64_t ticket = team.ticket.load(std::memory_order_relaxed);
  while (chunks_left(ticket) > 0 && worker < thread_limit(ticket)) {
    if (team.ticket.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed)) {
      chunk = team.chunks - static_cast<std::int64_t>(chunks_left(ticket));
      return true;
    }
  }
  return false;
}

// Helpers are woken as a tree, so that no thread makes more than kBranch system calls.
constexpr int kBranch = 8;
void wake_children(Team& team, int worker, int limit) noexcept {
  const int first = worker * kBranch + 1;
  for (int child = first; child < first + kBranch && child < limit && child < team.size; ++child) {
    std::atomic<std::uint32_t>& asleep = team.helpers[static_cast<std::size_t>(child)].asleep;
    if (asleep.load() != 0 && asleep.exchange(0) != 0) wake_word(asleep);
  }
}

void help(Team& team, int worker) noexcept {
  std::int64_t chunk = 0;
  if (!take(team, worker, chunk)) return;
  Helper& me = team.helpers[static_cast<std::size_t>(worker)];
  me.holds_chunks.store(true, std::memory_order_relaxed);
  wake_children(team, worker, thread_limit(team.ticket.load(std::memory_order_relaxed)));
  adopt_float_modes(team.modes);
  const Body& body = *team.body;
  std::int64_t done = 0;
  do {
    body(chunk, worker);
    ++done;
  } while (take(team, worker, chunk));
  me.holds_chunks.store(false, std::memory_order_relaxed);
  if (team.unfinished.fetch_sub(done) == done && team.caller_asleep.load() != 0) {
    team.caller_asleep.store(0);
    wake_word(team.caller_asleep);
  }
}

// A helper on the caller's processor can only take time from it.
bool in_the_way(const Team& team) noexcept {
  const int cpu = current_cpu();
  return cpu >= 0 && cpu == team.caller_cpu.load(std::memory_order_relaxed);
}

void helper_loop(Team& team, int worker) noexcept {
  Helper& me = team.helpers[static_cast<std::size_t>(worker)];
#if defined(__linux__)
  me.has_clock.store(::pthread_getcpuclockid(::pthread_self(), &me.clock) == 0,
                     std::memory_order_release);
#endif
  const auto offered = [&] {
    const std::uint64_t ticket = team.ticket.load();
    return chunks_left(ticket) > 0 && worker < thread_limit(ticket);
  };
  while (team.stop.load(std::memory_order_acquire) == 0) {
    const bool obstructs = in_the_way(team);
    if (offered()) {
      if (obstructs) {
        team.crowded.store(true, std::memory_order_relaxed);
      } else {
        help(team, worker);
        continue;
      }
    }
    if (!obstructs) {
      const std::int64_t until = now_ns() + kHelperSpin;
      bool found = false;
      while (!found && now_ns() < until) {
        for (int i = 0; i < 32 && !found; ++i) {
          found = offered();
          if (!found) relax();
        }
      }
      if (found) continue;
    }
    // Whoever publishes looks at `asleep` after writing the ticket; here it is the other way round.
    // So one of the two sees the other, except that a helper in the way sleeps over the present
    // job.
    me.asleep.store(1);
    if ((!obstructs && offered()) || team.stop.load() != 0) {
      me.asleep.store(0);
      continue;
    }
    while (me.asleep.load() != 0) wait_word(me.asleep, 1);
  }
}

void host(Team* team) noexcept {
  const std::unique_ptr<Team> owner(team);
#if defined(PYCNN_WITH_OPENMP)
#pragma omp parallel num_threads(team->size)
  {
    const int member = omp_get_thread_num();
    if (member == 0) {
      while (team->released.load() == 0) wait_word(team->released, 0);
    } else {
      helper_loop(*team, member);
    }
  }
#else
  std::vector<std::thread> threads;
  try {
    for (int member = 1; member < team->size; ++member)
      threads.emplace_back(helper_loop, std::ref(*team), member);
  } catch (...) {
    // The system refuses more threads: those that exist will do.
  }
  while (team->released.load() == 0) wait_word(team->released, 0);
  for (std::thread& thread : threads) thread.join();
#endif
}

// The process's team. `held` guards the rest; a thread that finds it taken works alone instead of
// waiting. Never destroyed: helpers may outlive main.
struct Process {
  std::atomic<bool> held{false};
  Team* team = nullptr;
  std::int64_t alone_until = 0;
  // Stalls that are not forgotten yet, and when the last one ended.
  std::int64_t stalled = 0;
  std::int64_t last_stall = 0;
  bool watches_fork = false;
};
constinit Process process;

// In a forked child only the calling thread exists. Team and region of the parent are left as they
// are, unused.
void after_fork_in_child() noexcept {
  process.team = nullptr;
  process.alone_until = 0;
  process.stalled = 0;
  process.held.store(false);
}

#if PYCNN_POSIX_THREADS
// Threads started in its scope get none of the process's signals, which belong to the user's
// threads. Signals that report a fault stay, so that crash handlers work.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF})
      sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};
#endif

void retire(Team& team) noexcept {
  team.stop.store(1);
  for (Helper& helper : team.helpers) {
    if (helper.asleep.exchange(0) != 0) wake_word(helper.asleep);
  }
  std::atomic<std::uint32_t>& released = team.released;
  released.store(1);
  wake_word(released);  // by now the team may be gone; waking needs no more than the address
}

// A team of at least `threads`; null when the system grants no thread.
Team* team_for(int threads) noexcept {
  if (process.team != nullptr && process.team->size >= threads) return process.team;
#if PYCNN_POSIX_THREADS
  if (!process.watches_fork) {
    if (::pthread_atfork(nullptr, nullptr, after_fork_in_child) != 0) return nullptr;
    process.watches_fork = true;
  }
  const SignalsBlocked blocked;
#endif
  try {
    auto team = std::make_unique<Team>(threads);
    std::thread(host, team.get()).detach();
    Team* const old = process.team;
    process.team = team.release();
    if (old != nullptr) retire(*old);
  } catch (...) {
    return process.team;
  }
  return process.team;
}

// Processor time of the helpers that hold chunks, to tell a long chunk from a stalled thread.
class HelperClocks {
 public:
  explicit HelperClocks(const Team& team) noexcept {
    for (const Helper& helper : team.helpers) {
      if (count_ == kMost) break;
      if (!helper.holds_chunks.load(std::memory_order_relaxed)) continue;
      helpers_[count_] = &helper;
      start_[count_++] = read(helper);
    }
  }

  // The most that any of them has run since.
  std::int64_t longest_run() const noexcept {
    std::int64_t longest = 0;
    for (int i = 0; i < count_; ++i) longest = std::max(longest, read(*helpers_[i]) - start_[i]);
    return longest;
  }

 private:
  static constexpr int kMost = 32;

  static std::int64_t read([[maybe_unused]] const Helper& helper) noexcept {
#if defined(__linux__)
    timespec time{};
    if (helper.has_clock.load(std::memory_order_acquire) &&
        ::clock_gettime(helper.clock, &time) == 0) {
      return static_cast<std::int64_t>(time.tv_sec) * 1000 * kMillisecond + time.tv_nsec;
    }
#endif
    return now_ns();  // no such clock: as if it ran all the time
  }

  const Helper* helpers_[kMost];
  std::int64_t start_[kMost];
  int count_ = 0;
};

// Returns when no chunk is held; the result is how long the caller stood still although no helper
// ran.
std::int64_t await_helpers(Team& team) noexcept {
  const auto finished = [&] { return team.unfinished.load() == 0; };
  const std::int64_t begin = now_ns();
  while (now_ns() < begin + kCallerSpin) {
    for (int i = 0; i < 32; ++i) {
      if (finished()) return 0;
      relax();
    }
  }
  const HelperClocks clocks(team);
  const std::int64_t slept = now_ns();
  while (!finished()) {
    team.caller_asleep.store(1);
    if (!finished()) wait_word(team.caller_asleep, 1);
    team.caller_asleep.store(0);
  }
  return now_ns() - slept - clocks.longest_run();
}

void run_alone(std::int64_t chunks, const Body& body) noexcept {
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk, 0);
}

void stay_alone(std::int64_t duration) noexcept {
  process.alone_until = now_ns() + std::clamp(duration, kMinAlone, kMaxAlone);
}

void note_stall(std::int64_t stall) noexcept {
  const std::int64_t now = now_ns();
  const std::int64_t forgotten = (now - process.last_stall) / kForgetFactor;
  process.stalled = std::max<std::int64_t>(process.stalled - forgotten, 0) + stall;
  process.last_stall = now;
  if (process.stalled <= kForgiven) return;
  // What exceeds it is paid for by the time alone.
  process.stalled = kForgiven;
  stay_alone(kAloneFactor * stall);
}

void run_together(Team& team, int threads, std::int64_t chunks, const Body& body) noexcept {
  team.body = &body;
  team.chunks = chunks;
  team.modes = float_modes();
  team.unfinished.store(chunks, std::memory_order_relaxed);
  team.caller_cpu.store(current_cpu(), std::memory_order_relaxed);
  team.ticket.store((static_cast<std::uint64_t>(threads) << kLeftBits) |
                    static_cast<std::uint64_t>(chunks));
  wake_children(team, 0, threads);

  std::int64_t chunk = 0;
  std::int64_t done = 0;
  while (take(team, 0, chunk)) {
    body(chunk, 0);
    ++done;
  }
  if (team.unfinished.fetch_sub(done) != done) {
    const std::int64_t stall = await_helpers(team);
    if (stall > kMinStall) note_stall(stall);
  }
  if (team.crowded.load(std::memory_order_relaxed)) {
    team.crowded.store(false, std::memory_order_relaxed);
    stay_alone(kMinAlone);
  }
}

}  // namespace

void parallel_for(int threads, std::int64_t chunks,
                  FunctionRef<void(std::int64_t chunk, int worker)> body) noexcept {
  threads = static_cast<int>(std::min<std::int64_t>(std::min(threads, kMaxTeam), chunks));
  if (threads <= 1 || static_cast<std::uint64_t>(chunks) > kMaxChunks ||
      process.held.load(std::memory_order_relaxed) ||
      process.held.exchange(true, std::memory_order_acquire)) {
    run_alone(chunks, body);
    return;
  }
  const bool alone = process.alone_until != 0 && now_ns() < process.alone_until;
  Team* const team = alone ? nullptr : team_for(threads);
  if (team != nullptr) run_together(*team, threads, chunks, body);
  process.held.store(false, std::memory_order_release);
  // Without the team, so that another thread may have it.
  if (team == nullptr) run_alone(chunks, body);
}

}  // namespace pycnn
