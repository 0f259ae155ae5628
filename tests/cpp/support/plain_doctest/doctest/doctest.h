// The macros of doctest that pycnn's tests use, for machines without it (tests/cpp/CMakeLists.txt):
// written for this project, the same names, command line, report and exit status, and no more.
#pragma once
#pragma GCC system_header  // as a library's: `size() == 3` is compared as it is written

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <ostream>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

namespace doctest {

// Equal to a number that differs by less than `epsilon` of one more than the larger of both.
class Approx {
 public:
  template <class T>
  explicit Approx(const T& value) : value_(static_cast<double>(value)) {}
  Approx& epsilon(double share) {
    epsilon_ = share;
    return *this;
  }
  template <class T>
  requires std::is_convertible_v<T, double>
  friend bool operator==(const T& number, const Approx& approx) {
    const auto x = static_cast<double>(number);
    const double scale = 1.0 + std::max(std::fabs(x), std::fabs(approx.value_));
    return std::fabs(x - approx.value_) < approx.epsilon_ * scale;
  }
  template <class T>
  requires std::is_convertible_v<T, double>
  friend bool operator!=(const T& number, const Approx& approx) { return !(number == approx); }
  friend std::ostream& operator<<(std::ostream& stream, const Approx& approx) {
    return stream << "Approx( " << approx.value_ << " )";
  }

 private:
  double value_;
  double epsilon_ = 100.0 * static_cast<double>(std::numeric_limits<float>::epsilon());
};

// What a text has somewhere.
struct Contains {
  std::string part;
  explicit Contains(std::string text) : part(std::move(text)) {}
};

namespace plain {

template <class T>
void print(std::ostream& stream, const T& value) {
  if constexpr (std::is_same_v<T, bool>)
    stream << (value ? "true" : "false");
  else if constexpr (std::is_same_v<T, std::nullptr_t>)
    stream << "nullptr";
  else if constexpr (std::is_same_v<T, signed char> || std::is_same_v<T, unsigned char>)
    stream << static_cast<int>(value);
  else if constexpr (requires { stream << value; })
    stream << value;
  else if constexpr (std::is_enum_v<T>)
    stream << static_cast<long long>(value);
  else
    stream << "{?}";
}

// Of INFO and the like: `a, b` and `a << b` both join.
class Words {
 public:
  explicit Words(std::ostream& stream) : stream_(stream) {}
  template <class T>
  const Words& operator<<(const T& value) const {
    print(stream_, value);
    return *this;
  }
  template <class T>
  const Words& operator,(const T& value) const {
    return *this << value;
  }

 private:
  std::ostream& stream_;
};

struct Case {
  void (*run)();
  const char *name, *file;
  int line;
};
// What REQUIRE ends a case with.
struct Stop {};

struct State {
  std::vector<Case> cases;
  std::mutex printing;
  std::atomic<long> passed{0}, failed{0};
  const Case* current = nullptr;
  bool is_titled = false;  // the case at work is named in the report
};
inline State& state() {
  static State it;
  return it;
}
inline int add_case(void (*run)(), const char* name, const char* file, int line) {
  state().cases.push_back({run, name, file, line});
  return 0;
}

// SUBCASE: a case is run again as long as there are parts that no run entered yet; of those beside
// each other one is entered in a run, and as often as a loop comes by it.
struct Parts {
  using Name = std::tuple<std::string, std::string, int>;
  std::vector<Name> path;
  std::vector<Name> entered;  // by depth: which one was, in this run
  std::set<std::vector<Name>> done;
  int missed = 0;  // in this run
};
inline Parts& parts() {
  static Parts it;
  return it;
}
class Subcase {
 public:
  Subcase(const char* name, const char* file, int line) {
    Parts& all = parts();
    const std::size_t depth = all.path.size();
    all.path.emplace_back(name, file, line);
    const bool is_done = all.done.contains(all.path);
    const bool is_first = all.entered.size() == depth;
    if (is_first ? is_done : all.entered[depth] != all.path.back()) {
      all.missed += is_done ? 0 : 1;
      all.path.pop_back();
      return;
    }
    if (is_first) all.entered.push_back(all.path.back());
    is_entered_ = true;
    missed_before_ = all.missed;
  }
  Subcase(const Subcase&) = delete;
  ~Subcase() {
    if (!is_entered_) return;
    Parts& all = parts();
    const bool is_thrown = std::uncaught_exceptions() > exceptions_;
    if (is_thrown || all.missed == missed_before_) all.done.insert(all.path);
    if (is_thrown) ++all.missed;  // those after it were not seen
    all.path.pop_back();
  }
  explicit operator bool() const { return is_entered_; }

