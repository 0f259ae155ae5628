#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

HostTensor number(std::int64_t value) {
  HostTensor tensor(TensorSpec{{1}, DType::kInt64});
  *tensor.as<std::int64_t>() = value;
  return tensor;
}

// By the definition in ops.h.
bool keeps(std::uint64_t seed, std::uint64_t step, std::uint64_t stream, std::size_t i, double p) {
  return unit_float(Philox(seed ^ stream)(i / 4, step)[i % 4]) >= p;
}

}  // namespace

TEST_CASE("dropout keeps what the counter says, in every variant") {
  constexpr std::int64_t kSeed = 0x123456789ABCDEF0, kStep = (std::int64_t{5} << 32) + 7;
  constexpr std::int64_t kStream = -0x0FEDCBA987654321;
  // The last one is a number that is drawn: equality keeps.
  const double drawn = unit_float(Philox(kSeed ^ kStream)(0, kStep)[1]);
  for (const double p : {0.0, 0.1, 0.5, 0.75, 0x1.fffffep-1, drawn})
    for (const std::int64_t n : kOddSizes) {
      CAPTURE(p);
      const HostTensor x = random_tensor({n}, 9, 1.0, 2.0);
      const ops::DropoutTrain op{p, kStream};
      for (const HostTensor& input : {x, to_float64(x)})
        check_kernels(
            op, {input, number(kSeed), number(kStep)}, [&](const std::vector<HostTensor>& y) {
              int wrong = 0;
              for (std::size_t i = 0; i < x.size(); ++i) {
                const bool keep = keeps(kSeed, kStep, static_cast<std::uint64_t>(kStream), i, p);
                const double wanted = keep ? x[i] / (1.0 - p) : 0.0;
                wrong += is_close(y[0], i, wanted, wanted, 3.0) ? 0 : 1;
              }
              CHECK(wrong == 0);
            });
    }
}

TEST_CASE("dropout gives the same bits in every variant") {
  const std::vector<HostTensor> inputs = {random_tensor({50001}, 2), number(1), number(2)};
  const ops::DropoutTrain op{0.3, 4};
  const std::vector<HostTensor> first = run_kernel(op, inputs, {"reference"});
  check_kernels(op, inputs, [&](const std::vector<HostTensor>& y) { CHECK(same_bits(y, first)); });
}

TEST_CASE("dropout keeps the wanted share and its mask changes with seed, step and stream") {
  constexpr std::size_t kCount = 100000;
  const HostTensor ones(Shape{kCount}, std::vector<double>(kCount, 1.0));
  auto mask = [&](std::int64_t seed, std::int64_t step, std::int64_t stream) {
    return run_kernel(ops::DropoutTrain{0.25, stream}, {ones, number(seed), number(step)})[0];
  };
  const HostTensor first = mask(1, 1, 1);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < kCount; ++i) kept += first[i] != 0.0 ? 1 : 0;
  // Five standard deviations.
  CHECK(std::abs(static_cast<double>(kept) - 0.75 * kCount) < 5.0 * std::sqrt(kCount * 0.1875));
  for (const HostTensor& other : {mask(2, 1, 1), mask(1, 2, 1), mask(1, 1, 2)}) {
    std::size_t different = 0;
    for (std::size_t i = 0; i < kCount; ++i) different += other[i] != first[i] ? 1 : 0;
    CHECK(std::abs(static_cast<double>(different) - 0.375 * kCount) <
          5.0 * std::sqrt(kCount * 0.375 * 0.625));
  }
}

TEST_CASE("dropout removes NaN with its element and keeps it otherwise") {
  const HostTensor x({200}, std::vector<double>(200, kNaN));
  check_kernels(ops::DropoutTrain{0.5, 0}, {x, number(3), number(0)},
                [](const std::vector<HostTensor>& y) {
                  for (std::size_t i = 0; i < 200; ++i)
                    CHECK((keeps(3, 0, 0, i, 0.5) ? std::isnan(y[0][i]) : y[0][i] == 0.0));
                });
}
