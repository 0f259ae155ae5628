#include "checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "core/json.h"
#include "pycnn/error.h"

static_assert(std::endian::native == std::endian::little,
              "safetensors data is little-endian and is not converted here");

namespace pycnn::safetensors {
namespace {

constexpr const char* kMetadata = "__metadata__";
constexpr std::size_t kDataAlignment = 8;

struct TypeName {
  DType dtype;
  const char* name;
};
constexpr TypeName kTypes[] = {
    {DType::kFloat64, "F64"}, {DType::kFloat32, "F32"}, {DType::kBFloat16, "BF16"},
    {DType::kFloat16, "F16"}, {DType::kUInt8, "U8"},    {DType::kInt32, "I32"},
    {DType::kInt64, "I64"},
};

// Texts of the file that go into messages are cut: they may be megabytes long.
std::string shown(std::string_view text) {
  constexpr std::size_t kMost = 120;
  if (text.size() <= kMost) return std::string(text);
  std::size_t cut = kMost;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return std::string(text.substr(0, cut)) + "...";
}

bool has_control_character(std::string_view text) noexcept {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

DType read_dtype(JsonReader& reader) {
  const std::size_t at = reader.offset();
  const std::string name = reader.read_string();
  for (const TypeName& type : kTypes) {
    if (name == type.name) return type.dtype;
  }
  reader.fail_at(at, "element type '" + shown(name) +
                         "' is not supported, known are F64 F32 BF16 F16 U8 I32 I64");
}

Shape read_shape(JsonReader& reader) {
  Shape shape;
  reader.begin_array();
  while (reader.next_item()) {
    const std::size_t at = reader.offset();
    if (shape.size() == kMaxRank)
      reader.fail_at(at, "more than " + std::to_string(kMaxRank) + " axes");
    const std::uint64_t axis = reader.read_uint64();
    if (axis > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      reader.fail_at(at, "axis " + std::to_string(axis) + " is too long");
    }
    shape.push_back(static_cast<std::int64_t>(axis));
  }
  return shape;
}

std::map<std::string, std::string> read_metadata(JsonReader& reader) {
  std::map<std::string, std::string> metadata;
  reader.begin_object();
  std::string key;
  while (reader.next_key(key)) metadata.emplace(key, reader.read_string());
  return metadata;
}

Entry read_entry(JsonReader& reader, const std::string& where, std::uint64_t data_bytes) {
  Entry entry;
  bool has_dtype = false, has_shape = false, has_offsets = false;
  std::uint64_t end = 0;
  const std::size_t at = reader.offset();
  reader.begin_object();
  std::string field;
  while (reader.next_key(field)) {
    reader.set_where(where + " field '" + shown(field) + "'");
    if (field == "dtype") {
      entry.spec.dtype = read_dtype(reader);
      has_dtype = true;
    } else if (field == "shape") {
      entry.spec.shape = read_shape(reader);
      has_shape = true;
    } else if (field == "data_offsets") {
      reader.begin_array();
      std::uint64_t* const places[] = {&entry.begin, &end};
      for (std::uint64_t* const place : places) {
        if (!reader.next_item()) reader.fail("two numbers expected");
        *place = reader.read_uint64();
      }
      if (reader.next_item()) reader.fail("two numbers expected");
      has_offsets = true;
    } else {
      reader.fail("unknown field");
    }
    reader.set_where(where);
  }
  const char* const missing = !has_dtype     ? "dtype"
                              : !has_shape   ? "shape"
                              : !has_offsets ? "data_offsets"
                                             : nullptr;
  if (missing != nullptr) reader.fail_at(at, std::string("field '") + missing + "' is missing");

  std::size_t wanted = 0;
  try {
    wanted = byte_size(entry.spec);
  } catch (const ShapeError& error) {
    reader.fail_at(at, error.what());
  }
  const std::string offsets =
      "data_offsets [" + std::to_string(entry.begin) + ", " + std::to_string(end) + "]";
  if (entry.begin > end) reader.fail_at(at, offsets + " are reversed");
  if (end > data_bytes) {
    reader.fail_at(
        at, offsets + " end after the data, which has " + std::to_string(data_bytes) + " bytes");
  }
  if (end - entry.begin != wanted) {
    reader.fail_at(at, offsets + " hold " + std::to_string(end - entry.begin) + " bytes, " +
                           to_string(entry.spec) + " needs " + std::to_string(wanted));
  }
  entry.bytes = wanted;
  return entry;
}

void check_coverage(const std::map<std::string, Entry>& tensors, std::uint64_t data_bytes,
                    const std::string& where) {
  std::vector<std::pair<const std::string*, const Entry*>> order;
  order.reserve(tensors.size());
  for (const auto& [name, entry] : tensors) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->bytes) <
           std::pair(b.second->begin, b.second->bytes);
  });
  std::uint64_t covered = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin != covered) {
      throw FormatError(where + ": tensor '" + shown(*name) + "' begins at data byte " +
                        std::to_string(entry->begin) +
                        (entry->begin < covered ? ", inside of the tensor before it, which ends at "
                                                : ", which leaves a hole after ") +
                        std::to_string(covered));
    }
    covered += entry->bytes;
  }
  if (covered != data_bytes) {
    throw FormatError(where + ": " + std::to_string(data_bytes - covered) +
                      " bytes follow the last tensor, which ends at data byte " +
                      std::to_string(covered));
  }
}