 private:
  bool is_entered_ = false;
  int missed_before_ = 0, exceptions_ = std::uncaught_exceptions();
};

// INFO: said with what fails while it lives, or left by an exception.
struct Note {
  virtual void write(std::ostream& stream) const = 0;
  static std::vector<const Note*>& living() {
    thread_local std::vector<const Note*> notes;
    return notes;
  }
  static std::vector<std::string>& left() {
    thread_local std::vector<std::string> notes;
    return notes;
  }

 protected:
  ~Note() = default;
};
template <class Write>
class NoteOf final : public Note {
 public:
  explicit NoteOf(const Write& write) : write_(write) { living().push_back(this); }
  NoteOf(const NoteOf&) = delete;
  ~NoteOf() {
    living().pop_back();
    if (std::uncaught_exceptions() <= exceptions_) return;
    std::ostringstream text;
    write_(text);
    left().push_back(text.str());
  }
  void write(std::ostream& stream) const override { write_(stream); }

 private:
  const Write& write_;
  int exceptions_ = std::uncaught_exceptions();
};

inline void report(const char* file, int line, const char* grade, const std::string& text) {
  std::ostringstream out;
  const std::lock_guard lock(state().printing);
  if (!state().is_titled && state().current != nullptr) {
    state().is_titled = true;
    out << std::string(79, '=') << '\n'
        << state().current->file << ':' << state().current->line << ":\n"
        << "TEST CASE:  " << state().current->name << '\n';
    for (const Parts::Name& part : parts().path) out << "  " << std::get<0>(part) << '\n';
    out << '\n';
  }
  out << file << ':' << line << ": " << grade << text << '\n';
  const bool fails = std::strcmp(grade, "MESSAGE: ") != 0;
  if (fails && Note::living().size() + Note::left().size() > 0) {
    out << "  logged:";
    for (const Note* note : Note::living()) {
      out << ' ';
      note->write(out);
      out << '\n' << std::string(9, ' ');
    }
    for (auto note = Note::left().rbegin(); note != Note::left().rend(); ++note)
      out << ' ' << *note << '\n' << std::string(9, ' ');
  }
  std::printf("%s\n", out.str().c_str());
  std::fflush(stdout);
}

inline std::string thrown_text() {
  try {
    throw;
  } catch (const std::exception& error) {
    return error.what();
  } catch (const char* text) {
    return text;
  } catch (const std::string& text) {
    return text;
  } catch (...) {
    return "unknown exception";
  }
}

// A comparison and, where it is not as wanted, its sides.
struct Result {
  bool value;
  std::string text;
  explicit operator bool() const { return value; }
};
template <class T>
struct Left {
  const T& value;
  bool wanted;
  explicit operator bool() const { return static_cast<bool>(value); }

  template <class U>
  Result result(bool holds, const char* sign, const U& right) const {
    if (holds == wanted) return {holds, {}};
    std::ostringstream text;
    print(text, value);
    text << sign;
    print(text, right);
    return {holds, text.str()};
  }
  template <class U>
  Result operator==(const U& right) const {
    return result(static_cast<bool>(value == right), " == ", right);
  }
  template <class U>
  Result operator!=(const U& right) const {
    return result(static_cast<bool>(value != right), " != ", right);
  }
  template <class U>
  Result operator<(const U& right) const {
    return result(static_cast<bool>(value < right), " <  ", right);
  }
  template <class U>
  Result operator>(const U& right) const {
    return result(static_cast<bool>(value > right), " >  ", right);
  }
  template <class U>
  Result operator<=(const U& right) const {
    return result(static_cast<bool>(value <= right), " <= ", right);
  }
  template <class U>
  Result operator>=(const U& right) const {
    return result(static_cast<bool>(value >= right), " >= ", right);
  }
};
struct Split {
  bool wanted;
  template <class T>
  Left<T> operator<<(const T& value) const {
    return {value, wanted};
  }
};

// One CHECK or REQUIRE.
class Check {
 public:
  Check(const char* name, const char* file, int line, const char* text)
      : name_(name), file_(file), text_(text), line_(line) {}

