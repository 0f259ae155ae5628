#include "backends/cuda/conv2d_products.h"

namespace pycnn::cuda {

template void multiply<Float16, true>(DeviceQueue&, TileSize,
                                      const GatherSource<Float16, SmallTile>&);
template void multiply<Float16, true>(DeviceQueue&, TileSize,
                                      const WeightSource<Float16, SmallTile>&);

}  // namespace pycnn::cuda
