#include <cmath>

#include "backends/cuda/divider.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/fill_timed.h"
#include "backends/cuda/map.h"
#include "backends/cuda/philox.h"

namespace pycnn::cuda {
namespace {

template <class T>
struct Activate {
  static constexpr int kWidth = kVector<T>;
  const T* input;
  T* output;
  Curve curve;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    load(input + begin, n, x);
    for (float& value : x) value = activate(curve, value);
    store(output + begin, n, x);
  }
};

template <class T>
struct ActivateGrad {
  static constexpr int kWidth = kVector<T>;
  const T* output;
  const T* grad_output;
  T* grad_input;
  Curve curve;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float y[kWidth], g[kWidth];
    load(output + begin, n, y);
    load(grad_output + begin, n, g);
    for (int i = 0; i < kWidth; ++i) g[i] = passed(curve, y[i], g[i]);
    store(grad_input + begin, n, g);
  }
};

// Of tensors whose pixels lie apart, by vectors of a pixel where the channels divide into them.
template <class T, int Width, class Function>
struct Parts {
  static constexpr int kWidth = 1;
  PixelParts p;
  Function function;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t vectors = p.channels / Width;
    const std::int64_t pixel = at / vectors, c = at % vectors * Width;
    float a[Width], b[Width] = {};
    load(static_cast<const T*>(p.a) + pixel * p.a_pitch + c, Width, a);
    if (p.b != nullptr) load(static_cast<const T*>(p.b) + pixel * p.b_pitch + c, Width, b);
    for (int i = 0; i < Width; ++i) a[i] = function(a[i], b[i]);
    store(static_cast<T*>(p.output) + pixel * p.output_pitch + c, Width, a);
  }
};

struct ActivateOne {
  Curve curve;
  PYCNN_BOTH float operator()(float x, float) const { return activate(curve, x); }
};
struct PassOne {
  Curve curve;
  PYCNN_BOTH float operator()(float y, float g) const { return passed(curve, y, g); }
};
struct AddOne {
  PYCNN_BOTH float operator()(float a, float b) const { return a + b; }
};

template <class Function>
void launch_parts(DeviceQueue& queue, Image image, const PixelParts& parts,
                  const Function& function) {
  with_vectors(image, parts.channels, [&](auto type, auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue, Parts<decltype(type), kWidth, Function>{parts, function},
               parts.pixels * parts.channels / kWidth);
  });
}

template <class T>
struct Affine {
  static constexpr int kWidth = kVector<T>;
  const T* input;
  T* output;
  float scale, offset;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    load(input + begin, n, x);
    for (float& value : x) value = value * scale + offset;
    store(output + begin, n, x);
  }
};

// Apart from the others, whose powf would take registers from these.
struct RingPair {
  PYCNN_BOTH float operator()(Pairing pairing, float a, float b) const {
    return pairing == Pairing::kAdd ? a + b : pairing == Pairing::kSubtract ? a - b : a * b;
  }
};
struct OtherPair {
  PYCNN_BOTH float operator()(Pairing pairing, float a, float b) const {
    switch (pairing) {
      case Pairing::kDivide:
        return a / b;
      case Pairing::kMaximum:
        return a > b || is_nan(a) ? a : b;
      case Pairing::kMinimum:
        return a < b || is_nan(a) ? a : b;
      case Pairing::kPower:
        return powf(a, b);
      case Pairing::kPrelu:
        return a > 0.0f ? a : b * a;
      case Pairing::kPreluSlope:
        return a > 0.0f ? 1.0f : b;
      case Pairing::kEqual:
        return a == b ? 1.0f : 0.0f;
      case Pairing::kStep:
        return a > b ? 1.0f : a == b ? 0.5f : 0.0f;
      default:
        return a;
    }
  }
};

template <class T, class Function>
struct PairRuns {
  static constexpr int kWidth = kVector<T>;
  PairParams p;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float a[kWidth], b[kWidth];
    load(static_cast<const T*>(p.a) + begin, n, a);
    load(static_cast<const T*>(p.b) + begin, n, b);
    for (int i = 0; i < kWidth; ++i) a[i] = Function{}(p.pairing, a[i], b[i]);
    store(static_cast<T*>(p.output) + begin, n, a);
  }
};

