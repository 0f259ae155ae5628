// Concats and slices as places instead of copies.
//
// What a concat joins becomes a part of its result: pixels that lie apart when channels (the last
// axis) are joined, one piece of memory when nothing but the joined axis and those behind it is
// left (images of a batch; rows of one image). What a slice takes is read likewise where it is.
// Kernels that make or read parts of the first form must be able to (Kernel::strided_inputs), and
// parts of both forms lie as theirs want it (Kernel::alignment); where that is not so, or the value
// has another place already (an output, a part of another concat), its copy stays.
#include <algorithm>
#include <map>
#include <tuple>

#include "compile/passes.h"

namespace pycnn {
namespace {

enum class Form { kNone, kPixels, kPiece };

// Of tensors that differ from `shape` along `axis` alone.
Form form_of(const Shape& shape, std::size_t axis) {
  bool first = true;
  for (std::size_t i = 0; i < axis; ++i) first = first && shape[i] == 1;
  if (first) return Form::kPiece;
  return axis + 1 == shape.size() ? Form::kPixels : Form::kNone;
}

// Elements of one step along the axis.
std::int64_t step_of(const Shape& shape, std::size_t axis) {
  std::int64_t count = 1;
  for (std::size_t i = axis + 1; i < shape.size(); ++i) count *= shape[i];
  return count;
}

class Joiner {
 public:
  explicit Joiner(Schedule& schedule) : schedule_(schedule), facts_(schedule.values.size()) {}

  void run() {
    find_facts();
    // Forwards and backwards: a concat of concats is looked at after these, a slice of a slice
    // before its source.
    const std::size_t first = static_cast<std::size_t>(schedule_.label_steps);
    for (std::size_t i = first; i < schedule_.run.size(); ++i)
      if (std::holds_alternative<ops::Concat>(step(i).op)) join(i);
    for (std::size_t i = schedule_.run.size(); i-- > first;)
      if (std::holds_alternative<ops::Slice>(step(i).op)) take(i);
    find_places();
    drop_steps();
  }

 private:
  struct Use {
    std::size_t step;
    std::size_t input;
    int value;  // itself, or an alias
  };
  // Of a value that is no alias.
  struct Facts {
    int maker = -1;
    std::uint32_t output = 0;  // of the maker
    std::vector<Use> uses;
    bool fixed = false;         // it has a place of its own
    bool joined = false;        // its makers make its parts
    bool holds_pieces = false;  // so its pixels must follow one another
    std::size_t alignment = 1;  // that kernels want of its address, those of its parts included
    Form form = Form::kNone;    // of a part in its whole
    std::int64_t pitch = 0;     // and from pixel to pixel there, if no larger whole holds both
  };
  struct PartOf {
    int whole;
    std::int64_t begin;
    Form form;
    std::int64_t pitch;
  };

  ScheduleStep& step(std::size_t i) { return schedule_.run[i]; }
  ScheduleValue& value(int v) { return schedule_.values[static_cast<std::size_t>(v)]; }
  Facts& facts(int v) { return facts_[static_cast<std::size_t>(v)]; }
  int root_of(int v) const {
    while (schedule_.value(v).alias_of >= 0) v = schedule_.value(v).alias_of;
    return v;
  }

  void find_facts() {
    for (std::size_t v = 0; v < facts_.size(); ++v) {
      const ScheduleValue& known = schedule_.values[v];
      facts_[v].fixed = known.kind != ScheduleValue::Kind::kResult || known.prepared ||
                        !is_floating(known.spec.dtype);
    }
    for (const auto& [name, v] : schedule_.outputs) facts(root_of(v)).fixed = true;
    for (const auto& [variable, v] : schedule_.assignments) facts(root_of(v)).fixed = true;
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      const std::size_t alignment = step(i).kernel.alignment;
      for (std::size_t k = 0; k < step(i).inputs.size(); ++k) {
        Facts& read = facts(root_of(step(i).inputs[k]));
        read.uses.push_back({i, k, step(i).inputs[k]});
        read.alignment = std::max(read.alignment, alignment);
      }
      for (std::size_t k = 0; k < step(i).outputs.size(); ++k) {
        Facts& made = facts(step(i).outputs[k]);
        made.maker = static_cast<int>(i);
        made.output = static_cast<std::uint32_t>(k);
        made.alignment = std::max(made.alignment, alignment);
      }
    }
  }

