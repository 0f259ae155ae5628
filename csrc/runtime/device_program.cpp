#include "runtime/device_program.h"

#include <chrono>
#include <utility>

#include "pycnn/error.h"
#include "runtime/copy_kernel.h"
#include "runtime/device_session.h"

namespace pycnn {
namespace {

std::int64_t steady_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

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

}  // namespace

DeviceProgram::DeviceProgram(const ProgramPlan& plan, const LabelChecks& checks)
    : plan_(plan), checks_(checks), session_(device_session(plan.device)) {
  session_->check_process();
  const std::lock_guard lock(session_->mutex);
  for (const Tensor& variable : plan.variables)
    variables_.push_back(device_variable(session_, variable));
  const auto memory = [&](std::size_t bytes) {
    return std::make_unique<DeviceMemory>(session_, bytes);
  };
  working_ = memory(scratch_place(plan) + plan.scratch_bytes);
  prepared_ = memory(plan.prepared_bytes);
  for (const auto& [name, spec] : plan.inputs) inputs_.push_back(memory(byte_size(spec)));
  for (const auto& [name, spec] : plan.outputs) outputs_.push_back(memory(byte_size(spec)));
  place_kernel_plans();
  prepare_calls_ = make_calls(plan.prepare, prepare_views_);
  run_calls_ = make_calls(plan.run, run_views_);
  prepared_versions_.resize(plan.prepare_reads.size());
}

DeviceProgram::~DeviceProgram() {
  if (!session_->is_of_this_process()) return;  // somebody else's thread may have held the mutex
  const std::lock_guard lock(session_->mutex);
  if (recording_ != nullptr) session_->module->forget(recording_);
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
      base = inputs_[index]->data();
      break;
    case Place::Space::kOutput:
      base = outputs_[index]->data();
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
  wait();
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

void DeviceProgram::launch(const std::vector<Step>& steps,
                           const std::vector<DeviceKernelArgs>& calls, Range range) {
  for (std::size_t i = range.begin; i < range.end; ++i) {
    const Named named(*session_, steps[i]);
    // The runtime's own kernel is one of the host.
    if (steps[i].kernel.run == copy_kernel)
      session_->module->copy_within(session_->queue, calls[i].outputs[0].data,
                                    calls[i].inputs[0].data, operand_bytes(steps[i].outputs[0]));
    else
      steps[i].kernel.run(calls[i]);
  }
}

void DeviceProgram::launch_timed(const std::vector<Step>& steps,
                                 const std::vector<DeviceKernelArgs>& calls, Range range,
                                 std::vector<std::int64_t>& step_ns) {
  std::int64_t before = steady_ns();
  for (std::size_t i = range.begin; i < range.end; ++i) {
    launch(steps, calls, {i, i + 1});
    wait();
    const std::int64_t after = steady_ns();
    step_ns[i] = after - before;
    before = after;
  }
}

void DeviceProgram::wait() {
  std::string problem;
  if (!session_->module->wait(session_->queue, problem))
    throw DeviceError("program: device '" + session_->name + "' failed: " + problem);
}

void DeviceProgram::upload(std::span<const void* const> inputs) {
  const Named named(*session_, "upload");
  for (const std::shared_ptr<DeviceVariable>& variable : variables_) variable->upload();
  for (std::size_t i = 0; i < inputs.size(); ++i)
    session_->module->copy_in(session_->queue, inputs_[i]->data(), inputs[i],
                              byte_size(plan_.inputs[i].second));
}

void DeviceProgram::prepare(Profiler& profiler) {
  std::vector<std::uint64_t> versions;
  for (const int variable : plan_.prepare_reads)
    versions.push_back(plan_.variables[static_cast<std::size_t>(variable)].version());
  if (prepared_once_ && versions == prepared_versions_) return;
  const Named named(*session_, "prepare");
  const Range all{0, plan_.prepare.size()};
  prepared_once_ = false;
  if (profiler.running()) {
    std::vector<std::int64_t> step_ns(plan_.prepare.size());
    launch_timed(plan_.prepare, prepare_calls_, all, step_ns);
    profiler.record_prepare(step_ns);
  } else {
    launch(plan_.prepare, prepare_calls_, all);
    wait();
  }
  prepared_versions_ = std::move(versions);
  prepared_once_ = true;
}

void DeviceProgram::check_computed_labels() {
  for (const LabelCheck& check : checks_.computed) {
    std::vector<std::byte> labels(operand_bytes(check.labels));
    session_->module->copy_out(session_->queue, labels.data(),
                               run_calls_[check.step].inputs[1].data, labels.size());
    wait();
    check_labels(check, labels.data());
  }
}

void DeviceProgram::launch_or_replay(Range range) {
  if (recording_ == nullptr && warm_ && records_) {
    const Named named(*session_, "record");
    std::string problem;
    session_->module->begin_recording(session_->queue);
    launch(plan_.run, run_calls_, range);
    recording_ = session_->module->end_recording(session_->queue, problem);
    records_ = recording_ != nullptr;  // else by single launches, as before
  }
  if (recording_ != nullptr)
    session_->module->replay(session_->queue, recording_);
  else
    launch(plan_.run, run_calls_, range);
}

void DeviceProgram::download(std::span<void* const> outputs) {
  const Named named(*session_, "download");
  for (std::size_t i = 0; i < outputs.size(); ++i)
    session_->module->copy_out(session_->queue, outputs[i], outputs_[i]->data(),
                               byte_size(plan_.outputs[i].second));
  for (const int variable : plan_.assigned)
    variables_[static_cast<std::size_t>(variable)]->download();
  wait();
  for (const int variable : plan_.assigned)
    variables_[static_cast<std::size_t>(variable)]->settle();
}

void DeviceProgram::run(std::span<const void* const> inputs, std::span<void* const> outputs,
                        Profiler& profiler) {
  session_->check_process();
  const std::lock_guard lock(session_->mutex);
  const Named named(*session_, "pycnn run");
  try {
    upload(inputs);
    prepare(profiler);
    const Range labels{0, plan_.label_steps}, rest{plan_.label_steps, plan_.run.size()};
    if (profiler.running()) {
      std::vector<std::int64_t> step_ns(plan_.run.size());
      launch_timed(plan_.run, run_calls_, labels, step_ns);
      check_computed_labels();
      launch_timed(plan_.run, run_calls_, rest, step_ns);
      profiler.record_run(step_ns);
    } else {
      launch(plan_.run, run_calls_, labels);
      check_computed_labels();
      launch_or_replay(rest);
    }
    // Before anything of the host is written: a run that failed has assigned nothing.
    wait();
    warm_ = true;
    download(outputs);
  } catch (...) {
    // What the device holds of the assigned ones may be half a step further, and any copy to it may
    // have failed. Nothing may be under way that reads the caller's arrays.
    std::string again;
    (void)session_->module->wait(session_->queue, again);
    for (const std::shared_ptr<DeviceVariable>& variable : variables_) variable->forget();
    throw;
  }
}

}  // namespace pycnn
