#include <algorithm>

#include "backends/cuda/divider.h"
#include "backends/cuda/launch.h"
#include "backends/cuda/move.h"

namespace pycnn::cuda {
namespace {

constexpr int kTileBytes = 128;  // of a tile, along either axis

// Two axes of a box: the input goes by ones along x, the output along y. A block has a tile of
// both, which lies in shared memory by rows of x, in words of 32 bits: it reads 16 bytes along x,
// and a thread takes a column of words out of 16 bytes' worth of rows and writes 16 bytes along y
// for each element of a word. At once that is only where rows begin at whole vectors; from any
// other place a thread moves its 16 bytes one element after the other.
//
// A row of the tile is one word longer than the memory has banks. So the 4 rows that a warp writes
// at once, by words that lie 4 apart, are in all 32 of them; so is what it reads: of rows that lie
// kVectorItems apart 32 / kVectorItems, of each kVectorItems words.
template <class Item>
struct TransposeTiles {
  static constexpr int kThreads = 256;
  static constexpr int kItemBits = 8 * static_cast<int>(sizeof(Item));
  static constexpr int kWordItems = 32 / kItemBits, kVectorItems = kVector<Item>;
  static constexpr int kWords = kTileBytes / 4, kVectorWords = 4;
  static constexpr int kRowVectors = kWords / kVectorWords;
  static constexpr int kTile = kWords * kWordItems;  // elements, along either axis
  struct Shared {
    std::uint32_t word[kTile][kWords + 1];
  };
  struct Registers {};
  using Vector = Pack<std::uint32_t, kVectorWords>;

  const Item* input;
  Item* output;
  std::int64_t x_size, y_size, input_step, output_step;  // from one y, or x, to the next
  WideDivider x_tiles, y_tiles;
  int axes = 0;  // the others
  WideDivider size[kMaxBoxAxes - 2];
  std::int64_t input_steps[kMaxBoxAxes - 2] = {}, output_steps[kMaxBoxAxes - 2] = {};
  std::int64_t tiles;

  TransposeTiles(const BoxParams& p, int x_axis, int y_axis)
      : input(static_cast<const Item*>(p.input)),
        output(static_cast<Item*>(p.output)),
        x_size(p.shape[x_axis]),
        y_size(p.shape[y_axis]),
        input_step(p.input_step[y_axis]),
        output_step(p.output_step[x_axis]),
        x_tiles((x_size + kTile - 1) / kTile),
        y_tiles((y_size + kTile - 1) / kTile),
        tiles(p.count / (x_size * y_size) * x_tiles.divisor * y_tiles.divisor) {
    for (int axis = 0; axis < p.axes; ++axis) {
      if (axis == x_axis || axis == y_axis) continue;
      size[axes] = WideDivider(p.shape[axis]);
      input_steps[axes] = p.input_step[axis];
      output_steps[axes++] = p.output_step[axis];
    }
  }

  // Of 16 bytes, or of what there is.
  PYCNN_BOTH static Vector load_items(const Item* from, std::int64_t n) {
    Vector vector;
    if (n >= kVectorItems && is_at_vector(from)) {
      vector = *reinterpret_cast<const Vector*>(from);
    } else {
      PYCNN_UNROLL
      for (int w = 0; w < kVectorWords; ++w) {
        vector.element[w] = 0;
        PYCNN_UNROLL
        for (int i = 0; i < kWordItems; ++i)
          if (w * kWordItems + i < n)
            vector.element[w] |= std::uint32_t{from[w * kWordItems + i]} << (i * kItemBits);
      }
    }
    return vector;
  }
  PYCNN_BOTH static void store_items(Item* to, std::int64_t n, const Vector& vector) {
    if (n >= kVectorItems && is_at_vector(to)) {
      *reinterpret_cast<Vector*>(to) = vector;
    } else {
      PYCNN_UNROLL
      for (int i = 0; i < kVectorItems; ++i)
        if (i < n)
          to[i] = static_cast<Item>(vector.element[i / kWordItems] >> (i % kWordItems * kItemBits));
    }
  }

