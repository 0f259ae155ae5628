#include <algorithm>

#include "backends/devices.h"
#include "core/bfloat16_units.h"
#include "core/cpu_features.h"
#include "core/memory.h"
#include "pycnn/error.h"
#include "pycnn/program.h"

namespace pycnn {
Machine machine() {
  Machine result;
  result.cpu = cpu_model_name();
  const Isa best = best_isa();
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512})
    if (isa <= best) result.isas.emplace_back(isa_name(isa));
  result.isa = isa_name(best);
  if (has_avx512_bf16()) result.bfloat16_units.emplace_back("avx512_bf16");
  if (has_amx_bf16()) result.bfloat16_units.emplace_back("amx_bf16");
  const ThreadChoice choice = thread_choice();
  result.threads = choice.chosen;
  result.threads_reason = choice.reason;
  result.thread_limits = {{"PYCNN_NUM_THREADS", choice.pycnn_num_threads},
                          {"OMP_NUM_THREADS", choice.omp_num_threads},
                          {"affinity", choice.affinity},
                          {"cgroup_quota", choice.cgroup_quota},
                          {"physical_cores", choice.physical_cores}};
  result.warnings = choice.warnings;
  result.devices = usable_devices();
  result.available_memory_bytes = available_memory();
#if defined(__clang__)
  result.compiler = "clang " __clang_version__;
#elif defined(__GNUC__)
  result.compiler = "gcc " __VERSION__;
#else
  result.compiler = "unknown";
#endif
  return result;
}

std::vector<std::string> variants(const std::string& op_name, const std::string& device) {
  const std::vector<Op>& all = each_op();
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const Op& op) { return op_name == pycnn::op_name(op); });
  if (found == all.end()) throw ArgumentError("variants: there is no op '" + op_name + "'");
  return find_device("variants", device).backend->variants(*found);
}

}  // namespace pycnn
