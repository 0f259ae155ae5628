#include "backends/cuda/cudnn_graph.h"

#include <algorithm>

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

ConvGraph::ConvGraph(const Functions& functions, const ConvProblem& problem, const Target& target)
    : functions_(functions),
      problem_(problem),
      target_(target),
      graph_(functions, kOperationGraph) {
  const ConvShape& s = problem.shape;
  const int type = data_type(problem.image);
  const Extent output{s.images, s.out_channels, s.out_height, s.out_width};
  const bool joined = problem.bias || problem.residual || problem.relu;
  std::vector<const Descriptor*> operations;
  parts_.reserve(32);  // addresses of parts are kept
  const auto keep = [&](Descriptor part) {
    parts_.push_back(std::move(part));
    return &parts_.back();
  };

  std::int64_t next_id = 100;
  const auto intermediate = [&](bool last) {
    return keep(last ? tensor(functions, kOutput, output, type, s.output_pitch())
                     : tensor(functions, next_id++, output, kFloat32, output.c, true));
  };
  const Descriptor* result = intermediate(!joined);
  {
    const Attribute first = first_attribute(problem.direction);
    const auto at = [&](int i) { return static_cast<Attribute>(first + i); };
    const Descriptor* const conv = keep(convolution(functions, problem));
    const Descriptor* const weight = keep(tensor(
        functions, kWeight, {s.out_channels, s.in_group(), s.kernel_height, s.kernel_width}, type));
    const Descriptor* const input =
        keep(tensor(functions, kInput, {s.images, s.in_channels, s.height, s.width}, type));
    Descriptor operation(functions, operation_kind(problem.direction));
    operation.real(at(0), 1.0f).real(at(1), 0.0f).objects(at(2), {conv});
    // Grad weight numbers (gradient of weight, input, output), the others (weight, input, output).
    operation.objects(at(3), {weight}).objects(at(4), {input}).objects(at(5), {result});
    operations.push_back(keep(std::move(operation.finalize())));
  }
  // The residual first: engines know the order sum, residual, bias, relu.
  int left = (problem.residual ? 1 : 0) + (problem.bias ? 1 : 0) + (problem.relu ? 1 : 0);
  const auto join = [&](Value mode, const Descriptor* with) {
    const Descriptor* const output_tensor = intermediate(--left == 0);
    Descriptor pointwise(functions, kPointwise);
    pointwise.number(kPointwiseMode, kTypePointwiseMode, mode)
        .number(kPointwisePrecision, kTypeDataType, kFloat32);
    // As our own relu: a training that diverged shall be seen.
    if (mode == kRelu) pointwise.number(kPointwiseNan, kTypeNanPropagation, kPropagateNan);
    const Descriptor* const function = keep(std::move(pointwise.finalize()));
    Descriptor operation(functions, kPointwiseOperation);
    operation.objects(kPointwiseDescriptor, {function})
        .objects(kPointwiseX, {result})
        .objects(kPointwiseY, {output_tensor});
    if (with != nullptr) operation.objects(kPointwiseB, {with});
    operations.push_back(keep(std::move(operation.finalize())));
    result = output_tensor;
  };
  if (problem.residual) join(kAdd, keep(tensor(functions, kResidual, output, type)));
  if (problem.bias) join(kAdd, keep(tensor(functions, kBias, {1, s.out_channels, 1, 1}, type)));
  if (problem.relu) join(kRelu, nullptr);

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
  for (const Value mode : {kHeuristicsModeA, kHeuristicsFallback})
    for (Candidate& candidate : ask(mode))
      if (unfit_engine(candidate.engine, problem_.image, rules) == nullptr)
        result.push_back(std::move(candidate));
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
