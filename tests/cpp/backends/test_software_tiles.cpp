#include <doctest/doctest.h>

#include <string>

#include "backends/backend.h"
#include "core/bfloat16_units.h"

using namespace pycnn;

// Else the other tests of this executable would say nothing of AMX.
TEST_CASE("software tiles: bfloat16 is multiplied by AMX where there is AVX512_BF16 beside it") {
  if (best_isa() != Isa::kAvx512 || !has_avx512_bf16()) return;
  REQUIRE(has_amx_bf16());
  const std::vector<TensorSpec> specs = {{{2, 9, 8, 40}, DType::kBFloat16}, {{24, 3, 3, 40}}};
  const Op op = ops::Conv2d{};
  const std::vector<TensorSpec> results = infer(op, specs);
  const Problem problem{specs, results, best_isa(), 1, ""};
  CHECK(std::string(cpu_backend().select(op, problem).kernel.variant) == "conv2d.bfloat16.amx");
}
