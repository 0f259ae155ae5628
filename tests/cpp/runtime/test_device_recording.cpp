#include <doctest/doctest.h>

#include "runtime/device_recording.h"
#include "runtime/step_lanes.h"

namespace pycnn {
namespace {

TEST_CASE("device recording: packed weights are read as far as they were packed") {
  const TensorSpec weight{{8}, DType::kFloat32}, image{{4}, DType::kFloat32};
  std::vector<std::byte> memory(1000);
  const auto at = [&](std::size_t place, const TensorSpec& spec) {
    return TensorView{memory.data() + place, &spec, 0};
  };
  // Weights of 32 bytes were packed into 100; another step writes behind the 32, and one behind
  // the 100.
  std::vector<Step> steps(3);
  steps[0].kernel.packed.input = 1;
  steps[0].kernel.packed.bytes = 100;
  const std::vector<TensorView> reads = {at(0, image), at(200, weight)};
  const std::vector<TensorView> writes = {at(500, image), at(284, image), at(300, image)};
  std::vector<DeviceKernelArgs> calls(3);
  calls[0].inputs = reads;
  for (std::size_t i = 0; i < 3; ++i) calls[i].outputs = {&writes[i], 1};
  const std::vector<StepUse> uses = uses_of(steps, calls, 0);
  REQUIRE(uses.size() == 3);
  REQUIRE(uses[0].reads.size() == 2);
  CHECK(uses[0].reads[0].width == 16);
  CHECK(overlap(uses[0].reads[1], uses[1].writes[0]));
  CHECK(!overlap(uses[0].reads[1], uses[2].writes[0]));
  // A bias likewise.
  steps[0].kernel.packed = {};
  steps[0].kernel.packed_bias.input = 1;
  steps[0].kernel.packed_bias.bytes = 100;
  const std::vector<StepUse> bias = uses_of(steps, calls, 0);
  CHECK(overlap(bias[0].reads[1], bias[1].writes[0]));
  CHECK(!overlap(bias[0].reads[1], bias[2].writes[0]));
}

}  // namespace
}  // namespace pycnn
