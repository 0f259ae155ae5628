#include "backends/cuda/conv2d_products.h"

namespace pycnn::cuda {

template void multiply<float, false>(DeviceQueue&, TileSize, const GatherSource<float, SmallTile>&);
template void multiply<float, false>(DeviceQueue&, TileSize, const WeightSource<float, SmallTile>&);

}  // namespace pycnn::cuda
