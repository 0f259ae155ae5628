#include "rounded_results.h"

using namespace pycnn;           // NOLINT(google-build-using-namespace)
using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)

namespace {

struct Case {
  Shape input;
  Pair kernel, stride;
  Padding padding = {};
  Pair dilation = {1, 1};
  bool ceil_mode = false;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {{2, 28, 28, 6}, {2, 2}, {2, 2}},  // LeNet
      {{3, 10, 10, 16}, {2, 2}, {2, 2}},
      {{1, 7, 9, 17}, {2, 2}, {2, 2}},  // an uncovered row and column
      {{2, 5, 5, 1}, {2, 2}, {2, 2}, {}, {1, 1}, true},
      {{2, 6, 8, 3}, {2, 2}, {2, 2}, {1, 1, 1, 1}},
      {{1, 13, 13, 33}, {3, 3}, {2, 2}},  // AlexNet
      {{9, 6, 6, 2}, {3, 3}, {2, 2}, {1, 1, 1, 1}},
      {{2, 8, 8, 65}, {3, 3}, {1, 1}, {1, 1, 1, 1}},  // inception
      {{1, 9, 9, 130}, {3, 3}, {2, 2}, {0, 1, 0, 1}},
      {{2, 7, 7, 16}, {3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}, true},
      {{1, 8, 6, 15}, {3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}, true},
      {{1, 9, 11, 5}, {4, 5}, {3, 2}, {1, 2, 0, 2}, {1, 1}, true},  // four different pads
      {{2, 10, 9, 6}, {4, 3}, {2, 3}, {2, 0, 1, 1}},
      {{1, 1, 1, 17}, {1, 1}, {1, 1}},  // 1x1 image
      {{2, 1, 1, 3}, {3, 3}, {1, 1}, {1, 1, 1, 1}},
      {{1, 1, 1, 6}, {7, 7}, {2, 2}, {3, 3, 3, 3}},
      {{2, 5, 4, 16}, {5, 4}, {1, 1}},  // kernel = image
      {{2, 9, 9, 6}, {2, 2}, {3, 3}},   // stride > kernel
      {{1, 20, 20, 3}, {1, 1}, {50, 7}},
      {{1, 11, 7, 1}, {1, 2}, {2, 1}},
      {{1, 1, 40, 2}, {1, 3}, {1, 3}},
      {{0, 6, 6, 4}, {2, 2}, {2, 2}},  // no image
      {{0, 6, 6, 4}, {3, 3}, {2, 2}},
  };
  return list;
}

std::vector<Case> dilated_cases() {
  std::vector<Case> list = cases();
  list.push_back({{1, 12, 13, 6}, {3, 3}, {1, 1}, {2, 1, 1, 2}, {2, 2}});
  list.push_back({{2, 14, 14, 17}, {2, 3}, {4, 7}, {0, 1, 0, 2}, {3, 2}, true});
  list.push_back({{1, 21, 21, 3}, {3, 2}, {2, 2}, {}, {9, 3}});
  // The second row of windows begins above the first one's first tap inside.
  list.push_back({{3, 7, 5, 23}, {3, 3}, {1, 4}, {1, 1, 0, 0}, {2, 2}});
  return list;
}

template <class OpType>
OpType make_pool(const Case& c) {
  OpType op;
  op.kernel_size = c.kernel;
  op.stride = c.stride;
  op.padding = c.padding;
  op.ceil_mode = c.ceil_mode;
  if constexpr (std::is_same_v<OpType, ops::MaxPool2d>) op.dilation = c.dilation;
  return op;
}

