#include "backends/cuda_environment.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr std::string_view kPrefix = "PYCNN_CUDA_";

struct Variable {
  std::string_view name;  // behind the prefix
  std::vector<std::string_view>
      words;  // that it may be; none: anything, or checked where it is used
};

const std::vector<Variable>& variables() {
  static const auto* const list = new std::vector<Variable>{
      {"CHOOSE_SECONDS", {}},
      {"DETERMINISTIC", {"0", "1"}},
      {"LANES", {}},
      {"MODULE", {}},
      {"PLANS", {}},
      {"REWRITES", {"off", "always", "own"}},
      {"TEST_MODULE", {}},
      {"TF32", {"0", "1"}},
      {"TILE", {"large", "medium", "small"}},
  };
  return *list;
}

std::string quoted(std::string_view text) { return "'" + std::string(text.substr(0, 64)) + "'"; }

bool is_seconds(const std::string& text) {
  char* end = nullptr;
  const double seconds = std::strtod(text.c_str(), &end);
  return *end == '\0' && std::isfinite(seconds) && seconds >= 0.0;
}

void check(const std::string& who, std::string_view name, std::string_view value) {
  const auto found = std::find_if(variables().begin(), variables().end(),
                                  [&](const Variable& v) { return v.name == name; });
  if (found == variables().end()) {
    std::string known;
    for (const Variable& variable : variables())
      if (variable.name != "TEST_MODULE")
        known += (known.empty() ? "" : ", ") + std::string(kPrefix) + std::string(variable.name);
    throw ArgumentError(who + ": there is no variable " + std::string(kPrefix) +
                        std::string(name.substr(0, 64)) + ", only " + known);
  }
  if (name == "CHOOSE_SECONDS" && !value.empty() && !is_seconds(std::string(value)))
    throw ArgumentError(who + ": " + std::string(kPrefix) + std::string(name) + " is " +
                        quoted(value) + ", expected a number of seconds, 0 or more");
  const std::vector<std::string_view>& words = found->words;
  if (value.empty() || words.empty()) return;
  if (std::find(words.begin(), words.end(), value) != words.end()) return;
  std::string allowed;
  for (std::size_t i = 0; i < words.size(); ++i)
    allowed += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + quoted(words[i]);
  throw ArgumentError(who + ": " + std::string(kPrefix) + std::string(name) + " is " +
                      quoted(value) + ", expected " + allowed);
}

}  // namespace

void check_cuda_environment(const std::string& who) {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::size_t equals = text.find('=');
    if (!text.starts_with(kPrefix) || equals == std::string_view::npos) continue;
    check(who, text.substr(kPrefix.size(), equals - kPrefix.size()), text.substr(equals + 1));
  }
}

}  // namespace pycnn
