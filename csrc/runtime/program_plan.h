#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/devices.h"
#include "pycnn/ops.h"
#include "pycnn/program.h"
#include "pycnn/tensor.h"

// What compile hands to the runtime: kernels, places in memory and names. No graph any more.
namespace pycnn {

// Where a tensor is while a step runs.
struct Place {
  enum class Space : std::uint8_t {
    kArena,     // offset in the memory of one run
    kPrepared,  // offset in memory that lives as long as the program
    kVariable,  // index: variable
    kInput,     // index: array of the caller; offset in it
    kOutput,    // likewise
  };
  Space space = Space::kArena;
  int index = 0;
  std::size_t offset = 0;
  bool operator==(const Place&) const = default;
};

struct Operand {
  Place place;
  TensorSpec spec;
  std::int64_t pixel_pitch = 0;  // as TensorView::pixel_pitch
};

struct Step {
  std::string name;     // of the node; for a copy of the output or variable
  std::string op_name;  // "pack" and "copy" for steps that are no op of the graph
  Op op;
  Kernel kernel;
  std::size_t scratch_bytes = 0;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
  std::vector<Refusal> refused;
  std::vector<std::pair<std::string, std::string>> absorbed;  // as StepProfile::absorbed
  Cost cost;
};

// When the gradients of a bucket stand in memory.
struct GradientBucket {
  std::size_t steps = 0;  // of the run, that come before
  Operand gradients;      // f32 (N)
};

// A run's stops for a GradientExchange.
struct ExchangePlan {
  std::shared_ptr<GradientExchange> exchange;  // null: there are none
  std::vector<GradientBucket> buckets;
  std::size_t steps = 0;  // before the first that reads what was exchanged
};

struct ProgramPlan {
  // Results of `prepare` depend on variables only and are made again when one of them changes.
  std::vector<Step> prepare;
  std::vector<Step> run;
  std::size_t label_steps = 0;  // the first of the run: they make labels, to be looked at then
  ExchangePlan exchange;
  std::vector<std::pair<std::string, TensorSpec>> inputs;
  std::vector<std::pair<std::string, TensorSpec>> outputs;
  std::vector<std::string> variable_names;
  std::vector<Tensor> variables;
  std::vector<int> prepare_reads;  // variables
  std::vector<int> assigned;       // variables that a run writes
  std::size_t arena_bytes = 0;
  std::size_t unshared_bytes = 0;
  std::size_t prepared_bytes = 0;
  std::size_t scratch_bytes = 0;
  DeviceChoice device;  // where it runs; no module: the CPU
  Isa isa = Isa::kBaseline;
  int threads = 1;
  std::string graph_text;
  std::vector<std::string> warnings;
};

constexpr std::size_t kMemoryAlignment = 64;
constexpr std::size_t aligned_bytes(std::size_t bytes) {
  return (bytes + kMemoryAlignment - 1) / kMemoryAlignment * kMemoryAlignment;
}

// What a run takes, without variables and without what only runs take.
MemoryReport memory_of(const ProgramPlan& plan);

// The program of a plan. Allocates the working space of one run and what is prepared; throws
// MemoryLimitError when it cannot be had.
Program make_program(ProgramPlan plan);

}  // namespace pycnn
