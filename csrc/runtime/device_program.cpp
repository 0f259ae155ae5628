#include "runtime/device_program.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/copy_bytes.h"
#include "pycnn/error.h"
#include "runtime/copy_kernel.h"
#include "runtime/device_recording.h"
#include "runtime/device_session.h"

namespace pycnn {
namespace {

std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Runs under way at most: one is computed, one is copied, one is filled.
constexpr std::size_t kMostSlots = 3;
// Variables that change often are single numbers; these go through the slot, so that the caller may
// change them again at once.
constexpr std::size_t kSmallVariables = 4096;
// Inputs that are copied sooner than a second copy on the device, and a wait for the first, are
// given to it.
constexpr std::size_t kSmallInputs = std::size_t{64} << 10;
// Results that are kept on the device: those of so many runs, of so many bytes each.
constexpr std::size_t kKeptRuns = 16, kMostKept = 4096;

// Where scratch begins in the working memory: aligned as libraries of a device want it.
std::size_t scratch_place(const ProgramPlan& plan) { return (plan.arena_bytes + 255) / 256 * 256; }

std::size_t operand_bytes(const Operand& operand) { return byte_size(operand.spec); }

// While it lives, tools that watch the device show work under that name.
class Named {
 public:
  Named(const DeviceSession& session, const char* name) : module_(*session.module) {
    module_.begin_range(name);
  }
  Named(const DeviceSession& session, const Step& step)
      : Named(session, (step.name + " (" + step.kernel.variant + ")").c_str()) {}
  ~Named() { module_.end_range(); }
  Named(const Named&) = delete;
  Named& operator=(const Named&) = delete;

 private:
  const DeviceModule& module_;
};

// While it lives, work goes to that lane.
class OnLane {
 public:
  OnLane(const DeviceSession& session, int lane) : session_(session) {
    session_.module->use_lane(session_.queue, lane);
  }
  ~OnLane() { session_.module->use_lane(session_.queue, kMainLane); }
  OnLane(const OnLane&) = delete;
  OnLane& operator=(const OnLane&) = delete;

 private:
  const DeviceSession& session_;
};

// Places of arrays one after another; `bytes` becomes those of all.
std::vector<std::size_t> places_of(const std::vector<std::pair<std::string, TensorSpec>>& arrays,
                                   std::size_t& bytes) {
  std::vector<std::size_t> places;
  for (const auto& [name, spec] : arrays) {
    places.push_back(bytes);
    bytes += (byte_size(spec) + 255) / 256 * 256;
  }
  return places;
}

}  // namespace

struct DeviceProgram::Slot {
  Slot(const std::shared_ptr<DeviceSession>& session, std::size_t input_bytes,
       std::size_t output_bytes)
      : staging(session, input_bytes + kSmallVariables),
        inputs(session, input_bytes),
        results(session, output_bytes),
        arrived(session),
        done(session) {}

  const StagingMemory staging;  // inputs, then small variables
  const DeviceMemory inputs;
  const StagingMemory results;
  const EventHolder arrived;  // the inputs, in `inputs`
  const EventHolder done;     // the results, in `results`
  std::uint64_t number = 0;   // of its run in the session
  std::uint64_t kept = 0;     // DeviceRun::kept of its run
  bool under_way = false;
  std::shared_ptr<DeviceRun> run;  // whose results are there, or will be
};

// Of the last runs that keep them, each in the row of its number.
struct DeviceProgram::KeptResults {
  KeptResults(const std::shared_ptr<DeviceSession>& session, std::size_t row_bytes)
      : rows(session, kKeptRuns * row_bytes),
        fetched(session, kKeptRuns * row_bytes),
        arrived(session) {}

  static std::size_t row_of(std::uint64_t run) { return run % kKeptRuns; }

