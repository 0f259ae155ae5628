#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "support/op_examples.h"

// Every whole number of every op, as attribute or as axis of an input, is set to values whose sums
// and products leave 32 or 64 bits. Each must be taken, with results that 64 bits hold, or refused
// by an error of pycnn's. Undefined arithmetic would show under the sanitizers, a division by zero
// everywhere.
namespace pycnn {
namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kHostile[] = {
    0,
    -1,
    -2,
    kLeast,
    kLeast + 1,
    kMost,
    kMost - 1,
    std::int64_t{1} << 62,
    (std::int64_t{1} << 62) + 1,
    std::int64_t{1} << 33,
    (std::int64_t{1} << 32) + 1,
    std::int64_t{1} << 32,
    std::int64_t{1} << 31,
    (std::int64_t{1} << 31) - 1,
    (std::int64_t{1} << 31) - 2,
    -(std::int64_t{1} << 31) - 1,
    65537,
    3037000500,  // its square is above 2^63
};

// Calls `change` on each whole number among the fields.
template <class F>
struct Integers {
  const F& change;
  void operator()(const char*, std::int64_t& value) const { change(value); }
  void operator()(const char*, Pair& pair) const {
    for (std::int64_t& value : pair) change(value);
  }
  void operator()(const char*, Padding& p) const {
    for (std::int64_t* value : {&p.top, &p.bottom, &p.left, &p.right}) change(*value);
  }
  void operator()(const char*, std::vector<std::int64_t>& values) const {
    for (std::int64_t& value : values) change(value);
  }
  template <class Other>
  void operator()(const char*, Other&) const {}
};

template <class F>
void each_integer(Op& op, const F& change) {
  std::visit(
      [&](auto& concrete) {
        using Concrete = std::remove_reference_t<decltype(concrete)>;
        Concrete::fields(concrete, Integers<F>{change});
      },
      op);
}

// Sets the integers numbered `first` and `second` and tells how many there are.
int set_integers(Op& op, int first, std::int64_t a, int second = -1, std::int64_t b = 0) {
  int number = 0;
  each_integer(op, [&](std::int64_t& value) {
    if (number == first) value = a;
    if (number == second) value = b;
    ++number;
  });
  return number;
}

int accepted = 0, refused = 0;

void try_infer(const Op& op, const std::vector<TensorSpec>& inputs) {
  std::vector<TensorSpec> outputs;
  try {
    outputs = infer(op, inputs);
  } catch (const InternalError& error) {
    FAIL_CHECK(error.what());
    return;
  } catch (const Error& error) {
    ++refused;
    CHECK(std::string(error.what()).size() < 4000);
    return;
  }
  ++accepted;
  for (const TensorSpec& output : outputs) {
    CHECK(output.shape.size() <= 8);
    CHECK(element_count(output.shape) >= 0);
    CHECK(byte_size(output) <= std::size_t{1} << 62);
  }
  const Cost work = cost(op, inputs, outputs);
  CHECK(work.macs >= 0);
  CHECK(work.other_flops >= 0);
  CHECK(work.bytes >= 0);
}

// As in a graph, gradients included.
void try_graph(const Op& op, const std::vector<TensorSpec>& inputs) {
  try {
    Graph graph;
    std::vector<Symbol> symbols;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      symbols.push_back(graph.input("x" + std::to_string(i), inputs[i]));
    const Symbol result = graph.add(op, symbols);
    if (!is_floating(graph.spec(result).dtype) || inputs.empty()) return;
    std::vector<std::int64_t> axes;
    for (std::size_t axis = 0; axis < graph.spec(result).shape.size(); ++axis)
      axes.push_back(static_cast<std::int64_t>(axis));
    const Symbol loss =
        axes.empty() ? result : graph.add(ops::Reduce{Reduction::kSum, axes, false}, {result});
    const Symbol wrt[] = {symbols[0]};
    (void)differentiate(graph, loss, wrt);
    CHECK(Graph::parse(graph.text()).nodes().size() == graph.nodes().size());
  } catch (const InternalError& error) {
    FAIL_CHECK(error.what());
  } catch (const Error&) {
  }
}

}  // namespace

TEST_CASE("every op takes or refuses attributes that overflow") {
  accepted = refused = 0;
  for (const OpExample& example : op_examples()) {
    CAPTURE(op_name(example.op));
    Op counted = example.op;
    const int integers = set_integers(counted, -1, 0);
    for (int i = 0; i < integers; ++i) {
      CAPTURE(i);
      for (const std::int64_t value : kHostile) {
        CAPTURE(value);
        Op op = example.op;
        set_integers(op, i, value);
        try_infer(op, example.inputs);
        try_graph(op, example.inputs);
        for (int j = i + 1; j < integers; ++j) {
          for (const std::int64_t other : {kMost, kLeast, (std::int64_t{1} << 31) - 1}) {
            Op both = example.op;
            set_integers(both, i, value, j, other);
            try_infer(both, example.inputs);
          }
        }
      }
    }
  }
  CHECK(accepted > 100);
  CHECK(refused > 1000);
}

TEST_CASE("every op takes or refuses axes whose products overflow") {
  accepted = refused = 0;
  for (const OpExample& example : op_examples()) {
    CAPTURE(op_name(example.op));
    for (std::size_t input = 0; input < example.inputs.size(); ++input) {
      for (std::size_t axis = 0; axis < example.inputs[input].shape.size(); ++axis) {
        for (const std::int64_t value : kHostile) {
          CAPTURE(value);
          std::vector<TensorSpec> inputs = example.inputs;
          inputs[input].shape[axis] = value;
          try_infer(example.op, inputs);
          // The same axis of all inputs, which then agree with one another where they must.
          for (TensorSpec& spec : inputs)
            if (axis < spec.shape.size() && spec.shape.size() == inputs[input].shape.size())
              spec.shape[axis] = value;
          try_infer(example.op, inputs);
          try_graph(example.op, inputs);
        }
      }
    }
  }
  CHECK(accepted > 100);
  CHECK(refused > 1000);
}

TEST_CASE("windows on huge images are counted as wide arithmetic counts them") {
  using Wide = __int128;
  const std::int64_t sizes[] = {1, 7, 65537, (std::int64_t{1} << 31) + 3, std::int64_t{1} << 40};
  const std::int64_t numbers[] = {1, 2, 3, 50, 65536, (std::int64_t{1} << 31) - 1};
  int counted = 0;
  for (const std::int64_t size : sizes) {
    for (const std::int64_t kernel : {std::int64_t{1}, std::int64_t{3}, std::int64_t{4096}}) {
      for (const std::int64_t stride : numbers) {
        for (const std::int64_t dilation : numbers) {
          for (const std::int64_t pad : {std::int64_t{0}, std::int64_t{1}, numbers[5]}) {
            ops::Conv2d op;
            op.stride = {stride, 1};
            op.dilation = {dilation, 1};
            op.padding = {pad, 0, 0, 0};
            const std::vector<TensorSpec> inputs = {f32({1, size, 1, 1}), f32({1, kernel, 1, 1})};
            const Wide extent = Wide{kernel - 1} * dilation + 1, room = Wide{size} + pad - extent;
            std::int64_t height = 0;
            try {
              height = infer(op, inputs)[0].shape[1];
            } catch (const ShapeError&) {
              // Nothing left, or a window beyond what kernels keep.
              CHECK((room < 0 || extent > (1 << 24)));
              continue;
            }
            ++counted;
            CHECK(Wide{height} == room / stride + 1);
          }
        }
      }
    }
  }
  CHECK(counted > 300);
}

}  // namespace pycnn
