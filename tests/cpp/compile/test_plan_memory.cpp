// Random schedules of kernels that only mix bits, run by a plain interpreter and as programs. The
// kernels are as unkind as the contract allows: one kind spoils its outputs before it reads its
// inputs (never in place), the other reads everything first (in place where some random bits say
// so). All fill their scratch and compute nonsense when memory is shared that must not be.
#include <doctest/doctest.h>

#include <cstring>
#include <map>

#include "compile/nets.h"
#include "compile/passes.h"
#include "core/rng.h"

namespace pycnn {
namespace {

using Words = std::vector<std::int32_t>;

std::size_t count_of(const TensorView& view) {
  return static_cast<std::size_t>(element_count(view.spec->shape));
}

std::uint32_t mixed(std::uint32_t hash, std::uint32_t word) {
  return (hash ^ word) * 0x9E3779B1u + (hash >> 15);
}

std::int32_t result_word(std::uint32_t hash, std::size_t output, std::size_t i) {
  return static_cast<std::int32_t>(
      mixed(mixed(hash, static_cast<std::uint32_t>(output)), static_cast<std::uint32_t>(i)));
}

// The plan of a kernel: a salt, then for each output the inputs that it may overwrite.
constexpr std::size_t kPlanWords = 3;
std::uint32_t plan_word(const KernelArgs& args, std::size_t i) {
  std::uint32_t word = 0;
  std::memcpy(&word, args.plan + 4 * i, 4);
  return word;
}

bool shares_wrongly(const KernelArgs& args) {
  for (std::size_t o = 0; o < args.outputs.size(); ++o) {
    const TensorView& output = args.outputs[o];
    if (count_of(output) == 0) continue;
    for (std::size_t i = 0; i < args.inputs.size(); ++i)
      if (args.inputs[i].data == output.data && count_of(args.inputs[i]) > 0 &&
          (plan_word(args, 1 + o) >> i & 1u) == 0)
        return true;
    for (std::size_t other = 0; other < o; ++other)
      if (args.outputs[other].data == output.data && count_of(args.outputs[other]) > 0) return true;
  }
  return false;
}

void mix(const KernelArgs& args, bool spoil) noexcept {
  std::memset(args.scratch, 0x5A, 100);
  if (spoil)
    for (const TensorView& output : args.outputs)
      std::memset(output.data, 0xA5, 4 * count_of(output));
  const bool aligned = reinterpret_cast<std::uintptr_t>(args.plan) % 64 == 0;
  std::uint32_t hash = aligned && !shares_wrongly(args) ? plan_word(args, 0) : 0;
  for (const TensorView& input : args.inputs)
    for (std::size_t i = 0; i < count_of(input); ++i)
      hash = mixed(hash, static_cast<std::uint32_t>(input.as<std::int32_t>()[i]));
  for (std::size_t o = 0; o < args.outputs.size(); ++o)
    for (std::size_t i = 0; i < count_of(args.outputs[o]); ++i)
      args.outputs[o].as<std::int32_t>()[i] = result_word(hash, o, i);
}
void spoiling_kernel(const KernelArgs& args) noexcept { mix(args, true); }
void reading_kernel(const KernelArgs& args) noexcept { mix(args, false); }

class Draft {
 public:
  explicit Draft(std::uint64_t seed) : random_(seed) {
    const auto add_leaf = [&](ScheduleValue::Kind kind, int index) {
      schedule.add_value({kind, spec(), index});
    };
    for (int i = 0; i < 2; ++i) {
      add_leaf(ScheduleValue::Kind::kInput, i);
      schedule.inputs.emplace_back("in" + std::to_string(i), schedule.values.back().spec);
    }
    for (int i = 0; i < 4; ++i) {
      add_leaf(ScheduleValue::Kind::kVariable, i);
      schedule.variables.push_back("v" + std::to_string(i));
    }
    // Variables 2 and 3 may be assigned, so what is prepared reads only 0 and 1.
    std::vector<int> constant = {2, 3};
    for (std::uint32_t n = below(4); n > 0; --n) add_step(constant, true);
    std::vector<int> all = constant;
    for (const int leaf : {0, 1, 4, 5}) all.push_back(leaf);
    for (std::uint32_t n = 3 + below(30); n > 0; --n) add_step(all, false);
    for (std::uint32_t n = 1 + below(4); n > 0; --n)
      schedule.outputs.emplace_back("out" + std::to_string(n), pick(all));
    for (const int variable : {2, 3}) {
      std::vector<int> fitting;
      for (const int value : all)
        if (schedule.value(value).spec == schedule.value(2 + variable).spec)
          fitting.push_back(value);
      if (below(4) != 0) schedule.assignments.emplace_back(variable, pick(fitting));
    }
  }

