#include "backends/cuda/library_choice.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

namespace pycnn::cuda {
namespace {

constexpr std::size_t kTimedLong = 5;
constexpr double kMostLatency = 100.0;  // microseconds until single launches have begun

std::set<std::string>& choices_that_ran() {
  static auto* const choices = new std::set<std::string>;
  return *choices;
}

}  // namespace

std::mutex& choice_mutex() {
  static std::mutex mutex;
  return mutex;
}

const char* kept_text(const std::string& text) {
  static std::mutex mutex;
  static auto* const texts = new std::set<std::string>;
  const std::lock_guard lock(mutex);
  return texts->insert(text).first->c_str();
}

std::int64_t aligned_scratch(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

std::string seconds_text(double seconds) {
  char text[32];
  (void)std::snprintf(text, sizeof text, "%g", seconds);
  return text;
}

void in_threads(int device, std::size_t count,
                const std::function<void(int thread, std::size_t i)>& f) {
  std::atomic<std::size_t> next = 0;
  const auto work = [&](int thread) {
    for (std::size_t i = next++; i < count; i = next++) f(thread, i);
  };
  const std::size_t most =
      std::min<std::size_t>({count, std::max(1u, std::thread::hardware_concurrency()),
                             static_cast<std::size_t>(kMostBuilders)});
  std::vector<std::thread> threads;
  threads.reserve(most);
  try {
    for (int thread = 1; static_cast<std::size_t>(thread) < most; ++thread)
      threads.emplace_back([&work, device, thread] {
        // Even of device 0, which is a new thread's own: its context is made current by this alone.
        if (cudaSetDevice(device) == cudaSuccess)
          work(thread);
        else
          (void)cudaGetLastError();
      });
  } catch (const std::exception&) {  // no thread, or no memory for one
    // Those that there are do it.
  }
  work(0);
  for (std::thread& thread : threads) thread.join();
}

bool has_run(const std::string& choice) { return choices_that_ran().count(choice) > 0; }
void note_run(const std::string& choice) { choices_that_ran().insert(choice); }

std::vector<int> ranked(DeviceTimer& timer, const std::vector<Work>& works,
                        const std::vector<double>& handicaps) {
  struct Timed {
    int index;
    double us;
  };
  const auto faster = [](const Timed& a, const Timed& b) { return a.us < b.us; };
  const int own = static_cast<int>(works.size()) - 1;
  const auto handicap = [&](int i) {
    return handicaps.empty() ? 1.0 : handicaps[static_cast<std::size_t>(i)];
  };
  std::vector<Timed> timed;
  for (int i = 0; i <= own; ++i) {
    const Work& work = works[static_cast<std::size_t>(i)];
    // Ours may take long where it is slow: once is enough to see that.
    if (i == own && !timed.empty()) {
      const double best = std::min_element(timed.begin(), timed.end(), faster)->us;
      if (timer.once_us(work) > 5.0 * best + kMostLatency) break;
    }
    const double us = timer.time_us(work, 3, 1);
    if (us >= 0.0) timed.push_back({i, us * handicap(i)});
  }
  std::stable_sort(timed.begin(), timed.end(), faster);
  // Those behind them stay in the order that they have.
  std::vector<Timed> rest;
  while (timed.size() > kTimedLong) {
    rest.insert(rest.begin(), timed.back());
    timed.pop_back();
  }
  for (Timed& entry : timed)
    if (entry.us < 3.0 * timed.front().us)
      entry.us = timer.time_us(works[static_cast<std::size_t>(entry.index)], kTimedCalls, 5) *
                 handicap(entry.index);
  std::erase_if(timed, [](const Timed& entry) { return entry.us < 0.0; });
  std::stable_sort(timed.begin(), timed.end(), faster);
  timed.insert(timed.end(), rest.begin(), rest.end());
  std::vector<int> places;
  for (const Timed& entry : timed) places.push_back(entry.index);
  return places;
}

}  // namespace pycnn::cuda