// Axes that all go through as one are one, those of one place are left out.
PairParams joined_axes(const PairParams& params) {
  PairParams p = params;
  int axes = 0;  // the last one kept is axes - 1
  for (int axis = 0; axis < p.axes; ++axis) {
    const std::int64_t size = p.shape[axis];
    if (size == 1) continue;
    const bool joins = axes > 0 && p.a_step[axes - 1] == size * p.a_step[axis] &&
                       p.b_step[axes - 1] == size * p.b_step[axis];
    const std::int64_t before = joins ? p.shape[--axes] : 1;
    p.shape[axes] = before * size;
    p.a_step[axes] = p.a_step[axis];
    p.b_step[axes++] = p.b_step[axis];
  }
  p.axes = axes;
  return p;
}

// A thread has a vector of neighbours along the last axis, over which each input goes by ones or
// stays where it is; or one element, whatever the steps.
template <class T, int Width, class Function>
struct PairVectors {
  static constexpr int kWidth = Width;
  PairParams p;
  WideDivider size[kMaxAxes];

  // Of a result that is not empty.
  explicit PairVectors(const PairParams& params) : p(params) {
    for (int axis = 0; axis < p.axes; ++axis) size[axis] = WideDivider(p.shape[axis]);
  }

  PYCNN_BOTH static void load_along(const T* from, std::int64_t step, int n, float (&to)[Width]) {
    if (Width == 1 || step != 0) return load(from, n, to);
    const float value = widened(*from);
    PYCNN_UNROLL
    for (int i = 0; i < Width; ++i) to[i] = value;
  }

  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    std::int64_t rest = begin, a_place = 0, b_place = 0;
    for (int axis = p.axes - 1; axis >= 0; --axis) {
      std::int64_t i = rest;
      rest = size[axis].split(i);
      a_place += i * p.a_step[axis];
      b_place += i * p.b_step[axis];
    }
    const int last = p.axes - 1;
    float a[Width], b[Width];
    load_along(static_cast<const T*>(p.a) + a_place, last < 0 ? 0 : p.a_step[last], n, a);
    load_along(static_cast<const T*>(p.b) + b_place, last < 0 ? 0 : p.b_step[last], n, b);
    PYCNN_UNROLL
    for (int i = 0; i < Width; ++i) a[i] = Function{}(p.pairing, a[i], b[i]);
    store(static_cast<T*>(p.output) + begin, n, a);
  }
};

// Whether neighbours of a whole vector are neighbours, or one element, in both inputs. The end of
// the only axis may be a shorter one.
bool goes_by_vectors(const PairParams& p, int width) {
  if (p.axes == 0) return false;
  const int last = p.axes - 1;
  return p.a_step[last] <= 1 && p.b_step[last] <= 1 && (p.axes == 1 || p.shape[last] % width == 0);
}

template <class From, class To>
struct Cast {
  static constexpr int kWidth = 8;
  const From* input;
  To* output;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float low[4], high[4];
    load(input + begin, n < 4 ? n : 4, low);
    store(output + begin, n < 4 ? n : 4, low);
    if (n <= 4) return;
    load(input + begin + 4, n - 4, high);
    store(output + begin + 4, n - 4, high);
  }
};

template <class From, class To, int Width>
struct CastParts {
  static constexpr int kWidth = 1;
  PixelParts p;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t vectors = p.channels / Width;
    const std::int64_t pixel = at / vectors, c = at % vectors * Width;
    float x[Width];
    load(static_cast<const From*>(p.a) + pixel * p.a_pitch + c, Width, x);
    store(static_cast<To*>(p.output) + pixel * p.output_pitch + c, Width, x);
  }
};

// Elements from `begin` on, a multiple of 4 or one alone.
template <int Width>
PYCNN_BOTH void drop(const DropoutParams& p, std::int64_t begin, float (&x)[Width]) {
  const std::uint64_t key = static_cast<std::uint64_t>(*p.seed) ^ p.stream;
  const auto step = static_cast<std::uint64_t>(*p.step);
  constexpr int kAtOnce = Width < 4 ? Width : 4;
  for (int i = 0; i < Width; i += kAtOnce) {
    const PhiloxWords words = philox(key, static_cast<std::uint64_t>(begin + i) / 4, step);
    for (int j = 0; j < kAtOnce; ++j) {
      const std::uint32_t word = words.word[kAtOnce == 1 ? (begin + i) % 4 : j];
      x[i + j] = (word >> 8) >= p.threshold ? x[i + j] * p.scale : 0.0f;
    }
  }
}

