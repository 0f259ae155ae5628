#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/checked_plan.h"
#include "backends/cuda/conv2d_measure.h"
#include "backends/cuda/conv2d_rewrite.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/library_choice.h"
#include "backends/cuda/measured_plan.h"

// How plans of a library (library_kernel.h) are tried while one is chosen: on which tensors, and
// whether what they leave is right.
namespace pycnn::cuda {

// The tensors of a call, for timing, of packed weights that many bytes; there is none of them when
// there is not memory enough.
inline std::optional<ConvCall> timed_call(DeviceTimer& timer, const ConvTask& task,
                                          std::int64_t packed) {
  const ConvShape& s = task.shape;
  const std::int64_t item = is_narrow(task.image) ? 2 : 4;
  bool there = true;
  const auto memory = [&](std::int64_t bytes) {
    void* const block = there ? timer.allocate(static_cast<std::size_t>(bytes)) : nullptr;
    there = there && block != nullptr;
    return block;
  };
  const std::int64_t outputs = s.pixels() * s.output_pitch() * item;
  ConvCall call{};
  call.input = memory(std::int64_t{s.images} * s.height * s.width * s.in_channels * item);
  call.output = memory(outputs);
  call.output_step = s.output_step;
  auto* const weight = static_cast<float*>(memory(s.weights() * 4));
  call.weight = call.grad_weight = weight;
  if (packed > 0) call.packed = memory(packed);
  if (task.bias) {
    auto* const bias = static_cast<float*>(memory(std::int64_t{s.out_channels} * 4));
    call.grad_bias = bias;
    call.epilogue.bias = bias;
    const bool packs = is_narrow(task.image) && task.direction == Direction::kForward;
    if (packs) call.packed_bias = memory(std::int64_t{s.out_channels} * item);
  }
  const std::int64_t results = result_rows(task) * result_channels(task) * item;
  if (task.residual) call.epilogue.residual = memory(results);
  if (task.gate) call.epilogue.gate = memory(results);
  if (task.signs) {
    const std::int64_t values = result_rows(task) * result_channels(task);
    void* const signs = memory(values / kSigns);
    call.epilogue.signs = static_cast<const std::uint8_t*>(signs);
    if (there)
      there = timer.runs(
          [&] { write_signs(timer.queue(), task.image, call.epilogue.gate, signs, values); });
  }
  call.epilogue.curve = task.curve;
  if (task.measure != MeasureKind::kNothing) {
    const std::int64_t channels = result_channels(task);
    auto* const vectors = static_cast<float*>(memory(channels * 6 * 4));
    call.measure = {task.measure, nullptr, channels,        vectors,
                    vectors,      vectors, task.norm_curve, vectors + channels * 3};
    if (task.measure == MeasureKind::kSums)
      call.measure.normed = memory(result_rows(task) * channels * item);
  }
  return there ? std::optional(call) : std::nullopt;
}

// The call and others of the same task, whose tensors the cache cannot hold all, to be timed in
// turn: a step comes back to an operand after all others. What would fit ten times is in the cache
// then, too, and one more is not made where memory is short.
inline std::vector<ConvCall> calls_in_turn(DeviceTimer& timer, const ConvTask& task,
                                           std::int64_t packed, const ConvCall& first) {
  std::vector<ConvCall> calls = {first};
  const std::size_t wanted = 2 * timer.cache_bytes();
  const std::size_t before = timer.allocated_bytes();
  std::size_t bytes = 0;
  while (calls.size() < kTimedCalls) {
    const std::optional<ConvCall> next =
        bytes < wanted ? timed_call(timer, task, packed) : std::nullopt;
    if (!next) break;
    calls.push_back(*next);
    bytes = timer.allocated_bytes() - before;
  }
  return calls;
}

// A plan for a task or for what it was rewritten to: lives in Kernel::state.
template <class Library>
struct Chosen {
  std::shared_ptr<const ConvRewrite> rewrite;  // null: none
  std::shared_ptr<typename Library::Plan> plan;
  ConvTask task;  // that is asked for

