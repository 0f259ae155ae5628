// A block has a row.
#include <cmath>
#include <type_traits>

#include "backends/cuda/map.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/softmax.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

constexpr int kRowThreads = 128;

// f(width): rows go by so many classes at a time. The number is the same for all types, and with it
// the order of sums.
template <class F>
void with_row_width(std::int64_t classes, const F& f) {
  if (classes % 8 == 0)
    f(std::integral_constant<int, 8>{});
  else if (classes % 4 == 0)
    f(std::integral_constant<int, 4>{});
  else
    f(std::integral_constant<int, 1>{});
}

// body(c) for every first class of a thread's vectors.
template <int Width, class Body>
PYCNN_BOTH void each_vector(int thread, std::int64_t classes, const Body& body) {
  for (std::int64_t c = std::int64_t{Width} * thread; c < classes; c += Width * kRowThreads)
    body(c);
}

struct Larger {
  PYCNN_BOTH float operator()(float a, float b) const { return a > b || is_nan(a) ? a : b; }
};

struct RowShared {
  float value[kRowThreads];
  float largest, sum;
};

// Leaves the row's largest value and the sum of exp(x - largest).
template <int Width, class BlockType, class T>
PYCNN_BOTH void row_sums(BlockType& block, const T* row, std::int64_t classes) {
  RowShared& shared = block.shared();
  using Registers = typename BlockType::Registers;
  block.each([&](int thread, Registers&) {
    float largest = -INFINITY;
    each_vector<Width>(thread, classes, [&](std::int64_t c) {
      float x[Width];
      load_run(row + c, x);
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) largest = Larger{}(x[i], largest);
    });
    shared.value[thread] = largest;
  });
  combine_threads<kRowThreads>(block, shared.value, Larger{});
  block.each([&](int thread, Registers&) {
    if (thread == 0) shared.largest = shared.value[0];
  });
  block.each([&](int thread, Registers&) {
    float sum = 0.0f;
    each_vector<Width>(thread, classes, [&](std::int64_t c) {
      float x[Width];
      load_run(row + c, x);
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) sum += expf(x[i] - shared.largest);
    });
    shared.value[thread] = sum;
  });
  combine_threads<kRowThreads>(block, shared.value, Plus{});
  block.each([&](int thread, Registers&) {
    if (thread == 0) shared.sum = shared.value[0];
  });
}

template <int Width>
struct SoftmaxRows {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowShared;
  struct Registers {};
  const float* input;
  float* output;
  std::int64_t classes;
  bool log;

  PYCNN_BOTH void operator()(Block<SoftmaxRows>& block) const {
    const float* const row = input + block.index() * classes;
    float* const to = output + block.index() * classes;
    row_sums<Width>(block, row, classes);
    const Shared& shared = block.shared();
    block.last([&](int thread, Registers&) {
      each_vector<Width>(thread, classes, [&](std::int64_t c) {
        float x[Width];
        load_run(row + c, x);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) {
          x[i] -= shared.largest;
          x[i] = log ? x[i] - logf(shared.sum) : expf(x[i]) / shared.sum;
        }
        store_run(to + c, x);
      });
    });
  }
};

// softmax: y * (g - sum of g * y). log softmax: g - exp(y) * sum of g.
template <int Width>
struct SoftmaxGradRows {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowShared;
  struct Registers {};
  const float* output;
  const float* grad_output;
  float* grad_input;
  std::int64_t classes;
  bool log;

  PYCNN_BOTH void operator()(Block<SoftmaxGradRows>& block) const {
    const float* const values = output + block.index() * classes;
    const float* const gradients = grad_output + block.index() * classes;
    float* const to = grad_input + block.index() * classes;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      float sum = 0.0f;
      each_vector<Width>(thread, classes, [&](std::int64_t c) {
        float g[Width], y[Width] = {};
        load_run(gradients + c, g);
        if (!log) load_run(values + c, y);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) sum += log ? g[i] : g[i] * y[i];
      });
      shared.value[thread] = sum;
    });
    combine_threads<kThreads>(block, shared.value, Plus{});
    block.last([&](int thread, Registers&) {
      const float sum = shared.value[0];
      each_vector<Width>(thread, classes, [&](std::int64_t c) {
        float g[Width], y[Width];
        load_run(gradients + c, g);
        load_run(values + c, y);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) g[i] = log ? g[i] - expf(y[i]) * sum : y[i] * (g[i] - sum);
        store_run(to + c, g);
      });
    });
  }
};

PYCNN_BOTH std::int64_t label_of(const Labels& labels, std::int64_t row) {
  return labels.wide != nullptr ? labels.wide[row] : labels.narrow[row];
}

