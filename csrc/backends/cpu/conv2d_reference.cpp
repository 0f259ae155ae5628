#include "backends/cpu/conv2d_reference.h"

#include <algorithm>

#include "backends/cpu/activation_reference.h"
#include "backends/cpu/batch_norm_reference.h"
#include "backends/cpu/variant.h"

namespace pycnn::cpu {
namespace {

using Index = std::int64_t;

// The optional last inputs of a forward op.
template <class T>
struct Extras {
  const T* bias = nullptr;
  const T* residual = nullptr;
};

template <class T>
Extras<T> extras_of(const KernelArgs& args, const Epilogue& epilogue) {
  Extras<T> extras;
  const std::size_t residuals = epilogue.residual ? 1 : 0;
  if (residuals) extras.residual = args.inputs.back().as<const T>();
  if (args.inputs.size() > 2 + residuals) extras.bias = args.inputs[2].as<const T>();
  return extras;
}

// Sizes of a convolution whichever of its tensors an op computes.
struct Sizes {
  Index n, h, w, ic, oh, ow, oc, kh, kw;
  Pair stride;
  Padding padding;
  Pair dilation;
  Index groups;

  Sizes(const TensorView& input, const TensorView& weight, const TensorView& output, const auto& op)
      : n(input.dim(0)),
        h(input.dim(1)),
        w(input.dim(2)),
        ic(input.dim(3)),
        oh(output.dim(1)),
        ow(output.dim(2)),
        oc(output.dim(3)),
        kh(weight.dim(1)),
        kw(weight.dim(2)),
        stride(op.stride),
        padding(op.padding),
        dilation(op.dilation),
        groups(op.groups) {}

  // Calls f(input index, weight index) for every pair of elements that meet in output element
  // (image, y, x, channel).
  void meet(Index image, Index y, Index x, Index channel, auto&& f) const {
    const Index group_in = ic / groups, group = channel / (oc / groups);
    for (Index i = 0; i < kh; ++i)
      for (Index j = 0; j < kw; ++j) {
        const Index row = y * stride[0] - padding.top + i * dilation[0];
        const Index column = x * stride[1] - padding.left + j * dilation[1];
        if (row < 0 || row >= h || column < 0 || column >= w) continue;
        for (Index c = 0; c < group_in; ++c)
          f(((image * h + row) * w + column) * ic + group * group_in + c,
            ((channel * kh + i) * kw + j) * group_in + c);
      }
  }

