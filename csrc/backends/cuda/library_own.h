#pragma once
#include <memory>
#include <string>
#include <vector>

#include "backends/cuda/library_kernel.h"

// With $PYCNN_CUDA_REWRITES=own our own kernels in a library's place: what rewrites a convolution
// for one, and holds its result against our own kernel's, runs where there is none, or where none
// is to be watched (compute-sanitizer).
namespace pycnn::cuda {

struct OwnLibrary {
  struct Link {
    const void* functions = nullptr;
    std::string problem;
    bool is_loaded = false;
  };
  struct Plan {
    ConvTask task;
    bool tf32;
    std::int64_t scratch_bytes() const { return own_apart_scratch_bytes(task, tf32); }
    std::int64_t workspace_bytes() const { return 0; }
  };
  static constexpr const char* kName = "our own kernel";
  static constexpr const char* kNoPlan = "there is no other convolution for it";
  static constexpr const char* kNotGiven = "our own kernel could not be given work";
  template <class OpType>
  static const char* variant(const Plan&) {
    return kept_text(std::string(OpType::kName) + ".cuda");
  }

  static const void* load(std::string&) {
    static const char there = 0;
    return &there;
  }
  static bool open(Link&) { return true; }
  static std::string left_out(const Link&, const LibraryOptions&) { return {}; }
  static std::string key(const Link&, const ConvTask& task, const LibraryOptions& options) {
    return "own; conv2d" + task_numbers(task, options.tf32);
  }
  static std::vector<Offer<Plan>> offers(const Link&, const ConvTask& task,
                                         const LibraryOptions& options) {
    if (task.shape.output_step != 0) return {};
    const Plan plan{task, options.tf32};
    return {{[plan](int) { return std::make_shared<Plan>(plan); }}};
  }
  static std::string text(const Plan&) { return {}; }  // nothing is kept of it
  static std::shared_ptr<Plan> read(const Link&, const ConvTask&, const LibraryOptions&,
                                    const std::string&) {
    return nullptr;
  }
  static void run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch) {
    run_own_apart(queue, plan.task, plan.tf32, call, scratch);
  }
  static Image image(const Plan& plan) { return plan.task.image; }
  static bool packs_bias(const Plan&) { return false; }
  static void forget_stream(const Link&) {}
};

}  // namespace pycnn::cuda
