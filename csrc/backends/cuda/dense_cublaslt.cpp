// Its matrices are stored by columns, so a row-major (rows, n) of ours is an (n, rows) of its:
//   output' (N, M) = weight' (K, N)^T input' (K, M)
//   grad_input' (K, M) = weight' (K, N) grad_output' (N, M)
//   grad_weight' (K, N) = input' (K, M) grad_output' (N, M)^T
// Algorithms that split sums add them in float32 and in order.
#include "backends/cuda/dense_cublaslt.h"

#include <cstdio>
#include <optional>
#include <stdexcept>

#include "backends/cuda/elementwise.h"
#include "backends/cuda/library_kernel.h"
#include "backends/cuda/missing_library.h"

namespace pycnn::cuda {
namespace {

using cublaslt::Functions;
using Link = CublasLt::Link;
using Plan = CublasLt::Plan;

constexpr int kMostAlgorithms = 32;
// What the arena gives is more than that, but not the 256 bytes that count without a wish.
constexpr std::uint32_t kAlignment = 16;

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void check(const Functions& f, cublaslt::Status status, const char* call) {
  if (status != 0) throw Error(std::string(call) + ": " + f.cublasLtGetStatusString(status));
}

// Objects of the library that end with their scope.
class Desc {
 public:
  Desc(const Functions& f, int compute) : f_(f) {
    check(f, f.cublasLtMatmulDescCreate(&object_, compute, cublaslt::kReal32), "descriptor");
  }
  ~Desc() { (void)f_.cublasLtMatmulDescDestroy(object_); }
  Desc(const Desc&) = delete;
  Desc& operator=(const Desc&) = delete;
  template <class Value>
  void set(cublaslt::DescAttribute attribute, const Value& value) {
    check(f_, f_.cublasLtMatmulDescSetAttribute(object_, attribute, &value, sizeof value),
          "attribute of a product");
  }
  cublaslt::MatmulDesc object() const { return object_; }

 private:
  const Functions& f_;
  cublaslt::MatmulDesc object_ = nullptr;
};

class Layout {
 public:
  // `leading`: from column to column; 0: they follow one another.
  Layout(const Functions& f, int type, std::int64_t rows, std::int64_t columns,
         std::int64_t leading = 0)
      : f_(f) {
    check(f,
          f.cublasLtMatrixLayoutCreate(&object_, type, static_cast<std::uint64_t>(rows),
                                       static_cast<std::uint64_t>(columns),
                                       leading != 0 ? leading : rows),
          "matrix");
  }
  ~Layout() { (void)f_.cublasLtMatrixLayoutDestroy(object_); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  cublaslt::MatrixLayout object() const { return object_; }

 private:
  const Functions& f_;
  cublaslt::MatrixLayout object_ = nullptr;
};

class Wishes {
 public:
  Wishes(const Functions& f, std::int64_t most_workspace) : f_(f) {
    check(f, f.cublasLtMatmulPreferenceCreate(&object_), "preference");
    const auto workspace = static_cast<std::uint64_t>(most_workspace);
    const std::uint32_t reductions = cublaslt::kReductionComputeType;
    set(cublaslt::kMaxWorkspaceBytes, workspace);
    set(cublaslt::kReductionSchemeMask, reductions);
    for (const auto attribute : {cublaslt::kMinAlignmentA, cublaslt::kMinAlignmentB,
                                 cublaslt::kMinAlignmentC, cublaslt::kMinAlignmentD})
      set(attribute, kAlignment);
  }
  ~Wishes() { (void)f_.cublasLtMatmulPreferenceDestroy(object_); }
  Wishes(const Wishes&) = delete;
  Wishes& operator=(const Wishes&) = delete;
  cublaslt::Preference object() const { return object_; }

 private:
  template <class Value>
  void set(cublaslt::PreferenceAttribute attribute, const Value& value) {
    check(f_, f_.cublasLtMatmulPreferenceSetAttribute(object_, attribute, &value, sizeof value),
          "preference");
  }
  const Functions& f_;
  cublaslt::Preference object_ = nullptr;
};

// The product of a task with what belongs to it.
struct Product {
  Desc desc;
  Layout a, b, d;
  Layout c;  // what is added: the residual, else that of the result

