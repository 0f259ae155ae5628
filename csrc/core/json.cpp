#include "core/json.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include "pycnn/error.h"

namespace pycnn {
namespace {

constexpr std::size_t kShown = 80;  // of a hostile text in a message

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

void append_utf8(std::string& out, std::uint32_t code) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string describe(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte >= 0x20 && byte < 0x7F) return std::string("'") + c + "'";
  constexpr char kHex[] = "0123456789abcdef";
  return std::string("byte 0x") + kHex[byte >> 4] + kHex[byte & 15];
}

}  // namespace

std::size_t utf8_length(std::string_view text) noexcept {
  if (text.empty()) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  // The second byte's range shuts out overlong forms, surrogates and codes above 10FFFF.
  std::size_t length = 0;
  unsigned low = 0x80, high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  }
  if (length == 0 || text.size() < length) return 0;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) {
      throw ArgumentError("text is not valid UTF-8 at its byte " + std::to_string(i));
    }
    const char c = text[i];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += "\\u00";
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    } else {
      out += text.substr(i, length);
    }
    i += length;
  }
  out += '"';
}

JsonReader::JsonReader(std::string_view text, std::string where, std::size_t base)
    : text_(text), where_(std::move(where)), base_(base) {}

void JsonReader::set_where(std::string where) { where_ = std::move(where); }

void JsonReader::fail_at(std::size_t offset, const std::string& message) const {
  throw FormatError(where_ + ": " + message + ", at byte " + std::to_string(offset));
}

void JsonReader::fail(const std::string& message) const { fail_at(base_ + position_, message); }

void JsonReader::skip_space() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
    ++position_;
  }
}

std::size_t JsonReader::offset() {
  skip_space();
  return base_ + position_;
}

char JsonReader::next_char(const char* expected) {
  skip_space();
  if (position_ >= text_.size()) fail(std::string("JSON ends where ") + expected + " is expected");
  return text_[position_];
}

void JsonReader::expect(char wanted, const char* name) {
  const char c = next_char(name);
  if (c != wanted) fail(describe(c) + " where " + name + " is expected");
  ++position_;
}

void JsonReader::expect_word(std::string_view word) {
  if (text_.substr(position_, word.size()) != word) fail("not a JSON value");
  position_ += word.size();
}

JsonReader::Type JsonReader::peek() {
  const char c = next_char("a value");
  switch (c) {
    case '{':
      return Type::kObject;
    case '[':
      return Type::kArray;
    case '"':
      return Type::kString;
    case 't':
    case 'f':
      return Type::kBoolean;
    case 'n':
      return Type::kNull;
    default:
      if (c == '-' || is_digit(c)) return Type::kNumber;
      fail(describe(c) + " where a value is expected");
  }
}

// A value may come at the very beginning, after a key, or after next_item; each of them allows one.
void JsonReader::value_starts() {
  if (!value_expected_) throw InternalError("JsonReader: a value is read where none may be");
  value_expected_ = false;
}

void JsonReader::open(char bracket, bool object) {
  value_starts();
  expect(bracket, object ? "an object" : "an array");
  if (levels_.size() >= kMaxDepth) fail("JSON is nested deeper than " + std::to_string(kMaxDepth));
  levels_.push_back({object, true, {}});
}

void JsonReader::begin_object() { open('{', true); }
void JsonReader::begin_array() { open('[', false); }

bool JsonReader::next_member(char closing) {
  if (levels_.empty() || levels_.back().object != (closing == '}') || value_expected_) {
    throw InternalError("JsonReader: next_key or next_item is called out of turn");
  }
  Level& level = levels_.back();
  const char c = next_char(closing == '}' ? "',' or '}'" : "',' or ']'");
  if (c == closing) {
    ++position_;
    levels_.pop_back();
    return false;
  }
  if (!level.first) expect(',', closing == '}' ? "',' or '}'" : "',' or ']'");
  level.first = false;
  value_expected_ = true;
  return true;
}

bool JsonReader::next_key(std::string& key) {
  if (!next_member('}')) return false;
  const std::size_t start = offset();
  key = read_string();
  if (!levels_.back().keys.insert(key).second) {
    fail_at(start, "key '" + key.substr(0, kShown) + "' is there twice");
  }
  expect(':', "':'");
  value_expected_ = true;
  return true;
}

bool JsonReader::next_item() { return next_member(']'); }