  PYCNN_BOTH void operator()(Block<TransposeTiles>& block) const {
    std::int64_t x_first = block.index();
    std::int64_t y_first = x_tiles.split(x_first);
    std::int64_t rest = y_tiles.split(y_first);
    x_first *= kTile;
    y_first *= kTile;
    const Item* from = input + y_first * input_step + x_first;
    Item* to = output + x_first * output_step + y_first;
    for (int axis = axes - 1; axis >= 0; --axis) {
      std::int64_t i = rest;
      if (axis > 0) rest = size[axis].split(i);
      from += i * input_steps[axis];
      to += i * output_steps[axis];
    }
    const std::int64_t x_left = x_size - x_first, y_left = y_size - y_first;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      constexpr int kRows = kThreads / kRowVectors;
      const int x = thread % kRowVectors * kVectorItems;
      Vector vectors[kWordItems];
      PYCNN_UNROLL
      for (int k = 0; k < kWordItems; ++k) {
        const int y = thread / kRowVectors + k * kRows;
        if (y < y_left && x < x_left)
          vectors[k] = load_items(from + y * input_step + x, x_left - x);
      }
      PYCNN_UNROLL
      for (int k = 0; k < kWordItems; ++k) {
        const int y = thread / kRowVectors + k * kRows;
        if (y < y_left && x < x_left) {
          PYCNN_UNROLL
          for (int w = 0; w < kVectorWords; ++w)
            shared.word[y][thread % kRowVectors * kVectorWords + w] = vectors[k].element[w];
        }
      }
    });
    block.last([&](int thread, Registers&) {
      constexpr int kNear = 32 / kVectorItems;  // vectors along y of a warp
      const int column = thread / kNear % kWords;
      const int y = (thread % kNear + thread / (kNear * kWords) * kNear) * kVectorItems;
      if (y >= y_left || column * kWordItems >= x_left) return;
      std::uint32_t words[kVectorItems];
      PYCNN_UNROLL
      for (int k = 0; k < kVectorItems; ++k) words[k] = shared.word[y + k][column];
      PYCNN_UNROLL
      for (int e = 0; e < kWordItems; ++e) {
        const int x = column * kWordItems + e;
        if (x >= x_left) continue;
        Vector vector;
        PYCNN_UNROLL
        for (int w = 0; w < kVectorWords; ++w) {
          vector.element[w] = 0;
          PYCNN_UNROLL
          for (int i = 0; i < kWordItems; ++i)
            vector.element[w] |=
                std::uint32_t{static_cast<Item>(words[w * kWordItems + i] >> (e * kItemBits))}
                << (i * kItemBits);
        }
        store_items(to + x * output_step + y, y_left - y, vector);
      }
    });
  }
};

}  // namespace

bool transpose_box(DeviceQueue& queue, int item_bytes, const BoxParams& params) {
  // Elements of 8 bytes are labels and counters. Fewer neighbours than a sector of memory, on
  // either side, or a tile that is less than a quarter full are not worth one. What is read again
  // and again (a step of 0) is no side.
  constexpr int kMostBytes = 4, kLeastBytes = 32;
  if (item_bytes > kMostBytes) return false;
  int x_axis = -1, y_axis = -1;
  for (int axis = 0; axis < params.axes; ++axis) {
    if (params.shape[axis] < kLeastBytes / item_bytes) continue;
    if (params.input_step[axis] == 1)
      x_axis = axis;
    else if (params.output_step[axis] == 1 && params.input_step[axis] != 0)
      y_axis = axis;
  }
  if (x_axis < 0 || y_axis < 0 || params.output_step[x_axis] == 1) return false;
  const std::int64_t tile = kTileBytes / item_bytes;
  const auto used = [&](int axis) { return std::min(params.shape[axis], tile); };
  if (4 * used(x_axis) * used(y_axis) < tile * tile) return false;
  const auto transpose = [&](auto item) {
    const TransposeTiles<decltype(item)> kernel(params, x_axis, y_axis);
    launch(queue, kernel, kernel.tiles);
  };
  if (item_bytes == 1)
    transpose(std::uint8_t{});
  else if (item_bytes == 2)
    transpose(std::uint16_t{});
  else
    transpose(std::uint32_t{});
  return true;
}

}  // namespace pycnn::cuda
