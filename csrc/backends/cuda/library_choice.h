#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backends/cuda/device_timer.h"
#include "backends/cuda/library_options.h"

// How a kernel of a library is chosen among many while a program is compiled.
namespace pycnn::cuda {

// A plan that wants more than the first for its work has to be that much faster than those that do
// not, or the only one.
constexpr std::int64_t kMostWorkspace = std::int64_t{256} << 20,
                       kLargestWorkspace = std::int64_t{1} << 30;
constexpr double kLargeHandicap = 1.05;
// In a key of the plan cache: engines that measure may have taken part (Offer::measures).
constexpr const char* kMeasuredMark = "; measured";
// Calls that are timed one after another.
constexpr int kTimedCalls = 10;
constexpr const char* kOwnKernel = "own";  // in the plan cache
constexpr const char* kCopied = "copied";  // likewise: a plan whose result a concat copies
// Plans that a library offers, at most, to write where a concat wants it, beside those that are
// compiled at run time: all were timed before.
constexpr int kMostApart = 4;
// Of those, for each graph: each takes up to seconds.
constexpr int kMostCompiled = 3;

// Which plans that a library has are looked at, best first.
class OfferLimit {
 public:
  explicit OfferLimit(bool apart) : apart_(apart) {}
  void begin_graph(int most_compiled = kMostCompiled) { compiled_left_ = most_compiled; }
  bool takes(bool compiles) {
    return compiles ? compiled_left_-- > 0 : !apart_ || ++others_ <= kMostApart;
  }

 private:
  const bool apart_;
  int compiled_left_ = 0, others_ = 0;
};
constexpr const char* kOwnWasFaster = "our own kernel was faster";
// Likewise, of plans that did not race our own kernel.
constexpr const char* kNoneIsRight = "none";
constexpr const char* kNoneWasRight = "none of its plans leaves what our own kernel does";

// Held by a choice: two at a time, of whatever library, would disturb each other's times.
std::mutex& choice_mutex();

// Refusals live as long as the process, as those in the code do.
const char* kept_text(const std::string& text);

std::int64_t aligned_scratch(std::int64_t bytes);

// A plan that a library has not made yet.
template <class Plan>
struct Offer {
  // Null: it turns out not to work. Several at a time by threads of different numbers, as
  // in_threads gives them.
  std::function<std::shared_ptr<Plan>(int thread)> make;
  bool compiles = false;  // at run time, which takes seconds
  bool measures = false;  // what it makes: to be had without, too
};

using Clock = std::chrono::steady_clock;
inline bool is_late(Clock::time_point began, double seconds) {
  return std::chrono::duration<double>(Clock::now() - began).count() >= seconds;
}
std::string seconds_text(double seconds);

// Calls f(thread, i) for i below `count`, by so many threads as there are cores, eight at most;
// the caller is thread 0. All have the device.
constexpr int kMostBuilders = 8;
void in_threads(int device, std::size_t count,
                const std::function<void(int thread, std::size_t i)>& f);

// What has been seen to run in this process, under choice_mutex.
bool has_run(const std::string& choice);
void note_run(const std::string& choice);

// The places of `works` that work, fastest first; the last of them may be our own kernel, and is
// left out where it is far slower. Each is timed briefly, then the best five at length.
// `handicaps`: factors of their times; empty: none.
using Work = std::function<void()>;
std::vector<int> ranked(DeviceTimer& timer, const std::vector<Work>& works,
                        const std::vector<double>& handicaps = {});
// Of a plan that measures what it makes: it must be faster by that, since it is one of few that
// each take seconds to make.
constexpr double kMeasuringHandicap = 1.03;

}  // namespace pycnn::cuda