// What a file that begins in a wrong way may be instead.
std::string guess(std::string_view start) {
  const auto begins = [&](std::string_view magic) {
    return start.substr(0, magic.size()) == magic;
  };
  const std::string rest = "; pycnn reads safetensors only";
  if (begins("PK\x03\x04"))
    return "\n  hint: this is a zip archive, as PyTorch's .pth or NumPy's .npz" + rest;
  if (begins("\x80") && start.size() > 1 && start[1] >= 2 && start[1] <= 5) {
    return "\n  hint: this looks like a pickle" + rest;
  }
  if (begins("\x89HDF")) return "\n  hint: this is an HDF5 file" + rest;
  if (begins("version "))
    return "\n  hint: this looks like a Git LFS pointer; fetch the file itself";
  return "";
}

void check_text(std::string_view text, const std::string& what, const std::string& where) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) throw ArgumentError(where + ": " + what + " is not valid UTF-8");
    i += length;
  }
}

void append_entry(std::string& json, const std::string& name, const TensorSpec& spec,
                  std::uint64_t begin, std::uint64_t end) {
  const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                 [&](auto t) { return t.dtype == spec.dtype; });
  append_json_string(json, name);
  json += ":{\"dtype\":\"" + std::string(type->name) + "\",\"shape\":[";
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    if (i > 0) json += ',';
    json += std::to_string(spec.shape[i]);
  }
  json += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

}  // namespace

std::uint64_t header_length(std::string_view start, std::uint64_t file_bytes,
                            const std::string& where) {
  if (file_bytes < kLengthBytes || start.size() < kLengthBytes) {
    throw FormatError(where + ": the file has " + std::to_string(file_bytes) +
                      " bytes, a safetensors file begins with 8 bytes of header length" +
                      guess(start));
  }
  std::uint64_t length = 0;
  std::memcpy(&length, start.data(), kLengthBytes);
  const std::uint64_t rest = file_bytes - kLengthBytes;
  if (length > rest) {
    throw FormatError(where + ": header length " + std::to_string(length) +
                      " at byte 0, but only " + std::to_string(rest) + " bytes follow" +
                      guess(start));
  }
  if (length > kMaxHeaderBytes) {
    throw FormatError(where + ": header length " + std::to_string(length) +
                      " at byte 0 is above the limit of " + std::to_string(kMaxHeaderBytes));
  }
  if (length == 0) throw FormatError(where + ": header length 0 at byte 0");
  if (start.size() <= kLengthBytes || start[kLengthBytes] != '{') {
    throw FormatError(where + ": the header does not begin with '{', at byte 8" + guess(start));
  }
  return length;
}

