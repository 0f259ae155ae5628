// Reads the text form of a graph (graph/text.h), line by line and without recursion.
#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "graph/names.h"
#include "graph/text.h"
#include "ops/checks.h"
#include "pycnn/graph.h"

namespace pycnn {
namespace {

// The rest of one line.
class Cursor {
 public:
  Cursor(std::string_view line, std::size_t number) : line_(line), number_(number) {}

  std::size_t column() const { return at_ + 1; }
  std::size_t number() const { return number_; }
  bool done() const { return at_ == line_.size(); }
  std::string_view rest() const { return line_.substr(at_); }

  [[noreturn]] void fail_at(std::size_t column, const std::string& what) const {
    throw FormatError(ops::cat("graph text, line ", number_, ", column ", column, ": ", what));
  }
  [[noreturn]] void fail(const std::string& what) const { fail_at(column(), what); }
  [[noreturn]] void expected(const std::string& what) const {
    fail("expected " + what + ", found " +
         (done() ? std::string("the end of the line") : "'" + printable(rest()) + "'"));
  }

  bool accept(std::string_view text) {
    if (!rest().starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) expected(ops::cat("'", text, "'"));
  }
  void expect_end() const {
    if (!done()) expected("the end of the line");
  }

  // Letters, digits and underscores.
  std::string_view word(const char* what) {
    const auto in_word = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
    };
    const std::string_view text = rest();
    std::size_t length = 0;
    while (length < text.size() && in_word(text[length])) ++length;
    if (length == 0) expected(what);
    at_ += length;
    return text.substr(0, length);
  }

  std::string name() {
    const std::size_t start = column();
    expect("\"");
    const std::size_t length = rest().find('"');
    if (length == std::string_view::npos) fail_at(start, "the name has no closing quote");
    std::string text(rest().substr(0, length));
    at_ += length + 1;
    if (const char* const fault = name_fault(text)) {
      fail_at(start, "the name '" + printable(text) + "' " + fault);
    }
    return text;
  }

  template <class Number>
  Number number_of(const char* what) {
    Number value{};
    const std::string_view text = rest();
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    if (result.ec == std::errc::result_out_of_range) {
      fail(ops::cat("'", printable(text.substr(0, 40)), "' is out of range"));
    }
    if (result.ec != std::errc()) expected(what);
    at_ += static_cast<std::size_t>(result.ptr - text.data());
    return value;
  }

 private:
  std::string_view line_;
  std::size_t number_;
  std::size_t at_ = 0;
};

// ---- Values of fields

void read(Cursor& in, std::int64_t& value) { value = in.number_of<std::int64_t>("an integer"); }
void read(Cursor& in, double& value) { value = in.number_of<double>("a number"); }
void read(Cursor& in, bool& value) {
  value = in.accept("true");
  if (!value && !in.accept("false")) in.expected("true or false");
}

// Words of a closed set, looked up by a function that throws for any other.
template <class Value, class Parse>
void read_word(Cursor& in, Value& value, const char* what, Parse parse) {
  const std::size_t start = in.column();
  const std::string_view word = in.word(what);
  try {
    value = parse(word);
  } catch (const Error&) {
    in.fail_at(start, ops::cat("expected ", what, ", found '", printable(word), "'"));
  }
}
void read(Cursor& in, DType& value) { read_word(in, value, "a dtype", parse_dtype); }
void read(Cursor& in, ActivationKind& value) {
  read_word(in, value, "an activation", parse_activation);
}
void read(Cursor& in, Reduction& value) {
  read_word(in, value, "sum, mean or max", parse_reduction);
}
void read(Cursor& in, UnaryKind& value) { read_word(in, value, "a function", parse_unary); }
void read(Cursor& in, BinaryKind& value) { read_word(in, value, "a function", parse_binary); }
void read(Cursor& in, ResizeMode& value) { read_word(in, value, "a mode", parse_resize_mode); }
void read(Cursor& in, ResizeGrid& value) { read_word(in, value, "a grid", parse_resize_grid); }

template <class... Values>
void read_tuple(Cursor& in, Values&... values) {
  in.expect("(");
  bool first = true;
  const auto one = [&](auto& value) {
    if (!first) in.expect(", ");
    first = false;
    read(in, value);
  };
  (one(values), ...);
  in.expect(")");
}
void read(Cursor& in, Pair& value) { read_tuple(in, value[0], value[1]); }
void read(Cursor& in, Padding& value) {
  read_tuple(in, value.top, value.bottom, value.left, value.right);
}
void read(Cursor& in, Epilogue& value) {
  in.expect("(");
  read(in, value.residual);
  in.expect(", ");
  read(in, value.activation);
  in.expect(", ");
  read(in, value.slope);
  value.moments = in.accept(", moments");
  value.signs = in.accept(", signs");
  in.expect(")");
}
void read(Cursor& in, NormSums& value) {
  read_tuple(in, value.activation, value.slope);
  value.wanted = true;
}
void read(Cursor& in, GradientEpilogue& value) {
  in.expect("(");
  read(in, value.residual);
  in.expect(", ");
  read(in, value.relu);
  value.signs = in.accept(", signs");
  in.expect(")");
}

template <class Value>
void read(Cursor& in, std::vector<Value>& values) {
  values.clear();
  in.expect("(");
  if (in.accept(")")) return;
  do {
    Value value{};
    read(in, value);
    values.push_back(value);
  } while (in.accept(", "));
  in.expect(")");
}

void read(Cursor& in, TensorSpec& spec) {
  read(in, spec.dtype);
  read(in, spec.shape);
}

// Called with every field of an op.
struct FieldReader {
  Cursor& in;
  bool first = true;

