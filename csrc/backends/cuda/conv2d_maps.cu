#include <limits>

#include "backends/cuda/conv2d_maps.h"
#include "backends/cuda/map.h"
#include "backends/cuda/parts.h"

namespace pycnn::cuda {
namespace {

constexpr std::int64_t kMostPlaces = std::numeric_limits<std::int32_t>::max();

std::int64_t vectors_of(std::int64_t count, int width) { return (count + width - 1) / width; }

// Without blocks and border all pixels are one row, if these can be counted, or those of an image.
BlockMap flattened(const BlockMap& map) {
  BlockMap flat = map;
  if (map.block_y != 1 || map.block_x != 1 || map.top != 0 || map.left != 0 ||
      map.height != map.to_height || map.width != map.to_width)
    return flat;
  const std::int64_t pixels = std::int64_t{map.height} * map.width;
  const int widest = map.to_channels > map.channels ? map.to_channels : map.channels;
  const bool is_one = pixels * map.images <= kMostPlaces / widest;
  flat.images = is_one ? 1 : map.images;
  flat.height = flat.to_height = 1;
  flat.width = flat.to_width = static_cast<int>(is_one ? pixels * map.images : pixels);
  return flat;
}

// A thread has one vector of the image of blocks, whose rows of a block follow one another in the
// image.
template <class Word>
struct GatherBlocks {
  static constexpr int kWidth = 1, kItems = kVector<Word>;
  const Word* from;
  Word* to;
  int height, row, block_y, top;  // row: elements of one of the image
  int before, run;                // elements of the border, of one row of a block
  Divider vectors, to_width, to_height, run_divider;

  GatherBlocks(const BlockMap& m, const void* image, void* blocks)
      : from(static_cast<const Word*>(image)),
        to(static_cast<Word*>(blocks)),
        height(m.height),
        row(m.width * m.channels),
        block_y(m.block_y),
        top(m.top),
        before(m.left * m.channels),
        run(m.block_x * m.channels),
        vectors(m.to_channels / kItems),
        to_width(m.to_width),
        to_height(m.to_height),
        run_divider(run) {}

  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    auto part = static_cast<std::uint32_t>(at);
    std::uint32_t column = vectors.split(part);
    std::uint32_t line = to_width.split(column);
    const std::uint32_t image = to_height.split(line);
    auto place = part * static_cast<std::uint32_t>(kItems);
    int by = static_cast<int>(run_divider.split(place));
    int r = static_cast<int>(place);
    const std::int64_t begin = std::int64_t{static_cast<int>(column)} * run - before;
    const int y0 = static_cast<int>(line) * block_y - top;
    const std::int64_t first_row = std::int64_t{image} * height;
    Pack<Word, kItems> pack{};
    const bool is_whole = by < block_y && r + kItems <= run && y0 + by >= 0 && y0 + by < height &&
                          begin + r >= 0 && begin + r + kItems <= row;
    const Word* const whole = from + (first_row + y0 + by) * row + begin + r;
    if (is_whole && is_one_access<Word, kItems>(whole)) {
      pack = *reinterpret_cast<const Pack<Word, kItems>*>(whole);
    } else {
      PYCNN_UNROLL
      for (int i = 0; i < kItems; ++i) {
        const int y = y0 + by;
        const std::int64_t x = begin + r;
        if (by < block_y && y >= 0 && y < height && x >= 0 && x < row)
          pack.element[i] = from[(first_row + y) * row + x];
        if (++r == run) {
          r = 0;
          ++by;
        }
      }
    }
    *reinterpret_cast<Pack<Word, kItems>*>(to + at * kItems) = pack;
  }
};

// Where the elements of a vector of the image are in that of blocks: they follow one another but
// where a block ends.
struct BlockPlaces {
  int block_y, top, before, run;
  int to_height, to_width, to_channels;
  Divider block_y_divider, run_divider, height;

  explicit BlockPlaces(const BlockMap& m)
      : block_y(m.block_y),
        top(m.top),
        before(m.left * m.channels),
        run(m.block_x * m.channels),
        to_height(m.to_height),
        to_width(m.to_width),
        to_channels(m.to_channels),
        block_y_divider(m.block_y),
        run_divider(run),
        height(m.height) {}

  // visit(i, place, r) for `count` elements from `begin` of a row of all images on; place is
  // negative where no block has it, r that within a row of a block.
  template <class Visit>
  PYCNN_BOTH void each(std::uint32_t row, std::uint32_t begin, int count,
                       const Visit& visit) const {
    std::uint32_t y = row;
    const std::uint32_t image = height.split(y);
    std::uint32_t by = y + static_cast<std::uint32_t>(top);
    const auto to_y = static_cast<int>(block_y_divider.split(by));
    std::uint32_t r = begin + static_cast<std::uint32_t>(before);
    auto to_x = static_cast<int>(run_divider.split(r));
    const std::int64_t line = std::int64_t{image} * to_height + to_y;
    PYCNN_UNROLL
    for (int i = 0; i < count; ++i) {
      const bool there = to_y < to_height && to_x < to_width;
      const std::int64_t place = (line * to_width + to_x) * to_channels +
                                 std::int64_t{by} * static_cast<std::uint32_t>(run) + r;
      visit(i, there ? place : -1, static_cast<int>(r));
      if (++r == static_cast<std::uint32_t>(run)) {
        r = 0;
        ++to_x;
      }
    }
  }
};

// A thread has one vector of a row of the image.
template <class Word>
struct ScatterBlocks {
  static constexpr int kWidth = 1, kItems = kVector<Word>;
  BlockPlaces places;
  const Word* to;
  Word* from;
  int row;
  Divider vectors;