// What the row should be at the classes from c on; NaN for a label that is no class.
template <int Width>
PYCNN_BOTH void wanted(const Labels& labels, float smoothing, std::int64_t row, std::int64_t c,
                       std::int64_t classes, float (&targets)[Width]) {
  bool is_class = true;
  if (labels.soft != nullptr) {
    load_run(labels.soft + row * classes + c, targets);
  } else {
    const std::int64_t label = label_of(labels, row);
    is_class = label >= 0 && label < classes;
    PYCNN_UNROLL
    for (int i = 0; i < Width; ++i) targets[i] = label == c + i ? 1.0f : 0.0f;
  }
  const float rest = smoothing / static_cast<float>(classes);
  PYCNN_UNROLL
  for (int i = 0; i < Width; ++i)
    targets[i] = is_class ? (1.0f - smoothing) * targets[i] + rest : float_of(0x7FC00000u);
}

template <class T, int Width>
struct CrossEntropyRows {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowShared;
  struct Registers {};
  const T* logits;
  Labels labels;
  float smoothing;
  float* losses;
  std::int64_t classes;

  PYCNN_BOTH void operator()(Block<CrossEntropyRows>& block) const {
    const T* const row = logits + block.index() * classes;
    row_sums<Width>(block, row, classes);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      float loss = 0.0f;
      each_vector<Width>(thread, classes, [&](std::int64_t c) {
        float targets[Width], x[Width];
        wanted(labels, smoothing, block.index(), c, classes, targets);
        load_run(row + c, x);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) {
          const float log_p = (x[i] - shared.largest) - logf(shared.sum);
          if (targets[i] != 0.0f || fabsf(log_p) != INFINITY) loss -= targets[i] * log_p;
        }
      });
      shared.value[thread] = loss;
    });
    combine_threads<kThreads>(block, shared.value, Plus{});
    block.last([&](int thread, Registers&) {
      if (thread == 0) losses[block.index()] = shared.value[0];
    });
  }
};

template <class T, class Gradient, int Width>
struct CrossEntropyGradRows {
  static constexpr int kThreads = kRowThreads;
  using Shared = RowShared;
  struct Registers {};
  const T* logits;
  Labels labels;
  float smoothing;
  const float* grad_loss;
  Gradient* grad_logits;
  std::int64_t rows, classes;

  PYCNN_BOTH void operator()(Block<CrossEntropyGradRows>& block) const {
    const std::int64_t n = block.index();
    const T* const row = logits + n * classes;
    row_sums<Width>(block, row, classes);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      float total = 0.0f;
      each_vector<Width>(thread, classes, [&](std::int64_t c) {
        float targets[Width];
        wanted(labels, smoothing, n, c, classes, targets);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) total += targets[i];
      });
      shared.value[thread] = total;
    });
    combine_threads<kThreads>(block, shared.value, Plus{});
    block.last([&](int thread, Registers&) {
      const float scale = *grad_loss / static_cast<float>(rows), total = shared.value[0];
      each_vector<Width>(thread, classes, [&](std::int64_t c) {
        float targets[Width], x[Width];
        wanted(labels, smoothing, n, c, classes, targets);
        load_run(row + c, x);
        PYCNN_UNROLL
        for (int i = 0; i < Width; ++i) {
          const float probability = expf(x[i] - shared.largest) / shared.sum;
          x[i] = (probability * total - targets[i]) * scale;
        }
        store_run(grad_logits + n * classes + c, x);
      });
    });
  }
};

struct ValueTerm {
  const float* values;
  PYCNN_BOTH double operator()(std::int64_t i) const { return static_cast<double>(values[i]); }
};
struct DistanceTerm {
  static constexpr int kWidth = kTotalWidth;
  struct Loaded {
    Run<float, kWidth> a, b;
  };
  const float* a;
  const float* b;
  PYCNN_BOTH Loaded load(std::int64_t i, int n) const {
    return {load_run<kWidth>(a + i, n), load_run<kWidth>(b + i, n)};
  }
  PYCNN_BOTH void add(const Loaded& loaded, double& sum) const {
    float x[kWidth], y[kWidth];
    widen(loaded.a, x);
    widen(loaded.b, y);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      const double distance = static_cast<double>(x[i]) - static_cast<double>(y[i]);
      sum += distance * distance;
    }
  }
};

// Whether a row's label is among its k largest scores; nothing ranks before or after a NaN.
template <class T>
struct Ranking {
  const T* scores;
  Labels labels;
  std::int64_t k, classes;

  // Of a label that is no class, and of a NaN, the last.
  PYCNN_BOTH bool is_ranked(std::int64_t row) const {
    const std::int64_t label = label_of(labels, row);
    return label >= 0 && label < classes && !is_nan(widened(scores[row * classes + label]));
  }
  // How many of the Width classes at first, first + step, ... are before the label, which is
  // ranked.
  template <int Width>
  PYCNN_BOTH std::int64_t before(std::int64_t row, std::int64_t first, std::int64_t step) const {
    const std::int64_t label = label_of(labels, row);
    const T* const s = scores + row * classes;
    const float own = widened(s[label]);
    std::int64_t rank = 0;
    for (std::int64_t c = first; c < classes; c += step) {
      float other[Width];
      load_run(s + c, other);
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i)
        rank += other[i] > own || (other[i] == own && c + i < label) ? 1 : 0;
    }
    return rank;
  }
};

