#include <doctest/doctest.h>
#include <sys/mman.h>

#include "backends/cpu/winograd.h"
#include "kernel_harness.h"

// Tensors of more than 2^31 elements. Nothing of that size is stored: the memory is promised only,
// and kernels whose windows are far apart touch few pages of it.
namespace pycnn::testing {
namespace {

class Promised {
 public:
  explicit Promised(std::size_t bytes) : bytes_(bytes) {
    void* const mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped != MAP_FAILED) data_ = static_cast<float*>(mapped);
  }
  ~Promised() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  Promised(const Promised&) = delete;
  Promised& operator=(const Promised&) = delete;
  float* data() const { return data_; }

 private:
  std::size_t bytes_;
  float* data_ = nullptr;
};

constexpr std::int64_t kHeight = 65537, kWidth = 32769, kStep = 32768;

// Calls each variant with an input of `shape`, of which only the given elements are not zero.
template <class OpType>
void check_far(const OpType& op, const Shape& shape,
               const std::vector<std::pair<std::int64_t, float>>& elements,
               const std::vector<HostTensor>& others, const std::vector<float>& expected) {
  std::vector<TensorSpec> specs = {{shape, DType::kFloat32}};
  for (const HostTensor& other : others) specs.push_back(other.spec);
  CHECK(element_count(shape) > std::int64_t{1} << 31);
  const Promised memory(byte_size(specs[0]));
  if (memory.data() == nullptr) {
    MESSAGE("this machine does not even promise 8 GiB");
    return;
  }
  for (const auto& [index, value] : elements) memory.data()[index] = value;
  const std::vector<TensorSpec> outputs = op.infer(specs);
  REQUIRE(element_count(outputs[0].shape) == static_cast<std::int64_t>(expected.size()));
  int ran = 0;
  for (const std::string& variant : cpu::variants(op)) {
    CAPTURE(variant);
    KernelRun run;
    run.variant = variant;
    Kernel kernel;
    try {
      kernel = select_kernel(op, specs, outputs, run).kernel;
    } catch (const UnsupportedError&) {
      continue;
    }
    if (kernel.scratch_bytes > std::size_t{1} << 28) continue;
    if (kernel.packed.input == 0) continue;
    std::vector<TensorView> in = {{memory.data(), &specs[0]}};
    std::vector<HostTensor> inputs = others;
    std::vector<std::vector<std::byte>> packs(others.size());
    GuardedBuffer scratch((std::max(kernel.scratch_bytes, kernel.packed.pack_scratch_bytes) + 63) /
                          64 * 64);
    GuardedBuffer plan((kernel.plan.size() + 63) / 64 * 64);
    if (!kernel.plan.empty()) std::memcpy(plan.data(), kernel.plan.data(), kernel.plan.size());
    const Op any = op;
    GuardedBuffer packed((kernel.packed.bytes + 63) / 64 * 64);
    for (std::size_t i = 0; i < others.size(); ++i) {
      in.push_back({inputs[i].bytes.data(), &specs[i + 1]});
      if (kernel.packed.input != static_cast<int>(i) + 1) continue;
      const TensorSpec packed_spec{{static_cast<std::int64_t>(kernel.packed.bytes)}, DType::kUInt8};
      const TensorView from[] = {in.back()}, to[] = {{packed.data(), &packed_spec}};
      kernel.packed.pack({&any, from, to, scratch.data(), 1, plan.data()});
      in.back().data = packed.data();
    }
    HostTensor output(outputs[0]);
    const TensorView out[] = {{output.bytes.data(), &outputs[0]}};
    kernel.run({&any, in, out, scratch.data(), 1, plan.data()});
    for (std::size_t i = 0; i < expected.size(); ++i) {
      CAPTURE(i);
      CHECK(output.as<float>()[i] == expected[i]);
    }
    ++ran;
  }
  CHECK(ran > 0);
}

constexpr std::int64_t at(std::int64_t h, std::int64_t w) { return h * kWidth + w; }

// The six cells of an image that windows of one pixel, kStep apart, see.
const std::vector<std::pair<std::int64_t, float>> kCorners = {
    {at(0, 0), 1.0f},         {at(0, kStep), 2.0f},     {at(kStep, 0), 3.0f},
    {at(kStep, kStep), 4.0f}, {at(2 * kStep, 0), 5.0f}, {at(2 * kStep, kStep), 6.0f}};

TEST_CASE("pooling and convolution find pixels beyond 2^31 elements") {
  const Shape image = {1, kHeight, kWidth, 1};
  ops::MaxPool2d max;
  max.kernel_size = {1, 1};
  max.stride = {kStep, kStep};
  check_far(max, image, kCorners, {}, {1, 2, 3, 4, 5, 6});
  ops::AvgPool2d avg;
  avg.kernel_size = {1, 1};
  avg.stride = {kStep, kStep};
  check_far(avg, image, kCorners, {}, {1, 2, 3, 4, 5, 6});
  ops::Conv2d conv;
  conv.stride = {kStep, kStep};
  check_far(conv, image, kCorners, {HostTensor({1, 1, 1, 1}, {3.0})}, {3, 6, 9, 12, 15, 18});
}

TEST_CASE("batches beyond 2^31 elements: the last image is found") {
  // Three images of 2^30 pixels, of which each window sees one.
  const std::int64_t side = 32768, pixels = side * side;
  ops::MaxPool2d max;
  max.kernel_size = {1, 1};
  max.stride = {side, side};
  check_far(max, {3, side, side, 1}, {{0, 1.0f}, {pixels, 2.0f}, {2 * pixels, 3.0f}}, {},
            {1, 2, 3});
  ops::Conv2d conv;
  conv.stride = {side, side};
  check_far(conv, {3, side, side, 1}, {{0, 1.0f}, {pixels, 2.0f}, {2 * pixels, 3.0f}},
            {HostTensor({1, 1, 1, 1}, {2.0})}, {2, 4, 6});
}

TEST_CASE("tiles beyond 2^31 elements are transformed as those before") {
  using cpu::Index;
  // A convolution would read all of such an image; one tile is a few pages of it.
  constexpr Index kRows = 4104, kColumns = 32768, kChannels = 17, kRow = kRows - 6;
  static_assert(kRow * kColumns * kChannels > Index{1} << 31);
  const Promised memory(static_cast<std::size_t>(kRows * kColumns * kChannels) * sizeof(float));
  if (memory.data() == nullptr) {
    MESSAGE("this machine does not even promise 8 GiB");
    return;
  }
  const cpu::WinogradSet& set = cpu::baseline::kWinograd;
  for (const cpu::WinogradTransforms* transforms :
       {set.two_by_three, set.four_by_three, set.two_by_five}) {
    const Index tile = transforms == set.four_by_three ? 4 : 2;
    const Index points = transforms == set.two_by_three ? 4 : 6, plane = 24;
    auto number = [](Index i, Index j, Index c) { return static_cast<float>(7 * i + 3 * j + c); };
    std::vector<float> near_image(static_cast<std::size_t>(points * points * kChannels));
    for (Index i = 0; i < points; ++i)
      for (Index j = 0; j < points; ++j)
        for (Index c = 0; c < kChannels; ++c) {
          near_image[static_cast<std::size_t>((i * points + j) * kChannels + c)] = number(i, j, c);
          memory.data()[((kRow + i) * kColumns + kColumns - points + j) * kChannels + c] =
              number(i, j, c);
        }
    std::vector<float> near_planes(static_cast<std::size_t>(points * points * plane));
    std::vector<float> far_planes(near_planes.size());
    cpu::WinogradInput job;
    job.image = near_image.data(), job.points = near_planes.data(), job.plane = plane;
    job.block_pitch = 2 * cpu::baseline::kGemmLanes;
    job.rows = job.columns = points, job.channels = job.pixel_pitch = kChannels;
    transforms->input(job);
    job.image = memory.data(), job.points = far_planes.data();
    job.rows = kRows, job.columns = kColumns, job.row = kRow, job.column = kColumns - points;
    transforms->input(job);
    CHECK(near_planes == far_planes);

    cpu::WinogradOutput sums;
    std::vector<float> near_sums(static_cast<std::size_t>(tile * tile * kChannels));
    sums.points = near_planes.data(), sums.plane = plane;
    sums.rows = sums.columns = tile, sums.channels = kChannels;
    sums.output = near_sums.data();
    sums.pixel_pitch = kChannels, sums.row_pitch = tile * kChannels;
    transforms->output(sums);
    float* const far_sums = memory.data() + kRow * kColumns * kChannels;
    sums.output = far_sums, sums.row_pitch = kColumns * kChannels;
    transforms->output(sums);
    for (Index i = 0; i < tile; ++i)
      CHECK(std::equal(near_sums.begin() + i * tile * kChannels,
                       near_sums.begin() + (i + 1) * tile * kChannels,
                       far_sums + i * kColumns * kChannels));
  }
}

TEST_CASE("slices and rows beyond 2^31 elements are found") {
  const Shape image = {1, kHeight, kWidth, 1};
  check_far(ops::Slice{{0, 2 * kStep, kStep - 1, 0}, {1, 1, 2, 1}}, image, kCorners, {}, {0, 6});
  const std::int64_t rows = (std::int64_t{1} << 31) + 5;
  check_far(ops::Take{{rows - 1, -1, 0}}, {rows, 1}, {{0, 1.0f}, {rows - 1, 7.0f}}, {}, {7, 0, 1});
}

}  // namespace
}  // namespace pycnn::testing
