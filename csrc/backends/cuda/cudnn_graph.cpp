#include "backends/cuda/cudnn_graph.h"

#include <algorithm>
#include <optional>

namespace pycnn::cuda::cudnn {
namespace {

constexpr std::int64_t kAlignment = 16;
constexpr std::int64_t kMostConfigs = 100, kMostNotes = 32;

int data_type(Image image) {
  if (image == Image::kFloat16) return kFloat16;
  return image == Image::kBFloat16 ? kBFloat16 : kFloat32;
}

// (N, C, H, W) that lies as (N, H, W, C), which is also how weights lie.
struct Extent {
  std::int64_t n, c, h, w;
};

// `pitch`: elements from pixel to pixel.
Descriptor tensor(const Functions& functions, std::int64_t id, const Extent& e, int type,
                  std::int64_t pitch, bool is_virtual = false) {
  Descriptor result(functions, kTensor);
  result.number(kTensorDataType, kTypeDataType, type)
      .integers(kTensorDimensions, {e.n, e.c, e.h, e.w})
      .integers(kTensorStrides, {e.h * e.w * pitch, 1, e.w * pitch, pitch})
      .integers(kTensorId, {id})
      .integers(kTensorAlignment, {kAlignment});
  if (is_virtual) {
    const bool yes = true;
    result.set(kTensorVirtual, kTypeBoolean, 1, &yes);
  }
  result.finalize();
  return result;
}

Descriptor tensor(const Functions& functions, std::int64_t id, const Extent& e, int type) {
  return tensor(functions, id, e, type, e.c);
}

Descriptor convolution(const Functions& functions, const ConvProblem& p) {
  const ConvShape& s = p.shape;
  Descriptor result(functions, kConvolution);
  result.number(kConvolutionComputeType, kTypeDataType, kFloat32)
      .number(kConvolutionMode, kTypeConvolutionMode, kCrossCorrelation)
      .integers(kConvolutionSpatialDims, {2})
      .integers(kConvolutionDilations, {s.dilation_y, s.dilation_x})
      .integers(kConvolutionStrides, {s.stride_y, s.stride_x})
      .integers(kConvolutionPrePaddings, {s.top, s.left})
      .integers(kConvolutionPostPaddings, {p.bottom, p.right})
      .finalize();
  return result;
}

// Alpha, beta, convolution, weight, input and output are numbered alike for all three.
Attribute first_attribute(Direction direction) {
  switch (direction) {
    case Direction::kForward:
      return kForwardAlpha;
    case Direction::kGradInput:
      return kGradInputAlpha;
    case Direction::kGradWeight:
      return kGradWeightAlpha;
  }
  return kForwardAlpha;
}

Kind operation_kind(Direction direction) {
  switch (direction) {
    case Direction::kForward:
      return kConvolutionForward;
    case Direction::kGradInput:
      return kConvolutionGradInput;
    case Direction::kGradWeight:
      return kConvolutionGradWeight;
  }
  return kConvolutionForward;
}

EngineFacts facts_of(const Descriptor& config) {
  const std::vector<Descriptor> engines = config.objects(kConfigEngine, kEngine, 1);
  if (engines.empty()) throw Error("cudnn: a configuration has no engine");
  EngineFacts facts;
  facts.index = engines[0].integer(kEngineIndex);
  facts.numerical_notes = engines[0].numbers(kEngineNumericalNotes, kTypeNumericalNote);
  facts.behavior_notes = engines[0].numbers(kEngineBehaviorNotes, kTypeBehaviorNote);
  return facts;
}

}  // namespace

Descriptor::Descriptor(const Functions& functions, Kind kind) : functions_(&functions) {
  const Status status = functions.cudnnBackendCreateDescriptor(kind, &object_);
  if (status != 0) fail(status, "cudnnBackendCreateDescriptor", kind);
}

Descriptor::~Descriptor() {
  if (object_ != nullptr) (void)functions_->cudnnBackendDestroyDescriptor(object_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept
    : functions_(other.functions_), object_(std::exchange(other.object_, nullptr)) {}

void Descriptor::fail(Status status, const char* call, int attribute) const {
  throw Error(std::string(call) + " (" + std::to_string(attribute) +
              "): " + functions_->cudnnGetErrorString(status));
}

Descriptor& Descriptor::set(Attribute attribute, Type type, std::int64_t count,
                            const void* values) {
  const Status status =
      functions_->cudnnBackendSetAttribute(object_, attribute, type, count, values);
  if (status != 0) fail(status, "cudnnBackendSetAttribute", attribute);
  return *this;
}

Descriptor& Descriptor::integers(Attribute attribute, const std::vector<std::int64_t>& values) {
  return set(attribute, kTypeInt64, static_cast<std::int64_t>(values.size()), values.data());
}

Descriptor& Descriptor::number(Attribute attribute, Type type, int value) {
  return set(attribute, type, 1, &value);
}

Descriptor& Descriptor::real(Attribute attribute, float value) {
  return set(attribute, kTypeFloat, 1, &value);
}

Descriptor& Descriptor::objects(Attribute attribute, const std::vector<const Descriptor*>& values) {
  std::vector<Object> list;
  for (const Descriptor* const value : values) list.push_back(value->object());
  return set(attribute, kTypeObject, static_cast<std::int64_t>(list.size()), list.data());
}

Descriptor& Descriptor::pointer(Attribute attribute, Type type, void* value) {
  return set(attribute, type, 1, &value);
}

Descriptor& Descriptor::text(Attribute attribute, const std::string& value) {
  return set(attribute, kTypeChar, static_cast<std::int64_t>(value.size() + 1), value.c_str());
}

Descriptor& Descriptor::finalize() {
  const Status status = functions_->cudnnBackendFinalize(object_);
  if (status != 0) fail(status, "cudnnBackendFinalize", 0);
  return *this;
}

std::int64_t Descriptor::integer(Attribute attribute) const {
  std::int64_t value = 0, count = 0;
  const Status status =
      functions_->cudnnBackendGetAttribute(object_, attribute, kTypeInt64, 1, &count, &value);
  if (status != 0) fail(status, "cudnnBackendGetAttribute", attribute);
  return value;
}

std::vector<int> Descriptor::numbers(Attribute attribute, Type type) const {
  std::vector<int> values(static_cast<std::size_t>(kMostNotes));
  std::int64_t count = 0;
  const Status status = functions_->cudnnBackendGetAttribute(object_, attribute, type, kMostNotes,
                                                             &count, values.data());
  if (status != 0) fail(status, "cudnnBackendGetAttribute", attribute);
  values.resize(static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, kMostNotes)));
  return values;
}

std::string Descriptor::text(Attribute attribute) const {
  std::int64_t count = 0;
  Status status =
      functions_->cudnnBackendGetAttribute(object_, attribute, kTypeChar, 0, &count, nullptr);
  if (status != 0) fail(status, "cudnnBackendGetAttribute", attribute);
  std::string value(static_cast<std::size_t>(count), '\0');
  status = functions_->cudnnBackendGetAttribute(object_, attribute, kTypeChar, count, &count,
                                                value.data());
  if (status != 0) fail(status, "cudnnBackendGetAttribute", attribute);
  value.resize(std::char_traits<char>::length(value.c_str()));
  return value;
}

std::vector<Descriptor> Descriptor::objects(Attribute attribute, Kind kind,
                                            std::int64_t most) const {
  std::vector<Descriptor> result;
  std::vector<Object> list;
  for (std::int64_t i = 0; i < most; ++i) {
    result.emplace_back(*functions_, kind);
    list.push_back(result.back().object());
  }
  std::int64_t count = 0;
  const Status status = functions_->cudnnBackendGetAttribute(object_, attribute, kTypeObject, most,
                                                             &count, list.data());
  if (status != 0) fail(status, "cudnnBackendGetAttribute", attribute);
  while (static_cast<std::int64_t>(result.size()) > count) result.pop_back();
  return result;
}

Descriptor device_properties(const Functions& functions, const std::string& json) {
  Descriptor properties(functions, kDeviceProperties);
  properties.text(kDevicePropertiesJson, json).finalize();
  return properties;
}

bool EngineFacts::has(Value note) const {
  return std::find(numerical_notes.begin(), numerical_notes.end(), note) != numerical_notes.end();
}

bool EngineFacts::compiles() const {
  return std::find(behavior_notes.begin(), behavior_notes.end(), kNoteRuntimeCompilation) !=
         behavior_notes.end();
}

const char* unfit_engine(const EngineFacts& engine, Image image, const EngineRules& rules) {
  if (engine.has(kNoteNondeterministic)) return "its results differ from run to run";
  if (engine.has(kNoteReducedPrecisionReduction)) return "it adds with reduced precision";
  if (engine.has(kNoteFft)) return "it works by Fourier transforms";
  if (engine.has(kNoteWinogradTile6) || engine.has(kNoteWinogradTile13))
    return "its Winograd tiles are large";
  if (!rules.winograd && engine.has(kNoteWinograd)) return "it multiplies less and rounds more";
  if (image == Image::kFloat32 && !rules.tf32 &&
      (engine.has(kNoteTensorCore) || engine.has(kNoteDownConvertInputs)))
    return "it rounds to TF32";
  if (rules.deterministic && engine.compiles()) return "it is compiled at run time";
  if (!rules.compiler && engine.compiles()) return "there is no compiler for it";
  return nullptr;
}

// Makes the operations of a graph, whose parts it keeps.
class ConvGraph::Builder {
 public:
  Builder(const Functions& functions, const ConvProblem& problem, std::deque<Descriptor>& parts)
      : functions_(functions), p_(problem), parts_(parts), type_(data_type(problem.image)) {}

