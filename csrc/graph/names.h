#pragma once
#include <string>
#include <string_view>
#include <vector>

// Names of nodes and outputs: what is allowed, and which one was meant.
namespace pycnn {

inline constexpr std::size_t kMaxNameBytes = 1024;

// Null when the name may be used, else what is wrong with it.
const char* name_fault(std::string_view name);

// Fit to stand in a message: cut to a sane length, odd bytes replaced.
std::string printable(std::string_view text);

// Up to three of `names` that differ least from `wanted`, closest first: "'conv1', 'conv2'". Empty
// when none is near.
std::string closest_names(std::string_view wanted, const std::vector<std::string_view>& names);

}  // namespace pycnn
