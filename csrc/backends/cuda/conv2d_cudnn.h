#pragma once
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/cudnn_graph.h"
#include "backends/cuda/dense_cublaslt.h"
#include "backends/cuda/library_either.h"
#include "backends/cuda/library_kernel.h"

// Convolutions by cuDNN: a library as library_kernel.h wants it, whose configurations keep the
// rules of cudnn_graph.h. Those that are a product of two matrices may be cuBLASLt's, too.
namespace pycnn::cuda {

struct Cudnn {
  // A handle is for one thread at a time.
  struct Link {
    const cudnn::Functions* functions = nullptr;
    std::string problem;     // why there are no functions
    bool is_loaded = false;  // the library, which there are none of on the device all the same
    int device = 0;
    // Executes plans, those that are timed, too. A program may run while another one is compiled.
    cudnn::Handle for_runs = nullptr;
    mutable std::mutex running;
    mutable cudaStream_t stream = nullptr;  // that it was given last
    // Make plans, under choice_mutex; by thread, null until it is wanted.
    mutable std::array<cudnn::Handle, kMostBuilders> for_plans = {};
  };
  // Where things lie in a kernel's scratch. Narrow weights that are read are packed (packed_bytes).
  struct Layout {
    std::int64_t workspace = 0, weight = 0, bias = 0, partials = 0, bytes = 0;
  };

  // What a kernel needs besides its views: lives in Kernel::state.
  struct Plan {
    const Link& link;
    cudnn::ConvProblem problem;  // with what the engine joins
    cudnn::Descriptor plan;
    Layout layout;
    bool zeroes = false;  // the sums, which its engine adds to

    std::int64_t scratch_bytes() const { return layout.bytes; }
    std::int64_t workspace_bytes() const { return layout.weight; }
  };
  static constexpr const char* kName = "cuDNN";
  static constexpr const char* kNoPlan = "cuDNN has no engine for it";
  static constexpr const char* kNotGiven = "cuDNN could not be given work";
  template <class OpType>
  static const char* variant(const Plan&) {
    return kLibrary<OpType>;
  }

  static const cudnn::Functions* load(std::string& problem) { return load_cudnn(problem); }
  static bool open(Link& link);
  static std::string left_out(const Link& link, const LibraryOptions& options);
  static std::vector<std::string> missing(const Link& link, const LibraryOptions& options);
  static std::string key(const Link& link, const ConvTask& task, const LibraryOptions& options);
  // Those that join the epilogue first.
  static std::vector<Offer<Plan>> offers(const Link& link, const ConvTask& task,
                                         const LibraryOptions& options);
  static bool measures(const Plan& plan) { return plan.problem.measure != MeasureKind::kNothing; }
  static void zero_first(Plan& plan) { plan.zeroes = true; }
  // The first character tells whether the epilogue is joined, or the result measured and the sums
  // are zeroed before; a capital, that signs are read.
  static std::string text(const Plan& plan);
  static std::shared_ptr<Plan> read(const Link& link, const ConvTask& task, const LibraryOptions&,
                                    const std::string& text);
  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch);
  static Image image(const Plan& plan) { return plan.problem.image; }
  static bool packs_bias(const Plan& plan) {
    return plan.problem.bias && is_narrow(plan.problem.image);
  }
  static bool leaves_narrow(const Plan& plan) {
    return plan.problem.direction == Direction::kGradWeight && is_narrow(plan.problem.image);
  }
  static void forget_stream(const Link& link);
};

// Of the calling thread, whose number is that of in_threads.
cudnn::Target target_of(const Cudnn::Link& link, int thread);
cudnn::ConvProblem plain_problem(const ConvTask& task);
// With what of the epilogue engines can join.
cudnn::ConvProblem joined_problem(const ConvTask& task);
// With all that is measured of the result; none: engines cannot, or their vectors of channels would
// not begin with one of 16 bytes.
std::optional<cudnn::ConvProblem> measuring_problem(const ConvTask& task);

// The engines for a problem. Each thread asks anew: a configuration belongs to the handle of its
// graph.
class CudnnEngines {
 public:
  CudnnEngines(const Cudnn::Link& link, const cudnn::ConvProblem& problem,
               const cudnn::EngineRules& rules)
      : link_(link), problem_(problem), rules_(rules) {}

  // Throws cudnn::Error: no engine knows the problem.
  const std::vector<cudnn::Candidate>& of(int thread);
  // The plan of the engine that is at that place, for whoever asks. Null: it does not work.
  std::shared_ptr<Cudnn::Plan> plan(std::size_t place, std::int64_t engine, bool has_bias,
                                    int thread);

 private:
  struct Asked {
    Asked(const cudnn::Functions& f, const cudnn::ConvProblem& problem, const cudnn::Target& target)
        : graph(f, problem, target) {}
    cudnn::ConvGraph graph;
    std::vector<cudnn::Candidate> candidates;
  };
  const Cudnn::Link& link_;
  const cudnn::ConvProblem problem_;
  const cudnn::EngineRules rules_;
  std::array<std::unique_ptr<Asked>, kMostBuilders> asked_;
};

// For convolutions that cuBLASLt can compute, too.
struct CudnnOrCublasLt : Either<Cudnn, CublasLt> {
  static constexpr const char* kName = "cuDNN, or cuBLASLt,";
  static constexpr const char* kNoPlan = "neither cuDNN nor cuBLASLt has a plan for it";
  static constexpr const char* kNotGiven = "a library could not be given work";
};

}  // namespace pycnn::cuda