  // Calls f(output index, channel, meet) for every output element.
  void each_output(auto&& f) const {
    Index at = 0;
    for (Index image = 0; image < n; ++image)
      for (Index y = 0; y < oh; ++y)
        for (Index x = 0; x < ow; ++x)
          for (Index channel = 0; channel < oc; ++channel, ++at)
            f(at, channel, [&](auto&& g) { meet(image, y, x, channel, g); });
  }
};

Index size_of(const TensorView& view) {
  Index size = 1;
  for (const Index dim : view.spec->shape) size *= dim;
  return size;
}

template <class T>
void zero(const TensorView& view) {
  std::fill_n(view.as<T>(), size_of(view), T{0});
}

// Epilogue::moments of a result that is there.
template <class T>
void measure(const TensorView& output, const TensorView& moments) {
  const Index channels = output.dim(3), rows = channels > 0 ? size_of(output) / channels : 0;
  for (Index c = 0; c < channels; ++c) {
    const auto m = batch_norm_reference::moments(
        batch_norm_reference::Column<T>{output.as<const T>(), rows, channels, c});
    const T mean = static_cast<T>(m.mean);
    moments.as<T>()[c] = mean;
    moments.as<T>()[channels + c] = static_cast<T>(m.mean - static_cast<double>(mean));
    moments.as<T>()[2 * channels + c] = static_cast<T>(m.variance);
  }
}

template <class T>
void conv2d(const KernelArgs& args) noexcept {
  const auto& op = *std::get_if<ops::Conv2d>(args.op);
  const Extras<T> extras = extras_of<T>(args, op.epilogue);
  const T* input = args.inputs[0].as<const T>();
  const T* weight = args.inputs[1].as<const T>();
  T* output = args.outputs[0].as<T>();
  const Sizes sizes(args.inputs[0], args.inputs[1], args.outputs[0], op);
  sizes.each_output([&](Index at, Index channel, auto&& meet) {
    T sum = 0;
    meet([&](Index i, Index k) { sum += input[i] * weight[k]; });
    if (extras.bias) sum += extras.bias[channel];
    if (extras.residual) sum += extras.residual[at];
    output[at] = activated(op.epilogue.activation, sum, static_cast<T>(op.epilogue.slope));
  });
  if (op.epilogue.moments) measure<T>(args.outputs[0], args.outputs[1]);
}

// NormSums of a gradient that is there.
template <class T>
void add_up(const KernelArgs& args, const NormSums& norm) {
  const TensorView& gradient = args.outputs[0];
  const Index channels = gradient.dim(3), count = size_of(gradient);
  const auto own = args.inputs.last(4);
  const T *const input = own[0].as<const T>(), *const mean = own[1].as<const T>();
  const T *const factor = own[2].as<const T>(), *const offset = own[3].as<const T>();
  for (Index c = 0; c < channels; ++c) {
    batch_norm_reference::GradientSums sums;
    for (Index at = c; at < count; at += channels) {
      const double centered = static_cast<double>(input[at]) - static_cast<double>(mean[c]);
      const auto y = static_cast<T>(centered * factor[c] + offset[c]);
      const T g =
          passed_back(norm.activation, y, gradient.as<const T>()[at], static_cast<T>(norm.slope));
      sums.sum += static_cast<double>(g);
      sums.product += static_cast<double>(g) * centered;
    }
    args.outputs[1].as<T>()[c] = static_cast<T>(sums.sum);
    args.outputs[1].as<T>()[channels + c] = static_cast<T>(sums.product);
  }
}

// GradientEpilogue of a gradient that is there.
template <class T>
void finish(const KernelArgs& args, const GradientEpilogue& wanted) {
  T* const gradient = args.outputs[0].as<T>();
  const T* const residual = wanted.residual ? args.inputs[2].as<const T>() : nullptr;
  const T* const y = wanted.relu ? args.inputs[wanted.residual ? 3 : 2].as<const T>() : nullptr;
  const Index count = size_of(args.outputs[0]);
  for (Index i = 0; i < count; ++i) {
    if (residual) gradient[i] += residual[i];
    if (y) gradient[i] = passed_back(ActivationKind::kRelu, y[i], gradient[i], T{0});
  }
}

template <class T>
void conv2d_grad_input(const KernelArgs& args) noexcept {
  const auto& op = *std::get_if<ops::Conv2dGradInput>(args.op);
  const T* grad_output = args.inputs[0].as<const T>();
  const T* weight = args.inputs[1].as<const T>();
  T* grad_input = args.outputs[0].as<T>();
  zero<T>(args.outputs[0]);
  const Sizes sizes(args.outputs[0], args.inputs[1], args.inputs[0], op);
  sizes.each_output([&](Index at, Index, auto&& meet) {
    meet([&](Index i, Index k) { grad_input[i] += grad_output[at] * weight[k]; });
  });
  finish<T>(args, op.finish);
  if (op.sums.wanted) add_up<T>(args, op.sums);
}

template <class T>
void conv2d_grad_weight(const KernelArgs& args) noexcept {
  const auto& op = *std::get_if<ops::Conv2dGradWeight>(args.op);
  const T* input = args.inputs[0].as<const T>();
  const T* grad_output = args.inputs[1].as<const T>();
  T* grad_weight = args.outputs[0].as<T>();
  zero<T>(args.outputs[0]);
  T* grad_bias = nullptr;
  if (op.bias) {
    grad_bias = args.outputs[1].as<T>();
    zero<T>(args.outputs[1]);
  }
  const Sizes sizes(args.inputs[0], args.outputs[0], args.inputs[1], op);
  sizes.each_output([&](Index at, Index channel, auto&& meet) {
    meet([&](Index i, Index k) { grad_weight[k] += grad_output[at] * input[i]; });
    if (grad_bias) grad_bias[channel] += grad_output[at];
  });
}

// A dense layer as matrices: rows x in times the transpose of out x in.
struct Matrices {
  Index rows, in, out;
  Matrices(const TensorView& wide, const TensorView& weight)
      : rows(0), in(weight.dim(1)), out(weight.dim(0)) {
    const Index last = wide.spec->shape.back();
    rows = last == 0 ? 0 : size_of(wide) / last;
  }
};

template <class T>
void dense(const KernelArgs& args) noexcept {
  const auto& op = *std::get_if<ops::Dense>(args.op);
  const Extras<T> extras = extras_of<T>(args, op.epilogue);
  const T* input = args.inputs[0].as<const T>();
  const T* weight = args.inputs[1].as<const T>();
  T* output = args.outputs[0].as<T>();
  const Matrices m(args.outputs[0], args.inputs[1]);
  for (Index row = 0; row < m.rows; ++row)
    for (Index o = 0; o < m.out; ++o) {
      T sum = 0;
      for (Index i = 0; i < m.in; ++i) sum += input[row * m.in + i] * weight[o * m.in + i];
      const Index at = row * m.out + o;
      if (extras.bias) sum += extras.bias[o];
      if (extras.residual) sum += extras.residual[at];
      output[at] = activated(op.epilogue.activation, sum, static_cast<T>(op.epilogue.slope));
    }
}

template <class T>
void dense_grad_input(const KernelArgs& args) noexcept {
  const T* grad_output = args.inputs[0].as<const T>();
  const T* weight = args.inputs[1].as<const T>();
  T* grad_input = args.outputs[0].as<T>();
  const Matrices m(args.inputs[0], args.inputs[1]);
  zero<T>(args.outputs[0]);
  for (Index row = 0; row < m.rows; ++row)
    for (Index o = 0; o < m.out; ++o)
      for (Index i = 0; i < m.in; ++i)
        grad_input[row * m.in + i] += grad_output[row * m.out + o] * weight[o * m.in + i];
}

template <class T>
void dense_grad_weight(const KernelArgs& args) noexcept {
  const auto& op = *std::get_if<ops::DenseGradWeight>(args.op);
  const T* input = args.inputs[0].as<const T>();
  const T* grad_output = args.inputs[1].as<const T>();
  T* grad_weight = args.outputs[0].as<T>();
  const Matrices m(args.inputs[1], args.outputs[0]);
  zero<T>(args.outputs[0]);
  for (Index row = 0; row < m.rows; ++row)
    for (Index o = 0; o < m.out; ++o)
      for (Index i = 0; i < m.in; ++i)
        grad_weight[o * m.in + i] += grad_output[row * m.out + o] * input[row * m.in + i];
  if (!op.bias) return;
  T* grad_bias = args.outputs[1].as<T>();
  zero<T>(args.outputs[1]);
  for (Index row = 0; row < m.rows; ++row)
    for (Index o = 0; o < m.out; ++o) grad_bias[o] += grad_output[row * m.out + o];
}

Kernel of_type(const Problem& problem, KernelFunction f32, KernelFunction f64) {
  Kernel kernel;
  kernel.run = problem.inputs[0].dtype == DType::kFloat64 ? f64 : f32;
  return kernel;
}

}  // namespace

Kernel make_conv2d_reference(const ops::Conv2d&, const Problem& problem) {
  return of_type(problem, conv2d<float>, conv2d<double>);
}
Kernel make_conv2d_grad_input_reference(const ops::Conv2dGradInput&, const Problem& problem) {
  return of_type(problem, conv2d_grad_input<float>, conv2d_grad_input<double>);
}
Kernel make_conv2d_grad_weight_reference(const ops::Conv2dGradWeight&, const Problem& problem) {
  return of_type(problem, conv2d_grad_weight<float>, conv2d_grad_weight<double>);
}
Kernel make_dense_reference(const ops::Dense&, const Problem& problem) {
  return of_type(problem, dense<float>, dense<double>);
}
Kernel make_dense_grad_input_reference(const ops::DenseGradInput&, const Problem& problem) {
  return of_type(problem, dense_grad_input<float>, dense_grad_input<double>);
}
Kernel make_dense_grad_weight_reference(const ops::DenseGradWeight&, const Problem& problem) {
  return of_type(problem, dense_grad_weight<float>, dense_grad_weight<double>);
}

}  // namespace pycnn::cpu
