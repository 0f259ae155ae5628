#include <algorithm>
#include <cstddef>
#include <cstring>

#include "c/handles.h"
#include "pycnn/network.h"

namespace {

using namespace pycnn::c;

constexpr std::int64_t kBatch = 32;

std::vector<std::string> texts(const char* const* texts, std::size_t count, const char* name) {
  std::vector<std::string> result;
  if (count > 0) require(texts, "pycnn_trainer_create", name);
  for (std::size_t i = 0; i < count; ++i) {
    require(texts[i], "pycnn_trainer_create",
            (std::string(name) + "[" + std::to_string(i) + "]").c_str());
    result.emplace_back(texts[i]);
  }
  return result;
}

pycnn::Optimizer::Kind kind_of(pycnn_optimizer optimizer) {
  switch (optimizer) {
    case PYCNN_SGD:
      return pycnn::Optimizer::Kind::kSgd;
    case PYCNN_ADAM:
      return pycnn::Optimizer::Kind::kAdam;
    case PYCNN_ADAMW:
      return pycnn::Optimizer::Kind::kAdamW;
    case PYCNN_MUON:
      return pycnn::Optimizer::Kind::kMuon;
    default:
      throw pycnn::ArgumentError("pycnn_trainer_create: options->optimizer is " +
                                 std::to_string(optimizer) + ", no pycnn_optimizer");
  }
}

pycnn_trainer_options complete(const pycnn_trainer_options* given) {
  pycnn_trainer_options options = {};
  (void)pycnn_trainer_options_init(&options, sizeof(options));
  if (given == nullptr) return options;
  if (given->struct_size < offsetof(pycnn_trainer_options, compile) ||
      given->struct_size > kMaxStructBytes)
    throw pycnn::ArgumentError(
        "pycnn_trainer_create: the options were not set by pycnn_trainer_options_init");
  std::memcpy(&options, given, std::min(sizeof(options), given->struct_size));
  return options;
}

pycnn::TrainerOptions to_options(const pycnn_trainer_options& given) {
  constexpr const char* kWho = "pycnn_trainer_create";
  pycnn::TrainerOptions options;
  pycnn::Optimizer optimizer;
  optimizer.kind = kind_of(given.optimizer);
  optimizer.momentum = given.momentum;
  optimizer.weight_decay = given.weight_decay;
  options.optimizer = std::move(optimizer);
  options.learning_rate = given.learning_rate;
  options.label_smoothing = given.label_smoothing;
  if (given.trained != nullptr || given.trained_count > 0)
    options.trained = texts(given.trained, given.trained_count, "options->trained");
  options.frozen = texts(given.frozen, given.frozen_count, "options->frozen");
  options.seed = given.seed;
  options.resume = given.resume != 0;
  const pycnn_compile_options compile = pycnn::c::complete(given.compile, kWho);
  options.batch_size = given.compile == nullptr ? kBatch : compile.batch;
  options.images = to_dtype(compile.images, kWho, "options->compile->images");
  options.compile = to_compile_options(compile, kWho);
  return options;
}

}  // namespace

pycnn_status pycnn_trainer_options_init(pycnn_trainer_options* options, size_t struct_size) {
  return guarded([&] {
    constexpr const char* kWho = "pycnn_trainer_options_init";
    require(options, kWho, "options");
    require_struct_size(struct_size, offsetof(pycnn_trainer_options, compile), kWho,
                        "pycnn_trainer_options");
    pycnn_trainer_options defaults = {};
    defaults.struct_size = struct_size;
    defaults.learning_rate = 0.01;
    defaults.momentum = 0.9;
    std::memset(static_cast<void*>(options), 0, struct_size);
    std::memcpy(static_cast<void*>(options), &defaults, std::min(struct_size, sizeof(defaults)));
  });
}

pycnn_status pycnn_trainer_create(pycnn_model* model, const pycnn_trainer_options* options,
                                  pycnn_trainer** trainer) {
  return guarded([&] {
    require(model, "pycnn_trainer_create", "model");
    require(trainer, "pycnn_trainer_create", "trainer");
    *trainer = new pycnn_trainer{pycnn::Trainer(model->model, to_options(complete(options))),
                                 pycnn::image_input(model->model.graph).first};
  });
}

void pycnn_trainer_free(pycnn_trainer* trainer) { delete trainer; }

pycnn_status pycnn_trainer_image(const pycnn_trainer* trainer, pycnn_array_info* info) {
  return guarded([&] {
    require(trainer, "pycnn_trainer_image", "trainer");
    require(info, "pycnn_trainer_image", "info");
    *info = describe(trainer->input_name, trainer->trainer.image_spec());
  });
}

pycnn_status pycnn_trainer_step(pycnn_trainer* trainer, pycnn_input images, const int64_t* labels,
                                size_t label_count, double* loss, int64_t* correct) {
  return guarded([&] {
    constexpr const char* kWho = "pycnn_trainer_step";
    require(trainer, kWho, "trainer");
    require(labels, kWho, "labels");
    constexpr std::size_t kMost = std::size_t{1} << 31;
    if (label_count == 0 || label_count > kMost)
      throw pycnn::ArgumentError(std::string(kWho) + ": label_count is " +
                                 std::to_string(label_count) + ", expected 1 to " +
                                 std::to_string(kMost));
    const std::size_t wanted = byte_size(trainer->trainer.image_spec()) * label_count;
    require(images.data, kWho, "images.data");
    if (images.bytes != wanted)
      throw pycnn::ArgumentError(std::string(kWho) + ": images.bytes is " +
                                 std::to_string(images.bytes) + ", " + std::to_string(label_count) +
                                 " images of " + to_string(trainer->trainer.image_spec()) +
                                 " need " + std::to_string(wanted));
    const pycnn::StepResult result = trainer->trainer.step(images.data, {labels, label_count});
    if (loss != nullptr) *loss = result.loss;
    if (correct != nullptr) *correct = result.correct;
  });
}

pycnn_status pycnn_trainer_steps(const pycnn_trainer* trainer, int64_t* steps) {
  return guarded([&] {
    require(trainer, "pycnn_trainer_steps", "trainer");
    require(steps, "pycnn_trainer_steps", "steps");
    *steps = trainer->trainer.steps();
  });
}

pycnn_status pycnn_trainer_set_learning_rate(pycnn_trainer* trainer, double rate) {
  return guarded([&] {
    require(trainer, "pycnn_trainer_set_learning_rate", "trainer");
    trainer->trainer.set_learning_rate(rate);
  });
}

pycnn_status pycnn_trainer_save(const pycnn_trainer* trainer, const char* path) {
  return guarded([&] {
    require(trainer, "pycnn_trainer_save", "trainer");
    require(path, "pycnn_trainer_save", "path");
    trainer->trainer.save(path);
  });
}
