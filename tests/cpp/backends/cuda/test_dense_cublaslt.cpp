// Dense layers and the convolutions that are such, by a library that multiplies on the host.
#include "backends/cuda/fake_cublaslt.h"

#ifndef PYCNN_VERSION
#define PYCNN_VERSION "test"
#endif
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "backends/cuda/dense_cublaslt.cpp"

namespace pycnn::cuda {

namespace {

struct FakeMatrix {
  std::int64_t rows, columns, leading;
};
struct FakeProduct {
  std::int32_t transposes_a = 0, transposes_b = 0;
  std::uint32_t epilogue = cublaslt::kEpilogueDefault;
  const float* bias = nullptr;
};

void multiply(const FakeProduct& p, const float* a, const FakeMatrix& as, const float* b,
              const FakeMatrix& bs, float beta, const float* c, const FakeMatrix& cs, float* d,
              const FakeMatrix& ds) {
  const auto at = [](const float* matrix, const FakeMatrix& m, bool transposed, std::int64_t row,
                     std::int64_t column) {
    if (transposed) std::swap(row, column);
    CHECK(row < m.rows);
    CHECK(column < m.columns);
    return matrix[column * m.leading + row];
  };
  const std::int64_t inner = p.transposes_a != 0 ? as.rows : as.columns;
  for (std::int64_t column = 0; column < ds.columns; ++column)
    for (std::int64_t row = 0; row < ds.rows; ++row) {
      float sum = 0.0f;
      for (std::int64_t k = 0; k < inner; ++k)
        sum += at(a, as, p.transposes_a != 0, row, k) * at(b, bs, p.transposes_b != 0, k, column);
      if (beta != 0.0f) sum += beta * at(c, cs, false, row, column);
      if ((p.epilogue & cublaslt::kEpilogueBias) != 0) sum += p.bias[row];
      if ((p.epilogue & cublaslt::kEpilogueRelu) != 0) sum = std::max(sum, 0.0f);
      d[column * ds.leading + row] = sum;
    }
}

cublaslt::Status multiply_by(cublaslt::Handle, cublaslt::MatmulDesc desc, const void*,
                             const void* a, cublaslt::MatrixLayout as, const void* b,
                             cublaslt::MatrixLayout bs, const void* beta, const void* c,
                             cublaslt::MatrixLayout cs, void* d, cublaslt::MatrixLayout ds,
                             const cublaslt::Algorithm* algorithm, void*, std::size_t, void*) {
  const auto matrix = [](cublaslt::MatrixLayout layout) {
    return *static_cast<const FakeMatrix*>(layout);
  };
  const int index = static_cast<int>(algorithm->data[0]);
  fake_cublaslt().multiplied.push_back(index);
  fake_cuda().work(fake_cublaslt().us[index]);
  fake_cuda().effect([=, product = *static_cast<const FakeProduct*>(desc), of_a = matrix(as),
                      of_b = matrix(bs), of_c = matrix(cs), of_d = matrix(ds),
                      factor = *static_cast<const float*>(beta)] {
    auto* const to = static_cast<float*>(d);
    if (fake_cublaslt().multiplies)
      return multiply(product, static_cast<const float*>(a), of_a, static_cast<const float*>(b),
                      of_b, factor, static_cast<const float*>(c), of_c, to, of_d);
    for (std::int64_t column = 0; column < of_d.columns; ++column)
      std::fill_n(to + column * of_d.leading, of_d.rows, 1.0f);
  });
  return 0;
}

cublaslt::Status set_attribute(cublaslt::MatmulDesc object, int attribute, const void* value,
                               std::size_t bytes) {
  auto& product = *static_cast<FakeProduct*>(object);
  switch (attribute) {
    case cublaslt::kTransA:
      std::memcpy(&product.transposes_a, value, bytes);
      break;
    case cublaslt::kTransB:
      std::memcpy(&product.transposes_b, value, bytes);
      break;
    case cublaslt::kEpilogue:
      std::memcpy(&product.epilogue, value, bytes);
      break;
    case cublaslt::kBiasPointer:
      std::memcpy(&product.bias, value, bytes);
      break;
    default:
      return 1;
  }
  return 0;
}

template <class Object>
cublaslt::Status make(void** object, Object value) {
  *object = new Object(value);
  ++fake_cublaslt().objects;
  return 0;
}
template <class Object>
cublaslt::Status end(void* object) {
  delete static_cast<Object*>(object);
  --fake_cublaslt().objects;
  return 0;
}

}  // namespace

FakeCublasLt& fake_cublaslt() {
  static FakeCublasLt fake;
  return fake;
}

const cublaslt::Functions& fake_cublaslt_functions() {
  static const cublaslt::Functions functions = {
      [] { return std::size_t{130000}; },
      [](cublaslt::Status) { return "trouble"; },
      [](cublaslt::Handle* handle) {
        static int one;
        *handle = &one;
        return 0;
      },
      [](cublaslt::MatmulDesc* desc, int, int) { return make(desc, FakeProduct{}); },
      end<FakeProduct>,
      set_attribute,
      [](cublaslt::MatrixLayout* layout, int, std::uint64_t rows, std::uint64_t columns,
         std::int64_t leading) {
        return make(layout, FakeMatrix{static_cast<std::int64_t>(rows),
                                       static_cast<std::int64_t>(columns), leading});
      },
      end<FakeMatrix>,
      [](cublaslt::Preference* preference) { return make(preference, std::uint64_t{0}); },
      end<std::uint64_t>,
      [](cublaslt::Preference preference, int attribute, const void* value, std::size_t bytes) {
        if (attribute == cublaslt::kMaxWorkspaceBytes) std::memcpy(preference, value, bytes);
        return 0;
      },
      [](cublaslt::Handle, cublaslt::MatmulDesc, cublaslt::MatrixLayout, cublaslt::MatrixLayout,
         cublaslt::MatrixLayout, cublaslt::MatrixLayout, cublaslt::Preference preference, int,
         cublaslt::Heuristic* heuristics, int* found) {
        const std::uint64_t most = *static_cast<const std::uint64_t*>(preference);
        *found = 0;
        for (int i = 0; i < fake_cublaslt().algorithms; ++i) {
          const auto other = fake_cublaslt().workspaces.find(i);
          const std::size_t bytes =
              other != fake_cublaslt().workspaces.end() ? other->second : std::size_t{64};
          if (bytes > most) continue;
          heuristics[*found] = {};
          heuristics[*found].algorithm.data[0] = static_cast<std::uint64_t>(i);
          heuristics[(*found)++].workspace_bytes = bytes;
        }
        return *found > 0 ? 0 : 15;
      },
      multiply_by};
  return functions;
}

namespace {

// Small whole numbers, whose sums have no order.
std::vector<float> numbers(std::int64_t count, int salt) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>((static_cast<int>(i) * 7 + salt * 5) % 11 - 5);
  return values;
}

ConvTask pixels(Direction direction) {
  ConvTask task;
  task.direction = direction;
  ConvShape& s = task.shape;
  s.images = 2;
  s.height = s.out_height = 3;
  s.width = s.out_width = 4;
  s.in_channels = 5;
  s.out_channels = 6;
  s.kernel_height = s.kernel_width = s.stride_y = s.stride_x = s.dilation_y = s.dilation_x =
      s.groups = 1;
  return task;
}
constexpr std::int64_t kPixels = 24, kIn = 5, kOut = 6;

struct Library {
  Library() {
    fake_cuda() = {};
    fake_cublaslt() = {};
    link.functions = &fake_cublaslt_functions();
    const bool opened = CublasLt::open(link);
    REQUIRE(opened);
  }
  ~Library() {
    CHECK(fake_cublaslt().objects == 0);
    fake_cuda() = {};
  }
  Link link;