  std::int64_t scratch_bytes() const {
    // Measuring comes when the rest is done with its scratch.
    return std::max(measure_behind_scratch_bytes(task), plan_scratch_bytes());
  }
  std::int64_t plan_scratch_bytes() const {
    if (rewrite == nullptr) return plan->scratch_bytes();
    return rewrite->scratch_bytes() +
           std::max(plan->scratch_bytes(), finish_scratch_bytes(*rewrite));
  }
};

// Of weights in a form of their own, made once per change and then read by each run; 0: they are
// read as they are.
template <class Library>
std::int64_t packed_bytes(const Chosen<Library>& chosen) {
  if (chosen.task.direction == Direction::kGradWeight) return 0;
  if (chosen.rewrite != nullptr) return chosen.rewrite->packed_bytes();
  return is_narrow(Library::image(*chosen.plan)) ? chosen.task.shape.weights() * 2 : 0;
}

// Whether it wants the bias in the images' type, made likewise.
template <class Library>
bool packs_bias(const Chosen<Library>& chosen) {
  return chosen.task.direction == Direction::kForward && Library::packs_bias(*chosen.plan);
}

// Whether it makes a gradient of weights in 16 bits and widens it in a pass behind, or where it is
// mapped back.
template <class Library>
bool leaves_narrow(const Chosen<Library>& chosen) {
  if constexpr (requires { Library::leaves_narrow(*chosen.plan); })
    return Library::leaves_narrow(*chosen.plan);
  else
    return false;
}

template <class Library>
bool is_large(const Chosen<Library>& chosen) {
  return chosen.plan->workspace_bytes() > kMostWorkspace;
}

// Of a timed call what the plan is given.
template <class Library>
ConvCall call_for(const Chosen<Library>& chosen, ConvCall call) {
  if (packed_bytes(chosen) == 0) call.packed = nullptr;
  if (!packs_bias(chosen)) call.packed_bias = nullptr;
  if (call.packed_bias != nullptr) call.epilogue.bias = nullptr;
  return call;
}

template <class Library>
bool is_measuring(const Chosen<Library>& chosen) {
  if constexpr (requires { Library::measures(*chosen.plan); })
    return Library::measures(*chosen.plan);
  else
    return false;
}

template <class Library>
void run_chosen(DeviceQueue& queue, const Chosen<Library>& chosen, const ConvCall& call,
                std::byte* scratch) noexcept {
  try {
    if (chosen.rewrite == nullptr)
      Library::run(queue, *chosen.plan, call, scratch);
    else
      run_rewritten(queue, *chosen.rewrite, call, scratch, leaves_narrow(chosen),
                    [&](const ConvCall& moved, std::byte* rest) {
                      Library::run(queue, *chosen.plan, moved, rest);
                    });
    if (!is_measuring(chosen)) finish_behind(queue, chosen.task, call, scratch);
  } catch (...) {
    note_library(queue, Library::kNotGiven);
  }
}

// What the pass finds in the values that a plan stored. None: it could not be seen.
inline std::optional<Measurement> measured_again(DeviceTimer& timer, const ConvTask& task,
                                                 const ConvCall& call, std::byte* scratch) {
  const void* const result = task.direction == Direction::kForward ? call.output : call.input;
  const bool runs = timer.runs([&] {
    measure_pass(timer.queue(), task.image, call.measure, result, result_rows(task),
                 result_channels(task), scratch);
  });
  return runs ? read_measurement(timer, task, call) : std::nullopt;
}
// How that is another than what the plan measured itself; empty: it is not.
inline std::optional<std::string> measured_otherwise(DeviceTimer& timer, const ConvTask& task,
                                                     const ConvCall& call, std::byte* scratch) {
  const std::optional<Measurement> first = read_measurement(timer, task, call);
  const std::optional<Measurement> again = measured_again(timer, task, call, scratch);
  if (!first || !again) return std::nullopt;
  return difference(task, *again, *first, own_tolerance(result_rows(task)));
}

// What came of a trial.
struct Verdict {
  bool runs = true;     // also where there is no memory to see it
  bool replays = true;  // likewise: as a part of a recording
  bool lacked_memory = false;
  bool seen = false;  // whether what it left was looked at, both times
  std::string wrong;  // of that, or that it does not replay; empty: nothing
  bool good() const { return runs && wrong.empty(); }
};

// Runs plans twice each, in memory of its own, the second time recorded as programs do it, and
// holds what they leave each time, where NaN lay before, against our own kernel's result, which is
// made once.
template <class Library>
class Trial {
 public:
  Trial(int device, const typename Library::Link& link, const ConvTask& task, bool tf32)
      : timer_(device), link_(link), task_(task), tf32_(tf32) {}
  ~Trial() { Library::forget_stream(link_); }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  Verdict of(const Chosen<Library>& chosen) {
    Verdict verdict;
    if (!timer_.works()) return verdict;
    if (!call_) call_ = timed_call(timer_, task_, 0);
    if (!call_) return verdict;
    // Of sums as small as these it makes about 0.5, whatever they are. It is made by a pass of ours
    // behind any plan, as the call says.
    if (task_.curve.kind == CurveKind::kSigmoid) call_->epilogue.curve = {};
    ConvCall call = call_for(chosen, *call_);
    if (const std::int64_t packed = packed_bytes(chosen); packed > 0) {
      call.packed = packed_.get(timer_, packed);
      if (call.packed == nullptr) return verdict;
    }
    auto* const scratch = static_cast<std::byte*>(scratch_.get(timer_, chosen.scratch_bytes()));
    if (scratch == nullptr) return verdict;
    const bool compares = make_expected() && packs(chosen, call);
    bool is_poisoned = false;
    const auto poisons = [&] {
      is_poisoned = compares && poison(timer_, task_, call, scratch, chosen.scratch_bytes());
    };
    // Whether it was looked at.
    const auto look = [&](const char* which) {
      const std::optional<std::string> problem =
          is_poisoned ? problem_of(chosen, call, scratch) : std::nullopt;
      if (problem && !problem->empty()) verdict.wrong = which + *problem;
      return problem.has_value();
    };
    const auto run = [&] { run_chosen<Library>(timer_.queue(), chosen, call, scratch); };
    poisons();
    verdict.runs = timer_.runs(run);
    if (verdict.runs) verdict.seen = look("");
    if (verdict.good()) {
      // One that cannot be recorded would keep a whole program from it. One whose work was not all
      // recorded leaves what it did by itself, unless that is gone.
      const Replay replay = timer_.replay(run, poisons);
      verdict.replays = replay != Replay::kFailed;
      if (!verdict.replays) verdict.wrong = "it runs, but not as a part of a recording";
      if (replay == Replay::kDone) verdict.seen = look("replayed, ") && verdict.seen;
    }
    verdict.lacked_memory = timer_.lacked_memory();
    return verdict;
  }

