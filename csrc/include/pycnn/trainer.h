#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pycnn/checkpoint.h"
#include "pycnn/program.h"

/// \file
/// Training a classifier that a model holds, step by step: what a loop over batches calls. Other
/// losses and several inputs are recorded in a Graph and compiled with an Optimizer instead
/// (pycnn/program.h).
namespace pycnn {

/// How a Trainer trains.
struct TrainerOptions {
  /// The update after each step; unset: SGD with momentum 0.9. Its groups may set weight decay and
  /// rates of parameters; which are frozen follows from `trained` and `frozen` below.
  std::optional<Optimizer> optimizer;
  double learning_rate = 0.01;     ///< of the first step; at least 0, finite as a float
  double label_smoothing = 0.0;    ///< in [0, 1], see ops::SoftmaxCrossEntropy
  std::int64_t batch_size = 32;    ///< images in a step; others are accepted and compiled when met
  DType images = DType::kFloat32;  ///< kUInt8: bytes, which become value / 255
  /// Parameters to train, and buffers (running statistics of batch norms) to update: names, in
  /// which `*` stands for any text. A batch norm whose running mean is not among them uses its
  /// running statistics in training, too.
  std::vector<std::string> trained = {"*"};
  /// Exceptions from `trained`, written likewise.
  std::vector<std::string> frozen;
  std::uint64_t seed = 0;  ///< of dropout; below 2^63
  /// Go on from the training state that the model came with (momentum, averages, counters, the
  /// seed). Otherwise it is left out and training begins anew.
  bool resume = false;
  /// Device, threads, precision, recomputation, memory limit. `mode`, `loss` and `optimizer` are
  /// the trainer's own.
  CompileOptions compile;
};

/// What a step measured before its update.
struct StepResult {
  double loss = 0.0;         ///< mean over the batch, auxiliary heads included; NaN when diverged
  std::int64_t correct = 0;  ///< images whose class had the largest score
};

/// Trains a model by softmax cross-entropy on class labels; forward pass, gradients and update of
/// a step are one program.
///
/// Weights are shared, not copied: programs that were compiled from the same model see what each
/// step did. A Trainer is used by one thread at a time; a second one is refused (TrainingError).
class PYCNN_API Trainer {
 public:
  /// Compiles for `options.batch_size`, so that what does not fit is refused here.
  ///
  /// Throws ArgumentError for an option out of its range, a name in `trained` or `frozen` that
  /// fits nothing, several inputs or outputs of the network, `resume` without (all of) the state
  /// that the optimizer needs; ShapeError when the network does not give scores (N, classes);
  /// GraphError when nothing is left to train; and what `compile` throws.
  explicit Trainer(Model model, const TrainerOptions& options = {});
  ~Trainer();
  Trainer(Trainer&&) noexcept;             ///< The other may only be destroyed or assigned to.
  Trainer& operator=(Trainer&&) noexcept;  ///< The other may only be destroyed or assigned to.

  /// One update. `images` has labels.size() images of `image_spec()`, contiguous; it is only read.
  /// Throws ArgumentError when there are no labels or `images` is null, LabelError (position and
  /// value) for a label that is no class, TrainingError when another thread is in a step; nothing
  /// has changed then. A number of images not met before is compiled first: what `compile` throws.
  StepResult step(const void* images, std::span<const std::int64_t> labels);
  /// The same, checked: throws ShapeError or DTypeError also when `images` (N, H, W, C) is no
  /// batch for this network or N differs from labels.size().
  StepResult step(const Tensor& images, std::span<const std::int64_t> labels);

  /// Of the next step.
  double learning_rate() const;
  /// Takes effect from the next step on. Throws ArgumentError unless a finite float of at least 0.
  void set_learning_rate(double rate);
  /// Steps made so far, those before a resumed file was saved included.
  std::int64_t steps() const;
  /// Classes that the network tells apart.
  std::int64_t classes() const;
  /// One image as `step` expects it: (1, H, W, C).
  const TensorSpec& image_spec() const;

  /// The network with the weights under training, without training state: to compile for
  /// inference, or for `save_model` when training is done.
  const Model& model() const;
  /// Writes network, weights and training state, atomically; `resume` goes on from the file with
  /// the bits of an uninterrupted training. Throws FileError.
  void save(const std::string& path) const;
  /// The program of `batch_size`: its memory, kernels and warnings.
  const Program& program() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pycnn