  static bool has(std::uint32_t bits, std::size_t i) { return i < 32 && (bits >> i & 1u) != 0; }

  // Whether all who read the value could do so with its pixels apart; `but` is not asked.
  bool readers_stride(int v, std::size_t but) {
    const Shape& shape = value(v).spec.shape;
    return std::all_of(facts(v).uses.begin(), facts(v).uses.end(), [&](const Use& use) {
      if (use.step == but) return true;
      const Shape& seen = value(use.value).spec.shape;
      return !seen.empty() && seen.back() == shape.back() &&
             has(step(use.step).kernel.strided_inputs, use.input);
    });
  }

  // The only pitch that the maker's kernel knows; 0: any.
  std::int64_t maker_pitch(int v) {
    const Facts& known = facts(v);
    return known.maker >= 0 && known.output == 0
               ? step(static_cast<std::size_t>(known.maker)).kernel.output_pitch
               : 0;
  }

  bool maker_strides(int v, std::int64_t pitch) {
    const Facts& known = facts(v);
    if (known.joined) return true;
    const std::int64_t only = maker_pitch(v);
    return known.maker >= 0 && (only == 0 || only == pitch) &&
           has(step(static_cast<std::size_t>(known.maker)).kernel.strided_outputs, known.output);
  }

  // Whether the value would lie as kernels want it, beginning with an element of `whole`.
  bool is_aligned(int v, int whole, std::int64_t begin) {
    const std::size_t wanted = facts(v).alignment, item = item_bytes(value(v).spec.dtype);
    const auto fits = [&](std::int64_t elements) {
      return static_cast<std::size_t>(elements) * item % wanted == 0;
    };
    for (; value(whole).part_of >= 0; whole = value(whole).part_of)
      if (!fits(value(whole).part_begin)) return false;
    return fits(begin);
  }

  // ---- Concats

  bool can_join(int v, const PartOf& part, std::size_t concat) {
    return value(v).alias_of < 0 && value(v).part_of < 0 && !facts(v).fixed &&
           element_count(value(v).spec.shape) > 0 && is_aligned(v, part.whole, part.begin) &&
           (part.form == Form::kPiece ||
            (!facts(v).holds_pieces && maker_strides(v, part.pitch) && readers_stride(v, concat)));
  }

  void join(std::size_t index) {
    ScheduleStep& concat = step(index);
    const int whole = concat.outputs[0];
    const Shape shape = value(whole).spec.shape;  // copied: there will be more values
    if (!has(concat.kernel.strided_outputs, 0) || value(whole).prepared ||
        !is_floating(value(whole).spec.dtype))
      return;
    const std::int64_t named = std::get<ops::Concat>(concat.op).axis;
    const auto rank = static_cast<std::int64_t>(shape.size());
    const auto axis = static_cast<std::size_t>(named < 0 ? named + rank : named);
    const Form form = form_of(shape, axis);
    if (form == Form::kNone) return;
    if (same_as_before(index, axis)) return;
    std::int64_t at = 0;
    std::vector<std::pair<int, std::int64_t>> copied;  // input, where it begins
    bool any = false;
    for (const int input : concat.inputs) {
      const PartOf part{whole, at, form, shape.back()};
      if (can_join(input, part, index)) {
        make_part(input, part);
        any = true;
      } else if (element_count(value(input).spec.shape) > 0) {
        copied.emplace_back(input, at);
      }
      at += value(input).spec.shape[axis] * step_of(shape, axis);
    }
    if (!any) return;
    facts(whole).joined = true;
    joined_[firsts_of(concat.inputs)].emplace_back(whole, axis);
    std::vector<ScheduleStep>& copies = instead_[index];
    for (const auto& [input, begin] : copied)
      copies.push_back(copy(concat, input, {whole, begin, form, shape.back()}));
  }