template <class T>
struct Dropout {
  static constexpr int kWidth = kVector<T>;
  DropoutParams p;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    load(static_cast<const T*>(p.input) + begin, n, x);
    drop(p, begin, x);
    store(static_cast<T*>(p.output) + begin, n, x);
  }
};

template <class T, int Width>
struct DropoutParts {
  static constexpr int kWidth = 1;
  DropoutParams dropout;
  PixelParts p;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t vectors = p.channels / Width;
    const std::int64_t pixel = at / vectors, c = at % vectors * Width;
    float x[Width];
    load(static_cast<const T*>(p.a) + pixel * p.a_pitch + c, Width, x);
    drop(dropout, at * Width, x);
    store(static_cast<T*>(p.output) + pixel * p.output_pitch + c, Width, x);
  }
};

template <class From, class To>
struct Normalize {
  static constexpr int kWidth = kVector<To>;
  NormalizeParams p;
  WideDivider channels;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    widen(load_run<kWidth>(static_cast<const From*>(p.input) + begin, n), x);
    std::int64_t channel = begin;
    channels.split(channel);
    auto c = static_cast<int>(channel);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      x[i] = p.factors.normalized(x[i], c);
      c = c + 1 == p.factors.channels ? 0 : c + 1;
    }
    store(static_cast<To*>(p.output) + begin, n, x);
  }
};

template <class From, class To>
struct NormalizeByTable {
  static constexpr int kWidth = kVector<To>;
  NormalizeParams p;
  WideDivider channels;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth];
    widen(load_run<kWidth>(static_cast<const From*>(p.input) + begin, n), x);
    std::int64_t c = begin;
    channels.split(c);
    PYCNN_UNROLL
    for (int i = 0; i < kWidth; ++i) {
      x[i] = x[i] * p.table[c] + p.table[p.table_channels + c];
      c = c + 1 == p.table_channels ? 0 : c + 1;
    }
    store(static_cast<To*>(p.output) + begin, n, x);
  }
};

template <class From, class To>
void launch_normalize(DeviceQueue& queue, const NormalizeParams& params) {
  if (params.count == 0) return;
  if (params.table != nullptr)
    launch_map(queue, NormalizeByTable<From, To>{params, WideDivider(params.table_channels)},
               params.count);
  else
    launch_map(queue, Normalize<From, To>{params, WideDivider(params.factors.channels)},
               params.count);
}

struct Increment {
  static constexpr int kWidth = 1;
  const std::int64_t* input;
  std::int64_t* output;
  PYCNN_BOTH void operator()(std::int64_t at, int) const { output[at] = input[at] + 1; }
};

struct SquaredErrorGrad {
  static constexpr int kWidth = 4;
  const float* input;
  const float* target;
  const float* grad_loss;
  float factor;
  float* grad_input;
  PYCNN_BOTH void operator()(std::int64_t begin, int n) const {
    float x[kWidth], y[kWidth];
    load(input + begin, n, x);
    load(target + begin, n, y);
    const float scale = factor * *grad_loss;
    for (int i = 0; i < kWidth; ++i) x[i] = (x[i] - y[i]) * scale;
    store(grad_input + begin, n, x);
  }
};

}  // namespace

void activation(DeviceQueue& queue, Image image, const void* input, void* output, Curve curve,
                std::int64_t count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue, Activate<T>{static_cast<const T*>(input), static_cast<T*>(output), curve},
               count);
  });
}

void activation_grad(DeviceQueue& queue, Image image, const void* output, const void* grad_output,
                     void* grad_input, Curve curve, std::int64_t count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue,
               ActivateGrad<T>{static_cast<const T*>(output), static_cast<const T*>(grad_output),
                               static_cast<T*>(grad_input), curve},
               count);
  });
}

void activation_parts(DeviceQueue& queue, Image image, const PixelParts& parts, Curve curve) {
  launch_parts(queue, image, parts, ActivateOne{curve});
}
void activation_grad_parts(DeviceQueue& queue, Image image, const PixelParts& parts, Curve curve) {
  launch_parts(queue, image, parts, PassOne{curve});
}
void add_parts(DeviceQueue& queue, Image image, const PixelParts& parts) {
  launch_parts(queue, image, parts, AddOne{});
}

