#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "backends/device_module.h"
#include "runtime/label_checks.h"
#include "runtime/profiler.h"
#include "runtime/program_plan.h"

// A program on a device with memory of its own.
//
// Everything has a fixed place there: one arena, the caller's arrays, a copy of each variable. So a
// run is the same list of launches every time; it is recorded once and replayed as one. A run ends
// when the results are in the caller's arrays and what it assigned is in the host's variables, so
// that programs of any device may share these.
namespace pycnn {

class DeviceMemory;
class DeviceSession;
class DeviceVariable;

class DeviceProgram {
 public:
  // Throws DeviceError, or MemoryLimitError when the device has not enough memory left.
  DeviceProgram(const ProgramPlan& plan, const LabelChecks& checks);
  ~DeviceProgram();
  DeviceProgram(const DeviceProgram&) = delete;
  DeviceProgram& operator=(const DeviceProgram&) = delete;

  // The caller holds the variables' locks and has checked the arrays and the labels among them.
  // Throws LabelError for labels that the program computes, and DeviceError; nothing is assigned
  // then.
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, Profiler& profiler);

 private:
  struct Range {  // of steps
    std::size_t begin;
    std::size_t end;
  };

  std::byte* address_of(const Place& place) const;
  void place_kernel_plans();
  std::vector<DeviceKernelArgs> make_calls(const std::vector<Step>& steps,
                                           std::vector<TensorView>& views);
  void launch(const std::vector<Step>& steps, const std::vector<DeviceKernelArgs>& calls,
              Range range);
  void launch_timed(const std::vector<Step>& steps, const std::vector<DeviceKernelArgs>& calls,
                    Range range, std::vector<std::int64_t>& step_ns);
  void launch_or_replay(Range range);
  void upload(std::span<const void* const> inputs);
  void prepare(Profiler& profiler);
  void check_computed_labels();
  void download(std::span<void* const> outputs);
  void wait();

  const ProgramPlan& plan_;
  const LabelChecks& checks_;
  std::shared_ptr<DeviceSession> session_;
  std::vector<std::shared_ptr<DeviceVariable>> variables_;
  std::unique_ptr<DeviceMemory> working_;  // arena, then scratch
  std::unique_ptr<DeviceMemory> prepared_;
  std::vector<std::unique_ptr<DeviceMemory>> inputs_;
  std::vector<std::unique_ptr<DeviceMemory>> outputs_;
  std::unique_ptr<DeviceMemory> kernel_plans_;  // of the steps that have one, one after another
  std::map<const Step*, const std::byte*> kernel_plan_of_;
  std::vector<TensorView> prepare_views_, run_views_;
  std::vector<DeviceKernelArgs> prepare_calls_, run_calls_;
  std::vector<std::uint64_t> prepared_versions_;  // of plan.prepare_reads
  bool prepared_once_ = false;

  // After one run by single launches, which loads what the device loads late.
  bool warm_ = false;
  bool records_ = true;
  DeviceRecording* recording_ = nullptr;
};

}  // namespace pycnn
