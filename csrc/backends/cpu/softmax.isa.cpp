#include "backends/cpu/softmax.isa.h"

#include "backends/cpu/softmax.h"

namespace pycnn::cpu::PYCNN_ISA {
namespace {

void softmax(const float* x, float* y, std::int64_t rows, std::int64_t n) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, y += n) {
    const Vec scale = broadcast(1.0f / store_exp(x, y, n, max_of_numbers(x, n)));
    for_each_vector(n, [&](std::int64_t i, int lanes) {
      store_lanes(y + i, load_lanes(y + i, lanes) * scale, lanes);
    });
  }
}

void log_softmax(const float* x, float* y, std::int64_t rows, std::int64_t n) {
  for (std::int64_t row = 0; row < rows; ++row, x += n, y += n) {
    const float largest = max_of_numbers(x, n);
    const Vec shift = broadcast(largest), log_sum = broadcast(log_of(sum_exp(x, n, largest)));
    for_each_vector(n, [&](std::int64_t i, int lanes) {
      store_lanes(y + i, (load_lanes(x + i, lanes) - shift) - log_sum, lanes);
    });
  }
}

// gx = y * (g - sum(y * g))
void softmax_grad(const float* y, const float* g, float* gx, std::int64_t rows, std::int64_t n) {
  for (std::int64_t row = 0; row < rows; ++row, y += n, g += n, gx += n) {
    const Vec dot = broadcast(sum_row(n, [&](std::int64_t i, int lanes) {
      return load_lanes(y + i, lanes) * load_lanes(g + i, lanes);
    }));
    for_each_vector(n, [&](std::int64_t i, int lanes) {
      const Vec out = load_lanes(y + i, lanes);
      store_lanes(gx + i, out * (load_lanes(g + i, lanes) - dot), lanes);
    });
  }
}

// gx = g - exp(y) * sum(g)
void log_softmax_grad(const float* y, const float* g, float* gx, std::int64_t rows,
                      std::int64_t n) {
  for (std::int64_t row = 0; row < rows; ++row, y += n, g += n, gx += n) {
    const Vec minus_sum =
        broadcast(-sum_row(n, [&](std::int64_t i, int lanes) { return load_lanes(g + i, lanes); }));
    for_each_vector(n, [&](std::int64_t i, int lanes) {
      const Vec probability = exp(load_lanes(y + i, lanes));
      store_lanes(gx + i, fma(probability, minus_sum, load_lanes(g + i, lanes)), lanes);
    });
  }
}

}  // namespace

extern const SoftmaxFunctions kSoftmax = {softmax, log_softmax, softmax_grad, log_softmax_grad};

}  // namespace pycnn::cpu::PYCNN_ISA
