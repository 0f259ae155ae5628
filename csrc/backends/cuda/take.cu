#include "backends/cuda/map.h"
#include "backends/cuda/take.h"

namespace pycnn::cuda {
namespace {

template <class Word>
struct Rows {
  static constexpr int kWidth = 1;
  const Word* input;
  const std::int64_t* indices;
  Word* output;
  std::int64_t items;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t row = indices[at / items];
    output[at] = row < 0 ? Word{0} : input[row * items + at % items];
  }
};

struct RowSums {
  static constexpr int kWidth = 1;
  const float* grad_output;
  const std::int64_t* first;
  const std::int64_t* place;
  float* grad_input;
  std::int64_t items;
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    const std::int64_t row = at / items;
    float sum = 0.0f;
    for (std::int64_t k = first[row]; k < first[row + 1]; ++k)
      sum += grad_output[place[k] * items + at % items];
    grad_input[at] = sum;
  }
};

}  // namespace

void take(DeviceQueue& queue, int item_bytes, const void* input, const std::int64_t* indices,
          void* output, std::int64_t places, std::int64_t items) {
  with_word(item_bytes, [&](auto word) {
    using Word = decltype(word);
    launch_map(
        queue,
        Rows<Word>{static_cast<const Word*>(input), indices, static_cast<Word*>(output), items},
        places * items);
  });
}

void take_grad(DeviceQueue& queue, const float* grad_output, const std::int64_t* first,
               const std::int64_t* place, float* grad_input, std::int64_t rows,
               std::int64_t items) {
  launch_map(queue, RowSums{grad_output, first, place, grad_input, items}, rows * items);
}

}  // namespace pycnn::cuda
