#include "backends/cpu/loss.h"

#include "backends/cpu/softmax.isa.h"

// With m the largest logit and L = log sum exp(x - m), log softmax(x)[c] = (x[c] - m) - L. The loss
// of a row with label l and smoothing s is L - (1 - s) (x[l] - m) - s / n sum over c of (x[c] - m),
// and its gradient softmax(x)[c] - s / n - (1 - s) [c = l].
namespace pycnn::cpu::PYCNN_ISA {
namespace {

const float kNan = __builtin_nanf("");

// -1 for a label that is no class.
PYCNN_INLINE std::int64_t label_of(const CrossEntropyRows& rows, std::int64_t row) {
  const std::int64_t label = rows.labels64 != nullptr ? rows.labels64[row] : rows.labels32[row];
  return label >= 0 && label < rows.n ? label : -1;
}

struct Smoothing {
  float keep;     // 1 - s
  float uniform;  // s / n
};
PYCNN_INLINE Smoothing smoothing_of(const CrossEntropyRows& rows) {
  return {static_cast<float>(1.0 - rows.smoothing),
          static_cast<float>(rows.smoothing / static_cast<double>(rows.n))};
}

double label_loss(const CrossEntropyRows& rows, const float* x, std::int64_t row) {
  const std::int64_t label = label_of(rows, row);
  if (label < 0) return kNan;
  const float largest = max_of_numbers(x, rows.n);
  const double log_sum = log_of(sum_exp(x, rows.n, largest));
  double loss = log_sum;
  // A coefficient of zero takes its term away, even if that is infinite.
  if (rows.smoothing < 1.0) loss -= (1.0 - rows.smoothing) * (double{x[label]} - double{largest});
  if (rows.smoothing > 0.0) {
    const Vec shift = broadcast(largest);
    const float sum = sum_row(rows.n, [&](std::int64_t i, int lanes) {
      return keep_lanes(load_lanes(x + i, lanes) - shift, lanes, zero());
    });
    loss -= rows.smoothing / static_cast<double>(rows.n) * double{sum};
  }
  return loss;
}

double target_loss(const CrossEntropyRows& rows, const float* x, const float* targets) {
  const Smoothing s = smoothing_of(rows);
  const float largest = max_of_numbers(x, rows.n);
  const Vec shift = broadcast(largest);
  const Vec log_sum = broadcast(log_of(sum_exp(x, rows.n, largest)));
  const Vec keep = broadcast(s.keep), uniform = broadcast(s.uniform);
  const Vec minus_infinity = broadcast(-__builtin_inff());
  return -double{sum_row(rows.n, [&](std::int64_t i, int lanes) {
    const Vec t = fma(load_lanes(targets + i, lanes), keep, uniform);
    const Vec log_p = (load_lanes(x + i, lanes) - shift) - log_sum;
    // A class of probability 0 that is not wanted costs nothing.
    const Vec term = select((t == zero()) & (log_p == minus_infinity), zero(), t * log_p);
    return keep_lanes(term, lanes, zero());
  })};
}

double cross_entropy(const CrossEntropyRows& rows) {
  double sum = 0.0;
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const float* x = rows.logits + row * rows.n;
    sum += rows.targets != nullptr ? target_loss(rows, x, rows.targets + row * rows.n)
                                   : label_loss(rows, x, row);
  }
  return sum;
}

void label_grad(const CrossEntropyRows& rows, const float* x, float* g, std::int64_t row) {
  const std::int64_t label = label_of(rows, row);
  const Smoothing s = smoothing_of(rows);
  const float sum = store_exp(x, g, rows.n, max_of_numbers(x, rows.n));
  const Vec scale = broadcast(label < 0 ? kNan : rows.grad_scale / sum);
  const Vec uniform = broadcast(-s.uniform * rows.grad_scale);
  for_each_vector(rows.n, [&](std::int64_t i, int lanes) {
    store_lanes(g + i, fma(load_lanes(g + i, lanes), scale, uniform), lanes);
  });
  if (label >= 0) g[label] -= s.keep * rows.grad_scale;
}

void target_grad(const CrossEntropyRows& rows, const float* x, const float* targets, float* g) {
  const Smoothing s = smoothing_of(rows);
  const Vec keep = broadcast(s.keep), uniform = broadcast(s.uniform);
  auto target = [&](std::int64_t i, int lanes) {
    return fma(load_lanes(targets + i, lanes), keep, uniform);
  };
  const float total = sum_row(rows.n, [&](std::int64_t i, int lanes) {
    return keep_lanes(target(i, lanes), lanes, zero());
  });
  const float sum = store_exp(x, g, rows.n, max_of_numbers(x, rows.n));
  const Vec factor = broadcast(total / sum), scale = broadcast(rows.grad_scale);
  for_each_vector(rows.n, [&](std::int64_t i, int lanes) {
    const Vec difference = fma(load_lanes(g + i, lanes), factor, -target(i, lanes));
    store_lanes(g + i, difference * scale, lanes);
  });
}

void cross_entropy_grad(const CrossEntropyRows& rows) {
  for (std::int64_t row = 0; row < rows.rows; ++row) {
    const std::int64_t at = row * rows.n;
    if (rows.targets != nullptr)
      target_grad(rows, rows.logits + at, rows.targets + at, rows.grad + at);
    else
      label_grad(rows, rows.logits + at, rows.grad + at, row);
  }
}

double squared_error(const float* a, const float* b, std::int64_t n) {
  return sum_row(n, [&](std::int64_t i, int lanes) {
    const Vec difference = load_lanes(a + i, lanes) - load_lanes(b + i, lanes);
    return difference * difference;
  });
}

void squared_error_grad(const float* a, const float* b, float scale, float* grad, std::int64_t n) {
  const Vec factor = broadcast(scale);
  for_each_vector(n, [&](std::int64_t i, int lanes) {
    store_lanes(grad + i, (load_lanes(a + i, lanes) - load_lanes(b + i, lanes)) * factor, lanes);
  });
}

}  // namespace

extern const LossFunctions kLoss = {cross_entropy, cross_entropy_grad, squared_error,
                                    squared_error_grad};

}  // namespace pycnn::cpu::PYCNN_ISA