 private:
  struct Block {
    void* data = nullptr;
    std::int64_t bytes = 0;
    void* get(DeviceTimer& timer, std::int64_t wanted) {
      if (data == nullptr || bytes < wanted) {
        data = timer.allocate(static_cast<std::size_t>(wanted));
        bytes = wanted;
      }
      return data;
    }
  };

  // Whether our own kernel's result is there.
  bool make_expected() {
    if (std::exchange(tried_, true)) return !expected_.empty();
    std::vector<ResultPart> results = results_of(task_, *call_);
    sums_ = timer_.allocate(static_cast<std::size_t>(difference_bytes(results)));
    void* const scratch = scratch_.get(timer_, own_scratch_bytes(task_, tf32_));
    bool there = sums_ != nullptr && scratch != nullptr;
    for (ResultPart& part : results) {
      if (there) part.data = timer_.allocate(static_cast<std::size_t>(part.bytes()));
      there = there && part.data != nullptr;
    }
    if (!there) return false;
    const ConvCall call = with_results(task_, *call_, results);
    if (timer_.runs([&] { run_own(timer_.queue(), task_, tf32_, call, scratch); }))
      expected_ = std::move(results);
    return !expected_.empty();
  }

  // What is wrong with what a run left; empty: nothing. None: it could not be seen.
  std::optional<std::string> problem_of(const Chosen<Library>& chosen, const ConvCall& call,
                                        std::byte* scratch) {
    std::optional<std::string> problem =
        result_difference(timer_, task_, tf32_, expected_, results_of(task_, call), sums_);
    if (problem && problem->empty() && is_measuring(chosen))
      problem = measured_otherwise(timer_, task_, call, scratch);
    return problem;
  }

