#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "pycnn/export.h"

// Strict JSON (RFC 8259) from untrusted sources, read value by value: no tree is built, nothing
// recurses, and memory stays in proportion to the text. Refused beyond the grammar: invalid UTF-8,
// lone surrogates, a key given twice in one object, nesting deeper than kMaxDepth, whole numbers
// that do not fit.
namespace pycnn {

class PYCNN_API JsonReader {
 public:
  static constexpr std::size_t kMaxDepth = 64;

  enum class Type : std::uint8_t { kObject, kArray, kString, kNumber, kBoolean, kNull };

  // `where` begins every message; `base` is the place of `text` in its file, so that offsets count
  // from the file's start. `text` must outlive the reader.
  JsonReader(std::string_view text, std::string where, std::size_t base = 0);

  // Changes what messages begin with, as the reading goes on.
  void set_where(std::string where);

  // The type of the value that comes next.
  Type peek();

  void begin_object();
  // The next key of the object, whose value must be read before the next call; false at its end,
  // which closes it.
  bool next_key(std::string& key);
  void begin_array();
  // Whether an item follows, which must be read before the next call; false at its end, which
  // closes it.
  bool next_item();

  std::string read_string();
  // Whole numbers only: 1.0 and 1e3 are refused.
  std::int64_t read_int64();
  std::uint64_t read_uint64();
  // Any number; one that no double can hold is refused.
  double read_double();
  bool read_boolean();
  void read_null();

  // Call last: only white space may be left.
  void end();

  // Byte offset in the file of what comes next.
  std::size_t offset();
  // Throws FormatError "<where>: <message>, at byte <offset>".
  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void fail_at(std::size_t offset, const std::string& message) const;

 private:
  struct Level {
    bool object;
    bool first = true;
    std::unordered_set<std::string> keys;
  };

  void skip_space();
  char next_char(const char* expected);
  void expect(char wanted, const char* name);
  void expect_word(std::string_view word);
  void open(char bracket, bool object);
  bool next_member(char closing);
  void value_starts();
  std::string_view number();
  std::uint32_t hex4();
  void read_escape(std::string& out);

  std::string_view text_;
  std::string where_;
  std::size_t base_;
  std::size_t position_ = 0;
  bool value_expected_ = true;
  std::vector<Level> levels_;
};

// Appends `text` as a JSON string. Throws ArgumentError when it is not valid UTF-8.
PYCNN_API void append_json_string(std::string& out, std::string_view text);

// Length of the valid UTF-8 sequence at the start of `text`, 0 when there is none.
PYCNN_API std::size_t utf8_length(std::string_view text) noexcept;

}  // namespace pycnn
