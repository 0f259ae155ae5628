#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backends/cuda/conv2d_call.h"
#include "backends/cuda/library_choice.h"
#include "backends/cuda/plan_cache.h"

// Convolutions and dense layers by a library of NVIDIA's. A plan is chosen while compiling: each
// one that the library offers is timed, and our own kernel beside them; the choice is kept
// (plan_cache.h). With $PYCNN_CUDA_DETERMINISTIC=1 nothing is timed and the first one taken.
//
// A Library says what differs:
//   kName, kNoPlan, kNotGiven     its name; why there is no plan, that work could not be given
//   Link                          `functions` and handles of one device; `problem`: why there are
//   none load(problem)                 the functions, or null open(link)                    makes
//   the handles, on the current device Plan                          with `link` and
//   scratch_bytes() key(link, task, options)      what a choice depends on besides the GPU
//   plans(link, task, options)    best first; only the first with options.deterministic
//   text(plan), read(link, task, options, text)    of the plan cache; empty or null: there is none
//   run(queue, plan, call, scratch, is_choice)
//   end_choice(link)              before the queue ends that choices ran on
namespace pycnn::cuda {

// Never destroyed, since kernels use it until the process ends.
template <class Library>
const typename Library::Link& link_of(int device) {
  using Link = typename Library::Link;
  static std::mutex mutex;
  static auto* const links = new std::map<int, Link>;
  const std::lock_guard lock(mutex);
  const auto [entry, is_new] = links->try_emplace(device);
  Link& link = entry->second;
  if (!is_new) return link;
  link.functions = Library::load(link.problem);
  if (link.functions == nullptr) return link;
  if (cudaSetDevice(device) == cudaSuccess && Library::open(link)) return link;
  (void)cudaGetLastError();
  link.functions = nullptr;
  link.problem = std::string(Library::kName) + " cannot use the device";
  return link;
}

// The tensors of a call, for timing; there is none of them when there is not memory enough.
inline std::optional<ConvCall> timed_call(DeviceTimer& timer, const ConvTask& task) {
  const ConvShape& s = task.shape;
  const std::int64_t item = is_narrow(task.image) ? 2 : 4;
  bool there = true;
  const auto memory = [&](std::int64_t bytes) {
    void* const block = timer.allocate(static_cast<std::size_t>(bytes));
    there = there && block != nullptr;
    return block;
  };
  const std::int64_t outputs = s.pixels() * s.out_channels * item;
  ConvCall call{};
  call.input = memory(std::int64_t{s.images} * s.height * s.width * s.in_channels * item);
  call.output = memory(outputs);
  auto* const weight = static_cast<float*>(memory(s.weights() * 4));
  call.weight = call.grad_weight = weight;
  if (task.bias) {
    auto* const bias = static_cast<float*>(memory(std::int64_t{s.out_channels} * 4));
    call.grad_bias = bias;
    call.epilogue.bias = bias;
  }
  if (task.residual) call.epilogue.residual = memory(outputs);
  call.epilogue.curve = task.curve;
  return there ? std::optional(call) : std::nullopt;
}

// The fastest of the plans; null: our own kernel is. None: they could not be timed.
template <class Library, class Plan = typename Library::Plan>
std::optional<std::shared_ptr<Plan>> fastest_plan(int device, const typename Library::Link& link,
                                                  const ConvTask& task, bool tf32,
                                                  const std::vector<std::shared_ptr<Plan>>& plans) {
  std::int64_t scratch_bytes = own_scratch_bytes(task, tf32);
  for (const auto& plan : plans) scratch_bytes = std::max(scratch_bytes, plan->scratch_bytes());
  DeviceTimer timer(device);
  if (!timer.works()) return std::nullopt;
  const std::optional<ConvCall> call = timed_call(timer, task);
  auto* const scratch =
      static_cast<std::byte*>(timer.allocate(static_cast<std::size_t>(scratch_bytes)));
  if (!call || scratch == nullptr) return std::nullopt;
  std::vector<Work> works;
  for (const auto& plan : plans)
    works.push_back([&, plan] { Library::run(timer.queue(), *plan, *call, scratch, true); });
  works.push_back([&] { run_own(timer.queue(), task, tf32, *call, scratch); });
  const int best = fastest_of(timer, works);
  Library::end_choice(link);
  if (best < 0) return std::nullopt;
  const auto index = static_cast<std::size_t>(best);
  return index < plans.size() ? plans[index] : nullptr;
}

// Null: our own kernel is to be used; `why` says the reason.
template <class Library, class Plan = typename Library::Plan>
std::shared_ptr<Plan> find_plan(int device, const ConvTask& task, std::string& why) {
  const auto& link = link_of<Library>(device);
  if (link.functions == nullptr) {
    why = link.problem;
    return nullptr;
  }
  if (cudaSetDevice(device) != cudaSuccess) {
    (void)cudaGetLastError();
    why = std::string(Library::kName) + " cannot use the device";
    return nullptr;
  }
  const std::lock_guard lock(choice_mutex());  // under which handles for choices are used, too
  const LibraryOptions options = library_options();
  const std::string key = "pycnn " PYCNN_VERSION "; " + std::string(device_identity(device)) +
                          "; " + Library::key(link, task, options);
  if (!options.deterministic) {
    if (const std::optional<std::string> known = plan_cache().find(key)) {
      if (*known == kOwnKernel) {
        why = kOwnWasFaster;
        return nullptr;
      }
      if (auto plan = Library::read(link, task, options, *known)) return plan;
    }
  }
  const std::vector<std::shared_ptr<Plan>> plans = Library::plans(link, task, options);
  if (plans.empty()) {
    why = Library::kNoPlan;
    return nullptr;
  }
  if (options.deterministic) return plans.front();
  const std::optional<std::shared_ptr<Plan>> best =
      fastest_plan<Library>(device, link, task, options.tf32, plans);
  if (!best) return plans.front();
  // A plan without a text is chosen anew in the next process.
  const std::string text = *best == nullptr ? kOwnKernel : Library::text(**best);
  if (!text.empty()) plan_cache().put(key, text);
  if (*best == nullptr) why = kOwnWasFaster;
  return *best;
}

template <class Library, class OpType>
void run_library(const KernelArgs& args) noexcept {
  try {
    const void* const state = static_cast<const DeviceKernelArgs&>(args).state;
    Library::run(queue_of(args), *static_cast<const typename Library::Plan*>(state),
                 call_of<OpType>(args), args.scratch, false);
  } catch (...) {
    note_library(queue_of(args), Library::kNotGiven);
  }
}

template <class Library, class OpType>
Choice choose_library(int device, const OpType& op, const Problem& problem) {
  ConvTask task = task_of(op, problem);
  task.winograd = problem.winograd;
  if (task.shape.pixels() == 0 || task.shape.weights() == 0) return refuse("a tensor is empty");
  std::string why;
  std::shared_ptr<typename Library::Plan> plan;
  try {
    plan = find_plan<Library>(device, task, why);
  } catch (const std::exception& error) {
    why = error.what();
  }
  if (plan == nullptr) return refuse(kept_text(why));
  Choice choice{run_library<Library, OpType>, scratch(plan->scratch_bytes())};
  choice.state = std::move(plan);
  return choice;
}

}  // namespace pycnn::cuda