std::uint32_t JsonReader::hex4() {
  std::uint32_t code = 0;
  const std::string_view digits = text_.substr(position_, 4);
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
  if (digits.size() != 4 || result.ptr != digits.data() + 4) {
    fail("\\u without four hexadecimal digits");
  }
  position_ += 4;
  return code;
}

void JsonReader::read_escape(std::string& out) {
  const std::size_t start = base_ + position_;
  ++position_;  // the backslash
  if (position_ >= text_.size()) fail("JSON ends inside a string");
  const char c = text_[position_++];
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (const auto index = kLetters.find(c); index != std::string_view::npos) {
    out += kMeanings[index];
    return;
  }
  if (c != 'u') fail_at(start, "unknown escape in a string");
  std::uint32_t code = hex4();
  if (code >= 0xD800 && code <= 0xDFFF) {
    if (code >= 0xDC00 || text_.substr(position_, 2) != "\\u")
      fail_at(start, "lone surrogate in a string");
    position_ += 2;
    const std::uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail_at(start, "lone surrogate in a string");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, code);
}

std::string JsonReader::read_string() {
  value_starts();
  expect('"', "a string");
  std::string out;
  while (true) {
    if (position_ >= text_.size()) fail("JSON ends inside a string");
    const char c = text_[position_];
    if (c == '"') {
      ++position_;
      return out;
    }
    if (c == '\\') {
      read_escape(out);
      continue;
    }
    if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
    const std::size_t length = utf8_length(text_.substr(position_));
    if (length == 0) fail("invalid UTF-8 in a string");
    out += text_.substr(position_, length);
    position_ += length;
  }
}

std::string_view JsonReader::number() {
  value_starts();
  const char first = next_char("a whole number");
  if (first != '-' && !is_digit(first)) fail(describe(first) + " where a whole number is expected");
  std::size_t end = position_ + (first == '-' ? 1 : 0);
  const std::size_t digits = end;
  while (end < text_.size() && is_digit(text_[end])) ++end;
  if (end == digits) fail("'-' without digits");
  if (end - digits > 1 && text_[digits] == '0') fail("number with a leading zero");
  if (end < text_.size() && (text_[end] == '.' || text_[end] == 'e' || text_[end] == 'E')) {
    fail("fraction or exponent where a whole number is expected");
  }
  return text_.substr(position_, end - position_);
}

std::int64_t JsonReader::read_int64() {
  const std::string_view digits = number();
  std::int64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec != std::errc())
    fail("number " + std::string(digits.substr(0, kShown)) + " does not fit in 64 bits");
  position_ += digits.size();
  return value;
}

std::uint64_t JsonReader::read_uint64() {
  const std::string_view digits = number();
  if (digits.front() == '-')
    fail("number " + std::string(digits.substr(0, kShown)) + " is negative");
  std::uint64_t value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ec != std::errc())
    fail("number " + std::string(digits.substr(0, kShown)) + " does not fit in 64 bits");
  position_ += digits.size();
  return value;
}

double JsonReader::read_double() {
  value_starts();
  const char first = next_char("a number");
  if (first != '-' && !is_digit(first)) fail(describe(first) + " where a number is expected");
  std::size_t end = position_ + (first == '-' ? 1 : 0);
  const auto skip_digits = [&](const char* after) {
    const std::size_t start = end;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    if (end == start) fail(std::string("number without digits ") + after);
  };
  const std::size_t whole = end;
  skip_digits("after its sign");
  if (end - whole > 1 && text_[whole] == '0') fail("number with a leading zero");
  if (end < text_.size() && text_[end] == '.') {
    ++end;
    skip_digits("after its point");
  }
  if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
    ++end;
    if (end < text_.size() && (text_[end] == '+' || text_[end] == '-')) ++end;
    skip_digits("in its exponent");
  }
  double value = 0.0;
  const auto result = std::from_chars(text_.data() + position_, text_.data() + end, value);
  if (result.ec != std::errc())
    fail("number " + std::string(text_.substr(position_, std::min(end - position_, kShown))) +
         " does not fit in a double");
  position_ = end;
  return value;
}

bool JsonReader::read_boolean() {
  value_starts();
  const bool value = next_char("true or false") == 't';
  expect_word(value ? "true" : "false");
  return value;
}

void JsonReader::read_null() {
  value_starts();
  next_char("null");
  expect_word("null");
}

void JsonReader::end() {
  if (value_expected_ || !levels_.empty())
    throw InternalError("JsonReader: end is called inside a value");
  skip_space();
  if (position_ < text_.size())
    fail(describe(text_[position_]) + " after the end of the JSON text");
}

}  // namespace pycnn
