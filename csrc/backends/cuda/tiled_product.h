#pragma once
#include "backends/cuda/launch.h"

// Products of matrices that need not lie in memory as such: a block has a tile of 64 x 64 results,
// a thread 4 x 4 of them, and the sums go through shared memory 16 terms at a time, in order.
//
// A Product says what the matrices are:
//   kAByDepth, kBByDepth          whether neighbours in memory are neighbours in depth
//   rows, columns, batches        members; a batch is a product of its own
//   begin(batch), end(batch)      its terms
//   a_row(batch, m), a_depth(k), a(row, depth)           an element of A, prepared in two halves,
//   b_column(batch, n), b_depth(k), b(column, depth)     since threads keep one of them
//   store(batch, m, n, sum)
namespace pycnn::cuda {

template <class Product>
struct TiledProduct {
  static constexpr int kTile = 64, kTerms = 16, kThreads = 256, kOwn = 4;
  static constexpr int kPadding = 4;  // keeps columns of a tile in different banks
  using Row = decltype(Product{}.a_row(0, 0));
  using Column = decltype(Product{}.b_column(0, 0));

  struct Shared {
    float a[kTerms][kTile + kPadding];
    float b[kTerms][kTile + kPadding];
  };
  struct Registers {
    float sum[kOwn][kOwn];
    Row row[kOwn];
    Column column[kOwn];
  };
  Product product;

  PYCNN_BOTH static std::int64_t tiles(std::int64_t size) { return (size + kTile - 1) / kTile; }
  PYCNN_BOTH std::int64_t blocks() const {
    return tiles(product.rows) * tiles(product.columns) * product.batches;
  }

  // Where a thread's i-th element of a tile is: its place along the tile and its term.
  template <bool kByDepth>
  PYCNN_BOTH static int place(int thread, int i) {
    return kByDepth ? thread / kTerms + i * (kThreads / kTerms) : thread % kTile;
  }
  template <bool kByDepth>
  PYCNN_BOTH static int term(int thread, int i) {
    return kByDepth ? thread % kTerms : thread / kTile + i * (kThreads / kTile);
  }

  PYCNN_BOTH void operator()(Block<TiledProduct>& block) const {
    constexpr bool kA = Product::kAByDepth, kB = Product::kBByDepth;
    // Tiles of one row of tiles follow one another and share its part of A in the cache.
    const std::int64_t tile = block.index() % (tiles(product.rows) * tiles(product.columns));
    const std::int64_t batch = block.index() / (tiles(product.rows) * tiles(product.columns));
    const std::int64_t m0 = tile / tiles(product.columns) * kTile;
    const std::int64_t n0 = tile % tiles(product.columns) * kTile;
    const std::int64_t end = product.end(batch);
    Shared& shared = block.shared();

    block.each([&](int thread, Registers& own) {
      for (int i = 0; i < kOwn; ++i) {
        for (int j = 0; j < kOwn; ++j) own.sum[i][j] = 0.0f;
        const std::int64_t m = m0 + place<kA>(thread, i), n = n0 + place<kB>(thread, i);
        // Beyond the border nothing is read: see below.
        own.row[i] = product.a_row(batch, m < product.rows ? m : 0);
        own.column[i] = product.b_column(batch, n < product.columns ? n : 0);
      }
    });
    for (std::int64_t k0 = product.begin(batch); k0 < end; k0 += kTerms) {
      block.each([&](int thread, Registers& own) {
        for (int i = 0; i < kOwn; ++i) {
          const int place_a = place<kA>(thread, i), term_a = term<kA>(thread, i);
          const bool in_a = m0 + place_a < product.rows && k0 + term_a < end;
          shared.a[term_a][place_a] =
              in_a ? product.a(own.row[kA ? i : 0], product.a_depth(k0 + term_a)) : 0.0f;
          const int place_b = place<kB>(thread, i), term_b = term<kB>(thread, i);
          const bool in_b = n0 + place_b < product.columns && k0 + term_b < end;
          shared.b[term_b][place_b] =
              in_b ? product.b(own.column[kB ? i : 0], product.b_depth(k0 + term_b)) : 0.0f;
        }
      });
      block.each([&](int thread, Registers& own) {
        const int m = thread / (kTile / kOwn) * kOwn, n = thread % (kTile / kOwn) * kOwn;
        for (int k = 0; k < kTerms; ++k)
          for (int i = 0; i < kOwn; ++i)
            for (int j = 0; j < kOwn; ++j) own.sum[i][j] += shared.a[k][m + i] * shared.b[k][n + j];
      });
    }
    block.last([&](int thread, Registers& own) {
      const std::int64_t m = m0 + thread / (kTile / kOwn) * kOwn;
      const std::int64_t n = n0 + thread % (kTile / kOwn) * kOwn;
      for (int i = 0; i < kOwn && m + i < product.rows; ++i)
        for (int j = 0; j < kOwn && n + j < product.columns; ++j)
          product.store(batch, m + i, n + j, own.sum[i][j]);
    });
  }
};

template <class Product>
void launch_product(DeviceQueue& queue, const Product& product) {
  const TiledProduct<Product> kernel{product};
  launch(queue, kernel, kernel.blocks());
}

}  // namespace pycnn::cuda
