#include <doctest/doctest.h>

#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "support/errors.h"
#include "support/op_examples.h"

using namespace pycnn;

namespace {

// The lines that differentiation added.
std::string added(Graph& graph, Symbol loss, std::vector<Symbol> wrt,
                  std::vector<Symbol>* gradients = nullptr) {
  const std::string before = graph.text();
  const std::vector<Symbol> result = differentiate(graph, loss, wrt);
  if (gradients != nullptr) *gradients = result;
  const std::string after = graph.text();
  REQUIRE(after.substr(0, before.size()) == before);
  REQUIRE(result.size() == wrt.size());
  for (std::size_t i = 0; i < wrt.size(); ++i) CHECK(graph.spec(result[i]) == graph.spec(wrt[i]));
  return after.substr(before.size());
}

Symbol sum_of(Graph& graph, Symbol x) {
  ops::Reduce reduce{Reduction::kSum, {}, false};
  for (std::size_t i = 0; i < graph.spec(x).shape.size(); ++i) {
    reduce.axes.push_back(static_cast<std::int64_t>(i));
  }
  return graph.add(reduce, {x}, "loss");
}

}  // namespace

TEST_CASE("a dense layer under cross-entropy") {
  Graph graph;
  const Symbol x = graph.input("x", f32({5, 3}));
  const Symbol labels = graph.input("labels", i64({5}));
  const Symbol w = graph.parameter("w", f32({7, 3}));
  const Symbol b = graph.parameter("b", f32({7}));
  const Symbol y = graph.add(ops::Dense{}, {x, w, b}, "fc");
  const Symbol loss = graph.add(ops::SoftmaxCrossEntropy{0.1}, {y, labels}, "loss");
  CHECK(added(graph, loss, {w, b}) ==
        R"("grad.loss" = fill() {shape=(), dtype=f32, value=1} -> f32()
"grad.loss_1" = softmax_cross_entropy_grad("fc", "labels", "grad.loss") {label_smoothing=0.1} -> f32(5, 7)
"grad.fc" = dense_grad_weight("x", "grad.loss_1") {bias=true} -> f32(7, 3), f32(7)
)");
}

TEST_CASE("only paths that lead to what was asked for are followed") {
  const auto build = [](Graph& graph) {
    const Symbol x = graph.input("x", f32({2, 8, 8, 3}));
    const Symbol w1 = graph.parameter("w1", f32({4, 3, 3, 3}));
    const Symbol b1 = graph.parameter("b1", f32({4}));
    const Symbol w2 = graph.parameter("w2", f32({4, 3, 3, 4}));
    const Symbol c1 = graph.add(ops::Conv2d{}, {x, w1, b1}, "conv1");
    const Symbol r1 = graph.add(ops::Activation{}, {c1}, "relu1");
    const Symbol c2 = graph.add(ops::Conv2d{}, {r1, w2}, "conv2");
    return std::vector{x, w1, b1, w2, c1, sum_of(graph, c2)};
  };
  const auto has = [](const std::string& text, const char* op) {
    return text.find(std::string(" = ") + op + "(") != std::string::npos;
  };
  {  // only the last weight: nothing flows further
    Graph graph;
    const auto s = build(graph);
    const std::string text = added(graph, s[5], {s[3]});
    CHECK(has(text, "conv2d_grad_weight"));
    CHECK(!has(text, "conv2d_grad_input"));
    CHECK(!has(text, "activation_grad"));
  }
  {  // only the image: no weight gradients
    Graph graph;
    const auto s = build(graph);
    const std::string text = added(graph, s[5], {s[0]});
    CHECK(!has(text, "conv2d_grad_weight"));
    CHECK(has(text, "conv2d_grad_input"));
  }
  {  // a bias alone needs no weight gradient
    Graph graph;
    const auto s = build(graph);
    const std::string text = added(graph, s[5], {s[2]});
    CHECK(!has(text, "conv2d_grad_weight"));
    CHECK(text.find("reduce(\"grad.relu1\") {kind=sum, axes=(0, 1, 2), keep_dims=false}") !=
          std::string::npos);
  }
  {  // a result in the middle, and what is before it
    Graph graph;
    const auto s = build(graph);
    std::vector<Symbol> gradients;
    const std::string text = added(graph, s[5], {s[4], s[1]}, &gradients);
    CHECK(graph.node(gradients[0]).name == "grad.relu1");
    CHECK(graph.node(gradients[1]).name == "grad.conv1");
  }
}

