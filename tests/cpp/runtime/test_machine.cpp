#include <doctest/doctest.h>

#include <algorithm>

#include "pycnn/error.h"
#include "pycnn/program.h"

namespace pycnn {
namespace {

TEST_CASE("the machine tells instruction sets, threads and why") {
  const Machine here = machine();
  CHECK(here.isas.front() == "baseline");
  CHECK(here.isas.back() == here.isa);
  CHECK(here.threads >= 1);
  CHECK(!here.threads_reason.empty());
  CHECK(here.thread_limits.contains("affinity"));
  CHECK(here.devices == std::vector<std::string>{"cpu"});
  CHECK(!here.compiler.empty());
  CHECK(here.available_memory_bytes > 0);
}

TEST_CASE("every op that reaches a backend has variants of its own name") {
  for (const Op& op : each_op()) {
    const std::string name = op_name(op);
    CAPTURE(name);
    const std::vector<std::string> names = variants(name);
    const bool recorded_form = name == "batch_norm" || name == "dropout";
    CHECK(names.empty() == recorded_form);
    for (const std::string& variant : names) CHECK(variant.starts_with(name + "."));
  }
}

TEST_CASE("unknown ops and devices are refused") {
  CHECK_THROWS_WITH_AS(variants("conv3d"), doctest::Contains("'conv3d'"), ArgumentError);
  CHECK_THROWS_AS(variants("conv2d", "cuda"), DeviceError);
}

}  // namespace
}  // namespace pycnn
