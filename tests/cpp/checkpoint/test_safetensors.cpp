#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "pycnn/checkpoint.h"
#include "pycnn/error.h"
#include "support/temporary_directory.h"

using namespace pycnn;

namespace {

std::string length_bytes(std::uint64_t length) {
  return {reinterpret_cast<const char*>(&length), 8};
}

// A file with this header and `data` bytes of zeros.
std::string file_of(const std::string& json, std::size_t data) {
  return length_bytes(json.size()) + json + std::string(data, '\0');
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

std::string single(const std::string& dtype, const std::string& shape, const std::string& offsets,
                   std::size_t data) {
  return file_of("{" + entry("t", dtype, shape, offsets) + "}", data);
}

Checkpoint parse(const std::string& text) {
  return parse_checkpoint(std::as_bytes(std::span(text.data(), text.size())), "x.safetensors");
}

struct Hostile {
  const char* what;
  std::string file;
  const char* message;  // a part of it
};

std::vector<Hostile> hostile_files() {
  const std::string good = single("F32", "[2]", "[0,8]", 8);
  const std::string two = entry("a", "U8", "[4]", "[0,4]") + ",";
  std::string long_array = "[";
  for (int i = 0; i < 100000; ++i) long_array += "1,";
  long_array += "1]";
  return {
      {"empty", "", "the file has 0 bytes"},
      {"7 bytes", std::string(7, '\0'), "the file has 7 bytes"},
      {"header length 0", length_bytes(0) + "{}", "header length 0"},
      {"header length above the file", length_bytes(1000) + "{}",
       "header length 1000 at byte 0, but only 2 bytes"},
      {"header length 2^63", length_bytes(std::uint64_t{1} << 63) + "{}",
       "header length 9223372036854775808"},
      {"header length 2^64-1", length_bytes(~std::uint64_t{0}) + "{}",
       "header length 18446744073709551615"},
      {"header length that wraps with 8", length_bytes(~std::uint64_t{0} - 7) + "{}",
       "header length"},
      {"one byte header", length_bytes(1) + "{", "JSON ends"},
      {"not JSON", file_of("{hello}", 0), "at byte 9"},
      {"text", "hello world, this is no such file", "header length"},
      {"array", file_of("[]", 0), "does not begin with '{', at byte 8"},
      {"space first", file_of(" {}", 0), "does not begin with '{'"},
      {"string", file_of("\"a\"", 0), "does not begin with '{'"},
      {"byte order mark", file_of("\xEF\xBB\xBF{}", 0), "does not begin with '{'"},
      {"bad UTF-8 in a name", file_of("{" + entry("\xFF", "U8", "[0]", "[0,0]") + "}", 0),
       "invalid UTF-8"},
      {"bad UTF-8 in metadata", file_of("{\"__metadata__\":{\"a\":\"\xC0\x80\"}}", 0),
       "invalid UTF-8"},
      {"zeros", std::string(64, '\0'), "header length 0"},
      {"nested 100k arrays", file_of("{\"t\":" + std::string(100000, '['), 0),
       "where an object is expected"},
      {"nested 100k objects",
       file_of(
           [] {
             std::string text;
             for (int i = 0; i < 100000; ++i) text += "{\"a\":";
             return text;
           }(),
           0),
       "unknown field"},
      {"trailing garbage in the header", file_of("{} x", 0), "after the end"},
      {"second object", file_of("{}{}", 0), "after the end"},
      {"duplicate tensor",
       file_of(
           "{" + entry("a", "U8", "[0]", "[0,0]") + "," + entry("a", "U8", "[0]", "[0,0]") + "}",
           0),
       "key 'a' is there twice"},
      {"duplicate tensor, escaped",
       file_of("{" + entry("a", "U8", "[0]", "[0,0]") + "," +
                   entry("\\u0061", "U8", "[0]", "[0,0]") + "}",
               0),
       "key 'a' is there twice"},
      {"duplicate field",
       file_of("{\"t\":{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
               0),
       "key 'dtype' is there twice"},
      {"duplicate metadata", file_of("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0),
       "key 'a' is there twice"},
      {"two metadata", file_of("{\"__metadata__\":{},\"__metadata__\":{}}", 0), "is there twice"},
      {"metadata not an object", file_of("{\"__metadata__\":[]}", 0),
       "where an object is expected"},
      {"metadata not text", file_of("{\"__metadata__\":{\"a\":1}}", 0),
       "where a string is expected"},
      {"tensor not an object", file_of("{\"t\":1}", 0), "tensor 't'"},
      {"tensor null", file_of("{\"t\":null}", 0), "tensor 't'"},
      {"empty name", file_of("{" + entry("", "U8", "[0]", "[0,0]") + "}", 0), "empty name"},
      {"name with NUL", file_of("{" + entry("a\\u0000b", "U8", "[0]", "[0,0]") + "}", 0),
       "control character"},
      {"unknown field",
       file_of("{\"t\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", 0),
       "field 'x': unknown field"},
      {"no dtype", file_of("{\"t\":{\"shape\":[0],\"data_offsets\":[0,0]}}", 0),
       "field 'dtype' is missing"},
      {"no shape", file_of("{\"t\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}", 0),
       "field 'shape' is missing"},
      {"no offsets", file_of("{\"t\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0),
       "field 'data_offsets' is missing"},
      {"unknown dtype", single("F33", "[2]", "[0,8]", 8),
       "tensor 't' field 'dtype': element type 'F33'"},
      {"dtype of lower case", single("f32", "[2]", "[0,8]", 8), "element type 'f32'"},
      {"unsupported dtype", single("BOOL", "[8]", "[0,8]", 8),
       "element type 'BOOL' is not supported"},
      {"float8", single("F8_E4M3", "[8]", "[0,8]", 8), "element type 'F8_E4M3'"},
      {"long dtype", single(std::string(100000, 'F'), "[8]", "[0,8]", 8), "FFF...'"},
      {"numeric dtype", file_of("{\"t\":{\"dtype\":7,\"shape\":[0],\"data_offsets\":[0,0]}}", 0),
       "where a string is expected"},
      {"shape not an array", single("F32", "2", "[0,8]", 8), "field 'shape'"},
      {"shape of text", single("F32", "[\"2\"]", "[0,8]", 8), "where a whole number is expected"},
      {"negative axis", single("F32", "[-2]", "[0,8]", 8), "number -2 is negative"},
      {"float axis", single("F32", "[2.0]", "[0,8]", 8), "fraction or exponent"},
      {"exponent axis", single("F32", "[2e0]", "[0,8]", 8), "fraction or exponent"},
      {"huge axis", single("F32", "[18446744073709551615]", "[0,8]", 8), "is too long"},
      {"axis above 64 bits", single("F32", "[18446744073709551616]", "[0,8]", 8),
       "does not fit in 64 bits"},
      {"axis of a thousand digits", single("F32", "[" + std::string(1000, '9') + "]", "[0,8]", 8),
       "does not fit"},
      {"terabytes", single("F32", "[1099511627776]", "[0,4398046511104]", 8), "end after the data"},
      {"terabytes claimed, few bytes given", single("F32", "[1099511627776]", "[0,8]", 8),
       "hold 8 bytes"},
      {"product wraps to zero", single("F32", "[4294967296,4294967296]", "[0,0]", 0), "2^62"},
      {"product wraps to a small number", single("U8", "[6148914691236517206,3]", "[0,2]", 2),
       "2^62"},
      {"product wraps, bytes", single("F64", "[2305843009213693952]", "[0,0]", 0), "2^62"},
      {"product wraps beside a zero", single("F32", "[4294967296,4294967296,0]", "[0,0]", 0),
       "2^62"},
      {"rank 9", single("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1), "more than 8 axes"},
      {"rank 100000", single("U8", long_array, "[0,1]", 1), "more than 8 axes"},
      {"offsets reversed", single("F32", "[2]", "[8,0]", 8), "data_offsets [8, 0] are reversed"},
      {"offsets negative", single("F32", "[2]", "[-8,0]", 8), "number -8 is negative"},
      {"offsets huge", single("F32", "[2]", "[18446744073709551608,18446744073709551615]", 8),
       "end after the data"},
      {"one offset", single("F32", "[2]", "[0]", 8), "two numbers expected"},
      {"three offsets", single("F32", "[2]", "[0,8,8]", 8), "two numbers expected"},
      {"offsets as object", single("F32", "[2]", "{}", 8), "where an array is expected"},
      {"past the end", single("F32", "[2]", "[0,16]", 8), "end after the data, which has 8 bytes"},
      {"wrong size", single("F32", "[2]", "[0,4]", 4), "hold 4 bytes, f32(2) needs 8"},
      {"overlap", file_of("{" + two + entry("b", "U8", "[4]", "[2,6]") + "}", 6),
       "tensor 'b' begins at data byte 2, inside"},
      {"the same bytes twice", file_of("{" + two + entry("b", "U8", "[4]", "[0,4]") + "}", 4),
       "begins at data byte 0, inside"},
      {"hole", file_of("{" + two + entry("b", "U8", "[4]", "[5,9]") + "}", 9),
       "tensor 'b' begins at data byte 5, which leaves a hole"},
      {"hole at the start", single("U8", "[4]", "[4,8]", 8), "leaves a hole after 0"},
      {"empty tensor in a hole", file_of("{" + two + entry("b", "U8", "[0]", "[6,6]") + "}", 8),
       "leaves a hole"},
      {"trailing byte", good + "x", "1 bytes follow the last tensor"},
      {"data without tensors", file_of("{}", 3), "3 bytes follow"},
      {"one byte short", good.substr(0, good.size() - 1), "end after the data, which has 7 bytes"},
      {"header only", good.substr(0, good.size() - 8), "end after the data"},
      {"cut inside the header", good.substr(0, 20), "but only 12 bytes follow"},
      {"zip", std::string("PK\x03\x04\x14\x00\x00\x00\x00\x00 archive", 18),
       "this is a zip archive"},
      {"pickle",
       std::string("\x80\x02}q\x00X\x03\x00\x00\x00"
                   "abc",
                   13),
       "this looks like a pickle"},
      {"bad checksum text", file_of("{\"__metadata__\":{\"pycnn.checksum\":\"?\"}}", 0),
       "pycnn.checksum is '?'"},
  };
}

}  // namespace

TEST_CASE("the smallest valid files are read") {
  CHECK(parse(file_of("{}", 0)).tensors.empty());
  CHECK(parse(file_of("{}      ", 0)).tensors.empty());
  CHECK(parse(file_of("{\"__metadata__\":{}}", 0)).metadata.empty());
  const Checkpoint one = parse(single("F32", "[2]", "[0,8]", 8));
  CHECK(one.tensors.at("t").spec() == TensorSpec{{2}, DType::kFloat32});
  CHECK(parse(single("I64", "[]", "[0,8]", 8)).tensors.at("t").size() == 1);
  // Empty tensors may lie anywhere between others, and the header in any order.
  const Checkpoint some = parse(file_of("{" + entry("z", "U8", "[4]", "[0,4]") + "," +
                                            entry("b", "U8", "[0]", "[4,4]") + "," +
                                            entry("a", "U8", "[2]", "[4,6]") + "}",
                                        6));
  CHECK(some.tensors.size() == 3);
}

TEST_CASE("a file of the reference implementation is read") {
  // As the Python package safetensors 0.8.0 writes it.
  const std::string json =
      "{\"__metadata__\":{\"k\":\"v\xC3\xA9\"},\"a\":{\"dtype\":\"I64\",\"shape\":[3],\"data_"
      "offsets\":[0,24]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[24,48]},"
      "\"e\":{\"dtype\":\"F16\",\"shape\":[0,2],\"data_offsets\":[48,48]},"
      "\"o\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[48,51]}}      ";
  REQUIRE(json.size() == 256);
  const Checkpoint checkpoint = parse(file_of(json, 51));
  CHECK(checkpoint.metadata.at("k") == "v\xC3\xA9");
  CHECK(checkpoint.tensors.at("b").spec() == TensorSpec{{2, 3}, DType::kFloat32});
  CHECK(checkpoint.tensors.at("e").spec() == TensorSpec{{0, 2}, DType::kFloat16});
  CHECK(checkpoint.tensors.size() == 4);
}

namespace {

// Processor time of this thread, so that a busy machine does not matter.
double thread_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

}  // namespace

TEST_CASE("hostile files are refused with their fault") {
  for (const Hostile& hostile : hostile_files()) {
    CAPTURE(hostile.what);
    const double begin_ms = thread_ms();
    CHECK_THROWS_AS(parse(hostile.file), FormatError);
    CHECK(thread_ms() - begin_ms < 50);
    CHECK_THROWS_WITH(parse(hostile.file), doctest::Contains(hostile.message));
    CHECK_THROWS_WITH(parse(hostile.file), doctest::Contains("load 'x.safetensors': "));
    try {
      parse(hostile.file);
    } catch (const Error& error) {
      CHECK(std::string(error.what()).size() < 1000);
    }
  }
}

TEST_CASE("hostile files on the disk are refused likewise") {
  const TemporaryDirectory directory;
  const std::string path = directory / "hostile.safetensors";
  for (const Hostile& hostile : hostile_files()) {
    CAPTURE(hostile.what);
    std::ofstream(path, std::ios::binary) << hostile.file;
    CHECK_THROWS_WITH_AS(read_checkpoint(path), doctest::Contains(hostile.message), FormatError);
  }
}

TEST_CASE("a header longer than the limit is refused unread, although the file has it") {
  const TemporaryDirectory directory;
  const std::string path = directory / "long.safetensors";
  const std::uint64_t limit = std::uint64_t{100} << 20;
  std::ofstream(path, std::ios::binary) << length_bytes(limit + 1) << "{";
  REQUIRE(::truncate(path.c_str(), static_cast<off_t>(limit + 64)) == 0);  // a hole, no bytes
  const double begin_ms = thread_ms();
  CHECK_THROWS_WITH_AS(read_checkpoint(path),
                       doctest::Contains("104857601 at byte 0 is above the limit of 104857600"),
                       FormatError);
  CHECK(thread_ms() - begin_ms < 50);
}

TEST_CASE("every cut of a valid file is refused") {
  const std::string good =
      file_of("{\"__metadata__\":{\"k\":\"v\"}," + entry("a", "F32", "[3]", "[0,12]") + "}", 12);
  for (std::size_t size = 0; size < good.size(); ++size) {
    CAPTURE(size);
    CHECK_THROWS_AS(parse(good.substr(0, size)), FormatError);
  }
  CHECK_NOTHROW(parse(good));
}

TEST_CASE("random damage never does more than raise FormatError") {
  const std::string good =
      file_of("{\"__metadata__\":{\"k\":\"\\u00e9\"}," + entry("a", "F32", "[3,1]", "[0,12]") +
                  "," + entry("b", "I64", "[1]", "[12,20]") + "}",
              20);
  std::uint64_t state = 12345;
  const auto next = [&](std::size_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::size_t>((state >> 33) % below);
  };
  const std::string alphabet = "{}[]\",:0123456789-\\utFUIe ";
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bad = good;
    for (std::size_t edits = 1 + next(3); edits > 0; --edits) {
      const std::size_t at = next(bad.size());
      switch (next(4)) {
        case 0:
          bad[at] = static_cast<char>(next(256));
          break;
        case 1:
          bad[at] = alphabet[next(alphabet.size())];
          break;
        case 2:
          bad.erase(at, 1 + next(4));
          break;
        default:
          bad.insert(at, 1, alphabet[next(alphabet.size())]);
          break;
      }
      if (bad.empty()) break;
    }
    try {
      parse(bad);
      ++accepted;
    } catch (const FormatError&) {
    }
  }
  CHECK(accepted < 20000);
}

// Sanitizers reserve more address space than this limit leaves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("hostile files take little memory") {
  const auto files = hostile_files();
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // What the process has already plus 16 MiB.
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const auto limit =
        static_cast<rlim_t>(pages) * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + (16u << 20);
    const rlimit limits{limit, limit};
    ::setrlimit(RLIMIT_AS, &limits);
    for (const Hostile& hostile : files) {
      try {
        parse(hostile.file);
        ::_exit(1);
      } catch (const FormatError&) {
      } catch (...) {
        ::_exit(2);
      }
    }
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
#endif
