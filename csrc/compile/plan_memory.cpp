// Places for the values of a schedule.
//
// Values that are the same memory under several names (aliases, results made in place), or parts of
// one another, form one storage. Inputs, variables and what is prepared live outside of the run's
// arena. An assigned value is written straight into its variable where the kernel may overwrite
// what it reads there and nobody needs the old value afterwards; an output straight into the
// caller's array. All other assignments and outputs are copied by steps at the end of the run:
// first outputs, then assignments, so that an output that is a variable has the value from before
// the run.
#include <algorithm>

#include "compile/arena.h"
#include "compile/passes.h"
#include "runtime/copy_kernel.h"

namespace pycnn {
namespace {

using Space = Place::Space;

constexpr std::size_t kMaskBits = 32;  // of Kernel::in_place

struct Storage {
  Place place;
  std::size_t bytes = 0;
  // Steps of the section that makes it: first write, last use.
  int first = -1;
  int last = -1;
  int output = -1;  // of the first step
  bool has_parts = false;
};

std::int64_t bytes_of(const TensorSpec& spec) { return static_cast<std::int64_t>(byte_size(spec)); }

class Planner {
 public:
  Planner(Schedule schedule, bool reuse)
      : schedule_(std::move(schedule)), reuse_(reuse), makes_(schedule_.run.size()) {}

  ProgramPlan result() {
    make_storages();
    find_makers_and_reads();
    place_assignments();
    place_outputs();
    find_lifetimes();
    for (const Storage& storage : storages_)
      if (storage.place.space == Space::kArena)
        plan_.unshared_bytes += aligned_bytes(storage.bytes);
    if (reuse_) {
      work_in_place(schedule_.prepare, Space::kPrepared);
      work_in_place(schedule_.run, Space::kArena);
    }
    plan_.prepared_bytes = lay_out(Space::kPrepared);
    plan_.arena_bytes = lay_out(Space::kArena);
    fill_plan();
    return std::move(plan_);
  }

 private:
  Storage& storage(int s) { return storages_[static_cast<std::size_t>(s)]; }
  int storage_of(int value) {
    int& known = of_value_[static_cast<std::size_t>(value)];
    const auto into = [&](int s) -> int& { return merged_[static_cast<std::size_t>(s)]; };
    // Halves the path to the root, so that long chains of in-place ops stay cheap.
    while (into(known) != known) known = into(known) = into(into(known));
    return known;
  }

  int add_storage(const ScheduleValue& value) {
    Storage made;
    made.bytes = byte_size(value.spec);
    if (value.kind == ScheduleValue::Kind::kInput)
      made.place = {Space::kInput, value.index};
    else if (value.kind == ScheduleValue::Kind::kVariable)
      made.place = {Space::kVariable, value.index};
    else
      made.place.space = value.prepared ? Space::kPrepared : Space::kArena;
    storages_.push_back(made);
    merged_.push_back(static_cast<int>(merged_.size()));
    return static_cast<int>(storages_.size()) - 1;
  }

  void make_storages() {
    variable_reads_.resize(schedule_.variables.size(), -1);
    variable_storage_.resize(schedule_.variables.size(), -1);
    for (const ScheduleValue& value : schedule_.values) {
      const bool own = value.alias_of < 0 && value.part_of < 0;
      of_value_.push_back(own ? add_storage(value) : -1);
      if (value.kind == ScheduleValue::Kind::kVariable)
        variable_storage_[static_cast<std::size_t>(value.index)] = of_value_.back();
    }
    // A whole may come after its parts.
    for (std::size_t v = 0; v < of_value_.size(); ++v) {
      const int root = root_of(static_cast<int>(v));
      const int whole = schedule_.value(root).part_of;
      of_value_[v] = of_value_[static_cast<std::size_t>(whole >= 0 ? whole : root)];
      if (whole >= 0) storage(of_value_[v]).has_parts = true;
    }
  }

