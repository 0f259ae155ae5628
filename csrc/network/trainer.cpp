#include "pycnn/trainer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>

#include "core/training_state.h"
#include "network/training_graph.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr const char* kSeed = "train.seed";
constexpr const char* kStep = "train.step";
constexpr const char* kRate = "train.learning_rate";
constexpr std::size_t kKeptPrograms = 4;

Optimizer default_optimizer() {
  Optimizer optimizer;
  optimizer.momentum = 0.9;
  return optimizer;
}

void check_rate(double rate) {
  // Steps take it as a float, in which a finite double may be infinite.
  if (rate >= 0.0 && rate <= static_cast<double>(std::numeric_limits<float>::max())) return;
  char text[32];
  char* const end = std::to_chars(text, text + sizeof(text), rate).ptr;
  throw ArgumentError("trainer: the learning rate is " + std::string(text, end) +
                      ", expected a finite number of at least 0 that a float holds");
}

void check_options(const TrainerOptions& options) {
  check_rate(options.learning_rate);
  if (options.batch_size < 1)
    throw ArgumentError("trainer: batch_size is " + std::to_string(options.batch_size) +
                        ", expected at least 1");
  if (options.seed > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
    throw ArgumentError("trainer: seed is " + std::to_string(options.seed) +
                        ", expected less than 2^63");
}

void set_rate(Variables& variables, double rate) {
  *static_cast<float*>(variables.at(kRate).overwrite()) = static_cast<float>(rate);
}

// Fills the state that `compile` made by what a file holds, which must be of the same kind.
void take_over(Variables& made, const Variables& saved) {
  if (!saved.contains(kStep))
    throw ArgumentError("trainer: resume, but the model holds no training state ('train.step')");
  constexpr const char* kHint =
      "\n  hint: resume with the optimizer and the frozen parameters "
      "that it was trained with";
  for (const auto& [name, tensor] : saved)
    if (is_training_state(name) && !name.starts_with("train.") && !made.contains(name))
      throw ArgumentError("trainer: resume: the model holds '" + name +
                          "', which this optimizer does not use" + kHint);
  for (auto& [name, tensor] : made) {
    if (!is_training_state(name) || name == kRate) continue;
    const auto found = saved.find(name);
    if (found == saved.end()) {
      if (name == kSeed) continue;
      throw ArgumentError("trainer: resume: the model lacks '" + name +
                          "', which this optimizer needs" + kHint);
    }
    if (found->second.spec() != tensor.spec())
      throw ArgumentError("trainer: resume: '" + name + "' is " + to_string(found->second.spec()) +
                          ", expected " + to_string(tensor.spec()));
    const void* const values = found->second.raw();
    std::memcpy(tensor.overwrite(), values, tensor.bytes());
  }
}

}  // namespace

struct Trainer::State {
  // A program for one number of images, and where it puts its results.
  struct BatchProgram {
    BatchProgram(std::int64_t batch, Program compiled)
        : images(batch), program(std::move(compiled)) {
      const auto& outputs = program.outputs();
      values.resize(outputs.size());
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        arrays.push_back(&values[i]);
        if (outputs[i].first == "loss") loss = i;
        if (outputs[i].first == "correct") correct = i;
      }
    }

