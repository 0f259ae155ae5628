#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/conv2d_call.h"
#include "backends/cuda/cublaslt_library.h"
#include "backends/cuda/library_choice.h"

// Dense layers by cuBLASLt, and convolutions that are dense layers of all pixels (is_product): a
// library as library_kernel.h wants it.
namespace pycnn::cuda {

struct CublasLt {
  struct Link {
    const cublaslt::Functions* functions = nullptr;
    cublaslt::Handle handle = nullptr;  // may be used by several threads at once
    std::string problem;
    bool is_loaded = false;
  };
  // What a kernel needs besides its views: lives in Kernel::state.
  struct Plan {
    const Link& link;
    ConvTask task;      // of a dense layer
    bool joined, tf32;  // joined: the epilogue is the library's, the residual included
    cublaslt::Algorithm algorithm;
    std::int64_t workspace, bias, partials, bytes;  // places in scratch

    std::int64_t scratch_bytes() const { return bytes; }
    std::int64_t workspace_bytes() const { return workspace; }
  };
  static constexpr const char* kName = "cuBLASLt";
  static constexpr const char* kNoPlan = "cuBLASLt has no algorithm for it";
  static constexpr const char* kNotGiven = "cuBLASLt could not be given work";
  template <class OpType>
  static const char* variant(const Plan&) {
    return kProductLibrary<OpType> != nullptr ? kProductLibrary<OpType> : kLibrary<OpType>;
  }

  static const cublaslt::Functions* load(std::string& problem);
  static bool open(Link& link);
  static std::string left_out(const Link&, const LibraryOptions&) { return {}; }
  static std::vector<std::string> missing(const Link& link, const LibraryOptions& options);
  static std::string key(const Link& link, const ConvTask& task, const LibraryOptions& options);
  static std::vector<Offer<Plan>> offers(const Link& link, const ConvTask& task,
                                         const LibraryOptions& options);
  static std::string text(const Plan& plan);
  static std::shared_ptr<Plan> read(const Link& link, const ConvTask& task,
                                    const LibraryOptions& options, const std::string& text);
  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch);
  static Image image(const Plan& plan) { return plan.task.image; }
  static bool packs_bias(const Plan& plan) {
    return plan.joined && plan.task.bias && is_narrow(plan.task.image);
  }
  static void forget_stream(const Link&) {}
};

}  // namespace pycnn::cuda