  ScatterBlocks(const BlockMap& m, const void* blocks, void* image)
      : places(m),
        to(static_cast<const Word*>(blocks)),
        from(static_cast<Word*>(image)),
        row(m.width * m.channels),
        vectors(vectors_of(row, kItems)) {}

  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    auto part = static_cast<std::uint32_t>(at);
    const std::uint32_t line = vectors.split(part);
    const std::uint32_t begin = part * static_cast<std::uint32_t>(kItems);
    const int n = row - static_cast<int>(begin);
    Word* const target = from + std::int64_t{line} * row + begin;
    Pack<Word, kItems> pack{};
    places.each(line, begin, kItems, [&](int i, std::int64_t place, int) {
      if (i < n && place >= 0) pack.element[i] = to[place];
    });
    if (n >= kItems && is_one_access<Word, kItems>(target))
      *reinterpret_cast<Pack<Word, kItems>*>(target) = pack;
    else
      for (int i = 0; i < kItems && i < n; ++i) target[i] = pack.element[i];
  }
};

template <class T>
struct FinishPadded {
  static constexpr int kWidth = 1, kItems = kVector<T>;
  BlockPlaces places;
  const T* to;
  T* from;
  int row;
  Divider vectors;
  ConvEpilogue epilogue;

  FinishPadded(const BlockMap& m, const ConvEpilogue& e, const void* sums, void* output)
      : places(m),
        to(static_cast<const T*>(sums)),
        from(static_cast<T*>(output)),
        row(m.width * m.channels),
        vectors(vectors_of(row, kItems)),
        epilogue(e) {}

  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    auto part = static_cast<std::uint32_t>(at);
    const std::uint32_t line = vectors.split(part);
    const std::uint32_t begin = part * static_cast<std::uint32_t>(kItems);
    const int left = row - static_cast<int>(begin), n = left < kItems ? left : kItems;
    const std::int64_t first = std::int64_t{line} * row + begin;
    float y[kItems], r[kItems] = {};
    if (epilogue.residual != nullptr) load(static_cast<const T*>(epilogue.residual) + first, n, r);
    places.each(line, begin, kItems, [&](int i, std::int64_t place, int channel) {
      float sum = i < n && place >= 0 ? widened(to[place]) : 0.0f;
      if (epilogue.bias != nullptr) sum += epilogue.bias[channel];
      y[i] = activate(epilogue.curve, sum + r[i]);
    });
    store(from + first, n, y);
  }
};

// Where an element of the mapped weights comes from; negative: it is zero.
PYCNN_BOTH std::int64_t source_of(const FilterMap& m, int n, int y, int x, int channel) {
  const int run = m.block_x * m.channels();
  const int by = channel / run, bx = channel % run / m.channels(), c = channel % m.channels();
  const int ky = y * m.block_y + by, kx = x * m.block_x + bx;
  if (n >= m.out_channels || by >= m.block_y || ky % m.dilation_y != 0 || kx % m.dilation_x != 0)
    return -1;
  const int kh = ky / m.dilation_y, kw = kx / m.dilation_x;
  if (kh >= m.kernel_height || kw >= m.kernel_width) return -1;
  if (n / m.out_group % m.joined != c / m.in_group) return -1;
  return ((std::int64_t{n} * m.kernel_height + kh) * m.kernel_width + kw) * m.in_group +
         c % m.in_group;
}

template <class T>
struct MappedFilter {
  static constexpr int kWidth = kVector<T>;
  FilterMap m;
  std::int32_t first_block;
  std::int64_t end;
  const float* from;
  T* to;
  // From element `begin` on.
  PYCNN_BOTH void map_vector(std::int64_t begin) const {
    const int channel = static_cast<int>(begin % m.to_in_group);
    auto rest = static_cast<std::uint32_t>(begin / m.to_in_group);
    const int x = static_cast<int>(rest % static_cast<std::uint32_t>(m.to_width));
    rest /= static_cast<std::uint32_t>(m.to_width);
    const int y = static_cast<int>(rest % static_cast<std::uint32_t>(m.to_height));
    const int n = static_cast<int>(rest / static_cast<std::uint32_t>(m.to_height));
    float values[kWidth];
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      const std::int64_t source = source_of(m, n, y, x, channel + i);
      values[i] = source < 0 ? 0.0f : from[source];
    }
    store(to + begin, kWidth, values);
  }
};