  Schedule schedule;

 private:
  std::uint32_t below(std::uint32_t limit) { return random_(counter_++, 0)[0] % limit; }
  int pick(const std::vector<int>& values) {
    // Mostly recent ones, so that others die.
    const auto size = static_cast<std::uint32_t>(values.size());
    const std::uint32_t back = below(2) == 0 ? below(std::min(size, 4u)) : below(size);
    return values[size - 1 - back];
  }
  TensorSpec spec() {
    const std::int64_t sizes[] = {16, 16, 16, 16, 40, 1, 0};
    return {{sizes[below(7)]}, DType::kInt32};
  }

  void add_step(std::vector<int>& values, bool prepared) {
    if (below(8) == 0) {  // an alias
      ScheduleValue alias;
      alias.alias_of = pick(values);
      const std::int64_t count = schedule.value(alias.alias_of).spec.shape[0];
      alias.spec = {{count}, DType::kInt32};
      alias.prepared = prepared;
      values.push_back(schedule.add_value(alias));
      return;
    }
    ScheduleStep step;
    step.name = "step" + std::to_string(counter_);
    step.op_name = "mix";
    for (std::uint32_t n = below(4); n > 0; --n) step.inputs.push_back(pick(values));
    for (const int value : step.inputs) step.input_specs.push_back(schedule.value(value).spec);
    const bool in_place = below(3) != 0;
    step.kernel.run = in_place ? reading_kernel : spoiling_kernel;
    step.kernel.scratch_bytes = 100 + below(100);
    std::uint32_t words[kPlanWords] = {below(1000) + 1};
    for (std::uint32_t n = 1 + below(2); n > 0; --n) {
      ScheduleValue value;
      value.spec = spec();
      value.prepared = prepared;
      step.outputs.push_back(schedule.add_value(value));
      if (!in_place) continue;
      const auto bits = random_(counter_++, 0);
      step.kernel.in_place.push_back(bits[1] | bits[2]);
      words[step.outputs.size()] = step.kernel.in_place.back();
    }
    step.kernel.plan.resize(sizeof words);
    std::memcpy(step.kernel.plan.data(), words, sizeof words);
    for (const int value : step.outputs) values.push_back(value);
    (prepared ? schedule.prepare : schedule.run).push_back(step);
  }

