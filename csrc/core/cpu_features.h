#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pycnn/export.h"

namespace pycnn {

// Instruction sets that kernels are compiled for, in ascending order. kBaseline is what the library
// itself needs (x86-64-v2, or plain generic code where there is no x86).
enum class Isa : std::uint8_t { kBaseline, kAvx2, kAvx512 };

PYCNN_API const char* isa_name(Isa isa) noexcept;  // "baseline" "avx2" "avx512"

// Best set that this CPU and operating system offer and this build contains, capped by
// PYCNN_MAX_ISA (read on every call; an unknown value throws ArgumentError naming it and the
// accepted ones).
PYCNN_API Isa best_isa();

// What `isa=` of a compile call means: "auto" is best_isa(). Throws ArgumentError for an unknown
// name and DeviceError for a set that this machine, this build or PYCNN_MAX_ISA does not have.
PYCNN_API Isa parse_isa(std::string_view name);

// Whether a core multiplies vectors of 512 bits in halves (AMD's family 25, Zen 4): half as fast as
// others do, beside caches that are no slower.
PYCNN_API bool multiplies_512_bits_in_halves() noexcept;

// Every input to the thread count and the choice, for `pycnn doctor`. 0 means "says nothing".
struct ThreadChoice {
  int pycnn_num_threads = 0;
  int omp_num_threads = 0;
  int affinity = 0;
  int cgroup_quota = 0;
  int physical_cores = 0;
  int chosen = 1;
  std::string reason;                 // "cgroup quota", ...
  std::vector<std::string> warnings;  // variables that hold no count, and so say nothing
};
PYCNN_API ThreadChoice thread_choice();

// What `threads=` of a compile call means: 0 is thread_choice().chosen; a count goes before the
// environment and the number of cores. More than affinity and quota allow, or than 1024, is clamped
// with a warning; PYCNN_OVERSUBSCRIBE=1 lifts the former. Negative: ArgumentError. `warnings` gets
// those of the choice, too.
PYCNN_API int resolve_threads(std::int64_t requested, std::vector<std::string>* warnings = nullptr);

// "AMD EPYC 9xxx", "unknown".
PYCNN_API std::string cpu_model_name();

}  // namespace pycnn
