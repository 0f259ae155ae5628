// A block has a row.
#include <cmath>

#include "backends/cuda/map.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/parts.h"
#include "backends/cuda/softmax.h"
#include "backends/cuda/totals.h"

namespace pycnn::cuda {
namespace {

constexpr int kRowThreads = 128;

struct Larger {
  PYCNN_BOTH float operator()(float a, float b) const { return a > b || is_nan(a) ? a : b; }
};

struct RowShared {
  float value[kRowThreads];
  float largest, sum;
};

// Leaves the row's largest value and the sum of exp(x - largest).
template <class BlockType, class T>
PYCNN_BOTH void row_sums(BlockType& block, const T* row, std::int64_t classes) {
  RowShared& shared = block.shared();
  using Registers = typename BlockType::Registers;
  block.each([&](int thread, Registers&) {
    float largest = -INFINITY;
    for (std::int64_t c = thread; c < classes; c += kRowThreads)
      largest = Larger{}(widened(row[c]), largest);
    shared.value[thread] = largest;
  });
  combine_threads<kRowThreads>(block, shared.value, Larger{});
  block.each([&](int thread, Registers&) {
    if (thread == 0) shared.largest = shared.value[0];
  });
  block.each([&](int thread, Registers&) {
    float sum = 0.0f;
    for (std::int64_t c = thread; c < classes; c += kRowThreads)
      sum += expf(widened(row[c]) - shared.largest);
    shared.value[thread] = sum;
  });
  combine_threads<kRowThreads>(block, shared.value, Plus{});
  block.each([&](int thread, Registers&) {
    if (thread == 0) shared.sum = shared.value[0];
  });
}

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
    row_sums(block, row, classes);
    const Shared& shared = block.shared();
    block.last([&](int thread, Registers&) {
      for (std::int64_t c = thread; c < classes; c += kThreads) {
        const float x = row[c] - shared.largest;
        to[c] = log ? x - logf(shared.sum) : expf(x) / shared.sum;
      }
    });
  }
};

// softmax: y * (g - sum of g * y). log softmax: g - exp(y) * sum of g.
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
    const std::int64_t first = block.index() * classes;
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      float sum = 0.0f;
      for (std::int64_t c = first + thread; c < first + classes; c += kThreads)
        sum += log ? grad_output[c] : grad_output[c] * output[c];
      shared.value[thread] = sum;
    });
    combine_threads<kThreads>(block, shared.value, Plus{});
    block.last([&](int thread, Registers&) {
      const float sum = shared.value[0];
      for (std::int64_t c = first + thread; c < first + classes; c += kThreads)
        grad_input[c] =
            log ? grad_output[c] - expf(output[c]) * sum : output[c] * (grad_output[c] - sum);
    });
  }
};

PYCNN_BOTH std::int64_t label_of(const Labels& labels, std::int64_t row) {
  return labels.wide != nullptr ? labels.wide[row] : labels.narrow[row];
}

// What the row should be at class c; NaN for a label that is no class.
PYCNN_BOTH float wanted(const Labels& labels, float smoothing, std::int64_t row, std::int64_t c,
                        std::int64_t classes) {
  float target = 0.0f;
  if (labels.soft != nullptr) {
    target = labels.soft[row * classes + c];
  } else {
    const std::int64_t label = label_of(labels, row);
    if (label < 0 || label >= classes) return float_of(0x7FC00000u);
    target = label == c ? 1.0f : 0.0f;
  }
  return (1.0f - smoothing) * target + smoothing / static_cast<float>(classes);
}

template <class T>
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
    row_sums(block, row, classes);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      float loss = 0.0f;
      for (std::int64_t c = thread; c < classes; c += kThreads) {
        const float target = wanted(labels, smoothing, block.index(), c, classes);
        const float log_p = (widened(row[c]) - shared.largest) - logf(shared.sum);
        if (target != 0.0f || fabsf(log_p) != INFINITY) loss -= target * log_p;
      }
      shared.value[thread] = loss;
    });
    combine_threads<kThreads>(block, shared.value, Plus{});
    block.last([&](int thread, Registers&) {
      if (thread == 0) losses[block.index()] = shared.value[0];
    });
  }
};

template <class T, class Gradient>
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
    row_sums(block, row, classes);
    Shared& shared = block.shared();
    block.each([&](int thread, Registers&) {
      float total = 0.0f;
      for (std::int64_t c = thread; c < classes; c += kThreads)
        total += wanted(labels, smoothing, n, c, classes);
      shared.value[thread] = total;
    });
    combine_threads<kThreads>(block, shared.value, Plus{});
    block.last([&](int thread, Registers&) {
      const float scale = *grad_loss / static_cast<float>(rows), total = shared.value[0];
      for (std::int64_t c = thread; c < classes; c += kThreads) {
        const float probability = expf(widened(row[c]) - shared.largest) / shared.sum;
        narrow((probability * total - wanted(labels, smoothing, n, c, classes)) * scale,
               grad_logits[n * classes + c]);
      }
    });
  }
};

