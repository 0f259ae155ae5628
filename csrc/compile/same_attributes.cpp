#include "compile/same_attributes.h"

#include <type_traits>
#include <vector>

namespace pycnn {

bool same_attributes(const Op& a, const Op& b) {
  if (a.index() != b.index()) return false;
  return std::visit(
      [&](const auto& first) {
        using OpType = std::decay_t<decltype(first)>;
        std::vector<const void*> fields;
        OpType::fields(first, [&](const char*, const auto& field) { fields.push_back(&field); });
        bool same = true;
        std::size_t next = 0;
        OpType::fields(std::get<OpType>(b), [&](const char*, const auto& field) {
          using Field = std::decay_t<decltype(field)>;
          same = same && *static_cast<const Field*>(fields[next++]) == field;
        });
        return same;
      },
      a);
}

}  // namespace pycnn