  Philox random_;
  std::uint64_t counter_ = 0;
};

// What the schedule means: each value in a place of its own, assignments after everything else.
std::vector<Words> interpret(const Schedule& schedule, const std::vector<Words>& inputs,
                             std::vector<Words>& variables) {
  std::vector<Words> values(schedule.values.size());
  const auto read = [&](int v) {
    while (schedule.value(v).alias_of >= 0) v = schedule.value(v).alias_of;
    const ScheduleValue& value = schedule.value(v);
    const auto index = static_cast<std::size_t>(value.index);
    if (value.kind == ScheduleValue::Kind::kInput) return inputs[index];
    if (value.kind == ScheduleValue::Kind::kVariable) return variables[index];
    return values[static_cast<std::size_t>(v)];
  };
  for (const auto* steps : {&schedule.prepare, &schedule.run}) {
    for (const ScheduleStep& step : *steps) {
      std::uint32_t hash = 0;
      std::memcpy(&hash, step.kernel.plan.data(), 4);
      for (const int value : step.inputs)
        for (const std::int32_t word : read(value))
          hash = mixed(hash, static_cast<std::uint32_t>(word));
      for (std::size_t o = 0; o < step.outputs.size(); ++o) {
        Words& made = values[static_cast<std::size_t>(step.outputs[o])];
        made.resize(static_cast<std::size_t>(schedule.value(step.outputs[o]).spec.shape[0]));
        for (std::size_t i = 0; i < made.size(); ++i) made[i] = result_word(hash, o, i);
      }
    }
  }
  std::vector<Words> outputs;
  for (const auto& [name, value] : schedule.outputs) outputs.push_back(read(value));
  std::vector<std::pair<std::size_t, Words>> assigned;
  for (const auto& [variable, value] : schedule.assignments)
    assigned.emplace_back(static_cast<std::size_t>(variable), read(value));
  for (auto& [variable, words] : assigned) variables[variable] = words;
  return outputs;
}

Words random_words(std::size_t count, std::uint64_t seed) {
  Words words;
  words.reserve(count + 1);  // no words still have an address
  words.resize(count);
  for (std::size_t i = 0; i < count; ++i)
    words[i] = static_cast<std::int32_t>(Philox(seed)(i, 1)[0]);
  return words;
}

std::size_t words_in(const TensorSpec& spec) { return static_cast<std::size_t>(spec.shape[0]); }

ProgramPlan check_program(const Schedule& schedule, bool reuse) {
  ProgramPlan plan = plan_memory(schedule, reuse);
  std::vector<Words> expected_variables;
  for (std::size_t i = 0; i < schedule.variables.size(); ++i) {
    const TensorSpec& spec = schedule.values[2 + i].spec;
    expected_variables.push_back(random_words(words_in(spec), i));
    Tensor tensor(spec);
    std::memcpy(tensor.mutable_raw(), expected_variables[i].data(), tensor.bytes());
    plan.variables.push_back(tensor);
  }
  const std::vector<Tensor> variables = plan.variables;
  const ProgramPlan kept = plan;
  const Program program = make_program(std::move(plan));
  for (std::uint64_t run = 0; run < 3; ++run) {
    std::vector<Words> inputs;
    std::vector<const void*> input_arrays;
    for (const auto& [name, spec] : schedule.inputs) {
      inputs.push_back(random_words(words_in(spec) + 1, 100 + run));
      inputs.back().pop_back();
    }
    for (const Words& words : inputs) input_arrays.push_back(words.data());
    std::vector<Words> outputs;
    for (const auto& [name, spec] : program.outputs()) {
      outputs.emplace_back(words_in(spec) + 1);
      outputs.back().pop_back();
    }
    std::vector<void*> output_arrays;
    for (Words& words : outputs) output_arrays.push_back(words.data());
    program.run(input_arrays, output_arrays);
    CHECK(outputs == interpret(schedule, inputs, expected_variables));
    for (std::size_t i = 0; i < variables.size(); ++i)
      CHECK(std::memcmp(variables[i].raw(), expected_variables[i].data(), variables[i].bytes()) ==
            0);
  }
  return kept;
}

TEST_CASE("programs compute what their schedule means, with and without sharing memory") {
  int shared_less = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    CAPTURE(seed);
    const Draft draft(seed);
    const ProgramPlan shared = check_program(draft.schedule, true);
    const ProgramPlan separate = check_program(draft.schedule, false);
    CHECK(shared.arena_bytes <= separate.arena_bytes);
    CHECK(shared.arena_bytes <= shared.unshared_bytes);
    shared_less += shared.arena_bytes < separate.arena_bytes;
  }
  CHECK(shared_less > 300);
}

int copies(const Program& program) {
  int count = 0;
  program.start_profile();
  for (const StepProfile& step : program.profile()) count += step.op == "copy";
  return count;
}

TEST_CASE("a parameter is updated in place and outputs are written where the caller wants them") {
  const Graph graph = test::small_net(4, true);
  Variables variables;
  create_variables(graph, variables, 1);
  CompileOptions options = test::training_options();
  options.optimizer->momentum = 0.9;
  options.optimizer->ema_decay = 0.9;
  CHECK(copies(compile(graph, variables, options)) == 0);
  options.reuse_memory = false;
  CHECK(copies(compile(graph, variables, options)) > 0);
}

TEST_CASE("an output that is a variable has the value from before the run") {
  Graph graph;
  const Symbol count = graph.buffer("count", {{1}, DType::kInt64});
  graph.set_output("before", count);
  const Symbol next = graph.add(ops::Increment{}, {count});
  graph.set_output("after", next);
  graph.assign(count, next);
  Variables variables;
  create_variables(graph, variables);
  const Program program = compile(graph, variables);
  for (std::int64_t i = 0; i < 3; ++i) {
    const auto results = program.run({});
    CHECK(*results.at("before").data<std::int64_t>() == i);
    CHECK(*results.at("after").data<std::int64_t>() == i + 1);
  }
  CHECK(*variables["count"].data<std::int64_t>() == 3);
}

TEST_CASE("variables can change places") {
  Graph graph;
  const TensorSpec spec{{2}, DType::kFloat32};
  const Symbol a = graph.buffer("a", spec, test::constant(1.0));
  const Symbol b = graph.buffer("b", spec, test::constant(2.0));
  graph.assign(a, b);
  graph.assign(b, a);
  Variables variables;
  create_variables(graph, variables);
  const Program program = compile(graph, variables);
  program.run({});
  CHECK(variables["a"].data<float>()[0] == 2.0f);
  CHECK(variables["b"].data<float>()[1] == 1.0f);
}

}  // namespace
}  // namespace pycnn
