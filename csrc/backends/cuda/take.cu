#include "backends/cuda/divider.h"
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
  WideDivider items;  // words of a row
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    std::int64_t item = at;
    const std::int64_t row = indices[items.split(item)];
    output[at] = row < 0 ? Word{} : input[row * items.divisor + item];
  }
};

// A thread has a vector of a row.
template <int Width>
struct RowSums {
  static constexpr int kWidth = 1;
  const float* grad_output;
  const std::int64_t* first;
  const std::int64_t* place;
  float* grad_input;
  WideDivider vectors;  // of a row
  PYCNN_BOTH void operator()(std::int64_t at, int) const {
    std::int64_t vector = at;
    const std::int64_t row = vectors.split(vector), items = vectors.divisor * Width;
    float sum[Width] = {};
    for (std::int64_t k = first[row]; k < first[row + 1]; ++k) {
      float g[Width];
      load(grad_output + place[k] * items + vector * Width, Width, g);
      PYCNN_UNROLL
      for (int i = 0; i < Width; ++i) sum[i] += g[i];
    }
    store(grad_input + at * Width, Width, sum);
  }
};

template <class Word>
void take_words(DeviceQueue& queue, const void* input, const std::int64_t* indices, void* output,
                std::int64_t places, std::int64_t items) {
  if (items == 0) return;
  launch_map(queue,
             Rows<Word>{static_cast<const Word*>(input), indices, static_cast<Word*>(output),
                        WideDivider(items)},
             places * items);
}

template <int Width>
void sum_rows(DeviceQueue& queue, const float* grad_output, const std::int64_t* first,
              const std::int64_t* place, float* grad_input, std::int64_t rows, std::int64_t items) {
  if (items == 0) return;
  launch_map(queue,
             RowSums<Width>{grad_output, first, place, grad_input, WideDivider(items / Width)},
             rows * items / Width);
}

}  // namespace

void take(DeviceQueue& queue, int item_bytes, const void* input, const std::int64_t* indices,
          void* output, std::int64_t places, std::int64_t items) {
  // Rows of whole vectors are copied by these.
  const std::int64_t row_bytes = items * item_bytes;
  if (row_bytes % kVectorBytes == 0 && is_at_vector(input) && is_at_vector(output))
    return take_words<Pack<std::uint32_t, 4>>(queue, input, indices, output, places,
                                              row_bytes / kVectorBytes);
  with_word(item_bytes, [&](auto word) {
    take_words<decltype(word)>(queue, input, indices, output, places, items);
  });
}

void take_grad(DeviceQueue& queue, const float* grad_output, const std::int64_t* first,
               const std::int64_t* place, float* grad_input, std::int64_t rows,
               std::int64_t items) {
  constexpr int kWidth = kVector<float>;
  if (items % kWidth == 0)
    sum_rows<kWidth>(queue, grad_output, first, place, grad_input, rows, items);
  else
    sum_rows<1>(queue, grad_output, first, place, grad_input, rows, items);
}

}  // namespace pycnn::cuda
