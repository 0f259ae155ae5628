#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/device_module.h"
#include "core/function_ref.h"
#include "runtime/device_session.h"
#include "runtime/program_plan.h"
#include "runtime/step_lanes.h"

// The steps of a program as recordings: one on the main lane and, where steps can run side by side,
// one on several lanes. Both compute the same bits; their first replays take turns and are timed,
// then the quicker one is kept and the other one forgotten, with its scratch. $PYCNN_CUDA_LANES=1
// to 3 chooses without timing; so does $PYCNN_CUDA_DETERMINISTIC=1, the main lane.
namespace pycnn {

class DeviceRecorder {
 public:
  // Gives a step to the lane in use.
  using Launch = FunctionRef<void(std::size_t step, const DeviceKernelArgs& call)>;

  // `calls` are those of `steps`, of which the first `begin` take no part. All must outlive this.
  // Throws ArgumentError for a number of lanes that there is not.
  DeviceRecorder(std::shared_ptr<DeviceSession> session, std::span<const Step> steps,
                 std::span<const DeviceKernelArgs> calls, std::size_t begin);
  // Nothing may be under way.
  ~DeviceRecorder();
  DeviceRecorder(const DeviceRecorder&) = delete;
  DeviceRecorder& operator=(const DeviceRecorder&) = delete;

  // ---- With the session's mutex held.

  // Records first, by `launch`. False: that cannot be done, and nothing was given.
  bool replay(std::size_t slot, const Launch& launch);
  // The replay for that slot is done, or has failed.
  void finish(std::size_t slot, bool succeeded);
  // Of all lanes beside the main one.
  std::size_t lane_scratch_bytes() const;
  // Program::recording.
  std::string state() const;

 private:
  struct Way {  // to run the steps
    int lanes = 1;
    std::vector<LanedStep> plan;
    std::vector<DeviceKernelArgs> calls;  // with scratch of the lanes
    std::vector<std::unique_ptr<DeviceMemory>> scratch;
    std::size_t scratch_bytes = 0;
    std::vector<std::unique_ptr<EventHolder>> events;  // of steps that are followed
    std::unique_ptr<EventHolder> start;
    DeviceRecording* recording = nullptr;
    std::vector<double> us;
  };
  struct Trial {
    std::unique_ptr<EventHolder> began, ended;
    int way = -1;
  };

  Way one_lane() const;
  Way several_lanes(int lanes) const;
  void give(const Way& way, const Launch& launch) const;
  bool record(Way&& way, const Launch& launch);
  void record_all(const Launch& launch);
  void choose();
  void forget_others();

  const std::shared_ptr<DeviceSession> session_;
  const std::span<const Step> steps_;
  const std::span<const DeviceKernelArgs> calls_;
  const std::size_t begin_;
  const int lanes_;  // 0: by time
  bool recorded_ = false;
  std::string problem_;  // of what could not be recorded last
  std::vector<Way> ways_;
  int chosen_ = -1;
  std::size_t turn_ = 0;
  std::vector<Trial> trials_;  // by slot
};

// What the steps from `begin` on touch, and about how long each takes.
std::vector<StepUse> uses_of(std::span<const Step> steps, std::span<const DeviceKernelArgs> calls,
                             std::size_t begin);

}  // namespace pycnn
