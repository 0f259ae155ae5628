#pragma once
#include <cstdint>

#include "core/function_ref.h"

namespace pycnn::cpu {

struct FastestRate {
  double per_second = 0.0;
  bool disturbed = false;  // no try had all its processors to itself: the true rate may be higher
};

// Work a second of several threads at once: the fastest of many short tries. `work(worker,
// repeats)` is called by every worker in [0, threads) in each try, and one repeat of one worker
// counts as `amount`. The tries take `seconds` together, and up to kPatience times as long where
// other processes disturb all of them.
//
// The threads are its own and start each try together, and a try lasts until the last has ended:
// the team of parallel_for goes on alone where a core is taken away, which is right for a program
// but would here give the rate of one thread. Throws DeviceError when the system grants no more
// threads.
FastestRate fastest_rate(int threads, double seconds, double amount,
                         FunctionRef<void(int worker, std::int64_t repeats)> work);
constexpr int kPatience = 5;

}  // namespace pycnn::cpu
