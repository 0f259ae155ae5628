#pragma once
#include <cstdint>

#include "core/ceil_div.h"
#include "core/function_ref.h"
#include "pycnn/export.h"

// Work sharing for kernels. One team of threads serves the whole process; a kernel cuts its work
// into chunks whose borders, where sums cross them, depend on the shapes alone; whoever is free
// takes the next one. So the thread count decides who computes a chunk, never what is computed.
//
// The calling thread always takes part and never waits for a helper that holds no chunk. Helpers
// spin for some microseconds and then sleep. When helpers that hold a chunk are stalled (their core
// was taken away) again and again, the caller goes on alone for a while, long enough that such
// waits stay a small part of the time.
namespace pycnn {

/// Calls `body(chunk, worker)` for every chunk in [0, chunks) exactly once, on up to `threads`
/// threads, and returns when all are done. `worker` is in [0, threads), unique among concurrent
/// calls of one parallel_for: index per-thread scratch with it. Writes of the bodies happen before
/// the return. Nested calls, and calls made while another thread's parallel_for holds the team, run
/// alone on the calling thread. `body` must not throw.
PYCNN_API void parallel_for(int threads, std::int64_t chunks,
                            FunctionRef<void(std::int64_t chunk, int worker)> body) noexcept;

/// Cuts [0, count) into chunks of `grain` items (the last may be shorter) and calls `body(begin,
/// end)` for each.
inline void parallel_ranges(int threads, std::int64_t count, std::int64_t grain,
                            FunctionRef<void(std::int64_t begin, std::int64_t end)> body) noexcept {
  if (count <= 0) return;
  auto call = [&](std::int64_t chunk, int) {
    const std::int64_t begin = chunk * grain;
    body(begin, begin + grain < count ? begin + grain : count);
  };
  parallel_for(threads, ceil_div(count, grain), call);
}

}  // namespace pycnn
