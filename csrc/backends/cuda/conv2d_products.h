#pragma once
#include <bit>
#include <type_traits>

#include "backends/cuda/conv2d_tiles.h"

// Definition of `multiply` (conv2d_tiles.h), for the files that instantiate it.
namespace pycnn::cuda {

template <class Source, bool kTensorCores>
using MathOf = std::conditional_t<
    kTensorCores, TensorCores<typename Source::Element, typename Source::Tile, Source::kDepthInner>,
    PlainFloats<typename Source::Tile, Source::kDepthInner>>;

// A source does not depend on its tile but for constants.
template <bool kTensorCores, class To, class From>
void multiply_as(DeviceQueue& queue, const From& from) {
  const TileProduct<To, MathOf<To, kTensorCores>> kernel{std::bit_cast<To>(from)};
  launch(queue, kernel, kernel.source.blocks());
}

template <class T, bool kTensorCores>
void multiply(DeviceQueue& queue, TileSize size, const GatherSource<T, SmallTile>& source) {
  switch (size) {
    case TileSize::kLarge:
      return multiply_as<kTensorCores, GatherSource<T, LargeTile>>(queue, source);
    case TileSize::kMedium:
      return multiply_as<kTensorCores, GatherSource<T, MediumTile>>(queue, source);
    case TileSize::kSmall:
      return multiply_as<kTensorCores, GatherSource<T, SmallTile>>(queue, source);
  }
}

template <class T, bool kTensorCores>
void multiply(DeviceQueue& queue, TileSize size, const WeightSource<T, SmallTile>& source) {
  if (size == TileSize::kLarge)
    return multiply_as<kTensorCores, WeightSource<T, LargeTile>>(queue, source);
  return multiply_as<kTensorCores, WeightSource<T, SmallTile>>(queue, source);
}

}  // namespace pycnn::cuda