    std::int64_t images;
    Program program;
    std::vector<float> values;
    std::vector<void*> arrays;
    std::size_t loss = 0, correct = 0;
  };

  Model model;  // without training state
  TrainerOptions options;
  TrainedNames trained;
  TensorSpec image;
  std::int64_t classes = 0;
  Variables variables;
  // That of `batch_size` first, then others, the last used at the end.
  std::vector<std::unique_ptr<BatchProgram>> programs;
  mutable std::mutex turn;

  State(Model given, const TrainerOptions& given_options)
      : model(std::move(given)),
        options(given_options),
        trained(model.graph, options.trained, options.frozen) {
    check_options(options);
    image = image_input(with_batch(model.graph, 1, options.images)).second;
    const Variables saved = model.variables;
    model = without_training_state(std::move(model));
    Optimizer optimizer = options.optimizer.value_or(default_optimizer());
    optimizer.groups.insert(optimizer.groups.begin(), trained.frozen_parameters(model.graph));
    options.compile.mode = Mode::kTraining;
    options.compile.loss = "loss";
    options.compile.optimizer = std::move(optimizer);

    variables = model.variables;
    Tensor seed({{1}, DType::kInt64});
    seed.mutable_data<std::int64_t>()[0] = static_cast<std::int64_t>(options.seed);
    variables[kSeed] = seed;
    programs.push_back(compile_for(options.batch_size));
    if (options.resume) take_over(variables, saved);
    set_rate(variables, options.learning_rate);
  }

  std::unique_ptr<BatchProgram> compile_for(std::int64_t batch) {
    const Graph graph = training_graph(model, options, trained, batch);
    const Symbol correct = graph.outputs().back().second;
    classes = graph.spec(graph.node(correct).inputs[0]).shape[1];
    return std::make_unique<BatchProgram>(batch, compile(graph, variables, options.compile));
  }

  BatchProgram& program_for(std::int64_t batch) {
    const auto found = std::find_if(programs.begin(), programs.end(),
                                    [&](const auto& each) { return each->images == batch; });
    if (found == programs.begin()) return **found;
    if (found != programs.end()) {
      std::rotate(found, found + 1, programs.end());
      return *programs.back();
    }
    std::unique_ptr<BatchProgram> made = compile_for(batch);
    if (programs.size() == kKeptPrograms) programs.erase(programs.begin() + 1);
    programs.push_back(std::move(made));
    return *programs.back();
  }

  std::unique_lock<std::mutex> take_turn() const {
    std::unique_lock lock(turn, std::try_to_lock);
    if (!lock.owns_lock())
      throw TrainingError("trainer: another thread is in the middle of a step with it");
    return lock;
  }
};

Trainer::Trainer(Model model, const TrainerOptions& options)
    : state_(std::make_unique<State>(std::move(model), options)) {}
Trainer::~Trainer() = default;
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;

StepResult Trainer::step(const void* images, std::span<const std::int64_t> labels) {
  const auto turn = state_->take_turn();
  if (labels.empty() || labels.data() == nullptr)
    throw ArgumentError("trainer: a step needs at least one label");
  State::BatchProgram& batch = state_->program_for(static_cast<std::int64_t>(labels.size()));
  const void* const inputs[] = {images, labels.data()};
  batch.program.run(inputs, batch.arrays);
  return {batch.values[batch.loss], std::llround(batch.values[batch.correct])};
}

StepResult Trainer::step(const Tensor& images, std::span<const std::int64_t> labels) {
  if (!images.defined()) throw ArgumentError("trainer: images is an empty tensor");
  TensorSpec expected = state_->image;
  expected.shape[0] = static_cast<std::int64_t>(labels.size());
  if (images.dtype() != expected.dtype)
    throw DTypeError(std::string("trainer: images is ") + long_name(images.dtype()) +
                     ", it expects " + long_name(expected.dtype));
  if (images.shape() != expected.shape)
    throw ShapeError("trainer: images has shape " + to_string(images.shape()) + ", " +
                     std::to_string(labels.size()) + " labels and this network need " +
                     to_string(expected.shape));
  return step(images.raw(), labels);
}

double Trainer::learning_rate() const { return state_->variables.at(kRate).data<float>()[0]; }

void Trainer::set_learning_rate(double rate) {
  check_rate(rate);
  const auto turn = state_->take_turn();
  set_rate(state_->variables, rate);
}

std::int64_t Trainer::steps() const { return state_->variables.at(kStep).data<std::int64_t>()[0]; }
std::int64_t Trainer::classes() const { return state_->classes; }
const TensorSpec& Trainer::image_spec() const { return state_->image; }
const Model& Trainer::model() const { return state_->model; }
const Program& Trainer::program() const { return state_->programs.front()->program; }

void Trainer::save(const std::string& path) const {
  const auto turn = state_->take_turn();
  save_model(path, {state_->model.graph, state_->variables, state_->model.metadata});
}

}  // namespace pycnn