  template <class Value>
  void operator()(const char* key, Value& value) {
    if constexpr (std::is_same_v<Value, NormSums> || std::is_same_v<Value, GradientEpilogue>) {
      // Never the first field of an op; not printed where it is not wanted.
      if (in.accept(ops::cat(", ", key, "="))) read(in, value);
      return;
    }
    in.expect(first ? " {" : ", ");
    in.expect(ops::cat(key, "="));
    read(in, value);
    first = false;
  }
};

// ---- Ops by name

std::map<std::string_view, const Op*> ops_by_name() {
  std::map<std::string_view, const Op*> result;
  for (const Op& op : each_op()) result[op_name(op)] = &op;
  return result;
}

Op read_op(Cursor& in) {
  static const auto known = ops_by_name();
  const std::size_t start = in.column();
  const std::string_view word = in.word("the name of an op");
  const auto found = known.find(word);
  if (found == known.end()) {
    std::vector<std::string_view> names;
    for (const auto& entry : known) names.push_back(entry.first);
    const std::string closest = closest_names(word, names);
    in.fail_at(start, ops::cat("there is no op '", printable(word), "'",
                               closest.empty() ? "" : "\n  hint: the closest are " + closest));
  }
  return *found->second;
}

// ---- Lines

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Graph parse() {
    header();
    while (next_line()) statement();
    expect_canonical();
    return std::move(graph_);
  }

 private:
  // Moves `line_` to the next one; false at the end of the text.
  bool next_line() {
    if (offset_ == text_.size()) return false;
    const std::string_view rest = text_.substr(offset_);
    const std::size_t length = std::min(rest.find('\n'), rest.size());
    line_ = Cursor(rest.substr(0, std::min(length, kMaxLineBytes)), ++number_);
    if (length > kMaxLineBytes) {
      line_.fail_at(kMaxLineBytes + 1,
                    ops::cat("the line is longer than ", kMaxLineBytes, " bytes"));
    }
    if (length == rest.size()) {
      line_.fail_at(length + 1, "the text ends within a line; it may be cut off");
    }
    offset_ += length + 1;
    return true;
  }

  void header() {
    if (text_.empty()) line_.fail("the text is empty");
    (void)next_line();
    if (!line_.accept("pycnn.graph ")) line_.expected("'pycnn.graph'");
    const auto version = line_.number_of<std::int64_t>("a version");
    if (version != kTextVersion) {
      line_.fail(ops::cat("the text is of version ", version, ", this library reads version ",
                          kTextVersion));
    }
    line_.expect_end();
  }

  void statement() {
    if (line_.rest().starts_with("\"")) {
      operation();
    } else if (line_.accept("input ")) {
      leaf([&](auto name, auto spec) { return graph_.input(name, spec); });
    } else if (line_.accept("parameter ")) {
      leaf([&](auto name, auto spec) {
        const auto layout =
            line_.accept(" layout=conv") ? ParameterLayout::kConvWeight : ParameterLayout::kPlain;
        return graph_.parameter(name, spec, {}, layout);
      });
    } else if (line_.accept("buffer ")) {
      leaf([&](auto name, auto spec) { return graph_.buffer(name, spec); });
    } else if (line_.accept("output ")) {
      output();
    } else if (line_.accept("assign ")) {
      assignment();
    } else {
      line_.expected("input, parameter, buffer, output, assign or a quoted name");
    }
    line_.expect_end();
  }

  // Runs what may refuse the line's contents, and says where they stand.
  template <class Body>
  auto checked(Body body) -> decltype(body()) {
    try {
      return body();
    } catch (const FormatError&) {
      throw;
    } catch (const Error& error) {
      line_.fail_at(1, error.what());
    }
  }

