// Where several processes train one net, each has the gradients of its share of a batch, and the
// updates take their sum. Here each gradient becomes a part of a bucket: made there where only
// updates take it, copied otherwise. A bucket is ready behind the last step that makes one of its
// gradients; the updates, and what depends on them, come after all else.
#include <algorithm>

#include "compile/passes.h"
#include "pycnn/error.h"
#include "runtime/copy_kernel.h"

namespace pycnn {
namespace {

constexpr std::int64_t kAlignedElements = kMemoryAlignment / sizeof(float);

std::int64_t padded(std::int64_t elements) {
  return (elements + kAlignedElements - 1) / kAlignedElements * kAlignedElements;
}

bool takes_gradient(const ScheduleStep& step) {
  return std::holds_alternative<ops::SgdUpdate>(step.op) ||
         std::holds_alternative<ops::AdamUpdate>(step.op) ||
         std::holds_alternative<ops::MuonUpdate>(step.op);
}

class Exchanger {
 public:
  Exchanger(Schedule& schedule, std::size_t bucket_bytes)
      : schedule_(schedule),
        bucket_elements_(static_cast<std::int64_t>(bucket_bytes / sizeof(float))) {}

  void run() {
    updates_last();
    find_facts();
    // The last layers' gradients are the first to be there.
    for (std::size_t i = schedule_.run.size(); i-- > first_update_;)
      if (takes_gradient(schedule_.run[i])) add(root_of(schedule_.run[i].inputs[1]));
    close_bucket();
    read_from_buckets();
    insert_copies();
  }

 private:
  struct Facts {  // of a value that is no alias
    int maker = -1;
    bool fixed = false;       // it has a place of its own
    bool read_early = false;  // by a step that does not wait for the exchange
    int exchanged = -1;       // the value that updates take instead
  };
  struct Part {
    int gradient;
    int part;  // the gradient itself, or a value that it is copied to
    std::int64_t begin;
  };

  int root_of(int v) const {
    while (schedule_.value(v).alias_of >= 0) v = schedule_.value(v).alias_of;
    return v;
  }
  Facts& facts(int v) { return facts_[static_cast<std::size_t>(v)]; }

  // Updates and all that depends on what they, or the norm of the gradients, give.
  void updates_last() {
    std::vector<bool> late_value(schedule_.values.size(), false);
    std::vector<bool> late(schedule_.run.size(), false);
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      const ScheduleStep& step = schedule_.run[i];
      late[i] = takes_gradient(step) || std::holds_alternative<ops::ClipFactor>(step.op) ||
                std::any_of(step.inputs.begin(), step.inputs.end(), [&](int v) {
                  return late_value[static_cast<std::size_t>(root_of(v))];
                });
      if (!late[i]) continue;
      for (const int v : step.outputs) late_value[static_cast<std::size_t>(root_of(v))] = true;
    }
    std::vector<ScheduleStep> sorted;
    sorted.reserve(schedule_.run.size());
    for (const bool now : {false, true}) {
      for (std::size_t i = 0; i < late.size(); ++i)
        if (late[i] == now) sorted.push_back(std::move(schedule_.run[i]));
      if (!now) first_update_ = sorted.size();
    }
    schedule_.run = std::move(sorted);
  }

  void find_facts() {
    facts_.resize(schedule_.values.size());
    for (std::size_t v = 0; v < facts_.size(); ++v) {
      const ScheduleValue& value = schedule_.values[v];
      if (value.kind != ScheduleValue::Kind::kResult || value.prepared || value.part_of >= 0)
        facts_[v].fixed = true;
      if (value.part_of >= 0) facts(value.part_of).fixed = true;
    }
    for (const auto& [name, v] : schedule_.outputs) facts(root_of(v)).fixed = true;
    for (const auto& [variable, v] : schedule_.assignments) facts(root_of(v)).fixed = true;
    for (std::size_t i = 0; i < first_update_; ++i) {
      for (const int v : schedule_.run[i].inputs) facts(root_of(v)).read_early = true;
      for (const int v : schedule_.run[i].outputs) facts(root_of(v)).maker = static_cast<int>(i);
    }
  }

