#pragma once
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "backends/cuda/device_timer.h"
#include "backends/cuda/library_options.h"

// How a kernel of a library is chosen among many while a program is compiled.
namespace pycnn::cuda {

constexpr std::int64_t kMostWorkspace = std::int64_t{256} << 20;
// Calls that are timed one after another.
constexpr int kTimedCalls = 10;
constexpr const char* kOwnKernel = "own";  // in the plan cache
constexpr const char* kOwnWasFaster = "our own kernel was faster";

// Held by a choice: two at a time, of whatever library, would disturb each other's times.
std::mutex& choice_mutex();

// Refusals live as long as the process, as those in the code do.
const char* kept_text(const std::string& text);

std::int64_t aligned_scratch(std::int64_t bytes);

// The fastest of `works`, of which the last is our own kernel: each is timed briefly, then the best
// five at length. Negative: none works.
using Work = std::function<void()>;
int fastest_of(DeviceTimer& timer, const std::vector<Work>& works);

}  // namespace pycnn::cuda
