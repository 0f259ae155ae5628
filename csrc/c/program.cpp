#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include "c/handles.h"
#include "pycnn/network.h"

namespace pycnn::c {

pycnn_compile_options complete(const pycnn_compile_options* given, const char* who) {
  pycnn_compile_options options = {};
  (void)pycnn_compile_options_init(&options, sizeof(options));
  if (given == nullptr) return options;
  if (given->struct_size < offsetof(pycnn_compile_options, memory_limit_bytes) ||
      given->struct_size > kMaxStructBytes)
    throw ArgumentError(std::string(who) +
                        ": the options were not set by pycnn_compile_options_init");
  std::memcpy(&options, given, std::min(sizeof(options), given->struct_size));
  require(options.device, who, "options->device");
  return options;
}

CompileOptions to_compile_options(const pycnn_compile_options& given, const char* who) {
  CompileOptions options;
  options.threads = given.threads;
  options.device = given.device;
  options.dtype = to_dtype(given.dtype, who, "options->dtype");
  options.memory_limit_bytes = given.memory_limit_bytes;
  options.winograd = given.winograd != 0;
  options.tf32 = given.tf32 != 0;
  return options;
}

pycnn_memory to_memory(const MemoryReport& report) {
  return {
      report.arena_bytes + report.scratch_bytes + report.transfer_bytes + report.lane_scratch_bytes,
      report.prepared_bytes, report.variable_bytes};
}

}  // namespace pycnn::c

namespace {

using namespace pycnn::c;
using NamedSpecs = std::vector<std::pair<std::string, pycnn::TensorSpec>>;

pycnn::Graph graph_for(const pycnn_model* model, const pycnn_compile_options& options,
                       const char* who) {
  if (options.batch < 1)
    throw pycnn::ArgumentError(std::string(who) + ": options->batch is " +
                               std::to_string(options.batch) + ", expected at least 1");
  return pycnn::with_batch(model->model.graph, options.batch,
                           to_dtype(options.images, who, "options->images"));
}

const NamedSpecs& inputs_of(const pycnn_program& program) { return program.program.inputs(); }
const NamedSpecs& outputs_of(const pycnn_program& program) { return program.program.outputs(); }
using SpecsOf = const NamedSpecs& (*)(const pycnn_program&);

pycnn_status tell_count(const pycnn_program* program, const char* who, std::size_t* count,
                        SpecsOf specs) noexcept {
  return guarded([&] {
    require(program, who, "program");
    require(count, who, "count");
    *count = specs(*program).size();
  });
}

pycnn_status tell_spec(const pycnn_program* program, const char* who, std::size_t index,
                       pycnn_array_info* info, SpecsOf specs) noexcept {
  return guarded([&] {
    require(program, who, "program");
    require(info, who, "info");
    require_index(index, specs(*program).size(), who, "index");
    const auto& [name, spec] = specs(*program)[index];
    *info = describe(name, spec);
  });
}

// Pointers of the caller's arrays, in a place that takes memory only where there are many.
template <class Pointer>
class Pointers {
 public:
  explicit Pointers(std::size_t count) : count_(count) {
    if (count > kFew) many_.resize(count);
  }
  Pointer& operator[](std::size_t i) { return count_ > kFew ? many_[i] : few_[i]; }
  std::span<const Pointer> span() const { return {count_ > kFew ? many_.data() : few_, count_}; }

 private:
  static constexpr std::size_t kFew = 8;
  std::size_t count_;
  Pointer few_[kFew] = {};
  std::vector<Pointer> many_;
};

// Fills in the pointers of arrays that have the count and the sizes of `specs`.
template <class Pointer, class Array>
void check_arrays(const Array* arrays, std::size_t count, const NamedSpecs& specs, const char* kind,
                  Pointers<Pointer>& pointers) {
  constexpr const char* kWho = "pycnn_program_run";
  if (count != specs.size())
    throw pycnn::ArgumentError(std::string(kWho) + ": " + kind + "_count is " +
                               std::to_string(count) + ", the program has " +
                               std::to_string(specs.size()));
  if (count > 0) require(arrays, kWho, (std::string(kind) + "s").c_str());
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [name, spec] = specs[i];
    if (arrays[i].data == nullptr || arrays[i].bytes != byte_size(spec))
      require_array(arrays[i].data, arrays[i].bytes, spec, kWho,
                    std::string(kind) + " '" + name + "'");
    pointers[i] = arrays[i].data;
  }
}

}  // namespace

