#include "graph/names.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "core/json.h"

namespace pycnn {
namespace {

constexpr std::size_t kShown = 64;
constexpr std::size_t kMaxCompared = 64;  // bytes of a name
constexpr std::size_t kMaxCandidates = 4096;
constexpr std::size_t kSuggestions = 3;

bool is_control(unsigned char byte) { return byte < 0x20 || byte == 0x7F; }

// Edits that turn one name into the other (Levenshtein).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (const char c : a) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = diagonal + (c != b[j] ? 1 : 0);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

const char* name_fault(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kMaxNameBytes) return "is longer than 1024 bytes";
  for (std::size_t i = 0; i < name.size();) {
    const auto byte = static_cast<unsigned char>(name[i]);
    if (is_control(byte)) return "holds a control character";
    if (byte == '"') return "holds a quote";
    if (byte == '\\') return "holds a backslash";
    const std::size_t length = utf8_length(name.substr(i));
    if (length == 0) return "is not valid UTF-8";
    i += length;
  }
  return nullptr;
}

std::string printable(std::string_view text) {
  std::string result;
  std::size_t i = 0;
  while (i < text.size() && result.size() < kShown) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0 || is_control(static_cast<unsigned char>(text[i]))) {
      result += '?';
      ++i;
    } else {
      result += text.substr(i, length);
      i += length;
    }
  }
  return i < text.size() ? result + "..." : result;
}

std::string closest_names(std::string_view wanted, const std::vector<std::string_view>& names) {
  wanted = wanted.substr(0, kMaxCompared);
  const std::size_t limit = std::max<std::size_t>(2, wanted.size() / 3);
  std::vector<std::pair<std::size_t, std::string_view>> near;
  for (std::size_t i = 0; i < std::min(names.size(), kMaxCandidates); ++i) {
    const std::string_view name = names[i];
    // A missing or superfluous prefix or suffix is a small mistake, however long it is.
    const bool part = wanted.size() >= 3 && name.size() <= kMaxCompared &&
                      (name.find(wanted) != std::string_view::npos ||
                       (name.size() >= 3 && wanted.find(name) != std::string_view::npos));
    const std::size_t edits = distance(wanted, name.substr(0, kMaxCompared));
    if (edits <= limit) {
      near.emplace_back(edits, name);
    } else if (part) {
      near.emplace_back(limit + edits, name);
    }
  }
  std::stable_sort(near.begin(), near.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text;
  for (std::size_t i = 0; i < std::min(near.size(), kSuggestions); ++i) {
    text += (i > 0 ? ", '" : "'") + std::string(near[i].second) + "'";
  }
  return text;
}

}  // namespace pycnn