// Calls f(output index, {input indices in row-major order}) for every window and channel: the
// geometry written down once more, cell by cell.
template <class F>
void for_windows(const Case& c, const Shape& output, F&& f) {
  std::size_t o = 0;
  for (std::int64_t n = 0; n < output[0]; ++n)
    for (std::int64_t oh = 0; oh < output[1]; ++oh)
      for (std::int64_t ow = 0; ow < output[2]; ++ow)
        for (std::int64_t ch = 0; ch < output[3]; ++ch, ++o) {
          std::vector<std::size_t> cells;
          for (std::int64_t kh = 0; kh < c.kernel[0]; ++kh)
            for (std::int64_t kw = 0; kw < c.kernel[1]; ++kw) {
              const std::int64_t ih = oh * c.stride[0] - c.padding.top + kh * c.dilation[0];
              const std::int64_t iw = ow * c.stride[1] - c.padding.left + kw * c.dilation[1];
              if (ih < 0 || ih >= c.input[1] || iw < 0 || iw >= c.input[2]) continue;
              cells.push_back(static_cast<std::size_t>(
                  ((n * c.input[1] + ih) * c.input[2] + iw) * c.input[3] + ch));
            }
          f(o, cells, oh, ow);
        }
}

// First largest, first NaN before that.
std::size_t winner(const HostTensor& x, const std::vector<std::size_t>& cells) {
  std::size_t best = cells.at(0);
  for (const std::size_t cell : cells) {
    if (std::isnan(x[best])) break;
    if (x[cell] > x[best] || std::isnan(x[cell])) best = cell;
  }
  return best;
}

// PyTorch's divisor: the window clipped to image + padding, or to the image.
double mean_cells(const Case& c, bool count_padding, std::int64_t oh, std::int64_t ow,
                  std::size_t inside) {
  if (!count_padding) return static_cast<double>(inside);
  const std::int64_t top = oh * c.stride[0] - c.padding.top;
  const std::int64_t left = ow * c.stride[1] - c.padding.left;
  const std::int64_t bottom = std::min(top + c.kernel[0], c.input[1] + c.padding.bottom);
  const std::int64_t right = std::min(left + c.kernel[1], c.input[2] + c.padding.right);
  return static_cast<double>((bottom - top) * (right - left));
}

bool same_value(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

void check_max_pool(const Case& c, const HostTensor& input) {
  const auto op = make_pool<ops::MaxPool2d>(c);
  const Shape output = op.infer({&input.spec, 1})[0].shape;
  CAPTURE(to_string(output));
  check_kernels(op, {input}, [&](const std::vector<HostTensor>& results) {
    for_windows(c, output, [&](std::size_t o, const auto& cells, auto, auto) {
      CHECK(same_value(results[0][o], input[winner(input, cells)]));
    });
  });
  const HostTensor grad = random_integers(output, 7, 100);
  std::vector<double> expected(input.size(), 0.0);
  for_windows(c, output, [&](std::size_t o, const auto& cells, auto, auto) {
    expected[winner(input, cells)] += grad[o];
  });
  check_kernels(ops::MaxPool2dGrad{op}, {input, grad}, [&](const std::vector<HostTensor>& results) {
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(results[0][i] == expected[i]);
  });
}

}  // namespace

TEST_CASE("max pooling takes the first largest cell and gives it the gradient") {
  for (const Case& c : dilated_cases()) {
    CAPTURE(to_string(c.input));
    check_max_pool(c, random_tensor(c.input, 1));
    check_max_pool(c, random_integers(c.input, 2, 2));  // ties everywhere
    check_max_pool(c, random_integers(c.input, 3, 0));  // all equal
    HostTensor negative = random_tensor(c.input, 4, -9.0, -5.0);
    check_max_pool(c, negative);  // padding must not win
  }
}

TEST_CASE("NaN and infinities come through max pooling, and the first NaN gets the gradient") {
  for (const Case& c : dilated_cases()) {
    CAPTURE(to_string(c.input));
    HostTensor input = random_integers(c.input, 5, 3);
    for (std::size_t i = 0; i < input.size(); ++i) {
      if (i % 7 == 3) input.set(i, kNaN);
      if (i % 11 == 5) input.set(i, kInfinity);
      if (i % 5 == 2) input.set(i, -kInfinity);
    }
    check_max_pool(c, input);
  }
}

