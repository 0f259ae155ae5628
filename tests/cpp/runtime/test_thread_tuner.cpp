#include <doctest/doctest.h>

#include <array>

#include "runtime/thread_tuner.h"

namespace pycnn {
namespace {

TEST_CASE("steps that are short, or no faster together, end with one thread") {
  ThreadTuner tuner(4, 2);
  CHECK(!tuner.finished());
  CHECK(tuner.threads(0) == 2);
  // Short; gains from threads; loses by threads; too long to try alone.
  tuner.record(std::array<std::int64_t, 4>{900'000, 20'000, 40'000, 500'000});
  tuner.record(std::array<std::int64_t, 4>{9'000, 21'000, 41'000, 500'000});
  CHECK(tuner.threads(0) == 1);
  CHECK(tuner.threads(1) == 1);
  CHECK(tuner.threads(3) == 2);
  tuner.record(std::array<std::int64_t, 4>{14'000, 38'000, 35'000, 500'000});
  CHECK(!tuner.finished());
  tuner.record(std::array<std::int64_t, 4>{19'000, 36'000, 36'000, 500'000});
  CHECK(tuner.finished());
  CHECK(tuner.threads(0) == 1);
  CHECK(tuner.threads(1) == 2);
  CHECK(tuner.threads(2) == 1);
  CHECK(tuner.threads(3) == 2);
}

TEST_CASE("with one thread there is nothing to find out") {
  const ThreadTuner tuner(3, 1);
  CHECK(tuner.finished());
  CHECK(tuner.threads(2) == 1);
}

}  // namespace
}  // namespace pycnn