  template <class T>
  bool judge(const T& found, bool wanted) const {
    const auto holds = static_cast<bool>(found);
    if (holds == wanted) return pass();
    if constexpr (std::is_same_v<T, Result>)
      if (!found.text.empty()) return fail("\n  values: " + found.text);
    return fail(holds ? "\n  value: true" : "\n  value: false");
  }
  bool threw() const { return fail("\n  THREW: " + thrown_text()); }
  bool pass() const {
    state().passed.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  bool fail(const std::string& why) const {
    state().failed.fetch_add(1, std::memory_order_relaxed);
    report(file_, line_, "ERROR: ", std::string(name_) + "( " + text_ + " ) failed" + why);
    return false;
  }
  bool matches(const std::string& expected, const std::string& what) const {
    return what == expected ? pass() : fail("\n  what(): " + what + "\n  expected: " + expected);
  }
  bool matches(const Contains& expected, const std::string& what) const {
    return what.find(expected.part) != std::string::npos
               ? pass()
               : fail("\n  what(): " + what + "\n  expected to contain: " + expected.part);
  }

 private:
  const char *name_, *file_, *text_;
  int line_;
};

// Filters: patterns with * and ?, separated by commas that have no backslash before them.
inline std::vector<std::string> patterns_of(const std::string& text) {
  std::vector<std::string> patterns(1);
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == ',')
      patterns.back() += text[++i];
    else if (text[i] == ',')
      patterns.emplace_back();
    else
      patterns.back() += text[i];
  }
  std::erase_if(patterns, [](const std::string& pattern) { return pattern.empty(); });
  return patterns;
}
inline bool is_match(const char* text, const char* pattern) {
  if (*pattern == '\0') return *text == '\0';
  if (*pattern == '*') {
    for (;; ++text) {
      if (is_match(text, pattern + 1)) return true;
      if (*text == '\0') return false;
    }
  }
  const auto low = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return *text != '\0' && (*pattern == '?' || low(*text) == low(*pattern)) &&
         is_match(text + 1, pattern + 1);
}
struct Filter {
  const char *name, *brief;
  bool is_of_file, excludes;
  std::vector<std::string> patterns;
  bool keeps(const Case& each) const {
    if (patterns.empty()) return true;
    const char* text = is_of_file ? each.file : each.name;
    return excludes != std::any_of(patterns.begin(), patterns.end(),
                                   [&](const std::string& p) { return is_match(text, p.c_str()); });
  }
};

// Whether all checks of a case held.
inline bool run_case(const Case& each) {
  State& all = state();
  const long failed_before = all.failed;
  all.current = &each;
  all.is_titled = false;
  parts() = {};
  bool is_ended = false;
  do {
    parts().missed = 0;
    parts().entered.clear();
    Note::left().clear();
    try {
      each.run();
    } catch (const Stop&) {
      is_ended = true;
    } catch (...) {
      is_ended = true;
      report(each.file, each.line, "ERROR: ", "test case THREW exception: " + thrown_text());
    }
  } while (parts().missed > 0);
  all.current = nullptr;
  return !is_ended && all.failed == failed_before;
}

inline int run_all(int count, char** arguments) {
  Filter filters[] = {{"test-case", "tc", false, false, {}},
                      {"test-case-exclude", "tce", false, true, {}},
                      {"source-file", "sf", true, false, {}},
                      {"source-file-exclude", "sfe", true, true, {}}};
  bool lists = false, is_minimal = false;
  for (int i = 1; i < count; ++i) {
    const std::string given = arguments[i];
    const std::size_t equals = std::min(given.find('='), given.size());
    const std::string name = given.substr(0, equals);
    const auto is = [&](const char* full, const char* brief) {
      return name == std::string("--") + full || name == std::string("-") + brief ||
             name == std::string("--dt-") + full || name == std::string("-dt-") + brief;
    };
    bool is_known = true;
    if (is("list-test-cases", "ltc"))
      lists = true;
    else if (is("minimal", "m"))
      is_minimal = true;
    else
      is_known = false;
    for (Filter& filter : filters) {
      if (!is(filter.name, filter.brief) || equals == given.size()) continue;
      for (std::string& pattern : patterns_of(given.substr(equals + 1)))
        filter.patterns.push_back(std::move(pattern));
      is_known = true;
    }
    // A filter that is not understood must not run everything in its place.
    if (!is_known) {
      std::fprintf(stderr, "%s: not known to this stand-in for doctest\n", arguments[i]);
      return 2;
    }
  }
  std::vector<Case> cases = state().cases;
  const auto total = cases.size();
  std::erase_if(cases, [&](const Case& each) {
    return !std::all_of(std::begin(filters), std::end(filters),
                        [&](const Filter& filter) { return filter.keeps(each); });
  });
  std::sort(cases.begin(), cases.end(), [](const Case& a, const Case& b) {
    const int order = std::strcmp(a.file, b.file);
    return order != 0 ? order < 0 : a.line < b.line;
  });
  const std::string rule(79, '=');
  if (!is_minimal) std::printf("[doctest] pycnn's own stand-in for doctest\n");
  if (lists) {
    std::printf("[doctest] listing all test case names\n%s\n", rule.c_str());
    for (const Case& each : cases) std::printf("%s\n", each.name);
    std::printf("%s\n[doctest] unskipped test cases passing the current filters: %zu\n",
                rule.c_str(), cases.size());
    return 0;
  }
  std::size_t good = 0;
  for (const Case& each : cases) good += run_case(each) ? 1 : 0;
  const long passed = state().passed, failed = state().failed;
  const bool is_good = good == cases.size() && failed == 0;
  if (!is_minimal || !is_good) {
    std::printf("%s\n[doctest] test cases: %zu | %zu passed | %zu failed | %zu skipped\n",
                rule.c_str(), cases.size(), good, cases.size() - good, total - cases.size());
    std::printf("[doctest] assertions: %ld | %ld passed | %ld failed |\n", passed + failed, passed,
                failed);
    std::printf("[doctest] Status: %s!\n", is_good ? "SUCCESS" : "FAILURE");
  }
  return is_good ? 0 : 1;
}

}  // namespace plain

