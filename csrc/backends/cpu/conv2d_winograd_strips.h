#pragma once
#include <algorithm>

#include "backends/cpu/conv2d_winograd_tiles.h"
#include "backends/cpu/winograd_groups.h"

// How the tiles of groups are taken in strips and batches of strips: part of the plans of
// conv2d_winograd_groups.cpp and conv2d_winograd_group_grad.cpp.
namespace pycnn::cpu {

struct WinogradGroups {
  WinogradTiles tiles;
  Index count = 1, slice = 1;       // groups; those of a slice are read one after the other
  Index strip = 1, row_strips = 1;  // most tiles of a strip; strips of a row
  Index batch_strips = 1;

  Index channels() const { return tiles.in_channels / count; }
  Index slices() const { return ceil_div(count, slice); }
  Index rows() const { return tiles.images * tiles.rows; }  // of tiles, of all images
  // Floats of a batch's points. Planes are odd numbers of cache lines, so that they do not all fall
  // into the same sets.
  Index plane() const {
    return (ceil_div(batch_strips * strip * channels(), kWinogradLine) | 1) * kWinogradLine;
  }
  Index point_floats() const { return tiles.points() * plane(); }
  Index weight_floats() const { return tiles.points() * channels() * channels(); }  // of a group
};

// `first`: of the input, its first pixel that a tile sees.
inline WinogradGroups make_winograd_groups(const Shape& input, const Shape& output, Pair first,
                                           Index count) {
  WinogradGroups groups;
  groups.tiles = make_winograd_tiles(input, output, 3, first, 4);
  groups.count = count;
  groups.row_strips = ceil_div(groups.tiles.columns, kWinogradStrip);
  groups.strip = ceil_div(groups.tiles.columns, groups.row_strips);
  groups.batch_strips = kWinogradStrip / groups.strip;
  return groups;
}

// Why a 3x3 convolution's groups are not taken, or null. `outputs`: of the tiles.
inline const char* refuse_winograd_groups(const Shape& input, const Shape& output, Index groups,
                                          Index lanes) {
  constexpr Index kMinSide = 4;  // outputs
  if (groups == 1) return "there is one group";
  if (input[3] != output[3]) return "groups read and write different numbers of channels";
  const Index channels = input[3] / groups;
  if (channels != lanes && channels != 2 * lanes && channels != 4 * lanes)
    return "groups are not one, two or four vectors of channels";
  if (channels < kWinogradLeastGroup) return "groups have fewer than 8 channels";
  if (std::min(output[1], output[2]) < kMinSide) return "an output side is below 4";
  // Where tiles hang over, more is computed than is wanted: in short vectors little may be.
  const Index wanted = output[1] * output[2];
  const Index computed = 16 * ceil_div(output[1], Index{4}) * ceil_div(output[2], Index{4});
  if (channels == kWinogradLeastGroup && 4 * wanted < 3 * computed)
    return "outputs are less than three quarters of their tiles";
  if (2 * wanted < computed) return "outputs are less than half of their tiles";
  return nullptr;
}

// Rows of tiles and a slice of the groups.
struct WinogradItem {
  Index row, row_end;
  Index group, group_end;
};

// ---- Strips

// Tiles side by side.
struct StripPlace {
  Index image, row, column, tiles;  // in tiles
};

// Strips are counted row by row, through all images.
inline StripPlace strip_at(const WinogradGroups& groups, Index strip) {
  const Index row = strip / groups.row_strips, part = strip % groups.row_strips;
  const Index first = groups.tiles.columns * part / groups.row_strips;
  const Index end = groups.tiles.columns * (part + 1) / groups.row_strips;
  return {row / groups.tiles.rows, row % groups.tiles.rows, first, end - first};
}

// Calls f(strip, tiles before it) for strips [first, end); returns their tiles.
template <class F>
Index for_each_strip(const WinogradGroups& groups, Index first, Index end, F&& f) {
  Index tiles = 0;
  for (Index s = first; s < end; ++s) {
    const StripPlace place = strip_at(groups, s);
    f(place, tiles);
    tiles += place.tiles;
  }
  return tiles;
}

// An image tensor from the first channel of a group on.
struct GroupImages {
  const float* pixels;
  Index pitch;
};

inline WinogradStrip input_strip(const WinogradGroups& groups, const StripPlace& place,
                                 const GroupImages& images) {
  const WinogradTiles& tiles = groups.tiles;
  WinogradStrip job;
  job.rows = tiles.in_rows, job.columns = tiles.in_columns;
  job.image = images.pixels + place.image * job.rows * job.columns * images.pitch;
  job.pixel_pitch = images.pitch;
  job.row = place.row * tiles.tile + tiles.first_row;
  job.column = place.column * tiles.tile + tiles.first_column;
  job.tiles = place.tiles, job.channels = groups.channels();
  job.plane = groups.plane();
  return job;
}

// The same of the gradient of the output.
inline WinogradStrip gradient_strip(const WinogradGroups& groups, const StripPlace& place,
                                    const GroupImages& images) {
  const WinogradTiles& tiles = groups.tiles;
  WinogradStrip job = input_strip(groups, place, images);
  job.rows = tiles.out_rows, job.columns = tiles.out_columns;
  job.image = images.pixels + place.image * job.rows * job.columns * images.pitch;
  job.row = place.row * tiles.tile, job.column = place.column * tiles.tile;
  return job;
}

// ---- What is wanted soon

struct PixelRange {
  Index first, count;
};

// Pixels of the input that an item reads.
inline PixelRange input_pixels(const WinogradTiles& tiles, const WinogradItem& item) {
  auto row_at = [&](Index row, Index more) {
    const Index at = row % tiles.rows * tiles.tile + tiles.first_row + more;
    return row / tiles.rows * tiles.in_rows + std::clamp<Index>(at, 0, tiles.in_rows);
  };
  const Index first = row_at(item.row, 0), end = row_at(item.row_end - 1, tiles.side());
  return {first * tiles.in_columns, (end - first) * tiles.in_columns};
}

// Pixels of the output, or of its gradient.
inline PixelRange output_pixels(const WinogradTiles& tiles, const WinogradItem& item) {
  auto row_at = [&](Index row, Index more) {
    return row / tiles.rows * tiles.out_rows +
           std::min(row % tiles.rows * tiles.tile + more, tiles.out_rows);
  };
  const Index first = row_at(item.row, 0), end = row_at(item.row_end - 1, tiles.tile);
  return {first * tiles.out_columns, (end - first) * tiles.out_columns};
}

// Part `i` of so many of the slice's channels of some pixels.
inline LineRuns share_of(const WinogradGroups& groups, const WinogradItem& item,
                         const PixelRange& range, const GroupImages& images, Index i, Index parts) {
  const Index first = range.count * i / parts, end = range.count * (i + 1) / parts;
  return {images.pixels + (range.first + first) * images.pitch + item.group * groups.channels(),
          end - first, (item.group_end - item.group) * groups.channels(), images.pitch};
}

}  // namespace pycnn::cpu