TEST_CASE("the double reference of max pooling agrees with the formula") {
  for (const Case& c : dilated_cases()) {
    const auto op = make_pool<ops::MaxPool2d>(c);
    const HostTensor input = random_tensor(c.input, 9, -1, 1, DType::kFloat64);
    const auto output = run_kernel(op, {input});
    for_windows(c, output[0].spec.shape, [&](std::size_t o, const auto& cells, auto, auto) {
      CHECK(output[0][o] == input[winner(input, cells)]);
    });
  }
}

TEST_CASE("average pooling divides the sum by the cells that count") {
  for (const Case& c : cases()) {
    for (const bool count_padding : {true, false}) {
      auto op = make_pool<ops::AvgPool2d>(c);
      op.count_include_pad = count_padding;
      CAPTURE(to_string(c.input));
      CAPTURE(count_padding);
      const HostTensor whole = random_integers(c.input, 11, 200);
      const Shape output = op.infer({&whole.spec, 1})[0].shape;
      check_kernels(op, {whole}, [&](const std::vector<HostTensor>& results) {
        for_windows(c, output, [&](std::size_t o, const auto& cells, auto oh, auto ow) {
          double sum = 0.0;
          for (const std::size_t cell : cells) sum += whole[cell];
          const double n = mean_cells(c, count_padding, oh, ow, cells.size());
          CHECK(results[0][o] == static_cast<double>(static_cast<float>(sum / n)));
        });
      });
      const HostTensor reals = random_tensor(c.input, 12);
      check_kernels(op, {reals}, [&](const std::vector<HostTensor>& results) {
        for_windows(c, output, [&](std::size_t o, const auto& cells, auto oh, auto ow) {
          double sum = 0.0, magnitude = 0.0;
          for (const std::size_t cell : cells) {
            sum += reals[cell];
            magnitude += std::abs(reals[cell]);
          }
          const double n = mean_cells(c, count_padding, oh, ow, cells.size());
          CHECK(is_close(results[0], o, sum / n, magnitude / n,
                         sum_units(static_cast<double>(cells.size()))));
        });
      });
    }
  }
}

TEST_CASE("the gradient of average pooling spreads each window's gradient over its cells") {
  for (const Case& c : cases()) {
    for (const bool count_padding : {true, false}) {
      auto pool = make_pool<ops::AvgPool2d>(c);
      pool.count_include_pad = count_padding;
      CAPTURE(to_string(c.input));
      const TensorSpec image{c.input, DType::kFloat32};
      const HostTensor grad = random_tensor(pool.infer({&image, 1})[0].shape, 13);
      std::vector<double> expected(static_cast<std::size_t>(element_count(c.input)), 0.0);
      std::vector<double> magnitude = expected, terms = expected;
      for_windows(c, grad.spec.shape, [&](std::size_t o, const auto& cells, auto oh, auto ow) {
        const double n = mean_cells(c, count_padding, oh, ow, cells.size());
        for (const std::size_t cell : cells) {
          expected[cell] += grad[o] / n;
          magnitude[cell] += std::abs(grad[o]) / n;
          terms[cell] += 1.0;
        }
      });
      const ops::AvgPool2dGrad op{pool, {c.input[1], c.input[2]}};
      check_kernels(op, {grad}, [&](const std::vector<HostTensor>& results) {
        for (std::size_t i = 0; i < expected.size(); ++i)
          CHECK(is_close(results[0], i, expected[i], magnitude[i], sum_units(terms[i])));
      });
      const auto wide = run_kernel(op, {to_float64(grad)});
      for (std::size_t i = 0; i < expected.size(); ++i)
        CHECK(is_close(wide[0], i, expected[i], magnitude[i], sum_units(terms[i])));
    }
  }
}

TEST_CASE("average pooling confines NaN to the windows that hold it") {
  const Case c{{1, 6, 6, 5}, {2, 2}, {2, 2}};
  HostTensor input = random_tensor(c.input, 14);
  input.set((0 * 6 + 3) * 5 + 2, kNaN);
  check_kernels(make_pool<ops::AvgPool2d>(c), {input}, [&](const std::vector<HostTensor>& results) {
    for (std::size_t i = 0; i < results[0].size(); ++i)
      CHECK(std::isnan(results[0][i]) == (i == 1 * 5 + 2));
  });
}