  std::vector<const Descriptor*> operations() {
    const ConvShape& s = p_.shape;
    const Extent input{s.images, s.in_channels, s.height, s.width};
    const Extent output{s.images, s.out_channels, s.out_height, s.out_width};
    if (p_.direction != Direction::kForward) {
      const Descriptor* const made = keep(tensor(functions_, kOutput, output, type_));
      const bool finishes = p_.direction == Direction::kGradInput && (p_.residual || p_.gate);
      const Descriptor* result =
          keep(finishes ? between(input) : tensor(functions_, kInput, input, type_));
      convolve(result, made);
      if (p_.direction == Direction::kGradInput) {
        if (finishes) result = finished_gradient(result, input);
        if (p_.measure == MeasureKind::kSums) measure_gradient(result, input);
      }
      return operations_;
    }
    const bool joined = p_.bias || p_.residual || p_.relu;
    const auto last = [&] { return tensor(functions_, kOutput, output, type_, s.output_pitch()); };
    const Descriptor* result = keep(joined ? between(output) : last());
    convolve(keep(tensor(functions_, kInput, input, type_)), result);
    // The residual first: engines know the order sum, residual, bias, relu.
    int left = (p_.residual ? 1 : 0) + (p_.bias ? 1 : 0) + (p_.relu ? 1 : 0);
    const auto join = [&](Value mode, const Descriptor* with) {
      result = pointwise(mode, result, with, keep(--left == 0 ? last() : between(output)));
    };
    if (p_.residual) join(kAdd, keep(tensor(functions_, kResidual, output, type_)));
    if (p_.bias) join(kAdd, keep(tensor(functions_, kBias, {1, s.out_channels, 1, 1}, type_)));
    if (p_.relu) join(kRelu, nullptr);
    if (p_.measure == MeasureKind::kMoments) {
      const Descriptor* const distance =
          pointwise(kSubtract, result, vector(kCenter, output), keep(between(output)));
      add_up(distance, pointwise(kMultiply, distance, distance, keep(between(output))), output);
    }
    return operations_;
  }

