#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "core/json.h"
#include "pycnn/error.h"

using namespace pycnn;

namespace {

// Reads any value, whatever it holds, and gives it back in a plain form.
std::string echo_value(JsonReader& reader) {
  switch (reader.peek()) {
    case JsonReader::Type::kObject: {
      std::string out = "{", key;
      reader.begin_object();
      while (reader.next_key(key)) out += key + "=" + echo_value(reader) + ";";
      return out + "}";
    }
    case JsonReader::Type::kArray: {
      std::string out = "[";
      reader.begin_array();
      while (reader.next_item()) out += echo_value(reader) + ";";
      return out + "]";
    }
    case JsonReader::Type::kString:
      return "'" + reader.read_string() + "'";
    case JsonReader::Type::kNumber:
      return std::to_string(reader.read_int64());
    case JsonReader::Type::kBoolean:
      return reader.read_boolean() ? "yes" : "no";
    case JsonReader::Type::kNull:
      break;
  }
  reader.read_null();
  return "null";
}

std::string echo(const std::string& text) {
  JsonReader reader(text, "test");
  const std::string out = echo_value(reader);
  reader.end();
  return out;
}

}  // namespace

TEST_CASE("JSON values are read") {
  CHECK(echo(" { \"a\" : [ 1 , -2,0 ] ,\n\"b\":{},\t\"c\":[ ], "
             "\"d\":true,\"e\":false,\"f\":null}\r ") ==
        "{a=[1;-2;0;];b={};c=[];d=yes;e=no;f=null;}");
  CHECK(echo("\"\"") == "''");
  CHECK(echo("9223372036854775807") == "9223372036854775807");
  CHECK(echo("-9223372036854775808") == "-9223372036854775808");
}