Header parse_header(std::string_view json, std::uint64_t data_bytes, const std::string& where) {
  Header header;
  JsonReader reader(json, where, kLengthBytes);
  reader.begin_object();
  std::string name;
  while (true) {
    const std::size_t at = reader.offset();
    if (!reader.next_key(name)) break;
    if (name == kMetadata) {
      reader.set_where(where + ": " + kMetadata);
      header.metadata = read_metadata(reader);
    } else {
      if (name.empty()) reader.fail_at(at, "a tensor has an empty name");
      if (has_control_character(name))
        reader.fail_at(at, "a tensor's name holds a control character");
      if (header.tensors.size() == kMaxTensors) {
        reader.fail_at(at, "more than " + std::to_string(kMaxTensors) + " tensors");
      }
      const std::string tensor = where + ": tensor '" + shown(name) + "'";
      reader.set_where(tensor);
      header.tensors.emplace(name, read_entry(reader, tensor, data_bytes));
    }
    reader.set_where(where);
  }
  reader.end();
  check_coverage(header.tensors, data_bytes, where);
  return header;
}

Prologue make_prologue(const std::map<std::string, TensorSpec>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::string& where) {
  if (tensors.size() > kMaxTensors) {
    throw ArgumentError(where + ": " + std::to_string(tensors.size()) + " tensors, at most " +
                        std::to_string(kMaxTensors) + " fit in a file");
  }
  Prologue prologue;
  for (const auto& [name, spec] : tensors) {
    if (name.empty() || name == kMetadata)
      throw ArgumentError(where + ": a tensor is named '" + name + "'");
    check_text(name, "a tensor name", where);
    if (has_control_character(name))
      throw ArgumentError(where + ": a tensor name holds a control character");
    if (spec.shape.size() > kMaxRank) {
      throw ArgumentError(where + ": tensor '" + shown(name) + "' " + to_string(spec.shape) +
                          " has more than " + std::to_string(kMaxRank) + " axes");
    }
    prologue.order.push_back(name);
  }
  // Large elements first, so that each tensor begins at a multiple of its element's size.
  std::stable_sort(prologue.order.begin(), prologue.order.end(),
                   [&](const std::string& a, const std::string& b) {
                     return item_bytes(tensors.at(a).dtype) > item_bytes(tensors.at(b).dtype);
                   });

  std::string json = "{";
  if (!metadata.empty()) {
    append_json_string(json, kMetadata);
    json += ":{";
    bool first = true;
    for (const auto& [key, text] : metadata) {
      check_text(key, "a metadata key", where);
      check_text(text, "metadata '" + shown(key) + "'", where);
      if (!first) json += ',';
      first = false;
      append_json_string(json, key);
      json += ':';
      append_json_string(json, text);
    }
    json += '}';
  }
  std::uint64_t end = 0;
  for (const std::string& name : prologue.order) {
    const TensorSpec& spec = tensors.at(name);
    const std::uint64_t begin = end;
    end += byte_size(spec);
    if (json.size() > 1) json += ',';
    append_entry(json, name, spec, begin, end);
  }
  json += '}';
  json.resize((json.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment, ' ');
  if (json.size() > kMaxHeaderBytes) {
    throw ArgumentError(where + ": names and metadata need " + std::to_string(json.size()) +
                        " bytes, above the limit of " + std::to_string(kMaxHeaderBytes));
  }
  const std::uint64_t length = json.size();
  prologue.bytes.assign(reinterpret_cast<const char*>(&length), kLengthBytes);
  prologue.bytes += json;
  return prologue;
}

}  // namespace pycnn::safetensors
