// Loads a model file and classifies images, without Python.
//
//   classify MODEL.safetensors IMAGES.idx3-ubyte [COUNT]
//
// prints one line an image: its number, the class and its probability.
#include <pycnn/pycnn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "idx.h"

namespace {

void run(int argc, char** argv) {
  const IdxImages images = read_idx_images(argv[2]);
  const std::int64_t count =
      argc > 3 ? std::min<std::int64_t>(std::atoll(argv[3]), images.count) : images.count;

  pycnn::Model model = pycnn::load_model(argv[1]);
  // The file holds the shapes it was recorded with; these are inferred again for this batch.
  const pycnn::Graph graph = pycnn::with_batch(model.graph, count, pycnn::DType::kUInt8);
  const auto [input, recorded] = pycnn::image_input(graph);
  const pycnn::TensorSpec spec{{count, images.height, images.width, 1}, recorded.dtype};
  const pycnn::Program program =
      pycnn::compile(graph.with_inputs({{input, spec}}), model.variables);

  pycnn::Tensor batch(spec);
  std::copy_n(images.pixels.data(), batch.size(), batch.mutable_data<std::uint8_t>());

  const auto results = program.run({{input, batch}});
  const pycnn::Tensor& scores = results.at(program.outputs()[0].first);
  const std::int64_t classes = scores.shape().back();
  for (std::int64_t n = 0; n < count; ++n) {
    const float* row = scores.data<float>() + n * classes;
    const std::int64_t best = std::max_element(row, row + classes) - row;
    double sum = 0;
    for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(row[c] - row[best]);
    std::printf("%lld %lld %.4f\n", static_cast<long long>(n), static_cast<long long>(best),
                1.0 / sum);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors IMAGES.idx3-ubyte [COUNT]\n", argv[0]);
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "classify: %s\n", error.what());
    return 1;
  }
}