  std::string new_name() {
    const std::size_t start = line_.column();
    std::string name = line_.name();
    if (graph_.contains(name)) {
      line_.fail_at(start, ops::cat("the name '", printable(name), "' is taken"));
    }
    if (graph_.nodes().size() >= kMaxTextNodes) {
      line_.fail_at(start, ops::cat("more than ", kMaxTextNodes, " nodes"));
    }
    if (!graph_.outputs().empty() || !graph_.assignments().empty()) {
      line_.fail_at(start, "a node after the outputs and assignments");
    }
    return name;
  }

  Symbol symbol() {
    const std::size_t start = line_.column();
    const std::string name = line_.name();
    if (!graph_.contains(name)) {
      line_.fail_at(start, ops::cat("no earlier node is called '", printable(name), "'"));
    }
    Symbol value = graph_.find(name);
    if (line_.accept(":")) {
      value.output = line_.number_of<int>("the number of an output");
      const auto count = static_cast<int>(graph_.node(value).outputs.size());
      if (value.output < 1 || value.output >= count) {
        line_.fail_at(start, ops::cat("'", printable(name), "' has no output ", value.output,
                                      " (it has ", count, ", and 0 is not written)"));
      }
    }
    return value;
  }

  template <class Add>
  void leaf(Add add) {
    const std::string name = new_name();
    line_.expect(" = ");
    TensorSpec spec;
    read(line_, spec);
    checked([&] { return add(name, spec); });
  }

  void operation() {
    const std::string name = new_name();
    line_.expect(" = ");
    Op op = read_op(line_);
    line_.expect("(");
    std::vector<Symbol> inputs;
    if (!line_.accept(")")) {
      do inputs.push_back(symbol());
      while (line_.accept(", "));
      line_.expect(")");
    }
    FieldReader fields{line_};
    std::visit([&](auto& o) { o.fields(o, fields); }, op);
    if (!fields.first) line_.expect("}");
    line_.expect(" -> ");
    const std::size_t start = line_.column();
    std::vector<TensorSpec> printed;
    do read(line_, printed.emplace_back());
    while (line_.accept(", "));
    const Symbol added =
        checked([&] { return graph_.add(std::move(op), std::move(inputs), name); });
    expect_specs(start, printed, graph_.node(added).outputs);
  }

  void expect_specs(std::size_t column, const std::vector<TensorSpec>& printed,
                    const std::vector<TensorSpec>& found) const {
    if (printed.size() != found.size()) {
      line_.fail_at(column, ops::cat("the op has ", found.size(), " outputs, the text gives ",
                                     printed.size()));
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (printed[i] == found[i]) continue;
      line_.fail_at(column, ops::cat("output ", i, " of the op is ", found[i], ", the text gives ",
                                     printed[i]));
    }
  }

  void output() {
    const std::size_t start = line_.column();
    std::string name = line_.name();
    line_.expect(" = ");
    const Symbol value = symbol();
    if (!graph_.assignments().empty()) line_.fail_at(1, "an output after the assignments");
    if (!output_names_.insert(name).second) {
      line_.fail_at(start, ops::cat("there are two outputs '", printable(name), "'"));
    }
    checked([&] { graph_.set_output(std::move(name), value); });
  }

  void assignment() {
    const std::size_t start = line_.column();
    const Symbol variable = symbol();
    line_.expect(" = ");
    const Symbol value = symbol();
    if (!assigned_.insert(variable.node).second) {
      line_.fail_at(start,
                    ops::cat("'", printable(graph_.node(variable).name), "' is assigned twice"));
    }
    checked([&] { graph_.assign(variable, value); });
  }

  // Whatever reads as the same graph but is written otherwise (1e0 for 1) is refused too.
  void expect_canonical() const {
    const std::string canonical = graph_.text();
    if (canonical == text_) return;
    const auto [a, b] =
        std::mismatch(canonical.begin(), canonical.end(), text_.begin(), text_.end());
    const auto before = text_.substr(0, static_cast<std::size_t>(b - text_.begin()));
    const auto line = static_cast<std::size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
    const std::size_t start = before.rfind('\n') + 1;  // 0 when there is none
    const Cursor where("", line);
    const std::string_view rest =
        std::string_view(canonical).substr(static_cast<std::size_t>(a - canonical.begin()));
    where.fail_at(before.size() - start + 1,
                  ops::cat("this is written '", printable(rest.substr(0, rest.find('\n'))), "'"));
  }

  std::string_view text_;
  std::size_t offset_ = 0;
  std::size_t number_ = 0;
  Cursor line_{"", 1};
  Graph graph_;
  std::set<std::string> output_names_;
  std::set<int> assigned_;
};

}  // namespace

Graph Graph::parse(std::string_view text) { return Parser(text).parse(); }

}  // namespace pycnn
