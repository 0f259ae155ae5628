#pragma once
#include <algorithm>

#include "backends/cpu/conv2d_grouped_tiles.h"
#include "backends/cpu/conv2d_input.h"

// How grouped convolutions cut channels into vectors and copy input rows, in both directions.
namespace pycnn::cpu {

// Where vectors of output channels lie. Groups that are smaller than a vector share one.
struct GroupVectors {
  Index lanes, group;  // group: output channels
  bool shared() const { return group < lanes; }
  Index per_group() const { return ceil_div(group, lanes); }  // of groups that are not smaller
  Index count(Index channels) const {
    return shared() ? ceil_div(channels, lanes) : channels / group * per_group();
  }
  // First output channel of vector v, and how many there are from it on.
  Index first(Index v) const {
    return shared() ? v * lanes : v / per_group() * group + v % per_group() * lanes;
  }
  Index valid(Index v, Index channels) const {
    const Index end = shared() ? channels : (v / per_group() + 1) * group;
    return std::min(lanes, end - first(v));
  }
};

// Groups that fit into a block of input channels, at least one.
inline Index groups_of_block(Index group_inputs) {
  return std::max<Index>(1, kInputBlock / group_inputs);
}

// The copy of some groups' input rows.
struct GroupRows {
  const float* image;
  float* buffer;
  Index output_row;     // the first that the buffer serves
  Index first_channel;  // of the input
  Index plane_pitch;
  Index group;  // as GroupRow's: 0 for blocks
};

// What a copy holds: blocks of input channels, or planes of vectors of this length.
struct GroupLayout {
  Index planes, vector;  // vector: 0 for blocks
};

// Sets the pitches of `in` for such copies; returns the pitch of planes, or blocks.
Index plan_group_rows(ConvInput& in, const GroupLayout& layout);

// Rows [first, end) of the buffer, zeros around what the image has.
void copy_group_rows(const ConvInput& in, const GroupRows& rows, Index first, Index end,
                     void (*copy)(const GroupRow&));

}  // namespace pycnn::cpu
