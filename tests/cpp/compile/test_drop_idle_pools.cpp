#include <doctest/doctest.h>

#include "compile/passes.h"

using namespace pycnn;

namespace {

const std::string kHead = "pycnn.graph 1\ninput \"x\" = f32(2, 3, 2, 4)\n";

std::string pool(const std::string& size, const std::string& result) {
  return kHead + "\"pool\" = adaptive_avg_pool2d(\"x\") {output_size=(" + size + ")} -> f32(" +
         result + ")\noutput \"y\" = \"pool\"\n";
}

}  // namespace

TEST_CASE("an adaptive pool with a cell for each pixel is left out") {
  const std::string idle = pool("3, 2", "2, 3, 2, 4"), turned = pool("2, 3", "2, 2, 3, 4");
  CHECK(drop_idle_pools(Graph::parse(idle), {}).text() == kHead + "output \"y\" = \"x\"\n");
  CHECK(drop_idle_pools(Graph::parse(turned), {}).text() == turned);
}

TEST_CASE("an adaptive pool that is asked for stays, whatever it does") {
  const std::string idle = pool("3, 2", "2, 3, 2, 4");
  for (const char* name : {"pool", "adaptive_avg_pool2d", "*"})
    CHECK(drop_idle_pools(Graph::parse(idle), {{name, "reference"}}).text() == idle);
  CHECK(drop_idle_pools(Graph::parse(idle), {{"other", "reference"}}).text() != idle);
}
