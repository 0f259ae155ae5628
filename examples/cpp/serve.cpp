// Answers requests from many threads with one model.
//
//   serve MODEL.safetensors [THREADS [RUNS]]
//
// Each of THREADS threads (8) runs the network RUNS times (1000), as the handlers of a server
// would. They share one Program: weights are in memory once, and each thread that runs has a
// working space of its own. Every answer is compared with that of a single thread, bit by bit, and
// the resident memory is looked at after each thread's first runs and at the end. Prints what it
// saw; ends with 1 when an answer differed.
#include <pycnn/pycnn.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <latch>
#include <random>
#include <thread>

namespace {

long resident_kib() {
  std::ifstream file("/proc/self/statm");
  long total = 0, resident = 0;
  file >> total >> resident;
  return resident * (::sysconf(_SC_PAGESIZE) / 1024);
}

constexpr int kWarmUp = 100;
constexpr std::size_t kRequests = 16;

int run(const char* path, int threads, long runs) {
  pycnn::Model model = pycnn::load_model(path);
  const pycnn::Graph graph = pycnn::with_batch(model.graph, 1);
  const pycnn::TensorSpec image = pycnn::image_input(graph).second;
  pycnn::CompileOptions options;
  options.threads = 1;  // the requests are the parallelism
  const pycnn::Program program = pycnn::compile(graph, model.variables, options);
  const auto output_bytes = pycnn::byte_size(program.outputs()[0].second);

  // Some requests, and what one thread answers.
  std::mt19937 random(0);
  std::uniform_real_distribution<float> pixel(0.0f, 1.0f);
  std::vector<std::vector<float>> requests(kRequests);
  std::vector<std::vector<std::byte>> answers(kRequests, std::vector<std::byte>(output_bytes));
  for (std::size_t i = 0; i < kRequests; ++i) {
    requests[i].resize(static_cast<std::size_t>(pycnn::element_count(image.shape)));
    for (float& value : requests[i]) value = pixel(random);
    const void* inputs[] = {requests[i].data()};
    void* outputs[] = {answers[i].data()};
    program.run(inputs, outputs);
  }

  std::atomic<long> different{0}, failed{0};
  std::latch ready(threads), warm(threads + 1), go(1), done(threads), leave(1);
  const auto serve = [&](std::size_t worker) {
    std::vector<std::byte> answer(output_bytes);
    const auto answer_one = [&](long i) {
      const std::size_t request = (worker + static_cast<std::size_t>(i)) % kRequests;
      const void* inputs[] = {requests[request].data()};
      void* outputs[] = {answer.data()};
      try {
        program.run(inputs, outputs);
      } catch (const pycnn::Error&) {
        ++failed;
      }
      if (std::memcmp(answer.data(), answers[request].data(), output_bytes) != 0) ++different;
    };
    ready.arrive_and_wait();
    for (long i = 0; i < kWarmUp; ++i) answer_one(i);
    warm.arrive_and_wait();
    go.wait();
    for (long i = 0; i < runs; ++i) answer_one(i);
    // Stays until memory was looked at, so that no thread's own stack is missing from it.
    done.count_down();
    leave.wait();
  };
  std::vector<std::jthread> workers;
  for (int t = 0; t < threads; ++t) workers.emplace_back(serve, static_cast<std::size_t>(t));
  warm.arrive_and_wait();
  const long before = resident_kib();
  const auto start = std::chrono::steady_clock::now();
  go.count_down();
  done.wait();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const long after = resident_kib();
  leave.count_down();
  workers.clear();

  std::printf("threads %d runs %ld different %ld failed %ld\n", threads, runs * threads,
              different.load(), failed.load());
  std::printf("resident KiB: %ld after warm-up, %ld at the end\n", before, after);
  std::printf("working space of a run: %zu KiB; %.0f runs/s\n",
              (program.memory().arena_bytes + program.memory().scratch_bytes) / 1024,
              static_cast<double>(runs) * threads / seconds);
  return different == 0 && failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 2 ? std::atoi(argv[2]) : 8;
  const long runs = argc > 3 ? std::atol(argv[3]) : 1000;
  if (argc < 2 || argc > 4 || threads < 1 || threads > 1024 || runs < 1) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors [THREADS [RUNS]]\n", argv[0]);
    return 2;
  }
  try {
    return run(argv[1], threads, runs);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "serve: %s\n", error.what());
    return 1;
  }
}
