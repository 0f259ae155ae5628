#pragma once
#include <algorithm>

#include "backends/cpu/conv2d_measure.h"
#include "backends/cpu/winograd.h"
#include "core/ceil_div.h"
#include "pycnn/ops.h"

// How images are cut into Winograd's tiles, and how these are shared out: part of the plans of
// conv2d_winograd.cpp, conv2d_winograd_bfloat16.cpp, conv2d_winograd_weight_grad.cpp and
// conv2d_winograd_strips.h.
namespace pycnn::cpu {

constexpr Index kWinogradLine = 16;  // floats of a cache line

struct WinogradTiles {
  Index images = 0;
  Index in_rows = 0, in_columns = 0, in_channels = 0;
  Index out_rows = 0, out_columns = 0, out_channels = 0;
  Index first_row = 0, first_column = 0;  // of the first tile in the input
  Index tile = 4;                         // outputs along one side
  Index window = 3;                       // taps along one side
  Index rows = 0, columns = 0;            // of tiles in one image

  Index side() const { return tile + window - 1; }  // points along one side
  Index points() const { return side() * side(); }
  Index taps() const { return window * window; }
  Index count() const { return images * rows * columns; }
};

// Where a tile is: its image and its first output.
struct WinogradPlace {
  Index image, row, column;
};

inline WinogradPlace place_of(const WinogradTiles& tiles, Index index) {
  const Index column = index % tiles.columns, rest = index / tiles.columns;
  return {rest / tiles.rows, rest % tiles.rows * tiles.tile, column * tiles.tile};
}

// The input of tile `index`, of pixels `pitch` elements apart, for a transform that takes `Input`;
// where its points go is left open.
template <class Input, class T>
Input input_of(const WinogradTiles& tiles, const T* input, Index pitch, Index index) {
  const WinogradPlace place = place_of(tiles, index);
  Input job;
  job.rows = tiles.in_rows, job.columns = tiles.in_columns, job.channels = tiles.in_channels;
  job.pixel_pitch = pitch;
  job.image = input + place.image * tiles.in_rows * tiles.in_columns * pitch;
  job.row = place.row + tiles.first_row, job.column = place.column + tiles.first_column;
  return job;
}

// Outputs of a tile that exist; the first one is `at` elements from the first of all.
struct WinogradOutputs {
  Index at, rows, columns;
};

inline WinogradOutputs outputs_of(const WinogradTiles& tiles, Index pitch, Index index) {
  const WinogradPlace place = place_of(tiles, index);
  return {((place.image * tiles.out_rows + place.row) * tiles.out_columns + place.column) * pitch,
          std::min(tiles.tile, tiles.out_rows - place.row),
          std::min(tiles.tile, tiles.out_columns - place.column)};
}

// All of a weight (OC, KH, KW, IC), or, transposed, of the gradient for the input; which channels
// are transformed and where their points go is left open.
inline WinogradWeights weights_of(const WinogradTiles& tiles, const float* weight,
                                  bool transposed) {
  const Index in = tiles.in_channels, out = tiles.out_channels, taps = tiles.taps();
  WinogradWeights job;
  job.weight = weight;
  job.flipped = transposed;
  job.tap_pitch = transposed ? out : in;
  job.read_pitch = transposed ? taps * out : 1;
  job.write_pitch = transposed ? 1 : taps * in;
  return job;
}

inline const WinogradTransforms& transforms_of(const WinogradTiles& tiles, const WinogradSet& set) {
  return tiles.window == 5 ? *set.two_by_five
         : tiles.tile == 2 ? *set.two_by_three
                           : *set.four_by_three;
}

// `tile`: outputs along one side.
inline WinogradTiles make_winograd_tiles(const Shape& input, const Shape& output, Index window,
                                         Pair first, Index tile) {
  WinogradTiles tiles;
  tiles.images = input[0];
  tiles.in_rows = input[1], tiles.in_columns = input[2], tiles.in_channels = input[3];
  tiles.out_rows = output[1], tiles.out_columns = output[2], tiles.out_channels = output[3];
  tiles.first_row = first[0], tiles.first_column = first[1];
  tiles.window = window;
  tiles.tile = tile;
  tiles.rows = ceil_div(output[1], tiles.tile), tiles.columns = ceil_div(output[2], tiles.tile);
  return tiles;
}

// For 3x3 windows tiles of 4, but for small images, where they would be padding for a large part.
// Depends on one image alone, so that a batch has the bits of its images.
inline WinogradTiles make_winograd_tiles(const Shape& input, const Shape& output, Index window,
                                         Pair first) {
  constexpr Index kSmallSide = 7;
  const bool small = window == 5 || std::min(output[1], output[2]) <= kSmallSide;
  return make_winograd_tiles(input, output, window, first, small ? 2 : 4);
}

// Of a gradient: the tiles that take the fewest products. Their larger sets of weights or sums,
// which a single image would not repay, are shared by a batch.
inline WinogradTiles make_winograd_gradient_tiles(const Shape& input, const Shape& output,
                                                  Index window, Pair first) {
  const WinogradTiles two = make_winograd_tiles(input, output, window, first, 2);
  if (window == 5) return two;
  const WinogradTiles four = make_winograd_tiles(input, output, window, first, 4);
  return four.points() * four.count() < two.points() * two.count() ? four : two;
}

// One core's share: tiles of all images, and the blocks of output channels they are multiplied to.
struct WinogradChunk {
  Index tile, tiles;
  Index block, block_end;
};

// How tiles, and where these are few also blocks of output channels, are shared out.
struct WinogradShares {
  Index blocks = 0;
  Index chunk_tiles = 0, chunks = 0;
  Index splits = 1;  // of the blocks

