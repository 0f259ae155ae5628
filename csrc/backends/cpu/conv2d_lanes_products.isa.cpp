#include "backends/cpu/conv2d_lanes_tiles.h"
#include "backends/cpu/simd.isa.h"
#include "backends/cpu/take_lanes.isa.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

constexpr int kMaxSums = 12;

// What one run over the pixels adds up: consecutive (tap, k) pairs.
struct Sums {
  Index offset[kMaxSums];
  Index channel[kMaxSums];  // k
  float* to;
};

template <int kCount, bool kShuffle>
void sum_products(const LaneProducts& job, const Sums& sums) {
  const int lanes = static_cast<int>(job.lanes);
  const int read =
      static_cast<int>((job.lanes + job.group_outputs - 1) / job.group_outputs * job.group_inputs);
  IVec source[kCount];
  Vec sum[kCount];
#pragma GCC unroll 12
  for (int i = 0; i < kCount; ++i) {
    if constexpr (kShuffle)
      for (int lane = 0; lane < kLanes; ++lane)
        source[i][lane] = static_cast<std::int32_t>(lane / job.group_outputs * job.group_inputs +
                                                    sums.channel[i]);
    sum[i] = job.accumulate ? load_partial(sums.to + i * job.pitch, lanes) : zero();
  }
  for (Index row = 0; row < job.rows; ++row) {
    const float* x = job.input + row * job.input_row;
    const float* y = job.grad + row * job.grad_row;
    for (Index column = 0; column < job.columns; ++column) {
      const Vec grad = load_lanes(y, lanes);
#pragma GCC unroll 12
      for (int i = 0; i < kCount; ++i) {
        Vec in = load_lanes(x + sums.offset[i], read);
        if constexpr (kShuffle) in = take_lanes(in, source[i]);
        sum[i] = fma(in, grad, sum[i]);
      }
      x += job.input_column;
      y += job.grad_column;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kCount; ++i) store_partial(sums.to + i * job.pitch, sum[i], lanes);
}

using Kernel = void (*)(const LaneProducts&, const Sums&);
template <bool kShuffle>
struct Kernels {
  static constexpr Kernel kList[kMaxSums] = {
      sum_products<1, kShuffle>,  sum_products<2, kShuffle>,  sum_products<3, kShuffle>,
      sum_products<4, kShuffle>,  sum_products<5, kShuffle>,  sum_products<6, kShuffle>,
      sum_products<7, kShuffle>,  sum_products<8, kShuffle>,  sum_products<9, kShuffle>,
      sum_products<10, kShuffle>, sum_products<11, kShuffle>, sum_products<12, kShuffle>};
};

}  // namespace

void lane_products(const LaneProducts& job) {
  const bool shuffle = job.group_outputs > 1;
  const Index all = job.tap_count * job.group_inputs;
  const Index most = kVectorRegisters == 32 || !shuffle ? kMaxSums : 6;
  const Index runs = (all + most - 1) / most;
  Index first = 0;
  for (Index run = 0; run < runs; ++run) {
    const Index end = all * (run + 1) / runs;
    Sums sums;
    sums.to = job.sums + first * job.pitch;
    for (Index i = first; i < end; ++i) {
      sums.offset[i - first] = job.taps[i / job.group_inputs];
      sums.channel[i - first] = i % job.group_inputs;
    }
    const Kernel* kernels = shuffle ? Kernels<true>::kList : Kernels<false>::kList;
    kernels[end - first - 1](job, sums);
    first = end;
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