  void find_makers_and_reads() {
    const auto read = [&](int value, int step) {
      const Place& place = storage(storage_of(value)).place;
      if (place.space == Space::kVariable)
        variable_reads_[static_cast<std::size_t>(place.index)] = step;
    };
    for (int i = 0; i < makes_; ++i) {
      const ScheduleStep& step = schedule_.run[static_cast<std::size_t>(i)];
      for (const int value : step.inputs) read(value, i);
      for (std::size_t o = 0; o < step.outputs.size(); ++o) {
        Storage& made = storage(storage_of(step.outputs[o]));
        if (made.first >= 0) continue;                       // by the maker of another part
        if (made.place.space == Space::kPrepared) continue;  // by a step of `prepare`, too
        made.first = i;
        made.output = static_cast<int>(o);
      }
    }
    for (const auto& [name, value] : schedule_.outputs) read(value, makes_);
    for (const auto& [variable, value] : schedule_.assignments) read(value, makes_);
  }

  // Whether a step's output may be the memory that is storage s to all inputs that are.
  bool may_overwrite(const ScheduleStep& step, std::size_t output, int s) {
    // Of a joined step, the inputs of the one that the output belongs to.
    const auto joined = static_cast<std::size_t>(step.joined);
    const std::size_t made = step.outputs.size() - static_cast<std::size_t>(step.roundings);
    if (output >= made) return false;
    const std::size_t ins = step.inputs.size() / joined, outs = made / joined;
    const std::size_t first = output / outs * ins, own = output % outs;
    if (own >= step.kernel.in_place.size() || is_part(step.outputs[output])) return false;
    if (storage(s).bytes != byte_size(schedule_.value(step.outputs[output]).spec)) return false;
    const std::uint32_t allowed = step.kernel.in_place[own];
    bool reads = false;
    for (std::size_t i = 0; i < step.inputs.size(); ++i) {
      if (storage_of(step.inputs[i]) != s) continue;
      const bool packed = step.kernel.packing_of(static_cast<int>(i)) != nullptr;
      const std::size_t bit = i - first;  // beyond all of them where i is less
      if (bit >= std::min(ins, kMaskBits) || packed || (allowed >> bit & 1u) == 0 ||
          is_part(step.inputs[i]))
        return false;
      reads = true;
    }
    return reads;
  }

  // ---- Assignments and outputs

  bool fits_variable(int s, int variable) {
    const Storage& value = storage(s);
    if (!reuse_ || value.place.space != Space::kArena || value.has_parts) return false;
    if (value.first < schedule_.label_steps) return false;  // the run may end behind these
    const int last_read = variable_reads_[static_cast<std::size_t>(variable)];
    if (last_read != value.first) return last_read < value.first;
    return may_overwrite(schedule_.run[static_cast<std::size_t>(value.first)],
                         static_cast<std::size_t>(value.output),
                         variable_storage_[static_cast<std::size_t>(variable)]);
  }

  void place_assignments() {
    std::vector<bool> assigned(schedule_.variables.size(), false);
    for (const auto& [variable, value] : schedule_.assignments) {
      plan_.assigned.push_back(variable);
      assigned[static_cast<std::size_t>(variable)] = true;
    }
    std::vector<ScheduleStep> saves;
    for (const auto& [variable, value] : schedule_.assignments) {
      const int target = variable_storage_[static_cast<std::size_t>(variable)];
      const int source = storage_of(value);
      if (source == target) continue;
      if (fits_variable(source, variable)) {
        storage(source).place = storage(target).place;
        continue;
      }
      int from = value;
      const Place& place = storage(source).place;
      const bool old_value = schedule_.value(root_of(value)).kind == ScheduleValue::Kind::kVariable;
      if (old_value && assigned[static_cast<std::size_t>(place.index)]) {
        // Another assignment overwrites what this one reads.
        from = add_value(schedule_.value(value).spec, Space::kArena, 0);
        saves.push_back(
            copy_step(schedule_.variables[static_cast<std::size_t>(variable)], value, from));
      }
      const int to = add_value(schedule_.value(value).spec, Space::kVariable, variable);
      assigns_.push_back(
          copy_step(schedule_.variables[static_cast<std::size_t>(variable)], from, to));
    }
    assigns_.insert(assigns_.begin(), std::make_move_iterator(saves.begin()),
                    std::make_move_iterator(saves.end()));
  }

  void place_outputs() {
    for (std::size_t k = 0; k < schedule_.outputs.size(); ++k) {
      const auto& [name, value] = schedule_.outputs[k];
      const TensorSpec spec = schedule_.value(value).spec;
      plan_.outputs.emplace_back(name, spec);
      Storage& source = storage(storage_of(value));
      if (source.place.space == Space::kArena)
        source.place = {Space::kOutput, static_cast<int>(k)};
      else
        schedule_.run.push_back(
            copy_step(name, value, add_value(spec, Space::kOutput, static_cast<int>(k))));
    }
    for (ScheduleStep& step : assigns_) schedule_.run.push_back(std::move(step));
  }

