#include <cmath>

#include "backends/cuda/launch.h"
#include "backends/cuda/map.h"
#include "backends/cuda/numbers.h"
#include "backends/cuda/optimizer.h"
#include "backends/cuda/parts.h"

// One thread of a block works out, in float64, what is the same for all elements.
namespace pycnn::cuda {
namespace {

constexpr int kWidth = 4;
constexpr int kUpdateThreads = 256;
constexpr std::int64_t kTile = std::int64_t{kUpdateThreads} * kWidth;

// Thread `thread` of the tile that begins there.
template <class Rule>
PYCNN_BOTH void apply_at(const Rule& rule, const typename Rule::Step& step, std::int64_t tile,
                         int thread) {
  const std::int64_t begin = tile + std::int64_t{thread} * kWidth;
  const std::int64_t left = rule.p.own.count - begin;
  if (left > 0) rule.apply(step, begin, left < kWidth ? static_cast<int>(left) : kWidth);
}

template <class Rule>
struct Update {
  static constexpr int kThreads = kUpdateThreads;
  struct Shared {
    typename Rule::Step step;
  };
  struct Registers {};
  Rule rule;

  PYCNN_BOTH void operator()(Block<Update>& block) const {
    auto& step = block.shared().step;
    block.each([&](int thread, Registers&) {
      if (thread == 0) step = rule.step();
    });
    const std::int64_t tile = block.index() * kTile;
    block.last([&](int thread, Registers&) { apply_at(rule, step, tile, thread); });
  }
};

// The tensors of a launch are a part of its parameters, which are 4 KB at most: they lie in memory
// that is made for what all threads read alike, and need no copy of their own.
template <class Rule>
struct UpdateOfAll {
  using Params = typename Rule::Params;
  static constexpr int kThreads = kUpdateThreads;
  struct Shared {
    typename Rule::Step step;
  };
  struct Registers {};
  Params params;  // of the first one; all but `own` is that of all
  int count;
  std::int32_t first_block[kMostTensors];  // the blocks of each follow those of the one before
  typename Params::Tensor tensors[kMostTensors];

  PYCNN_BOTH void operator()(Block<UpdateOfAll>& block) const {
    const int tensor = part_of(block.index(), count, [&](int i) { return first_block[i]; });
    Rule rule{params};
    rule.p.own = tensors[tensor];
    auto& step = block.shared().step;
    block.each([&](int thread, Registers&) {
      if (thread == 0) step = rule.step();
    });
    const std::int64_t tile = (block.index() - first_block[tensor]) * kTile;
    block.last([&](int thread, Registers&) { apply_at(rule, step, tile, thread); });
  }
};

std::int64_t blocks_of(std::int64_t count) { return (count + kTile - 1) / kTile; }

template <class Rule>
void launch_update(DeviceQueue& queue, const Rule& rule) {
  launch(queue, Update<Rule>{rule}, blocks_of(rule.p.own.count));
}

// No tensor is empty.
template <class Rule>
void launch_updates(DeviceQueue& queue, const typename Rule::Params* params, int count) {
  static_assert(sizeof(UpdateOfAll<Rule>) <= 4096 && kMostTensors <= 64);
  UpdateOfAll<Rule> kernel{params[0], count, {}, {}};
  std::int64_t blocks = 0;
  for (int i = 0; i < count; ++i) {
    kernel.first_block[i] = static_cast<std::int32_t>(blocks);
    kernel.tensors[i] = params[i].own;
    blocks += blocks_of(params[i].own.count);
  }
  launch(queue, kernel, blocks);
}

// Of a tensor: all threads of a block go the same way.
template <class Params>
PYCNN_BOTH void load_gradient(const Params& p, std::int64_t begin, int n, float (&g)[kWidth]) {
  switch (p.own.gradient_type) {
    case Image::kFloat32:
      return load(static_cast<const float*>(p.own.gradient) + begin, n, g);
    case Image::kBFloat16:
      return load(static_cast<const BFloat16*>(p.own.gradient) + begin, n, g);
    case Image::kFloat16:
      return load(static_cast<const Float16*>(p.own.gradient) + begin, n, g);
  }
}

// The new values x of a parameter.
template <class Params>
PYCNN_BOTH void store_parameter(const Params& p, std::int64_t begin, int n,
                                const float (&x)[kWidth]) {
  store(p.own.new_parameter + begin, n, x);
  if (p.own.rounded == nullptr) return;
  if (p.rounds_to == Image::kFloat16)
    store(static_cast<Float16*>(p.own.rounded) + begin, n, x);
  else
    store(static_cast<BFloat16*>(p.own.rounded) + begin, n, x);
}

struct Sgd {
  struct Step {
    float rate, factor;
  };
  using Params = SgdParams;
  SgdParams p;

