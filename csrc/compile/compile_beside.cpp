#include <algorithm>
#include <optional>

#include "pycnn/error.h"
#include "pycnn/program.h"

namespace pycnn {
namespace {

bool lacks(const Variables& variables, const std::string& name) {
  const auto found = variables.find(name);
  return found == variables.end() || !found->second.defined();
}

}  // namespace

Program compile_beside(const Graph& graph, Variables& variables, const CompileOptions& options,
                       const std::function<void(const std::function<void()>&)>& unlocked,
                       const Variables& own) {
  for (;;) {
    const Variables before = variables;
    Variables added = own;
    added.insert(before.begin(), before.end());
    std::optional<Program> program;
    unlocked([&] { program = compile(graph, added, options); });
    if (!program) throw ArgumentError("compile_beside: `unlocked` did not call its argument");
    std::erase_if(added, [&](const auto& entry) {
      return own.contains(entry.first) || !lacks(before, entry.first);
    });
    // A tensor that somebody else gave meanwhile is the one to share.
    if (!std::all_of(added.begin(), added.end(),
                     [&](const auto& entry) { return lacks(variables, entry.first); }))
      continue;
    for (const auto& [name, tensor] : added) variables.insert_or_assign(name, tensor);
    return *std::move(program);
  }
}

}  // namespace pycnn