  int root_of(int value) const {
    while (schedule_.value(value).alias_of >= 0) value = schedule_.value(value).alias_of;
    return value;
  }

  bool is_part(int value) const { return schedule_.value(root_of(value)).part_of >= 0; }

  int add_value(const TensorSpec& spec, Space space, int index) {
    ScheduleValue value;
    value.spec = spec;
    of_value_.push_back(add_storage(value));
    storage(of_value_.back()).place = {space, index};
    return schedule_.add_value(std::move(value));
  }

  ScheduleStep copy_step(const std::string& name, int from, int to) const {
    ScheduleStep step;
    step.name = name;
    step.op_name = "copy";
    step.kernel.variant = "copy";
    step.kernel.run = copy_kernel;
    step.inputs = {from};
    step.outputs = {to};
    step.input_specs = {schedule_.value(from).spec};
    return step;
  }

  // ---- Sharing

  void find_lifetimes() {
    const auto use = [&](const std::vector<ScheduleStep>& steps, Space space) {
      for (std::size_t i = 0; i < steps.size(); ++i) {
        for (const std::vector<int>* values : {&steps[i].inputs, &steps[i].outputs}) {
          for (const int value : *values) {
            Storage& used = storage(storage_of(value));
            const bool prepared = used.place.space == Space::kPrepared;
            if (prepared != (space == Space::kPrepared)) {
              // Prepared, and read by the run: stays.
              if (prepared) used.last = static_cast<int>(schedule_.prepare.size());
              continue;
            }
            if (used.first < 0) used.first = static_cast<int>(i);
            used.last = static_cast<int>(i);
          }
        }
      }
    };
    use(schedule_.prepare, Space::kPrepared);
    use(schedule_.run, Space::kArena);
  }

  void work_in_place(const std::vector<ScheduleStep>& steps, Space space) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const ScheduleStep& step = steps[i];
      for (std::size_t o = 0; o < step.outputs.size(); ++o) {
        const int made = storage_of(step.outputs[o]);
        const Space to = storage(made).place.space;
        if (to != space && to != Space::kOutput) continue;
        if (storage(made).first != static_cast<int>(i)) continue;
        for (const int value : step.inputs) {
          const int dying = storage_of(value);
          if (storage(dying).place.space != space || storage(dying).last != static_cast<int>(i) ||
              dying == made || is_output(step, dying) || !may_overwrite(step, o, dying))
            continue;
          storage(made).first = storage(dying).first;
          storage(dying).bytes = 0;
          merged_[static_cast<std::size_t>(dying)] = made;
          break;
        }
      }
    }
  }

  bool is_output(const ScheduleStep& step, int s) {
    return std::any_of(step.outputs.begin(), step.outputs.end(),
                       [&](int value) { return storage_of(value) == s; });
  }

  std::size_t lay_out(Space space) {
    std::vector<int> which;
    std::vector<Lifetime> lifetimes;
    for (int s = 0; s < static_cast<int>(storages_.size()); ++s) {
      const Storage& candidate = storage(s);
      if (candidate.place.space != space || merged_[static_cast<std::size_t>(s)] != s ||
          candidate.first < 0)
        continue;
      which.push_back(s);
      lifetimes.push_back({candidate.bytes, candidate.first, candidate.last});
    }
    const ArenaLayout layout = reuse_ ? share_arena(lifetimes) : separate_arena(lifetimes);
    for (std::size_t i = 0; i < which.size(); ++i)
      storage(which[i]).place.offset = layout.offsets[i];
    return layout.bytes;
  }

  // ---- The plan