  PYCNN_BOTH Step step() const {
    return {static_cast<float>(static_cast<double>(*p.learning_rate) *
                               static_cast<double>(p.own.rate_scale)),
            p.factor != nullptr ? *p.factor : 1.0f};
  }
  PYCNN_BOTH void apply(const Step& step, std::int64_t begin, int n) const {
    float x[kWidth], g[kWidth];
    load(p.own.parameter + begin, n, x);
    if (step.factor < 0.0f) {
      store_parameter(p, begin, n, x);
      if (p.own.velocity != nullptr) {
        load(p.own.velocity + begin, n, g);
        store(p.own.new_velocity + begin, n, g);
      }
      return;
    }
    load_gradient(p, begin, n, g);
    for (int i = 0; i < kWidth; ++i) g[i] = step.factor * g[i] + p.own.weight_decay * x[i];
    if (p.own.velocity != nullptr) {
      float v[kWidth];
      load(p.own.velocity + begin, n, v);
      for (int i = 0; i < kWidth; ++i) {
        v[i] = p.momentum * v[i] + g[i];
        g[i] = p.nesterov ? g[i] + p.momentum * v[i] : v[i];
      }
      store(p.own.new_velocity + begin, n, v);
    }
    for (int i = 0; i < kWidth; ++i) x[i] -= step.rate * g[i];
    store_parameter(p, begin, n, x);
  }
};

struct Adam {
  struct Step {
    float factor, weight_decay, shrink, mean_weight, beta2, variance_weight, size, correction, eps;
  };
  using Params = AdamParams;
  AdamParams p;

  PYCNN_BOTH Step step() const {
    const double rate = static_cast<double>(*p.learning_rate) * p.own.rate_scale;
    const double t = static_cast<double>(*p.step) + 1.0;
    Step s{};
    s.factor = p.factor != nullptr ? *p.factor : 1.0f;
    s.weight_decay = p.decoupled ? 0.0f : static_cast<float>(p.own.weight_decay);
    s.shrink = p.decoupled ? static_cast<float>(1.0 - rate * p.own.weight_decay) : 1.0f;
    s.mean_weight = static_cast<float>(1.0 - p.beta1);
    s.beta2 = static_cast<float>(p.beta2);
    s.variance_weight = static_cast<float>(1.0 - p.beta2);
    s.size = static_cast<float>(rate / (1.0 - pow(p.beta1, t)));
    s.correction = static_cast<float>(1.0 / sqrt(1.0 - pow(p.beta2, t)));
    s.eps = static_cast<float>(p.eps);
    return s;
  }
  PYCNN_BOTH void apply(const Step& s, std::int64_t begin, int n) const {
    float x[kWidth], g[kWidth], m[kWidth], v[kWidth];
    load(p.own.parameter + begin, n, x);
    load_gradient(p, begin, n, g);
    load(p.own.mean + begin, n, m);
    load(p.own.variance + begin, n, v);
    // A factor that is NaN shall be seen.
    const bool keeps = s.factor < 0.0f;
    for (int i = 0; i < kWidth && !keeps; ++i) {
      g[i] = s.factor * g[i] + s.weight_decay * x[i];
      m[i] += s.mean_weight * (g[i] - m[i]);
      v[i] = s.beta2 * v[i] + s.variance_weight * g[i] * g[i];
      x[i] = s.shrink * x[i] - s.size * (m[i] / (sqrtf(v[i]) * s.correction + s.eps));
    }
    store(p.own.new_mean + begin, n, m);
    store(p.own.new_variance + begin, n, v);
    store_parameter(p, begin, n, x);
  }
};

struct Ema {
  using Step = float;
  using Params = EmaParams;
  EmaParams p;

