#include "backends/cpu/conv2d_bfloat16.h"
#include "backends/cpu/conv2d_bfloat16_weight_grad.h"
#include "backends/cpu/conv2d_reference.h"
#include "backends/cpu/conv2d_weight_grad.h"
#include "backends/cpu/conv2d_window.h"
#include "backends/cpu/dense_rows.h"
#include "backends/cpu/select.h"
#include "backends/cpu/variant.h"

// A dense layer is a 1x1 convolution of images of one pixel.
namespace pycnn::cpu {
namespace {

Shape as_pixels(const Shape& shape) {
  Index rows = 1;
  for (std::size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return {rows, 1, 1, shape.back()};
}

WindowProblem window_of(const ops::Dense& op, const Problem& problem) {
  WindowProblem window;
  window.input = as_pixels(problem.inputs[0].shape);
  window.output = as_pixels(problem.outputs[0].shape);
  window.epilogue = op.epilogue;
  window.bias = problem.inputs.size() > (op.epilogue.residual ? 3u : 2u);
  return window;
}

WindowProblem window_of(const ops::DenseGradInput&, const Problem& problem) {
  WindowProblem window;
  window.input = as_pixels(problem.inputs[0].shape);
  window.output = as_pixels(problem.outputs[0].shape);
  window.transposed = true;
  return window;
}

template <const WindowRun& kRun>
Kernel make_window(const auto& op, const Problem& problem) {
  return make_window_kernel(window_of(op, problem), problem.threads, kRun);
}

WeightGradProblem problem_of(const ops::DenseGradWeight& op, const Problem& problem) {
  WeightGradProblem grad;
  grad.input = as_pixels(problem.inputs[0].shape);
  grad.grad_output = as_pixels(problem.inputs[1].shape);
  grad.bias = op.bias;
  return grad;
}

template <const WeightGradRun& kRun, bool kPerThread = false>
Kernel make_grad_weight(const ops::DenseGradWeight& op, const Problem& problem) {
  WeightGradProblem grad = problem_of(op, problem);
  grad.per_thread = kPerThread;
  return make_weight_grad_kernel(grad, problem.threads, kRun);
}

template <const DenseRowRun& kRun>
const char* accept_rows(const auto& op, const Problem& problem) {
  if (const char* refused = accept_float32(op, problem)) return refused;
  return refuse_rows(op, problem, kRun);
}

template <const DenseRowRun& kRun>
Kernel make_rows(const auto& op, const Problem& problem) {
  return make_row_kernel(op, problem, kRun);
}

const char* accept_amx(const auto&, const Problem&) { return refuse_amx(); }
const char* accept_avx512_bf16(const auto&, const Problem&) { return refuse_avx512_bf16(); }
const char* accept_portable(const auto&, const Problem& problem) {
  return refuse_portable(problem);
}

template <const PairRun& kRun>
Kernel make_pairs(const auto& op, const Problem& problem) {
  return make_pair_kernel(window_of(op, problem), problem.threads, kRun);
}

template <const PairGradRun& kRun>
Kernel make_pair_grad(const ops::DenseGradWeight& op, const Problem& problem) {
  return make_pair_weight_grad_kernel(problem_of(op, problem), problem.threads, kRun);
}

constexpr Variant<ops::Dense> kForward[] = {
#if PYCNN_HAVE_AVX512
    {"dense.bfloat16.amx", Isa::kAvx512, accept_amx, make_pairs<kPairsAmx>, Images::kBFloat16},
    {"dense.bfloat16.avx512_bf16", Isa::kAvx512, accept_avx512_bf16, make_pairs<kPairsAvx512>,
     Images::kBFloat16},
    {"dense.rows.avx512", Isa::kAvx512, accept_rows<kDenseRowsAvx512>, make_rows<kDenseRowsAvx512>},
    {"dense.gemm.avx512", Isa::kAvx512, accept_float32, make_window<kWindowAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"dense.rows.avx2", Isa::kAvx2, accept_rows<kDenseRowsAvx2>, make_rows<kDenseRowsAvx2>},
    {"dense.gemm.avx2", Isa::kAvx2, accept_float32, make_window<kWindowAvx2>},
#endif
    {"dense.rows.baseline", Isa::kBaseline, accept_rows<kDenseRowsBaseline>,
     make_rows<kDenseRowsBaseline>},
    {"dense.gemm.baseline", Isa::kBaseline, accept_float32, make_window<kWindowBaseline>},
    {"dense.bfloat16.portable", Isa::kBaseline, accept_portable, make_pairs<kPairsPortable>,
     Images::kBFloat16},
    {"dense.reference", Isa::kBaseline, accept_all, make_dense_reference},
};

constexpr Variant<ops::DenseGradInput> kGradInput[] = {
#if PYCNN_HAVE_AVX512
    {"dense_grad_input.bfloat16.amx", Isa::kAvx512, accept_amx, make_pairs<kPairsAmx>,
     Images::kBFloat16},
    {"dense_grad_input.bfloat16.avx512_bf16", Isa::kAvx512, accept_avx512_bf16,
     make_pairs<kPairsAvx512>, Images::kBFloat16},
    {"dense_grad_input.rows.avx512", Isa::kAvx512, accept_rows<kDenseRowsAvx512>,
     make_rows<kDenseRowsAvx512>},
    {"dense_grad_input.gemm.avx512", Isa::kAvx512, accept_float32, make_window<kWindowAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"dense_grad_input.rows.avx2", Isa::kAvx2, accept_rows<kDenseRowsAvx2>,
     make_rows<kDenseRowsAvx2>},
    {"dense_grad_input.gemm.avx2", Isa::kAvx2, accept_float32, make_window<kWindowAvx2>},
#endif
    {"dense_grad_input.rows.baseline", Isa::kBaseline, accept_rows<kDenseRowsBaseline>,
     make_rows<kDenseRowsBaseline>},
    {"dense_grad_input.gemm.baseline", Isa::kBaseline, accept_float32,
     make_window<kWindowBaseline>},
    {"dense_grad_input.bfloat16.portable", Isa::kBaseline, accept_portable,
     make_pairs<kPairsPortable>, Images::kBFloat16},
    {"dense_grad_input.reference", Isa::kBaseline, accept_all, make_dense_grad_input_reference},
};

constexpr Variant<ops::DenseGradWeight> kGradWeight[] = {
#if PYCNN_HAVE_AVX512
    {"dense_grad_weight.bfloat16.amx", Isa::kAvx512, accept_amx, make_pair_grad<kPairGradAmx>,
     Images::kBFloat16},
    {"dense_grad_weight.bfloat16.avx512_bf16", Isa::kAvx512, accept_avx512_bf16,
     make_pair_grad<kPairGradAvx512>, Images::kBFloat16},
    {"dense_grad_weight.gemm.avx512", Isa::kAvx512, accept_float32,
     make_grad_weight<kWeightGradAvx512>},
#endif
#if PYCNN_HAVE_AVX2
    {"dense_grad_weight.gemm.avx2", Isa::kAvx2, accept_float32, make_grad_weight<kWeightGradAvx2>},
#endif
    {"dense_grad_weight.gemm.baseline", Isa::kBaseline, accept_float32,
     make_grad_weight<kWeightGradBaseline>},
    {"dense_grad_weight.bfloat16.portable", Isa::kBaseline, accept_portable,
     make_pair_grad<kPairGradPortable>, Images::kBFloat16},
    {"dense_grad_weight.reference", Isa::kBaseline, accept_all, make_dense_grad_weight_reference},
};

// Reached by a pin alone and in no list: see WeightGradProblem::per_thread.
constexpr Variant<ops::DenseGradWeight> kGradWeightPerThread[] = {
#if PYCNN_HAVE_AVX512
    {"dense_grad_weight.per_thread.avx512", Isa::kAvx512, accept_float32,
     make_grad_weight<kWeightGradAvx512, true>},
#endif
#if PYCNN_HAVE_AVX2
    {"dense_grad_weight.per_thread.avx2", Isa::kAvx2, accept_float32,
     make_grad_weight<kWeightGradAvx2, true>},
#endif
    {"dense_grad_weight.per_thread.baseline", Isa::kBaseline, accept_float32,
     make_grad_weight<kWeightGradBaseline, true>},
};

}  // namespace

Selection select(const ops::Dense& op, const Problem& problem) {
  return choose(kForward, op, problem);
}
std::vector<std::string> variants(const ops::Dense&) { return names_of(kForward); }
Selection select(const ops::DenseGradInput& op, const Problem& problem) {
  return choose(kGradInput, op, problem);
}
std::vector<std::string> variants(const ops::DenseGradInput&) { return names_of(kGradInput); }
Selection select(const ops::DenseGradWeight& op, const Problem& problem) {
  if (problem.pinned.starts_with("dense_grad_weight.per_thread"))
    return choose(kGradWeightPerThread, op, problem);
  return choose(kGradWeight, op, problem);
}
std::vector<std::string> variants(const ops::DenseGradWeight&) { return names_of(kGradWeight); }

}  // namespace pycnn::cpu