// Of a main function that does more.
class Context {
 public:
  Context(int count, char** arguments) : count_(count), arguments_(arguments) {}
  int run() { return plain::run_all(count_, arguments_); }

 private:
  int count_;
  char** arguments_;
};

}  // namespace doctest

#define PLAIN_JOIN_(a, b) a##b
#define PLAIN_JOIN(a, b) PLAIN_JOIN_(a, b)

#define PLAIN_CASE(function, title)                                    \
  static void function();                                              \
  [[maybe_unused]] static const int PLAIN_JOIN(function, _added) =     \
      ::doctest::plain::add_case(function, title, __FILE__, __LINE__); \
  static void function()
#define TEST_CASE(title) PLAIN_CASE(PLAIN_JOIN(plain_case_, __COUNTER__), title)
#define SUBCASE(title)                                                                   \
  if (const ::doctest::plain::Subcase PLAIN_JOIN(plain_part_, __LINE__){title, __FILE__, \
                                                                        __LINE__};       \
      PLAIN_JOIN(plain_part_, __LINE__))

#define PLAIN_NOTE(id, ...)                                                  \
  const auto PLAIN_JOIN(plain_text_, id) = [&](std::ostream& plain_stream) { \
    ::doctest::plain::Words(plain_stream) << __VA_ARGS__;                    \
  };                                                                         \
  const ::doctest::plain::NoteOf PLAIN_JOIN(plain_note_, id)(PLAIN_JOIN(plain_text_, id))
#define INFO(...) PLAIN_NOTE(__COUNTER__, __VA_ARGS__)
#define CAPTURE(...) PLAIN_NOTE(__COUNTER__, #__VA_ARGS__ " := " << (__VA_ARGS__))

#define PLAIN_WORDS(...)                                  \
  [&] {                                                   \
    std::ostringstream plain_stream;                      \
    ::doctest::plain::Words(plain_stream) << __VA_ARGS__; \
    return plain_stream.str();                            \
  }()
#define MESSAGE(...) \
  ::doctest::plain::report(__FILE__, __LINE__, "MESSAGE: ", PLAIN_WORDS(__VA_ARGS__))