  Index count() const { return chunks * splits; }
  // Several shares have the same tiles, which are transformed before all else.
  bool shared() const { return splits > 1; }
  Index tiles_of(Index share) const { return share % chunks; }
};

inline WinogradShares share_out(const WinogradTiles& tiles, Index most_tiles, Index blocks) {
  constexpr Index kWantedShares = 16;
  WinogradShares shares;
  shares.blocks = blocks;
  shares.chunks = std::max<Index>(1, ceil_div(tiles.count(), most_tiles));
  shares.chunk_tiles = std::max<Index>(1, ceil_div(tiles.count(), shares.chunks));
  while (shares.count() < kWantedShares && shares.splits * 2 <= blocks) shares.splits *= 2;
  return shares;
}

inline WinogradChunk chunk_at(const WinogradTiles& tiles, const WinogradShares& shares,
                              Index index) {
  WinogradChunk chunk;
  chunk.tile = shares.tiles_of(index) * shares.chunk_tiles;
  chunk.tiles = std::min(shares.chunk_tiles, tiles.count() - chunk.tile);
  const Index split = index / shares.chunks;
  chunk.block = shares.blocks * split / shares.splits;
  chunk.block_end = shares.blocks * (split + 1) / shares.splits;
  return chunk;
}

// Has a share of finished tiles measured if that is wanted; `width`: channels of a block. Tiles
// that follow one another in a row of them have their pixels in some rows of the image.
inline void measure_tiles(const WinogradTiles& tiles, const WinogradShares& shares, Index width,
                          const Measure& measure, Index share) {
  if (!measure.wanted()) return;
  const WinogradChunk chunk = chunk_at(tiles, shares, share);
  const Index first = chunk.block * width;
  const Index channels = std::min(chunk.block_end * width, tiles.out_channels);
  MeasuredPart part(measure, shares.tiles_of(share), first, channels - first);
  const Index end = chunk.tile + chunk.tiles;
  for (Index tile = chunk.tile; tile < end;) {
    const Index next = std::min(end, (tile / tiles.columns + 1) * tiles.columns);
    const WinogradOutputs head = outputs_of(tiles, 1, tile);
    const WinogradOutputs tail = outputs_of(tiles, 1, next - 1);
    for (Index row = 0; row < head.rows; ++row)
      part.add(head.at + row * tiles.out_columns, tail.at + tail.columns - head.at);
    tile = next;
  }
}

}  // namespace pycnn::cpu