  void add(int gradient) {
    if (facts(gradient).exchanged >= 0) return;
    const TensorSpec spec = schedule_.value(gradient).spec;
    if (spec.dtype != DType::kFloat32)
      throw UnsupportedError(
          "compile: gradients are exchanged between processes in float32 only, one is " +
          to_string(spec));
    const std::int64_t elements = padded(element_count(spec.shape));
    if (!parts_.empty() && filled_ + elements > bucket_elements_) close_bucket();
    int part = gradient;
    if (facts(gradient).fixed || facts(gradient).read_early) {
      ScheduleValue copy;
      copy.spec = spec;
      part = schedule_.add_value(std::move(copy));
      facts_.emplace_back();
      copies_.push_back({gradient, part, 0});
    }
    facts(gradient).exchanged = part;
    parts_.push_back({gradient, part, filled_});
    filled_ += elements;
  }

  void close_bucket() {
    if (parts_.empty()) return;
    ScheduleValue whole;
    whole.spec = {{filled_}, DType::kFloat32};
    const int bucket = schedule_.add_value(std::move(whole));
    facts_.emplace_back();
    // In the order of the buckets, whatever the order of the gradients is.
    int steps = schedule_.buckets.empty() ? schedule_.label_steps : schedule_.buckets.back().steps;
    for (const Part& part : parts_) {
      ScheduleValue& value = schedule_.values[static_cast<std::size_t>(part.part)];
      value.part_of = bucket;
      value.part_begin = part.begin;
      steps = std::max(steps, facts(part.gradient).maker + 1);
    }
    schedule_.buckets.push_back({steps, bucket});
    parts_.clear();
    filled_ = 0;
  }

  // Late steps read exchanged gradients; all of the others read what was there before.
  void read_from_buckets() {
    for (std::size_t i = first_update_; i < schedule_.run.size(); ++i) {
      ScheduleStep& step = schedule_.run[i];
      const bool clips = std::holds_alternative<ops::ClipFactor>(step.op);
      for (std::size_t k = 0; k < step.inputs.size(); ++k) {
        const int root = root_of(step.inputs[k]);
        const int exchanged =
            static_cast<std::size_t>(root) < facts_.size() ? facts(root).exchanged : -1;
        if (exchanged >= 0 && exchanged != root && (clips || (takes_gradient(step) && k == 1)))
          step.inputs[k] = exchanged;
      }
    }
  }

  // Each right behind the step that makes its gradient.
  void insert_copies() {
    std::vector<ScheduleStep> run;
    std::vector<int> moved(schedule_.run.size() + 1, 0);  // steps before each, with the copies
    run.reserve(schedule_.run.size() + copies_.size());
    const auto insert = [&](int behind) {
      for (const Part& copy : copies_)
        if (facts(copy.gradient).maker == behind) run.push_back(copy_step(copy));
    };
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      // What no step of the run makes is there from the beginning; labels come first, though.
      if (static_cast<int>(i) == schedule_.label_steps) insert(-1);
      moved[i] = static_cast<int>(run.size());
      run.push_back(std::move(schedule_.run[i]));
      insert(static_cast<int>(i));
    }
    moved.back() = static_cast<int>(run.size());
    for (ScheduledBucket& bucket : schedule_.buckets)
      bucket.steps = moved[static_cast<std::size_t>(bucket.steps)];
    schedule_.exchange_steps = moved[first_update_];
    schedule_.run = std::move(run);
  }

  ScheduleStep copy_step(const Part& copy) const {
    ScheduleStep step;
    step.name = "exchange";
    step.op_name = "copy";
    step.kernel.variant = "copy";
    step.kernel.run = copy_kernel;
    step.inputs = {copy.gradient};
    step.outputs = {copy.part};
    step.input_specs = {schedule_.value(copy.gradient).spec};
    return step;
  }

  Schedule& schedule_;
  const std::int64_t bucket_elements_;
  std::size_t first_update_ = 0;
  std::vector<Facts> facts_;  // by value
  std::vector<Part> parts_;   // of the bucket that is being filled
  std::int64_t filled_ = 0;   // its elements
  std::vector<Part> copies_;
};

}  // namespace

void exchange_gradients(Schedule& schedule, std::size_t bucket_bytes) {
  Exchanger(schedule, bucket_bytes).run();
}

}  // namespace pycnn