TEST_CASE("parts of a symbol used several times are added in a fixed order") {
  Graph graph;
  const Symbol x = graph.input("x", f32({3}));
  const Symbol a = graph.add(ops::Activation{ActivationKind::kTanh}, {x}, "a");
  const Symbol b = graph.add(ops::Multiply{}, {x, x}, "b");
  const Symbol c = graph.add(ops::Add{}, {a, b}, "c");
  const Symbol d = graph.add(ops::Subtract{}, {c, x}, "d");
  CHECK(added(graph, sum_of(graph, d), {x}) ==
        R"("grad.loss" = fill() {shape=(), dtype=f32, value=1} -> f32()
"grad.loss_1" = reshape("grad.loss") {shape=(1)} -> f32(1)
"grad.loss_2" = broadcast("grad.loss_1") {shape=(3)} -> f32(3)
"grad.d" = affine("grad.loss_2") {scale=-1, offset=0} -> f32(3)
"grad.b" = multiply("grad.loss_2", "x") -> f32(3)
"grad.x" = add("grad.d", "grad.b") -> f32(3)
"grad.b_1" = multiply("grad.loss_2", "x") -> f32(3)
"grad.x_1" = add("grad.x", "grad.b_1") -> f32(3)
"grad.a" = activation_grad("a", "grad.loss_2") {kind=tanh, slope=0.01} -> f32(3)
"grad.x_2" = add("grad.x_1", "grad.a") -> f32(3)
)");
}

TEST_CASE("broadcasting is summed back") {
  Graph graph;
  const Symbol x = graph.input("x", f32({2, 4, 3}));
  const Symbol row = graph.parameter("row", f32({1, 3}));
  const Symbol scalar = graph.parameter("scalar", f32({}));
  const Symbol y =
      graph.add(ops::Multiply{}, {graph.add(ops::Add{}, {x, row}, "add"), scalar}, "y");
  const std::string text = added(graph, sum_of(graph, y), {row, scalar});
  CHECK(text.find("\"grad.add\" = reduce(\"grad.y\") {kind=sum, axes=(0, 1), keep_dims=true} -> "
                  "f32(1, 1, 3)\n"
                  "\"grad.add_1\" = reshape(\"grad.add\") {shape=(1, 3)} -> f32(1, 3)") !=
        std::string::npos);
  CHECK(text.find("{kind=sum, axes=(0, 1, 2), keep_dims=true} -> f32(1, 1, 1)") !=
        std::string::npos);
  CHECK(text.find("{shape=()} -> f32()") != std::string::npos);
}

TEST_CASE("a result that the loss does not use has a zero gradient") {
  Graph graph;
  const Symbol x = graph.input("x", f32({4, 3}));
  const Symbol g = graph.input("g", f32({4, 7}));
  Symbol grads = graph.add(ops::DenseGradWeight{true}, {x, g}, "dw");
  grads.output = 1;
  const std::string text = added(graph, sum_of(graph, grads), {g});
  CHECK(text.find("fill() {shape=(7, 3), dtype=f32, value=0}") != std::string::npos);
}

TEST_CASE("data that moves, moves back") {
  Graph graph;
  const Symbol x = graph.input("x", f32({2, 3}));
  const Symbol y = graph.input("y", f32({2, 5}));
  const Symbol joined = graph.add(ops::Concat{-1}, {x, y}, "joined");
  const Symbol turned = graph.add(ops::Transpose{{1, 0}}, {joined}, "turned");
  const Symbol part = graph.add(ops::Slice{{1, 0}, {6, -1}}, {turned}, "part");
  const Symbol padded = graph.add(ops::Pad{{0, 1}, {2, 0}, 5.0}, {part}, "padded");
  const Symbol taken = graph.add(ops::Take{{0, -1, 0}}, {padded}, "taken");
  const std::string text = added(graph, sum_of(graph, taken), {x, y});
  CHECK(text.substr(text.find("\"grad.taken\"")) ==
        R"("grad.taken" = take_grad("grad.loss_2") {indices=(0, -1, 0), rows=8} -> f32(8, 3)
"grad.padded" = slice("grad.taken") {begin=(0, 1), size=(6, 2)} -> f32(6, 2)
"grad.part" = pad("grad.padded") {before=(1, 0), after=(1, 0), value=0} -> f32(8, 2)
"grad.turned" = transpose("grad.part") {permutation=(1, 0)} -> f32(2, 8)
"grad.joined" = slice("grad.turned") {begin=(0, 0), size=(2, 3)} -> f32(2, 3)
"grad.joined_1" = slice("grad.turned") {begin=(0, 3), size=(2, 5)} -> f32(2, 5)
)");
}

