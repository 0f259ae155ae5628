#pragma once
#include "backends/cuda/column_kernels.h"
#include "backends/cuda/launch.h"

// Sums over the rows of matrices (groups, rows, channels), one for each group and channel, in an
// order that depends on the shape alone: a block adds chunks of rows, each lane every eighth of
// them, and leaves their sums in `partials` (group, chunk, sum, channel); then one block has a few
// channels and adds the chunks, in float64. Of a single chunk the first kernel's sums are all.
namespace pycnn::cuda {

inline std::int64_t column_scratch_bytes(const ColumnShape& shape, int sums) {
  return shape.groups * shape.chunks() * sums * shape.channels *
         static_cast<std::int64_t>(sizeof(float));
}

// `partials`: column_scratch_bytes(shape, Term::kSums).
template <class Term, class Finish>
void launch_column_sums(DeviceQueue& queue, const Term& term, const Finish& finish,
                        const ColumnShape& shape, float* partials) {
  const auto kernel = ColumnPartials<Term, Finish>::of(term, finish, shape, partials);
  launch(queue, kernel, kernel.blocks());
  if (shape.chunks() == 1) return;
  const ColumnTotals<Finish, Term::kSums> totals{finish, shape, partials};
  launch(queue, totals, totals.blocks());
}

}  // namespace pycnn::cuda