  void fill_plan() {
    plan_.threads = schedule_.threads;
    plan_.label_steps = static_cast<std::size_t>(schedule_.label_steps);
    plan_.exchange.steps = static_cast<std::size_t>(schedule_.exchange_steps);
    for (const ScheduledBucket& bucket : schedule_.buckets)
      plan_.exchange.buckets.push_back({static_cast<std::size_t>(bucket.steps),
                                        operand(bucket.value, schedule_.value(bucket.value).spec)});
    plan_.inputs = std::move(schedule_.inputs);
    plan_.variable_names = std::move(schedule_.variables);
    for (ScheduleStep& step : schedule_.prepare) plan_.prepare.push_back(finished(step));
    for (ScheduleStep& step : schedule_.run) plan_.run.push_back(finished(step));
    std::vector<bool> seen(plan_.variable_names.size(), false);
    for (const Step& step : plan_.prepare) {
      for (const Operand& operand : step.inputs) {
        if (operand.place.space != Space::kVariable) continue;
        const auto variable = static_cast<std::size_t>(operand.place.index);
        if (!seen[variable]) plan_.prepare_reads.push_back(operand.place.index);
        seen[variable] = true;
      }
    }
  }

  Operand operand(int value, const TensorSpec& spec) {
    const ScheduleValue& root = schedule_.value(root_of(value));
    Operand result{storage(storage_of(value)).place, spec, root.pixel_pitch};
    result.place.offset += static_cast<std::size_t>(root.part_begin) * item_bytes(root.spec.dtype);
    return result;
  }

  static Cost cost_of(const ScheduleStep& step, Specs outputs) {
    const Specs inputs = step.input_specs;
    const auto joined = static_cast<std::size_t>(step.joined);
    const std::size_t made = outputs.size() - static_cast<std::size_t>(step.roundings);
    const std::size_t ins = inputs.size() / joined, outs = made / joined;
    Cost all;
    for (const TensorSpec& rounding : outputs.subspan(made)) all.bytes += bytes_of(rounding);
    for (std::size_t i = 0; i < joined; ++i) {
      const Cost one = cost(step.op, inputs.subspan(i * ins, ins), outputs.subspan(i * outs, outs));
      all.macs += one.macs;
      all.other_flops += one.other_flops;
      all.bytes += one.bytes;
    }
    return all;
  }

  Step finished(ScheduleStep& from) {
    Step step;
    step.name = std::move(from.name);
    step.op_name = std::move(from.op_name);
    step.op = std::move(from.op);
    step.scratch_bytes = from.kernel.scratch_bytes;
    step.kernel = std::move(from.kernel);
    step.refused = std::move(from.refused);
    step.absorbed = std::move(from.absorbed);
    for (std::size_t i = 0; i < from.inputs.size(); ++i)
      step.inputs.push_back(operand(from.inputs[i], from.input_specs[i]));
    std::vector<TensorSpec> output_specs;
    for (const int value : from.outputs) {
      output_specs.push_back(schedule_.value(value).spec);
      step.outputs.push_back(operand(value, output_specs.back()));
    }
    if (step.op_name == op_name(step.op)) {
      step.cost = cost_of(from, output_specs);
      // What is an input twice is read once; a packed weight is read as it was packed.
      for (std::size_t i = 0; i < from.inputs.size(); ++i) {
        const bool again =
            std::count(from.inputs.begin(), from.inputs.begin() + static_cast<std::ptrdiff_t>(i),
                       from.inputs[i]) > 0;
        if (again) step.cost.bytes -= bytes_of(from.input_specs[i]);
      }
      for (std::size_t i = 0; i < from.inputs.size(); ++i)
        if (const PackedInput* const packed = step.kernel.packing_of(static_cast<int>(i)))
          step.cost.bytes +=
              static_cast<std::int64_t>(packed->bytes) - bytes_of(from.input_specs[i]);
    } else {  // pack or copy
      for (const TensorSpec& spec : from.input_specs) step.cost.bytes += bytes_of(spec);
      for (const TensorSpec& spec : output_specs) step.cost.bytes += bytes_of(spec);
    }
    plan_.scratch_bytes = std::max(plan_.scratch_bytes, step.scratch_bytes);
    return step;
  }

  Schedule schedule_;
  bool reuse_;
  int makes_;  // steps of the run that make values; copies follow
  ProgramPlan plan_;
  std::vector<Storage> storages_;
  std::vector<int> merged_;            // by storage: itself, or the one it became part of
  std::vector<int> of_value_;          // by value: its storage when it was made
  std::vector<int> variable_reads_;    // by variable: the last step that reads the old value
  std::vector<int> variable_storage_;  // by variable
  std::vector<ScheduleStep> assigns_;  // copies into variables
};

}  // namespace

ProgramPlan plan_memory(Schedule schedule, bool reuse) {
  return Planner(std::move(schedule), reuse).result();
}

}  // namespace pycnn