#define PLAIN_STOP throw ::doctest::plain::Stop()
#define PLAIN_GO_ON static_cast<void>(0)
// `body` sets plain_good by plain_check.
#define PLAIN_CHECK(name, text, body, otherwise)                               \
  do {                                                                         \
    const ::doctest::plain::Check plain_check(name, __FILE__, __LINE__, text); \
    bool plain_good = false;                                                   \
    body;                                                                      \
    if (!plain_good) otherwise;                                                \
  } while (false)
#define PLAIN_TRY(...)                      \
  try {                                     \
    __VA_ARGS__;                            \
  } catch (const ::doctest::plain::Stop&) { \
    throw;                                  \
  } catch (...) {                           \
    plain_good = plain_check.threw();       \
  }
#define PLAIN_HOLDS(wanted, ...) \
  PLAIN_TRY(plain_good = plain_check.judge(::doctest::plain::Split{wanted} << __VA_ARGS__, wanted))

#define CHECK(...) PLAIN_CHECK("CHECK", #__VA_ARGS__, PLAIN_HOLDS(true, __VA_ARGS__), PLAIN_GO_ON)
#define CHECK_FALSE(...) \
  PLAIN_CHECK("CHECK_FALSE", #__VA_ARGS__, PLAIN_HOLDS(false, __VA_ARGS__), PLAIN_GO_ON)
#define REQUIRE(...) \
  PLAIN_CHECK("REQUIRE", #__VA_ARGS__, PLAIN_HOLDS(true, __VA_ARGS__), PLAIN_STOP)
#define REQUIRE_FALSE(...) \
  PLAIN_CHECK("REQUIRE_FALSE", #__VA_ARGS__, PLAIN_HOLDS(false, __VA_ARGS__), PLAIN_STOP)
#define CHECK_MESSAGE(condition, ...) \
  do {                                \
    INFO(__VA_ARGS__);                \
    CHECK(condition);                 \
  } while (false)
#define REQUIRE_MESSAGE(condition, ...) \
  do {                                  \
    INFO(__VA_ARGS__);                  \
    REQUIRE(condition);                 \
  } while (false)
#define FAIL_CHECK(...)                                                                           \
  PLAIN_CHECK("FAIL_CHECK", "", plain_good = plain_check.fail("\n  " + PLAIN_WORDS(__VA_ARGS__)), \
              PLAIN_GO_ON)
#define FAIL(...)                                                                           \
  PLAIN_CHECK("FAIL", "", plain_good = plain_check.fail("\n  " + PLAIN_WORDS(__VA_ARGS__)), \
              PLAIN_STOP)

#define PLAIN_THROWS(name, expression, type, judgement)                                    \
  PLAIN_CHECK(                                                                             \
      name, #expression,                                                                   \
      try {                                                                                \
        static_cast<void>(expression);                                                     \
        plain_good = plain_check.fail("\n  threw nothing, expected " #type);               \
      } catch (const ::doctest::plain::Stop&) { throw; } catch (const type& plain_error) { \
        static_cast<void>(plain_error);                                                    \
        plain_good = plain_check.judgement;                                                \
      } catch (...) { plain_good = plain_check.threw(); },                                 \
      PLAIN_GO_ON)
#define CHECK_THROWS_AS(expression, type) PLAIN_THROWS("CHECK_THROWS_AS", expression, type, pass())
#define CHECK_THROWS_WITH_AS(expression, text, type) \
  PLAIN_THROWS("CHECK_THROWS_WITH_AS", expression, type, matches(text, plain_error.what()))
#define CHECK_THROWS_WITH(expression, text) \
  PLAIN_THROWS("CHECK_THROWS_WITH", expression, std::exception, matches(text, plain_error.what()))
#define CHECK_THROWS(expression) PLAIN_THROWS("CHECK_THROWS", expression, std::exception, pass())
#define CHECK_NOTHROW(...)                                                                \
  PLAIN_CHECK("CHECK_NOTHROW", #__VA_ARGS__,                                              \
              PLAIN_TRY(static_cast<void>(__VA_ARGS__); plain_good = plain_check.pass()), \
              PLAIN_GO_ON)

#ifdef DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
int main(int count, char** arguments) { return doctest::plain::run_all(count, arguments); }
#endif
