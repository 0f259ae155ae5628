#pragma once
#include "kernel_harness.h"

// Kernels on bfloat16 give the numbers of the float32 kernel on the widened inputs, rounded.
namespace pycnn::testing {

inline HostTensor to_type(const HostTensor& from, DType dtype) {
  HostTensor to(TensorSpec{from.spec.shape, dtype});
  for (std::size_t i = 0; i < from.size(); ++i) to.set(i, from[i]);
  return to;
}

// Numbers of bfloat16, one of them of each kind that is not like the others.
inline HostTensor odd_bfloat16(Shape shape, std::uint64_t seed) {
  HostTensor tensor = random_tensor(std::move(shape), seed, -4, 4, DType::kBFloat16);
  const double odd[] = {-0.0, 0x1p-140, -0x1p-133, kInfinity, kNaN, -kInfinity};
  for (std::size_t i = 0; i < 6; ++i)
    if (tensor.size() > 200) tensor.set((seed % 5 + 1) * 7 + 29 * i, odd[i]);
  return tensor;
}

// Which NaN comes out is not promised: it is up to the order of the operands of a sum.
inline bool same_numbers(const std::vector<HostTensor>& a, const std::vector<HostTensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const HostTensor& x, const HostTensor& y) {
                      if (x.spec != y.spec) return false;
                      for (std::size_t i = 0; i < x.size(); ++i) {
                        const double p = x[i], q = y[i];
                        const bool same = p == q && std::signbit(p) == std::signbit(q);
                        if (!same && !(std::isnan(p) && std::isnan(q))) return false;
                      }
                      return true;
                    });
}

// Inputs of bfloat16 are images; other results than these are compared as they are.
template <class OpType>
void check_rounded(const OpType& op, const std::vector<HostTensor>& inputs) {
  std::vector<HostTensor> wide;
  for (const HostTensor& input : inputs) wide.push_back(to_type(input, DType::kFloat32));
  int ran = 0;
  for (const std::string& variant : cpu::variants(op)) {
    CAPTURE(variant);
    KernelRun run;
    run.variant = variant;
    std::vector<HostTensor> expected;
    Kernel kernel;
    try {
      const bool takes_float32 = variant.find(".bfloat16.") == std::string::npos;
      expected = run_kernel(op, wide, takes_float32 ? run : KernelRun{});
      (void)run_kernel(op, inputs, run, &kernel);
    } catch (const UnsupportedError&) {
      continue;
    }
    ++ran;
    check_apart(op, inputs, run, kernel, run_kernel(op, inputs, run));
    const std::vector<TensorSpec> results = op.infer(specs_of(inputs));
    for (std::size_t i = 0; i < results.size(); ++i)
      expected[i] = to_type(expected[i], results[i].dtype);
    for (const int threads : {1, 2, 3})
      for (const Guard guard : {Guard::kAfter, Guard::kBefore}) {
        run.threads = threads;
        run.guard = guard;
        CHECK(same_numbers(run_kernel(op, inputs, run), expected));
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          if (kernel.in_place.empty() || (kernel.in_place[0] >> i & 1u) == 0) continue;
          CAPTURE(i);
          run.alias_output = 0, run.alias_input = static_cast<int>(i);
          CHECK(same_numbers(run_kernel(op, inputs, run), expected));
          run.alias_output = run.alias_input = -1;
        }
      }
  }
  CHECK(ran > 0);
}

}  // namespace pycnn::testing
