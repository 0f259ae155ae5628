#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <thread>

#include "network/small_model.h"
#include "pycnn/error.h"
#include "pycnn/trainer.h"
#include "support/errors.h"
#include "support/temporary_directory.h"

using namespace pycnn;
using namespace pycnn::test;

namespace {

TrainerOptions quick() {
  TrainerOptions options;
  options.batch_size = 8;
  options.learning_rate = 0.1;
  options.compile.threads = 1;
  return options;
}

// Images whose mean tells the class, so that they can be learned.
Tensor images_for(const Tensor& classes, std::uint64_t seed = 1) {
  Tensor images = random_tensor({classes.size(), 6, 6, 1}, seed, 0.3);
  for (std::int64_t n = 0; n < classes.size(); ++n)
    for (int i = 0; i < 36; ++i)
      images.mutable_data<float>()[n * 36 + i] +=
          static_cast<float>(classes.data<std::int64_t>()[n]) - 1.0f;
  return images;
}

std::span<const std::int64_t> values(const Tensor& classes) {
  return {classes.data<std::int64_t>(), static_cast<std::size_t>(classes.size())};
}

StepResult train(Trainer& trainer, int steps, int from = 0) {
  StepResult result;
  for (int i = from; i < from + steps; ++i) {
    const Tensor classes = labels(8, 3, static_cast<std::uint64_t>(i));
    result = trainer.step(images_for(classes, static_cast<std::uint64_t>(i)), values(classes));
  }
  return result;
}

}  // namespace

TEST_CASE("training lowers the loss, and programs of the model follow it") {
  Model model = small_model();
  const Program program = compile(with_batch(model.graph, 8), model.variables);
  const Tensor classes = labels(8, 3);
  const Tensor images = images_for(classes);
  const Tensor before = program.run({{"x", images}}).at("output");
  Trainer trainer(model, quick());
  CHECK(trainer.classes() == 3);
  CHECK(trainer.image_spec() == TensorSpec{{1, 6, 6, 1}});
  const double first = train(trainer, 1).loss;
  const StepResult last = train(trainer, 60);
  CHECK(first > 0.5);
  CHECK(last.loss < 0.3 * first);
  CHECK(last.correct >= 7);
  CHECK(trainer.steps() == 61);
  CHECK_FALSE(same_bits(before, program.run({{"x", images}}).at("output")));
}

TEST_CASE("a step is what the same graph compiled by hand does") {
  Model model = small_model(), other = small_model();
  Trainer trainer(model, quick());
  Graph graph = with_batch(other.graph, 8);
  const Symbol scores = graph.outputs()[0].second;
  const Symbol target = graph.input("label", {{8}, DType::kInt64});
  graph.set_output("loss", graph.add(ops::SoftmaxCrossEntropy{}, {scores, target}));
  CompileOptions options;
  options.mode = Mode::kTraining;
  options.threads = 1;
  options.optimizer.emplace();
  options.optimizer->momentum = 0.9;
  const Program step = compile(graph, other.variables, options);
  other.variables.at("train.learning_rate").mutable_data<float>()[0] = 0.1f;
  for (int i = 0; i < 3; ++i) {
    const Tensor classes = labels(8, 3, static_cast<std::uint64_t>(i));
    const Tensor images = images_for(classes, static_cast<std::uint64_t>(i));
    const auto results = step.run({{"x", images}, {"label", classes}});
    CHECK(trainer.step(images, values(classes)).loss == results.at("loss").data<float>()[0]);
  }
  for (const auto& [name, tensor] : trainer.model().variables)
    CHECK(same_bits(tensor, other.variables.at(name)));
}