namespace {

struct AdaptiveCase {
  Shape input;
  Pair output;
};
const std::vector<AdaptiveCase> kAdaptiveCases = {
    {{2, 14, 14, 17}, {7, 7}}, {{1, 5, 7, 3}, {3, 2}},  {{2, 3, 4, 33}, {7, 6}},
    {{0, 3, 3, 4}, {2, 2}},    {{1, 1, 1, 1}, {3, 1}},  {{3, 13, 10, 8}, {6, 6}},
    {{1, 9, 11, 65}, {1, 1}},  {{2, 7, 7, 16}, {7, 7}}, {{1, 50, 40, 5}, {2, 3}}};

// Cells [first, last) of window i, by the definition.
std::pair<std::int64_t, std::int64_t> even_window(std::int64_t i, std::int64_t size,
                                                  std::int64_t windows) {
  const double step = static_cast<double>(size) / static_cast<double>(windows);
  const auto at = static_cast<double>(i);
  return {static_cast<std::int64_t>(std::floor(at * step + 1e-9)),
          static_cast<std::int64_t>(std::ceil((at + 1) * step - 1e-9))};
}

}  // namespace

TEST_CASE("adaptive pooling is the mean of windows that cover the image evenly") {
  for (const auto& [image, size] : kAdaptiveCases) {
    const Shape& shape = image;
    CAPTURE(to_string(shape));
    const std::int64_t height = shape[1], width = shape[2], channels = shape[3];
    const HostTensor input = random_tensor(shape, 41);
    const HostTensor grad = random_tensor({shape[0], size[0], size[1], channels}, 42);
    std::vector<double> means(grad.size()), magnitudes(grad.size());
    std::vector<double> grads(input.size()), grad_magnitudes(input.size());
    for (std::size_t i = 0; i < grad.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const std::int64_t c = at % channels, ow = at / channels % size[1];
      const std::int64_t oh = at / channels / size[1] % size[0];
      const std::int64_t n = at / channels / size[1] / size[0];
      const auto [top, bottom] = even_window(oh, height, size[0]);
      const auto [left, right] = even_window(ow, width, size[1]);
      const auto cells = static_cast<double>((bottom - top) * (right - left));
      for (std::int64_t h = top; h < bottom; ++h)
        for (std::int64_t w = left; w < right; ++w) {
          const auto cell = static_cast<std::size_t>(((n * height + h) * width + w) * channels + c);
          means[i] += input[cell] / cells;
          magnitudes[i] += std::abs(input[cell]) / cells;
          grads[cell] += grad[i] / cells;
          grad_magnitudes[cell] += std::abs(grad[i]) / cells;
        }
    }
    const double length = static_cast<double>(height * width);
    auto verify = [](const std::vector<double>& wanted, const std::vector<double>& magnitude,
                     double units) {
      return [&wanted, &magnitude, units](const std::vector<HostTensor>& results) {
        for (std::size_t i = 0; i < wanted.size(); ++i)
          CHECK(is_close(results[0], i, wanted[i], magnitude[i], units));
      };
    };
    const ops::AdaptiveAvgPool2d pool{size};
    check_kernels(pool, {input}, verify(means, magnitudes, sum_units(length)));
    const ops::AdaptiveAvgPool2dGrad pool_grad{{height, width}};
    check_kernels(pool_grad, {grad}, verify(grads, grad_magnitudes, sum_units(length)));
  }
}

namespace {

const std::vector<Shape> kGlobalShapes = {
    {0, 3, 3, 4},  {1, 1, 1, 1},   {3, 1, 1, 17}, {2, 7, 7, 65}, {1, 5, 3, 6},
    {2, 13, 1, 2}, {1, 9, 9, 130}, {3, 4, 4, 16}, {2, 8, 9, 33}, {1, 40, 40, 3}};

std::size_t pixel(const Shape& s, std::size_t pooled, std::int64_t p) {
  const auto c = static_cast<std::size_t>(s[3]), pixels = static_cast<std::size_t>(s[1] * s[2]);
  return (pooled / c * pixels + static_cast<std::size_t>(p)) * c + pooled % c;
}

}  // namespace