TEST_CASE("an empty batch differentiates") {
  Graph graph;
  const Symbol x = graph.input("x", f32({0, 5, 5, 2}));
  const Symbol flat = graph.add(ops::Reshape{{0, -1}}, {x}, "flat");
  const Symbol w = graph.parameter("w", f32({3, 50}));
  const Symbol y = graph.add(ops::Dense{}, {flat, w}, "fc");
  const std::string text = added(graph, sum_of(graph, y), {x, w});
  CHECK(text.find("reshape(\"grad.fc\") {shape=(0, 5, 5, 2)} -> f32(0, 5, 5, 2)") !=
        std::string::npos);
}

TEST_CASE("every forward op differentiates in f32 and f64, or says that it cannot") {
  int differentiable = 0;
  std::vector<std::string> refusing;
  for (const OpExample& example : op_examples()) {
    for (const bool wide : {false, true}) {
      Graph graph;
      std::vector<Symbol> inputs, wrt;
      for (TensorSpec spec : example.inputs) {
        const bool rate = std::holds_alternative<ops::SgdUpdate>(example.op) ||
                          std::holds_alternative<ops::AdamUpdate>(example.op) ||
                          std::holds_alternative<ops::MuonUpdate>(example.op) ||
                          std::holds_alternative<ops::DenseSgdUpdate>(example.op) ||
                          std::holds_alternative<ops::DenseAdamUpdate>(example.op);
        if (wide && !rate && spec.dtype == DType::kFloat32) spec.dtype = DType::kFloat64;
        inputs.push_back(graph.input("in" + std::to_string(inputs.size()), spec));
        const bool statistic = (std::holds_alternative<ops::BatchNormTrain>(example.op) ||
                                std::holds_alternative<ops::BatchNormInference>(example.op)) &&
                               inputs.size() > 3;
        if (is_floating(spec.dtype) && !statistic) wrt.push_back(inputs.back());
      }
      if (wrt.empty()) continue;
      Symbol out = graph.add(example.op, inputs, "op", "here.py:1");
      if (!is_floating(graph.spec(out).dtype)) continue;
      if (graph.spec(out).dtype == DType::kBFloat16)
        out = graph.add(ops::Cast{DType::kFloat32}, {out}, "wide");
      const Symbol loss = sum_of(graph, out);
      const std::string before = graph.text();
      INFO(before);
      try {
        added(graph, loss, wrt);
        ++differentiable;
      } catch (const GraphError& error) {
        const std::string text = error.what();
        CHECK(text.find(std::string(op_name(example.op)) + " 'op': has no gradient") == 0);
        CHECK(text.find("\n  at here.py:1") != std::string::npos);
        CHECK(graph.text() == before);
        if (!wide && (refusing.empty() || refusing.back() != op_name(example.op))) {
          refusing.emplace_back(op_name(example.op));
        }
      }
    }
  }
  CHECK(differentiable > 60);
  CHECK(refusing == std::vector<std::string>{"conv2d",             // with an epilogue
                                             "conv2d_grad_input",  // with sums of a batch norm
                                             "dense",              // with an epilogue
                                             "max_pool2d_grad",
                                             "global_max_pool2d_grad",
                                             "batch_norm",
                                             "batch_norm_train_grad",
                                             "batch_norm_statistics",
                                             "batch_norm_apply",
                                             "batch_norm_apply_grad",
                                             "batch_norm_max_pool",
                                             "batch_norm_max_pool_grad",
                                             "batch_norm_inference_grad",
                                             "fold_batch_norm",
                                             "local_response_norm_grad",
                                             "activation_grad",
                                             "unary_grad",
                                             "binary",  // that serves gradients
                                             "dropout",
                                             "softmax_grad",
                                             "log_softmax_grad",
                                             "softmax_cross_entropy_grad",
                                             "mean_squared_error_grad",
                                             "top_k_correct",
                                             "clip_factor",
                                             "sgd_update",
                                             "adam_update",
                                             "muon_update",
                                             "ema_update",
                                             "dense_sgd_update",
                                             "dense_adam_update",
                                             "loss_scale",
                                             "commit"});
}

TEST_CASE("no gradient passes a comparison") {
  for (const BinaryKind kind : {BinaryKind::kEqual, BinaryKind::kStep}) {
    Graph graph;
    const Symbol x = graph.input("x", f32({3})), y = graph.input("y", f32({3}));
    const Symbol truth = graph.add(ops::Binary{kind}, {x, y}, "truth");
    const Symbol loss = sum_of(graph, graph.add(ops::Multiply{}, {truth, x}, "chosen"));
    const std::string text = added(graph, loss, {x});
    CHECK(text.find("grad.chosen") != std::string::npos);
    CHECK(text.find("grad.truth") == std::string::npos);
    check_error<GraphError>([&] { added(graph, loss, {y}); }, {"'y' does not influence it"});
  }
}

