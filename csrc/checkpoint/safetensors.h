#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pycnn/tensor.h"

// The safetensors container: eight bytes of header length (little-endian), a JSON header of names,
// types, shapes and places, then the data. These functions know the header; reading and writing
// bytes is checkpoint.cpp's.
namespace pycnn::safetensors {

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{100} << 20;
constexpr std::size_t kMaxTensors = 1000000;
constexpr std::size_t kMaxRank = 8;

struct Entry {
  TensorSpec spec;
  std::uint64_t begin = 0;  // within the data
  std::size_t bytes = 0;
};

struct Header {
  std::map<std::string, Entry> tensors;
  std::map<std::string, std::string> metadata;
};

// The header length that the first bytes of a file declare, checked against the file's size.
// `start` has up to nine bytes. `where` begins the messages of the FormatErrors.
std::uint64_t header_length(std::string_view start, std::uint64_t file_bytes,
                            const std::string& where);

// Validates all that a header can say wrong: afterwards the tensors cover `data_bytes` bytes of
// data exactly, without hole or overlap.
Header parse_header(std::string_view json, std::uint64_t data_bytes, const std::string& where);

// The start of a file, length included, and the order in which the data follows.
struct Prologue {
  std::string bytes;
  std::vector<std::string> order;
};
Prologue make_prologue(const std::map<std::string, TensorSpec>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::string& where);

}  // namespace pycnn::safetensors