  // The concat of what was joined already, computed again so that it need not be kept: it lives as
  // long as its parts do.
  bool same_as_before(std::size_t index, std::size_t axis) {
    const int again = step(index).outputs[0];
    const std::vector<int> inputs = step(index).inputs, firsts = firsts_of(inputs);
    const auto found = joined_.find(firsts);
    if (found == joined_.end() || facts(again).fixed) return false;
    for (const auto& [whole, joined_axis] : found->second) {
      if (joined_axis != axis || strided(whole) || !is_aligned(again, whole, 0)) continue;
      make_part(again, {whole, 0, Form::kPiece, 0});
      instead_[index];  // nothing
      for (std::size_t i = 0; i < inputs.size(); ++i) take_again(inputs[i], firsts[i], index);
      return true;
    }
    return false;
  }

  // The values, but of slices that are computed again the first ones.
  std::vector<int> firsts_of(std::vector<int> values) {
    for (int& v : values) {
      if (facts(v).maker < 0) continue;
      const ScheduleStep& maker = step(static_cast<std::size_t>(facts(v).maker));
      if (const auto* slice = std::get_if<ops::Slice>(&maker.op))
        v = slices_.try_emplace({maker.inputs[0], slice->begin, slice->size}, v).first->second;
    }
    return values;
  }

  // A slice computed again is where the first one is, a part of what a concat joined.
  void take_again(int v, int first, std::size_t concat) {
    if (v == first || value(first).part_of < 0) return;
    const PartOf part{value(first).part_of, value(first).part_begin, facts(first).form,
                      facts(first).pitch};
    if (!can_join(v, part, concat)) return;
    make_part(v, part);
    instead_[static_cast<std::size_t>(facts(v).maker)];  // nothing
  }

  void make_part(int v, const PartOf& part) {
    value(v).part_of = part.whole;
    value(v).part_begin = part.begin;
    facts(v).form = part.form;
    facts(v).pitch = part.pitch;
    if (part.form == Form::kPiece || maker_pitch(v) != 0) facts(part.whole).holds_pieces = true;
    for (int whole = part.whole; whole >= 0; whole = value(whole).part_of)
      facts(whole).alignment = std::max(facts(whole).alignment, facts(v).alignment);
  }

  // The concat of one input, into its part.
  ScheduleStep copy(const ScheduleStep& concat, int input, const PartOf& part) {
    ScheduleValue joined;
    joined.spec = value(input).spec;
    const int made = schedule_.add_value(std::move(joined));
    facts_.emplace_back();
    make_part(made, part);
    ScheduleStep result = concat;
    result.inputs = {input};
    result.outputs = {made};
    result.input_specs = {value(input).spec};
    return result;
  }

  // ---- Slices

  void take(std::size_t index) {
    const ScheduleStep& slice = step(index);
    const int part = slice.outputs[0], seen = slice.inputs[0], source = root_of(seen);
    const Shape &from = value(seen).spec.shape, &to = value(part).spec.shape;
    if (!has(slice.kernel.strided_inputs, 0) || facts(part).fixed || value(part).part_of >= 0 ||
        element_count(to) == 0 || value(source).prepared ||
        value(source).kind == ScheduleValue::Kind::kVariable)
      return;
    std::size_t axis = 0, cut = 0;
    for (std::size_t i = 0; i < to.size(); ++i)
      if (to[i] != from[i]) axis = i, ++cut;
    if (cut != 1) return;
    const Form form = form_of(from, axis);
    if (form == Form::kNone) return;
    if (strided(source) && (form == Form::kPiece || from.back() != value(source).spec.shape.back()))
      return;
    if (form == Form::kPixels && (facts(part).holds_pieces || !readers_stride(part, index))) return;
    if (!worth_holding(source, part)) return;
    const std::int64_t begin = std::get<ops::Slice>(slice.op).begin[axis] * step_of(from, axis);
    if (!is_aligned(part, source, begin)) return;
    make_part(part, {source, begin, form, from.back()});
    instead_[index];  // nothing
  }

