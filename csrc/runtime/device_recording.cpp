#include "runtime/device_recording.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "pycnn/error.h"

namespace pycnn {
namespace {

// Replays of each way; the first is not counted, since it uploads the recording.
constexpr std::size_t kTrials = 6;
// What several lanes must gain, as a share, to be worth their complications.
constexpr double kGain = 0.01;

// A guess, to see which branch is the long one: launch, memory, products.
double microseconds(const Cost& cost) {
  return 2.0 + static_cast<double>(cost.bytes) / 3e6 + static_cast<double>(cost.macs) / 1e8;
}

int lanes_wanted() {
  const char* const deterministic = std::getenv("PYCNN_CUDA_DETERMINISTIC");
  const char* const text = std::getenv("PYCNN_CUDA_LANES");
  if (text == nullptr || *text == '\0')
    return deterministic != nullptr && std::strcmp(deterministic, "1") == 0 ? 1 : 0;
  constexpr int kMost = kDeviceLanes - kFirstSideLane + 1;
  if (std::strlen(text) == 1 && *text >= '1' && *text <= '0' + kMost) return *text - '0';
  std::string problem = "compile: PYCNN_CUDA_LANES is '";
  problem.append(text, strnlen(text, 64));
  problem.append("', expected a number from 1 to ").append(std::to_string(kMost));
  throw ArgumentError(problem);
}

// Lanes of a plan on those of a queue, of which one is for copies.
int queue_lane(int lane) { return lane == 0 ? kMainLane : kFirstSideLane + lane - 1; }

MemoryRows whole(const TensorView& view, std::size_t bytes) {
  return {reinterpret_cast<std::uintptr_t>(view.data), bytes, bytes, 1};
}

MemoryRows rows_of(const TensorView& view) {
  const std::size_t bytes = byte_size(*view.spec);
  MemoryRows rows = whole(view, bytes);
  if (view.pixel_pitch == 0 || bytes == 0) return rows;
  const std::size_t item = item_bytes(view.spec->dtype);
  rows.width = static_cast<std::size_t>(view.spec->shape.back()) * item;
  rows.pitch = static_cast<std::size_t>(view.pixel_pitch) * item;
  rows.rows = bytes / rows.width;
  return rows;
}

std::string lanes_text(int lanes) {
  return lanes == 1 ? "one lane" : std::to_string(lanes) + " lanes";
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::vector<StepUse> uses_of(std::span<const Step> steps, std::span<const DeviceKernelArgs> calls,
                             std::size_t begin) {
  std::vector<StepUse> uses;
  for (std::size_t i = begin; i < steps.size(); ++i) {
    StepUse use;
    for (std::size_t k = 0; k < calls[i].inputs.size(); ++k) {
      const TensorView& view = calls[i].inputs[k];
      // The view of packed weights has the spec of what was packed.
      const PackedInput* const packed = steps[i].kernel.packing_of(static_cast<int>(k));
      use.reads.push_back(packed != nullptr ? whole(view, packed->bytes) : rows_of(view));
    }
    for (const TensorView& view : calls[i].outputs) use.writes.push_back(rows_of(view));
    use.microseconds = microseconds(steps[i].cost);
    uses.push_back(std::move(use));
  }
  return uses;
}

DeviceRecorder::DeviceRecorder(std::shared_ptr<DeviceSession> session, std::span<const Step> steps,
                               std::span<const DeviceKernelArgs> calls, std::size_t begin)
    : session_(std::move(session)),
      steps_(steps),
      calls_(calls),
      begin_(begin),
      lanes_(lanes_wanted()) {}

DeviceRecorder::~DeviceRecorder() {
  if (!session_->is_of_this_process()) return;
  for (const Way& way : ways_) session_->module->forget(way.recording);
}

DeviceRecorder::Way DeviceRecorder::one_lane() const {
  Way way;
  way.plan.resize(steps_.size() - begin_);
  way.calls.assign(calls_.begin() + static_cast<std::ptrdiff_t>(begin_), calls_.end());
  return way;
}

// Without a plan where nothing can run side by side. Throws MemoryLimitError, DeviceError.
DeviceRecorder::Way DeviceRecorder::several_lanes(int lanes) const {
  Way way = one_lane();
  std::vector<LanedStep> plan = plan_lanes(uses_of(steps_, calls_, begin_), lanes);
  way.plan.clear();
  if (std::all_of(plan.begin(), plan.end(), [](const LanedStep& step) { return step.lane == 0; }))
    return way;
  way.lanes = lanes;
  way.plan = std::move(plan);
  std::vector<std::size_t> bytes(static_cast<std::size_t>(lanes), 0);
  for (std::size_t i = 0; i < way.plan.size(); ++i) {
    std::size_t& most = bytes[static_cast<std::size_t>(way.plan[i].lane)];
    most = std::max(most, steps_[begin_ + i].scratch_bytes);
  }
  for (std::size_t lane = 1; lane < bytes.size(); ++lane) {
    way.scratch.push_back(std::make_unique<DeviceMemory>(session_, bytes[lane]));
    way.scratch_bytes += bytes[lane];
  }
  way.start = std::make_unique<EventHolder>(session_);
  way.events.resize(way.plan.size());
  for (std::size_t i = 0; i < way.plan.size(); ++i) {
    const LanedStep& step = way.plan[i];
    if (step.lane != 0)
      way.calls[i].scratch = way.scratch[static_cast<std::size_t>(step.lane) - 1]->data();
    if (step.is_followed) way.events[i] = std::make_unique<EventHolder>(session_);
  }
  return way;
}

void DeviceRecorder::give(const Way& way, const Launch& launch) const {
  const DeviceModule& module = *session_->module;
  DeviceQueue* const queue = session_->queue;
  std::vector<std::size_t> last(kDeviceLanes, way.plan.size());  // step of each lane
  if (way.start != nullptr) module.mark(queue, way.start->get());
  for (std::size_t i = 0; i < way.plan.size(); ++i) {
    const LanedStep& step = way.plan[i];
    const int lane = queue_lane(step.lane);
    std::size_t& before = last[static_cast<std::size_t>(lane)];
    module.use_lane(queue, lane);
    if (lane != kMainLane && before == way.plan.size()) module.follow(queue, way.start->get());
    for (const std::size_t other : step.follows) module.follow(queue, way.events[other]->get());
    launch(begin_ + i, way.calls[i]);
    if (step.is_followed) module.mark(queue, way.events[i]->get());
    before = i;
  }
  module.use_lane(queue, kMainLane);
  for (int lane = kFirstSideLane; lane < kDeviceLanes; ++lane)
    if (const std::size_t step = last[static_cast<std::size_t>(lane)]; step != way.plan.size())
      module.follow(queue, way.events[step]->get());
}

bool DeviceRecorder::record(Way&& way, const Launch& launch) {
  std::string problem;
  ways_.reserve(ways_.size() + 1);
  const DeviceModule& module = *session_->module;
  module.begin_range("record");
  module.begin_recording(session_->queue);
  try {
    // Where it has not begun, what is given would run.
    if (!module.has_failed(session_->queue)) give(way, launch);
  } catch (...) {
    problem_ = "not all of its steps could be given";
    module.use_lane(session_->queue, kMainLane);
    if (DeviceRecording* const part = module.end_recording(session_->queue, problem))
      module.forget(part);
    module.end_range();
    throw;
  }
  way.recording = module.end_recording(session_->queue, problem);
  module.end_range();
  if (way.recording == nullptr) {
    problem_ = std::move(problem);
    return false;
  }
  ways_.push_back(std::move(way));
  return true;
}

void DeviceRecorder::record_all(const Launch& launch) {
  recorded_ = true;
  if (lanes_ <= 1 && !record(one_lane(), launch)) return;
  if (lanes_ != 1) {
    try {
      Way way = several_lanes(lanes_ == 0 ? kDeviceLanes - kFirstSideLane + 1 : lanes_);
      if (!way.plan.empty()) (void)record(std::move(way), launch);
    } catch (const Error& error) {
      // No memory for it, or no events: it goes on one lane.
      problem_ = error.what();
    }
  }
  if (ways_.empty()) (void)record(one_lane(), launch);
  if (ways_.size() == 1) chosen_ = 0;
}

bool DeviceRecorder::replay(std::size_t slot, const Launch& launch) {
  if (!recorded_) record_all(launch);
  if (ways_.empty()) return false;
  const auto go = [&](int way) {
    session_->module->replay(session_->queue, ways_[static_cast<std::size_t>(way)].recording);
  };
  if (chosen_ >= 0) {
    go(chosen_);
    return true;
  }
  if (trials_.size() <= slot) trials_.resize(slot + 1);
  Trial& trial = trials_[slot];
  if (trial.ended == nullptr) {
    trial.began = std::make_unique<EventHolder>(session_, true);
    trial.ended = std::make_unique<EventHolder>(session_, true);
  }
  const int way = static_cast<int>(turn_++ % ways_.size());
  session_->module->mark(session_->queue, trial.began->get());
  go(way);
  session_->module->mark(session_->queue, trial.ended->get());
  trial.way = way;
  return true;
}

void DeviceRecorder::finish(std::size_t slot, bool succeeded) {
  if (slot >= trials_.size() || trials_[slot].way < 0) return;
  Trial& trial = trials_[slot];
  const auto way = static_cast<std::size_t>(std::exchange(trial.way, -1));
  if (succeeded && chosen_ < 0) {
    ways_[way].us.push_back(
        session_->module->elapsed_us(session_->queue, trial.began->get(), trial.ended->get()));
    if (std::all_of(ways_.begin(), ways_.end(),
                    [](const Way& each) { return each.us.size() > kTrials; }))
      choose();
  }
  // Other slots may be replaying either way.
  if (chosen_ >= 0 &&
      std::all_of(trials_.begin(), trials_.end(), [](const Trial& each) { return each.way < 0; }))
    forget_others();
}

std::size_t DeviceRecorder::lane_scratch_bytes() const {
  std::size_t bytes = 0;
  for (const Way& way : ways_) bytes += way.scratch_bytes;
  return bytes;
}

std::string DeviceRecorder::state() const {
  if (!recorded_) return {};
  if (ways_.empty()) return "not recorded, its steps are launched one by one: " + problem_;
  const Way& way = ways_[chosen_ < 0 ? 0 : static_cast<std::size_t>(chosen_)];
  std::string text = "recorded on " + lanes_text(way.lanes);
  if (chosen_ < 0) text += " and on " + lanes_text(ways_[1].lanes) + ", which take turns";
  if (!problem_.empty()) text += "; not on several lanes: " + problem_;
  return text;
}

void DeviceRecorder::forget_others() {
  Way kept = std::move(ways_[static_cast<std::size_t>(chosen_)]);
  for (const Way& way : ways_)
    if (way.recording != kept.recording) session_->module->forget(way.recording);
  ways_.clear();
  ways_.push_back(std::move(kept));
  chosen_ = 0;
  trials_.clear();
}

void DeviceRecorder::choose() {
  std::vector<double> medians;
  for (Way& way : ways_) {
    way.us.erase(way.us.begin());
    const bool told =
        std::all_of(way.us.begin(), way.us.end(), [](double us) { return us >= 0.0; });
    medians.push_back(told ? median(way.us) : -1.0);
  }
  const bool gains =
      medians[0] > 0.0 && medians[1] >= 0.0 && medians[1] < (1.0 - kGain) * medians[0];
  chosen_ = gains ? 1 : 0;
}

}  // namespace pycnn
