#include <doctest/doctest.h>

#include "runtime/prepare_groups.h"

namespace pycnn {
namespace {

using Space = Place::Space;

Operand variable(int index) { return {{Space::kVariable, index, 0}, {{4}, DType::kFloat32}}; }
Operand prepared(std::size_t offset, std::int64_t floats = 16) {
  return {{Space::kPrepared, 0, offset}, {{floats}, DType::kFloat32}};
}
Step step(std::vector<Operand> inputs, std::vector<Operand> outputs) {
  Step made;
  made.inputs = std::move(inputs);
  made.outputs = std::move(outputs);
  return made;
}

using Groups = std::vector<std::pair<std::vector<std::size_t>, std::vector<std::size_t>>>;

Groups groups_of(std::vector<Step> steps, std::vector<int> reads) {
  ProgramPlan plan;
  plan.prepare = std::move(steps);
  plan.prepare_reads = std::move(reads);
  Groups groups;
  for (PrepareGroup& group : prepare_groups(plan))
    groups.emplace_back(std::move(group.steps), std::move(group.reads));
  return groups;
}

TEST_CASE("what has no byte in common is prepared apart") {
  CHECK(groups_of({}, {}).empty());
  CHECK(groups_of({step({variable(7)}, {prepared(64)}), step({variable(2)}, {prepared(0)}),
                   step({variable(7), variable(7)}, {prepared(128)})},
                  {7, 2}) == Groups{{{0}, {0}}, {{1}, {1}}, {{2}, {0}}});
  // One that reads nothing is made once.
  CHECK(groups_of({step({}, {prepared(0)}), step({variable(0)}, {prepared(64)})}, {0}) ==
        Groups{{{0}, {}}, {{1}, {0}}});
}

TEST_CASE("a step goes with who makes what it reads") {
  CHECK(groups_of({step({variable(0), variable(1)}, {prepared(0)}),
                   step({variable(2)}, {prepared(64)}), step({prepared(0)}, {prepared(128)})},
                  {0, 1, 2}) == Groups{{{0, 2}, {0, 1}}, {{1}, {2}}});
}

TEST_CASE("steps that lie where others lay are made with them") {
  // The last result lies where the first one was, and begins within it.
  CHECK(groups_of({step({variable(0)}, {prepared(0, 48)}), step({prepared(0, 48)}, {prepared(192)}),
                   step({variable(1)}, {prepared(256)}), step({variable(2)}, {prepared(128)})},
                  {0, 1, 2}) == Groups{{{0, 1, 3}, {0, 2}}, {{2}, {1}}});
  // By a chain of others.
  CHECK(groups_of({step({variable(0)}, {prepared(0, 32)}), step({variable(1)}, {prepared(64, 32)}),
                   step({variable(2)}, {prepared(128, 32)}), step({variable(3)}, {prepared(256)})},
                  {0, 1, 2, 3}) == Groups{{{0, 1, 2}, {0, 1, 2}}, {{3}, {3}}});
  // Pixels that lie apart reach further than what they hold.
  Operand apart = prepared(0, 16);
  apart.spec.shape = {4, 4};
  apart.pixel_pitch = 8;
  CHECK(groups_of({step({variable(0)}, {apart}), step({variable(1)}, {prepared(64, 4)}),
                   step({variable(2)}, {prepared(112)})},
                  {0, 1, 2}) == Groups{{{0, 1}, {0, 1}}, {{2}, {2}}});
}

}  // namespace
}  // namespace pycnn