  std::vector<Offer<Plan>> offers(const ConvTask& task) const {
    return CublasLt::offers(link, task, library_options());
  }
  void run(const ConvTask& task, const ConvCall& call) const {
    const auto found = offers(task);
    REQUIRE(found.size() == 2);
    const auto plan = found[1].make(0);
    std::vector<std::byte> scratch(static_cast<std::size_t>(plan->scratch_bytes()));
    DeviceQueue queue;
    CublasLt::run(queue, *plan, call, scratch.data());
    CHECK(!queue.failed());
    CHECK(fake_cublaslt().multiplied.back() == 1);
  }
};

TEST_CASE("1x1 convolutions by cublaslt: products of all pixels") {
  const Library library;
  const std::vector<float> input = numbers(kPixels * kIn, 1), weight = numbers(kOut * kIn, 2),
                           bias = numbers(kOut, 3), residual = numbers(kPixels * kOut, 4),
                           gradient = numbers(kPixels * kOut, 5);
  ConvTask task = pixels(Direction::kForward);
  ConvCall call{};
  std::vector<float> output(kPixels * kOut, -1e6f);
  call.input = input.data();
  call.output = output.data();
  call.weight = weight.data();
  task.bias = task.residual = true;
  task.curve = {CurveKind::kRelu};
  call.epilogue = {bias.data(), residual.data(), task.curve};
  library.run(task, call);
  for (std::int64_t p = 0; p < kPixels; ++p)
    for (std::int64_t k = 0; k < kOut; ++k) {
      float sum = bias[k] + residual[p * kOut + k];
      for (std::int64_t c = 0; c < kIn; ++c) sum += input[p * kIn + c] * weight[k * kIn + c];
      CHECK(output[p * kOut + k] == std::max(sum, 0.0f));
    }

  // The same as a part of an image of ten channels.
  constexpr std::int64_t kPitch = 10;
  std::vector<float> whole(kPixels * kPitch, 77.0f);
  call.output = whole.data() + 2;
  task.shape.output_step = kPitch;
  library.run(task, call);
  for (std::int64_t p = 0; p < kPixels; ++p)
    for (std::int64_t k = 0; k < kPitch; ++k)
      if (p * kPitch + k + 2 < kPixels * kPitch)
        CHECK(whole[p * kPitch + 2 + k] == (k < kOut ? output[p * kOut + k] : 77.0f));
  fake_cublaslt().algorithms = static_cast<int>(kMostApart) + 1;
  CHECK(library.offers(task).size() == kMostApart);
  task.shape.output_step = 0;
  CHECK(library.offers(task).size() == kMostApart + 1);
  fake_cublaslt().algorithms = 2;
  task.shape.output_step = kPitch;
  task.curve = {CurveKind::kTanh};  // which would come behind
  CHECK(library.offers(task).empty());

  std::vector<float> grad_input(kPixels * kIn, -1e6f);
  call = {};
  call.input = grad_input.data();
  call.output = gradient.data();
  call.weight = weight.data();
  library.run(pixels(Direction::kGradInput), call);
  for (std::int64_t p = 0; p < kPixels; ++p)
    for (std::int64_t c = 0; c < kIn; ++c) {
      float sum = 0.0f;
      for (std::int64_t k = 0; k < kOut; ++k) sum += gradient[p * kOut + k] * weight[k * kIn + c];
      CHECK(grad_input[p * kIn + c] == sum);
    }

  std::vector<float> grad_weight(kOut * kIn, -1e6f);
  call = {};
  call.input = input.data();
  call.output = gradient.data();
  call.grad_weight = grad_weight.data();
  library.run(pixels(Direction::kGradWeight), call);
  for (std::int64_t k = 0; k < kOut; ++k)
    for (std::int64_t c = 0; c < kIn; ++c) {
      float sum = 0.0f;
      for (std::int64_t p = 0; p < kPixels; ++p) sum += gradient[p * kOut + k] * input[p * kIn + c];
      CHECK(grad_weight[k * kIn + c] == sum);
    }
}

TEST_CASE("1x1 convolutions by cublaslt: no others are products") {
  const Library library;
  CHECK(library.offers(pixels(Direction::kForward)).size() == 2);
  const auto none = [&](auto change) {
    ConvTask task = pixels(Direction::kForward);
    change(task);
    return library.offers(task).empty() &&
           CublasLt::read(library.link, task, library_options(), "64 1 0 0 0 0 0 0 0") == nullptr;
  };
  CHECK(none([](ConvTask& t) { t.shape.kernel_height = 3; }));
  CHECK(none([](ConvTask& t) { t.shape.kernel_width = 3; }));
  CHECK(none([](ConvTask& t) { t.shape.stride_y = 2; }));
  CHECK(none([](ConvTask& t) { t.shape.stride_x = 2; }));
  CHECK(none([](ConvTask& t) { t.shape.top = 1; }));
  CHECK(none([](ConvTask& t) { t.shape.left = 1; }));
  CHECK(none([](ConvTask& t) { t.bottom = 1; }));
  CHECK(none([](ConvTask& t) { t.right = 1; }));
  CHECK(none([](ConvTask& t) { t.shape.groups = 5; }));
  CHECK(!none([](ConvTask& t) { t.shape.dilation_y = 2; }));  // of one tap
  fake_cublaslt().algorithms = 0;  // the library says that it supports none
  CHECK(library.offers(pixels(Direction::kForward)).empty());
}

TEST_CASE("1x1 convolutions by cublaslt: algorithms of large workspaces come last, up to 1 GiB") {
  const Library library;
  fake_cublaslt().algorithms = 4;
  fake_cublaslt().workspaces = {{0, std::size_t{kMostWorkspace} + 1},
                                {2, std::size_t{kLargestWorkspace} + 1},
                                {3, std::size_t{kMostWorkspace}}};
  const auto numbers = [&] {
    std::vector<std::uint64_t> found;
    for (const auto& offer : library.offers(pixels(Direction::kForward)))
      found.push_back(offer.make(0)->algorithm.data[0]);
    return found;
  };
  CHECK(numbers() == std::vector<std::uint64_t>{1, 3, 0});
  const auto plan = library.offers(pixels(Direction::kForward))[2].make(0);
  CHECK(plan->workspace_bytes() == kMostWorkspace + 1);
  const auto again = CublasLt::read(library.link, pixels(Direction::kForward), library_options(),
                                    CublasLt::text(*plan));
  REQUIRE(again != nullptr);
  CHECK(again->scratch_bytes() == plan->scratch_bytes());
  fake_cublaslt().algorithms = 1;  // which small ones are not among
  CHECK(numbers() == std::vector<std::uint64_t>{0});
}

TEST_CASE("1x1 convolutions by cublaslt: what is kept of a choice") {
  const Library library;
  const LibraryOptions options = library_options();
  const auto key = [&](auto change) {
    ConvTask task = pixels(Direction::kGradInput);
    change(task);
    return CublasLt::key(library.link, task, options);
  };
  const std::string plain = key([](ConvTask&) {});
  ConvTask dense = pixels(Direction::kGradInput);
  dense.shape = dense_shape(kPixels, kIn, kOut);
  CHECK(CublasLt::key(library.link, dense, options) == plain);
  CHECK(plain != key([](ConvTask& t) { t.shape.height = 5; }));
  CHECK(plain != CublasLt::key(library.link, dense, library_options(true)));
  CHECK(plain != key([](ConvTask& t) { t.shape.in_channels = 8; }));
  CHECK(plain != key([](ConvTask& t) { t.gate = true; }));
  CHECK(key([](ConvTask& t) { t.gate = true; }) !=
        key([](ConvTask& t) { t.gate = t.signs = true; }));
  CHECK(plain != key([](ConvTask& t) { t.shape.output_step = 64; }));
  CHECK(plain != key([](ConvTask& t) { t.residual = true; }));
  CHECK(plain != key([](ConvTask& t) { t.measure = MeasureKind::kSums; }));
  CHECK(plain != key([](ConvTask& t) { t.shape.kernel_height = 3; }));
  const auto plan = library.offers(dense)[1].make(0);
  const auto again =
      CublasLt::read(library.link, pixels(Direction::kGradInput), options, CublasLt::text(*plan));
  REQUIRE(again != nullptr);
  CHECK(CublasLt::text(*again) == CublasLt::text(*plan));
  CHECK(again->task.shape.images == kPixels);
  for (const char* const text : {"", "+64", "-64 1 0 0 0 0 0 0 0", "64 1", "own"})
    CHECK(CublasLt::read(library.link, dense, options, text) == nullptr);
}

}  // namespace
}  // namespace pycnn::cuda
