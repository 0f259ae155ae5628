// The step loop.
//
// Everything that a run needs is laid out beforehand in a Workspace: views, kernel arguments and
// memory. A run takes an idle workspace (or makes one, when more threads run than ever before),
// fills in the pointers to the caller's arrays and calls one function pointer after another.
#include "runtime/program_state.h"

#include <chrono>
#include <cstring>
#include <new>

#include "core/residence.h"
#include "pycnn/error.h"

namespace pycnn {
namespace {

std::int64_t now_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Tensor bytes_tensor(std::size_t bytes) {
  return Tensor({{static_cast<std::int64_t>(bytes)}, DType::kUInt8});
}

struct Range {  // of steps
  std::size_t begin;
  std::size_t end;
};

void call(const Step& step, const KernelArgs& args) noexcept { step.kernel.run(args); }

// One reading of the clock between steps, so that their times add up to the time of the run.
void call_timed(const std::vector<Step>& steps, const std::vector<KernelArgs>& calls, Range range,
                std::vector<std::int64_t>& step_ns) noexcept {
  std::int64_t before = now_ns();
  for (std::size_t i = range.begin; i < range.end; ++i) {
    call(steps[i], calls[i]);
    const std::int64_t after = now_ns();
    step_ns[i] = after - before;
    before = after;
  }
}

void call_plain(const std::vector<Step>& steps, const std::vector<KernelArgs>& calls,
                Range range) noexcept {
  for (std::size_t i = range.begin; i < range.end; ++i) call(steps[i], calls[i]);
}

std::size_t operand_count(const std::vector<Step>& steps) {
  std::size_t count = 0;
  for (const Step& step : steps) count += step.inputs.size() + step.outputs.size();
  return count;
}

void check_array_count(const char* what, std::size_t given, std::size_t wanted) {
  if (given != wanted)
    throw ArgumentError("program: " + std::to_string(given) + " " + what + " given, it has " +
                        std::to_string(wanted));
}

void check_pointer(const char* what, const std::pair<std::string, TensorSpec>& array,
                   const void* data) {
  if (data == nullptr && element_count(array.second.shape) > 0)
    throw ArgumentError("program: the array of " + std::string(what) + " '" + array.first +
                        "' is null");
}

}  // namespace

Program::State::State(ProgramPlan program_plan)
    : plan(std::move(program_plan)),
      profiler(plan),
      variables_(plan.variables),
      locks_(plan.variables, plan.variable_names, plan.assigned),
      label_checks_(label_checks(plan)),
      device_(plan.device.module != nullptr ? std::make_unique<DeviceProgram>(plan, label_checks_)
                                            : nullptr),
      prepared_(bytes_tensor(device_ != nullptr ? 0 : plan.prepared_bytes)),
      prepare_ns_(plan.prepare.size()),
      prepared_versions_(plan.prepare_reads.size(), 0),
      tuner_(plan.run.size(), plan.threads),
      fork_hooks_(this,
                  {[](void* self) noexcept { static_cast<State*>(self)->idle_mutex_.lock(); },
                   [](void* self) noexcept { static_cast<State*>(self)->idle_mutex_.unlock(); },
                   [](void* self) noexcept { static_cast<State*>(self)->renew_after_fork(); }}) {
  if (device_ != nullptr) return;
  place_plans();
  prepare_calls_ = make_calls(plan.prepare, prepare_views_, nullptr, nullptr);
  std::size_t view = 0;
  for (const Step& step : plan.run) {
    for (const std::vector<Operand>* operands : {&step.inputs, &step.outputs}) {
      for (const Operand& operand : *operands) {
        const bool input = operand.place.space == Place::Space::kInput;
        if (input || operand.place.space == Place::Space::kOutput)
          patches_.push_back(
              {view, !input, static_cast<std::size_t>(operand.place.index), operand.place.offset});
        ++view;
      }
    }
  }
  idle_.push_back(make_workspace());
  workspaces_ = 1;
}

// Kernels may expect their plan at an aligned address, which a vector does not give.
void Program::State::place_plans() {
  std::size_t bytes = 0;
  for (const std::vector<Step>* steps : {&plan.prepare, &plan.run})
    for (const Step& step : *steps) bytes += aligned_bytes(step.kernel.plan.size());
  plan_memory_ = bytes_tensor(bytes);
  auto* next = static_cast<std::byte*>(plan_memory_.mutable_raw());
  for (const std::vector<Step>* steps : {&plan.prepare, &plan.run}) {
    std::vector<const std::byte*>& plans = steps == &plan.prepare ? prepare_plans_ : run_plans_;
    for (const Step& step : *steps) {
      const std::vector<std::byte>& data = step.kernel.plan;
      plans.push_back(data.empty() ? nullptr : next);
      if (!data.empty()) std::memcpy(next, data.data(), data.size());
      next += aligned_bytes(data.size());
    }
  }
}

TensorView Program::State::view_of(const Operand& operand, std::byte* arena) const {
  TensorView view{nullptr, &operand.spec, operand.pixel_pitch};
  const auto index = static_cast<std::size_t>(operand.place.index);
  switch (operand.place.space) {
    case Place::Space::kArena:
      view.data = arena + operand.place.offset;
      break;
    case Place::Space::kPrepared:
      // Written by prepare steps only; the version of this private tensor does not matter.
      view.data =
          static_cast<std::byte*>(const_cast<void*>(prepared_.raw())) + operand.place.offset;
      break;
    case Place::Space::kVariable:
      view.data = TensorResidence::memory(variables_[index]);
      break;
    case Place::Space::kInput:
    case Place::Space::kOutput:
      break;
  }
  return view;
}

std::vector<KernelArgs> Program::State::make_calls(const std::vector<Step>& steps,
                                                   std::vector<TensorView>& views, std::byte* arena,
                                                   std::byte* scratch) const {
  const std::vector<const std::byte*>& plans =
      &steps == &plan.prepare ? prepare_plans_ : run_plans_;
  views.reserve(operand_count(steps));
  std::vector<KernelArgs> calls;
  calls.reserve(steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Step& step = steps[i];
    const TensorView* first = views.data() + views.size();
    for (const Operand& operand : step.inputs) views.push_back(view_of(operand, arena));
    for (const Operand& operand : step.outputs) views.push_back(view_of(operand, arena));
    calls.push_back({&step.op,
                     {first, step.inputs.size()},
                     {first + step.inputs.size(), step.outputs.size()},
                     scratch,
                     plan.threads,
                     plans[i]});
  }
  return calls;
}

std::unique_ptr<Workspace> Program::State::make_workspace() const {
  auto workspace = std::make_unique<Workspace>();
  const std::size_t arena_bytes = aligned_bytes(plan.arena_bytes);
  workspace->memory = bytes_tensor(arena_bytes + plan.scratch_bytes);
  auto* arena = static_cast<std::byte*>(workspace->memory.mutable_raw());
  workspace->arena = arena;
  workspace->scratch = arena + arena_bytes;
  workspace->calls = make_calls(plan.run, workspace->views, arena, workspace->scratch);
  workspace->step_ns.resize(plan.run.size());
  return workspace;
}

// A workspace for the duration of one run.
class Program::State::Lease {
 public:
  explicit Lease(State& state) : state_(state) {
    {
      const std::lock_guard lock(state_.idle_mutex_);
      if (!state_.idle_.empty()) {
        workspace_ = std::move(state_.idle_.back());
        state_.idle_.pop_back();
        return;
      }
    }
    workspace_ = state_.make_workspace();
    const std::lock_guard lock(state_.idle_mutex_);
    // Room for its return, which must not fail.
    state_.idle_.reserve(++state_.workspaces_);
  }
  ~Lease() {
    const std::lock_guard lock(state_.idle_mutex_);
    state_.idle_.push_back(std::move(workspace_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Workspace& operator*() noexcept { return *workspace_; }

 private:
  State& state_;
  std::unique_ptr<Workspace> workspace_;
};

void Program::State::check_arrays(std::span<const void* const> inputs,
                                  std::span<void* const> outputs) const {
  check_array_count("inputs", inputs.size(), plan.inputs.size());
  check_array_count("outputs", outputs.size(), plan.outputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) check_pointer("input", plan.inputs[i], inputs[i]);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    check_pointer("output", plan.outputs[i], outputs[i]);
}

bool Program::State::is_prepared() const noexcept {
  for (std::size_t i = 0; i < prepared_versions_.size(); ++i) {
    const auto variable = static_cast<std::size_t>(plan.prepare_reads[i]);
    if (variables_[variable].version() != prepared_versions_[i]) return false;
  }
  return true;
}

void Program::State::prepare(std::byte* scratch) noexcept {
  prepared_once_ = false;  // until it is done: so a fork meanwhile leaves it in the child
  for (std::size_t i = 0; i < prepared_versions_.size(); ++i)
    prepared_versions_[i] = variables_[static_cast<std::size_t>(plan.prepare_reads[i])].version();
  for (KernelArgs& args : prepare_calls_) args.scratch = scratch;
  if (profiler.running()) {
    call_timed(plan.prepare, prepare_calls_, {0, plan.prepare.size()}, prepare_ns_);
    profiler.record_prepare(prepare_ns_);
  } else {
    call_plain(plan.prepare, prepare_calls_, {0, plan.prepare.size()});
  }
  prepared_once_ = true;
}

// Of a forked child: the threads that ran the program are gone, and the workspaces they had with
// them. What they were preparing is prepared anew.
void Program::State::renew_after_fork() noexcept {
  idle_mutex_.unlock();
  new (&prepared_mutex_) std::shared_mutex;
  tuner_.renew_after_fork();
  profiler.renew_after_fork();
}

void Program::State::run_steps(Workspace& workspace) {
  const bool profiled = profiler.running();
  std::unique_lock measuring(tuner_.mutex(), std::defer_lock);
  if (!workspace.tuned) {
    const bool settled = tuner_.finished();
    if (!settled) (void)measuring.try_lock();
    if (settled || measuring.owns_lock())
      for (std::size_t i = 0; i < workspace.calls.size(); ++i)
        workspace.calls[i].threads = tuner_.threads(i);
    workspace.tuned = settled;
  }
  const bool timed = profiled || measuring.owns_lock();
  const auto call_range = [&](Range range) {
    if (timed)
      call_timed(plan.run, workspace.calls, range, workspace.step_ns);
    else
      call_plain(plan.run, workspace.calls, range);
  };
  call_range({0, plan.label_steps});
  for (const LabelCheck& check : label_checks_.computed)
    check_labels(check, workspace.calls[check.step].inputs[1].data);
  std::size_t done = plan.label_steps;
  const auto call_until = [&](std::size_t end) {
    call_range({done, end});
    done = end;
  };
  if (plan.exchange.exchange != nullptr) {
    try {
      for (std::size_t b = 0; b < plan.exchange.buckets.size(); ++b) {
        const GradientBucket& bucket = plan.exchange.buckets[b];
        call_until(bucket.steps);
        const TensorView gradients = view_of(bucket.gradients, workspace.arena);
        plan.exchange.exchange->begin(
            b, {gradients.as<float>(), static_cast<std::size_t>(gradients.dim(0))});
      }
      call_until(plan.exchange.steps);
      plan.exchange.exchange->finish();
    } catch (...) {
      mark_assigned();  // running statistics are written
      throw;
    }
  }
  call_until(plan.run.size());
  if (profiled) profiler.record_run(workspace.step_ns);
  if (measuring.owns_lock()) tuner_.record(workspace.step_ns);
}

void Program::State::check(std::span<const void* const> inputs,
                           std::span<void* const> outputs) const {
  check_arrays(inputs, outputs);
  for (const LabelCheck& check : label_checks_.inputs)
    check_labels(check, inputs[static_cast<std::size_t>(check.labels.place.index)]);
}

std::shared_ptr<DeviceRun> Program::State::begin(std::span<const void* const> inputs,
                                                 std::span<void* const> outputs, bool late) {
  if (device_ == nullptr) {
    run(inputs, outputs);
    return nullptr;
  }
  check(inputs, outputs);
  const VariableLocks::Hold hold(locks_);
  return device_->begin(inputs, outputs, late, profiler);
}

void Program::State::collect(DeviceRun& run) { device_->collect(run); }

bool Program::State::overlaps() const noexcept {
  return device_ != nullptr && label_checks_.computed.empty();
}

std::size_t Program::State::lane_scratch_bytes() const {
  return device_ == nullptr ? 0 : device_->lane_scratch_bytes();
}

std::string Program::State::recording() const {
  return device_ == nullptr ? "" : device_->recording();
}

void Program::State::run(std::span<const void* const> inputs, std::span<void* const> outputs) {
  check(inputs, outputs);
  const VariableLocks::Hold hold(locks_);
  if (device_ != nullptr) {
    device_->run(inputs, outputs, profiler);
    return;
  }
  if (TensorResidence::any())
    for (const Tensor& variable : variables_) (void)variable.raw();
  Lease lease(*this);
  Workspace& workspace = *lease;
  for (const Patch& patch : patches_) {
    void* const array =
        patch.output ? outputs[patch.index] : const_cast<void*>(inputs[patch.index]);
    workspace.views[patch.view].data = static_cast<std::byte*>(array) + patch.offset;
  }

  if (plan.prepare.empty()) {
    run_steps(workspace);
  } else {
    std::shared_lock reading(prepared_mutex_);
    while (!prepared_once_ || !is_prepared()) {
      reading.unlock();
      {
        const std::lock_guard writing(prepared_mutex_);
        if (!prepared_once_ || !is_prepared()) prepare(workspace.scratch);
      }
      reading.lock();
    }
    run_steps(workspace);
  }
  mark_assigned();
}

void Program::State::mark_assigned() {
  for (const int variable : plan.assigned)
    variables_[static_cast<std::size_t>(variable)].mark_written();
}

}  // namespace pycnn
