#include "kernel_harness.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

void check_normalize(const Shape& shape, const ops::NormalizeImage& op, DType from) {
  CAPTURE(to_string(shape));
  HostTensor x(TensorSpec{shape, from});
  for (std::size_t i = 0; i < x.size(); ++i) x.set(i, static_cast<double>((i * 37 + 11) % 256));
  const auto channels = static_cast<std::size_t>(shape.back());
  check_kernels(op, {x}, [&](const std::vector<HostTensor>& y) {
    CHECK(y[0].spec.dtype == op.dtype);
    int wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      auto pick = [&](const std::vector<double>& list, double missing) {
        return list.empty() ? missing : list[list.size() == 1 ? 0 : i % channels];
      };
      const double mean = pick(op.mean, 0.0), std = pick(op.std, 1.0);
      const double wanted = (x[i] * op.scale - mean) / std;
      const double magnitude = (std::abs(x[i] * op.scale) + std::abs(mean)) / std;
      wrong += is_close(y[0], i, wanted, magnitude, 3.0) ? 0 : 1;
    }
    CHECK(wrong == 0);
  });
}

}  // namespace

TEST_CASE("images are normalised per channel from bytes and floats") {
  for (const DType from : {DType::kUInt8, DType::kFloat32, DType::kFloat64})
    for (const DType to : {DType::kFloat32, DType::kFloat64}) {
      ops::NormalizeImage op{1.0 / 255.0, {0.1307}, {0.3081}, to};
      for (const std::int64_t w : kOddSizes) check_normalize({w, 1}, op, from);
      op.mean = {0.485, 0.456, 0.406};
      op.std = {0.229, 0.224, 0.225};
      for (const std::int64_t w : kOddSizes) check_normalize({2, w, 3}, op, from);
      for (const std::int64_t c : {2, 4, 17, 33, 600}) {
        op.mean.assign(static_cast<std::size_t>(c), 0.5);
        op.mean[1] = 0.25;
        op.std.assign(static_cast<std::size_t>(c), 0.3);
        op.std[0] = 2.0;
        check_normalize({3, 7, 5, c}, op, from);
      }
    }
}

TEST_CASE("images are normalised without mean or deviation") {
  check_normalize({2, 28, 28, 1}, {1.0 / 255.0, {}, {}, DType::kFloat32}, DType::kUInt8);
  check_normalize({2, 5, 5, 3}, {2.0, {}, {0.5}, DType::kFloat32}, DType::kFloat32);
  check_normalize({2, 0, 5, 3}, {2.0, {}, {0.5}, DType::kFloat32}, DType::kUInt8);
  check_normalize({2, 5, 0}, {2.0, {}, {0.5}, DType::kFloat32}, DType::kUInt8);
}