  static int type(Image image) {
    if (image == Image::kFloat16) return cublaslt::kRealFloat16;
    return image == Image::kBFloat16 ? cublaslt::kRealBFloat16 : cublaslt::kReal32;
  }

  Product(const Functions& f, const ConvTask& task, bool joined, bool tf32)
      : Product(f, task, joined, tf32, task.shape.images, task.shape.in_channels,
                task.shape.out_channels) {}

 private:
  Product(const Functions& f, const ConvTask& task, bool joined, bool tf32, std::int64_t m,
          std::int64_t k, std::int64_t n)
      : desc(f, tf32 && task.image == Image::kFloat32 ? cublaslt::kComputeFastTf32
                                                      : cublaslt::kCompute32),
        a(f, type(task.image), k, task.direction == Direction::kGradWeight ? m : n),
        b(f, type(task.image), task.direction == Direction::kForward ? k : n, m),
        // The gradient of a weight is float32, as the weight is.
        d(f, task.direction == Direction::kGradWeight ? cublaslt::kReal32 : type(task.image),
          task.direction == Direction::kForward ? n : k,
          task.direction == Direction::kGradWeight ? n : m, task.shape.output_step),
        c(f, task.direction == Direction::kGradWeight ? cublaslt::kReal32 : type(task.image),
          task.direction == Direction::kForward ? n : k,
          task.direction == Direction::kGradWeight ? n : m,
          task.residual ? 0 : task.shape.output_step) {
    const std::int32_t transpose = cublaslt::kTranspose;
    if (task.direction == Direction::kForward) desc.set(cublaslt::kTransA, transpose);
    if (task.direction == Direction::kGradWeight) desc.set(cublaslt::kTransB, transpose);
    std::uint32_t epilogue = cublaslt::kEpilogueDefault;
    if (joined) {
      epilogue = 0;
      if (task.curve.kind == CurveKind::kRelu) epilogue |= cublaslt::kEpilogueRelu;
      if (task.bias) epilogue |= cublaslt::kEpilogueBias;
      if (epilogue == 0) epilogue = cublaslt::kEpilogueDefault;
    }
    desc.set(cublaslt::kEpilogue, epilogue);
    // Algorithms are looked for before there is a bias: from this address the library takes how one
    // will be aligned.
    if (joined && task.bias)
      desc.set(cublaslt::kBiasPointer, reinterpret_cast<const void*>(std::uintptr_t{kAlignment}));
  }
};

// Relu and nothing are what epilogues of the library know.
bool can_join(const ConvTask& task) {
  return task.direction == Direction::kForward &&
         (task.curve.kind == CurveKind::kIdentity || task.curve.kind == CurveKind::kRelu);
}

std::shared_ptr<Plan> plan_of(const Link& link, const ConvTask& task, bool tf32,
                              const cublaslt::Algorithm& algorithm, std::int64_t workspace) {
  const bool narrow = is_narrow(task.image);
  Plan p{link, task, can_join(task), tf32, algorithm, workspace, 0, 0, 0};
  const bool reads_weight = task.direction != Direction::kGradWeight;
  p.bias = aligned_scratch(workspace);
  p.partials = p.bias + aligned_scratch(narrow && task.bias ? task.shape.out_channels * 2 : 0);
  p.bytes = p.partials;
  if (!reads_weight && task.bias) p.bytes += conv2d_grad_bias_scratch_bytes(task.shape);
  return std::make_shared<Plan>(p);
}

void run_plan(DeviceQueue& queue, const Plan& p, const ConvCall& call, std::byte* scratch) {
  const ConvTask& task = p.task;
  const ConvShape& s = task.shape;
  const Functions& f = *p.link.functions;
  const bool narrow = is_narrow(task.image);
  const void* const weight = call.packed != nullptr ? call.packed : call.weight;
  Product product(f, task, p.joined, p.tf32);
  if (p.joined && task.bias) {
    const void* bias = call.packed_bias != nullptr ? call.packed_bias : call.epilogue.bias;
    if (narrow && call.packed_bias == nullptr) {
      cast(queue, Image::kFloat32, task.image, bias, scratch + p.bias, s.out_channels);
      bias = scratch + p.bias;
    }
    product.desc.set(cublaslt::kBiasPointer, bias);
  }
  const void* a = weight;
  const void* b = call.output;
  void* d = const_cast<void*>(call.input);
  if (task.direction == Direction::kForward) {
    b = call.input;
    d = const_cast<void*>(call.output);
  } else if (task.direction == Direction::kGradWeight) {
    a = call.input;
    d = call.grad_weight;
  }
  const bool residual = p.joined && task.residual;
  const float one = 1.0f, beta = residual ? 1.0f : 0.0f;
  const cublaslt::Status status = f.cublasLtMatmul(
      p.link.handle, product.desc.object(), &one, a, product.a.object(), b, product.b.object(),
      &beta, residual ? call.epilogue.residual : d, product.c.object(), d, product.d.object(),
      &p.algorithm, scratch, static_cast<std::size_t>(p.workspace), queue.stream);
  if (status != 0) note_library(queue, f.cublasLtGetStatusString(status));
  if (task.direction == Direction::kGradWeight && call.grad_bias != nullptr)
    conv2d_grad_bias(queue, task.image, s, call.output, call.grad_bias, scratch + p.partials);
  if (task.direction == Direction::kForward && !p.joined)
    conv2d_epilogue(queue, task.image, s, call.epilogue, d);
}

// ---- Choosing

// With at most so much workspace.
std::vector<cublaslt::Heuristic> algorithms_of(const Link& link, const Product& product,
                                               std::int64_t most_workspace) {
  const Functions& f = *link.functions;
  const Wishes wishes(f, most_workspace);
  std::vector<cublaslt::Heuristic> found(kMostAlgorithms);
  int count = 0;
  check(f,
        f.cublasLtMatmulAlgoGetHeuristic(link.handle, product.desc.object(), product.a.object(),
                                         product.b.object(), product.c.object(), product.d.object(),
                                         wishes.object(), kMostAlgorithms, found.data(), &count),
        "algorithms");
  found.resize(static_cast<std::size_t>(count));
  std::erase_if(found, [](const cublaslt::Heuristic& h) { return h.state != 0; });
  return found;
}

// Those that want much behind the others, which are asked for apart so that they are not fewer.
std::vector<cublaslt::Heuristic> algorithms_of(const Link& link, const ConvTask& task, bool tf32) {
  const Product product(*link.functions, task, can_join(task), tf32);
  std::vector<cublaslt::Heuristic> found;
  for (const std::int64_t most : {kMostWorkspace, kLargestWorkspace}) try {
      for (const cublaslt::Heuristic& each : algorithms_of(link, product, most))
        if (most == kMostWorkspace || each.workspace_bytes > std::size_t{kMostWorkspace})
          found.push_back(each);
    } catch (const Error&) {
      if (most == kLargestWorkspace && found.empty()) throw;  // it knows no such product
    }
  return found;
}

// An algorithm in the plan cache: its workspace and its numbers.
std::string text_of(const Plan& plan) {
  std::string text = std::to_string(plan.workspace);
  for (const std::uint64_t word : plan.algorithm.data) text += " " + std::to_string(word);
  return text;
}

std::optional<std::pair<cublaslt::Algorithm, std::int64_t>> algorithm_of(const std::string& text) {
  cublaslt::Algorithm algorithm{};
  long long workspace = 0;
  int at = 0, read = 0;
  if (std::sscanf(text.c_str(), "%lld%n", &workspace, &read) != 1) return std::nullopt;
  for (std::uint64_t& word : algorithm.data) {
    at += read;
    unsigned long long value = 0;
    if (std::sscanf(text.c_str() + at, " %llu%n", &value, &read) != 1) return std::nullopt;
    word = value;
  }
  if (workspace < 0 || workspace > kLargestWorkspace) return std::nullopt;
  return std::pair(algorithm, static_cast<std::int64_t>(workspace));
}

// The dense layer that a product is.
ConvTask dense_task(const ConvTask& task) {
  const ConvShape& s = task.shape;
  ConvTask dense = task;
  dense.shape =
      dense_shape(std::int64_t{s.images} * s.height * s.width, s.in_channels, s.out_channels);
  dense.shape.output_step = s.output_step;
  return dense;
}

}  // namespace

const Functions* CublasLt::load(std::string& problem) { return load_cublaslt(problem); }

bool CublasLt::open(Link& link) { return link.functions->cublasLtCreate(&link.handle) == 0; }

std::vector<std::string> CublasLt::missing(const Link& link, const LibraryOptions&) {
  if (link.functions != nullptr) return {};
  return missing_line(kCublasLtLibrary, link.problem, link.is_loaded);
}

std::string CublasLt::key(const Link& link, const ConvTask& task, const LibraryOptions& options) {
  std::string key = "cublaslt " + std::to_string(link.functions->cublasLtGetVersion());
  if (!is_product(task)) return key + "; conv2d" + task_numbers(task, options.tf32);
  const ConvTask dense = dense_task(task);
  key += "; dense";
  for (const int number :
       {static_cast<int>(task.direction), static_cast<int>(task.image), dense.shape.images,
        task.shape.in_channels, task.shape.out_channels, task.bias ? 1 : 0, task.residual ? 1 : 0,
        static_cast<int>(task.curve.kind), options.tf32 ? 1 : 0})
    key += " " + std::to_string(number);
  if (task.shape.output_step != 0) key += " apart " + std::to_string(task.shape.output_step);
  // What comes behind a convolution's product is timed with it.
  if (task.gate) key += " gate";
  if (task.signs) key += " signs";
  if (task.measure != MeasureKind::kNothing)
    key += " measure " + std::to_string(static_cast<int>(task.measure)) + " " +
           std::to_string(static_cast<int>(task.norm_curve.kind));
  return key;
}

std::vector<Offer<Plan>> CublasLt::offers(const Link& link, const ConvTask& task,
                                          const LibraryOptions& options) {
  std::vector<Offer<Plan>> offers;
  if (!is_product(task)) return offers;
  // What comes behind takes pixels that follow one another.
  if (task.shape.output_step != 0 && !can_join(task)) return offers;
  const ConvTask dense = dense_task(task);
  try {
    for (const cublaslt::Heuristic& found : algorithms_of(link, dense, options.tf32)) {
      if (task.shape.output_step != 0 && offers.size() == std::size_t{kMostApart}) break;
      offers.push_back({[&link, dense, tf32 = options.tf32, found](int) {
                          return plan_of(link, dense, tf32, found.algorithm,
                                         static_cast<std::int64_t>(found.workspace_bytes));
                        },
                        false});
    }
  } catch (const Error&) {
    offers.clear();  // it knows no such product
  }
  return offers;
}

std::string CublasLt::text(const Plan& plan) { return text_of(plan); }

std::shared_ptr<Plan> CublasLt::read(const Link& link, const ConvTask& task,
                                     const LibraryOptions& options, const std::string& text) {
  const auto algorithm = algorithm_of(text);
  if (!algorithm || !is_product(task)) return nullptr;
  return plan_of(link, dense_task(task), options.tf32, algorithm->first, algorithm->second);
}

void CublasLt::run(DeviceQueue& queue, const Plan& plan, const ConvCall& call, std::byte* scratch) {
  run_plan(queue, plan, call, scratch);
}

Choice select_library(int device, const ops::Dense& op, const Problem& problem) {
  return choose_library<CublasLt>(device, op, problem);
}
Choice select_library(int device, const ops::DenseGradInput& op, const Problem& problem) {
  return choose_library<CublasLt>(device, op, problem);
}
Choice select_library(int device, const ops::DenseGradWeight& op, const Problem& problem) {
  return choose_library<CublasLt>(device, op, problem);
}

}  // namespace pycnn::cuda
