#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/current_device.h"
#include "backends/cuda/elementwise.h"
#include "backends/cuda/library_choice.h"
#include "backends/cuda/library_trial.h"
#include "backends/cuda/move.h"
#include "backends/cuda/plan_cache.h"

// Convolutions and dense layers by a library of NVIDIA's. A plan is chosen while compiling: each
// one that the library offers is timed, and our own kernel beside them; the choice is kept
// (plan_cache.h). Where the library runs a shape badly, its plans for equal ones (conv2d_rewrite.h)
// are timed with what moves images and weights. With $PYCNN_CUDA_DETERMINISTIC=1, and when choosing
// takes too long (library_options.h), nothing is timed and the first one taken. Whichever it is,
// before a program gets it, it has run in the process, by itself and as a recording, and what it
// left was what our own kernel leaves (checked_plan.h), both times: one that computes anything
// else, or cannot be recorded, is dropped, and told of.
//
// A Library says what differs:
//   kName, kNoPlan, kNotGiven     its name; why there is no plan, that work could not be given
//   variant<OpType>(plan)         what a kernel is called that runs the plan
//   Link                          `functions` and handles of one device; `problem`: why there are
//                                 none; `is_loaded`: though the library has them
//   load(problem)                 the functions, or null
//   open(link)                    makes the handles, on the current device
//   left_out(link, options)       which plans it would have, and why not; empty: all are there
//   Plan                          with `link`, scratch_bytes() and what of these is
//                                 workspace_bytes()
//   key(link, task, options)      what a choice depends on besides the GPU, with kMeasuredMark
//                                 where plans that measure may be chosen
//   offers(link, task, options)   plans to be made (Offer), best first
//   text(plan), read(link, task, options, text)    of the plan cache; empty or null: there is none
//   run(queue, plan, call, scratch)
//   packs_bias(plan)              whether it reads the bias in the images' type
//   forget_stream(link)           before a stream ends that plans ran on
// and of one that may be missing, where a user would want to know:
//   missing(link, options)        lines as Selection::missing; of several: missing(device, options)
// and of one with plans that measure their results as MeasureKind tells, and finish them before:
//   measures(plan)                whether it is one; such a plan is seen to do so before it may win
//   zero_first(plan)              from now on it zeroes what it adds to
// and of one with plans that make gradients of weights in 16 bits, which they widen behind:
//   leaves_narrow(plan)           whether it is one, which then leaves them so where a call says
namespace pycnn::cuda {

// Never destroyed, since kernels use it until the process ends.
template <class Library>
const typename Library::Link& link_of(int device) {
  using Link = typename Library::Link;
  static std::mutex mutex;
  static auto* const links = new std::map<int, Link>;
  const std::lock_guard lock(mutex);
  const auto [entry, is_new] = links->try_emplace(device);
  Link& link = entry->second;
  if (!is_new) return link;
  link.functions = Library::load(link.problem);
  if (link.functions == nullptr) return link;
  link.is_loaded = true;
  const CurrentDevice current(device);
  if (current.status() == cudaSuccess && Library::open(link)) return link;
  (void)cudaGetLastError();
  link.functions = nullptr;
  link.problem = std::string(Library::kName) + " cannot use the device";
  return link;
}

// In the plan cache, plans of a rewritten task begin with "@NAME@".
inline std::string rewrite_mark(const ConvRewrite* rewrite) {
  return rewrite != nullptr ? "@" + rewrite->name + "@" : "";
}

using RewriteList = std::vector<std::shared_ptr<const ConvRewrite>>;

// What is tried for a task, null being the task itself; the first ones first where nothing is
// timed. `same`: of a task whose result lies apart, what became of the task by itself (null:
// nothing), whose weights are packed for both.
inline RewriteList rewrites_to_try(const ConvTask& task, const LibraryOptions& options,
                                   const ConvRewrite* same = nullptr) {
  RewriteList list;
  if (task.shape.output_step != 0) {
    if (same == nullptr) return {nullptr};
    for (ConvRewrite& rewrite : rewrites_of(task))
      if (rewrite.name == same->name)
        list.push_back(std::make_shared<const ConvRewrite>(std::move(rewrite)));
    return list;
  }
  if (options.rewrites != Rewrites::kNever)
    for (ConvRewrite& rewrite : rewrites_of(task))
      list.push_back(std::make_shared<const ConvRewrite>(std::move(rewrite)));
  if (options.rewrites == Rewrites::kAlways && !list.empty()) return list;
  if (options.rewrites == Rewrites::kOwn) return list;
  list.insert(needs_rewrite(task, options.tf32) ? list.end() : list.begin(), nullptr);
  return list;
}

template <class Library>
struct Offered {
  std::shared_ptr<const ConvRewrite> rewrite;
  Offer<typename Library::Plan> offer;
};

template <class Library>
std::vector<Offered<Library>> offers_for(const typename Library::Link& link, const ConvTask& task,
                                         const std::shared_ptr<const ConvRewrite>& rewrite,
                                         const LibraryOptions& options) {
  std::vector<Offered<Library>> found;
  for (auto& offer : Library::offers(link, rewrite != nullptr ? rewrite->task : task, options))
    found.push_back({rewrite, std::move(offer)});
  return found;
}

// All plans, best first: those that are compiled by several threads, and until it is late. `all`
// tells whether none was left out for that.
template <class Library>
std::vector<Chosen<Library>> made_plans(int device, const ConvTask& task,
                                        const std::vector<Offered<Library>>& offers,
                                        const LibraryOptions& options, Clock::time_point began,
                                        bool& all) {
  std::vector<std::shared_ptr<typename Library::Plan>> plans(offers.size());
  std::vector<std::size_t> compiled;
  for (std::size_t i = 0; i < offers.size(); ++i) {
    if (offers[i].offer.compiles)
      compiled.push_back(i);
    else
      plans[i] = offers[i].offer.make(0);
  }
  std::atomic<bool> left_out = false;
  in_threads(device, compiled.size(), [&](int thread, std::size_t i) {
    if (is_late(began, options.choose_seconds)) {
      left_out = true;
      return;
    }
    try {
      plans[compiled[i]] = offers[compiled[i]].offer.make(thread);
    } catch (...) {
      // It stays null.
    }
  });
  all = !left_out;
  std::vector<Chosen<Library>> found;
  for (std::size_t i = 0; i < offers.size(); ++i)
    if (plans[i] != nullptr) found.push_back({offers[i].rewrite, std::move(plans[i]), task});
  return found;
}

template <class Library>
std::optional<Chosen<Library>> read_chosen(const typename Library::Link& link, const ConvTask& task,
                                           const RewriteList& rewrites,
                                           const LibraryOptions& options, const std::string& text) {
  for (const auto& rewrite : rewrites) {
    const std::string mark = rewrite_mark(rewrite.get());
    if (mark.empty() ? text.starts_with("@") : !text.starts_with(mark)) continue;
    auto plan = Library::read(link, rewrite != nullptr ? rewrite->task : task, options,
                              text.substr(mark.size()));
    if (plan == nullptr) continue;
    return Chosen<Library>{rewrite, std::move(plan), task};
  }
  return std::nullopt;
}

constexpr const char* kNoneRuns = "none of its plans runs";

// In this process: a choice, of which it is known once that it runs and is right.
struct Seen {
  std::string begin;  // empty: nothing is kept
  std::string of(const std::string& text) const { return begin + text; }
};

// Untimed: the first plan that runs and is right, by no engine that is compiled at run time, with a
// large workspace if there is none else. Without a plan, why; with one, which was not taken for
// what it left.
template <class Library>
Chosen<Library> first_that_runs(int device, const typename Library::Link& link,
                                const ConvTask& task, const RewriteList& rewrites,
                                const LibraryOptions& options, std::string& why,
                                const Seen& seen = {}) {
  why = Library::kNoPlan;
  RaceNotes notes;
  std::optional<Trial<Library>> trial;
  std::vector<Chosen<Library>> large;
  const auto takes = [&](const Chosen<Library>& chosen) {
    std::string text = seen.begin.empty() ? "" : Library::text(*chosen.plan);
    if (!text.empty()) text = seen.of(rewrite_mark(chosen.rewrite.get()) + text);
    Verdict verdict;
    if (text.empty() || !has_run(text)) {
      if (!trial) trial.emplace(device, link, task, options.tf32);
      verdict = trial->of(chosen);
      if (!text.empty() && verdict.good() && verdict.seen) note_run(text);
    }
    if (!verdict.wrong.empty()) notes.note_wrong(verdict.wrong);
    why = verdict.good() || notes.wrong > 0 ? notes.wrong_text : kNoneRuns;
    return verdict.good();
  };
  for (const auto& rewrite : rewrites)
    for (const auto& offered : offers_for<Library>(link, task, rewrite, options)) {
      if (offered.offer.compiles) continue;
      Chosen<Library> chosen{offered.rewrite, offered.offer.make(0), task};
      if (chosen.plan == nullptr || is_measuring(chosen)) continue;
      if (is_large(chosen))
        large.push_back(std::move(chosen));
      else if (takes(chosen))
        return chosen;
    }
  for (const Chosen<Library>& chosen : large)
    if (takes(chosen)) return chosen;
  return {};
}

// Scratch for `own_bytes` and for the plans, of which those that want more than there is go.
template <class Library>
std::byte* timed_scratch(DeviceTimer& timer, std::int64_t own_bytes,
                         std::vector<Chosen<Library>>& plans) {
  for (;;) {
    std::int64_t most = own_bytes;
    for (const auto& plan : plans) most = std::max(most, plan.scratch_bytes());
    void* const scratch = timer.allocate(static_cast<std::size_t>(most));
    if (scratch != nullptr || most == own_bytes) return static_cast<std::byte*>(scratch);
    std::erase_if(plans, [&](const auto& plan) { return plan.scratch_bytes() == most; });
  }
}

// What a concat does to a result that was not written where it wants it.
inline void copy_apart(DeviceQueue& queue, const ConvTask& task, const void* result, void* whole) {
  const ConvShape& s = task.shape;
  BoxParams box{};
  box.input = result;
  box.output = whole;
  box.axes = 2;
  box.shape[0] = s.pixels();
  box.shape[1] = box.input_step[0] = s.out_channels;
  box.output_step[0] = s.output_step;
  box.input_step[1] = box.output_step[1] = 1;
  box.count = box.shape[0] * box.shape[1];
  copy_box(queue, is_narrow(task.image) ? 2 : 4, box);
}

// Our own kernel where a library's runs otherwise: of its weights, which may be packed for it.
inline std::int64_t own_apart_scratch_bytes(const ConvTask& task, bool tf32) {
  return aligned_scratch(task.shape.weights() * 4) + own_scratch_bytes(task, tf32);
}
inline void run_own_apart(DeviceQueue& queue, const ConvTask& task, bool tf32, const ConvCall& call,
                          std::byte* scratch) {
  ConvCall its_call = call;
  if (call.packed != nullptr) {
    its_call.weight = reinterpret_cast<const float*>(scratch);
    its_call.packed = nullptr;
    cast(queue, task.image, Image::kFloat32, call.packed, scratch, task.shape.weights());
  }
  run_own(queue, task, tf32, its_call, scratch + aligned_scratch(task.shape.weights() * 4));
}

// The plans, fastest first, with weights packed as steps find them; one without a plan is our own
// kernel, which does not race where one of the library's was asked for by name (`pinned`). Empty:
// they could not be timed. What there is no memory for is not among the plans any more. `copied`: a
// plan of the task whose results follow one another, to be timed with the copy of these; null:
// there is none.
template <class Library>
std::vector<Chosen<Library>> ranked_plans(int device, const typename Library::Link& link,
                                          const ConvTask& task, bool tf32,
                                          std::vector<Chosen<Library>>& plans, RaceNotes& notes,
                                          bool pinned, const Chosen<Library>* copied) {
  DeviceTimer timer(device);
  notes.untimed = timer.works() ? "there is no memory for it" : "the GPU cannot be used for it";
  if (!timer.works()) return {};
  std::int64_t most_packed = own_packed_bytes(task, tf32);
  const bool own_packs = most_packed > 0;
  for (const auto& plan : plans) most_packed = std::max(most_packed, packed_bytes(plan));
  if (copied != nullptr) most_packed = std::max(most_packed, packed_bytes(*copied));
  const std::optional<ConvCall> call = timed_call(timer, task, most_packed);
  if (!call) return {};
  std::int64_t other_bytes = own_scratch_bytes(task, tf32);
  if (copied != nullptr)
    other_bytes = std::max(own_apart_scratch_bytes(task, tf32), copied->scratch_bytes());
  // Large ones are not missed: where memory is short, it will be for most.
  const auto small = [&] {
    return std::count_if(plans.begin(), plans.end(),
                         [](const auto& plan) { return !is_large(plan); });
  };
  const auto wanted = small();
  std::byte* const scratch = timed_scratch(timer, other_bytes, plans);
  notes.lacked_memory = scratch == nullptr || small() < wanted;
  if (scratch == nullptr) return {};
  void* result = nullptr;
  if (copied != nullptr) {
    result = timer.allocate(static_cast<std::size_t>(result_rows(task) * result_channels(task) *
                                                     (is_narrow(task.image) ? 2 : 4)));
    if (result == nullptr) {  // there is no telling which is faster
      notes.lacked_memory = true;
      notes.untimed.clear();
      return {*copied};
    }
  }
  check_measuring(timer, task, *call, scratch, plans, notes);
  const std::vector<ConvCall> calls = calls_in_turn(timer, task, most_packed, *call);
  std::size_t turn = 0;
  std::vector<Work> works;
  std::vector<double> handicaps;
  for (const auto& plan : plans) {
    handicaps.push_back((is_measuring(plan) ? kMeasuringHandicap : 1.0) *
                        (is_large(plan) ? kLargeHandicap : 1.0));
    works.push_back([&timer, &plan, &calls, &turn, scratch] {
      const ConvCall its_call = call_for(plan, calls[turn++ % calls.size()]);
      run_chosen<Library>(timer.queue(), plan, its_call, scratch);
    });
  }
  if (result != nullptr)
    works.push_back([&] {
      ConvCall its_call = call_for(*copied, calls[turn++ % calls.size()]);
      void* const whole = const_cast<void*>(std::exchange(its_call.output, result));
      its_call.output_step = 0;
      run_chosen<Library>(timer.queue(), *copied, its_call, scratch);
      copy_apart(timer.queue(), task, result, whole);
    });
  if (!pinned)
    works.push_back([&] {
      ConvCall its_call = calls[turn++ % calls.size()];
      if (copied != nullptr ? packed_bytes(*copied) == 0 : !own_packs) its_call.packed = nullptr;
      if (copied != nullptr)
        run_own_apart(timer.queue(), task, tf32, its_call, scratch);
      else
        run_own(timer.queue(), task, tf32, its_call, scratch);
    });
  handicaps.resize(works.size(), 1.0);
  const std::vector<int> places = ranked(timer, works, handicaps);
  Library::forget_stream(link);
  if (timer.lacked_memory()) notes.lacked_memory = true;
  notes.untimed = !places.empty() ? ""
                  : works.empty() ? "no kernel was left"
                                  : "no kernel could be recorded for it";
  std::vector<Chosen<Library>> found;
  for (const int place : places) {
    const auto index = static_cast<std::size_t>(place);
    const bool is_copy = result != nullptr && index == plans.size();
    found.push_back(index < plans.size() ? plans[index] : is_copy ? *copied : Chosen<Library>{});
  }
  return found;
}

// The fastest of them that is right; none: they could not be timed.
template <class Library>
std::optional<Chosen<Library>> fastest_plan(int device, const typename Library::Link& link,
                                            const ConvTask& task, bool tf32,
                                            std::vector<Chosen<Library>>& plans, RaceNotes& notes,
                                            bool pinned = false,
                                            const Chosen<Library>* copied = nullptr) {
  const std::vector<Chosen<Library>> fastest =
      ranked_plans<Library>(device, link, task, tf32, plans, notes, pinned, copied);
  if (fastest.empty()) return std::nullopt;
  std::optional<Trial<Library>> trial;
  for (const Chosen<Library>& chosen : fastest) {
    const bool is_copy = copied != nullptr && chosen.plan == copied->plan;
    if (chosen.plan == nullptr || is_copy) return chosen;  // a plan that was looked at
    if (!trial) trial.emplace(device, link, task, tf32);
    const Verdict verdict = trial->of(chosen);
    notes.unseen = !verdict.seen;
    if (verdict.lacked_memory || !verdict.runs || !verdict.replays)
      notes.lacked_memory = true;  // it ran before
    if (verdict.good()) return chosen;
    notes.note_wrong(verdict.runs ? verdict.wrong : "it did not run again");
  }
  notes.none_right = true;
  return Chosen<Library>{};
}

// Without a plan: our own kernel is to be used; `why` says the reason. With one, it says what was
// left out, if anything was. `began`: when choosing for the program did. `pinned`: our own kernel
// is not wanted, and what was fastest without it is kept apart. `copied`: as of fastest_plan, and
// what is found where it is the fastest.
template <class Library>
Chosen<Library> find_plan(int device, const ConvTask& task, std::string& why,
                          Clock::time_point began = Clock::now(), bool pinned = false,
                          const Chosen<Library>* copied = nullptr) {
  const auto& link = link_of<Library>(device);
  if (link.functions == nullptr) {
    why = link.problem;
    return {};
  }
  const CurrentDevice current(device);
  if (current.status() != cudaSuccess) {
    (void)cudaGetLastError();
    why = std::string(Library::kName) + " cannot use the device";
    return {};
  }
  const std::lock_guard lock(choice_mutex());  // under which handles for plans are used, too
  const LibraryOptions options = library_options(task.tf32);
  const RewriteList rewrites =
      rewrites_to_try(task, options, copied != nullptr ? copied->rewrite.get() : nullptr);
  std::string key = "pycnn " PYCNN_VERSION "; " + std::string(device_identity(device)) + "; " +
                    Library::key(link, task, options);
  // What was kept by those that did not know rewrites says nothing where there are some, nor does
  // what was fastest of these alone.
  for (const auto& rewrite : rewrites) key += rewrite_mark(rewrite.get());
  if (!rewrites.empty() && options.rewrites == Rewrites::kAlways) key += "@always@";
  if (pinned) key += "@pinned@";
  const Seen seen{std::to_string(device) + "; " + key + "; "};
  if (options.deterministic)
    return first_that_runs<Library>(device, link, task, rewrites, options, why, seen);
  // Without time for plans that measure (below) the choice is one of its own.
  std::string late_key = key;
  if (const std::size_t mark = key.find(kMeasuredMark); mark != std::string::npos)
    late_key.erase(mark, std::string(kMeasuredMark).size());
  const double half = options.choose_seconds / 2.0;
  std::string kept_wrong;
  std::optional<std::string> known = plan_cache().find(key);
  if (!known && is_late(began, half)) known = plan_cache().find(late_key);
  if (known) {
    if (*known == kOwnKernel || *known == kNoneIsRight) {
      why = *known == kOwnKernel ? kOwnWasFaster : kNoneWasRight;
      return {};
    }
    if (copied != nullptr && *known == kCopied) return *copied;
    const auto chosen = read_chosen<Library>(link, task, rewrites, options, *known);
    if (chosen && has_run(seen.of(*known))) return *chosen;
    if (chosen) {
      const Verdict verdict = Trial<Library>(device, link, task, options.tf32).of(*chosen);
      if (verdict.good() && verdict.seen) note_run(seen.of(*known));
      if (verdict.good()) return *chosen;
      kept_wrong = verdict.wrong;
    }
  }
  const std::string limit = "choosing took more than " + seconds_text(options.choose_seconds) +
                            " s (PYCNN_CUDA_CHOOSE_SECONDS)";
  std::vector<Chosen<Library>> plans;
  bool all = false;
  std::string unmeasured;  // why those are not among the plans; empty: they are
  if (!is_late(began, options.choose_seconds)) {
    std::vector<Offered<Library>> offers;
    for (const auto& rewrite : rewrites)
      for (auto& offered : offers_for<Library>(link, task, rewrite, options))
        offers.push_back(std::move(offered));
    // The other half of the time is for plans that a program cannot do without.
    if (is_late(began, half) &&
        std::erase_if(offers, [](const auto& offered) { return offered.offer.measures; }) > 0)
      unmeasured = "no engines that measure: choosing took more than " + seconds_text(half) + " s";
    plans = made_plans<Library>(device, task, offers, options, began, all);
    if (plans.empty() && all && copied == nullptr) {
      why = Library::kNoPlan;
      return {};
    }
  }
  if (plans.empty() && !(all && copied != nullptr)) {
    Chosen<Library> first =
        first_that_runs<Library>(device, link, task, rewrites, options, why, seen);
    if (first.plan != nullptr) why = "not timed: " + limit + (why.empty() ? "" : "; " + why);
    return first;
  }
  const std::vector<Chosen<Library>> first(plans.begin(), plans.begin() + !plans.empty());
  RaceNotes notes;
  const auto best =
      fastest_plan<Library>(device, link, task, options.tf32, plans, notes, pinned, copied);
  if (!best) {
    if (plans.empty()) plans = first;
    std::stable_partition(plans.begin(), plans.end(),
                          [](const auto& plan) { return !is_large(plan); });
    Trial<Library> trial(device, link, task, options.tf32);
    for (const Chosen<Library>& chosen : plans) {
      if (is_measuring(chosen)) continue;
      const Verdict verdict = trial.of(chosen);
      if (!verdict.wrong.empty()) notes.note_wrong(verdict.wrong);
      why = notes.wrong_text;
      if (!verdict.good()) continue;
      why = "not timed: " + notes.untimed + (why.empty() ? "" : "; " + why);
      return chosen;
    }
    if (why.empty()) why = kNoneRuns;
    return {};
  }
  // A plan without a text is chosen anew in the next process.
  std::string text = notes.none_right ? kNoneIsRight : kOwnKernel;
  const bool is_copied = copied != nullptr && best->plan == copied->plan;
  if (is_copied)
    text = kCopied;
  else if (best->plan != nullptr)
    text = Library::text(*best->plan);
  if (!text.empty()) {
    text = rewrite_mark(best->rewrite.get()) + text;
    if (!notes.unseen) note_run(seen.of(text));
    // Where memory or time was short, another one may be faster next time.
    const std::string& its_key = unmeasured.empty() ? key : late_key;
    if (notes.lacked_memory || !all)
      plan_cache().put_for_now(its_key, text);
    else
      plan_cache().put(its_key, text);
  }
  if (best->plan == nullptr)
    why = notes.none_right ? kNoneWasRight : kOwnWasFaster;
  else if (!all)
    why = "no engines that would have been compiled: " + limit;
  if (notes.wrong == 0 && !kept_wrong.empty()) notes.note_wrong(kept_wrong);
  for (const std::string& note : {unmeasured, notes.dropped, notes.wrong_text})
    if (!note.empty()) why += (why.empty() ? "" : "; ") + note;
  return *best;
}

// What a kernel runs: lives in Kernel::state.
template <class Library>
struct Ready {
  Chosen<Library> chosen;
  Chosen<Library> apart;   // where results are a part of a concat's; without a plan: none is,
  bool own_apart = false;  // or our own kernel
  bool tf32 = false;
  bool packs_bias = false;  // in a form that all of them read
};

// A plan that writes its results where a concat wants them, of the same weights. Without a plan:
// the concat copies them, or where `why` says so our own kernel, which writes them there too, is
// faster than either. Plans are told how the first pixel is aligned: all of them are so, then.
// Weights of a rewritten task are no longer those that our own kernel reads.
template <class Library>
Chosen<Library> choose_apart(int device, const Chosen<Library>& chosen, const Problem& problem,
                             std::string& why) {
  ConvTask task = chosen.task;
  if (task.direction != Direction::kForward || task.measure != MeasureKind::kNothing ||
      problem.output_pitch == 0)
    return {};
  const bool is_rewritten = chosen.rewrite != nullptr;
  if (is_rewritten && chosen.rewrite->moves_output) return {};
  if (problem.output_pitch * (is_narrow(task.image) ? 2 : 4) % kVectorBytes != 0) return {};
  task.shape.output_step = static_cast<int>(problem.output_pitch);
  try {
    Chosen<Library> apart = find_plan(device, task, why, problem.began,
                                      is_rewritten || !problem.pinned.empty(), &chosen);
    return apart.plan == chosen.plan ? Chosen<Library>{} : apart;
  } catch (const std::exception&) {
    return {};
  }
}

template <class Library, class OpType>
void run_library(const KernelArgs& args) noexcept {
  try {
    const void* const state = static_cast<const DeviceKernelArgs&>(args).state;
    ConvCall call = call_of<OpType>(args);
    const auto& ready = *static_cast<const Ready<Library>*>(state);
    const bool is_apart = call.output_step != 0;
    const auto& chosen = is_apart && ready.apart.plan != nullptr ? ready.apart : ready.chosen;
    if (packed_bytes(chosen) > 0) call.packed = std::exchange(call.weight, nullptr);
    if (ready.packs_bias) call.packed_bias = std::exchange(call.epilogue.bias, nullptr);
    if (is_apart && ready.own_apart)
      run_own_apart(queue_of(args), chosen.task, ready.tf32, call, args.scratch);
    else
      run_chosen<Library>(queue_of(args), chosen, call, args.scratch);
  } catch (...) {
    note_library(queue_of(args), Library::kNotGiven);
  }
}

template <class Library>
std::vector<std::string> missing_of(int device, const LibraryOptions& options) {
  if constexpr (requires { Library::missing(device, options); })
    return Library::missing(device, options);
  else if constexpr (requires { Library::missing(link_of<Library>(device), options); })
    return Library::missing(link_of<Library>(device), options);
  else
    return {};
}

template <class Library, class OpType>
Choice choose_library(int device, const OpType& op, const Problem& problem) {
  const ConvTask task = wanted_task(op, problem);
  if (task.shape.pixels() == 0 || task.shape.weights() == 0) return refuse("a tensor is empty");
  std::string why;
  Chosen<Library> chosen;
  try {
    chosen = find_plan<Library>(device, task, why, problem.began, !problem.pinned.empty());
  } catch (const std::exception& error) {
    why = error.what();
  }
  std::string left_out;
  if (const auto& link = link_of<Library>(device); link.functions != nullptr)
    left_out = Library::left_out(link, library_options(task.tf32));
  if (!why.empty()) left_out = left_out.empty() ? why : why + "; " + left_out;
  std::vector<std::string> missing = missing_of<Library>(device, library_options(task.tf32));
  if (chosen.plan == nullptr) {
    Choice none = refuse(kept_text(left_out));
    none.missing = std::move(missing);
    return none;
  }
  std::string in_concat;
  Chosen<Library> apart = choose_apart(device, chosen, problem, in_concat);
  const bool own_apart = in_concat.starts_with(kOwnWasFaster);
  const bool tf32 = library_options(task.tf32).tf32;
  Choice choice{run_library<Library, OpType>, scratch(chosen.scratch_bytes())};
  if (own_apart) {
    choice.scratch_bytes =
        std::max(choice.scratch_bytes, scratch(own_apart_scratch_bytes(task, tf32)));
    choice.strided_outputs = 1;
    choice.apart_variant = kept_text(std::string(OpType::kName) + ".cuda");
  }
  if (apart.plan != nullptr) {
    choice.scratch_bytes = std::max(choice.scratch_bytes, scratch(apart.scratch_bytes()));
    choice.strided_outputs = 1;
    choice.output_pitch = problem.output_pitch;
    const std::string rewritten = apart.rewrite != nullptr ? "+" + apart.rewrite->name : "";
    choice.apart_variant = kept_text(Library::template variant<OpType>(*apart.plan) + rewritten);
  }
  choice.left_out = kept_text(left_out);
  choice.missing = std::move(missing);
  const bool measures = is_measuring(chosen);
  const std::string name = chosen.rewrite != nullptr ? "+" + chosen.rewrite->name : "";
  choice.variant = kept_text(Library::template variant<OpType>(*chosen.plan) + name +
                             (measures ? "+measured" : ""));
  if (packed_bytes(chosen) > 0) {
    // The type of images, too: a weight may be read beside several.
    const char* const format =
        kept_text("weights" + std::to_string(static_cast<int>(task.image)) + name);
    const bool alone = !problem.pinned.empty();
    const PackTask rounding{arithmetic_of(Library::image(*chosen.plan), false), task.shape,
                            PackForm::kRounded};
    choice.packed = chosen.rewrite != nullptr
                        ? rewritten_weight(*chosen.rewrite, format, alone)
                        : packed_input(rounding, packed_bytes(chosen), format, alone);
  }
  const bool packs =
      packs_bias(chosen) && !own_apart && (apart.plan == nullptr || packs_bias(apart));
  if (packs) {
    const std::int64_t channels = task.shape.out_channels;
    const PackTask rounding{arithmetic_of(task.image, false), dense_shape(1, channels, 1),
                            PackForm::kRounded};
    choice.packed_bias = packed_input(rounding, channels * 2, "bias", !problem.pinned.empty());
    choice.packed_bias.input = 2;
  }
  const bool narrow = problem.pinned.empty() && leaves_narrow(chosen);
  choice.state = std::make_shared<const Ready<Library>>(
      Ready<Library>{std::move(chosen), std::move(apart), own_apart, tf32, packs});
  choice.alignment = kVectorBytes;  // as plans are told
  if (narrow) choice.widened_from = problem.inputs[0].dtype;
  if (!measures) choice.strided_inputs = norm_input(task);  // in the pass behind the plan
  return choice;
}

}  // namespace pycnn::cuda