struct ValueTerm {
  const float* values;
  PYCNN_BOTH double operator()(std::int64_t i) const { return static_cast<double>(values[i]); }
};
template <class T>
struct SquareTerm {
  const T* values;
  PYCNN_BOTH double operator()(std::int64_t i) const {
    const auto value = static_cast<double>(widened(values[i]));
    return value * value;
  }
};
struct DistanceTerm {
  const float* a;
  const float* b;
  PYCNN_BOTH double operator()(std::int64_t i) const {
    const double distance = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    return distance * distance;
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
  // How many of the classes first, first + step, ... are before the label, which is ranked.
  PYCNN_BOTH std::int64_t before(std::int64_t row, std::int64_t first, std::int64_t step) const {
    const std::int64_t label = label_of(labels, row);
    const T* const s = scores + row * classes;
    const float own = widened(s[label]);
    std::int64_t rank = 0;
    for (std::int64_t c = first; c < classes; c += step) {
      const float other = widened(s[c]);
      rank += other > own || (other == own && c < label) ? 1 : 0;
    }
    return rank;
  }
};

template <class T>
struct RankTerm {
  Ranking<T> ranking;
  PYCNN_BOTH double operator()(std::int64_t row) const {
    return ranking.is_ranked(row) && ranking.before(row, 0, 1) < ranking.k ? 1.0 : 0.0;
  }
};

// 1 or 0 for each row.
template <class T>
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
      before[thread] = ranking.is_ranked(row) ? ranking.before(row, thread, kThreads) : ranking.k;
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

// The pieces of each tensor follow those of the one before.
struct SquareTable {
  int count;
  std::int32_t first_piece[kMostSquares + 1];
  Squares of[kMostSquares];
  PYCNN_BOTH int tensor_of(std::int64_t piece) const {
    return part_of(piece, count, [&](int i) { return first_piece[i]; });
  }
};
static_assert(kMostSquares < 128);

struct SquarePieces {
  static constexpr int kThreads = kTotalThreads;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  SquareTable table;
  double* pieces;
  PYCNN_BOTH void operator()(Block<SquarePieces>& block) const {
    const int tensor = table.tensor_of(block.index());
    const Squares& of = table.of[tensor];
    const std::int64_t begin = (block.index() - table.first_piece[tensor]) * kTotalPiece;
    const std::int64_t end = begin + kTotalPiece < of.count ? begin + kTotalPiece : of.count;
    // All threads of a block go the same way.
    switch (of.type) {
      case Image::kFloat32:
        return add<float>(block, of.values, begin, end);
      case Image::kBFloat16:
        return add<BFloat16>(block, of.values, begin, end);
      case Image::kFloat16:
        return add<Float16>(block, of.values, begin, end);
    }
  }

 private:
  template <class T>
  PYCNN_BOTH void add(Block<SquarePieces>& block, const void* values, std::int64_t begin,
                      std::int64_t end) const {
    total_of_block(block, SquareTerm<T>{static_cast<const T*>(values)}, KeepPiece{pieces}, begin,
                   end);
  }
};

struct SquareTotals {
  static constexpr int kThreads = kTotalThreads;
  struct Shared {
    double sum[kThreads];
  };
  struct Registers {};
  SquareTable table;
  const double* pieces;
  double* totals;
  PYCNN_BOTH void operator()(Block<SquareTotals>& block) const {
    const auto tensor = static_cast<int>(block.index());
    total_of_block(block, PieceTerm{pieces}, KeepPiece{totals}, table.first_piece[tensor],
                   table.first_piece[tensor + 1]);
  }
};
static_assert(sizeof(SquareTotals) <= 4096);

struct ClipRule {
  static constexpr int kWidth = 1;
  const double* totals;
  int count;
  double max_norm;
  float* factor;
  float* norm;
  // A norm that is not finite gives NaN: a broken step shows.
  PYCNN_BOTH void operator()(std::int64_t, int) const {
    double sum = 0.0;
    for (int i = 0; i < count; ++i) sum += totals[i];
    const double length = sqrt(sum);
    double result = 1.0;
    if (max_norm <= 1.7976931348623157e308) {
      if (!(length <= 1.7976931348623157e308))
        result = static_cast<double>(float_of(0x7FC00000u));
      else if (length > max_norm)
        result = max_norm / length;
    }
    *factor = static_cast<float>(result);
    *norm = static_cast<float>(length);
  }
};

}  // namespace

void softmax(DeviceQueue& queue, const float* input, float* output, std::int64_t rows,
             std::int64_t classes, bool log) {
  launch(queue, SoftmaxRows{input, output, classes, log}, rows);
}

void softmax_grad(DeviceQueue& queue, const float* output, const float* grad_output,
                  float* grad_input, std::int64_t rows, std::int64_t classes, bool log) {
  launch(queue, SoftmaxGradRows{output, grad_output, grad_input, classes, log}, rows);
}

std::int64_t total_scratch_bytes(std::int64_t count) {
  return total_pieces(count) * static_cast<std::int64_t>(sizeof(double));
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
    launch(queue,
           CrossEntropyRows<T>{static_cast<const T*>(logits), labels, smoothing, losses, classes},
           rows);
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
      launch(queue,
             CrossEntropyGradRows<T, Gradient>{static_cast<const T*>(logits), labels, smoothing,
                                               grad_loss, static_cast<Gradient*>(grad_logits), rows,
                                               classes},
             rows);
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
    launch(queue, RankRows<T>{ranking, hits}, rows);
    launch_total(queue, ValueTerm{hits}, finish, rows, pieces);
  });
}

void sums_of_squares(DeviceQueue& queue, const Squares* of, int count, double* totals,
                     double* pieces) {
  SquareTable table{count, {}, {}};
  for (int i = 0; i < count; ++i) {
    table.of[i] = of[i];
    table.first_piece[i + 1] =
        table.first_piece[i] + static_cast<std::int32_t>(total_pieces(of[i].count));
  }
  launch(queue, SquarePieces{table, pieces}, table.first_piece[count]);
  launch(queue, SquareTotals{table, pieces, totals}, count);
}

void clip_factor(DeviceQueue& queue, const double* totals, int count, double max_norm,
                 float* factor, float* norm) {
  launch_map(queue, ClipRule{totals, count, max_norm, factor, norm}, 1);
}

}  // namespace pycnn::cuda
