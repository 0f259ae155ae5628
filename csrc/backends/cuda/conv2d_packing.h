#pragma once
#include "backends/cuda/conv2d.h"
#include "backends/cuda/conv2d_tiles.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/parts.h"

// Convolutions as they are multiplied: which groups and taps become one, and how weights are laid
// out for that.
namespace pycnn::cuda {

// Narrow groups are joined as long as a tile's width takes them.
constexpr int kJoinedChannels = 64;

inline GroupShape groups_of(const ConvShape& s) {
  const int in = s.in_group(), out = s.out_group(), widest = in > out ? in : out;
  int joined = 1;
  for (int n = 2; n <= s.groups && n * widest <= kJoinedChannels; ++n)
    if (s.groups % n == 0) joined = n;
  return {joined, s.groups / joined, in * joined, out * joined, in, out};
}

inline ConvWindow window_y(const ConvShape& s) {
  return {s.kernel_height, s.stride_y, s.top, s.dilation_y};
}
inline ConvWindow window_x(const ConvShape& s) {
  return {s.kernel_width, s.stride_x, s.left, s.dilation_x};
}

// A convolution as it is multiplied, with a row of its window as one tap where channels are few.
// The input's gradient, which gathers output channels, is not.
struct Joined {
  GroupShape g;
  ConvWindow y, x;
  bool rows;
  int taps() const { return y.size * x.size; }
};

constexpr int kFewChannels = 8;

inline Joined joined(const ConvShape& s) {
  Joined result{groups_of(s), window_y(s), window_x(s), false};
  result.rows = s.groups == 1 && s.dilation_x == 1 && s.kernel_width > 1 &&
                s.in_channels < kFewChannels && s.in_channels % 4 != 0;
  if (result.rows) {
    result.g.in = result.g.in_narrow = s.kernel_width * s.in_channels;
    result.x.size = 1;
  }
  return result;
}

// kForward: (group, output channel, tap, input channel) from the weights as they are stored, which
// it also is but for the padding and the joined groups. kBackward: (group, input channel, tap,
// output channel): 32 x 32 channels of a tap are turned in shared memory, so that both sides go
// through memory by neighbours.
template <class T>
struct Packing {
  static constexpr int kTile = 32;
  GroupShape g;
  int taps, padded;
  PackForm form;
  std::int32_t first_block;
  const float* weight;
  T* packed;

  PYCNN_BOTH static int tiles(int size) { return (size + kTile - 1) / kTile; }
  PYCNN_BOTH std::int64_t count() const {
    return std::int64_t{g.groups} * (form == PackForm::kBackward ? g.in : g.out) * taps * padded;
  }
};

constexpr int kPackThreads = 256;
constexpr std::int64_t kPackTile = 8 * kPackThreads;  // of elements, but backward

template <class T>
std::int64_t blocks_of(const Packing<T>& p) {
  if (p.form != PackForm::kBackward) return (p.count() + kPackTile - 1) / kPackTile;
  return std::int64_t{p.tiles(p.g.in)} * p.tiles(p.padded) * p.taps * p.g.groups;
}

template <class T, int Most>
struct PackAll {
  static constexpr int kTile = Packing<T>::kTile, kThreads = kPackThreads, kStep = kThreads / kTile;
  static constexpr int kWidth = static_cast<int>(kPackTile / kThreads);
  struct Shared {
    float value[kTile][kTile + 1];
  };
  struct Registers {};
  int count;
  Packing<T> of[Most];

  PYCNN_BOTH void operator()(Block<PackAll>& block) const {
    const Packing<T>& p =
        of[part_of(block.index(), count, [&](int i) { return of[i].first_block; })];
    const std::int64_t own = block.index() - p.first_block;
    if (p.form == PackForm::kBackward)
      turn(block, p, own);
    else if (p.form == PackForm::kForward)
      pad(block, p, own * kPackTile);
    else
      round(block, p, own * kPackTile);
  }

