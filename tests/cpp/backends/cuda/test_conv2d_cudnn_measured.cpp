// Plans of cuDNN that measure what they leave.
#include <set>
#include <string>

#include "backends/cuda/fake_cudnn.h"

namespace pycnn::cuda {
namespace {

// Tasks of bfloat16 whose results are measured, and what is chosen for them.
struct Measuring : Linked {
  explicit Measuring(MeasureKind kind) {
    task.image = Image::kBFloat16;
    task.measure = kind;
    if (kind == MeasureKind::kSums) {
      task.direction = Direction::kGradInput;
    }
    // The pass takes 1.
    fake.us = {{10, 10.0}, {11, 20.0}, {12, 30.0}, {20, 10.0}, {21, 11.0},
               {22, 12.0}, {30, 10.5}, {31, 11.5}, {32, 12.5}};
  }
  ConvTask task = small_task();
  RaceNotes notes;

  std::size_t offered() const { return Cudnn::offers(link, task, library_options()).size(); }
  Chosen<Cudnn> fastest() {
    bool all = false;
    auto plans =
        made_plans<Cudnn>(0, task, offers_for<Cudnn>(link, task, nullptr, library_options()),
                          library_options(), Clock::now(), all);
    notes = {};
    const auto best = fastest_plan<Cudnn>(0, link, task, false, plans, notes);
    REQUIRE(best);
    return *best;
  }
  std::set<std::int64_t> operand_ids() const {
    std::set<std::int64_t> ids;
    for (const auto& [id, pointer] : fake.operands)
      if (pointer != nullptr) ids.insert(id);
    return ids;
  }
};

TEST_CASE("conv2d by cudnn: engines that measure are offered, once with a promise") {
  Measuring linked(MeasureKind::kMoments);
  CHECK(linked.offered() == 3 * kEngines);
  fake.knows_repeating = false;
  CHECK(linked.offered() == 2 * kEngines);
  fake.knows_repeating = true;
  const auto without = [&](auto change) {
    const ConvTask before = linked.task;
    change(linked.task);
    const bool none = linked.offered() == kEngines;
    linked.task = before;
    return none;
  };
  CHECK(without([](ConvTask& task) { task.measure = MeasureKind::kNothing; }));
  CHECK(without([](ConvTask& task) { task.shape.groups = 4; }));
  CHECK(without([](ConvTask& task) { task.shape.out_channels = 6; }));
  CHECK(without([](ConvTask& task) { task.curve = {CurveKind::kRelu}; }));
  CHECK(without([](ConvTask& task) { task.residual = true; }));
  Measuring sums(MeasureKind::kSums);
  sums.task.residual = sums.task.gate = true;
  sums.task.curve = sums.task.norm_curve = {CurveKind::kRelu};
  CHECK(sums.offered() == 3 * kEngines);
  sums.task.norm_curve = {CurveKind::kTanh};
  CHECK(sums.offered() == kEngines);
  // By signs twice likewise, and by what they are of once.
  sums.task.norm_curve = {CurveKind::kRelu};
  sums.task.signs = true;
  CHECK(sums.offered() == 4 * kEngines);
}

TEST_CASE("conv2d by cudnn: an engine that measures wins, is kept and read") {
  for (const MeasureKind kind : {MeasureKind::kMoments, MeasureKind::kSums}) {
    Measuring linked(kind);
    const auto read = [&](const std::string& text) {
      return Cudnn::read(linked.link, linked.task, library_options(), text);
    };
    Chosen<Cudnn> chosen = linked.fastest();
    CHECK(engine_of(chosen) == 20);
    CHECK(Cudnn::measures(*chosen.plan));
    CHECK(linked.notes.dropped.empty());
    CHECK((moves.centers > 0) == (kind == MeasureKind::kMoments));
    const std::string text = Cudnn::text(*chosen.plan);
    CHECK(text == "m20");
    auto again = read(text);
    REQUIRE(again != nullptr);
    CHECK(Cudnn::measures(*again));
    CHECK(!again->zeroes);
    CHECK(again->scratch_bytes() == chosen.plan->scratch_bytes());
    // The third of its sums, of one tile, is the center.
    CHECK(chosen.plan->scratch_bytes() == 256 + 3 * 8 * 4);
    // One that adds to what is there gets zeros.
    fake.adds = {20};
    chosen = linked.fastest();
    CHECK(engine_of(chosen) == 20);
    CHECK(Cudnn::text(*chosen.plan) == "z20");
    again = read("z20");
    REQUIRE(again != nullptr);
    CHECK(again->zeroes);
    // One that is wrong is not taken, nor one that can never be told to have been right.
    fake.adds = {};
    fake.wrong = {20};
    CHECK(engine_of(linked.fastest()) == 30);
    CHECK(linked.notes.dropped.find("instead of") != std::string::npos);
    fake.wrong = {20, 21, 22, 30, 31, 32};
    CHECK(engine_of(linked.fastest()) == 10);
    ConvTask other = linked.task;
    other.measure = MeasureKind::kNothing;
    CHECK(Cudnn::read(linked.link, other, library_options(), "m20") == nullptr);
    moves = {};
  }
}

TEST_CASE("conv2d by cudnn: what an engine reads that measures") {
  written_signs = {};
  using Ids = std::set<std::int64_t>;
  Measuring moments(MeasureKind::kMoments);
  (void)moments.fastest();
  const Ids all = {cudnn::kInput,  cudnn::kWeight,   cudnn::kOutput,
                   cudnn::kCenter, cudnn::kFirstSum, cudnn::kSecondSum};
  CHECK(moments.operand_ids() == all);
  const auto at = [&](std::int64_t id) { return static_cast<float*>(fake.operands[id]); };
  CHECK(at(cudnn::kSecondSum) == at(cudnn::kFirstSum) + 8);
  CHECK(at(cudnn::kCenter) == at(cudnn::kFirstSum) + 16);
  CHECK(fake.dimensions[cudnn::kFirstSum] == std::vector<std::int64_t>{1, 8, 1, 1});
  Measuring sums(MeasureKind::kSums);
  const auto read = [&](bool residual, bool gate, bool norm_relu) {
    sums.task.residual = residual;
    sums.task.gate = gate;
    sums.task.curve = gate ? Curve{CurveKind::kRelu} : Curve{};
    sums.task.norm_curve = norm_relu ? Curve{CurveKind::kRelu} : Curve{};
    (void)sums.fastest();
    Ids more;
    for (const std::int64_t id : sums.operand_ids())
      if (all.count(id) == 0) more.insert(id);
    return more;
  };
  CHECK(read(false, false, false) == Ids{cudnn::kNormed});
  CHECK(read(true, false, false) == Ids{cudnn::kNormed, cudnn::kResidual});
  CHECK(read(true, true, false) == Ids{cudnn::kNormed, cudnn::kResidual, cudnn::kGate});
  CHECK(read(false, false, true) == Ids{cudnn::kNormed, cudnn::kFactor, cudnn::kOffset});
  CHECK(written_signs.empty());
}

TEST_CASE("conv2d by cudnn: an engine reads signs, eight a byte, or what they are of") {
  written_signs = {};
  Measuring linked(MeasureKind::kSums);
  const std::string key = Cudnn::key(linked.link, linked.task, library_options());
  linked.task.gate = linked.task.signs = true;
  linked.task.curve = {CurveKind::kRelu};
  CHECK(Cudnn::key(linked.link, linked.task, library_options()) != key);
  const auto check = [&](const Chosen<Cudnn>& chosen, const std::string& text) {
    CHECK(chosen.plan->problem.gate);
    CHECK(chosen.plan->problem.signs);
    CHECK(Cudnn::text(*chosen.plan) == text);
    const auto again = Cudnn::read(linked.link, linked.task, library_options(), text);
    REQUIRE(again != nullptr);
    CHECK(again->problem.signs);
    CHECK(again->zeroes == chosen.plan->zeroes);
    // In trials they are signs of what the gate is.
    CHECK(written_signs.count(fake.operands[cudnn::kGate]) == 1);
  };
  check(linked.fastest(), "M20");
  fake.adds = {20};
  check(linked.fastest(), "Z20");
  fake.adds = {};
  // What kept a plan of another task would read what is not there.
  ConvTask other = linked.task;
  other.signs = false;
  for (const char* const text : {"M20", "Z20"})
    CHECK(Cudnn::read(linked.link, other, library_options(), text) == nullptr);
  const auto whole = Cudnn::read(linked.link, linked.task, library_options(), "m20");
  REQUIRE(whole != nullptr);
  CHECK(whole->problem.gate);
  CHECK(!whole->problem.signs);
  (void)linked.offered();  // the last graph is the one without them
  CHECK(fake.types[cudnn::kGate] == cudnn::kBFloat16);
  const std::optional<cudnn::ConvProblem> problem = measuring_problem(linked.task);
  REQUIRE(problem);
  (void)cudnn::ConvGraph(*linked.link.functions, *problem, {});
  CHECK(fake.types[cudnn::kGate] == cudnn::kBoolean);
}

}  // namespace
}  // namespace pycnn::cuda
