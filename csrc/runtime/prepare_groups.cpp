#include "runtime/prepare_groups.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace pycnn {
namespace {

// Bytes of what is prepared that a step reads or writes.
struct Touched {
  std::size_t begin, end, step;
};

std::size_t end_of(const Operand& operand) {
  const Shape& shape = operand.spec.shape;
  std::size_t bytes = byte_size(operand.spec);
  if (operand.pixel_pitch != 0 && bytes > 0) {
    const std::size_t pixel =
        static_cast<std::size_t>(shape.back()) * item_bytes(operand.spec.dtype);
    bytes = (bytes / pixel - 1) * static_cast<std::size_t>(operand.pixel_pitch) *
                item_bytes(operand.spec.dtype) +
            pixel;
  }
  return operand.place.offset + bytes;
}

}  // namespace

std::vector<PrepareGroup> prepare_groups(const ProgramPlan& plan) {
  const std::vector<Step>& steps = plan.prepare;
  std::vector<std::size_t> root(steps.size());
  std::iota(root.begin(), root.end(), std::size_t{0});
  const auto root_of = [&](std::size_t step) {
    while (root[step] != step) step = root[step] = root[root[step]];
    return step;
  };
  std::vector<Touched> touched;
  for (std::size_t i = 0; i < steps.size(); ++i)
    for (const std::vector<Operand>* operands : {&steps[i].inputs, &steps[i].outputs})
      for (const Operand& operand : *operands)
        if (operand.place.space == Place::Space::kPrepared)
          touched.push_back({operand.place.offset, end_of(operand), i});
  std::sort(touched.begin(), touched.end(),
            [](const Touched& a, const Touched& b) { return a.begin < b.begin; });
  for (std::size_t i = 0, reach = 0; i < touched.size(); ++i) {
    if (i > 0 && touched[i].begin < reach)
      root[root_of(touched[i].step)] = root_of(touched[i - 1].step);
    reach = std::max(reach, touched[i].end);
  }

  std::map<int, std::size_t> place_of;  // in prepare_reads, by variable
  for (std::size_t i = 0; i < plan.prepare_reads.size(); ++i) place_of[plan.prepare_reads[i]] = i;
  std::vector<PrepareGroup> groups;
  std::map<std::size_t, std::size_t> group_of;  // by root
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const auto [known, is_new] = group_of.try_emplace(root_of(i), groups.size());
    if (is_new) groups.emplace_back();
    PrepareGroup& group = groups[known->second];
    group.steps.push_back(i);
    for (const Operand& operand : steps[i].inputs) {
      if (operand.place.space != Place::Space::kVariable) continue;
      const std::size_t read = place_of.at(operand.place.index);
      if (std::find(group.reads.begin(), group.reads.end(), read) == group.reads.end())
        group.reads.push_back(read);
    }
  }
  return groups;
}

}  // namespace pycnn