template <class T, int Most>
struct MapFilters {
  static constexpr int kThreads = 256;
  static constexpr std::int64_t kTile = std::int64_t{kThreads} * MappedFilter<T>::kWidth;
  struct Shared {};
  struct Registers {};
  int count;
  MappedFilter<T> of[Most];

  PYCNN_BOTH void operator()(Block<MapFilters>& block) const {
    const MappedFilter<T>& filter =
        of[part_of(block.index(), count, [&](int i) { return of[i].first_block; })];
    const std::int64_t tile = (block.index() - filter.first_block) * kTile;
    block.last([&](int thread, Registers&) {
      const std::int64_t begin = tile + std::int64_t{thread} * MappedFilter<T>::kWidth;
      if (begin < filter.end) filter.map_vector(begin);
    });
  }
};

template <class T, int Most>
void launch_filters(DeviceQueue& queue, const FilterMapping* mappings, int count) {
  using Kernel = MapFilters<T, Most>;
  static_assert(sizeof(Kernel) <= 4096 && Most <= 64);
  Kernel kernel{count, {}};
  std::int64_t blocks = 0;
  for (int i = 0; i < count; ++i) {
    const std::int64_t end = mappings[i].map.to_count();
    kernel.of[i] = {mappings[i].map, static_cast<std::int32_t>(blocks), end, mappings[i].from,
                    static_cast<T*>(mappings[i].to)};
    blocks += (end + Kernel::kTile - 1) / Kernel::kTile;
  }
  launch(queue, kernel, blocks);
}

template <class To, class From>
struct UnmapFilter {
  static constexpr int kWidth = 1;
  FilterMap m;
  const To* to;
  From* from;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const int c = static_cast<int>(at % m.in_group);
    auto rest = static_cast<std::uint32_t>(at / m.in_group);
    const int kw = static_cast<int>(rest % static_cast<std::uint32_t>(m.kernel_width));
    rest /= static_cast<std::uint32_t>(m.kernel_width);
    const int kh = static_cast<int>(rest % static_cast<std::uint32_t>(m.kernel_height));
    const int n = static_cast<int>(rest / static_cast<std::uint32_t>(m.kernel_height));
    const int ky = kh * m.dilation_y, kx = kw * m.dilation_x;
    const int channel = (ky % m.block_y * m.block_x + kx % m.block_x) * m.channels() +
                        n / m.out_group % m.joined * m.in_group + c;
    const std::int64_t place =
        (std::int64_t{n} * m.to_height + ky / m.block_y) * m.to_width + kx / m.block_x;
    narrow(widened(to[place * m.to_in_group + channel]), from[at]);
  }
};

}  // namespace

bool fits(const BlockMap& map, int item_bytes) {
  const int items = kVectorBytes / item_bytes;
  const BlockMap flat = flattened(map);
  const std::int64_t row = std::int64_t{flat.width + flat.left} * flat.channels + items;
  const std::int64_t run = std::int64_t{flat.block_x} * flat.channels;
  return row <= kMostPlaces && run <= kMostPlaces / flat.block_y &&
         std::int64_t{flat.images} * flat.height <=
             kMostPlaces / vectors_of(std::int64_t{flat.width} * flat.channels, items) &&
         std::int64_t{flat.height} + flat.top <= kMostPlaces &&
         flat.to_count() / items <= kMostPlaces;
}

void gather_blocks(DeviceQueue& queue, int item_bytes, const BlockMap& map, const void* from,
                   void* to) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    launch_map(queue, GatherBlocks<Word>(flattened(map), from, to), map.to_count() / kVector<Word>);
  });
}

void scatter_blocks(DeviceQueue& queue, int item_bytes, const BlockMap& map, const void* to,
                    void* from) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    const BlockMap flat = flattened(map);
    const ScatterBlocks<Word> kernel(flat, to, from);
    launch_map(queue, kernel, std::int64_t{flat.images} * flat.height * kernel.vectors.divisor);
  });
}

void finish_padded(DeviceQueue& queue, Image image, const BlockMap& map,
                   const ConvEpilogue& epilogue, const void* to, void* from) {
  with_image(image, [&](auto type) {
    const BlockMap flat = flattened(map);
    const FinishPadded<decltype(type)> kernel(flat, epilogue, to, from);
    launch_map(queue, kernel, std::int64_t{flat.images} * flat.height * kernel.vectors.divisor);
  });
}

void map_filters(DeviceQueue& queue, Image image, const FilterMapping* mappings, int count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    if (count == 1)
      launch_filters<T, 1>(queue, mappings, count);
    else
      launch_filters<T, kMostFilters>(queue, mappings, count);
  });
}

void unmap_filter(DeviceQueue& queue, const FilterMap& map, Image to_type, const void* to,
                  Image from_type, void* from) {
  with_image(to_type, [&](auto type) {
    using T = decltype(type);
    const auto* const values = static_cast<const T*>(to);
    if (from_type == Image::kFloat32)
      launch_map(queue, UnmapFilter<T, float>{map, values, static_cast<float*>(from)},
                 map.from_count());
    else
      launch_map(queue, UnmapFilter<T, T>{map, values, static_cast<T*>(from)}, map.from_count());
  });
}

}  // namespace pycnn::cuda
