// Puts a fresh head on a model that Python exported and trains it, and nothing else, on other
// classes.
//
//   finetune_head MODEL IMAGES.idx3-ubyte LABELS.idx1-ubyte CLASSES EPOCHS OUT.safetensors
//
// Labels from CLASSES on are left out, so that files of more classes serve as well. Prints loss and
// accuracy of every epoch and writes a file that `classify` and Python's pycnn.load read.
#include <pycnn/pycnn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>

#include "idx.h"

namespace {

constexpr std::int64_t kBatch = 32;

void run(char** argv) {
  const IdxImages images = read_idx_images(argv[2]);
  const std::vector<std::uint8_t> labels = read_idx_labels(argv[3]);
  const std::int64_t classes = std::atoll(argv[4]), epochs = std::atoll(argv[5]);
  if (static_cast<std::size_t>(images.count) != labels.size())
    throw std::runtime_error("expected as many images as labels");

  const pycnn::Model model = pycnn::replace_head(pycnn::load_model(argv[1]), classes, /*seed=*/0);
  pycnn::TrainerOptions options;
  options.trained = pycnn::head_names(model);  // all else stays, batch norms' statistics included
  options.learning_rate = 0.05;
  options.batch_size = kBatch;
  options.images = pycnn::DType::kUInt8;
  pycnn::Trainer trainer(model, options);
  const pycnn::Shape& image = trainer.image_spec().shape;
  if (image != pycnn::Shape{1, images.height, images.width, 1})
    throw std::runtime_error("the model wants images of " + pycnn::to_string(image));

  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < classes) order.push_back(i);
  const auto bytes = static_cast<std::size_t>(images.height * images.width);
  std::mt19937 shuffler(0);
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> targets;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    std::shuffle(order.begin(), order.end(), shuffler);
    double loss = 0;
    std::int64_t correct = 0;
    for (std::size_t begin = 0; begin < order.size(); begin += kBatch) {
      const std::size_t end = std::min(begin + kBatch, order.size());
      pixels.clear();
      targets.clear();
      for (std::size_t i = begin; i < end; ++i) {
        const std::uint8_t* from = images.pixels.data() + order[i] * bytes;
        pixels.insert(pixels.end(), from, from + bytes);
        targets.push_back(labels[order[i]]);
      }
      const pycnn::StepResult result = trainer.step(pixels.data(), targets);
      loss += result.loss * static_cast<double>(targets.size());
      correct += result.correct;
    }
    const auto count = static_cast<double>(order.size());
    std::printf("epoch %lld loss %.4f accuracy %.4f\n", static_cast<long long>(epoch + 1),
                loss / count, static_cast<double>(correct) / count);
  }
  pycnn::save_model(argv[6], trainer.model());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: %s MODEL IMAGES LABELS CLASSES EPOCHS OUT\n", argv[0]);
    return 2;
  }
  try {
    run(argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "finetune_head: %s\n", error.what());
    return 1;
  }
}