TEST_CASE("global average pooling is the mean of all pixels") {
  for (const Shape& shape : kGlobalShapes) {
    const HostTensor input = random_tensor(shape, 21),
                     offset = random_tensor(shape, 22, 2999, 3001);
    const std::int64_t pixels = shape[1] * shape[2];
    for (const HostTensor* x : {&input, &offset}) {
      auto verify = [&](const std::vector<HostTensor>& results) {
        for (std::size_t i = 0; i < results[0].size(); ++i) {
          double sum = 0.0, magnitude = 0.0;
          for (std::int64_t p = 0; p < pixels; ++p) {
            sum += (*x)[pixel(shape, i, p)];
            magnitude += std::abs((*x)[pixel(shape, i, p)]);
          }
          const auto n = static_cast<double>(pixels);
          CHECK(is_close(results[0], i, sum / n, magnitude / n, sum_units(n)));
        }
      };
      check_kernels(ops::GlobalAvgPool2d{}, {*x}, verify);
      verify(run_kernel(ops::GlobalAvgPool2d{}, {to_float64(*x)}));
    }
    const HostTensor grad = random_tensor({shape[0], shape[3]}, 23);
    check_kernels(ops::GlobalAvgPool2dGrad{{shape[1], shape[2]}}, {grad},
                  [&](const std::vector<HostTensor>& results) {
                    for (std::size_t i = 0; i < grad.size(); ++i)
                      for (std::int64_t p = 0; p < pixels; ++p) {
                        const double share = grad[i] / static_cast<double>(pixels);
                        CHECK(is_close(results[0], pixel(shape, i, p), share, std::abs(share), 1));
                      }
                  });
  }
}

TEST_CASE("global max pooling takes the first largest pixel and gives it the gradient") {
  for (const Shape& shape : kGlobalShapes) {
    for (const int kind : {0, 1, 2}) {
      HostTensor input =
          kind == 0 ? random_tensor(shape, 31, -5, -1) : random_integers(shape, 32, 2);
      if (kind == 2)
        for (std::size_t i = 0; i < input.size(); i += 13) input.set(i, kNaN);
      const std::int64_t pixels = shape[1] * shape[2];
      auto winning = [&](std::size_t i) {
        std::vector<std::size_t> cells;
        for (std::int64_t p = 0; p < pixels; ++p) cells.push_back(pixel(shape, i, p));
        return winner(input, cells);
      };
      check_kernels(ops::GlobalMaxPool2d{}, {input}, [&](const std::vector<HostTensor>& results) {
        for (std::size_t i = 0; i < results[0].size(); ++i)
          CHECK(same_value(results[0][i], input[winning(i)]));
      });
      const HostTensor grad = random_tensor({shape[0], shape[3]}, 33);
      std::vector<double> expected(input.size(), 0.0);
      for (std::size_t i = 0; i < grad.size(); ++i) expected[winning(i)] = grad[i];
      check_kernels(ops::GlobalMaxPool2dGrad{}, {input, grad},
                    [&](const std::vector<HostTensor>& results) {
                      for (std::size_t i = 0; i < expected.size(); ++i)
                        CHECK(results[0][i] == expected[i]);
                    });
    }
  }
}

namespace {

void check_bfloat16(const Case& c) {
  CAPTURE(to_string(c.input));
  HostTensor input = odd_bfloat16(c.input, 1);
  // A window where both zeros are the largest.
  for (std::size_t i = 0; i < std::min<std::size_t>(input.size(), 40); ++i)
    input.set(i, i % 3 == 0 ? -0.0 : 0.0);
  const auto op = make_pool<ops::MaxPool2d>(c);
  check_rounded(op, {input});
  const Shape output = op.infer({&input.spec, 1})[0].shape;
  // Many equal numbers: the first must win.
  const HostTensor steps = random_integers(c.input, 2, 3, DType::kBFloat16);
  for (const HostTensor& x : {input, steps})
    check_rounded(ops::MaxPool2dGrad{op}, {x, odd_bfloat16(output, 3)});
}

}  // namespace

