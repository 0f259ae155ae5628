#include "pycnn/program.h"

#include "pycnn/error.h"
#include "runtime/device_program.h"
#include "runtime/program_state.h"

namespace pycnn {
namespace {

using NamedSpecs = std::vector<std::pair<std::string, TensorSpec>>;

std::string names_of(const NamedSpecs& specs) {
  std::string names;
  for (const auto& [name, spec] : specs) names += (names.empty() ? "'" : ", '") + name + "'";
  return names.empty() ? "none" : names;
}

void check_names(const std::map<std::string, Tensor>& given, const NamedSpecs& wanted) {
  for (const auto& [name, tensor] : given) {
    bool known = false;
    for (const auto& [wanted_name, spec] : wanted) known = known || wanted_name == name;
    if (!known)
      throw ArgumentError("program: there is no input '" + name + "'; it has " + names_of(wanted));
  }
  for (const auto& [name, spec] : wanted)
    if (!given.contains(name))
      throw ArgumentError("program: input '" + name + "' " + to_string(spec) + " is missing");
}

void check_spec(const std::string& name, const TensorSpec& given, const TensorSpec& wanted) {
  if (given.dtype != wanted.dtype)
    throw DTypeError("program: input '" + name + "' is " + long_name(given.dtype) +
                     ", it expects " + long_name(wanted.dtype));
  if (given.shape != wanted.shape)
    throw ShapeError("program: input '" + name + "' has shape " + to_string(given.shape) +
                     ", it was compiled for " + to_string(wanted.shape));
}

}  // namespace

GradientExchange::~GradientExchange() = default;

struct PendingRun::State {
  std::shared_ptr<Program::State> program;
  std::shared_ptr<DeviceRun> run;

  State(std::shared_ptr<Program::State> of, std::shared_ptr<DeviceRun> begun)
      : program(std::move(of)), run(std::move(begun)) {}
};

PendingRun::PendingRun(std::shared_ptr<State> state) : state_(std::move(state)) {}

void PendingRun::wait() {
  if (state_ != nullptr) state_->program->collect(*state_->run);
}

Program::Program(std::shared_ptr<State> state) : state_(std::move(state)) {}

Program make_program(ProgramPlan plan) {
  return Program(std::make_shared<Program::State>(std::move(plan)));
}

const NamedSpecs& Program::inputs() const { return state_->plan.inputs; }
const NamedSpecs& Program::outputs() const { return state_->plan.outputs; }

void Program::run(std::span<const void* const> inputs, std::span<void* const> outputs) const {
  state_->run(inputs, outputs);
}

PendingRun Program::begin(std::span<const void* const> inputs, std::span<void* const> outputs,
                          bool late) const {
  std::shared_ptr<DeviceRun> run = state_->begin(inputs, outputs, late);
  if (run == nullptr) return {};
  return PendingRun(std::make_shared<PendingRun::State>(state_, std::move(run)));
}

bool Program::overlaps() const { return state_->overlaps(); }

std::map<std::string, Tensor> Program::run(const std::map<std::string, Tensor>& inputs) const {
  check_names(inputs, this->inputs());
  std::vector<const void*> input_arrays;
  for (const auto& [name, spec] : this->inputs()) {
    const Tensor& tensor = inputs.find(name)->second;
    if (!tensor.defined()) throw ArgumentError("program: input '" + name + "' is an empty tensor");
    check_spec(name, tensor.spec(), spec);
    input_arrays.push_back(tensor.raw());
  }
  std::map<std::string, Tensor> results;
  std::vector<void*> output_arrays;
  for (const auto& [name, spec] : outputs())
    output_arrays.push_back(results.emplace(name, Tensor(spec)).first->second.mutable_raw());
  run(input_arrays, output_arrays);
  return results;
}

std::string Program::explain() const { return state_->explain(); }
std::string Program::graph_text() const { return state_->plan.graph_text; }
std::string Program::recording() const { return state_->recording(); }
int Program::threads() const { return state_->plan.threads; }
std::string Program::isa() const { return isa_name(state_->plan.isa); }
const std::vector<std::string>& Program::warnings() const { return state_->plan.warnings; }

MemoryReport memory_of(const ProgramPlan& plan) {
  MemoryReport report;
  report.arena_bytes = plan.arena_bytes;
  report.scratch_bytes = plan.scratch_bytes;
  report.prepared_bytes = plan.prepared_bytes;
  report.unshared_bytes = plan.unshared_bytes;
  if (plan.device.module != nullptr) {
    report.transfer_bytes = DeviceProgram::transfer_bytes(plan);
    report.staging_bytes = DeviceProgram::staging_bytes(plan);
  }
  return report;
}

MemoryReport Program::memory() const {
  MemoryReport report = memory_of(state_->plan);
  for (const Tensor& variable : state_->plan.variables) report.variable_bytes += variable.bytes();
  report.lane_scratch_bytes = state_->lane_scratch_bytes();
  return report;
}

void Program::start_profile() const { state_->profiler.start(); }
std::vector<StepProfile> Program::profile() const { return state_->profiler.finish(); }
std::vector<StepProfile> Program::steps() const { return state_->profiler.untimed(); }

}  // namespace pycnn
