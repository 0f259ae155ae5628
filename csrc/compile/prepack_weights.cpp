#include <map>
#include <set>
#include <utility>

#include "compile/passes.h"
#include "compile/same_attributes.h"

namespace pycnn {
namespace {

class Packer {
 public:
  explicit Packer(Schedule& schedule) : schedule_(schedule) {
    for (const auto& [variable, value] : schedule.assignments) assigned_.insert(variable);
  }

  void run() {
    for (const bool prepare : {true, false}) {
      std::vector<ScheduleStep>& section = prepare ? schedule_.prepare : schedule_.run;
      for (ScheduleStep& step : std::exchange(section, {})) {
        for (PackedInput Kernel::*which : {&Kernel::packed, &Kernel::packed_bias})
          pack_input(step, step.kernel.*which, prepare);
        section.push_back(std::move(step));
      }
    }
  }

 private:
  struct Packing {
    Op op;
    PackedInput packed;
    std::vector<std::byte> plan;
    int value;
  };

  // Whether the value is the same in every run, unless somebody writes a variable in between.
  bool is_constant(int v) const {
    while (schedule_.value(v).alias_of >= 0) v = schedule_.value(v).alias_of;
    const ScheduleValue& value = schedule_.value(v);
    if (value.kind == ScheduleValue::Kind::kVariable) return !assigned_.contains(value.index);
    return value.prepared;
  }

  void pack_input(ScheduleStep& step, const PackedInput& wanted, bool in_prepare) {
    const PackedInput packed = wanted;
    if (packed.input < 0) return;
    int& input = step.inputs[static_cast<std::size_t>(packed.input)];
    const bool prepare = in_prepare || is_constant(input);
    if (!prepare && packed.run_unpacked != nullptr) {
      step.kernel.run = packed.run_unpacked;
      step.kernel.scratch_bytes = packed.unpacked_scratch_bytes;
      step.kernel.packed = {};
      return;
    }
    std::vector<Packing>& packings = packings_[input];
    for (const Packing& other : packings) {
      if (serves(other, packed, step)) {
        input = other.value;
        return;
      }
    }
    ScheduleValue value;
    value.spec = {{static_cast<std::int64_t>(packed.bytes)}, DType::kUInt8};
    value.prepared = prepare;
    const int result = schedule_.add_value(std::move(value));
    packings.push_back({step.op, packed, step.kernel.plan, result});

    ScheduleStep pack;
    pack.name = step.name;
    pack.op_name = "pack";
    pack.op = step.op;
    pack.kernel.variant = packed.format;
    pack.kernel.run = packed.pack;
    pack.kernel.scratch_bytes = packed.pack_scratch_bytes;
    pack.kernel.plan = step.kernel.plan;
    pack.kernel.state = packed.state != nullptr ? packed.state : step.kernel.state;
    pack.kernel.join = packed.join;
    pack.rounded = packed.rounded;
    pack.inputs = {input};
    pack.outputs = {result};
    pack.input_specs = {step.input_specs[static_cast<std::size_t>(packed.input)]};
    (prepare ? schedule_.prepare : schedule_.run).push_back(std::move(pack));
    input = result;
  }

  static bool serves(const Packing& packing, const PackedInput& b, const ScheduleStep& step) {
    const PackedInput& a = packing.packed;
    if (a.rounded && a.rounded == b.rounded && a.bytes == b.bytes) return true;
    return a.rounded == b.rounded && a.pack == b.pack && a.bytes == b.bytes && a.input == b.input &&
           std::string_view(a.format) == b.format && packing.plan == step.kernel.plan &&
           same_attributes(packing.op, step.op);
  }

  Schedule& schedule_;
  std::set<int> assigned_;                        // variables
  std::map<int, std::vector<Packing>> packings_;  // by what was packed
};

}  // namespace

void prepack_weights(Schedule& schedule) { Packer(schedule).run(); }

}  // namespace pycnn
