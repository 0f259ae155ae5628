// How plans that measure their results race those that do not and the pass behind them.
#include <cmath>
#include <limits>
#include <random>

#include "backends/cuda/fake_library.h"
#include "backends/cuda/fill_timed.h"

namespace pycnn::cuda {
namespace {

// A convolution whose moments a batch norm wants, or a gradient with its sums. Its plans are of 16
// channels; the passes take 10.
struct Measured {
  Choices choices;
  ConvTask task;
  explicit Measured(MeasureKind kind = MeasureKind::kMoments, int images = next_images()) {
    task = stem(images, 16);
    task.measure = kind;
    if (kind == MeasureKind::kSums) task.direction = Direction::kGradInput;
    moves.measure_us = 10.0;
    own_us = 1e6;
  }
  Found find(const std::vector<Scripted>& scripts, double us = 30.0) const {
    Fake::scripts = {{16, {{"plain", us}}}};
    for (const Scripted& script : scripts) Fake::scripts[16].push_back(script);
    return Choices::find(task);
  }
};

Scripted measuring(const std::string& name, double us, Measures measures) {
  return {name, us, false, 0, true, measures};
}

constexpr MeasureKind kKinds[] = {MeasureKind::kMoments, MeasureKind::kSums};

TEST_CASE("library kernel: a plan that measures wins where it is faster than one and the pass") {
  for (const MeasureKind kind : kKinds) {
    const Measured wins(kind), loses(kind), slow(kind);
    const auto find = [&](const Measured& net, double us) {
      const Found found = net.find({measuring("fused", us, Measures::kRight)});
      CHECK(found.why.empty());
      return found.plan;
    };
    // 30 and 10, less three of a hundred.
    CHECK(find(wins, 38.5) == "fused");
    CHECK(moves.measures > 0);
    CHECK(find(loses, 39.0) == "plain");
    CHECK(find(slow, 41.0) == "plain");
  }
}

TEST_CASE("library kernel: nothing measures behind a plan that does") {
  const Measured net;
  CHECK(net.find({measuring("fused", 5.0, Measures::kRight)}).plan == "fused");
  std::string why;
  const Chosen<Fake> chosen = find_plan<Fake>(0, net.task, why);
  moves.measures = 0;
  std::vector<float> sums(24);
  std::vector<std::uint16_t> values(static_cast<std::size_t>(net.task.shape.pixels() * 8));
  ConvCall call{};
  call.output = values.data();
  call.measure.kind = MeasureKind::kMoments;
  call.measure.result = sums.data();
  DeviceQueue queue;
  run_chosen<Fake>(queue, chosen, call, nullptr);
  Fake::stream = nullptr;
  CHECK(moves.measures == 0);
  CHECK(sums[0] == 3.0f);
}

TEST_CASE("library kernel: a plan that measures otherwise than the pass is dropped, and named") {
  for (const MeasureKind kind : kKinds) {
    CAPTURE(static_cast<int>(kind));
    const auto dropped = [&](Measures measures) {
      const Measured net(kind);
      const Found found = net.find({measuring("fused", 1.0, measures)});
      CHECK(found.plan == "plain");
      // What was dropped lacks no memory: the choice is kept.
      CHECK(PlanCache(plan_cache().file()).find(Choices::key_of(net.task)) == "plain");
      constexpr std::string_view kBegin = "a plan that measures was dropped: ";
      CHECK(found.why.starts_with(kBegin));
      return found.why.substr(std::min(kBegin.size(), found.why.size()));
    };
    const bool moments = kind == MeasureKind::kMoments;
    CHECK(dropped(Measures::kWrong).starts_with(moments ? "mean 0 is 3.3" : "sum 0 is 3.3"));
    CHECK(dropped(Measures::kNan).find("nan") != std::string::npos);
    CHECK(dropped(Measures::kUnsteady) == "it differs from run to run");
    CHECK(!dropped(Measures::kMisplaced).empty());
    const Measured broken(kind);
    Scripted fails = measuring("fused", 1.0, Measures::kRight);
    fails.fails = true;
    const Found found = broken.find({fails});
    CHECK(found.plan == "plain");
    CHECK(found.why.ends_with("it does not run"));
  }
}

TEST_CASE("library kernel: values that a plan misplaces are seen among many") {
  // More than are read: the pass over all of them sees it.
  const Measured net(MeasureKind::kMoments, 1000 + next_images());
  const Found found = net.find({measuring("fused", 1.0, Measures::kMisplaced)});
  CHECK(found.plan == "plain");
  CHECK(found.why.find("mean 0 is 1000") != std::string::npos);
}

TEST_CASE("library kernel: a plan without the memory that it wanted is tried again another time") {
  const auto kept = [](const Measured& net) {
    return PlanCache(plan_cache().file()).find(Choices::key_of(net.task));
  };
  Scripted fused = measuring("fused", 1.0, Measures::kRight);
  fused.lacks_memory = true;
  const Measured net;
  CHECK(net.find({fused}).plan == "plain");
  CHECK(plan_cache().find(Choices::key_of(net.task)) == "plain");
  CHECK(!kept(net));
  const Measured other;  // a plan that measures nothing
  fused.measures = Measures::kNothing;
  CHECK(other.find({fused}).plan == "plain");
  CHECK(!kept(other));
  fused.lacks_memory = false;
  fused.fails = true;  // which it always does
  const Measured broken;
  CHECK(broken.find({fused}).plan == "plain");
  CHECK(kept(broken) == "plain");
}

TEST_CASE("library kernel: a tile that is not counted shows among many rows") {
  const Measured net(MeasureKind::kMoments, 20000 + next_images());  // of 36 pixels
  const Found found = net.find({measuring("fused", 1.0, Measures::kTile)});
  CHECK(found.plan == "plain");
  CHECK(found.why.starts_with("a plan that measures was dropped: mean 0 is 2.999"));
}

// Sums of one sign would grow with the rows, and a tile's part of them would be less than what two
// orders of sums differ by: operands have either sign alike.
TEST_CASE("measured plans: of numbers as operands have them a tile shows in sums of gradients") {
  constexpr std::size_t kChannels = 8, kTile = 64;
  ConvTask task = stem(1, 16);
  task.measure = MeasureKind::kSums;
  task.direction = Direction::kGradInput;
  task.shape.in_channels = kChannels;
  const auto fill = [](auto& numbers, std::uint64_t seed) {
    const FillTimed filling{reinterpret_cast<std::uint16_t*>(numbers.data()), seed};
    const auto count = static_cast<std::int64_t>(numbers.size() * sizeof(numbers[0]) / 2);
    for (std::int64_t begin = 0; begin < count; begin += FillTimed::kWidth)
      filling(begin, FillTimed::kWidth);
  };
  for (const Image image : {Image::kFloat32, Image::kBFloat16, Image::kFloat16})
    for (const std::size_t rows : {std::size_t{3200}, std::size_t{40000}, std::size_t{400000}}) {
      CAPTURE(static_cast<int>(image));
      CAPTURE(rows);
      with_image(image, [&](auto type) {
        std::vector<decltype(type)> gradients(rows * kChannels), normed(rows * kChannels);
        fill(gradients, 3);
        fill(normed, 4);
        std::vector<double> all(2 * kChannels), fewer(2 * kChannels), squares(2 * kChannels);
        for (std::size_t i = 0; i < gradients.size(); ++i) {
          const double gradient = static_cast<double>(widened(gradients[i]));
          const double product = gradient * static_cast<double>(widened(normed[i]));
          const std::size_t c = i % kChannels;
          for (const auto& [at, x] : {std::pair{c, gradient}, {kChannels + c, product}}) {
            all[at] += x;
            squares[at] += x * x;
            if (i / kChannels / kTile != 1) fewer[at] += x;
          }
        }
        for (std::size_t at = 0; at < all.size(); ++at)
          CHECK(std::abs(all[at]) < 5.0 * std::sqrt(squares[at]));
        const auto measured = [](const std::vector<double>& sums) {
          return Measurement{std::vector<float>(sums.begin(), sums.end()), {1.0f}};
        };
        const auto tolerance = own_tolerance(static_cast<std::int64_t>(rows));
        CHECK(!difference(task, measured(all), measured(fewer), tolerance).empty());
      });
    }
}

TEST_CASE("measured plans: a tile that is not counted is more than rounding is") {
  const ConvTask moments = [] {
    ConvTask task = stem(1, 16);
    task.measure = MeasureKind::kMoments;
    return task;
  }();
  constexpr std::size_t kChannels = 8, kTile = 64;
  for (const std::size_t rows : {std::size_t{3000}, std::size_t{40000}, std::size_t{400000}}) {
    CAPTURE(rows);
    struct Sums {
      double value = 0.0, square = 0.0, product = 0.0;
    };
    // Of what is stored in bfloat16, of what it was before, and of all but one tile.
    Sums stored[kChannels], before[kChannels], fewer[kChannels];
    std::mt19937 random(1);
    const auto next = [&] { return static_cast<float>(random()) * 0x1p-31f - 1.0f; };
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t c = 0; c < kChannels; ++c) {
        const float value = next() + 0.1f * static_cast<float>(c), other = next();
        const auto add = [&](Sums& to, float x) {
          to.value += static_cast<double>(x);
          to.square += static_cast<double>(x) * static_cast<double>(x);
          to.product += static_cast<double>(x) * static_cast<double>(other);
        };
        add(stored[c], rounded<BFloat16>(value));
        add(before[c], value);
        if (row / kTile != rows / kTile / 2) add(fewer[c], rounded<BFloat16>(value));
      }
    const auto measured = [&](const Sums(&sums)[kChannels]) {
      Measurement found{std::vector<float>(3 * kChannels), {1.0f}};
      const auto count = static_cast<double>(rows);
      for (std::size_t c = 0; c < kChannels; ++c) {
        const double mean = sums[c].value / count;
        found.sums[c] = static_cast<float>(mean);
        found.sums[kChannels + c] = static_cast<float>(mean - static_cast<double>(found.sums[c]));
        found.sums[2 * kChannels + c] = static_cast<float>(sums[c].square / count - mean * mean);
      }
      return found;
    };
    const MeasureTolerance tolerance = own_tolerance(static_cast<std::int64_t>(rows));
    const Measurement right = measured(stored);
    CHECK(difference(moments, right, measured(before), tolerance).empty());
    CHECK(!difference(moments, right, measured(fewer), tolerance).empty());

    ConvTask sums = moments;
    sums.measure = MeasureKind::kSums;  // of its output channels, too
    sums.direction = Direction::kGradInput;
    sums.shape.in_channels = kChannels;
    const auto added = [&](const Sums(&of)[kChannels]) {
      Measurement found{std::vector<float>(2 * kChannels), {1.0f}};
      for (std::size_t c = 0; c < kChannels; ++c) {
        // Of a gradient around zero.
        found.sums[c] = static_cast<float>(of[c].product);
        found.sums[kChannels + c] = static_cast<float>(of[c].product);
      }
      return found;
    };
    CHECK(difference(sums, added(stored), added(before), tolerance).empty());
    CHECK(!difference(sums, added(stored), added(fewer), tolerance).empty());
  }
  CHECK(own_tolerance(1).mean == MeasureTolerance{}.mean);
  CHECK(own_tolerance(1).sum == MeasureTolerance{}.sum);
}

TEST_CASE("library kernel: what a plan adds to is zeroed before, which is kept") {
  const Measured net;
  const std::vector<Scripted> scripts = {measuring("fused", 5.0, Measures::kAdding)};
  Found found = net.find(scripts);
  CHECK(found.plan == "fused");
  CHECK(found.why.empty());
  CHECK(plan_cache().find(Choices::key_of(net.task)) == "0fused");
  Fake::runs = 0;
  std::string why;
  const Chosen<Fake> again = find_plan<Fake>(0, net.task, why);
  CHECK(again.plan->zeroes);
  CHECK(Fake::runs == 0);
  // One that need not does not.
  const Measured other;
  CHECK(other.find({measuring("fused", 5.0, Measures::kRight)}).plan == "fused");
  CHECK(plan_cache().find(Choices::key_of(other.task)) == "fused");
}

TEST_CASE("library kernel: without one to compare it with no plan that measures is taken") {
  const Measured alone;
  Fake::scripts = {{16, {measuring("fused", 5.0, Measures::kRight)}}};
  own_us = 100.0;
  const Found found = Choices::find(alone.task);
  CHECK(found.plan.empty());
  // Nor where nothing can be timed, or may be.
  const Measured untimed;
  fake_cuda().failing = {"cudaStreamBeginCapture"};
  Scripted precompiled = measuring("fused", 5.0, Measures::kRight);
  precompiled.compiles = false;
  CHECK(untimed.find({precompiled}).plan == "plain");
  fake_cuda().failing = {};
  const Variable deterministic("PYCNN_CUDA_DETERMINISTIC", "1");
  const Measured first;
  Fake::scripts = {{16, {precompiled, {"plain", 30.0}}}};
  CHECK(Choices::find(first.task).plan == "plain");
}

TEST_CASE("library kernel: half of the time to choose is left to plans that measure nothing") {
  const Measured early, late;
  const std::vector<Scripted> scripts = {measuring("fused", 5.0, Measures::kRight)};
  CHECK(early.find(scripts).plan == "fused");
  Found found = Choices::find(late.task, 61.0);
  CHECK(found.plan == "plain");
  CHECK(found.why == "no engines that measure: choosing took more than 60 s");
  // It is kept for others that are late, and for no one who has time for them.
  std::string key = Choices::key_of(late.task);
  CHECK(!plan_cache().find(key));
  key.erase(key.find(kMeasuredMark), std::string(kMeasuredMark).size());
  CHECK(PlanCache(plan_cache().file()).find(key) == "plain");
  Fake::planned = Fake::runs = 0;
  found = Choices::find(late.task, 61.0);
  CHECK(found.plan == "plain");
  CHECK(Fake::planned + Fake::runs == 0);
  CHECK(Choices::find(late.task, 121.0).plan == "plain");  // also without any time
  CHECK(Fake::planned + Fake::runs == 0);
  CHECK(Choices::find(late.task).plan == "fused");
  CHECK(Choices::find(late.task, 61.0).plan == "fused");
  CHECK(PlanCache(plan_cache().file()).find(Choices::key_of(late.task)) == "fused");
  // Where there are none, none are missed.
  const Measured without;
  Fake::scripts = {{16, {{"plain", 30.0}}}};
  found = Choices::find(without.task, 61.0);
  CHECK(found.why.empty());
  CHECK(PlanCache(plan_cache().file()).find(Choices::key_of(without.task)) == "plain");
}

TEST_CASE("library kernel: a kernel that measures is named, and reads whole images") {
  const Choices choices;
  moves.measure_us = 10.0;
  own_us = 1e6;
  const auto choose = [&](double us) {
    const std::int64_t images = next_images();
    Fake::scripts = {{16, {{"plain", 30.0}, measuring("fused", us, Measures::kRight)}}};
    const std::vector<TensorSpec> inputs = {{{images, 6, 6, 8}, DType::kBFloat16},
                                            {{8, 7, 7, 16}, DType::kFloat32},
                                            {{images, 12, 12, 16}, DType::kBFloat16},
                                            {{16}, DType::kFloat32},
                                            {{16}, DType::kFloat32},
                                            {{16}, DType::kFloat32}};
    const std::vector<TensorSpec> outputs = {{{images, 12, 12, 16}, DType::kBFloat16},
                                             {{2, 16}, DType::kFloat32}};
    ops::Conv2dGradInput op;
    op.stride = {2, 2};
    op.padding = {3, 3, 3, 3};
    op.sums.wanted = true;
    Problem problem;
    problem.inputs = inputs;
    problem.outputs = outputs;
    return choose_library<Fake>(0, op, problem);
  };
  const Choice fused = choose(5.0), plain = choose(50.0);
  CHECK(std::string(fused.variant) == "conv2d_grad_input.cudnn+measured");
  CHECK(fused.strided_inputs == 0);
  CHECK(std::string(plain.variant) == "conv2d_grad_input.cudnn");
  CHECK(plain.strided_inputs == 1u << 2);
}

TEST_CASE("measured plans: what differs, and by how much it may") {
  ConvTask task = stem(1, 16);
  task.measure = MeasureKind::kMoments;
  const std::size_t channels = 8;
  Measurement expected{std::vector<float>(3 * channels, 4.0f), {-8.0f, 1.0f, 0.0f}};
  for (std::size_t c = 0; c < channels; ++c) expected.sums[channels + c] = 0.0f;
  const auto differs = [&](auto change) {
    Measurement actual = expected;
    change(actual);
    return !difference(task, expected, actual).empty();
  };
  CHECK(!differs([](Measurement&) {}));
  // A deviation of 2, a variance of 4, a value of 8.
  CHECK(!differs([](Measurement& m) { m.sums[3] += 1.9e-3f; }));
  CHECK(differs([](Measurement& m) { m.sums[3] -= 2.1e-3f; }));
  CHECK(differs([](Measurement& m) { m.sums[channels + 3] = 2.1e-3f; }));  // what is lost of a mean
  CHECK(!differs([](Measurement& m) { m.sums[2 * channels] += 3.9e-3f; }));
  CHECK(differs([](Measurement& m) { m.sums[2 * channels] += 4.1e-3f; }));
  CHECK(!differs([](Measurement& m) { m.values[2] = 0.124f; }));
  CHECK(differs([](Measurement& m) { m.values[2] = 0.126f; }));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(differs([&](Measurement& m) { m.values[1] = nan; }));
  CHECK(differs([&](Measurement& m) { m.sums[2 * channels] = nan; }));
  CHECK(differs([](Measurement& m) { m.values.pop_back(); }));
  // Means far from zero, as float32 has them.
  for (std::size_t c = 0; c < channels; ++c) expected.sums[c] = 1e6f, expected.sums[16 + c] = 1e-6f;
  CHECK(!differs([](Measurement& m) { m.sums[0] += 0.9f; }));
  CHECK(differs([](Measurement& m) { m.sums[0] += 1.1f; }));

  task.measure = MeasureKind::kSums;
  task.direction = Direction::kGradInput;  // of 16 channels
  expected = {std::vector<float>(32, 0.1f), {1.0f}};
  expected.sums[5] = 10.0f;
  CHECK(!differs([](Measurement& m) { m.sums[0] += 0.09f; }));  // of 10
  CHECK(differs([](Measurement& m) { m.sums[0] += 0.11f; }));
  CHECK(!differs([](Measurement& m) { m.sums[16] += 0.9e-3f; }));  // of 0.1
  CHECK(differs([](Measurement& m) { m.sums[16] += 1.1e-3f; }));
  // Not a number nowhere is as good as the same one.
  Measurement other = expected;
  CHECK(same_bits(expected, other));
  other.sums[0] = std::nextafter(other.sums[0], 1.0f);
  CHECK(!same_bits(expected, other));
}

TEST_CASE("library: signs beside what is timed are those of its numbers") {
  for (const Image image : {Image::kFloat32, Image::kBFloat16, Image::kFloat16})
    with_image(image, [&](auto type) {
      using T = decltype(type);
      std::vector<T> values(64);
      const FillTimed filling{reinterpret_cast<std::uint16_t*>(values.data()), 5};
      for (std::int64_t begin = 0; begin < 64 * int{sizeof(T)} / 2; begin += FillTimed::kWidth)
        filling(begin, FillTimed::kWidth);
      narrow(0.0f, values[3]);
      narrow(-0.0f, values[4]);
      narrow(NAN, values[5]);
      std::vector<std::uint8_t> signs(8);
      const Signs<T> kernel{values.data(), signs.data()};
      for (std::int64_t begin = 0; begin < 64; begin += kernel.kWidth) kernel(begin, kernel.kWidth);
      int open = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        const float value = widened(values[i]);
        const bool is_open = (signs[i / 8] >> (i % 8) & 1) != 0;
        CHECK(is_open == !(value <= 0.0f));
        CHECK((load_signs(signs.data(), static_cast<std::int64_t>(i), 1) & 1u) == is_open);
        open += is_open ? 1 : 0;
      }
      CHECK(open > 8);
      CHECK(open < 56);
    });
}

}  // namespace
}  // namespace pycnn::cuda