TEST_CASE("only what is asked for is trained, batch norms' statistics included") {
  Model model = small_model();
  const auto before = copies(model.variables);
  TrainerOptions options = quick();
  options.trained = head_names(model);
  Trainer trainer(model, options);
  train(trainer, 3);
  for (const auto& [key, tensor] : model.variables) {
    const std::string& name = key;
    INFO(name);
    CHECK(same_bits(tensor, before.at(name)) == !name.starts_with("fc."));
  }

  // All but the convolution: its name fits both lists.
  Model second = small_model();
  options.trained = {"*"};
  options.frozen = {"conv*.weight"};
  Trainer rest(second, options);
  train(rest, 3);
  for (const auto& [key, tensor] : second.variables) {
    const std::string& name = key;
    INFO(name);
    CHECK(same_bits(tensor, before.at(name)) == (name == "conv1.weight"));
  }
}

TEST_CASE("losses of auxiliary heads are added with their weights") {
  const Tensor classes = labels(8, 3);
  const Tensor images = images_for(classes);
  const auto loss_with = [&](const char* weight) {
    Model model = small_model(3, true);
    model.metadata["pycnn.auxiliary"] =
        std::string(R"([{"node": "aux", "weight": )") + weight + "}]";
    return Trainer(model, quick()).step(images, values(classes)).loss;
  };
  const double alone = loss_with("0"), once = loss_with("1"), half = loss_with("5e-1");
  CHECK(once > alone);
  CHECK(half == doctest::Approx((alone + once) / 2).epsilon(1e-6));
}

TEST_CASE("a training that was saved goes on with the bits of an uninterrupted one") {
  const TemporaryDirectory directory;
  const std::string path = directory / "state.safetensors";
  TrainerOptions options = quick();
  options.optimizer.emplace();
  options.optimizer->kind = Optimizer::Kind::kAdam;
  options.optimizer->ema_decay = 0.9;
  Model whole = small_model(), half = small_model();
  Trainer uninterrupted(whole, options);
  train(uninterrupted, 6);
  {
    Trainer first(half, options);
    train(first, 3);
    first.save(path);
  }
  const Model loaded = load_model(path);
  options.resume = true;
  Trainer second(loaded, options);
  CHECK(second.steps() == 3);
  train(second, 3, 3);
  for (const auto& [name, tensor] : second.model().variables)
    CHECK(same_bits(tensor, whole.variables.at(name)));

  // Another optimizer needs other state, a fresh training none.
  options.optimizer->kind = Optimizer::Kind::kSgd;
  check_error<ArgumentError>([&] { Trainer(loaded, options); }, {"optim.mean.", "does not use"});
  options.optimizer->ema_decay.reset();
  options.resume = false;
  CHECK(Trainer(loaded, options).steps() == 0);
  options.resume = true;
  check_error<ArgumentError>([&] { Trainer(small_model(), options); }, {"no training state"});
}

TEST_CASE("batches of other sizes are compiled when they come") {
  Model model = small_model();
  Trainer trainer(model, quick());
  for (int round = 0; round < 2; ++round) {
    for (std::int64_t n = 1; n <= 6; ++n) {
      const Tensor classes = labels(n, 3);
      CHECK(std::isfinite(trainer.step(images_for(classes), values(classes)).loss));
    }
  }
  CHECK(trainer.steps() == 12);
}

TEST_CASE("steps with wrong images or labels are refused and change nothing") {
  Model model = small_model();
  Trainer trainer(model, quick());
  const auto before = copies(model.variables);
  const Tensor classes = labels(8, 3);
  const Tensor images = images_for(classes);
  std::vector<std::int64_t> bad(8, 0);
  bad[5] = 3;
  check_error<LabelError>([&] { trainer.step(images, bad); }, {"3", "5"});
  check_error<ShapeError>([&] { trainer.step(images, values(labels(7, 3))); },
                          {"(8, 6, 6, 1)", "(7, 6, 6, 1)"});
  check_error<DTypeError>(
      [&] {
        trainer.step(Tensor({{8, 6, 6, 1}, DType::kUInt8}), values(classes));
      },
      {"uint8", "float32"});
  check_error<ArgumentError>([&] { trainer.step(Tensor(), values(classes)); }, {"empty"});
  check_error<ArgumentError>([&] { trainer.step(images.raw(), {}); }, {"label"});
  check_error<ArgumentError>([&] { trainer.step(nullptr, values(classes)); }, {"null"});
  CHECK(trainer.steps() == 0);
  for (const auto& [name, tensor] : model.variables) CHECK(same_bits(tensor, before.at(name)));
}

