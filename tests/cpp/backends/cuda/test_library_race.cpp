// What is timed when a library's kernel is chosen: tensors in turn, what follows a plan, our own
// kernel.
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

// Of how many calls the tensors are that were timed last; what was found was run twice behind that.
std::size_t calls_in_turn() {
  Fake::places.resize(Fake::places.size() - 2);
  const std::size_t last = std::min<std::size_t>(kTimedCalls, Fake::places.size());
  std::set<const void*> images, weights;
  for (std::size_t i = Fake::places.size() - last; i < Fake::places.size(); ++i) {
    images.insert(Fake::places[i].first);
    weights.insert(Fake::places[i].second);
  }
  CHECK(images.size() == weights.size());
  return images.size();
}

TEST_CASE("library kernel: tensors are timed in turn until the cache cannot hold them all") {
  const Choices choices;
  Fake::scripts = {{16, {{"only", 10.0}}}};
  own_us = 1e6;
  const auto find = [&](double cache) {  // of that many times a call's tensors
    const ConvTask task = stem(next_images(), 16);
    const int images = task.shape.images * (12 * 12 * 16 + 6 * 6 * 8) * 2;
    fake_cuda().cache_bytes = static_cast<int>(cache * (images + 8 * 7 * 7 * 16 * (4 + 2)));
    CHECK(choices.find(task).plan == "only");
    return calls_in_turn();
  };
  CHECK(find(0.0) == 1);
  CHECK(find(0.5) == 2);
  CHECK(find(1.0) == 3);
  CHECK(find(3.0) == 7);
  CHECK(find(100.0) == kTimedCalls);
  // What there is no memory for is left out.
  fake_cuda().blocks_left = 3 * 4 + 1;  // tensors of three calls, and scratch
  CHECK(find(100.0) == 3);
}

TEST_CASE("library kernel: what measures a result is timed with each plan") {
  const Choices choices;
  ConvTask task = stem(next_images());
  CHECK(choices.find(task).plan == "blocks");
  CHECK(moves.measures == 0);
  own_us = 30.0;  // which measures itself
  for (const Direction direction : {Direction::kForward, Direction::kGradInput}) {
    task = stem(next_images());
    task.direction = direction;
    task.measure = direction == Direction::kForward ? MeasureKind::kMoments : MeasureKind::kSums;
    moves.measures = Fake::runs = 0;
    moves.measure_us = 10.0;
    CHECK(choices.find(task).rewrite == kBlocksName);
    CHECK(moves.measures == Fake::runs);
    task.shape.images = next_images();
    moves.measure_us = 25.0;
    CHECK(choices.find(task).why == kOwnWasFaster);
  }
}

TEST_CASE("library kernel: what finishes a gradient measures it in the same pass") {
  const Choices choices;
  ConvTask task = stem(next_images());
  task.direction = Direction::kGradInput;
  const auto passes = [&](bool residual, bool gate, MeasureKind measure) {
    moves = {};
    task.shape.images = next_images();
    task.residual = residual;
    task.gate = gate;
    task.measure = measure;
    Fake::runs = 0;
    CHECK(choices.find(task).plan == "blocks");
    CHECK(Fake::runs > 0);
    CHECK(moves.joined + moves.epilogues + moves.measures == Fake::runs);
    return std::vector<bool>{moves.joined > 0, moves.epilogues > 0, moves.measures > 0};
  };
  using Passes = std::vector<bool>;
  CHECK(passes(true, true, MeasureKind::kNothing) == Passes{false, true, false});
  CHECK(passes(false, false, MeasureKind::kSums) == Passes{false, false, true});
  CHECK(passes(true, false, MeasureKind::kSums) == Passes{true, false, false});
  CHECK(passes(false, true, MeasureKind::kSums) == Passes{true, false, false});
}

TEST_CASE("library kernel: one that is asked for by name does not race our own") {
  const Choices choices;
  Fake::scripts = {{16, {{"plan", 10.0}}}};
  own_us = 5.0;
  Concatenated net(16);
  net.problem.output_pitch = 0;
  net.problem.pinned = "conv2d.cudnn";
  CHECK(net.takes_library());
  CHECK(own_runs == 1);  // for what is right
  net.problem.pinned = {};
  CHECK(!net.takes_library());  // what was kept for the pin says nothing here,
  net.problem.pinned = "conv2d.cudnn";
  CHECK(net.takes_library());  // nor the other way round
}

}  // namespace
}  // namespace pycnn::cuda
