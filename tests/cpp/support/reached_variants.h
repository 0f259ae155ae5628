#pragma once
#include <set>
#include <string>

// What keeps "tested by existing" true: a harness skips the variants that refuse its shapes, so one
// that refuses all of them would pass untested. Every harness with forbidden pages around its
// buffers notes the variant that it ran; variants_main.cpp compares them with all there are.
namespace pycnn::testing {

inline std::set<std::string>& reached_variants() {
  static std::set<std::string> names;
  return names;
}

// Ends of the names that an executable is to reach: ".amx" where that is done in software
// (software_tile_units.cpp), all elsewhere.
const char* variants_looked_at();

inline void note_reached(const char* variant) { reached_variants().emplace(variant); }

}  // namespace pycnn::testing
