#include "backends/cuda/conv2d_products.h"

namespace pycnn::cuda {

template void multiply<BFloat16, true>(DeviceQueue&, TileSize,
                                       const GatherSource<BFloat16, SmallTile>&);
template void multiply<BFloat16, true>(DeviceQueue&, TileSize,
                                       const WeightSource<BFloat16, SmallTile>&);

}  // namespace pycnn::cuda