  const DeviceMemory rows;
  const StagingMemory fetched;
  const EventHolder arrived;  // what `fetched` is to hold
  std::weak_ptr<DeviceRun> runs[kKeptRuns];
  // Of so many runs they are to be kept, of so many they are there, and in `fetched`.
  std::uint64_t given = 0, made = 0, fetched_of = 0;
};

DeviceProgram::DeviceProgram(const ProgramPlan& plan, const LabelChecks& checks)
    : plan_(plan),
      checks_(checks),
      session_(device_session(plan.device)),
      own_run_(std::make_shared<DeviceRun>()) {
  session_->check_process();
  variables_.reserve(plan.variables.size());  // for a variable may not end with the mutex held
  const DeviceTurn turn(*session_);
  for (const Tensor& variable : plan.variables)
    variables_.push_back(device_variable(session_, variable));
  const auto memory = [&](std::size_t bytes) {
    return std::make_unique<DeviceMemory>(session_, bytes);
  };
  working_ = memory(scratch_place(plan) + plan.scratch_bytes);
  prepared_ = memory(plan.prepared_bytes);
  input_places_ = places_of(plan.inputs, input_bytes_);
  output_places_ = places_of(plan.outputs, output_bytes_);
  inputs_ = memory(input_bytes_);
  outputs_ = memory(output_bytes_);
  may_keep_results_ = output_bytes_ > 0 && output_bytes_ <= kMostKept;
  slots_.reserve(kMostSlots);
  slots_.push_back(make_slot());
  place_kernel_plans();
  prepare_calls_ = make_calls(plan.prepare, prepare_views_);
  run_calls_ = make_calls(plan.run, run_views_);
  prepare_groups_ = prepare_groups(plan);
  prepared_versions_.resize(plan.prepare_reads.size());
  for (std::size_t i = 0; i < plan.prepare_reads.size(); ++i)
    if (std::find(plan.assigned.begin(), plan.assigned.end(), plan.prepare_reads[i]) !=
        plan.assigned.end())
      kept_.push_back(i);
  recorder_ = std::make_unique<DeviceRecorder>(session_, plan.run, run_calls_, plan.label_steps);
}

DeviceProgram::~DeviceProgram() {
  if (!session_->is_of_this_process()) return;  // somebody else's thread may have held the mutex
  const DeviceTurn turn(*session_);
  session_->drain();  // what it was given uses its memory
  recorder_.reset();
}

std::size_t DeviceProgram::transfer_bytes(const ProgramPlan& plan) {
  std::size_t inputs = 0, outputs = 0;
  (void)places_of(plan.inputs, inputs);
  (void)places_of(plan.outputs, outputs);
  return inputs + outputs + kMostSlots * inputs + (outputs <= kMostKept ? kKeptRuns * outputs : 0);
}

std::size_t DeviceProgram::staging_bytes(const ProgramPlan& plan) {
  std::size_t bytes = kSmallVariables;
  (void)places_of(plan.inputs, bytes);
  std::size_t outputs = 0;
  (void)places_of(plan.outputs, outputs);
  return kMostSlots * (bytes + outputs) + (outputs <= kMostKept ? kKeptRuns * outputs : 0);
}

std::size_t DeviceProgram::lane_scratch_bytes() const {
  if (!session_->is_of_this_process()) return 0;
  const DeviceTurn turn(*session_);
  return recorder_->lane_scratch_bytes();
}

std::string DeviceProgram::recording() const {
  if (!session_->is_of_this_process()) return {};
  const DeviceTurn turn(*session_);
  return recorder_->state();
}

std::byte* DeviceProgram::address_of(const Place& place) const {
  const auto index = static_cast<std::size_t>(place.index);
  std::byte* base = nullptr;
  switch (place.space) {
    case Place::Space::kArena:
      base = working_->data();
      break;
    case Place::Space::kPrepared:
      base = prepared_->data();
      break;
    case Place::Space::kVariable:
      base = variables_[index]->memory.data();
      break;
    case Place::Space::kInput:
      base = inputs_->data() + input_places_[index];
      break;
    case Place::Space::kOutput:
      base = outputs_->data() + output_places_[index];
      break;
  }
  return base + place.offset;
}

void DeviceProgram::place_kernel_plans() {
  std::size_t bytes = 0;
  for (const std::vector<Step>* steps : {&plan_.prepare, &plan_.run})
    for (const Step& step : *steps) bytes += aligned_bytes(step.kernel.plan.size());
  if (bytes == 0) return;
  kernel_plans_ = std::make_unique<DeviceMemory>(session_, bytes);
  std::byte* place = kernel_plans_->data();
  for (const std::vector<Step>* steps : {&plan_.prepare, &plan_.run}) {
    for (const Step& step : *steps) {
      const std::vector<std::byte>& plan = step.kernel.plan;
      if (plan.empty()) continue;
      session_->module->copy_in(session_->queue, place, plan.data(), plan.size());
      kernel_plan_of_[&step] = place;
      place += aligned_bytes(plan.size());
    }
  }
  session_->wait();
}

std::vector<DeviceKernelArgs> DeviceProgram::make_calls(const std::vector<Step>& steps,
                                                        std::vector<TensorView>& views) {
  std::size_t operands = 0;
  for (const Step& step : steps) operands += step.inputs.size() + step.outputs.size();
  views.reserve(operands);  // the calls point into it
  std::vector<DeviceKernelArgs> calls;
  for (const Step& step : steps) {
    const TensorView* const first = views.data() + views.size();
    for (const std::vector<Operand>* list : {&step.inputs, &step.outputs})
      for (const Operand& operand : *list)
        views.push_back({address_of(operand.place), &operand.spec, operand.pixel_pitch});
    DeviceKernelArgs args;
    args.op = &step.op;
    args.inputs = {first, step.inputs.size()};
    args.outputs = {first + step.inputs.size(), step.outputs.size()};
    args.scratch = working_->data() + scratch_place(plan_);
    const auto kernel_plan = kernel_plan_of_.find(&step);
    if (kernel_plan != kernel_plan_of_.end()) args.plan = kernel_plan->second;
    args.queue = session_->queue;
    args.state = step.kernel.state.get();
    calls.push_back(args);
  }
  return calls;
}

void DeviceProgram::launch_step(const Step& step, const DeviceKernelArgs& call) {
  const Named named(*session_, step);
  // The runtime's own kernel is one of the host.
  if (step.kernel.run == copy_kernel)
    session_->module->copy_within(session_->queue, call.outputs[0].data, call.inputs[0].data,
                                  operand_bytes(step.outputs[0]));
  else
    step.kernel.run(call);
}

void DeviceProgram::launch(const std::vector<Step>& steps,
                           const std::vector<DeviceKernelArgs>& calls, Range range) {
  for (std::size_t i = range.begin; i < range.end; ++i) launch_step(steps[i], calls[i]);
}

// Whether there are so many events between which the device tells the time.
bool DeviceProgram::tells_time(std::size_t events) {
  const bool is_new = step_events_.empty();
  try {
    while (tells_time_ && step_events_.size() < events)
      step_events_.push_back(std::make_unique<EventHolder>(session_, true));
  } catch (const DeviceError&) {
    tells_time_ = false;
  }
  if (!tells_time_ || !is_new) return tells_time_;
  const auto mark = [&](DeviceEvent* event) { session_->module->mark(session_->queue, event); };
  mark(step_events_.front()->get());
  mark(step_events_.back()->get());
  session_->wait();
  tells_time_ = session_->module->elapsed_us(session_->queue, step_events_.front()->get(),
                                             step_events_.back()->get()) >= 0.0;
  return tells_time_;
}

// By events between the steps, on the one lane that they are given to: nobody waits before the last
// one, so that a time holds neither that nor, where the device is behind the host, a launch.
void DeviceProgram::launch_timed(const std::vector<Step>& steps,
                                 const std::vector<DeviceKernelArgs>& calls, Range range,
                                 std::vector<std::int64_t>& step_ns) {
  if (range.begin >= range.end) return;
  if (!tells_time(range.end - range.begin + 1))
    return launch_timed_by_host(steps, calls, range, step_ns);
  const DeviceModule& module = *session_->module;
  auto event = step_events_.begin();
  module.mark(session_->queue, (*event)->get());
  for (std::size_t i = range.begin; i < range.end; ++i) {
    launch(steps, calls, {i, i + 1});
    module.mark(session_->queue, (*++event)->get());
  }
  session_->wait();
  event = step_events_.begin();
  for (std::size_t i = range.begin; i < range.end; ++i, ++event) {
    const double us = module.elapsed_us(session_->queue, (*event)->get(), event[1]->get());
    step_ns[i] = us < 0.0 ? Profiler::kNotRun : std::llround(1000.0 * us);
  }
}

void DeviceProgram::launch_timed_by_host(const std::vector<Step>& steps,
                                         const std::vector<DeviceKernelArgs>& calls, Range range,
                                         std::vector<std::int64_t>& step_ns) {
  std::int64_t before = steady_ns();
  for (std::size_t i = range.begin; i < range.end; ++i) {
    launch(steps, calls, {i, i + 1});
    session_->wait();
    const std::int64_t after = steady_ns();
    step_ns[i] = after - before;
    before = after;
  }
}

std::unique_ptr<DeviceProgram::Slot> DeviceProgram::make_slot() {
  return std::make_unique<Slot>(session_, input_bytes_, output_bytes_);
}

// Waits for the oldest run where no slot is free and no memory for one more.
int DeviceProgram::free_slot() {
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (!slots_[i]->under_way) return static_cast<int>(i);
  if (more_slots_ && slots_.size() < kMostSlots) {
    try {
      slots_.push_back(make_slot());
      return static_cast<int>(slots_.size()) - 1;
    } catch (const Error&) {
      more_slots_ = false;
    }
  }
  const auto oldest =
      std::min_element(slots_.begin(), slots_.end(),
                       [](const auto& a, const auto& b) { return a->number < b->number; });
  const auto index = static_cast<std::size_t>(oldest - slots_.begin());
  finish(index);
  return static_cast<int>(index);
}

void DeviceProgram::finish(std::size_t index) {
  Slot& slot = *slots_[index];
  if (!slot.under_way) return;
  session_->wait_for(slot.done.get(), slot.number);
  slot.under_way = false;
  if (slot.kept != 0) kept_results_->made = std::max(kept_results_->made, slot.kept);
  recorder_->finish(index, true);
}

// Keeps results that somebody will still ask for.
void DeviceProgram::vacate(Slot& slot) {
  if (slot.run != nullptr && slot.run.use_count() > 1 && !slot.run->is_collected) {
    if (slot.run->kept == 0)
      slot.run->results.assign(slot.results.data(), slot.results.data() + output_bytes_);
    slot.run->slot = -1;
  }
  slot.run = nullptr;
}

// Not with the mutex held: another device's is taken.
void DeviceProgram::bring_home_from_elsewhere() {
  if (!TensorResidence::any()) return;
  for (const std::shared_ptr<DeviceVariable>& variable : variables_)
    if (variable->is_elsewhere()) (void)variable->tensor().raw();
}

void DeviceProgram::stage(Slot& slot, std::span<const void* const> inputs) {
  const Named named(*session_, "upload");
  for (std::size_t i = 0; i < inputs.size(); ++i)
    copy_bytes(plan_.threads, slot.staging.data() + input_places_[i], inputs[i],
               byte_size(plan_.inputs[i].second));
  // The slot's last run is done, so nobody reads what was overwritten in it.
  const DeviceModule& module = *session_->module;
  if (input_bytes_ <= kSmallInputs) {
    module.copy_in(session_->queue, inputs_->data(), slot.staging.data(), input_bytes_);
  } else {
    {
      const OnLane lane(*session_, kCopyLane);
      module.copy_in(session_->queue, slot.inputs.data(), slot.staging.data(), input_bytes_);
      module.mark(session_->queue, slot.arrived.get());
    }
    module.follow(session_->queue, slot.arrived.get());
    module.copy_within(session_->queue, inputs_->data(), slot.inputs.data(), input_bytes_);
  }
  upload_variables(slot);
}

void DeviceProgram::upload_variables(Slot& slot) {
  std::byte* small = slot.staging.data() + input_bytes_;
  std::size_t left = kSmallVariables;
  bool large = false;
  for (std::size_t i = 0; i < variables_.size(); ++i) {
    const std::shared_ptr<DeviceVariable>& variable = variables_[i];
    if (!variable->is_old(plan_.variable_names[i])) continue;
    const std::size_t bytes = variable->bytes();
    if (aligned_bytes(bytes) <= left) {
      std::memcpy(small, variable->host(), bytes);
      variable->upload(small);
      small += aligned_bytes(bytes);
      left -= aligned_bytes(bytes);
    } else {
      variable->upload(variable->host());
      large = true;
    }
  }
  if (large) session_->wait();  // the caller may change it as soon as he has control
}

void DeviceProgram::prepare(Profiler& profiler) {
  std::vector<std::uint64_t> versions;
  for (const int variable : plan_.prepare_reads)
    versions.push_back(plan_.variables[static_cast<std::size_t>(variable)].version());
  if (prepared_once_ && versions == prepared_versions_) return;
  const Named named(*session_, "prepare");
  const auto is_old = [&](const PrepareGroup& group) {
    return !prepared_once_ ||
           std::any_of(group.reads.begin(), group.reads.end(),
                       [&](std::size_t i) { return versions[i] != prepared_versions_[i]; });
  };
  std::vector<bool> wanted(plan_.prepare.size(), false);
  for (const PrepareGroup& group : prepare_groups_)
    for (const std::size_t step : group.steps) wanted[step] = is_old(group);
  prepared_once_ = false;
  const bool profiled = profiler.running();
  std::vector<std::int64_t> step_ns(profiled ? plan_.prepare.size() : 0, Profiler::kNotRun);
  for (std::size_t i = 0, end = 0; i < wanted.size(); i = end) {
    for (end = i + 1; end < wanted.size() && wanted[end] == wanted[i];) ++end;
    if (!wanted[i]) continue;
    if (profiled)
      launch_timed(plan_.prepare, prepare_calls_, {i, end}, step_ns);
    else
      launch(plan_.prepare, prepare_calls_, {i, end});
  }
  if (profiled) profiler.record_prepare(step_ns);
  prepared_versions_ = std::move(versions);
  prepared_once_ = true;
}

void DeviceProgram::check_computed_labels() {
  for (const LabelCheck& check : checks_.computed) {
    std::vector<std::byte> labels(operand_bytes(check.labels));
    session_->module->copy_out(session_->queue, labels.data(),
                               run_calls_[check.step].inputs[1].data, labels.size());
    session_->wait();
    check_labels(check, labels.data());
  }
}

void DeviceProgram::launch_or_replay(Range range, std::size_t slot) {
  const auto one = [&](std::size_t step, const DeviceKernelArgs& call) {
    launch_step(plan_.run[step], call);
  };
  if (!warm_ || !recorder_->replay(slot, one)) launch(plan_.run, run_calls_, range);
}

void DeviceProgram::compute(Slot& slot, std::size_t index, Profiler& profiler) {
  prepare(profiler);
  const Range labels{0, plan_.label_steps}, rest{plan_.label_steps, plan_.run.size()};
  // A step is not begun with what is known to be wrong.
  session_->check_given();
  if (profiler.running()) {
    std::vector<std::int64_t> step_ns(plan_.run.size());
    launch_timed(plan_.run, run_calls_, labels, step_ns);
    check_computed_labels();
    assigns_now_ = true;
    launch_timed(plan_.run, run_calls_, rest, step_ns);
    profiler.record_run(step_ns);
  } else {
    launch(plan_.run, run_calls_, labels);
    check_computed_labels();
    assigns_now_ = true;
    launch_or_replay(rest, index);
  }
  if (slot.kept != 0) {
    std::byte* const row =
        kept_results_->rows.data() + KeptResults::row_of(slot.kept) * output_bytes_;
    session_->module->copy_within(session_->queue, row, outputs_->data(), output_bytes_);
  } else {
    const Named named(*session_, "download");
    session_->module->copy_out(session_->queue, slot.results.data(), outputs_->data(),
                               output_bytes_);
  }
  session_->module->mark(session_->queue, slot.done.get());
  session_->check_given();
  warm_ = true;
}

// Gives the run a row, and what lies there to the run that has not asked for it yet.
void DeviceProgram::keep_results(DeviceRun& run) {
  if (kept_results_ == nullptr && may_keep_results_) {
    try {
      kept_results_ = std::make_unique<KeptResults>(session_, output_bytes_);
    } catch (const Error&) {
      may_keep_results_ = false;
    }
  }
  if (kept_results_ == nullptr) return;
  run.kept = ++kept_results_->given;
  const std::shared_ptr<DeviceRun> before =
      kept_results_->runs[KeptResults::row_of(run.kept)].lock();
  if (before == nullptr || before->is_collected || before->kept == 0 ||
      before->failures != session_->failures())
    return;
  const std::byte* const results = results_of(*before);
  if (before->slot >= 0) vacate(*slots_[static_cast<std::size_t>(before->slot)]);
  before->results.assign(results, results + output_bytes_);
  before->kept = 0;
}

// Of all runs that are known to have ended. Others may write their rows meanwhile.
void DeviceProgram::fetch_kept() {
  const Named named(*session_, "download");
  KeptResults& kept = *kept_results_;
  {
    const OnLane lane(*session_, kCopyLane);
    session_->module->copy_out(session_->queue, kept.fetched.data(), kept.rows.data(),
                               kKeptRuns * output_bytes_);
    session_->module->mark(session_->queue, kept.arrived.get());
  }
  session_->wait_for(kept.arrived.get(), 0);
  kept.fetched_of = kept.made;
}

// Of a run that has ended.
const std::byte* DeviceProgram::results_of(const DeviceRun& run) {
  if (run.kept != 0) {
    if (run.kept > kept_results_->fetched_of) fetch_kept();
    return kept_results_->fetched.data() + KeptResults::row_of(run.kept) * output_bytes_;
  }
  return run.slot >= 0 ? slots_[static_cast<std::size_t>(run.slot)]->results.data()
                       : run.results.data();
}

void DeviceProgram::give(DeviceRun& run, std::span<const void* const> inputs, bool late,
                         Profiler& profiler) {
  run.slot = free_slot();
  run.failures = session_->failures();
  run.is_collected = false;
  const auto index = static_cast<std::size_t>(run.slot);
  Slot& slot = *slots_[index];
  vacate(slot);
  if (late) keep_results(run);
  slot.kept = run.kept;
  slot.under_way = true;
  stage(slot, inputs);
  compute(slot, index, profiler);
  // Not before: whoever waits meanwhile has not seen this run succeed.
  slot.number = session_->next_run();
}

// The run's variables are on the device now.
void DeviceProgram::assign(const Slot& slot) {
  for (const int variable : plan_.assigned)
    variables_[static_cast<std::size_t>(variable)]->written_by(slot.number);
  assigns_now_ = false;
  // What is prepared of them the run has written, too.
  for (const std::size_t i : kept_)
    prepared_versions_[i] =
        plan_.variables[static_cast<std::size_t>(plan_.prepare_reads[i])].version();
}

// After a failure. What steps under way were to assign may be half a step further on the device.
void DeviceProgram::give_up() noexcept {
  session_->drain();
  if (assigns_now_)
    for (const int variable : plan_.assigned)
      variables_[static_cast<std::size_t>(variable)]->spoil();
  assigns_now_ = false;
  prepared_once_ = false;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i]->under_way = false;
    recorder_->finish(i, false);
  }
}