pycnn_status pycnn_compile_options_init(pycnn_compile_options* options, size_t struct_size) {
  return guarded([&] {
    constexpr const char* kWho = "pycnn_compile_options_init";
    require(options, kWho, "options");
    require_struct_size(struct_size, offsetof(pycnn_compile_options, memory_limit_bytes), kWho,
                        "pycnn_compile_options");
    pycnn_compile_options defaults = {};
    defaults.struct_size = struct_size;
    defaults.batch = 1;
    defaults.images = PYCNN_FLOAT32;
    defaults.device = "cpu";
    defaults.dtype = PYCNN_FLOAT32;
    defaults.winograd = 1;
    std::memset(static_cast<void*>(options), 0, struct_size);
    std::memcpy(static_cast<void*>(options), &defaults, std::min(struct_size, sizeof(defaults)));
  });
}

pycnn_status pycnn_plan_memory(const pycnn_model* model, const pycnn_compile_options* options,
                               pycnn_memory* memory) {
  return guarded([&] {
    constexpr const char* kWho = "pycnn_plan_memory";
    require(model, kWho, "model");
    require(memory, kWho, "memory");
    const pycnn_compile_options given = complete(options, kWho);
    *memory = to_memory(
        pycnn::plan_memory(graph_for(model, given, kWho), to_compile_options(given, kWho)).memory);
  });
}

pycnn_status pycnn_program_compile(const pycnn_model* model, const pycnn_compile_options* options,
                                   pycnn_program** program) {
  return guarded([&] {
    constexpr const char* kWho = "pycnn_program_compile";
    require(model, kWho, "model");
    require(program, kWho, "program");
    const pycnn_compile_options given = complete(options, kWho);
    // Tensors are shared, the map is not: compiling does not change the model.
    pycnn::Variables variables = model->model.variables;
    *program = new pycnn_program{
        pycnn::compile(graph_for(model, given, kWho), variables, to_compile_options(given, kWho))};
  });
}

void pycnn_program_free(pycnn_program* program) { delete program; }

pycnn_status pycnn_program_input_count(const pycnn_program* program, size_t* count) {
  return tell_count(program, "pycnn_program_input_count", count, inputs_of);
}

pycnn_status pycnn_program_input(const pycnn_program* program, size_t index,
                                 pycnn_array_info* info) {
  return tell_spec(program, "pycnn_program_input", index, info, inputs_of);
}

pycnn_status pycnn_program_output_count(const pycnn_program* program, size_t* count) {
  return tell_count(program, "pycnn_program_output_count", count, outputs_of);
}

pycnn_status pycnn_program_output(const pycnn_program* program, size_t index,
                                  pycnn_array_info* info) {
  return tell_spec(program, "pycnn_program_output", index, info, outputs_of);
}

pycnn_status pycnn_program_memory(const pycnn_program* program, pycnn_memory* memory) {
  return guarded([&] {
    require(program, "pycnn_program_memory", "program");
    require(memory, "pycnn_program_memory", "memory");
    *memory = to_memory(program->program.memory());
  });
}

pycnn_status pycnn_program_run(const pycnn_program* program, const pycnn_input* inputs,
                               size_t input_count, const pycnn_output* outputs,
                               size_t output_count) {
  return guarded([&] {
    require(program, "pycnn_program_run", "program");
    Pointers<const void*> from(inputs_of(*program).size());
    Pointers<void*> to(outputs_of(*program).size());
    check_arrays(inputs, input_count, inputs_of(*program), "input", from);
    check_arrays(outputs, output_count, outputs_of(*program), "output", to);
    program->program.run(from.span(), to.span());
  });
}
