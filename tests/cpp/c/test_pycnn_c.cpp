#include <doctest/doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "c/handles.h"
#include "network/small_model.h"
#include "pycnn/checkpoint.h"
#include "pycnn/network.h"
#include "pycnn/pycnn_c.h"
#include "support/temporary_directory.h"

using namespace pycnn;
using namespace pycnn::test;

namespace {

// Frees what a test made, whatever happens.
struct Handles {
  pycnn_model* model = nullptr;
  pycnn_program* program = nullptr;
  pycnn_trainer* trainer = nullptr;
  Handles() = default;
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  ~Handles() {
    pycnn_trainer_free(trainer);
    pycnn_program_free(program);
    pycnn_model_free(model);
  }
};

std::string saved_model(const TemporaryDirectory& directory) {
  std::string path = directory / "model.safetensors";
  Model model = small_model();
  model.metadata["class_names"] = R"(["a", "b", "c"])";
  save_model(path, model);
  return path;
}

void check_failed(pycnn_status status, pycnn_status expected,
                  std::initializer_list<const char*> parts) {
  CHECK(status == expected);
  const std::string text = pycnn_last_error();
  INFO(text);
  for (const char* part : parts) {
    INFO("missing: ", std::string(part));
    CHECK(text.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("C: a model tells its inputs, outputs, texts and classes") {
  const TemporaryDirectory directory;
  Handles h;
  REQUIRE(pycnn_model_load(saved_model(directory).c_str(), &h.model) == PYCNN_OK);
  std::size_t count = 0;
  CHECK(pycnn_model_input_count(h.model, &count) == PYCNN_OK);
  CHECK(count == 1);
  pycnn_array_info info = {};
  CHECK(pycnn_model_input(h.model, 0, &info) == PYCNN_OK);
  CHECK(info.name == std::string("x"));
  CHECK(info.dtype == PYCNN_FLOAT32);
  CHECK(info.rank == 4);
  CHECK(std::vector<std::int64_t>(info.shape, info.shape + 4) ==
        std::vector<std::int64_t>{1, 6, 6, 1});
  CHECK(info.bytes == 144);
  CHECK(pycnn_model_output_count(h.model, &count) == PYCNN_OK);
  CHECK(count == 1);
  CHECK(pycnn_model_output(h.model, 0, &info) == PYCNN_OK);
  CHECK(info.rank == 2);
  CHECK(info.shape[1] == 3);
  const char* text = "";
  CHECK(pycnn_model_metadata(h.model, "class_names", &text) == PYCNN_OK);
  CHECK(text == std::string(R"(["a", "b", "c"])"));
  CHECK(pycnn_model_metadata(h.model, "none", &text) == PYCNN_OK);
  CHECK(text == nullptr);
  CHECK(pycnn_model_class_count(h.model, &count) == PYCNN_OK);
  CHECK(count == 3);
  CHECK(pycnn_model_class_name(h.model, 2, &text) == PYCNN_OK);
  CHECK(text == std::string("c"));
  CHECK(pycnn_model_head_count(h.model, &count) == PYCNN_OK);
  CHECK(count == 2);
  CHECK(pycnn_model_head_name(h.model, 0, &text) == PYCNN_OK);
  CHECK(text == std::string("fc.weight"));
  CHECK(std::string(pycnn_status_name(PYCNN_FORMAT_ERROR)) == "FormatError");
  CHECK(std::string(pycnn_status_name(99)) == "unknown status");
  CHECK(std::string(pycnn_status_name(-1)) == "unknown status");
  CHECK(pycnn_c_abi_version() == PYCNN_C_ABI_VERSION);
  CHECK(std::string(pycnn_version()).find('.') != std::string::npos);
}

TEST_CASE("C: a program gives the bits of the C++ interface") {
  const TemporaryDirectory directory;
  const std::string path = saved_model(directory);
  Handles h;
  REQUIRE(pycnn_model_load(path.c_str(), &h.model) == PYCNN_OK);
  pycnn_compile_options options;
  REQUIRE(pycnn_compile_options_init(&options, sizeof(options)) == PYCNN_OK);
  options.batch = 2;
  REQUIRE(pycnn_program_compile(h.model, &options, &h.program) == PYCNN_OK);
  pycnn_model_free(h.model);  // the program keeps what it needs
  h.model = nullptr;

  const Tensor image = random_tensor({2, 6, 6, 1}, 1);
  float scores[6] = {};
  const pycnn_input in = {image.raw(), image.bytes()};
  const pycnn_output out = {scores, sizeof(scores)};
  CHECK(pycnn_program_run(h.program, &in, 1, &out, 1) == PYCNN_OK);
  Model model = load_model(path);
  const Tensor expected =
      compile(with_batch(model.graph, 2), model.variables).run({{"x", image}}).at("output");
  CHECK(std::memcmp(scores, expected.raw(), sizeof(scores)) == 0);

  pycnn_memory memory = {};
  CHECK(pycnn_program_memory(h.program, &memory) == PYCNN_OK);
  CHECK(memory.run_bytes > 0);
  CHECK(memory.variable_bytes > 0);
}

TEST_CASE("C: training lowers the loss, is saved and resumed") {
  const TemporaryDirectory directory;
  Handles h, again;
  REQUIRE(pycnn_model_load(saved_model(directory).c_str(), &h.model) == PYCNN_OK);
  pycnn_compile_options compile;
  REQUIRE(pycnn_compile_options_init(&compile, sizeof(compile)) == PYCNN_OK);
  compile.batch = 4;
  compile.images = PYCNN_UINT8;
  pycnn_trainer_options options;
  REQUIRE(pycnn_trainer_options_init(&options, sizeof(options)) == PYCNN_OK);
  options.compile = &compile;
  options.learning_rate = 0.05;
  options.optimizer = PYCNN_ADAM;
  const char* const trained[] = {"fc.*", "conv1.*"};
  options.trained = trained;
  options.trained_count = 2;
  REQUIRE(pycnn_trainer_create(h.model, &options, &h.trainer) == PYCNN_OK);
  pycnn_array_info image = {};
  CHECK(pycnn_trainer_image(h.trainer, &image) == PYCNN_OK);
  CHECK(image.bytes == 36);
  CHECK(image.dtype == PYCNN_UINT8);

  std::vector<std::uint8_t> images(4 * 36);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = static_cast<std::uint8_t>(i / 36 * 80);
  const std::int64_t labels[] = {0, 1, 2, 2};
  double first = 0, loss = 0;
  std::int64_t correct = 0, steps = 0;
  const pycnn_input input = {images.data(), images.size()};
  REQUIRE(pycnn_trainer_step(h.trainer, input, labels, 4, &first, nullptr) == PYCNN_OK);
  for (int i = 0; i < 40; ++i)
    REQUIRE(pycnn_trainer_step(h.trainer, input, labels, 4, &loss, &correct) == PYCNN_OK);
  CHECK(loss < first);
  CHECK(correct >= 2);
  CHECK(pycnn_trainer_set_learning_rate(h.trainer, 0.01) == PYCNN_OK);
  const std::string path = directory / "trained.safetensors";
  CHECK(pycnn_trainer_save(h.trainer, path.c_str()) == PYCNN_OK);

  REQUIRE(pycnn_model_load(path.c_str(), &again.model) == PYCNN_OK);
  options.resume = 1;
  REQUIRE(pycnn_trainer_create(again.model, &options, &again.trainer) == PYCNN_OK);
  CHECK(pycnn_trainer_steps(again.trainer, &steps) == PYCNN_OK);
  CHECK(steps == 41);
  double one = 0, other = 0;
  CHECK(pycnn_trainer_set_learning_rate(h.trainer, 0.05) == PYCNN_OK);
  for (int i = 0; i < 2; ++i) {
    CHECK(pycnn_trainer_step(h.trainer, input, labels, 4, &one, nullptr) == PYCNN_OK);
    CHECK(pycnn_trainer_step(again.trainer, input, labels, 4, &other, nullptr) == PYCNN_OK);
    CHECK(one == other);
  }

  // The network alone.
  const std::string net = directory / "net.safetensors";
  CHECK(pycnn_model_save(again.model, net.c_str()) == PYCNN_OK);
  CHECK_FALSE(load_model(net).variables.contains("train.step"));
}

TEST_CASE("C: a fresh head for other classes") {
  const TemporaryDirectory directory;
  Handles h, other;
  REQUIRE(pycnn_model_load(saved_model(directory).c_str(), &h.model) == PYCNN_OK);
  REQUIRE(pycnn_model_replace_head(h.model, 5, 1, &other.model) == PYCNN_OK);
  pycnn_array_info info = {};
  CHECK(pycnn_model_output(other.model, 0, &info) == PYCNN_OK);
  CHECK(info.shape[1] == 5);
  check_failed(pycnn_model_replace_head(h.model, 0, 1, &other.model), PYCNN_ARGUMENT_ERROR,
               {"num_classes is 0"});
}

TEST_CASE("C: null arguments, wrong sizes and indices are errors that name them") {
  const TemporaryDirectory directory;
  Handles h;
  const std::string path = saved_model(directory);
  std::size_t count = 0;
  const char* text = nullptr;
  pycnn_array_info info = {};
  check_failed(pycnn_model_load(nullptr, &h.model), PYCNN_ARGUMENT_ERROR,
               {"pycnn_model_load", "path is NULL"});
  check_failed(pycnn_model_load(path.c_str(), nullptr), PYCNN_ARGUMENT_ERROR, {"model is NULL"});
  REQUIRE(pycnn_model_load(path.c_str(), &h.model) == PYCNN_OK);
  REQUIRE(pycnn_program_compile(h.model, nullptr, &h.program) == PYCNN_OK);
  REQUIRE(pycnn_trainer_create(h.model, nullptr, &h.trainer) == PYCNN_OK);

  const std::pair<const char*, std::function<pycnn_status()>> null_handles[] = {
      {"pycnn_model_save", [&] { return pycnn_model_save(nullptr, "x"); }},
      {"pycnn_model_input_count", [&] { return pycnn_model_input_count(nullptr, &count); }},
      {"pycnn_model_input", [&] { return pycnn_model_input(nullptr, 0, &info); }},
      {"pycnn_model_output_count", [&] { return pycnn_model_output_count(nullptr, &count); }},
      {"pycnn_model_output", [&] { return pycnn_model_output(nullptr, 0, &info); }},
      {"pycnn_model_metadata", [&] { return pycnn_model_metadata(nullptr, "x", &text); }},
      {"pycnn_model_class_count", [&] { return pycnn_model_class_count(nullptr, &count); }},
      {"pycnn_model_class_name", [&] { return pycnn_model_class_name(nullptr, 0, &text); }},
      {"pycnn_model_replace_head",
       [&] { return pycnn_model_replace_head(nullptr, 3, 0, &h.model); }},
      {"pycnn_model_head_count", [&] { return pycnn_model_head_count(nullptr, &count); }},
      {"pycnn_model_head_name", [&] { return pycnn_model_head_name(nullptr, 0, &text); }},
      {"pycnn_compile_options_init", [&] { return pycnn_compile_options_init(nullptr, 1); }},
      {"pycnn_plan_memory", [&] { return pycnn_plan_memory(nullptr, nullptr, nullptr); }},
      {"pycnn_program_compile",
       [&] { return pycnn_program_compile(nullptr, nullptr, &h.program); }},
      {"pycnn_program_input_count", [&] { return pycnn_program_input_count(nullptr, &count); }},
      {"pycnn_program_input", [&] { return pycnn_program_input(nullptr, 0, &info); }},
      {"pycnn_program_output_count", [&] { return pycnn_program_output_count(nullptr, &count); }},
      {"pycnn_program_output", [&] { return pycnn_program_output(nullptr, 0, &info); }},
      {"pycnn_program_memory", [&] { return pycnn_program_memory(nullptr, nullptr); }},
      {"pycnn_program_run", [&] { return pycnn_program_run(nullptr, nullptr, 0, nullptr, 0); }},
      {"pycnn_trainer_options_init", [&] { return pycnn_trainer_options_init(nullptr, 1); }},
      {"pycnn_trainer_create", [&] { return pycnn_trainer_create(nullptr, nullptr, &h.trainer); }},
      {"pycnn_trainer_image", [&] { return pycnn_trainer_image(nullptr, &info); }},
      {"pycnn_trainer_step",
       [&] {
         return pycnn_trainer_step(nullptr, {nullptr, 0}, nullptr, 1, nullptr, nullptr);
       }},
      {"pycnn_trainer_steps", [&] { return pycnn_trainer_steps(nullptr, nullptr); }},
      {"pycnn_trainer_set_learning_rate",
       [&] { return pycnn_trainer_set_learning_rate(nullptr, 0.1); }},
      {"pycnn_trainer_save", [&] { return pycnn_trainer_save(nullptr, "x"); }},
  };
  for (const auto& [name, call] : null_handles)
    check_failed(call(), PYCNN_ARGUMENT_ERROR, {name, " is NULL"});
  pycnn_model_free(nullptr);
  pycnn_program_free(nullptr);
  pycnn_trainer_free(nullptr);

  check_failed(pycnn_model_input_count(h.model, nullptr), PYCNN_ARGUMENT_ERROR,
               {"pycnn_model_input_count", "count is NULL"});
  check_failed(pycnn_model_input(h.model, 1, &info), PYCNN_ARGUMENT_ERROR,
               {"index is 1", "there are 1"});
  check_failed(pycnn_model_class_name(h.model, 3, &text), PYCNN_ARGUMENT_ERROR, {"index is 3"});

  float scores[3] = {};
  std::vector<float> image(36);
  pycnn_input in = {image.data(), 143};
  pycnn_output out = {scores, sizeof(scores)};
  check_failed(pycnn_program_run(h.program, &in, 1, &out, 1), PYCNN_ARGUMENT_ERROR,
               {"input 'x'", "143 bytes", "144"});
  in.bytes = 144;
  out.bytes = 8;
  check_failed(pycnn_program_run(h.program, &in, 1, &out, 1), PYCNN_ARGUMENT_ERROR,
               {"output 'output'", "8 bytes", "12"});
  out = {nullptr, 12};
  check_failed(pycnn_program_run(h.program, &in, 1, &out, 1), PYCNN_ARGUMENT_ERROR,
               {"output 'output'", "NULL"});
  check_failed(pycnn_program_run(h.program, nullptr, 1, &out, 1), PYCNN_ARGUMENT_ERROR,
               {"inputs is NULL"});
  check_failed(pycnn_program_run(h.program, &in, 2, &out, 1), PYCNN_ARGUMENT_ERROR,
               {"input_count is 2", "has 1"});

  const std::int64_t label = 0, no_class = 3;
  check_failed(pycnn_trainer_step(h.trainer, in, nullptr, 1, nullptr, nullptr),
               PYCNN_ARGUMENT_ERROR, {"labels is NULL"});
  check_failed(pycnn_trainer_step(h.trainer, in, &label, 0, nullptr, nullptr), PYCNN_ARGUMENT_ERROR,
               {"label_count is 0"});
  check_failed(pycnn_trainer_step(h.trainer, {image.data(), 10}, &label, 1, nullptr, nullptr),
               PYCNN_ARGUMENT_ERROR, {"images.bytes is 10", "144"});
  check_failed(pycnn_trainer_step(h.trainer, in, &no_class, 1, nullptr, nullptr), PYCNN_LABEL_ERROR,
               {"3"});
  CHECK(pycnn_last_errno() == 0);
}

TEST_CASE("C: options that were not set, or hold nonsense, are refused") {
  const TemporaryDirectory directory;
  Handles h;
  REQUIRE(pycnn_model_load(saved_model(directory).c_str(), &h.model) == PYCNN_OK);
  pycnn_compile_options options = {};
  check_failed(pycnn_program_compile(h.model, &options, &h.program), PYCNN_ARGUMENT_ERROR,
               {"pycnn_compile_options_init"});
  REQUIRE(pycnn_compile_options_init(&options, sizeof(options)) == PYCNN_OK);
  options.batch = 0;
  check_failed(pycnn_program_compile(h.model, &options, &h.program), PYCNN_ARGUMENT_ERROR,
               {"options->batch is 0"});
  options.batch = 1;
  options.images = 17;
  check_failed(pycnn_program_compile(h.model, &options, &h.program), PYCNN_ARGUMENT_ERROR,
               {"options->images is 17"});
  options.images = PYCNN_FLOAT32;
  options.device = nullptr;
  check_failed(pycnn_program_compile(h.model, &options, &h.program), PYCNN_ARGUMENT_ERROR,
               {"options->device is NULL"});
  options.device = "tpu";
  CHECK(pycnn_program_compile(h.model, &options, &h.program) != PYCNN_OK);
  options.device = "cpu";
  options.memory_limit_bytes = 10;
  check_failed(pycnn_program_compile(h.model, &options, &h.program), PYCNN_MEMORY_LIMIT_ERROR,
               {"the limit is 10"});
  CHECK(pycnn_last_wanted_bytes() > 10);
  pycnn_memory memory = {};
  CHECK(pycnn_plan_memory(h.model, &options, &memory) == PYCNN_OK);
  CHECK(memory.run_bytes > 10);
  CHECK(h.program == nullptr);

  // A caller that was compiled before the last field existed.
  const std::size_t older = offsetof(pycnn_compile_options, memory_limit_bytes);
  options.memory_limit_bytes = 10;
  REQUIRE(pycnn_compile_options_init(&options, older) == PYCNN_OK);
  CHECK(options.memory_limit_bytes == 10);
  CHECK(pycnn_program_compile(h.model, &options, &h.program) == PYCNN_OK);

  check_failed(pycnn_compile_options_init(&options, 8), PYCNN_ARGUMENT_ERROR,
               {"struct_size is 8", "sizeof(pycnn_compile_options)"});
  check_failed(pycnn_compile_options_init(&options, SIZE_MAX), PYCNN_ARGUMENT_ERROR,
               {"struct_size is 18446744073709551615"});

  pycnn_trainer_options training = {};
  check_failed(pycnn_trainer_options_init(&training, SIZE_MAX), PYCNN_ARGUMENT_ERROR,
               {"struct_size", "sizeof(pycnn_trainer_options)"});
  check_failed(pycnn_trainer_create(h.model, &training, &h.trainer), PYCNN_ARGUMENT_ERROR,
               {"pycnn_trainer_options_init"});
  REQUIRE(pycnn_trainer_options_init(&training, sizeof(training)) == PYCNN_OK);
  training.optimizer = 4;
  check_failed(pycnn_trainer_create(h.model, &training, &h.trainer), PYCNN_ARGUMENT_ERROR,
               {"options->optimizer is 4"});
  training.optimizer = PYCNN_SGD;
  training.frozen_count = 1;
  check_failed(pycnn_trainer_create(h.model, &training, &h.trainer), PYCNN_ARGUMENT_ERROR,
               {"options->frozen is NULL"});
  const char* const names[] = {"fc.bias", nullptr};
  training.frozen = names;
  training.frozen_count = 2;
  check_failed(pycnn_trainer_create(h.model, &training, &h.trainer), PYCNN_ARGUMENT_ERROR,
               {"options->frozen[1] is NULL"});
  CHECK(h.trainer == nullptr);
}

TEST_CASE("C: how numbers are multiplied is that of the C++ options, and older programs keep it") {
  const auto options_of = [](const pycnn_compile_options& given) {
    return c::to_compile_options(c::complete(&given, "test"), "test");
  };
  pycnn_compile_options options;
  REQUIRE(pycnn_compile_options_init(&options, sizeof(options)) == PYCNN_OK);
  CHECK(options_of(options).winograd == CompileOptions{}.winograd);
  CHECK(options_of(options).tf32 == CompileOptions{}.tf32);
  options.winograd = 0;
  options.tf32 = 1;
  CHECK(!options_of(options).winograd);
  CHECK(options_of(options).tf32);
  // A program whose struct ends before them, with anything behind it.
  std::memset(&options, 0xFF, sizeof(options));
  REQUIRE(pycnn_compile_options_init(&options, offsetof(pycnn_compile_options, winograd)) ==
          PYCNN_OK);
  options.winograd = 0;
  CHECK(options_of(options).winograd);
  CHECK(!options_of(options).tf32);
}

TEST_CASE("C: a convolution without Winograd has the bits of one in C++") {
  const TemporaryDirectory directory;
  Model model;
  const Symbol x = model.graph.input("x", {{1, 8, 8, 16}, DType::kFloat32});
  const Symbol weight = model.graph.parameter("w", {{16, 3, 3, 16}, DType::kFloat32});
  ops::Conv2d conv;
  conv.padding = {1, 1, 1, 1};
  model.graph.set_output("output", model.graph.add(conv, {x, weight}, "conv"));
  model.variables["w"] = random_tensor({16, 3, 3, 16}, 1);
  const std::string path = directory / "conv.safetensors";
  save_model(path, model);
  Handles h;
  REQUIRE(pycnn_model_load(path.c_str(), &h.model) == PYCNN_OK);
  const Tensor images = random_tensor({1, 8, 8, 16}, 2);
  for (const bool winograd : {true, false}) {
    pycnn_compile_options options;
    REQUIRE(pycnn_compile_options_init(&options, sizeof(options)) == PYCNN_OK);
    options.winograd = winograd ? 1 : 0;
    REQUIRE(pycnn_program_compile(h.model, &options, &h.program) == PYCNN_OK);
    std::vector<float> scores(8 * 8 * 16);
    const pycnn_input input = {images.raw(), images.bytes()};
    const pycnn_output output = {scores.data(), scores.size() * sizeof(float)};
    REQUIRE(pycnn_program_run(h.program, &input, 1, &output, 1) == PYCNN_OK);
    pycnn_program_free(std::exchange(h.program, nullptr));
    CompileOptions same;
    same.winograd = winograd;
    const Tensor expected =
        compile(model.graph, model.variables, same).run({{"x", images}}).at("output");
    CHECK(std::memcmp(expected.raw(), scores.data(), output.bytes) == 0);
  }
}

TEST_CASE("C: texts with a zero inside are refused rather than cut") {
  const TemporaryDirectory directory;
  const std::string path = directory / "zero.safetensors";
  Model model = small_model();
  model.metadata["class_names"] = R"(["a\u0000b", "a\u0000c", "d"])";
  model.metadata["note"] = std::string("x\0y", 3);
  save_model(path, model);
  Handles h;
  REQUIRE(pycnn_model_load(path.c_str(), &h.model) == PYCNN_OK);
  const char* text = nullptr;
  check_failed(pycnn_model_class_name(h.model, 0, &text), PYCNN_UNSUPPORTED_ERROR,
               {"pycnn_model_class_name", "'a'", "byte 1"});
  check_failed(pycnn_model_metadata(h.model, "note", &text), PYCNN_UNSUPPORTED_ERROR,
               {"pycnn_model_metadata", "'x'"});
  CHECK(text == nullptr);
  CHECK(pycnn_model_class_name(h.model, 2, &text) == PYCNN_OK);
  CHECK(text == std::string("d"));
}

TEST_CASE("C: a model of bytes is that of the file") {
  const TemporaryDirectory directory;
  std::ifstream stream(saved_model(directory), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
  pycnn_model* model = nullptr;
  check_failed(pycnn_model_load_memory(nullptr, 9, &model), PYCNN_ARGUMENT_ERROR,
               {"pycnn_model_load_memory", "data is NULL"});
  check_failed(pycnn_model_load_memory(bytes.data(), bytes.size(), nullptr), PYCNN_ARGUMENT_ERROR,
               {"model is NULL"});
  for (const std::size_t length : {std::size_t{0}, std::size_t{7}, bytes.size() - 1}) {
    check_failed(pycnn_model_load_memory(bytes.data(), length, &model), PYCNN_FORMAT_ERROR,
                 {"load 'memory'"});
  }
  CHECK(model == nullptr);
  REQUIRE(pycnn_model_load_memory(bytes.data(), bytes.size(), &model) == PYCNN_OK);
  const std::string again = directory / "again.safetensors";
  CHECK(pycnn_model_save(model, again.c_str()) == PYCNN_OK);
  pycnn_model_free(model);
  const Model expected = without_training_state(parse_model(std::as_bytes(std::span(bytes)), "x"));
  CHECK(test::same_bits(load_model(again).variables, expected.variables));
}

TEST_CASE("C: errors are those of the thread that made them, and files tell errno") {
  pycnn_model* model = nullptr;
  check_failed(pycnn_model_load("/nowhere/model.safetensors", &model), PYCNN_FILE_ERROR,
               {"/nowhere/model.safetensors"});
  CHECK(pycnn_last_errno() == ENOENT);
  std::string elsewhere = "unset";
  std::thread([&] { elsewhere = pycnn_last_error(); }).join();
  CHECK(elsewhere.empty());
  CHECK(std::string(pycnn_last_error()).find("nowhere") != std::string::npos);

  const TemporaryDirectory directory;
  const std::string bad = directory / "bad.safetensors";
  write_checkpoint(bad, {{{"w", Tensor({{2}})}}, {}});
  check_failed(pycnn_model_load(bad.c_str(), &model), PYCNN_FORMAT_ERROR, {"pycnn.format"});
  CHECK(pycnn_last_errno() == 0);
  CHECK(model == nullptr);

  // A text longer than what is kept is cut between characters.
  std::string path = "/nowhere/";
  while (path.size() < 6000) path += "\xc3\xa4";
  CHECK(pycnn_model_load(path.c_str(), &model) == PYCNN_FILE_ERROR);
  const std::string text = pycnn_last_error();
  CHECK(text.size() >= 4090);
  CHECK(text.size() <= 4095);
  CHECK(static_cast<unsigned char>(text.back()) == 0xA4);
}