template <class T>
struct RankTerm {
  Ranking<T> ranking;
  PYCNN_BOTH double operator()(std::int64_t row) const {
    return ranking.is_ranked(row) && ranking.template before<1>(row, 0, 1) < ranking.k ? 1.0 : 0.0;
  }
};

// 1 or 0 for each row.
template <class T, int Width>
struct RankRows {
  static constexpr int kThreads = kRowThreads;
  struct Shared {
    std::int64_t before[kThreads];
  };
  struct Registers {};
  Ranking<T> ranking;
  float* hits;

  PYCNN_BOTH void operator()(Block<RankRows>& block) const {
    const std::int64_t row = block.index();
    std::int64_t* const before = block.shared().before;
    block.each([&](int thread, Registers&) {
      before[thread] = ranking.is_ranked(row)
                           ? ranking.template before<Width>(row, Width * thread, Width * kThreads)
                           : ranking.k;
    });
    combine_threads<kThreads>(block, before, Plus{});
    block.last([&](int thread, Registers&) {
      if (thread == 0) hits[row] = before[0] < ranking.k ? 1.0f : 0.0f;
    });
  }
};

struct StoreQuotient {
  float* to;
  double divisor;
  PYCNN_BOTH void operator()(std::int64_t, double sum) const {
    *to = static_cast<float>(sum / divisor);
  }
};

}  // namespace

void softmax(DeviceQueue& queue, const float* input, float* output, std::int64_t rows,
             std::int64_t classes, bool log) {
  with_row_width(classes, [&](auto width) {
    launch(queue, SoftmaxRows<decltype(width)::value>{input, output, classes, log}, rows);
  });
}

void softmax_grad(DeviceQueue& queue, const float* output, const float* grad_output,
                  float* grad_input, std::int64_t rows, std::int64_t classes, bool log) {
  with_row_width(classes, [&](auto width) {
    launch(queue,
           SoftmaxGradRows<decltype(width)::value>{output, grad_output, grad_input, classes, log},
           rows);
  });
}

std::int64_t row_total_scratch_bytes(std::int64_t rows) {
  return total_scratch_bytes(rows) + rows * static_cast<std::int64_t>(sizeof(float));
}

void cross_entropy(DeviceQueue& queue, Image image, const void* logits, const Labels& labels,
                   float smoothing, float* loss, std::int64_t rows, std::int64_t classes,
                   void* scratch) {
  auto* const pieces = static_cast<double*>(scratch);
  auto* const losses = reinterpret_cast<float*>(pieces + total_pieces(rows));
  with_image(image, [&](auto type) {
    using T = decltype(type);
    with_row_width(classes, [&](auto width) {
      launch(queue,
             CrossEntropyRows<T, decltype(width)::value>{static_cast<const T*>(logits), labels,
                                                         smoothing, losses, classes},
             rows);
    });
  });
  launch_total(queue, ValueTerm{losses}, StoreQuotient{loss, static_cast<double>(rows)}, rows,
               pieces);
}

void cross_entropy_grad(DeviceQueue& queue, Image image, const void* logits, const Labels& labels,
                        float smoothing, const float* grad_loss, Image gradient, void* grad_logits,
                        std::int64_t rows, std::int64_t classes) {
  with_image(image, [&](auto type) {
    with_image(gradient, [&](auto gradient_type) {
      using T = decltype(type);
      using Gradient = decltype(gradient_type);
      with_row_width(classes, [&](auto width) {
        launch(queue,
               CrossEntropyGradRows<T, Gradient, decltype(width)::value>{
                   static_cast<const T*>(logits), labels, smoothing, grad_loss,
                   static_cast<Gradient*>(grad_logits), rows, classes},
               rows);
      });
    });
  });
}

void mean_squared_error(DeviceQueue& queue, const float* input, const float* target, float* loss,
                        std::int64_t count, void* scratch) {
  launch_total(queue, DistanceTerm{input, target}, StoreQuotient{loss, static_cast<double>(count)},
               count, static_cast<double*>(scratch));
}

void top_k_correct(DeviceQueue& queue, Image image, const void* scores, const Labels& labels,
                   std::int64_t k, float* count, std::int64_t rows, std::int64_t classes,
                   void* scratch) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    const Ranking<T> ranking{static_cast<const T*>(scores), labels, k, classes};
    auto* const pieces = static_cast<double*>(scratch);
    const StoreQuotient finish{count, 1.0};
    // Few classes are looked through by one thread in the time of a launch.
    constexpr std::int64_t kFewClasses = 32;
    if (classes <= kFewClasses)
      return launch_total(queue, RankTerm<T>{ranking}, finish, rows, pieces);
    auto* const hits = reinterpret_cast<float*>(pieces + total_pieces(rows));
    with_row_width(classes, [&](auto width) {
      launch(queue, RankRows<T, decltype(width)::value>{ranking, hits}, rows);
    });
    launch_total(queue, ValueTerm{hits}, finish, rows, pieces);
  });
}

}  // namespace pycnn::cuda
