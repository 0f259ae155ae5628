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
  // The file holds the shapes it was recorded with; infer them again for this batch.
  const pycnn::Node* input = nullptr;
  for (const pycnn::Node& node : model.graph.nodes())
    if (node.kind == pycnn::NodeKind::kInput) input = &node;
  if (input == nullptr) throw pycnn::FormatError("the model has no input");
  const pycnn::TensorSpec spec{{count, images.height, images.width, 1}, input->outputs[0].dtype};
  const pycnn::Program program =
      pycnn::compile(model.graph.with_inputs({{input->name, spec}}), model.variables);

  pycnn::Tensor batch(spec);
  const std::int64_t values = batch.size();
  if (spec.dtype == pycnn::DType::kUInt8) {
    std::copy_n(images.pixels.data(), values, batch.mutable_data<std::uint8_t>());
  } else {
    float* to = batch.mutable_data<float>();
    for (std::int64_t i = 0; i < values; ++i) to[i] = static_cast<float>(images.pixels[i]) / 255.0f;
  }

  const auto results = program.run({{input->name, batch}});
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