TEST_CASE("options that cannot be are refused with their value") {
  const Model model = small_model();
  const auto refused = [&](auto change, std::initializer_list<const char*> parts) {
    TrainerOptions options = quick();
    change(options);
    check_error<ArgumentError>([&] { Trainer(model, options); }, parts);
  };
  refused([](TrainerOptions& o) { o.learning_rate = -1.0; }, {"learning rate", "-1"});
  refused([](TrainerOptions& o) { o.learning_rate = std::numeric_limits<double>::quiet_NaN(); },
          {"learning rate", "nan"});
  refused([](TrainerOptions& o) { o.learning_rate = 1e39; }, {"learning rate", "1e+39", "float"});
  refused([](TrainerOptions& o) { o.batch_size = 0; }, {"batch_size is 0"});
  refused([](TrainerOptions& o) { o.seed = std::uint64_t{1} << 63; }, {"seed", "2^63"});
  refused([](TrainerOptions& o) { o.trained = {"fc.weights"}; },
          {"trained", "'fc.weights'", "'fc.weight'"});
  refused([](TrainerOptions& o) { o.frozen = {"layer*"}; }, {"frozen", "'layer*'"});
  TrainerOptions options = quick();
  options.frozen = {"*"};
  check_error<GraphError>([&] { Trainer(model, options); }, {"nothing to train"});
  options = quick();
  options.compile.memory_limit_bytes = 100;
  check_error<MemoryLimitError>([&] { Trainer(model, options); }, {"limit is 100"});

  Model image_out;
  const Symbol x = image_out.graph.input("x", {{1, 4, 4, 1}});
  image_out.graph.set_output("output", Layers{image_out.graph}.conv(x, "conv", 2, 3));
  create_variables(image_out.graph, image_out.variables);
  check_error<ShapeError>([&] { Trainer(image_out, quick()); }, {"(8, 4, 4, 2)", "(N, classes)"});
}

TEST_CASE("a learning rate of zero changes no parameter, a new one counts from the next step") {
  Model model = small_model();
  TrainerOptions options = quick();
  options.learning_rate = 0.0;
  Trainer trainer(model, options);
  const Tensor before = model.variables.at("fc.weight").clone();
  train(trainer, 2);
  CHECK(same_bits(before, model.variables.at("fc.weight")));
  trainer.set_learning_rate(0.5);
  CHECK(trainer.learning_rate() == 0.5);
  train(trainer, 1);
  CHECK_FALSE(same_bits(before, model.variables.at("fc.weight")));
  check_error<ArgumentError>([&] { trainer.set_learning_rate(-0.1); }, {"-0.1"});
  check_error<ArgumentError>([&] { trainer.set_learning_rate(1e300); }, {"1e+300"});
  CHECK(trainer.learning_rate() == 0.5);
}

TEST_CASE("byte images train as their floats do") {
  Model a = small_model();
  TrainerOptions options = quick();
  options.images = DType::kUInt8;
  Trainer trainer(a, options);
  CHECK(trainer.image_spec().dtype == DType::kUInt8);
  Tensor bytes({{8, 6, 6, 1}, DType::kUInt8});
  for (std::int64_t i = 0; i < bytes.size(); ++i)
    bytes.mutable_data<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 31 % 256);
  const Tensor classes = labels(8, 3);
  const double loss = trainer.step(bytes, values(classes)).loss;
  Tensor floats({{8, 6, 6, 1}});
  for (std::int64_t i = 0; i < bytes.size(); ++i)
    floats.mutable_data<float>()[i] = static_cast<float>(bytes.data<std::uint8_t>()[i]) / 255.0f;
  Trainer other(small_model(), quick());
  CHECK(loss == doctest::Approx(other.step(floats, values(classes)).loss).epsilon(1e-5));
}