TEST_CASE("JSON strings are decoded") {
  CHECK(echo(R"("a\"\\\/\b\f\n\r\t")") == "'a\"\\/\b\f\n\r\t'");
  CHECK(echo(R"("\u0041\u00e9\u20AC\uD83D\uDE00")") == "'A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80'");
  CHECK(echo("\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"") ==
        "'\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80'");
  CHECK(echo(R"("\u0000")") == std::string("'\0'", 3));
}

TEST_CASE("malformed JSON is refused") {
  const char* const bad[] = {
      "",
      " ",
      "{",
      "}",
      "[",
      "]",
      "{]",
      "[}",
      "[1",
      "[1,",
      "[1,]",
      "[,1]",
      "[1 2]",
      "{\"a\"}",
      "{\"a\":}",
      "{\"a\":1,}",
      "{,}",
      "{1:2}",
      "{\"a\":1 \"b\":2}",
      "{'a':1}",
      "tru",
      "True",
      "nul",
      "nan",
      "Infinity",
      "+1",
      "-",
      "01",
      "-01",
      "1.0",
      "1e3",
      "1E3",
      "0x10",
      ".5",
      "--1",
      "1 1",
      "[1]x",
      "\"",
      "\"a",
      "\"\\",
      "\"\\x\"",
      "\"\\u12\"",
      "\"\\u12G4\"",
      "\"\\u+123\"",
      "\"\n\"",
      "\"\t\"",
      "\x01",
      "/* */ 1",
      "{\"a\":1}}",
      // UTF-8: continuation alone, overlong, surrogate, beyond the last code, cut short
      "\"\x80\"",
      "\"\xC0\xAF\"",
      "\"\xC1\xBF\"",
      "\"\xE0\x80\xAF\"",
      "\"\xED\xA0\x80\"",
      "\"\xF4\x90\x80\x80\"",
      "\"\xF5\x80\x80\x80\"",
      "\"\xFF\"",
      "\"\xE2\x82\"",
      "\"\xC3",
      "\xEF\xBB\xBF{}",
      // lone surrogates
      R"("\uD83D")",
      R"("\uDE00")",
      R"("\uD83D\u0041")",
      R"("\uD83Dx")",
      R"("\uD83D\uD83D")",
  };
  for (const char* text : bad) {
    CAPTURE(text);
    CHECK_THROWS_AS(echo(text), FormatError);
  }
  CHECK_THROWS_AS(echo(std::string("1\0", 2)), FormatError);
}

TEST_CASE("a key given twice is refused, at its place") {
  CHECK_THROWS_WITH(echo(R"({"a":1,"b":2,"a":3})"), "test: key 'a' is there twice, at byte 13");
  CHECK_THROWS_WITH(echo(R"({"a":1,"\u0061":3})"), "test: key 'a' is there twice, at byte 7");
  CHECK(echo(R"({"a":{"a":1}})") == "{a={a=1;};}");
}

TEST_CASE("numbers that do not fit are refused") {
  CHECK_THROWS_AS(echo("9223372036854775808"), FormatError);
  CHECK_THROWS_AS(echo("-9223372036854775809"), FormatError);
  CHECK_THROWS_AS(echo("1" + std::string(100000, '0')), FormatError);
  const auto read = [](const std::string& text) { return JsonReader(text, "test").read_uint64(); };
  CHECK(read("18446744073709551615") == ~std::uint64_t{0});
  CHECK_THROWS_AS(read("18446744073709551616"), FormatError);
  CHECK_THROWS_WITH(read("-1"), "test: number -1 is negative, at byte 0");
}

TEST_CASE("fractions and exponents are read where a double is asked for") {
  const auto read = [](const std::string& text) {
    JsonReader reader(text, "test");
    const double value = reader.read_double();
    reader.end();
    return value;
  };
  CHECK(read("0.3") == 0.3);
  CHECK(read("-12.5e+1") == -125.0);
  CHECK(read(" 1E-5 ") == 1e-5);
  CHECK(read("7") == 7.0);
  for (const char* wrong : {"", "-", "01", "1.", ".5", "1e", "1e+", "+1", "NaN", "1e999", "0x1"}) {
    INFO(std::string(wrong));
    CHECK_THROWS_AS(read(wrong), FormatError);
  }
  CHECK_THROWS_WITH(read("1e999"), "test: number 1e999 does not fit in a double, at byte 0");
}

TEST_CASE("deep nesting is refused without deep recursion") {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  CHECK_NOTHROW(echo(nested(JsonReader::kMaxDepth)));
  CHECK_THROWS_WITH(echo(nested(100000)), "test: JSON is nested deeper than 64, at byte 65");
}

TEST_CASE("offsets count from the start of the file") {
  const std::string text = "{\"a\": x}";
  JsonReader reader(text, "load 'f'", 8);
  reader.begin_object();
  std::string key;
  REQUIRE(reader.next_key(key));
  CHECK(reader.offset() == 14);
  CHECK_THROWS_WITH(reader.peek(), "load 'f': 'x' where a value is expected, at byte 14");
}

TEST_CASE("wrong use of the reader is noticed") {
  const std::string text = "{\"a\":1}";
  JsonReader reader(text, "test");
  std::string key;
  CHECK_THROWS_AS(reader.next_key(key), InternalError);
  reader.begin_object();
  CHECK_THROWS_AS(reader.next_item(), InternalError);
  CHECK_THROWS_AS(reader.read_int64(), InternalError);
  REQUIRE(reader.next_key(key));
  CHECK_THROWS_AS(reader.next_key(key), InternalError);
}

TEST_CASE("written strings are read back") {
  std::string all;
  for (int c = 0; c < 128; ++c) all += static_cast<char>(c);
  for (const std::string& text :
       {all, std::string(),
        std::string("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 \"quoted\" \\ / \x7F")}) {
    std::string json;
    append_json_string(json, text);
    CHECK(JsonReader(json, "test").read_string() == text);
  }
  std::string out;
  CHECK_THROWS_AS(append_json_string(out, "a\xFF"), ArgumentError);
}
