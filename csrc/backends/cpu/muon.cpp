#include "backends/cpu/muon.h"

#include <algorithm>
#include <cmath>

#include "backends/cpu/optimizer.h"
#include "backends/cpu/optimizer_steps.h"
#include "backends/cpu/select.h"
#include "backends/cpu/vector_variants.h"
#include "core/parallel.h"

// The parameter is a matrix of `first` rows; the iteration works on its wide form x (rows <=
// columns), for the side of x x^T counts. Products are sums of outer products (gemm.h), which want
// the summed axis first: x x^T takes x transposed.
namespace pycnn::cpu {
namespace {

// The quintic that lifts small singular values fastest and leaves all near 1 (Jordan 2024).
constexpr double kLinear = 3.4445, kCubic = -4.7750, kQuintic = 2.0315;
constexpr double kSmallestNorm = 1e-7;

struct MuonSizes {
  Index first, rest;
  Index rows() const { return std::min(first, rest); }
  Index columns() const { return std::max(first, rest); }
  Index count() const { return first * rest; }
  bool tall() const { return first > rest; }
  Index chunks() const { return ceil_div(count(), kElementGrain); }
};

MuonSizes sizes_of(const Shape& shape) noexcept {
  MuonSizes sizes{shape[0], 1};
  for (std::size_t i = 1; i < shape.size(); ++i) sizes.rest *= shape[i];
  return sizes;
}

// What is the same for all elements.
struct MuonCoefficients {
  double factor, shrink, step;
};

MuonCoefficients coefficients_of(const KernelArgs& args, const MuonSizes& sizes) noexcept {
  const auto& op = op_of<ops::MuonUpdate>(args);
  const double rate = scalar_of(args.inputs[2]) * op.rate_scale;
  const double stretch =
      std::sqrt(std::max(1.0, static_cast<double>(sizes.first) / static_cast<double>(sizes.rest)));
  return {op.clipped ? scalar_of(args.inputs.back()) : 1.0, 1.0 - rate * op.weight_decay,
          rate * stretch};
}

// Whether the step changes nothing; then that is done.
bool keeps(const KernelArgs& args, const MuonCoefficients& c) noexcept {
  if (!(c.factor < 0.0)) return false;
  keep_tensor(args.inputs[0], args.outputs[0]);
  keep_tensor(args.inputs[3], args.outputs[1]);
  return true;
}

// ---- float32

// Three wide matrices, two squares, the sums of squares of the chunks.
struct MuonScratch {
  float *x, *other, *transposed, *square, *polynomial;
  double* parts;