 private:
  const Descriptor* keep(Descriptor part) {
    parts_.push_back(std::move(part));
    return &parts_.back();
  }
  // What no memory holds.
  Descriptor between(const Extent& e) {
    return tensor(functions_, next_id_++, e, kFloat32, e.c, true);
  }
  const Descriptor* vector(TensorId id, const Extent& e) {
    return keep(tensor(functions_, id, {1, e.c, 1, 1}, kFloat32));
  }

  void convolve(const Descriptor* input, const Descriptor* output) {
    const ConvShape& s = p_.shape;
    const Attribute first = first_attribute(p_.direction);
    const auto at = [&](int i) { return static_cast<Attribute>(first + i); };
    const Descriptor* const conv = keep(convolution(functions_, p_));
    const Descriptor* const weight =
        keep(tensor(functions_, kWeight,
                    {s.out_channels, s.in_group(), s.kernel_height, s.kernel_width}, type_));
    Descriptor operation(functions_, operation_kind(p_.direction));
    operation.real(at(0), 1.0f).real(at(1), 0.0f).objects(at(2), {conv});
    // Grad weight numbers (gradient of weight, input, output), the others (weight, input, output).
    operation.objects(at(3), {weight}).objects(at(4), {input}).objects(at(5), {output});
    operations_.push_back(keep(std::move(operation.finalize())));
  }

