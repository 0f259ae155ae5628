#include "backends/peaks.h"

#include <cmath>

#include "core/clock_rate.h"
#include "core/cpu_features.h"
#include "pycnn/error.h"
#include "pycnn/program.h"

namespace pycnn {

MachinePeaks measure_peaks(const std::string& isa, std::int64_t threads, double seconds) {
  constexpr double kMostSeconds = 60.0;
  if (!std::isfinite(seconds) || seconds <= 0.0 || seconds > kMostSeconds)
    throw ArgumentError("measure_peaks: seconds is " + std::to_string(seconds) +
                        ", expected more than 0 and at most 60 for each rate");
  const Isa chosen = parse_isa(isa);
  MachinePeaks result;
  result.cpu = cpu_model_name();
  result.isa = isa_name(chosen);
  result.threads = resolve_threads(threads);
  const DevicePeaks peaks = measure_cpu_peaks(chosen, result.threads, seconds);
  for (const ComputeRate& rate : peaks.compute)
    result.compute.push_back({rate.dtype, rate.unit, rate.flops});
  for (const MemoryRate& rate : peaks.memory)
    result.memory.push_back(
        {rate.level, rate.capacity_bytes, rate.buffer_bytes, rate.read_bytes, rate.copy_bytes});
  result.disturbed = peaks.disturbed;
  return result;
}

double clock_hertz() { return clock_rate(); }

}  // namespace pycnn