void DeviceProgram::collect_locked(DeviceRun& run) {
  if (run.is_collected) return;
  if (run.slot >= 0) finish(static_cast<std::size_t>(run.slot));
  session_->check_failures(run.failures);
  const std::byte* const results = results_of(run);
  for (std::size_t i = 0; i < run.outputs.size(); ++i)
    if (const std::size_t bytes = byte_size(plan_.outputs[i].second); bytes > 0)
      std::memcpy(run.outputs[i], results + output_places_[i], bytes);
  for (const int variable : plan_.assigned)
    variables_[static_cast<std::size_t>(variable)]->refresh_views();
  run.is_collected = true;
}

void DeviceProgram::run(std::span<const void* const> inputs, std::span<void* const> outputs,
                        Profiler& profiler) {
  session_->check_process();
  bring_home_from_elsewhere();
  const DeviceTurn turn(*session_);
  const Named named(*session_, "pycnn run");
  DeviceRun& run = *own_run_;
  run.outputs.assign(outputs.begin(), outputs.end());
  try {
    give(run, inputs, false, profiler);
    Slot& slot = *slots_[static_cast<std::size_t>(run.slot)];
    // Before anything is assigned or written: what a failed run assigns has still its old values on
    // the host, if these were there.
    finish(static_cast<std::size_t>(run.slot));
    assign(slot);
    collect_locked(run);
  } catch (...) {
    give_up();
    throw;
  }
}

std::shared_ptr<DeviceRun> DeviceProgram::begin(std::span<const void* const> inputs,
                                                std::span<void* const> outputs, bool late,
                                                Profiler& profiler) {
  session_->check_process();
  bring_home_from_elsewhere();
  auto run = std::make_shared<DeviceRun>();
  run->outputs.assign(outputs.begin(), outputs.end());
  const DeviceTurn turn(*session_);
  const Named named(*session_, "pycnn run");
  try {
    give(*run, inputs, late, profiler);
    Slot& slot = *slots_[static_cast<std::size_t>(run->slot)];
    assign(slot);
    slot.run = run;
    if (run->kept != 0) kept_results_->runs[KeptResults::row_of(run->kept)] = run;
  } catch (...) {
    give_up();
    throw;
  }
  return run;
}

void DeviceProgram::collect(DeviceRun& run) {
  session_->check_process();
  const DeviceTurn turn(*session_);
  try {
    collect_locked(run);
  } catch (...) {
    give_up();
    throw;
  }
}

}  // namespace pycnn
