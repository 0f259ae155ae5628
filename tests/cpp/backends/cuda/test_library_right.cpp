// That no plan is taken which leaves anything else than our own kernel does, and how that is seen.
#include <cmath>
#include <limits>

#include "backends/cuda/compare.h"
#include "backends/cuda/fake_library.h"

namespace pycnn::cuda {
namespace {

Scripted leaving(const std::string& name, double us, Leaves leaves) {
  return {name, us, false, 0, false, Measures::kNothing, leaves};
}

TEST_CASE("library kernel: the fastest plan is dropped where its result is wrong, and told of") {
  const Choices choices;
  for (const Direction direction :
       {Direction::kForward, Direction::kGradInput, Direction::kGradWeight})
    for (const Leaves leaves : {Leaves::kWrong, Leaves::kGap}) {
      CAPTURE(static_cast<int>(direction));
      CAPTURE(static_cast<int>(leaves));
      Fake::scripts = {{16, {leaving("spoilt", 1.0, leaves), {"slow", 30.0}, {"good", 20.0}}}};
      ConvTask task = stem(next_images(), 16);
      task.direction = direction;
      own_runs = 0;
      const Found found = choices.find(task);
      CHECK(found.plan == "good");
      CHECK(found.why.starts_with("a plan was dropped: rows "));
      const char* const by = leaves == Leaves::kGap ? "differ by nan" : "differ by 0.1";
      CHECK(found.why.find(by) != std::string::npos);
      CHECK(PlanCache(plan_cache().file()).find(Choices::key_of(task)) == "good");
      // What is known to be right is not looked at again.
      Fake::runs = own_runs = 0;
      CHECK(choices.find(task).plan == "good");
      CHECK(Fake::runs + own_runs == 0);
    }
}

TEST_CASE("library kernel: wrong products are seen where a curve makes much the same of them") {
  const Choices choices;
  for (const CurveKind kind : {CurveKind::kSigmoid, CurveKind::kTanh, CurveKind::kIdentity}) {
    CAPTURE(static_cast<int>(kind));
    Fake::scripts = {{16, {leaving("spoilt", 1.0, Leaves::kZero), {"good", 20.0}}}};
    products = 0.02f;  // of numbers as operands have them in bfloat16: a sigmoid makes 0.505
    ConvTask task = stem(next_images(), 16);
    task.bias = true;
    task.curve = {kind};
    const Found found = choices.find(task);
    CHECK(found.plan == "good");
    CHECK(found.why.starts_with("a plan was dropped: rows "));
  }
}

TEST_CASE("library kernel: wrong plans leave the choice to the next best, at last our own") {
  const Choices choices;
  Fake::scripts = {{16, {}}};
  for (int i = 0; i < 8; ++i)  // more than are timed at length
    Fake::scripts[16].push_back(leaving("spoilt" + std::to_string(i), 1.0 + i, Leaves::kWrong));
  Fake::scripts[16].push_back({"good", 50.0});
  Found found = choices.find(stem(next_images(), 16));
  CHECK(found.plan == "good");
  CHECK(found.why.starts_with("8 plans were dropped, the fastest one: rows "));
  Fake::scripts[16].pop_back();
  for (const double us : {60.0, 1e9}) {  // timed, or far too slow for that
    own_us = us;
    const ConvTask task = stem(next_images(), 16);
    found = choices.find(task);
    CHECK(found.plan.empty());
    CHECK(found.why.find("8 plans were dropped") != std::string::npos);
    found = choices.find(task);  // as is kept
    CHECK(found.plan.empty());
    CHECK(found.why == (us > 1e6 ? kNoneWasRight : kOwnWasFaster));
  }
  // One that was asked for by name is no exception.
  Concatenated net(16);
  net.problem.output_pitch = 0;
  net.problem.pinned = "conv2d.cudnn";
  CHECK(!net.takes_library());
  CHECK(std::string(net.choose().refusal) == kNoneWasRight);
}

TEST_CASE("library kernel: a wrong rewrite is dropped, however it moves results") {
  const Choices choices;
  for (const int channels : {8, 6})
    for (const Direction direction :
         {Direction::kForward, Direction::kGradInput, Direction::kGradWeight}) {
      ConvTask task = stem(next_images());
      task.shape.out_channels = channels;
      task.direction = direction;
      task.bias = direction != Direction::kGradInput;
      Fake::scripts[kBlocks] = {{"blocks", 10.0}};
      CHECK(choices.find(task).plan == "blocks");
    }
  Fake::scripts[kBlocks] = {leaving("blocks", 10.0, Leaves::kWrong)};
  const Found found = choices.find(stem(next_images()));
  CHECK(found.plan == "padded");  // of the two rewrites to 16 channels none is right
  CHECK(found.why.starts_with("2 plans were dropped, the fastest one: rows "));
}

TEST_CASE("library kernel: what another process kept is looked at once, and dropped if wrong") {
  const Choices choices;
  Fake::scripts = {{16, {{"good", 20.0}, leaving("spoilt", 1.0, Leaves::kWrong)}}};
  const ConvTask good = stem(next_images(), 16), wrong = stem(next_images(), 16);
  plan_cache().put(choices.key_of(good), "good");
  plan_cache().put(choices.key_of(wrong), "spoilt");
  CHECK(choices.find(good).plan == "good");
  CHECK(own_runs == 1);
  CHECK(Fake::runs == 2);  // by itself, and recorded
  CHECK(choices.find(good).plan == "good");
  CHECK(own_runs == 1);
  const Found found = choices.find(wrong);
  CHECK(found.plan == "good");
  CHECK(found.why.starts_with("a plan was dropped: "));
  CHECK(PlanCache(plan_cache().file()).find(choices.key_of(wrong)) == "good");
  // Also where it would not have been the fastest.
  const ConvTask slow = stem(next_images(), 16);
  Fake::scripts[16][1].us = 40.0;
  plan_cache().put(choices.key_of(slow), "spoilt");
  const Found other = choices.find(slow);
  CHECK(other.plan == "good");
  CHECK(other.why.starts_with("a plan was dropped: "));
}

TEST_CASE("library kernel: what is not timed is looked at, too, once in a process") {
  const Choices choices;
  const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
  Fake::scripts = {{16, {leaving("spoilt", 1.0, Leaves::kGap), {"good", 20.0}}}};
  const ConvTask task = stem(next_images(), 16);
  Found found = choices.find(task);
  CHECK(found.plan == "good");
  CHECK(found.why.starts_with("a plan was dropped: rows "));
  CHECK(Fake::runs == 3);  // what is wrong by itself is not recorded
  CHECK(own_runs == 1);
  found = choices.find(task);
  CHECK(found.plan == "good");
  CHECK(Fake::runs == 4);  // the wrong one alone
  Fake::scripts = {{16, {leaving("spoilt", 1.0, Leaves::kGap)}}};
  found = choices.find(task);
  CHECK(found.plan.empty());
  CHECK(found.why.starts_with("a plan was dropped: rows "));
}

TEST_CASE("library kernel: what cannot be recorded is not taken without timing either") {
  const Choices choices;
  constexpr const char* kTold = "a plan was dropped: it runs, but not as a part of a recording";
  Scripted eager{"eager", 1.0};
  eager.refuses_recording = true;
  Fake::scripts = {{16, {eager, {"good", 20.0}}}};
  {
    const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
    const Found found = choices.find(stem(next_images(), 16));
    CHECK(found.plan == "good");
    CHECK(found.why == kTold);
  }
  const Found late = choices.find(stem(next_images(), 16), 121.0);
  CHECK(late.plan == "good");
  CHECK(late.why.ends_with(kTold));
  const ConvTask kept = stem(next_images(), 16);  // by another process
  plan_cache().put(choices.key_of(kept), "eager");
  Found found = choices.find(kept);
  CHECK(found.plan == "good");
  CHECK(found.why == kTold);
  CHECK(PlanCache(plan_cache().file()).find(choices.key_of(kept)) == "good");
  Fake::scripts = {{16, {eager}}};
  const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
  found = choices.find(stem(next_images(), 16));
  CHECK(found.plan.empty());
  CHECK(found.why == kTold);
  // Where nothing can be recorded, a plan is no worse than our own kernel.
  fake_cuda().failing = {"cudaStreamBeginCapture"};
  CHECK(choices.find(stem(next_images(), 16)).plan == "eager");
}

// What it left by itself does not count for the recording.
TEST_CASE("library kernel: a plan is dropped whose recording does something else than the plan") {
  const Choices choices;
  for (const Direction direction :
       {Direction::kForward, Direction::kGradInput, Direction::kGradWeight})
    for (const Leaves replayed : {Leaves::kNothing, Leaves::kGap, Leaves::kWrong}) {
      CAPTURE(static_cast<int>(direction));
      CAPTURE(static_cast<int>(replayed));
      Scripted spoilt{"spoilt", 1.0};
      spoilt.replayed = replayed;
      Fake::scripts = {{16, {spoilt, {"good", 20.0}}}};
      ConvTask task = stem(next_images(), 16);
      task.direction = direction;
      Found found = choices.find(task);
      CHECK(found.plan == "good");
      CHECK(found.why.starts_with("a plan was dropped: replayed, rows "));
      const char* const by = replayed == Leaves::kWrong ? "differ by 0.1" : "differ by nan";
      CHECK(found.why.find(by) != std::string::npos);
      CHECK(PlanCache(plan_cache().file()).find(Choices::key_of(task)) == "good");
      task.shape.images = next_images();  // kept by another process
      plan_cache().put(choices.key_of(task), "spoilt");
      found = choices.find(task);
      CHECK(found.plan == "good");
      CHECK(found.why.starts_with("a plan was dropped: replayed, rows "));
      const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
      found = choices.find(task);
      CHECK(found.plan == "good");
      CHECK(found.why.starts_with("a plan was dropped: replayed, rows "));
      // Where nothing can be recorded it does not matter.
      fake_cuda().failing = {"cudaStreamBeginCapture"};
      task.shape.images = next_images();
      CHECK(choices.find(task).plan == "spoilt");
      fake_cuda().failing = {};
    }
}

TEST_CASE("library kernel: a plan that measures is dropped whose recording does not") {
  const Choices choices;
  own_us = 1e6;
  for (const Leaves replayed : {Leaves::kUnmeasured, Leaves::kNothing, Leaves::kRight}) {
    CAPTURE(static_cast<int>(replayed));
    ConvTask task = stem(next_images(), 16);
    task.measure = MeasureKind::kMoments;
    Scripted fused{"fused", 1.0, false, 0, true, Measures::kRight};
    fused.replayed = replayed;
    Fake::scripts = {{16, {{"plain", 30.0}, fused}}};
    const Found found = choices.find(task);
    CHECK(found.plan == (replayed == Leaves::kRight ? "fused" : "plain"));
    CHECK(found.why.starts_with("a plan was dropped: replayed, ") == (replayed != Leaves::kRight));
  }
}

TEST_CASE("library kernel: without memory to look at it the fastest plan is taken") {
  const Choices choices;
  Fake::scripts = {{16, {leaving("unseen", 1.0, Leaves::kWrong)}}};
  const ConvTask task = stem(next_images(), 16);
  fake_cuda().blocks_left = 2 * (4 + 1);  // for the tensors of the race and of a run, and scratch
  CHECK(choices.find(task).plan == "unseen");
  // As soon as there is, it is looked at.
  fake_cuda().blocks_left = 1000;
  CHECK(choices.find(task).plan.empty());
}

TEST_CASE("library kernel: a kept plan that measures is held against its own values") {
  const Choices choices;
  ConvTask task = stem(next_images(), 16);
  task.measure = MeasureKind::kMoments;
  own_us = 1e6;
  const Scripted wrong{"fused", 1.0, false, 0, true, Measures::kWrong};
  Fake::scripts = {{16, {{"plain", 30.0}, wrong}}};
  plan_cache().put(choices.key_of(task), "fused");
  CHECK(choices.find(task).plan == "plain");
  task.shape.images = next_images();
  Fake::scripts[16][1].measures = Measures::kRight;
  plan_cache().put(choices.key_of(task), "fused");
  CHECK(choices.find(task).plan == "fused");
}

TEST_CASE("checked plans: pieces that are wrong show among many") {
  std::vector<double> sums(2 * 100);
  for (std::size_t p = 0; p < 100; ++p) sums[2 * p] = 4.0;
  const auto problem = [&] { return piece_difference(sums, 10, 995, 0.1).value(); };
  CHECK(problem().empty());
  sums[2 * 7 + 1] = 0.039;  // of 4, the square root: 0.0987
  CHECK(problem().empty());
  sums[2 * 7 + 1] = 0.041;
  CHECK(problem().starts_with("rows 70 to 79 differ by 0.1"));
  sums[2 * 7] = 8.0;
  CHECK(problem().empty());
  sums[2 * 8] = 0.0;  // held against the others
  sums[2 * 8 + 1] = 0.03;
  CHECK(problem().empty());
  sums[2 * 99 + 1] = 1.0;
  CHECK(problem().starts_with("rows 990 to 994 differ by 0.5"));
  sums[2 * 99 + 1] = std::numeric_limits<double>::quiet_NaN();
  CHECK(problem().starts_with("rows 990 to 994 differ by nan"));
  for (std::size_t p = 0; p < 100; ++p) {
    sums[2 * p] = p == 0 ? 100.0 : 0.0;
    sums[2 * p + 1] = 0.0099;  // each below 0.01 of the mean, 1, but together 0.99 % of all
  }
  CHECK(problem().empty());
  for (std::size_t p = 0; p < 100; ++p) sums[2 * p + 1] = 0.0;
  sums[1] = 0.99;
  CHECK(problem().empty());
  for (std::size_t p = 1; p < 100; ++p) sums[2 * p + 1] = 0.009;
  CHECK(problem().starts_with("it differs by 0.1"));
  sums[0] = std::numeric_limits<double>::infinity();  // nothing can be told
  CHECK_FALSE(piece_difference(sums, 10, 995, 0.1).has_value());
  CHECK(most_difference(Image::kBFloat16, true) == kNarrowDifference);
  CHECK(most_difference(Image::kFloat32, true) == kTf32Difference);
  CHECK(most_difference(Image::kFloat32, false) == kFloat32Difference);
}

TEST_CASE("checked plans: squares of differences by pieces of rows that lie apart") {
  for (const Image image : {Image::kFloat32, Image::kBFloat16, Image::kFloat16})
    for (const std::int64_t channels : {5, 24}) {
      constexpr std::int64_t kRows = 900;
      const std::int64_t pitch = channels + 8, piece = piece_rows(kRows, channels);
      CHECK(piece * channels >= kPieceElements);
      const std::int64_t pieces = (kRows + piece - 1) / piece;
      with_image(image, [&](auto type) {
        using T = decltype(type);
        const auto count = static_cast<std::size_t>(kRows * pitch);
        std::vector<T> expected(count), actual(count);
        std::vector<double> sums(static_cast<std::size_t>(2 * pieces), -1.0), right(sums.size());
        for (std::int64_t row = 0; row < kRows; ++row)
          for (std::int64_t c = 0; c < pitch; ++c) {
            const auto at = static_cast<std::size_t>(row * pitch + c);
            const auto value = static_cast<float>((row * 31 + c * 7) % 17 - 8);
            narrow(c < channels ? value : NAN, expected[at]);
            narrow(c < channels ? value + static_cast<float>(row % 3) : NAN, actual[at]);
            if (c >= channels) continue;
            right[static_cast<std::size_t>(row / piece * 2)] += value * value;
            right[static_cast<std::size_t>(row / piece * 2 + 1)] +=
                static_cast<double>(row % 3 * (row % 3));
          }
        DeviceQueue queue;
        const Comparison comparison{expected.data(), actual.data(), kRows,      channels,
                                    pitch,           piece,         sums.data()};
        compare(queue, image, comparison);
        CHECK(sums == right);
        narrow(NAN, actual[static_cast<std::size_t>((kRows - 1) * pitch)]);
        compare(queue, image, comparison);
        CHECK(std::isnan(sums.back()));
      });
    }
  CHECK(piece_rows(std::int64_t{3} << 20, 64) == 3072);
  CHECK(piece_rows(3, 1 << 20) == 1);
}

}  // namespace
}  // namespace pycnn::cuda