  MuonScratch(std::byte* memory, const MuonSizes& sizes) {
    const Index wide = padded(sizes.count()), square_floats = padded(sizes.rows() * sizes.rows());
    x = reinterpret_cast<float*>(memory);
    other = x + wide;
    transposed = other + wide;
    square = transposed + wide;
    polynomial = square + square_floats;
    parts = reinterpret_cast<double*>(polynomial + square_floats);
  }
  static Index padded(Index floats) { return ceil_div(floats, 16) * 16; }
  static std::size_t bytes(const MuonSizes& sizes) {
    const Index floats = 3 * padded(sizes.count()) + 2 * padded(sizes.rows() * sizes.rows());
    return static_cast<std::size_t>(floats) * sizeof(float) +
           static_cast<std::size_t>(sizes.chunks()) * sizeof(double);
  }
};

// c (m, n) = the sum over k of a[k][i] * b[k][j]; dense matrices. Panels of the summed axis fit the
// cache, and their order is fixed.
void product(const KernelArgs& args, void (*outer_tiles)(const OuterTiles&), const float* a,
             const float* b, float* c, Index depth, Index m, Index n) noexcept {
  constexpr Index kHigh = 48, kWide = 128, kDeep = 512;
  const Index across = ceil_div(n, kWide);
  parallel_for(args.threads, ceil_div(m, kHigh) * across, [&](std::int64_t chunk, int) {
    const Index i = chunk / across * kHigh, j = chunk % across * kWide;
    for (Index k = 0; k < depth; k += kDeep) {
      OuterTiles job;
      job.rows = 1, job.columns = std::min(kDeep, depth - k);
      job.a = a + k * m + i, job.a_column = m;
      job.b = b + k * n + j, job.b_column = n;
      job.m = std::min(kHigh, m - i), job.n = std::min(kWide, n - j);
      job.c = c + i * n + j, job.c_pitch = n;
      job.accumulate = k > 0;
      outer_tiles(job);
    }
  });
}

// to (columns, rows) from (rows, columns).
void transpose(const KernelArgs& args, const float* from, float* to, Index rows,
               Index columns) noexcept {
  constexpr Index kSide = 16;
  const Index across = ceil_div(columns, kSide);
  parallel_ranges(args.threads, ceil_div(rows, kSide) * across, 32,
                  [=](std::int64_t begin, std::int64_t end) {
                    for (Index block = begin; block < end; ++block) {
                      const Index i0 = block / across * kSide, j0 = block % across * kSide;
                      for (Index j = j0; j < std::min(j0 + kSide, columns); ++j)
                        for (Index i = i0; i < std::min(i0 + kSide, rows); ++i)
                          to[j * rows + i] = from[i * columns + j];
                    }
                  });
}

template <const OptimizerFunctions& Functions>
double write_direction(const KernelArgs& args, const MuonFunctions& muon, double factor,
                       float* direction, double* parts, const MuonSizes& sizes) noexcept {
  const auto& op = op_of<ops::MuonUpdate>(args);
  parallel_for(args.threads, sizes.chunks(), [&](std::int64_t chunk, int) {
    const Index begin = chunk * kElementGrain;
    MuonDirection step{};
    step.gradient = args.inputs[1].as<const float>() + begin;
    step.velocity = args.inputs[3].as<const float>() + begin;
    step.new_velocity = args.outputs[1].as<float>() + begin;
    step.direction = direction + begin;
    step.n = std::min(kElementGrain, sizes.count() - begin);
    step.factor = static_cast<float>(factor);
    step.momentum = static_cast<float>(op.momentum);
    step.nesterov = op.nesterov;
    muon.direction(step);
    parts[chunk] = Functions.sum_of_squares(step.direction, step.n);
  });
  double sum = 0.0;
  for (Index chunk = 0; chunk < sizes.chunks(); ++chunk) sum += parts[chunk];
  return std::sqrt(sum);
}

void combine(const KernelArgs& args, const MuonFunctions& muon, double a, const float* x, double b,
             const float* y, float* out, Index count) noexcept {
  parallel_ranges(args.threads, count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    muon.combine(static_cast<float>(a), x + begin, static_cast<float>(b), y + begin, out + begin,
                 end - begin);
  });
}

template <const MuonFunctions& Muon, const OptimizerFunctions& Functions>
void vector_muon(const KernelArgs& args) noexcept {
  const MuonSizes sizes = sizes_of(args.inputs[0].spec->shape);
  if (sizes.count() == 0) return;
  const Index rows = sizes.rows(), columns = sizes.columns();
  const MuonCoefficients c = coefficients_of(args, sizes);
  if (keeps(args, c)) return;
  MuonScratch s(args.scratch, sizes);
  float* const direction = sizes.tall() ? s.transposed : s.x;
  // Not std::max, which would hide a norm that is NaN.
  double norm = write_direction<Functions>(args, Muon, c.factor, direction, s.parts, sizes);
  if (norm < kSmallestNorm) norm = kSmallestNorm;
  combine(args, Muon, 1.0 / norm, direction, 0.0, direction, direction, sizes.count());
  if (sizes.tall())
    transpose(args, s.transposed, s.x, columns, rows);
  else
    transpose(args, s.x, s.transposed, rows, columns);
  const auto iterations = op_of<ops::MuonUpdate>(args).iterations;
  for (std::int64_t i = 0; i < iterations; ++i) {
    product(args, Muon.outer_tiles, s.transposed, s.transposed, s.square, columns, rows, rows);
    product(args, Muon.outer_tiles, s.square, s.square, s.polynomial, rows, rows, rows);
    combine(args, Muon, kCubic, s.square, kQuintic, s.polynomial, s.polynomial, rows * rows);
    for (Index k = 0; k < rows; ++k) s.polynomial[k * rows + k] += static_cast<float>(kLinear);
    product(args, Muon.outer_tiles, s.polynomial, s.x, s.other, rows, rows, columns);
    std::swap(s.x, s.other);
    if (i + 1 < iterations || sizes.tall()) transpose(args, s.x, s.transposed, rows, columns);
  }
  combine(args, Muon, c.shrink, args.inputs[0].as<const float>(), -c.step,
          sizes.tall() ? s.transposed : s.x, args.outputs[0].as<float>(), sizes.count());
}

// ---- Reference

// One wide matrix and its successor, two squares.
template <class T>
void reference_muon_of(const KernelArgs& args) noexcept {
  const auto& op = op_of<ops::MuonUpdate>(args);
  const MuonSizes sizes = sizes_of(args.inputs[0].spec->shape);
  const Index rows = sizes.rows(), columns = sizes.columns(), count = sizes.count();
  const MuonCoefficients c = coefficients_of(args, sizes);
  if (keeps(args, c)) return;
  T* x = reinterpret_cast<T*>(args.scratch);
  T* next = x + count;
  T* const square = next + count;
  T* const polynomial = square + rows * rows;
  // Where element i of the parameter is in x.
  const auto place = [&](Index i) {
    return sizes.tall() ? i % sizes.rest * columns + i / sizes.rest : i;
  };
  double sum = 0.0;
  for (Index i = 0; i < count; ++i) {
    const T g = static_cast<T>(c.factor) * args.inputs[1].as<const T>()[i];
    const T v = static_cast<T>(op.momentum) * args.inputs[3].as<const T>()[i] + g;
    args.outputs[1].as<T>()[i] = v;
    const T u = op.nesterov ? g + static_cast<T>(op.momentum) * v : v;
    x[place(i)] = u;
    sum += static_cast<double>(u) * static_cast<double>(u);
  }
  double norm = std::sqrt(sum);
  if (norm < kSmallestNorm) norm = kSmallestNorm;
  for (Index i = 0; i < count; ++i) x[i] *= static_cast<T>(1.0 / norm);
  for (std::int64_t n = 0; n < op.iterations; ++n) {
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < rows; ++j) {
        T total = 0;
        for (Index k = 0; k < columns; ++k) total += x[i * columns + k] * x[j * columns + k];
        square[i * rows + j] = total;
      }
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < rows; ++j) {
        T total = 0;
        for (Index k = 0; k < rows; ++k) total += square[i * rows + k] * square[k * rows + j];
        polynomial[i * rows + j] =
            T(kCubic) * square[i * rows + j] + T(kQuintic) * total + (i == j ? T(kLinear) : T(0));
      }
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j) {
        T total = 0;
        for (Index k = 0; k < rows; ++k) total += polynomial[i * rows + k] * x[k * columns + j];
        next[i * columns + j] = total;
      }
    std::swap(x, next);
  }
  for (Index i = 0; i < count; ++i)
    args.outputs[0].as<T>()[i] = static_cast<T>(c.shrink) * args.inputs[0].as<const T>()[i] -
                                 static_cast<T>(c.step) * x[place(i)];
}

