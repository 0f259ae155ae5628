// Builds LeNet-5 with the C++ interface and trains it.
//
//   train_lenet IMAGES.idx3-ubyte LABELS.idx1-ubyte EPOCHS MODEL.safetensors [DEVICE]
//
// on the CPU or, say, on cuda:0; prints the mean loss and accuracy of every epoch and writes a file
// that `classify` and Python's pycnn.load read.
#include <pycnn/pycnn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>

#include "idx.h"

namespace {

using pycnn::Graph;
using pycnn::Initializer;
using pycnn::ParameterLayout;
using pycnn::Symbol;

constexpr std::int64_t kBatch = 64;

// Xavier's uniform bounds (Glorot, Bengio 2010), which suit tanh.
Initializer xavier(std::int64_t fan_in, std::int64_t fan_out) {
  const double bound = std::sqrt(6.0 / static_cast<double>(fan_in + fan_out));
  return {Initializer::Kind::kUniform, -bound, bound};
}

Symbol convolution(Graph& g, Symbol x, const std::string& name, std::int64_t out,
                   std::int64_t padding) {
  const std::int64_t in = g.spec(x).shape[3];
  const Symbol weight = g.parameter(name + ".weight", {{out, 5, 5, in}}, xavier(25 * in, 25 * out),
                                    ParameterLayout::kConvWeight);
  const Symbol bias = g.parameter(name + ".bias", {{out}});
  pycnn::ops::Conv2d op;
  op.padding = {padding, padding, padding, padding};
  const Symbol sum = g.add(op, {x, weight, bias}, name);
  return g.add(pycnn::ops::Activation{pycnn::ActivationKind::kTanh}, {sum}, name + ".tanh");
}

Symbol dense(Graph& g, Symbol x, const std::string& name, std::int64_t out) {
  const std::int64_t in = g.spec(x).shape[1];
  const Symbol weight = g.parameter(name + ".weight", {{out, in}}, xavier(in, out));
  const Symbol bias = g.parameter(name + ".bias", {{out}});
  return g.add(pycnn::ops::Dense{}, {x, weight, bias}, name);
}

// LeNet-5 for 28x28 images (LeCun et al. 1998, in its modern form): 61,706 parameters.
Symbol lenet5(Graph& g, Symbol x) {
  x = convolution(g, x, "conv1", 6, 2);
  x = g.add(pycnn::ops::AvgPool2d{}, {x}, "pool1");
  x = convolution(g, x, "conv2", 16, 0);
  x = g.add(pycnn::ops::AvgPool2d{}, {x}, "pool2");
  // Channels outermost, as other frameworks flatten.
  x = g.add(pycnn::ops::Transpose{{0, 3, 1, 2}}, {x}, "flatten.order");
  x = g.add(pycnn::ops::Reshape{{0, 16 * 5 * 5}}, {x}, "flatten");
  x = g.add(pycnn::ops::Activation{pycnn::ActivationKind::kTanh}, {dense(g, x, "fc1", 120)},
            "fc1.tanh");
  x = g.add(pycnn::ops::Activation{pycnn::ActivationKind::kTanh}, {dense(g, x, "fc2", 84)},
            "fc2.tanh");
  return dense(g, x, "fc3", 10);
}

void run(char** argv, const std::string& device) {
  const IdxImages images = read_idx_images(argv[1]);
  const std::vector<std::uint8_t> labels = read_idx_labels(argv[2]);
  const long epochs = std::atol(argv[3]);
  if (static_cast<std::size_t>(images.count) != labels.size() || images.height != 28 ||
      images.width != 28)
    throw std::runtime_error("expected as many 28x28 images as labels");

  // The network as it will be saved, and the same with loss and accuracy for training.
  Graph network;
  network.set_output("output", lenet5(network, network.input("x", {{1, 28, 28, 1}})));

  Graph training;
  const Symbol logits = lenet5(training, training.input("x", {{kBatch, 28, 28, 1}}));
  const Symbol target = training.input("label", {{kBatch}, pycnn::DType::kInt64});
  training.set_output("loss",
                      training.add(pycnn::ops::SoftmaxCrossEntropy{}, {logits, target}, "loss"));
  training.set_output("correct",
                      training.add(pycnn::ops::TopKCorrect{}, {logits, target}, "correct"));

  pycnn::Variables variables;
  pycnn::create_variables(training, variables, /*seed=*/0);
  pycnn::CompileOptions options;
  options.mode = pycnn::Mode::kTraining;
  options.device = device;
  options.optimizer = pycnn::Optimizer{.momentum = 0.9, .weight_decay = 5e-4};
  const pycnn::Program step = pycnn::compile(training, variables, options);
  variables.at("train.learning_rate").mutable_data<float>()[0] = 0.02f;

  std::vector<std::int64_t> order(static_cast<std::size_t>(images.count));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937 shuffler(0);
  std::vector<float> x(kBatch * 28 * 28);
  std::vector<std::int64_t> y(kBatch);
  float loss = 0, correct = 0;
  for (long epoch = 0; epoch < epochs; ++epoch) {
    std::shuffle(order.begin(), order.end(), shuffler);
    double loss_sum = 0, correct_sum = 0;
    std::int64_t steps = 0;
    for (std::size_t begin = 0; begin + kBatch <= order.size(); begin += kBatch, ++steps) {
      for (std::int64_t n = 0; n < kBatch; ++n) {
        const std::int64_t from = order[begin + static_cast<std::size_t>(n)];
        for (int i = 0; i < 784; ++i)
          x[static_cast<std::size_t>(n * 784 + i)] =
              static_cast<float>(images.pixels[static_cast<std::size_t>(from * 784 + i)]) / 255.0f;
        y[static_cast<std::size_t>(n)] = labels[static_cast<std::size_t>(from)];
      }
      const void* inputs[] = {x.data(), y.data()};
      void* outputs[] = {&loss, &correct};
      step.run(inputs, outputs);
      loss_sum += loss;
      correct_sum += correct;
    }
    std::printf("epoch %ld loss %.4f accuracy %.4f\n", epoch + 1,
                loss_sum / static_cast<double>(steps),
                correct_sum / static_cast<double>(steps * kBatch));
  }
  pycnn::Variables trained;
  for (const pycnn::Node& node : network.nodes())
    if (node.kind == pycnn::NodeKind::kParameter) trained[node.name] = variables.at(node.name);
  pycnn::save_model(argv[4], {network, trained, {}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    std::fprintf(stderr, "usage: %s IMAGES LABELS EPOCHS MODEL.safetensors [DEVICE]\n", argv[0]);
    return 2;
  }
  try {
    run(argv, argc == 6 ? argv[5] : "cpu");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_lenet: %s\n", error.what());
    return 1;
  }
}
