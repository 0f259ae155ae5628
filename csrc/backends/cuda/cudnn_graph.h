#pragma once
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backends/cuda/conv2d.h"
#include "backends/cuda/cudnn_library.h"

// Convolutions as cuDNN's operation graphs, and the engines that can compute them. Here is nothing
// of CUDA: all of it runs without a GPU, for a device that is described instead.
namespace pycnn::cuda::cudnn {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A descriptor of the backend API. Calls throw Error; what a descriptor names must be finalized and
// is kept by the library.
class Descriptor {
 public:
  Descriptor(const Functions& functions, Kind kind);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&&) = delete;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  Object object() const noexcept { return object_; }
  Descriptor& set(Attribute attribute, Type type, std::int64_t count, const void* values);
  Descriptor& integers(Attribute attribute, const std::vector<std::int64_t>& values);
  Descriptor& number(Attribute attribute, Type type, int value);
  Descriptor& real(Attribute attribute, float value);
  Descriptor& objects(Attribute attribute, const std::vector<const Descriptor*>& values);
  Descriptor& pointer(Attribute attribute, Type type, void* value);
  Descriptor& text(Attribute attribute, const std::string& value);
  Descriptor& finalize();

  std::int64_t integer(Attribute attribute) const;
  std::vector<int> numbers(Attribute attribute, Type type) const;
  std::string text(Attribute attribute) const;
  // At most `most` descriptors of that kind.
  std::vector<Descriptor> objects(Attribute attribute, Kind kind, std::int64_t most) const;

 private:
  [[noreturn]] void fail(Status status, const char* call, int attribute) const;

  const Functions* functions_;
  Object object_ = nullptr;
};

// All tensors are of the image type, weights and their gradient too; sums are float32.
struct ConvProblem {
  Direction direction = Direction::kForward;
  Image image = Image::kFloat32;
  ConvShape shape{};
  int bottom = 0, right = 0;  // padding; top and left are in the shape
  // What joins the forward one: output = relu(sum + residual + bias). cuDNN has precompiled engines
  // where there is a bias.
  bool bias = false, residual = false, relu = false;
  // Sums over all pixels that are left of each channel, in float32: of a result's distances from a
  // center and of their squares, or of a gradient and of its products with the batch norm's input
  // less the mean. Engines that can are compiled at run time.
  MeasureKind measure = MeasureKind::kNothing;
  // Of such a gradient, which is finished before (with `residual`): it goes back through relu; and
  // for the sums alone through that of the batch norm.
  bool gate = false, norm_relu = false;
  bool signs = false;  // by the signs of its result (ConvEpilogue)
  // cuDNN is told that sums must not differ from run to run, which leaves fewer engines; where it
  // knows no such attribute there is no graph.
  bool repeatable = false;
};

// Names of tensors in a graph.
enum TensorId : std::int64_t {
  kInput = 1,
  kWeight = 2,
  kOutput = 3,
  kBias = 4,
  kResidual = 5,
  kGate = 6,
  kCenter = 7,  // or the mean
  kFirstSum = 8,
  kSecondSum = 9,
  kNormed = 10,
  kFactor = 11,
  kOffset = 12,
};

// For whom engines are looked for: the device of a handle, or one described in cuDNN's JSON.
struct Target {
  Handle handle = nullptr;
  const Descriptor* properties = nullptr;
};
// Throws Error when the description is not accepted.
Descriptor device_properties(const Functions& functions, const std::string& json);

struct EngineFacts {
  std::int64_t index = 0;
  std::vector<int> numerical_notes, behavior_notes;
  bool has(Value note) const;
  bool compiles() const;  // at run time, which takes seconds
};

struct EngineRules {
  bool tf32 = false;           // whether float32 may be rounded to TF32
  bool deterministic = false;  // also that nothing is compiled at run time
  bool winograd = true;        // whether fewer multiplications may round more
  bool compiler = true;        // whether there is one for what is compiled at run time
};
// Why an engine may not be used, or null. Results that differ from run to run never are; transforms
// that lose digits neither (Winograd's larger tiles, FFT, sums of reduced precision).
const char* unfit_engine(const EngineFacts& engine, Image image, const EngineRules& rules);

struct Candidate {
  Descriptor config;
  EngineFacts engine;
};

class ConvGraph {
 public:
  ConvGraph(const Functions& functions, const ConvProblem& problem, const Target& target);

  // Engine configurations that keep the rules, those that the library thinks best first.
  std::vector<Candidate> candidates(const EngineRules& rules) const;

 private:
  class Builder;
  std::vector<Candidate> ask(Value mode) const;

  const Functions& functions_;
  ConvProblem problem_;
  Target target_;
  std::deque<Descriptor> parts_;  // whose addresses stay
  Descriptor graph_;
};

// A plan that can be executed. Throws Error for a configuration that turns out not to work.
Descriptor make_plan(const Functions& functions, const Candidate& candidate, const Target& target);
// The plan of a text that `Descriptor::text(kPlanJson)` gave, by the same version for the same
// device.
Descriptor read_plan(const Functions& functions, const std::string& json, const Target& target);

}  // namespace pycnn::cuda::cudnn