  // The decay is limited while there are few steps.
  PYCNN_BOTH Step step() const {
    const auto step = static_cast<double>(*p.step);
    const double limit = (1.0 + step) / (10.0 + step);
    return static_cast<float>(1.0 - (p.decay < limit ? p.decay : limit));
  }
  PYCNN_BOTH void apply(Step weight, std::int64_t begin, int n) const {
    float a[kWidth], x[kWidth];
    load(p.own.average + begin, n, a);
    load(p.own.value + begin, n, x);
    for (int i = 0; i < kWidth; ++i) a[i] += weight * (x[i] - a[i]);
    store(p.own.output + begin, n, a);
  }
};

struct LossScaleRule {
  static constexpr int kWidth = 1;
  LossScaleParams p;

  PYCNN_BOTH void operator()(std::int64_t, int) const {
    constexpr double kSmallest = 1.0 / (1 << 24), kLargest = 1 << 24;
    double norm = *p.norm, scale = *p.scale, factor = -1.0;
    std::int64_t good_steps = *p.good_steps;
    if (!(scale >= kSmallest && scale <= kLargest)) {
      norm = static_cast<double>(NAN);
      scale = scale < kSmallest ? kSmallest : kLargest;
      good_steps = 0;
    } else if (norm - norm == 0.0) {  // finite
      norm /= scale;
      factor = (norm > p.max_norm ? p.max_norm / norm : 1.0) / scale;
      if (++good_steps >= p.growth_interval) {
        good_steps = 0;
        scale = 2.0 * scale < kLargest ? 2.0 * scale : kLargest;
      }
    } else {
      good_steps = 0;
      scale = 0.5 * scale > kSmallest ? 0.5 * scale : kSmallest;
    }
    *p.factor = static_cast<float>(factor);
    *p.new_norm = static_cast<float>(norm);
    *p.new_scale = static_cast<float>(scale);
    *p.new_good_steps = good_steps;
  }
};

template <class Word>
struct Committed {
  static constexpr int kWidth = 1;
  const Word* value;
  const Word* previous;
  const float* factor;
  Word* output;
  PYCNN_BOTH void operator()(std::int64_t i, int) const {
    output[i] = *factor < 0.0f ? previous[i] : value[i];
  }
};

}  // namespace

void sgd(DeviceQueue& queue, const SgdParams& params) { launch_update(queue, Sgd{params}); }
void adam(DeviceQueue& queue, const AdamParams& params) { launch_update(queue, Adam{params}); }
void ema(DeviceQueue& queue, const EmaParams& params) { launch_update(queue, Ema{params}); }

void sgd_of_all(DeviceQueue& queue, const SgdParams* params, int count) {
  launch_updates<Sgd>(queue, params, count);
}
void adam_of_all(DeviceQueue& queue, const AdamParams* params, int count) {
  launch_updates<Adam>(queue, params, count);
}
void ema_of_all(DeviceQueue& queue, const EmaParams* params, int count) {
  launch_updates<Ema>(queue, params, count);
}

void loss_scale(DeviceQueue& queue, const LossScaleParams& params) {
  launch_map(queue, LossScaleRule{params}, 1);
}

void commit(DeviceQueue& queue, int item_bytes, const void* value, const void* previous,
            const float* factor, void* output, std::int64_t count) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    launch_map(queue,
               Committed<Word>{static_cast<const Word*>(value), static_cast<const Word*>(previous),
                               factor, static_cast<Word*>(output)},
               count);
  });
}

}  // namespace pycnn::cuda
