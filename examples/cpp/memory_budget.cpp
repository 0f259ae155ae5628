// Finds the largest batches that a model can run and train with in a given memory.
//
//   memory_budget MODEL.safetensors BYTES
//
// Nothing is run to find out: pycnn plans a program's memory before it takes any. The limit is then
// given to the compiler, which refuses what would exceed it. Prints the batches and their plans.
#include <pycnn/pycnn.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

namespace {

constexpr std::int64_t kLargestBatch = 4096;

std::size_t of_a_run(const pycnn::MemoryReport& memory) {
  return memory.arena_bytes + memory.scratch_bytes;
}

// The largest batch up to kLargestBatch whose plan fits, 0 when none does.
std::int64_t largest_batch(std::size_t budget,
                           const std::function<std::size_t(std::int64_t)>& bytes_of) {
  std::int64_t fits = 0, exceeds = kLargestBatch + 1;
  while (exceeds - fits > 1) {
    const std::int64_t middle = fits == 0 ? 1 : std::min(2 * fits, (fits + exceeds) / 2);
    (bytes_of(middle) <= budget ? fits : exceeds) = middle;
  }
  return fits;
}

void run(const char* path, std::size_t budget) {
  pycnn::Model model = pycnn::load_model(path);
  const auto inference_bytes = [&](std::int64_t batch) {
    return of_a_run(pycnn::plan_memory(pycnn::with_batch(model.graph, batch)).memory);
  };
  const std::int64_t batch = largest_batch(budget, inference_bytes);
  pycnn::CompileOptions options;
  options.memory_limit_bytes = budget;
  std::printf("inference: batch %lld\n", static_cast<long long>(batch));
  if (batch > 0) {
    const pycnn::Program program =
        pycnn::compile(pycnn::with_batch(model.graph, batch), model.variables, options);
    std::printf("  a run takes %zu of %zu bytes\n", of_a_run(program.memory()), budget);
  }
  try {
    pycnn::compile(pycnn::with_batch(model.graph, batch + 1), model.variables, options);
    std::printf("  batch %lld fits as well\n", static_cast<long long>(batch + 1));
  } catch (const pycnn::MemoryLimitError& error) {
    std::printf("  batch %lld was refused: it wants %zu bytes\n", static_cast<long long>(batch + 1),
                error.wanted_bytes());
  }

  // Training: as it is, and computing most of the forward pass twice to keep less of it.
  for (const pycnn::Recompute recompute : {pycnn::Recompute::kCheap, pycnn::Recompute::kSqrt}) {
    pycnn::TrainerOptions training;
    training.compile.recompute = recompute;
    training.compile.memory_limit_bytes = budget;
    std::int64_t largest = 0;
    for (std::int64_t b = 1; b <= kLargestBatch; b *= 2) {
      training.batch_size = b;
      try {
        const pycnn::Trainer trainer(model, training);
        largest = b;
      } catch (const pycnn::MemoryLimitError&) {
        break;
      }
    }
    std::printf("training, recompute %s: batch %lld\n", pycnn::recompute_name(recompute),
                static_cast<long long>(largest));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long long budget = argc == 3 ? std::atoll(argv[2]) : 0;
  if (budget < 1) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors BYTES\n", argv[0]);
    return 2;
  }
  try {
    run(argv[1], static_cast<std::size_t>(budget));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "memory_budget: %s\n", error.what());
    return 1;
  }
}
