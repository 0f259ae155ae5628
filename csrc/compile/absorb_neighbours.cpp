// A pass over a tensor that only rounds it, turns it or sends it back through an activation costs a
// launch and moves the tensor twice, beside kernels that could do that to what they load or store.
// A kernel says whether it can (Kernel::absorb). The step goes to the one that makes its input
// where nobody else reads that, or else to all of those that read its result.
//
// A batch norm, or its gradient, is work, but such that waits for memory: the first kernel that
// reads the result may make it itself, some pixels at a time, while it multiplies. The result
// stays.
#include <algorithm>

#include "compile/passes.h"
#include "compile/pinned.h"

namespace pycnn {
namespace {

class Absorber {
 public:
  Absorber(Schedule& schedule, const std::map<std::string, std::string>& pins)
      : schedule_(schedule), pins_(pins), gone_(schedule.run.size(), false) {}

  void run() {
    find_facts();
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      const ScheduleStep& step = schedule_.run[i];
      if (is_pinned(pins_, step.name, step.op_name)) continue;
      if (step.outputs.size() == 1) gone_[i] = goes_to_maker(i) || goes_to_readers(i);
      if (!gone_[i] && is_norm(step.op)) gone_[i] = goes_to_first_reader(i);
    }
    std::vector<ScheduleStep> kept;
    for (std::size_t i = 0; i < gone_.size(); ++i)
      if (!gone_[i]) kept.push_back(std::move(schedule_.run[i]));
    schedule_.run = std::move(kept);
  }

 private:
  struct Facts {               // of a value
    int maker = -1;            // step of the run
    bool is_shared = false;    // an output, assigned, or known under another shape
    std::vector<int> readers;  // steps of the run, once for each time
  };

  Facts& facts(int value) { return facts_[static_cast<std::size_t>(value)]; }
  ScheduleStep& step(int index) { return schedule_.run[static_cast<std::size_t>(index)]; }

  void find_facts() {
    facts_.resize(schedule_.values.size());
    for (std::size_t v = 0; v < facts_.size(); ++v) {
      if (schedule_.values[v].alias_of < 0) continue;
      facts_[v].is_shared = facts(schedule_.values[v].alias_of).is_shared = true;
    }
    for (const auto& [name, v] : schedule_.outputs) facts(v).is_shared = true;
    for (const auto& [variable, v] : schedule_.assignments) facts(v).is_shared = true;
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      const ScheduleStep& each = schedule_.run[i];
      for (const int v : each.outputs) facts(v).maker = static_cast<int>(i);
      for (const int v : each.inputs) facts(v).readers.push_back(static_cast<int>(i));
    }
  }

  std::vector<TensorSpec> specs_of(const std::vector<int>& values) const {
    std::vector<TensorSpec> specs;
    for (const int v : values) specs.push_back(schedule_.value(v).spec);
    return specs;
  }

  static bool absorbs(Kernel& kernel, const ScheduleStep& taker, const ScheduleStep& neighbour,
                      Specs outputs, bool is_reader, std::size_t place) {
    return taker.joined == 1 && kernel.absorb(kernel, taker.op,
                                              {&neighbour.op, neighbour.input_specs, outputs,
                                               is_reader, static_cast<int>(place)});
  }

  static void take_names(ScheduleStep& taker, const ScheduleStep& neighbour) {
    taker.absorbed.emplace_back(neighbour.name, neighbour.op_name);
    taker.absorbed.insert(taker.absorbed.end(), neighbour.absorbed.begin(),
                          neighbour.absorbed.end());
  }

  bool goes_to_maker(std::size_t i) {
    const ScheduleStep& each = schedule_.run[i];
    if (each.inputs.empty()) return false;
    const int v = each.inputs.back();
    const int taker = facts(v).maker;
    if (taker < 0 || facts(v).is_shared || facts(v).readers.size() != 1) return false;
    if (step(taker).kernel.absorb == nullptr) return false;
    // All others must be there by then.
    const bool is_early = std::all_of(each.inputs.begin(), each.inputs.end() - 1, [&](int other) {
      return facts(root_of(other)).maker < taker && !is_variable(other);
    });
    ScheduleStep& maker = step(taker);
    const auto place = std::find(maker.outputs.begin(), maker.outputs.end(), v);
    Kernel kernel = maker.kernel;
    if (!is_early || !absorbs(kernel, maker, each, specs_of(each.outputs), true,
                              static_cast<std::size_t>(place - maker.outputs.begin())))
      return false;
    maker.kernel = std::move(kernel);
    take_names(maker, each);
    *place = each.outputs[0];
    facts(each.outputs[0]).maker = taker;
    for (std::size_t k = 0; k + 1 < each.inputs.size(); ++k) {
      maker.inputs.push_back(each.inputs[k]);
      maker.input_specs.push_back(each.input_specs[k]);
      std::vector<int>& readers = facts(each.inputs[k]).readers;
      std::replace(readers.begin(), readers.end(), static_cast<int>(i), taker);
    }
    return true;
  }