void cast_parts(DeviceQueue& queue, Image from, Image to, const PixelParts& parts) {
  with_image(from, [&](auto from_type) {
    with_image(to, [&](auto to_type) {
      using From = decltype(from_type);
      using To = decltype(to_type);
      if (parts.channels % 4 == 0)
        launch_map(queue, CastParts<From, To, 4>{parts}, parts.pixels * parts.channels / 4);
      else
        launch_map(queue, CastParts<From, To, 1>{parts}, parts.pixels * parts.channels);
    });
  });
}

void dropout_parts(DeviceQueue& queue, Image image, const DropoutParams& params,
                   const PixelParts& parts) {
  with_vectors(image, parts.channels, [&](auto type, auto width) {
    constexpr int kWidth = decltype(width)::value;
    launch_map(queue, DropoutParts<decltype(type), kWidth>{params, parts},
               parts.pixels * parts.channels / kWidth);
  });
}

void affine(DeviceQueue& queue, Image image, const void* input, void* output, float scale,
            float offset, std::int64_t count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue,
               Affine<T>{static_cast<const T*>(input), static_cast<T*>(output), scale, offset},
               count);
  });
}

void combine_pair(DeviceQueue& queue, Image image, const PairParams& params) {
  if (params.count == 0) return;
  const auto combine = [&](auto function) {
    using Function = decltype(function);
    with_image(image, [&](auto type) {
      using T = decltype(type);
      constexpr int kWidth = kVector<T>;
      if (params.same_shape) return launch_map(queue, PairRuns<T, Function>{params}, params.count);
      const PairParams joined = joined_axes(params);
      if (goes_by_vectors(joined, kWidth))
        launch_map(queue, PairVectors<T, kWidth, Function>(joined), params.count);
      else
        launch_map(queue, PairVectors<T, 1, Function>(joined), params.count);
    });
  };
  const bool ring = params.pairing == Pairing::kAdd || params.pairing == Pairing::kSubtract ||
                    params.pairing == Pairing::kMultiply;
  if (ring)
    combine(RingPair{});
  else
    combine(OtherPair{});
}

void cast(DeviceQueue& queue, Image from, Image to, const void* input, void* output,
          std::int64_t count) {
  with_image(from, [&](auto from_type) {
    with_image(to, [&](auto to_type) {
      using From = decltype(from_type);
      using To = decltype(to_type);
      launch_map(queue, Cast<From, To>{static_cast<const From*>(input), static_cast<To*>(output)},
                 count);
    });
  });
}

void dropout(DeviceQueue& queue, Image image, const DropoutParams& params) {
  with_image(image,
             [&](auto type) { launch_map(queue, Dropout<decltype(type)>{params}, params.count); });
}

void normalize_image(DeviceQueue& queue, Image output, const NormalizeParams& params) {
  with_image(output, [&](auto type) {
    using To = decltype(type);
    if (params.bytes)
      launch_normalize<std::uint8_t, To>(queue, params);
    else
      launch_normalize<float, To>(queue, params);
  });
}

void fill_timed(DeviceQueue& queue, void* output, std::int64_t bytes, std::uint64_t seed) {
  launch_map(queue, FillTimed{static_cast<std::uint16_t*>(output), seed}, bytes / 2);
}

void write_signs(DeviceQueue& queue, Image image, const void* input, void* signs,
                 std::int64_t count) {
  with_image(image, [&](auto type) {
    using T = decltype(type);
    launch_map(queue, Signs<T>{static_cast<const T*>(input), static_cast<std::uint8_t*>(signs)},
               count);
  });
}

void increment(DeviceQueue& queue, const std::int64_t* input, std::int64_t* output) {
  launch_map(queue, Increment{input, output}, 1);
}

void squared_error_grad(DeviceQueue& queue, const float* input, const float* target,
                        const float* grad_loss, float factor, float* grad_input,
                        std::int64_t count) {
  launch_map(queue, SquaredErrorGrad{input, target, grad_loss, factor, grad_input}, count);
}

}  // namespace pycnn::cuda
