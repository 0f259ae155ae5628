#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "network/small_model.h"
#include "pycnn/pycnn_c.h"
#include "support/allocations.h"
#include "support/temporary_directory.h"

// What the C interface takes from the heap, and what it says when it gets nothing.
#if PYCNN_COUNTS_ALLOCATIONS
namespace pycnn::test {
namespace {

// Calls `work` with the first, second, ... allocation failing, until none does; `done` undoes it.
void fail_each(
    const std::function<pycnn_status()>& work, const std::function<void()>& done = [] {}) {
  int failures = 0;
  for (std::int64_t n = 1;; n += 1 + n / 20) {
    CAPTURE(n);
    pycnn_status status = PYCNN_OK;
    bool happened = false;
    {
      const testing::FailingAllocation failing(n);
      status = work();
      happened = failing.happened();
    }
    if (!happened) {
      CHECK(status == PYCNN_OK);
      done();
      break;
    }
    INFO(std::string(pycnn_last_error()));
    CHECK(status == PYCNN_MEMORY_LIMIT_ERROR);
    ++failures;
  }
  CHECK(failures > 5);
}

struct Saved {
  Saved() { save_model(path, small_model()); }
  TemporaryDirectory directory;
  std::string path = directory / "model.safetensors";
};

}  // namespace

TEST_CASE("C: no memory is a status, wherever it runs out") {
  const Saved saved;
  pycnn_model *model = nullptr, *other = nullptr;
  pycnn_program* program = nullptr;
  pycnn_trainer* trainer = nullptr;
  fail_each([&] { return pycnn_model_load(saved.path.c_str(), &model); });
  REQUIRE(model != nullptr);
  const std::vector<std::byte> bytes = serialize_model(small_model());
  fail_each([&] { return pycnn_model_load_memory(bytes.data(), bytes.size(), &other); },
            [&] { pycnn_model_free(other); });
  fail_each([&] { return pycnn_model_replace_head(model, 5, 0, &other); },
            [&] { pycnn_model_free(other); });
  fail_each([&] { return pycnn_program_compile(model, nullptr, &program); });
  fail_each([&] { return pycnn_trainer_create(model, nullptr, &trainer); });
  REQUIRE(program != nullptr);
  REQUIRE(trainer != nullptr);
  const std::vector<float> image(36);
  const std::int64_t label = 1;
  fail_each([&] {
    return pycnn_trainer_step(trainer, {image.data(), 144}, &label, 1, nullptr, nullptr);
  });
  std::int64_t steps = 0;
  CHECK(pycnn_trainer_steps(trainer, &steps) == PYCNN_OK);
  CHECK(steps == 1);
  const std::string path = saved.directory / "trained.safetensors";
  fail_each([&] { return pycnn_trainer_save(trainer, path.c_str()); });
  pycnn_trainer_free(trainer);
  pycnn_program_free(program);
  pycnn_model_free(model);
}

TEST_CASE("C: after its first run a program takes nothing from the heap") {
  const Saved saved;
  pycnn_model* model = nullptr;
  pycnn_program* program = nullptr;
  REQUIRE(pycnn_model_load(saved.path.c_str(), &model) == PYCNN_OK);
  REQUIRE(pycnn_program_compile(model, nullptr, &program) == PYCNN_OK);
  const std::vector<float> image(36);
  float scores[3] = {};
  const pycnn_input in = {image.data(), 144};
  const pycnn_output out = {scores, sizeof(scores)};
  CHECK(pycnn_program_run(program, &in, 1, &out, 1) == PYCNN_OK);
  const std::int64_t before = testing::allocations();
  for (int i = 0; i < 10; ++i) CHECK(pycnn_program_run(program, &in, 1, &out, 1) == PYCNN_OK);
  CHECK(testing::allocations() == before);
  pycnn_program_free(program);
  pycnn_model_free(model);
}

}  // namespace pycnn::test
#endif