TEST_CASE("recorded batch norm and dropout ask for a mode first") {
  Graph graph;
  const Symbol x = graph.input("x", f32({4, 3}));
  const Symbol y = graph.add(ops::Dropout{}, {x}, "drop", "net.py:9");
  const Symbol loss = sum_of(graph, y);
  check_error<GraphError>([&] { differentiate(graph, loss, std::vector{x}); },
                          {"dropout 'drop'", "specialize(graph, mode)", "at net.py:9"});
}

TEST_CASE("what cannot be differentiated is refused by name") {
  Graph graph, other;
  const Symbol x = graph.input("x", f32({4, 3}));
  const Symbol n = graph.input("n", i64({4}));
  const Symbol z = graph.parameter("z", f32({2}));
  const Symbol s = graph.add(ops::Softmax{}, {x}, "s", "net.py:3");
  const Symbol loss = sum_of(graph, s);
  const auto refused = [&](Symbol of, Symbol wrt, std::initializer_list<const char*> parts) {
    const std::string before = graph.text();
    check_error<GraphError>([&] { differentiate(graph, of, std::vector{wrt}); }, parts);
    CHECK(graph.text() == before);
  };
  refused(s, x, {"'s'", "f32(4, 3)", "scalar", "mean or sum", "net.py:3"});
  refused(loss, n, {"'n'", "i64(4)"});
  refused(loss, z, {"'z' does not influence it", "'loss'"});
  refused(loss, other.input("x", f32({1})), {"another graph"});
  refused(Symbol{}, x, {"empty"});
  // Recorded after the loss: it cannot influence it.
  const Symbol late = graph.add(ops::Activation{}, {x}, "late");
  refused(loss, late, {"'late' does not influence it"});
}

TEST_CASE("the loss itself has gradient one, and no request adds no work") {
  Graph graph;
  const Symbol x = graph.input("x", f64({4}));
  const Symbol loss = sum_of(graph, x);
  CHECK(added(graph, loss, {loss}) ==
        "\"grad.loss\" = fill() {shape=(), dtype=f64, value=1} -> f64()\n");
  const std::size_t nodes = graph.nodes().size();
  CHECK(differentiate(graph, loss, {}).empty());
  CHECK(graph.nodes().size() == nodes + 1);
}

TEST_CASE("relu and relu6 let back what the rule says, all else its gradient") {
  const auto gradient_of = [](ActivationKind kind, ReluRule rule) {
    Graph graph;
    const Symbol x = graph.input("x", f32({3}));
    const Symbol loss = sum_of(graph, graph.add(ops::Activation{kind}, {x}, "act"));
    const std::size_t before = graph.text().size();
    const std::vector<Symbol> wrt = {x};
    differentiate(graph, loss, wrt, {rule});
    const std::string text = graph.text().substr(before);
    return text.substr(text.find("\"grad.act\""));
  };
  const std::string open =
      R"("grad.act" = activation_grad("act", "grad.loss_2") {kind=relu6, slope=0.01} -> f32(3)
)";
  const std::string positive =
      R"("grad.act" = activation("grad.loss_2") {kind=relu, slope=0.01} -> f32(3)
)";
  CHECK(gradient_of(ActivationKind::kRelu6, ReluRule::kExact) == open);
  CHECK(gradient_of(ActivationKind::kRelu6, ReluRule::kDeconvnet) == positive);
  CHECK(gradient_of(ActivationKind::kRelu6, ReluRule::kGuided) ==
        positive +
            R"("grad.act_1" = activation_grad("act", "grad.act") {kind=relu6, slope=0.01} -> f32(3)
)");
  for (const auto kind : {ActivationKind::kLeakyRelu, ActivationKind::kTanh})
    CHECK(gradient_of(kind, ReluRule::kGuided) == gradient_of(kind, ReluRule::kExact));
}

TEST_CASE("names of relu rules are read back") {
  for (const ReluRule rule : {ReluRule::kExact, ReluRule::kGuided, ReluRule::kDeconvnet})
    CHECK(parse_relu_rule(relu_rule_name(rule)) == rule);
  check_error<ArgumentError>([] { parse_relu_rule("guide"); }, {"relu_rule 'guide'", "guided"});
}

TEST_CASE("a long chain differentiates without recursion") {
  Graph graph;
  const Symbol x = graph.input("x", f32({1}));
  Symbol y = x;
  for (int i = 0; i < 20000; ++i) y = graph.add(ops::Activation{}, {y}, "r" + std::to_string(i));
  const Symbol loss = sum_of(graph, y);
  CHECK(differentiate(graph, loss, std::vector{x}).size() == 1);
}
