#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "backends/device_module.h"
#include "runtime/label_checks.h"
#include "runtime/prepare_groups.h"
#include "runtime/profiler.h"
#include "runtime/program_plan.h"

// A program on a device with memory of its own.
//
// Everything has a fixed place there: one arena, the inputs, the outputs, a copy of each variable.
// So a run is the same list of launches every time; it is recorded once and replayed as one. What a
// run assigns stays on the device until somebody reads it (core/residence.h).
//
// Runs overlap with what the host does. Each has a slot: staging memory, into which its inputs are
// copied at once, and from which its results are fetched later. The inputs of a run, unless they
// are small, go to the device on a lane of their own while the run before it is computed, and the
// host waits for a device only where it wants results or all slots are taken. Small results
// that are wanted late, such as losses, are kept there row by row, and some are fetched at once.
namespace pycnn {

class DeviceMemory;
class DeviceRecorder;
class DeviceSession;
class DeviceVariable;
class EventHolder;

// A run from when it is given to the device until the caller has its results.
struct DeviceRun {
  std::vector<void*> outputs;  // the caller's arrays
  int slot = -1;               // in which it is; -1: in none any more
  std::vector<std::byte> results;
  std::uint64_t kept = 0;  // among those whose results stay on the device, from 1; 0: it is none
  std::uint64_t failures = 0;  // of the session, when it was given
  bool is_collected = false;
};

class DeviceProgram {
 public:
  // Throws DeviceError, or MemoryLimitError when the device has not enough memory left.
  DeviceProgram(const ProgramPlan& plan, const LabelChecks& checks);
  ~DeviceProgram();
  DeviceProgram(const DeviceProgram&) = delete;
  DeviceProgram& operator=(const DeviceProgram&) = delete;

  // The caller holds the variables' locks and has checked the arrays and the labels among them.
  // Throws LabelError for labels that the program computes, and DeviceError. Nothing is assigned
  // then, unless the device failed after others had assigned there: what it was to assign is lost.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, Profiler& profiler);

  // The same in two parts. Nothing of the inputs is read after `begin`.
  std::shared_ptr<DeviceRun> begin(std::span<const void* const> inputs,
                                   std::span<void* const> outputs, bool late, Profiler& profiler);
  void collect(DeviceRun& run);

  // What inputs and outputs take there and in memory of the host, at most: in all slots.
  static std::size_t transfer_bytes(const ProgramPlan& plan);
  static std::size_t staging_bytes(const ProgramPlan& plan);
  // What lanes beside the main one take for scratch, as soon as there are any.
  std::size_t lane_scratch_bytes() const;
  // Program::recording.
  std::string recording() const;

 private:
  struct Range {  // of steps
    std::size_t begin;
    std::size_t end;
  };
  struct Slot;
  struct KeptResults;

  std::byte* address_of(const Place& place) const;
  void place_kernel_plans();
  std::vector<DeviceKernelArgs> make_calls(const std::vector<Step>& steps,
                                           std::vector<TensorView>& views);
  void launch_step(const Step& step, const DeviceKernelArgs& call);
  void launch(const std::vector<Step>& steps, const std::vector<DeviceKernelArgs>& calls,
              Range range);
  bool tells_time(std::size_t events);
  void launch_timed(const std::vector<Step>& steps, const std::vector<DeviceKernelArgs>& calls,
                    Range range, std::vector<std::int64_t>& step_ns);
  void launch_timed_by_host(const std::vector<Step>& steps,
                            const std::vector<DeviceKernelArgs>& calls, Range range,
                            std::vector<std::int64_t>& step_ns);
  void launch_or_replay(Range range, std::size_t slot);

  std::unique_ptr<Slot> make_slot();
  int free_slot();
  void finish(std::size_t index);
  void vacate(Slot& slot);
  void bring_home_from_elsewhere();
  void keep_results(DeviceRun& run);
  void fetch_kept();
  const std::byte* results_of(const DeviceRun& run);
  void give(DeviceRun& run, std::span<const void* const> inputs, bool late, Profiler& profiler);
  void stage(Slot& slot, std::span<const void* const> inputs);
  void upload_variables(Slot& slot);
  void prepare(Profiler& profiler);
  void check_computed_labels();
  void compute(Slot& slot, std::size_t index, Profiler& profiler);
  void assign(const Slot& slot);
  void collect_locked(DeviceRun& run);
  void give_up() noexcept;

  const ProgramPlan& plan_;
  const LabelChecks& checks_;
  std::shared_ptr<DeviceSession> session_;
  std::vector<std::shared_ptr<DeviceVariable>> variables_;
  std::unique_ptr<DeviceMemory> working_;  // arena, then scratch
  std::unique_ptr<DeviceMemory> prepared_;
  std::unique_ptr<DeviceMemory> inputs_, outputs_;
  std::vector<std::size_t> input_places_, output_places_;  // in these, and in slots
  std::size_t input_bytes_ = 0, output_bytes_ = 0;
  std::unique_ptr<DeviceMemory> kernel_plans_;  // of the steps that have one, one after another
  std::map<const Step*, const std::byte*> kernel_plan_of_;
  std::vector<TensorView> prepare_views_, run_views_;
  std::vector<DeviceKernelArgs> prepare_calls_, run_calls_;
  std::vector<PrepareGroup> prepare_groups_;
  std::vector<std::uint64_t> prepared_versions_;  // of plan.prepare_reads
  // Of these, what a run writes anew: it assigns the variable.
  std::vector<std::size_t> kept_;
  bool prepared_once_ = false;

  std::vector<std::unique_ptr<Slot>> slots_;
  bool more_slots_ = true;
  std::unique_ptr<KeptResults> kept_results_;  // from the first run on that wants it
  bool may_keep_results_;
  std::shared_ptr<DeviceRun> own_run_;  // of `run`, which allocates nothing
  bool assigns_now_ = false;            // steps that assign were given for a run not yet counted

  std::vector<std::unique_ptr<EventHolder>> step_events_;  // between steps that are timed
  bool tells_time_ = true;                                 // as far as is known

  // After one run by single launches, which loads what the device loads late.
  bool warm_ = false;
  std::unique_ptr<DeviceRecorder> recorder_;
};

}  // namespace pycnn