 private:
  PYCNN_BOTH static void pad(Block<PackAll>& block, const Packing<T>& p, std::int64_t first) {
    const std::int64_t end = p.count();
    block.last([&](int thread, Registers&) {
      const std::int64_t begin = first + std::int64_t{thread} * kWidth;
      if (begin >= end) return;
      // The padded channels are whole vectors.
      constexpr int kPart = kVector<T>;
      PYCNN_UNROLL
      for (int part = 0; part < kWidth / kPart; ++part) {
        const std::int64_t at = begin + part * kPart;
        if (at >= end) return;
        const int channel = static_cast<int>(at % p.padded);
        std::int64_t rest = at / p.padded;
        const int tap = static_cast<int>(rest % p.taps);
        rest /= p.taps;
        const int n = static_cast<int>(rest % p.g.out), group = static_cast<int>(rest / p.g.out);
        float values[kPart];
        PYCNN_UNROLL
        for (int i = 0; i < kPart; ++i)
          values[i] = channel + i < p.g.in && p.g.is_diagonal(channel + i, n)
                          ? p.weight[p.g.weight(group, n, tap, p.taps, channel + i)]
                          : 0.0f;
        store(p.packed + at, kPart, values);
      }
    });
  }

  PYCNN_BOTH static void round(Block<PackAll>& block, const Packing<T>& p, std::int64_t first) {
    const std::int64_t end = p.count();
    block.last([&](int thread, Registers&) {
      constexpr int kPart = kVector<T>;
      PYCNN_UNROLL
      for (int part = 0; part < kWidth / kPart; ++part) {
        // Neighbours in turn.
        const std::int64_t at = first + (std::int64_t{part} * kThreads + thread) * kPart;
        if (at >= end) return;
        const int n = end - at < kPart ? static_cast<int>(end - at) : kPart;
        float values[kPart];
        load(p.weight + at, n, values);
        store(p.packed + at, n, values);
      }
    });
  }

  PYCNN_BOTH static void turn(Block<PackAll>& block, const Packing<T>& p, std::int64_t tile) {
    const int in0 = static_cast<int>(tile % p.tiles(p.g.in)) * kTile;
    std::int64_t rest = tile / p.tiles(p.g.in);
    const int out0 = static_cast<int>(rest % p.tiles(p.padded)) * kTile;
    rest /= p.tiles(p.padded);
    const int tap = static_cast<int>(rest % p.taps), group = static_cast<int>(rest / p.taps);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      const int in = in0 + thread % kTile;
      for (int line = thread / kTile; line < kTile; line += kStep) {
        const int out = out0 + line;
        shared.value[line][thread % kTile] =
            in < p.g.in && out < p.g.out && p.g.is_diagonal(in, out)
                ? p.weight[p.g.weight(group, out, tap, p.taps, in)]
                : 0.0f;
      }
    });
    block.last([&](int thread, Registers&) {
      const int out = out0 + thread % kTile;
      for (int line = thread / kTile; line < kTile; line += kStep) {
        const int in = in0 + line;
        if (in < p.g.in && out < p.padded)
          narrow(shared.value[thread % kTile][line],
                 p.packed[((std::int64_t{group} * p.g.in + in) * p.taps + tap) * p.padded + out]);
      }
    });
  }
};

template <class T>
Packing<T> packing_of(const ConvShape& shape, PackForm form) {
  Packing<T> packing{};
  packing.form = form;
  if (form == PackForm::kBackward) {
    packing.g = groups_of(shape);
    packing.taps = shape.taps();
    packing.padded = padded_channels<T>(packing.g.out);
  } else if (form == PackForm::kRounded) {
    packing.g = {1, 1, shape.in_group(), shape.out_channels, shape.in_group(), shape.out_channels};
    packing.taps = shape.taps();
    packing.padded = packing.g.in;
  } else {
    const Joined product = joined(shape);
    packing.g = product.g;
    packing.taps = product.taps();
    packing.padded = padded_channels<T>(packing.g.in);
  }
  return packing;
}

template <class T, int Most>
void launch_packings(DeviceQueue& queue, const ConvPacking* packings, int count) {
  PackAll<T, Most> kernel{count, {}};
  static_assert(sizeof kernel <= 4096 && Most <= 64);
  std::int64_t blocks = 0;
  for (int i = 0; i < count; ++i) {
    Packing<T> packing = packing_of<T>(packings[i].shape, packings[i].form);
    packing.first_block = static_cast<std::int32_t>(blocks);
    packing.weight = packings[i].weight;
    packing.packed = static_cast<T*>(packings[i].packed);
    kernel.of[i] = packing;
    blocks += blocks_of(packing);
  }
  launch(queue, kernel, blocks);
}

}  // namespace pycnn::cuda
