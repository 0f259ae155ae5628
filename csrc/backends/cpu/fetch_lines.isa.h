#pragma once
#include "backends/cpu/gemm.h"
#include "backends/cpu/simd.isa.h"

// Asking for the lines of what is read next, a share at each of many steps.
namespace pycnn::cpu::PYCNN_ISA {

constexpr Index kFetchedLine = 16;  // floats

struct Fetch {
  LineRuns runs;
  Index steps = 1, lines = 0;
  Index due = 0, at = 0;
};

PYCNN_INLINE Fetch make_fetch(const LineRuns& runs, Index steps) {
  return {runs, steps, runs.runs * ((runs.count + kFetchedLine - 1) / kFetchedLine)};
}

PYCNN_INLINE void step(Fetch& fetch) {
  for (fetch.due += fetch.lines; fetch.due >= fetch.steps; fetch.due -= fetch.steps) {
    __builtin_prefetch(fetch.runs.from + fetch.at, 0, 2);  // into L2: L1 is full of this tile's
    fetch.at += kFetchedLine;
    if (fetch.at >= fetch.runs.count) fetch.at = 0, fetch.runs.from += fetch.runs.pitch;
  }
}

}  // namespace pycnn::cpu::PYCNN_ISA
