#pragma once
#include <cstddef>
#include <string>
#include <vector>

#include "core/cpu_features.h"

// Highest rates that plain loops reach on a device, with the threads and instruction set that a
// program would use: the bounds that a kernel's time is held against.
namespace pycnn {

struct ComputeRate {
  std::string dtype;  // "float32", "bfloat16"
  std::string unit;   // "avx2", "avx512_bf16", "amx_bf16"
  double flops = 0;   // a second; a multiply-add counts as two
};

struct MemoryRate {
  std::string level;               // "L1", "L2", "L3", "memory"
  std::size_t capacity_bytes = 0;  // of all caches of the threads; 0 for memory
  std::size_t buffer_bytes = 0;    // what was read over and over
  double read_bytes = 0;           // a second
  double copy_bytes = 0;           // a second, read and written ones together
};

struct DevicePeaks {
  std::vector<ComputeRate> compute;
  std::vector<MemoryRate> memory;  // nearest first
  bool disturbed = false;          // others used the processors all the time of some measurement
};

// `seconds` for each rate, some times as long on a busy machine. Of many tries the fastest counts,
// so that others who use the machine now and then do not lower it.
DevicePeaks measure_cpu_peaks(Isa isa, int threads, double seconds);

}  // namespace pycnn