  // Whether a value's pixels are apart, as far as is known before all places are.
  bool strided(int v) {
    for (; value(v).part_of >= 0; v = value(v).part_of)
      if (facts(v).form == Form::kPixels) return true;
    return false;
  }

  // A part keeps all of its source in memory. Fine if that is needed as long anyway, or if its
  // parts are most of it.
  bool worth_holding(int source, int part) {
    if (value(source).kind == ScheduleValue::Kind::kInput) return true;
    std::int64_t sliced = 0;
    std::size_t last = 0, needed = 0;
    for (const Use& use : facts(source).uses) {
      last = std::max(last, use.step);
      if (std::holds_alternative<ops::Slice>(step(use.step).op))
        sliced += element_count(value(step(use.step).outputs[0]).spec.shape);
    }
    for (const Use& use : facts(part).uses) needed = std::max(needed, use.step);
    return needed <= last || 2 * sliced >= element_count(value(source).spec.shape);
  }

  // ---- Places

  // Parts of parts become parts of the outermost, which may come behind them.
  void find_places() {
    struct PartPlace {
      int value, whole;
      std::int64_t begin, pitch;
    };
    std::vector<PartPlace> places;
    for (std::size_t i = 0; i < schedule_.values.size(); ++i) {
      const int v = static_cast<int>(i);
      if (value(v).part_of < 0) continue;
      std::int64_t begin = 0, pitch = 0;
      int whole = v;
      bool apart = true;  // as long as all parts on the way are
      for (; value(whole).part_of >= 0; whole = value(whole).part_of) {
        begin += value(whole).part_begin;
        apart = apart && facts(whole).form == Form::kPixels;
        if (apart) pitch = facts(whole).pitch;
      }
      places.push_back({v, whole, begin, pitch});
    }
    for (const PartPlace& place : places) {
      value(place.value).part_of = place.whole;
      value(place.value).part_begin = place.begin;
      value(place.value).pixel_pitch = place.pitch;
      name_kernel(place.value);
    }
  }

  // Another one may run where results lie apart.
  void name_kernel(int v) {
    if (value(v).pixel_pitch == 0 || facts(v).maker < 0 || facts(v).output != 0) return;
    Kernel& kernel = step(static_cast<std::size_t>(facts(v).maker)).kernel;
    if (kernel.apart_variant != nullptr) kernel.variant = kernel.apart_variant;
  }

  void drop_steps() {
    std::vector<ScheduleStep> kept;
    kept.reserve(schedule_.run.size());
    for (std::size_t i = 0; i < schedule_.run.size(); ++i) {
      const auto found = instead_.find(i);
      if (found == instead_.end()) {
        kept.push_back(std::move(schedule_.run[i]));
        continue;
      }
      for (ScheduleStep& copy : found->second) kept.push_back(std::move(copy));
    }
    schedule_.run = std::move(kept);
  }

  Schedule& schedule_;
  std::vector<Facts> facts_;                                                     // by value
  std::map<std::vector<int>, std::vector<std::pair<int, std::size_t>>> joined_;  // by inputs
  // By what was cut, where and how much.
  std::map<std::tuple<int, std::vector<std::int64_t>, std::vector<std::int64_t>>, int> slices_;
  std::map<std::size_t, std::vector<ScheduleStep>> instead_;  // of a step that goes
};

}  // namespace

void join_parts(Schedule& schedule) { Joiner(schedule).run(); }

}  // namespace pycnn
