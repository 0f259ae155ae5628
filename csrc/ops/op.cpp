#include <algorithm>
#include <iterator>
#include <memory>
#include <string_view>
#include <type_traits>

#include "ops/checks.h"
#include "ops/error_text.h"
#include "ops/roles.h"
#include "pycnn/ops.h"

namespace pycnn {
namespace {

struct ActivationEntry {
  ActivationKind kind;
  const char* name;
};
constexpr ActivationEntry kActivations[] = {
    {ActivationKind::kIdentity, "identity"},
    {ActivationKind::kRelu, "relu"},
    {ActivationKind::kRelu6, "relu6"},
    {ActivationKind::kLeakyRelu, "leaky_relu"},
    {ActivationKind::kSigmoid, "sigmoid"},
    {ActivationKind::kTanh, "tanh"},
    {ActivationKind::kScaledTanh, "scaled_tanh"},
};

struct ReductionEntry {
  Reduction kind;
  const char* name;
};
constexpr ReductionEntry kReductions[] = {
    {Reduction::kSum, "sum"}, {Reduction::kMean, "mean"}, {Reduction::kMax, "max"}};

struct UnaryEntry {
  UnaryKind kind;
  const char* name;
};
constexpr UnaryEntry kUnaries[] = {{UnaryKind::kAbs, "abs"},
                                   {UnaryKind::kCelu, "celu"},
                                   {UnaryKind::kClip, "clip"},
                                   {UnaryKind::kElu, "elu"},
                                   {UnaryKind::kErf, "erf"},
                                   {UnaryKind::kExp, "exp"},
                                   {UnaryKind::kGelu, "gelu"},
                                   {UnaryKind::kGeluTanh, "gelu_tanh"},
                                   {UnaryKind::kHardSigmoid, "hard_sigmoid"},
                                   {UnaryKind::kHardSwish, "hard_swish"},
                                   {UnaryKind::kLog, "log"},
                                   {UnaryKind::kMish, "mish"},
                                   {UnaryKind::kPower, "power"},
                                   {UnaryKind::kReciprocal, "reciprocal"},
                                   {UnaryKind::kReciprocalSqrt, "reciprocal_sqrt"},
                                   {UnaryKind::kSelu, "selu"},
                                   {UnaryKind::kSilu, "silu"},
                                   {UnaryKind::kSoftplus, "softplus"},
                                   {UnaryKind::kSoftsign, "softsign"},
                                   {UnaryKind::kSqrt, "sqrt"},
                                   {UnaryKind::kThreshold, "threshold"}};

struct BinaryEntry {
  BinaryKind kind;
  const char* name;
};
constexpr BinaryEntry kBinaries[] = {
    {BinaryKind::kDivide, "divide"},   {BinaryKind::kMaximum, "maximum"},
    {BinaryKind::kMinimum, "minimum"}, {BinaryKind::kPower, "power"},
    {BinaryKind::kPrelu, "prelu"},     {BinaryKind::kPreluSlope, "prelu_slope"},
    {BinaryKind::kEqual, "equal"},     {BinaryKind::kStep, "step"}};

struct ResizeModeEntry {
  ResizeMode kind;
  const char* name;
};
constexpr ResizeModeEntry kResizeModes[] = {{ResizeMode::kBilinear, "bilinear"},
                                            {ResizeMode::kNearestFloor, "nearest_floor"},
                                            {ResizeMode::kNearestCeil, "nearest_ceil"},
                                            {ResizeMode::kNearestRoundDown, "nearest_round_down"},
                                            {ResizeMode::kNearestRoundUp, "nearest_round_up"}};

struct ResizeGridEntry {
  ResizeGrid kind;
  const char* name;
};
constexpr ResizeGridEntry kResizeGrids[] = {{ResizeGrid::kHalfPixel, "half_pixel"},
                                            {ResizeGrid::kPytorchHalfPixel, "pytorch_half_pixel"},
                                            {ResizeGrid::kAsymmetric, "asymmetric"},
                                            {ResizeGrid::kAlignCorners, "align_corners"}};

struct ReluRuleEntry {
  ReluRule kind;
  const char* name;
};
constexpr ReluRuleEntry kReluRules[] = {{ReluRule::kExact, "exact"},
                                        {ReluRule::kGuided, "guided"},
                                        {ReluRule::kDeconvnet, "deconvnet"}};

template <class Table, class Kind>
const char* name_in(const Table& table, Kind kind) {
  for (const auto& entry : table) {
    if (entry.kind == kind) return entry.name;
  }
  return "unknown";
}

template <class Table>
auto parse_in(const Table& table, const char* what, std::string_view name) {
  std::string known;
  for (const auto& entry : table) {
    if (name == entry.name) return entry.kind;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  // A name may come from a file: a sane one is short.
  ops::fail<ArgumentError>(what, " '", name.substr(0, 64), "' is unknown\n  known: ", known);
}

// The inputs stand between the first line of an error and its hints.
std::string with_inputs(const Op& op, Specs inputs, const std::string& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  return text.substr(0, end) + ops::describe_inputs(op, inputs) + text.substr(end);
}

template <class OpType>
void append(std::vector<Op>& all) {
  all.emplace_back(OpType{});
}

template <class... OpTypes>
std::vector<Op> one_of_each(const std::variant<OpTypes...>*) {
  std::vector<Op> all;
  (append<OpTypes>(all), ...);
  return all;
}

}  // namespace

Op::Op() = default;
Op::Op(const Op& other) = default;
Op::Op(Op&& other) noexcept = default;
Op::~Op() = default;

// By copying and moving, which cannot throw: the variant's own assignments would be compiled for
// every op once more.
Op& Op::operator=(const Op& other) { return *this = Op(other); }

static_assert(std::is_nothrow_move_constructible_v<AnyOp>);

Op& Op::operator=(Op&& other) noexcept {
  if (this != &other) {
    std::destroy_at(this);
    std::construct_at(this, std::move(other));
  }
  return *this;
}

const std::vector<Op>& each_op() {
  static const std::vector<Op> all = one_of_each(static_cast<const AnyOp*>(nullptr));
  return all;
}

const char* op_name(const Op& op) {
  return std::visit([](const auto& o) { return std::remove_cvref_t<decltype(o)>::kName; }, op);
}

std::vector<TensorSpec> infer(const Op& op, Specs inputs) {
  return ops::with_error_text(
      [&] {
        for (const TensorSpec& spec : inputs) ops::expect_valid(spec, "input");
        auto outputs = std::visit([&](const auto& o) { return o.infer(inputs); }, op);
        for (const TensorSpec& spec : outputs) ops::expect_valid(spec, "output");
        return outputs;
      },
      [&](const std::string& text) { return with_inputs(op, inputs, text); });
}

const char* activation_name(ActivationKind kind) { return name_in(kActivations, kind); }

ActivationKind parse_activation(std::string_view name) {
  return parse_in(kActivations, "activation", name);
}

const char* reduction_name(Reduction kind) { return name_in(kReductions, kind); }

Reduction parse_reduction(std::string_view name) {
  return parse_in(kReductions, "reduction", name);
}

const char* unary_name(UnaryKind kind) { return name_in(kUnaries, kind); }
UnaryKind parse_unary(std::string_view name) { return parse_in(kUnaries, "kind", name); }

const char* binary_name(BinaryKind kind) { return name_in(kBinaries, kind); }
BinaryKind parse_binary(std::string_view name) { return parse_in(kBinaries, "kind", name); }

const char* resize_mode_name(ResizeMode mode) { return name_in(kResizeModes, mode); }
ResizeMode parse_resize_mode(std::string_view name) { return parse_in(kResizeModes, "mode", name); }

const char* resize_grid_name(ResizeGrid grid) { return name_in(kResizeGrids, grid); }
ResizeGrid parse_resize_grid(std::string_view name) { return parse_in(kResizeGrids, "grid", name); }

const char* relu_rule_name(ReluRule rule) { return name_in(kReluRules, rule); }

ReluRule parse_relu_rule(std::string_view name) { return parse_in(kReluRules, "relu_rule", name); }

}  // namespace pycnn