  const Descriptor* function(Value mode) {
    Descriptor pointwise(functions_, kPointwise);
    pointwise.number(kPointwiseMode, kTypePointwiseMode, mode)
        .number(kPointwisePrecision, kTypeDataType, kFloat32);
    // As our own relu: a training that diverged shall be seen.
    if (mode == kRelu) pointwise.number(kPointwiseNan, kTypeNanPropagation, kPropagateNan);
    return keep(std::move(pointwise.finalize()));
  }
  const Descriptor* pointwise(Value mode, const Descriptor* a, const Descriptor* b,
                              const Descriptor* result) {
    Descriptor operation(functions_, kPointwiseOperation);
    operation.objects(kPointwiseDescriptor, {function(mode)})
        .objects(kPointwiseX, {a})
        .objects(kPointwiseY, {result});
    if (b != nullptr) operation.objects(kPointwiseB, {b});
    operations_.push_back(keep(std::move(operation.finalize())));
    return result;
  }
  // What of a gradient comes back through the relu of `x`.
  const Descriptor* through_relu(const Descriptor* x, const Descriptor* gradient,
                                 const Descriptor* result) {
    Descriptor operation(functions_, kPointwiseOperation);
    operation.objects(kPointwiseDescriptor, {function(kReluGradient)})
        .objects(kPointwiseX, {x})
        .objects(kPointwiseGradY, {gradient})
        .objects(kPointwiseGradX, {result});
    operations_.push_back(keep(std::move(operation.finalize())));
    return result;
  }

  const Descriptor* finished_gradient(const Descriptor* sum, const Extent& e) {
    const auto last = [&] { return keep(tensor(functions_, kInput, e, type_)); };
    if (p_.residual)
      sum = pointwise(kAdd, sum, keep(tensor(functions_, kResidual, e, type_)),
                      p_.gate ? keep(between(e)) : last());
    if (p_.gate)
      sum = through_relu(keep(tensor(functions_, kGate, e, p_.signs ? kBoolean : type_)), sum,
                         last());
    return sum;
  }

  void measure_gradient(const Descriptor* gradient, const Extent& e) {
    const Descriptor* const normed = keep(tensor(functions_, kNormed, e, type_));
    const Descriptor* const distance =
        pointwise(kSubtract, normed, vector(kCenter, e), keep(between(e)));
    if (p_.norm_relu) {
      const Descriptor* const scaled =
          pointwise(kMultiply, distance, vector(kFactor, e), keep(between(e)));
      const Descriptor* const activated =
          pointwise(kAdd, scaled, vector(kOffset, e), keep(between(e)));
      gradient = through_relu(activated, gradient, keep(between(e)));
    }
    add_up(gradient, pointwise(kMultiply, gradient, distance, keep(between(e))), e);
  }

