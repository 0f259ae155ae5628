// Tells what is on photographs, by a model file.
//
//   classify_photo MODEL.safetensors PHOTO...
//
// prints one line a photo: the file, the class (its name, where the model knows names) and its
// probability. Reads JPEG where libjpeg was found, and PPM and PGM always.
#include <pycnn/pycnn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "photo.h"

namespace {

void run(int argc, char** argv) {
  pycnn::Model model = pycnn::load_model(argv[1]);
  const std::vector<std::string> names = pycnn::class_names(model);
  // Bytes, one photo at a time.
  const pycnn::Graph graph = pycnn::with_batch(model.graph, 1, pycnn::DType::kUInt8);
  const auto [input, spec] = pycnn::image_input(graph);
  if (spec.shape.size() != 4)
    throw std::runtime_error("the model's input is no image (N, H, W, C)");
  const pycnn::Program program = pycnn::compile(graph, model.variables);

  pycnn::Tensor image(spec);
  for (int i = 2; i < argc; ++i) {
    const std::vector<std::uint8_t> pixels =
        fit_photo(read_photo(argv[i]), spec.shape[1], spec.shape[2], spec.shape[3]);
    std::memcpy(image.mutable_raw(), pixels.data(), pixels.size());
    const auto results = program.run({{input, image}});
    const pycnn::Tensor& scores = results.at(program.outputs()[0].first);
    const float* row = scores.data<float>();
    const std::int64_t best = std::max_element(row, row + scores.size()) - row;
    double sum = 0;
    for (std::int64_t c = 0; c < scores.size(); ++c) sum += std::exp(row[c] - row[best]);
    const auto place = static_cast<std::size_t>(best);
    const std::string name = place < names.size() ? names[place] : std::to_string(best);
    std::printf("%s: %s %.4f\n", argv[i], name.c_str(), 1.0 / sum);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.safetensors PHOTO...\n", argv[0]);
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "classify_photo: %s\n", error.what());
    return 1;
  }
}
