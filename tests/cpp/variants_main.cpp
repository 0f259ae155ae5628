#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "core/bfloat16_units.h"
#include "core/cpu_features.h"
#include "support/reached_variants.h"

// Runs the tests and checks that they ran every variant of every op that this machine can run on
// buffers between forbidden pages: without arguments, or with --check-variants beside others. A run
// of some tests cannot tell: the processes of one that is
// done in parts append the names to the file that PYCNN_REACHED_VARIANTS names, and who started
// them compares these with what --list-variants prints (.ci/sanitize).
namespace pycnn::testing {

__attribute__((weak)) const char* variants_looked_at() { return ""; }

namespace {

// Reached by pins alone: no list has them.
constexpr const char* kInNoList[] = {"conv2d_grad_weight.per_thread.",
                                     "dense_grad_weight.per_thread."};

// What is left out on purpose: units and instruction sets that the machine lacks. There is nothing
// else; what is added here says why.
bool runs_here(std::string_view name) {
  const bool avx512 = best_isa() >= Isa::kAvx512;
  if (name.ends_with(".amx")) return avx512 && has_amx_bf16();
  if (name.ends_with(".avx512_bf16")) return avx512 && has_avx512_bf16();
  if (name.ends_with(".avx512")) return avx512;
  if (name.ends_with(".avx2")) return best_isa() >= Isa::kAvx2;
  return true;
}

std::vector<std::string> expected_variants() {
  std::vector<std::string> all, expected;
  for (const Op& op : each_op())
    for (const std::string& name : cpu_backend().variants(op)) all.push_back(name);
  for (const char* family : kInNoList)
    for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512})
      if (isa <= best_isa()) all.push_back(std::string(family) + isa_name(isa));
  for (const std::string& name : all)
    if (name.ends_with(variants_looked_at()) && runs_here(name)) expected.push_back(name);
  return expected;
}

// How many were not reached.
int report_unreached() {
  int unreached = 0;
  for (const std::string& name : expected_variants()) {
    if (reached_variants().contains(name)) continue;
    std::fprintf(stderr, "variant %s: no test ran it between forbidden pages\n", name.c_str());
    ++unreached;
  }
  return unreached;
}

bool append_reached(const char* path) {
  std::string text;
  for (const std::string& name : reached_variants()) text += name + "\n";
  std::ofstream file(path, std::ios::app);
  file << text << std::flush;
  if (!file) std::fprintf(stderr, "PYCNN_REACHED_VARIANTS: cannot append to '%s'\n", path);
  return static_cast<bool>(file);
}

}  // namespace
}  // namespace pycnn::testing

int main(int count, char** arguments) {
  using namespace pycnn::testing;  // NOLINT(google-build-using-namespace)
  bool all = true, asked = false;
  std::vector<char*> for_doctest = {arguments[0]};
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--list-variants") {
      for (const std::string& name : expected_variants()) std::puts(name.c_str());
      return 0;
    }
    if (argument == "--check-variants") {
      asked = true;
      continue;
    }
    all = all && argument == "--minimal";
    for_doctest.push_back(arguments[i]);
  }
  int failed = doctest::Context(static_cast<int>(for_doctest.size()), for_doctest.data()).run();
  if (const char* path = std::getenv("PYCNN_REACHED_VARIANTS"))
    failed += append_reached(path) ? 0 : 1;
  if (all || asked) failed += report_unreached();
  if (expected_variants().empty())
    std::fprintf(stderr, "skipped: no variant *%s runs on this machine\n", variants_looked_at());
  return failed == 0 ? 0 : 1;
}