TEST_CASE("max pooling of bfloat16 has the numbers of float32") {
  for (Case c : dilated_cases()) {
    check_bfloat16(c);
    c.input[3] += 32;  // as many as the kernels of bfloat16 want
    check_bfloat16(c);
  }
  check_bfloat16({{2, 20, 12, 40}, {8, 8}, {1, 2}, {3, 0, 4, 1}});  // as many taps as they take
  check_bfloat16({{1, 12, 13, 40}, {5, 13}, {2, 2}});
  check_bfloat16({{9, 6, 5, 200}, {3, 3}, {1, 1}, {1, 1, 1, 1}});  // whole images, not blocks
  // Compared by columns; a NaN of either sign, a row or a column at the border.
  check_bfloat16({{3, 9, 11, 167}, {3, 3}, {1, 1}, {1, 1, 1, 1}});
  check_bfloat16({{2, 11, 10, 130}, {3, 3}, {2, 2}, {1, 1, 1, 1}});
  check_bfloat16({{2, 9, 12, 96}, {3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}, true});
  check_bfloat16({{2, 8, 9, 96}, {2, 2}, {2, 2}});
  check_bfloat16({{2, 8, 9, 70}, {2, 3}, {3, 1}, {0, 1, 1, 0}});
}

TEST_CASE("max pooling of bfloat16 tells numbers, infinities and NaNs of both signs apart") {
  // In each channel another pair of numbers, of all that are near a border of what bits may mean.
  const std::uint16_t odd[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F,
                               0x7F80, 0xFF80, 0x7F81, 0xFF81, 0x7FC0, 0xFFC0, 0x7FFF, 0xFFFF};
  for (const std::int64_t kernel : {2, 3}) {
    HostTensor input(TensorSpec{{1, kernel, kernel, 256}, DType::kBFloat16});
    for (std::size_t i = 0; i < input.size(); ++i) {
      const std::size_t c = i % 256, pixel = i / 256;
      input.as<std::uint16_t>()[i] = odd[pixel == 1 ? c / 16 : c % 16];
    }
    ops::MaxPool2d op;
    op.kernel_size = op.stride = {kernel, kernel};
    check_rounded(op, {input});
    if (kernel == 3) {
      op.stride = {1, 2};
      check_rounded(op, {input});
      op.stride = {1, 1};
      check_rounded(op, {input});
    }
  }
}

TEST_CASE("average pooling of bfloat16 and its gradient have the numbers of float32") {
  for (const std::int64_t channels : {1, 2, 3, 6, 7, 8, 11, 16, 17})
    for (const std::int64_t width : {2, 6, 28, 45, 66}) {
      const ops::AvgPool2d op;
      const Shape image{3, 4, width, channels};
      CAPTURE(to_string(image));
      const HostTensor input = odd_bfloat16(image, 4);
      check_rounded(op, {input});
      const HostTensor grad = odd_bfloat16(op.infer({&input.spec, 1})[0].shape, 5);
      check_rounded(ops::AvgPool2dGrad{op, {4, width}}, {grad});
    }
  for (const Case& c : cases()) {
    const auto op = make_pool<ops::AvgPool2d>(c);
    check_rounded(op, {odd_bfloat16(c.input, 6)});
  }
}

TEST_CASE("the gradient of max pooling of large bfloat16 images has the numbers of float32") {
  const Case c{{1, 260, 257, 64}, {3, 3}, {2, 2}, {1, 1, 1, 1}};
  const HostTensor input = odd_bfloat16(c.input, 1);
  const auto op = make_pool<ops::MaxPool2d>(c);
  const HostTensor grad = odd_bfloat16(op.infer({&input.spec, 1})[0].shape, 3);
  const ops::MaxPool2dGrad gradient{op};
  std::vector<HostTensor> expected = run_kernel(
      gradient, {to_type(input, DType::kFloat32), to_type(grad, DType::kFloat32)}, KernelRun{});
  expected[0] = to_type(expected[0], DType::kBFloat16);
  CHECK(same_numbers(run_kernel(gradient, {input, grad}, KernelRun{}), expected));
}
