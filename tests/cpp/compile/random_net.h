#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "compile/nets.h"

namespace pycnn::test {

inline Symbol concat(Graph& graph, std::vector<Symbol> parts, std::int64_t axis = -1) {
  return graph.add(ops::Concat{axis}, std::move(parts));
}

inline Symbol slice(Graph& graph, Symbol x, std::size_t axis, std::int64_t begin,
                    std::int64_t size) {
  Shape shape = graph.spec(x).shape;
  Shape first(shape.size(), 0);
  first[axis] = begin, shape[axis] = size;
  return graph.add(ops::Slice{first, shape}, {x});
}

inline Symbol max_pool(Graph& graph, Symbol x) {
  return graph.add(ops::MaxPool2d{{3, 3}, {1, 1}, {1, 1, 1, 1}, {1, 1}, false}, {x});
}

// Graphs of ops that may and may not work on pixels apart, in any order.
class RandomNet {
 public:
  RandomNet(std::uint64_t seed, bool training) : random_(seed), net_{graph} {
    const Shape image = {1 + below(2), 1 + below(4), 1 + below(4), 1 + below(6)};
    values_.push_back(net_.conv(graph.input("x", {image, DType::kFloat32}), "first", 4, 3));
    for (std::int64_t n = 4 + below(16); n > 0; --n) values_.push_back(next());
    if (training) {
      const ops::Reduce all{Reduction::kSum, {0, 1, 2, 3}, false};
      const Symbol sum = graph.add(all, {graph.add(ops::Multiply{}, {last(), last()})});
      const Symbol other = graph.add(all, {pick()});
      graph.set_output("loss", graph.add(ops::Add{}, {sum, other}));
      return;
    }
    for (std::int64_t n = 1 + below(3); n > 0; --n)
      graph.set_output(std::string("y").append(std::to_string(n)), n == 1 ? last() : pick());
  }

  Graph graph;

 private:
  std::int64_t below(std::uint32_t limit) { return random_(counter_++, 0)[0] % limit; }
  Symbol last() { return values_.back(); }
  Symbol pick() {  // mostly recent ones
    const auto size = static_cast<std::int64_t>(values_.size());
    const std::int64_t back =
        below(below(2) == 0 ? static_cast<std::uint32_t>(size)
                            : static_cast<std::uint32_t>(std::min<std::int64_t>(size, 4)));
    return values_[static_cast<std::size_t>(size - 1 - back)];
  }
  const Shape& shape(Symbol s) { return graph.spec(s).shape; }
  std::string name() { return std::string("n").append(std::to_string(counter_)); }

  Symbol next() {
    const Symbol x = pick();
    switch (below(10)) {
      case 0:
      case 1:
        return net_.conv(x, name(), 1 + below(2) * 16 + below(4), 3);
      case 2:
        return net_.conv(x, name(), 1 + below(20), 1, true, 0);
      case 3:
        return max_pool(graph, x);
      case 4:
        return net_.relu(x);
      case 5: {
        const Symbol y = pick();
        if (shape(x) == shape(y)) return graph.add(ops::Add{}, {x, y});
        return shape(x)[0] * shape(x)[1] * shape(x)[2] > 1 ? net_.norm(x, name()) : net_.relu(x);
      }
      case 6: {
        const auto axis = static_cast<std::size_t>(below(4));
        const std::int64_t size = shape(x)[axis], begin = below(static_cast<std::uint32_t>(size));
        return slice(graph, x, axis, begin, 1 + below(static_cast<std::uint32_t>(size - begin)));
      }
      default:
        return join(x);
    }
  }

  Symbol join(Symbol x) {
    const std::size_t axis = below(3) == 0 ? static_cast<std::size_t>(below(4)) : 3;
    std::vector<Symbol> parts = {x};
    std::int64_t size = shape(x)[axis];
    for (int tries = 0; tries < 4; ++tries) {
      const Symbol y = pick();
      Shape like = shape(y);
      like[axis] = shape(x)[axis];
      if (like != shape(x) || size + shape(y)[axis] > 60) continue;
      size += shape(y)[axis];
      parts.push_back(y);
    }
    return parts.size() > 1 ? concat(graph, parts, static_cast<std::int64_t>(axis))
                            : net_.conv(x, name(), 3, 3);
  }

  Philox random_;
  std::uint64_t counter_ = 0;
  Layers net_;
  std::vector<Symbol> values_;
};

}  // namespace pycnn::test