  void add_up(const Descriptor* first, const Descriptor* second, const Extent& e) {
    for (const auto& [values, id] : {std::pair{first, kFirstSum}, std::pair{second, kSecondSum}}) {
      Descriptor reduction(functions_, kReduction);
      reduction.number(kReductionOperator, kTypeReductionOperator, kReduceAdd)
          .number(kReductionComputeType, kTypeDataType, kFloat32);
      const bool yes = true;
      if (p_.repeatable) reduction.set(kReductionDeterministic, kTypeBoolean, 1, &yes);
      const Descriptor* const kind = keep(std::move(reduction.finalize()));
      Descriptor operation(functions_, kReductionOperation);
      operation.objects(kReductionX, {values})
          .objects(kReductionY, {vector(id, e)})
          .objects(kReductionDescriptor, {kind});
      operations_.push_back(keep(std::move(operation.finalize())));
    }
  }

  const Functions& functions_;
  const ConvProblem& p_;
  std::deque<Descriptor>& parts_;
  const int type_;
  std::int64_t next_id_ = 100;
  std::vector<const Descriptor*> operations_;
};

ConvGraph::ConvGraph(const Functions& functions, const ConvProblem& problem, const Target& target)
    : functions_(functions),
      problem_(problem),
      target_(target),
      graph_(functions, kOperationGraph) {
  const std::vector<const Descriptor*> operations =
      Builder(functions, problem_, parts_).operations();
  if (target.handle != nullptr) graph_.pointer(kGraphHandle, kTypeHandle, target.handle);
  graph_.objects(kGraphOperations, operations).finalize();
}

std::vector<Candidate> ConvGraph::ask(Value mode) const {
  Descriptor heuristics(functions_, kEngineHeuristics);
  heuristics.objects(kHeuristicsGraph, {&graph_}).number(kHeuristicsMode, kTypeHeuristicMode, mode);
  if (target_.properties != nullptr)
    heuristics.objects(kHeuristicsDeviceProperties, {target_.properties});
  heuristics.finalize();
  std::vector<Candidate> result;
  for (Descriptor& config : heuristics.objects(kHeuristicsResults, kEngineConfig, kMostConfigs)) {
    EngineFacts facts = facts_of(config);
    result.push_back({std::move(config), std::move(facts)});
  }
  return result;
}

std::vector<Candidate> ConvGraph::candidates(const EngineRules& rules) const {
  std::vector<Candidate> result;
  // A mode that fails leaves the other one, unless that fails, too.
  std::optional<Error> failure;
  bool answered = false;
  for (const Value mode : {kHeuristicsModeA, kHeuristicsFallback}) {
    std::vector<Candidate> asked;
    try {
      asked = ask(mode);
      answered = true;
    } catch (const Error& error) {
      if (!failure) failure = error;
    }
    for (Candidate& candidate : asked)
      if (unfit_engine(candidate.engine, problem_.image, rules) == nullptr)
        result.push_back(std::move(candidate));
  }
  if (!answered) throw Error(*failure);
  return result;
}

namespace {
void set_target(Descriptor& plan, const Target& target) {
  if (target.handle != nullptr) plan.pointer(kPlanHandle, kTypeHandle, target.handle);
  if (target.properties != nullptr) plan.objects(kPlanDeviceProperties, {target.properties});
}
}  // namespace

Descriptor make_plan(const Functions& functions, const Candidate& candidate, const Target& target) {
  Descriptor plan(functions, kExecutionPlan);
  set_target(plan, target);
  plan.objects(kPlanConfig, {&candidate.config}).finalize();
  return plan;
}

Descriptor read_plan(const Functions& functions, const std::string& json, const Target& target) {
  Descriptor plan(functions, kExecutionPlan);
  set_target(plan, target);
  plan.text(kPlanJson, json).finalize();
  return plan;
}

}  // namespace pycnn::cuda::cudnn