  // Only steps of one input: the others' would live longer.
  bool goes_to_readers(std::size_t i) {
    const ScheduleStep& each = schedule_.run[i];
    const Facts& made = facts(each.outputs[0]);
    if (each.inputs.size() != 1 || made.is_shared || made.readers.empty() ||
        is_variable(each.inputs[0]))
      return false;
    const std::vector<TensorSpec> outputs = specs_of(each.outputs);
    std::vector<Kernel> kernels;
    for (const int reader : made.readers) {
      const ScheduleStep& taker = step(reader);
      if (taker.kernel.absorb == nullptr) return false;
      const auto place = std::find(taker.inputs.begin(), taker.inputs.end(), each.outputs[0]);
      kernels.push_back(taker.kernel);
      if (std::count(taker.inputs.begin(), taker.inputs.end(), each.outputs[0]) != 1 ||
          !absorbs(kernels.back(), taker, each, outputs, false,
                   static_cast<std::size_t>(place - taker.inputs.begin())))
        return false;
    }
    const std::vector<int> readers = made.readers;
    for (std::size_t k = 0; k < readers.size(); ++k) {
      ScheduleStep& taker = step(readers[k]);
      const auto place = static_cast<std::size_t>(
          std::find(taker.inputs.begin(), taker.inputs.end(), each.outputs[0]) -
          taker.inputs.begin());
      taker.kernel = std::move(kernels[k]);
      take_names(taker, each);
      taker.inputs[place] = each.inputs[0];
      taker.input_specs[place] = each.input_specs[0];
    }
    std::vector<int>& source = facts(each.inputs[0]).readers;
    std::erase(source, static_cast<int>(i));
    source.insert(source.end(), readers.begin(), readers.end());
    return true;
  }

  static bool is_norm(const Op& op) {
    return std::holds_alternative<ops::BatchNormApply>(op) ||
           std::holds_alternative<ops::BatchNormApplyGrad>(op) ||
           std::holds_alternative<ops::BatchNormTrainGrad>(op);
  }
  static bool moves_parts(const ScheduleStep& step) {
    return std::holds_alternative<ops::Concat>(step.op) ||
           std::holds_alternative<ops::Slice>(step.op);
  }

  // The reader makes what it reads, for itself and for all who come later. It takes the neighbour's
  // first input in place of its own and the others behind all of its own, and so the outputs.
  bool goes_to_first_reader(std::size_t i) {
    const ScheduleStep& each = schedule_.run[i];
    int taker = -1;
    for (const int v : each.outputs) {
      if (facts(v).is_shared) return false;
      for (const int reader : facts(v).readers) {
        if (taker < 0 || reader < taker) taker = reader;
        // What is a part of something else lies apart.
        if (moves_parts(step(reader))) return false;
      }
    }
    if (taker < 0) return false;
    ScheduleStep& to = step(taker);
    const auto is_read = [&](int v) {
      return std::find(to.inputs.begin(), to.inputs.end(), v) != to.inputs.end();
    };
    if (to.kernel.absorb == nullptr || to.inputs[0] != each.outputs[0] ||
        std::count(to.inputs.begin(), to.inputs.end(), each.outputs[0]) != 1 ||
        std::any_of(each.outputs.begin() + 1, each.outputs.end(), is_read))
      return false;
    for (const int v : each.inputs) {
      const int maker = facts(root_of(v)).maker;
      if (maker >= 0 && moves_parts(step(maker))) return false;
      if (is_variable(v) && is_assigned_between(v, static_cast<int>(i), taker)) return false;
    }
    Kernel kernel = to.kernel;
    if (!absorbs(kernel, to, each, specs_of(each.outputs), false, 0)) return false;
    to.kernel = std::move(kernel);
    take_names(to, each);
    std::erase(facts(each.outputs[0]).readers, taker);
    to.inputs[0] = each.inputs[0], to.input_specs[0] = each.input_specs[0];
    to.inputs.insert(to.inputs.end(), each.inputs.begin() + 1, each.inputs.end());
    to.input_specs.insert(to.input_specs.end(), each.input_specs.begin() + 1,
                          each.input_specs.end());
    for (const int v : each.inputs) {
      std::vector<int>& readers = facts(v).readers;
      std::replace(readers.begin(), readers.end(), static_cast<int>(i), taker);
    }
    for (const int v : each.outputs) {
      to.outputs.push_back(v);
      facts(v).maker = taker;
    }
    return true;
  }

  bool is_assigned_between(int v, int begin, int end) {
    const int variable = schedule_.value(root_of(v)).index;
    return std::any_of(schedule_.assignments.begin(), schedule_.assignments.end(),
                       [&](const std::pair<int, int>& assigned) {
                         const int maker = facts(root_of(assigned.second)).maker;
                         return assigned.first == variable && maker > begin && maker < end;
                       });
  }

  int root_of(int v) const {
    while (schedule_.value(v).alias_of >= 0) v = schedule_.value(v).alias_of;
    return v;
  }
  // What a step may replace meanwhile.
  bool is_variable(int v) const {
    return schedule_.value(root_of(v)).kind == ScheduleValue::Kind::kVariable;
  }

  Schedule& schedule_;
  const std::map<std::string, std::string>& pins_;
  std::vector<Facts> facts_;
  std::vector<bool> gone_;
};

}  // namespace

void absorb_neighbours(Schedule& schedule, const std::map<std::string, std::string>& pins) {
  Absorber(schedule, pins).run();
}

}  // namespace pycnn