  // Weights and bias as the plan reads them: in races they are any numbers.
  bool packs(const Chosen<Library>& chosen, const ConvCall& call) {
    return timer_.runs([&] {
      const Image image = Library::image(*chosen.plan);
      void* const packed = const_cast<void*>(call.packed);
      if (packed != nullptr && chosen.rewrite != nullptr) {
        const FilterMapping mapping{chosen.rewrite->weight, call.weight, packed};
        map_filters(timer_.queue(), image, &mapping, 1);
      } else if (packed != nullptr)
        cast(timer_.queue(), Image::kFloat32, image, call.weight, packed, task_.shape.weights());
      if (call.packed_bias != nullptr)
        cast(timer_.queue(), Image::kFloat32, image, call_->epilogue.bias,
             const_cast<void*>(call.packed_bias), task_.shape.out_channels);
    });
  }

  DeviceTimer timer_;
  const typename Library::Link& link_;
  const ConvTask& task_;
  const bool tf32_;
  std::optional<ConvCall> call_;
  Block packed_, scratch_;
  bool tried_ = false;  // to make what is expected
  std::vector<ResultPart> expected_;
  void* sums_ = nullptr;
};

// What else is to be known of a race.
struct RaceNotes {
  // For one that might have been the fastest, or what kept it from being that may not come again.
  bool lacked_memory = false;
  bool unseen = false;      // what the fastest one leaves
  bool none_right = false;  // of all that were timed
  std::string untimed;      // why nothing was; empty: something was
  std::string dropped;      // why plans that measure were
  int wrong = 0;            // of those that were fastest
  std::string wrong_text;

  void note_wrong(const std::string& problem) {
    if (wrong++ == 0) first_wrong_ = problem;
    wrong_text = (wrong == 1 ? "a plan was dropped: "
                             : std::to_string(wrong) + " plans were dropped, the fastest one: ") +
                 first_wrong_;
  }

 private:
  std::string first_wrong_;
};

// Leaves of the plans that measure those that do it as one does that does not: what they leave is
// read after NaN lay there, with zeros in it if it must be, and is the same each time. `scratch` is
// enough for all of them.
template <class Library>
void check_measuring(DeviceTimer& timer, const ConvTask& task, const ConvCall& call,
                     std::byte* scratch, std::vector<Chosen<Library>>& plans, RaceNotes& notes) {
  if constexpr (requires { Library::zero_first(*plans[0].plan); }) {
    if (std::none_of(plans.begin(), plans.end(), is_measuring<Library>)) return;
    const auto run = [&](const Chosen<Library>& chosen) -> std::optional<Measurement> {
      const ConvCall its_call = call_for(chosen, call);
      if (!poison(timer, task, call, scratch, chosen.scratch_bytes()) ||
          !timer.runs([&] { run_chosen<Library>(timer.queue(), chosen, its_call, scratch); }))
        return std::nullopt;
      return read_measurement(timer, task, call);
    };
    // Of a rewritten task the weights would be others.
    std::optional<Measurement> expected;
    for (const auto& plan : plans)
      if (!expected && plan.rewrite == nullptr && !is_measuring(plan)) expected = run(plan);
    // Why it is none; empty: it is one.
    const auto problem_of = [&](const Chosen<Library>& plan) -> std::string {
      if (!expected) return "there is none to compare it with";
      const std::optional<Measurement> first = run(plan), second = run(plan);
      if (!first || !second) return "it does not run";
      // The values that it stored are all looked at by the pass over them.
      const std::optional<Measurement> again = measured_again(timer, task, call, scratch);
      if (!again) {
        notes.lacked_memory = true;
        return "it cannot be measured again";
      }
      std::string problem = difference(task, *expected, *again);
      if (problem.empty())
        problem = difference(task, *again, *first, own_tolerance(result_rows(task)));
      return problem.empty() && !same_bits(*first, *second) ? "it differs from run to run"
                                                            : problem;
    };
    std::erase_if(plans, [&](Chosen<Library>& plan) {
      if (!is_measuring(plan)) return false;
      std::string problem = problem_of(plan);
      if (problem.empty()) return false;
      Library::zero_first(*plan.plan);
      if (expected && problem_of(plan).empty()) return false;
      notes.dropped = "a plan that measures was dropped: " + problem;
      return true;
    });
  }
}

}  // namespace pycnn::cuda