void reference_muon(const KernelArgs& args) noexcept {
  with_float(args.inputs[0].spec->dtype,
             [&](auto type) { reference_muon_of<decltype(type)>(args); });
}

// ---- Selection

template <const MuonFunctions& Muon, const OptimizerFunctions& Functions>
Kernel make_muon(const ops::MuonUpdate&, const Problem& problem) {
  Kernel kernel;
  kernel.run = vector_muon<Muon, Functions>;
  kernel.scratch_bytes = MuonScratch::bytes(sizes_of(problem.inputs[0].shape));
  kernel.in_place = {1u << 0, 1u << 3};
  return kernel;
}

Kernel make_muon_reference(const ops::MuonUpdate&, const Problem& problem) {
  const MuonSizes sizes = sizes_of(problem.inputs[0].shape);
  const Index values = 2 * (sizes.count() + sizes.rows() * sizes.rows());
  Kernel kernel;
  kernel.run = reference_muon;
  kernel.scratch_bytes = static_cast<std::size_t>(values) * sizeof(double);
  kernel.in_place = {1u << 0, 1u << 3};
  return kernel;
}

constexpr Variant<ops::MuonUpdate> kMuonUpdate[] = {
#if PYCNN_HAVE_AVX512
    {"muon_update.gemm.avx512", Isa::kAvx512, accept_float32,
     make_muon<avx512::kMuon, avx512::kOptimizer>},
#endif
#if PYCNN_HAVE_AVX2
    {"muon_update.gemm.avx2", Isa::kAvx2, accept_float32, make_muon<avx2::kMuon, avx2::kOptimizer>},
#endif
    {"muon_update.gemm.baseline", Isa::kBaseline, accept_float32,
     make_muon<baseline::kMuon, baseline::kOptimizer>},
    {"muon_update.reference", Isa::kBaseline, accept_all, make_muon_reference},
};

}  // namespace

Selection select(const ops::MuonUpdate& op, const Problem& problem) {
  return choose(kMuonUpdate, op, problem);
}
std::vector<std::string> variants(const ops::MuonUpdate&) { return names_of(kMuonUpdate); }

}  // namespace pycnn::cpu
