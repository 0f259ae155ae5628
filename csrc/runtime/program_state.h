#pragma once
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "core/fork.h"
#include "runtime/device_program.h"
#include "runtime/label_checks.h"
#include "runtime/profiler.h"
#include "runtime/program_plan.h"
#include "runtime/thread_tuner.h"
#include "runtime/variable_locks.h"

namespace pycnn {

// Memory of one run and the arguments of its steps. Pointers into the caller's arrays are filled in
// at each run, all else once.
struct Workspace {
  Tensor memory;  // arena, then scratch
  std::vector<TensorView> views;
  std::vector<KernelArgs> calls;
  std::vector<std::int64_t> step_ns;
  bool tuned = false;

  std::byte* arena = nullptr;
  std::byte* scratch = nullptr;
};

struct Program::State {
  explicit State(ProgramPlan program_plan);
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void run(std::span<const void* const> inputs, std::span<void* const> outputs);
  // Null: it was run.
  std::shared_ptr<DeviceRun> begin(std::span<const void* const> inputs,
                                   std::span<void* const> outputs, bool late);
  void collect(DeviceRun& run);
  bool overlaps() const noexcept;
  std::string explain();
  std::size_t lane_scratch_bytes() const;
  std::string recording() const;

  const ProgramPlan plan;
  Profiler profiler;

 private:
  // A view that points into an array of the caller.
  struct Patch {
    std::size_t view;
    bool output;
    std::size_t index;
    std::size_t offset;
  };
  class Lease;

  void check(std::span<const void* const> inputs, std::span<void* const> outputs) const;
  void check_arrays(std::span<const void* const> inputs, std::span<void* const> outputs) const;
  TensorView view_of(const Operand& operand, std::byte* arena) const;
  void place_plans();
  std::vector<KernelArgs> make_calls(const std::vector<Step>& steps, std::vector<TensorView>& views,
                                     std::byte* arena, std::byte* scratch) const;
  std::unique_ptr<Workspace> make_workspace() const;
  bool is_prepared() const noexcept;
  void prepare(std::byte* scratch) noexcept;
  void run_steps(Workspace& workspace);
  void mark_assigned();
  void renew_after_fork() noexcept;

  std::vector<Tensor> variables_;
  const VariableLocks locks_;
  const LabelChecks label_checks_;
  const std::unique_ptr<DeviceProgram> device_;  // null: on the CPU, by all that follows
  std::vector<Patch> patches_;
  Tensor plan_memory_;
  std::vector<const std::byte*> prepare_plans_;
  std::vector<const std::byte*> run_plans_;

  // A run holds it shared while it reads what was prepared; preparing anew takes it alone.
  std::shared_mutex prepared_mutex_;
  Tensor prepared_;
  std::vector<TensorView> prepare_views_;
  std::vector<KernelArgs> prepare_calls_;
  std::vector<std::int64_t> prepare_ns_;
  std::vector<std::uint64_t> prepared_versions_;  // of plan.prepare_reads
  bool prepared_once_ = false;

  std::mutex idle_mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
  std::size_t workspaces_ = 0;
  ThreadTuner tuner_;
  const ForkHooks fork_hooks_;  // last: only a whole program is looked at
};

}  // namespace pycnn
